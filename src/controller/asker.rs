//! Asks the engine's questions, each in a task of its own, and keeps each answer until its question is no
//! longer named. All of it can be lost: questions are asked again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{
    sync::{AcquireError, Semaphore},
    task::AbortHandle,
};

use crate::{
    api::Timestamp,
    checks,
    engine::{Answer, Ask, KnownProviders, Question, Reply},
    metrics::Providers,
};

use super::{key::Key, queue::Queue};

/// Questions of one kind that are asked at the same time for one namespace, or of one provider; the others wait for
/// their turn. What never answers holds up nobody else's release.
const MOST: usize = 16;
/// So many are known before those whom nobody asks for are forgotten.
const FORGOTTEN: usize = 256;
/// Logs that are read at the same time for one namespace, and in all: each may be some MiB.
const MOST_LOGS: usize = 4;
const MOST_LOGS_IN_ALL: usize = 16;

/// See the module.
pub struct Asker {
    open: Mutex<HashMap<Key, HashMap<String, Entry>>>,
    queue: Arc<Queue>,
    turns: Turns,
    http: checks::Client,
    hosts: Arc<checks::AllowedHosts>,
    cluster: kube::Client,
    providers: Providers,
    known_providers: Arc<KnownProviders>,
    since: OnceLock<Timestamp>,
}

/// Who asks how much at the same time.
struct Turns {
    all: Mutex<HashMap<Whom, Arc<Semaphore>>>,
    logs: Arc<Semaphore>,
}

/// Who shares turns.
#[derive(PartialEq, Eq, Hash)]
enum Whom {
    /// Checks by HTTP of a namespace.
    Http(Arc<str>),
    /// Logs of a namespace.
    Logs(Arc<str>),
    /// Metrics of a provider and a namespace.
    Metrics(String, Arc<str>),
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Mutex::default(), logs: Arc::new(Semaphore::new(MOST_LOGS_IN_ALL)) }
    }
}

impl Turns {
    /// Waits for the turn of a question, which lasts as long as what is returned.
    async fn wait(&self, key: &Key, ask: &Ask) -> Result<impl Sized + use<>, AcquireError> {
        let own = self.of(key, ask).acquire_owned().await?;
        let among_all = match ask {
            Ask::Logs(_) => Some(self.logs.clone().acquire_owned().await?),
            Ask::Http(_) | Ask::Metric { .. } => None,
        };
        Ok((own, among_all))
    }

    fn of(&self, key: &Key, ask: &Ask) -> Arc<Semaphore> {
        let (whom, most) = match ask {
            Ask::Http(_) => (Whom::Http(key.namespace.clone()), MOST),
            Ask::Logs(_) => (Whom::Logs(key.namespace.clone()), MOST_LOGS),
            Ask::Metric { provider, .. } => (Whom::Metrics(provider.clone(), key.namespace.clone()), MOST),
        };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whom nobody waits for are forgotten, so that names come and go.
        if all.len() > FORGOTTEN {
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        all.entry(whom).or_insert_with(|| Arc::new(Semaphore::new(most))).clone()
    }
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
        let known_providers = Arc::new(providers.fields());
        let turns = Turns::default();
        Ok(Self {
            open: Mutex::default(),
            queue,
            turns,
            http,
            hosts: Arc::new(hosts),
            cluster,
            providers,
            known_providers,
            since: OnceLock::new(),
        })
    }

