//! The word to end: a pod that is evicted or deleted has some seconds to leave things as they should be.

use tokio::sync::watch;

/// Where the word is heard. Clones hear it all.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Where it is given.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// Returns once the word was given; never, if there is nobody left to give it.
    pub async fn asked(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Stopper {
    /// Gives it.
    pub fn stop(&self) {
        let _ = self.0.send(true);
    }
}
