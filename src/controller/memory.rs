//! What the controller remembers of each release between passes. All of it can be lost: it saves
//! calls and paces tries, and decides nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    api::ServiceRelease,
    engine::{Denial, TemplateCheck},
};

use super::{cache::Kind, calls::CallError, key::Key};

/// The first delay after a failure.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// How long after a failure not even an event leads to another pass.
const REST: Duration = Duration::from_secs(1);
/// The first delay after a conflict: the cache usually has the newer version by then.
const CONFLICT_DELAY: Duration = Duration::from_millis(25);
/// The longest after conflicts.
const LONGEST_CONFLICT_DELAY: Duration = Duration::from_secs(2);
/// How long a refusal holds that may have other reasons than the template, such as a policy or a quota.
const REFUSAL_HOLDS: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    releases: Mutex<HashMap<Key, Remembered>>,
}

#[derive(Debug, Default)]
struct Remembered {
    failures: u32,
    conflicts: u32,
    rest_until: Option<Instant>,
    doubts: HashSet<(Kind, Key)>,
    status_written: Option<Instant>,
    checked: Option<Checked>,
    refusal: Option<Denial>,
}

#[derive(Debug)]
struct Checked {
    uid: String,
    hash: String,
    generation: i64,
    answer: TemplateCheck,
    until: Option<Instant>,
}

impl Checked {
    fn about(&self, release: &ServiceRelease, hash: &str) -> bool {
        let meta = &release.metadata;
        // A refusal is asked about again when somebody touched the object.
        let touched = meta.generation != Some(self.generation);
        let stale = touched && self.answer != TemplateCheck::Passed;
        meta.uid.as_deref() == Some(&self.uid) && self.hash == hash && !stale
    }
}

/// The API server's answer about a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub check: TemplateCheck,
    /// After how long it is to be asked again.
    pub again: Option<Duration>,
}

impl Memory {
    fn with<T>(&self, key: &Key, act: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut releases: MutexGuard<'_, _> = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        act(releases.entry(key.clone()).or_default())
    }

    fn peek<T>(&self, key: &Key, look: impl FnOnce(&Remembered) -> Option<T>) -> Option<T> {
        look(self.releases.lock().unwrap_or_else(PoisonError::into_inner).get(key)?)
    }

    /// Forgets a release that is gone.
    pub fn forget(&self, key: &Key) {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Whether this is the first that is heard of a release.
    #[must_use]
    pub fn is_new(&self, key: &Key) -> bool {
        self.peek(key, |_| Some(())).is_none()
    }

    /// A pass went through: the next failure is the first again. Says whether something had been refused
    /// before.
    pub fn succeeded(&self, key: &Key) -> bool {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = releases.get_mut(key) else { return false };
        known.failures = 0;
        known.conflicts = 0;
        known.rest_until = None;
        known.refusal.take().is_some()
    }

    /// Remembers what the API server refused.
    pub fn refused(&self, key: &Key, refusal: Denial) {
        self.with(key, |known| known.refusal = Some(refusal));
    }

    /// What it refused in the last pass.
    #[must_use]
    pub fn refusal(&self, key: &Key) -> Option<Denial> {
        self.peek(key, |known| known.refusal.clone())
    }

    /// How long to wait after one more failure.
    #[must_use]
    pub fn failed(&self, key: &Key) -> Duration {
        self.with(key, |known| {
            let delay = grown(FIRST_DELAY, LONGEST_DELAY, known.failures);
            known.failures = known.failures.saturating_add(1);
            known.rest_until = Some(Instant::now() + delay.min(REST));
            delay
        })
    }

    /// How long a release that failed has to be left alone, whatever happens.
    #[must_use]
    pub fn resting(&self, key: &Key) -> Option<Duration> {
        let left = self.peek(key, |known| known.rest_until?.checked_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero())
    }

    /// How long to wait after one more conflict, and how many there were in a row.
    #[must_use]
    pub fn conflicted(&self, key: &Key) -> (Duration, u32) {
        self.with(key, |known| {
            let delay = grown(CONFLICT_DELAY, LONGEST_CONFLICT_DELAY, known.conflicts);
            known.conflicts = known.conflicts.saturating_add(1);
            (delay, known.conflicts)
        })
    }

    /// Remembers a write that may have happened.
    pub fn doubt(&self, key: &Key, kind: Kind, object: Key) {
        self.with(key, |known| known.doubts.insert((kind, object)));
    }

    /// The writes that may have happened.
    #[must_use]
    pub fn doubts(&self, key: &Key) -> Vec<(Kind, Key)> {
        self.peek(key, |known| Some(known.doubts.iter().cloned().collect())).unwrap_or_default()
    }

    /// What became of such a write is known.
    pub fn settled(&self, key: &Key, kind: Kind, object: &Key) {
        self.with(key, |known| known.doubts.remove(&(kind, object.clone())));
    }

    /// The status was written now.
    pub fn status_written(&self, key: &Key) {
        self.with(key, |known| known.status_written = Some(Instant::now()));
    }

    /// How long ago the status was written, if it was.
    #[must_use]
    pub fn status_age(&self, key: &Key) -> Option<Duration> {
        self.peek(key, |known| known.status_written.map(|at| at.elapsed()))
    }

    /// What the API server said of a template, if it was asked and that still holds.
    #[must_use]
    pub fn checked(&self, key: &Key, release: &ServiceRelease, hash: &str) -> Option<Answer> {
        self.peek(key, |known| {
            let checked = known.checked.as_ref().filter(|checked| checked.about(release, hash))?;
            let again = checked.until.map(|until| until.saturating_duration_since(Instant::now()));
            (again != Some(Duration::ZERO)).then(|| Answer { check: checked.answer.clone(), again })
        })
    }

    /// Remembers what the API server said of a template; none if it gave no answer.
    pub fn learn(
        &self,
        key: &Key,
        release: &ServiceRelease,
        hash: &str,
        answer: &Result<(), CallError>,
    ) -> Option<Answer> {
        let (check, holds) = match answer {
            Ok(()) => (TemplateCheck::Passed, None),
            Err(CallError::Exists { .. }) => (TemplateCheck::NameTaken, None),
            Err(CallError::Refused { code, message, .. }) => {
                let template_itself = matches!(code, 400 | 422);
                let holds = (!template_itself).then_some(REFUSAL_HOLDS);
                (TemplateCheck::Refused(message.clone()), holds)
            }
            Err(_) => return None,
        };
        let checked = Checked {
            uid: release.metadata.uid.clone().unwrap_or_default(),
            hash: hash.to_owned(),
            generation: release.metadata.generation.unwrap_or_default(),
            answer: check.clone(),
            until: holds.map(|holds| Instant::now() + holds),
        };
        self.with(key, |known| known.checked = Some(checked));
        Some(Answer { check, again: holds })
    }

    /// Remembers that a ReplicaSet could not be made, as the answer about its template.
    pub fn creation_failed(&self, key: &Key, release: &ServiceRelease, hash: &str, error: &CallError) {
        let answer = match error {
            CallError::Exists { what } => Err(CallError::Exists { what: what.clone() }),
            CallError::Refused { what, code, message } => {
                Err(CallError::Refused { what: what.clone(), code: *code, message: message.clone() })
            }
            _ => return,
        };
        let _ = self.learn(key, release, hash, &answer);
    }
}

/// Doubled with each failure, and spread so that many do not come back at once.
fn grown(first: Duration, longest: Duration, failures: u32) -> Duration {
    let factor = 1u32 << failures.min(16);
    let delay = first.saturating_mul(factor).min(longest);
    delay.mul_f64(0.75 + fastrand::f64() * 0.25)
}