    /// The same, with nothing asked yet.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self {
            open: Mutex::default(),
            queue: self.queue.clone(),
            turns: Turns::default(),
            http: self.http.clone(),
            hosts: self.hosts.clone(),
            cluster: self.cluster.clone(),
            providers: self.providers.clone(),
            known_providers: self.known_providers.clone(),
            since: OnceLock::new(),
        }
    }

    /// The providers that metrics may name.
    pub fn known_providers(&self) -> Arc<KnownProviders> {
        self.known_providers.clone()
    }

    /// The hosts beyond a release that checks may ask.
    pub fn allowed_hosts(&self) -> Arc<checks::AllowedHosts> {
        self.hosts.clone()
    }

    /// Since when it is asked: the first pass of the process that leads.
    pub fn since(&self) -> Timestamp {
        *self.since.get_or_init(|| Timestamp::new(jiff::Timestamp::now()))
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
            let Ok(_turn) = asker.turns.wait(&key, &ask).await else { return };
            let began = Timestamp::new(jiff::Timestamp::now());
            let reply = asker.reply(&ask, began).await;
            let at = match (&ask, &reply) {
                // To the millisecond: the next look begins where this one did, and what it counts ends there.
                (Ask::Logs(_), Reply::Check { took, .. }) => began.plus(*took),
                _ => Timestamp::new(jiff::Timestamp::now()),
            };
            let answer = Answer { id, at, reply };
            if let Some(entry) = asker.open().get_mut(&key).and_then(|known| known.get_mut(&answer.id)) {
                *entry = Entry::Answered(answer);
            }
            asker.queue.wake(key);
        });
        Entry::Asking(task.abort_handle())
    }

    async fn reply(&self, ask: &Ask, began: Timestamp) -> Reply {
        match ask {
            Ask::Http(question) => match question.http.host.as_deref().filter(|host| !self.hosts.allows(host)) {
                Some(host) => checks::not_allowed(host),
                None => self.http.ask(question).await,
            },
            Ask::Logs(question) => checks::logs::ask(&self.cluster, question, began).await,
            Ask::Metric { provider, measure } => self.providers.measure(provider, measure).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::engine::{HttpQuestion, LogsQuestion, Measure};

    fn http() -> Ask {
        let http = serde_json::from_str("{}").unwrap();
        Ask::Http(Box::new(HttpQuestion { addresses: Vec::new(), http, timeout: crate::api::Duration::default() }))
    }

    fn metric(provider: &str) -> Ask {
        let measure = Measure::Value { query: "up".into(), requests: None };
        Ask::Metric { provider: provider.into(), measure: Box::new(measure) }
    }

    fn logs() -> Ask {
        let logs = serde_json::from_str(r#"{"pattern": "error"}"#).unwrap();
        let (since, timeout) = (Timestamp::from_millis(0), crate::api::Duration::default());
        Ask::Logs(Box::new(LogsQuestion { namespace: "one".into(), pods: Vec::new(), logs, since, timeout }))
    }

    #[tokio::test]
    async fn logs_that_never_come_hold_up_nobody_elses_release() {
        let turns = Turns::default();
        let (one, other) = (Key::new("one", "shop"), Key::new("other", "shop"));
        let mut held = Vec::new();
        for _ in 0..MOST_LOGS {
            held.push(turns.wait(&one, &logs()).await.unwrap());
        }
        assert!(turns.wait(&one, &logs()).now_or_never().is_none(), "it waits for its own");
        assert!(turns.wait(&other, &logs()).now_or_never().is_some());
        for namespace in 1..MOST_LOGS_IN_ALL / MOST_LOGS {
            for _ in 0..MOST_LOGS {
                held.push(turns.wait(&Key::new(&namespace.to_string(), "shop"), &logs()).await.unwrap());
            }
        }
        assert!(turns.wait(&other, &logs()).now_or_never().is_none(), "so much is in memory");
        held.pop();
        assert!(turns.wait(&other, &logs()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_never_answers_holds_up_nobody_elses_release() {
        let turns = Turns::default();
        let (one, other) = (Key::new("one", "shop"), Key::new("other", "shop"));
        let held: Vec<_> = (0..MOST).map(|_| turns.of(&one, &http()).try_acquire_owned().unwrap()).collect();
        let slow: Vec<_> = (0..MOST).map(|_| turns.of(&one, &metric("slow")).try_acquire_owned().unwrap()).collect();
        assert!(turns.of(&one, &http()).try_acquire_owned().is_err(), "it waits for its own");
        assert!(turns.of(&one, &metric("slow")).try_acquire_owned().is_err());
        assert!(turns.of(&other, &http()).try_acquire_owned().is_ok());
        assert!(turns.of(&other, &metric("slow")).try_acquire_owned().is_ok());
        assert!(turns.of(&one, &metric("quick")).try_acquire_owned().is_ok());
        drop((held, slow));
        assert!(turns.of(&one, &http()).try_acquire_owned().is_ok());
    }

    #[test]
    fn turns_that_nobody_waits_for_are_forgotten() {
        let turns = Turns::default();
        let kept = turns.of(&Key::new("kept", "shop"), &http());
        let _turn = kept.clone().try_acquire_owned().unwrap();
        for namespace in 0..10 * FORGOTTEN {
            turns.of(&Key::new(&namespace.to_string(), "shop"), &http());
        }
        assert!(turns.all.lock().unwrap().len() <= FORGOTTEN + 1);
        assert!(Arc::ptr_eq(&kept, &turns.of(&Key::new("kept", "shop"), &http())));
    }
}
