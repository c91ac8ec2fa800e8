//! A way to the server that breaks where a test wants it to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The message: the server never sees it.
    Message,
    /// The answer to it.
    Answer,
}

/// A running way.
pub struct Way {
    /// The port that leads to the server.
    pub port: u16,
    /// Messages of clients until now.
    seen: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Way {
    /// One that breaks at the n-th message of a client, counted from 0 over all connections, once.
    pub async fn start(server: u16, at: usize, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                tokio::spawn(carry(client, server, count.clone(), at, cut));
            }
        });
        Self { port, seen, serving }
    }

    /// How many messages there were.
    pub fn messages(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

/// Carries bytes both ways until one side ends, or the way breaks.
async fn carry(mut client: TcpStream, mut server: TcpStream, seen: Arc<AtomicUsize>, at: usize, cut: Cut) {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut breaking = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let now = seen.fetch_add(1, Ordering::SeqCst) == at;
                if now && cut == Cut::Message {
                    return;
                }
                breaking |= now;
                if server.write_all(&from_client[..length]).await.is_err() { return }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                if breaking { return }
                if client.write_all(&from_server[..length]).await.is_err() { return }
            }
        }
    }
}
