//! The work queue: each release at most once, never two passes over one at the same time, and one
//! timer for each, set by its last pass.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::key::Key;

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were woken; `queued` has the same keys.
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Woken while running: due again when the pass is over.
    again: HashSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
    timer_of: HashMap<Key, Instant>,
}

impl State {
    fn wake(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn disarm(&mut self, key: &Key) {
        if let Some(at) = self.timer_of.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    fn ring(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, key));
                break;
            }
            self.timer_of.remove(&key);
            self.wake(key);
        }
    }

    fn take(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.disarm(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a release due now.
    pub fn wake(&self, key: Key) {
        self.state().wake(key);
        self.changed.notify_one();
    }

    /// The next release that is due, as soon as there is one. Whoever takes it calls
    /// [`Queue::done`]. For one caller at a time.
    pub async fn next(&self) -> Key {
        loop {
            let alarm = {
                let mut state = self.state();
                state.ring(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            let changed = self.changed.notified();
            match alarm {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Ends the pass over a release; `after` is when to look again if nothing happens before.
    pub fn done(&self, key: &Key, after: Option<Duration>) {
        let mut state = self.state();
        state.running.remove(key);
        if state.again.remove(key) {
            state.wake(key.clone());
        }
        state.disarm(key);
        // A timer that cannot be expressed is one that nobody lives to see.
        if let Some(at) = after.and_then(|after| Instant::now().checked_add(after)) {
            state.timer_of.insert(key.clone(), at);
            state.timers.insert((at, key.clone()));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Releases that are due, and not being looked at yet.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.state().ready.len()
    }

    /// Releases that are being looked at.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state().running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_woken_often_is_taken_once() {
        let queue = Queue::default();
        queue.wake(key("a"));
        queue.wake(key("b"));
        queue.wake(key("a"));
        assert_eq!((queue.next().await, queue.depth()), (key("a"), 1));
        assert_eq!((queue.next().await, queue.depth()), (key("b"), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_woken_during_its_pass_waits_for_its_end() {
        let queue = Queue::default();
        queue.wake(key("a"));
        let running = queue.next().await;
        queue.wake(key("a"));
        assert_eq!(queue.depth(), 0);
        queue.done(&running, None);
        assert_eq!(queue.next().await, key("a"));
        queue.done(&running, None);
        assert_eq!((queue.depth(), queue.running()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_rings_on_time_and_the_last_pass_sets_it() {
        let queue = Queue::default();
        let start = Instant::now();
        for (name, millis) in [("slow", 500), ("quick", 20), ("slow", 1500)] {
            queue.wake(key(name));
            let taken = queue.next().await;
            queue.done(&taken, Some(Duration::from_millis(millis)));
        }
        assert_eq!(queue.next().await, key("quick"));
        assert_eq!(start.elapsed(), Duration::from_millis(20));
        assert_eq!(queue.next().await, key("slow"));
        assert_eq!(start.elapsed(), Duration::from_millis(1500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_before_the_timer_takes_its_place() {
        let queue = Queue::default();
        queue.wake(key("a"));
        let taken = queue.next().await;
        queue.done(&taken, Some(Duration::from_secs(60)));
        queue.wake(key("a"));
        let taken = queue.next().await;
        queue.done(&taken, None);
        assert!(queue.state().timers.is_empty());
        assert!(queue.state().timer_of.is_empty());
    }
}
