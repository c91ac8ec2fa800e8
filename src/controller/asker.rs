//! Asks the engine's questions, each in a task of its own, and keeps each answer until its question is no
//! longer named. All of it can be lost: questions are asked again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Semaphore, task::AbortHandle};

use crate::{
    api::Timestamp,
    checks,
    engine::{Answer, Ask, Question, Reply},
    metrics::Providers,
};

use super::{key::Key, queue::Queue};

/// Questions that are asked at the same time; the others wait for their turn.
const MOST: usize = 64;

/// See the module.
pub struct Asker {
    open: Mutex<HashMap<Key, HashMap<String, Entry>>>,
    queue: Arc<Queue>,
    turns: Semaphore,
    http: checks::Client,
    hosts: checks::AllowedHosts,
    cluster: kube::Client,
    providers: Providers,
}

enum Entry {
    Asking(AbortHandle),
    Answered(Answer),
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Self::Asking(task) = self {
            task.abort();
        }
    }
}

impl Asker {
    /// One that makes a release due when an answer has come.
    ///
    /// # Errors
    /// Without cryptography.
    pub fn new(
        queue: Arc<Queue>,
        cluster: kube::Client,
        providers: Providers,
        hosts: checks::AllowedHosts,
    ) -> reqwest::Result<Self> {
        let http = checks::Client::new()?;
        Ok(Self { open: Mutex::default(), queue, turns: Semaphore::new(MOST), http, hosts, cluster, providers })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, HashMap<String, Entry>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was answered and is still asked.
    pub fn answers(&self, key: &Key) -> Vec<Answer> {
        let open = self.open();
        let answered = |entry: &Entry| match entry {
            Entry::Answered(answer) => Some(answer.clone()),
            Entry::Asking(_) => None,
        };
        open.get(key).into_iter().flat_map(HashMap::values).filter_map(answered).collect()
    }

    /// Makes these the open questions of a release.
    pub fn keep(self: &Arc<Self>, key: &Key, questions: Vec<Question>) {
        let mut open = self.open();
        if questions.is_empty() {
            open.remove(key);
            return;
        }
        let known = open.entry(key.clone()).or_default();
        known.retain(|id, _| questions.iter().any(|question| question.id == *id));
        for question in questions {
            known.entry(question.id.clone()).or_insert_with(|| self.ask(key.clone(), question));
        }
    }

    fn ask(self: &Arc<Self>, key: Key, question: Question) -> Entry {
        let asker = self.clone();
        let task = tokio::spawn(async move {
            let Question { id, ask } = question;
            let Ok(_turn) = asker.turns.acquire().await else { return };
            let reply = asker.reply(&ask).await;
            let answer = Answer { id, at: Timestamp::new(jiff::Timestamp::now()), reply };
            if let Some(entry) = asker.open().get_mut(&key).and_then(|known| known.get_mut(&answer.id)) {
                *entry = Entry::Answered(answer);
            }
            asker.queue.wake(key);
        });
        Entry::Asking(task.abort_handle())
    }

    async fn reply(&self, ask: &Ask) -> Reply {
        match ask {
            Ask::Http(question) => match question.http.host.as_deref().filter(|host| !self.hosts.allows(host)) {
                Some(host) => checks::not_allowed(host),
                None => self.http.ask(question).await,
            },
            Ask::Logs(question) => checks::logs::ask(&self.cluster, question).await,
            Ask::Metric { provider, measure } => self.providers.measure(provider, measure).await,
        }
    }
}
