//! Connections of the load client, and the pool of those that are kept alive.
//!
//! A connection that its server has closed is never used for another request: an announced end
//! (`Connection: close`) takes it out of the pool at once, an unannounced one is looked for in the
//! socket itself right before each use. What remains is the request that crosses an unannounced
//! close on the wire, and that one was lost by the server.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::outcome::Server;

/// A connection that was not used for so long is closed by the client. It is shorter than any
/// server's drain, so that no server ends with a connection that was never told.
const MAX_IDLE: Duration = Duration::from_secs(2);

pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Empty<Bytes>>,
    /// A second handle of the same socket, to look at what hyper has not been told yet.
    socket: std::net::TcpStream,
    pub(crate) local_port: u16,
    pub(crate) last: Option<Server>,
    pub(crate) requests: u64,
    idle_since: Instant,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let local_port = stream.local_addr()?.port();
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        let io = TokioIo::new(TcpStream::from_std(stream)?);
        let (sender, connection) = handshake(io).await.map_err(io::Error::other)?;
        // Its errors are told to the request that they concern.
        tokio::spawn(async move { drop(connection.await) });
        let idle_since = Instant::now();
        Ok(Self { sender, socket, local_port, last: None, requests: 0, idle_since })
    }

    fn is_open(&self) -> bool {
        let silent = self.socket.peek(&mut [0]);
        let silent = silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        silent && !self.sender.is_closed()
    }

    /// Whether a request can be sent now; waits until the one before is done with.
    pub(crate) async fn is_usable(&mut self) -> bool {
        self.sender.ready().await.is_ok() && self.is_open()
    }
}

/// Connections that are kept alive, used in turn, so that none rests while others work.
pub(crate) struct Pool {
    size: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: VecDeque<Connection>,
    busy: usize,
    found_closed: u64,
}

/// The right to one connection of the pool, given back by dropping it.
pub(crate) struct Place(Arc<Pool>);

impl Pool {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, inner: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection, or none, if the pool is not yet full or all are busy: then the caller
    /// opens one.
    pub(crate) fn take(self: &Arc<Self>) -> (Place, Option<Connection>) {
        let mut inner = self.lock();
        let known = inner.idle.len();
        inner.idle.retain(Connection::is_open);
        inner.found_closed += (known - inner.idle.len()) as u64;
        inner.idle.retain(|connection| connection.idle_since.elapsed() < MAX_IDLE);
        let full = inner.idle.len() + inner.busy >= self.size;
        let connection = if full { inner.idle.pop_front() } else { None };
        inner.busy += 1;
        (Place(self.clone()), connection)
    }

    /// How many connections were found closed by their server without announcement.
    pub(crate) fn found_closed(&self) -> u64 {
        self.lock().found_closed
    }
}

impl Place {
    /// Gives a connection back that can be used again.
    pub(crate) fn keep(self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let mut inner = self.0.lock();
        if inner.idle.len() < self.0.size {
            inner.idle.push_back(connection);
        }
    }

    /// Notes that the connection closed between the look at it and its use.
    pub(crate) fn found_closed(&self) {
        self.0.lock().found_closed += 1;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn pair() -> (Connection, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().unwrap();
        (connection, server)
    }

    #[tokio::test]
    async fn an_end_is_seen_before_the_runtime_has_seen_it() {
        let (mut connection, server) = pair().await;
        assert!(connection.is_usable().await);
        drop(server);
        // Nothing was awaited since: only the socket knows.
        assert!(!connection.is_open());
    }

    #[tokio::test]
    async fn a_rested_connection_is_not_used() {
        let (pool, (mut connection, _server)) = (Pool::new(1), pair().await);
        pool.take().0.keep(connection);
        connection = pool.take().1.unwrap();
        pool.take().0.keep(connection);
        pool.lock().idle[0].idle_since -= MAX_IDLE;
        assert!(pool.take().1.is_none());
        assert_eq!(pool.found_closed(), 0);
    }

    #[tokio::test]
    async fn connections_are_used_in_turn() {
        let pool = Pool::new(2);
        let ((first, _a), (second, _b)) = (pair().await, pair().await);
        let ports = [first.local_port, second.local_port, first.local_port];
        for connection in [first, second] {
            pool.take().0.keep(connection);
        }
        for port in ports {
            let (place, connection) = pool.take();
            let connection = connection.unwrap();
            assert_eq!(connection.local_port, port);
            place.keep(connection);
        }
    }
}
