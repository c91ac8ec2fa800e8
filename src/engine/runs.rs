//! Checks that a Job answers: one Job for each attempt, made once it is on record.

use crate::api::{Check, CheckOutcome, CheckStatus, Database, Duration, Timestamp, status::bounded};

use super::{
    addresses::{addresses, request},
    checks::{self, Heard},
    database,
    effect::{Effect, NewJob, Run},
    inquiry::{HttpQuestion, SqlQuestion, timed},
    observed::{Denial, Job, JobEnd, JobPod, TIME_OVER},
    pass::Pass,
    retreat, revision,
};

/// How long the pod of a check that asks by itself may take to start.
const START: Duration = Duration::from_secs(120);
/// What of a name of the user's stands in a Job's.
const MOST_NAME: usize = 24;
/// How long nodes may take to send what goes to a Service where its EndpointSlices say: kube-proxy gathers changes for a second
/// (`iptables.minSyncPeriod` of its configuration) before it writes its rules. Until then a connection is refused, or leads
/// to pods of before.
const FOLLOWED: Duration = Duration::from_secs(2);
/// By how much the cache of pods may be behind that of Jobs.
const BEHIND: Duration = Duration::from_secs(5);
/// What is told of a Job whose pod somebody deleted.
pub const TAKEN_AWAY: &str = "its pod was deleted before it had ended by itself";
/// How long a Job may take to have a pod before that is told.
const PODLESS: Duration = Duration::from_secs(10);
/// What a Job waits for that gets no pod. Its Events say more, which the operator does not read.
pub const NO_POD: &str = "no pod of it can be made: its service account (runner.serviceAccountName, or its template's) may not exist, \
                          or a quota or an admission policy refuses";

/// The name of the Job of an attempt: at most 63 characters, since pods have it as a label.
fn name(pass: &Pass<'_>, state: &CheckStatus) -> String {
    let release = pass.release.metadata.name.as_deref().unwrap_or_default();
    let begin = |name: &str| name[..name.floor_char_boundary(MOST_NAME)].trim_end_matches(['-', '.']).replace('.', "-");
    format!("{}-{}-{}", begin(release), begin(&state.name), revision::short(&checks::id(state)))
}

fn job<'a>(pass: &Pass<'a>, state: &CheckStatus) -> Option<&'a Job> {
    let name = name(pass, state);
    pass.seen.jobs.iter().find(|job| job.object.name == name && !job.deleting)
}

/// What a Job waits for that was due at a moment, in the words of whoever holds up its pod.
pub fn waits_for(pass: &mut Pass<'_>, job: &Job, due: Timestamp) -> Option<String> {
    let podless = job.pod == JobPod::NotYet && pass.elapsed(due, PODLESS);
    job.stuck.clone().or_else(|| podless.then(|| NO_POD.to_owned()))
}

/// What the API server has against a Job, if it refused it in the last pass.
pub fn denied<'a>(pass: &Pass<'a>, name: &str) -> Option<&'a Denial> {
    pass.seen.refusal.as_ref().filter(|denial| {
        let (object, _) =
            denial.text.strip_prefix("create Job ").and_then(|rest| rest.split_once(": ")).unwrap_or_default();
        object.rsplit('/').next() == Some(name)
    })
}

/// Whether a Job of the user's did what it was to do. One whose pod somebody deleted did not, although a program that is
/// told to end may exit with 0. None: its pod may be behind in the cache.
pub fn success(pass: &mut Pass<'_>, job: &Job, end: &JobEnd) -> Option<bool> {
    match job.pod {
        JobPod::Gone if end.succeeded => pass.elapsed(end.at, BEHIND).then_some(false),
        _ => Some(end.succeeded),
    }
}

/// How the attempt under way ended, if it has.
pub fn heard(pass: &mut Pass<'_>, check: &Check, state: &CheckStatus) -> Option<Heard> {
    let name = name(pass, state);
    let ended = job(pass, state).and_then(|job| Some((job, job.end.as_ref()?)));
    if let Some((job, end)) = ended {
        let succeeded = success(pass, job, end)?;
        let lived = Duration::from_millis(end.took);
        let ran = format!("Job {name} in {lived}");
        // A pod has to be scheduled and started before it asks: what the answer took it alone knows.
        let timed = check.http.as_ref().and_then(|_| timed(&end.message));
        let (took, message) = timed.unwrap_or_else(|| (lived, end.message.clone()));
        // What it had to say of its own, where all is well.
        let said = message.strip_prefix("exit code 0: ").filter(|_| succeeded);
        let message = match end.succeeded {
            true => TAKEN_AWAY.to_owned(),
            false => fault(pass, check, state, &name, &message),
        };
        let seen = said.map_or(ran.clone(), |said| format!("{} ({ran})", bounded(said.trim(), 160)));
        // By the Job controller's clock: this one's may be ahead of it, and the attempt has begun by this one's.
        let begun = state.answered_at.unwrap_or(state.started_at);
        return Some(Heard { at: end.at.max(begun).min(pass.now), fault: (!succeeded).then_some(message), seen, took });
    }
    let denial = denied(pass, &name).filter(|denial| denial.definite)?;
    let fault = Some(bounded(&denial.text, 200));
    Some(Heard { at: pass.now, fault, seen: "not run".into(), took: Duration::default() })
}

/// Why an attempt failed, by how its Job ended.
fn fault(pass: &Pass<'_>, check: &Check, state: &CheckStatus, name: &str, ended: &str) -> String {
    if let Some(said) = ended.strip_prefix(TIME_OVER) {
        return bounded(&format!("not done within {}: {said}", check.timeout()), 200);
    }
    // The Job controller's own words: no container has ended.
    let late = ended.starts_with("DeadlineExceeded");
    let unsaid = late || ended.starts_with("BackoffLimitExceeded");
    let gone = job(pass, state).is_some_and(|job| job.pod == JobPod::Gone);
    let waited = unsaid.then(|| never_started(pass, check, state, name)).flatten();
    waited.unwrap_or_else(|| match late {
        true => format!("not done within {}", check.timeout()),
        false if unsaid && gone => TAKEN_AWAY.to_owned(),
        false => bounded(ended, 160),
    })
}

/// What the pod of an attempt waited for until its time was over.
fn never_started(pass: &Pass<'_>, check: &Check, state: &CheckStatus, name: &str) -> Option<String> {
    let why = state.message.strip_prefix(&format!("Job {name} waits: "))?;
    if why == NO_POD {
        return Some(format!("{NO_POD}: kubectl describe job {name}"));
    }
    let Some((object, what)) = database::lacking::object(why) else {
        return Some(bounded(&format!("its pod did not start: {why}"), 160));
    };
    let place = pass.policy().checks.iter().position(|known| known.name == check.name).unwrap_or_default();
    let field = match (&check.job, &check.http, &check.sql) {
        (Some(_), ..) => "job.template",
        (_, Some(_), _) => "http.headers",
        (.., Some(_)) => "sql.urlFrom",
        _ => "keys",
    };
    let told =
        format!("{object}, which spec.checks[{place}].{field} names, {what}: make it or name another, then retry");
    Some(bounded(&told, 200))
}

/// Has it run, if it does not yet.
///
/// # Errors
/// There is nobody whom it could ask.
pub fn inquire(pass: &mut Pass<'_>, check: &Check, state: &mut CheckStatus) -> Result<(), &'static str> {
    let name = name(pass, state);
    state.job = Some(name.clone());
    if let Some(job) = job(pass, state) {
        if job.pod.is_past() {
            return Ok(());
        }
        let due = state.answered_at.map_or(state.started_at, |at| at.plus(check.interval));
        let waits = waits_for(pass, job, due).map(|why| format!("Job {name} waits: {why}"));
        state.message = bounded(&waits.unwrap_or_else(|| format!("Job {name} runs")), 256);
        return Ok(());
    }
    let run = work(pass, check, state)?;
    let by_service = matches!(run, Run::Pod(_)) && !state.when.is_before_pods() && state.answered_at.is_none();
    if by_service && !pass.elapsed(state.started_at, FOLLOWED) {
        return Ok(());
    }
    if let Some(denial) = denied(pass, &name) {
        state.message = bounded(&denial.text, 256);
    }
    // Its pod has to be scheduled first.
    let timeout = match &run {
        Run::Http(_) | Run::Sql(_) => {
            Duration::from_millis(check.timeout().as_millis().saturating_add(START.as_millis()))
        }
        _ => check.timeout(),
    };
    let new = new_job(pass, name, run, timeout);
    pass.after.push(Effect::CreateJob(Box::new(new)));
    Ok(())
}

/// A Job of the release, with what its containers know of it.
pub fn new_job(pass: &Pass<'_>, name: String, run: Run, timeout: Duration) -> NewJob {
    let metadata = &pass.release.metadata;
    let traffic = pass.traffic_spec();
    let service = traffic.map(|traffic| traffic.service.clone()).unwrap_or_default();
    // Once there is no candidate, its Service selects nothing. Without one of its own, nothing leads to it alone: a script
    // that goes by the name fails, and does not try stable in its place.
    let candidate = match pass.candidate_hash() {
        Some(_) => traffic.and_then(|traffic| traffic.candidate_service.clone()),
        None => Some(service.clone()),
    };
    let env = [
        ("RELEASE_NAMESPACE", metadata.namespace.clone().unwrap_or_default()),
        ("RELEASE_NAME", metadata.name.clone().unwrap_or_default()),
        ("RELEASE_REVISION", pass.candidate_hash().or(pass.stable_hash()).unwrap_or_default().to_owned()),
        ("RELEASE_SERVICE", service),
    ];
    let env = env.into_iter().chain(candidate.map(|candidate| ("RELEASE_CANDIDATE_SERVICE", candidate)));
    let services = [&pass.seen.service, &pass.seen.candidate_service];
    let selectors = services.into_iter().flatten().flat_map(|service| service.selector.keys());
    let never = selectors.cloned().chain(pass.traffics().match_labels().into_keys()).collect();
    let env = env.map(|(name, value)| (name.to_owned(), value)).collect();
    NewJob { name, run, timeout, env, never, owned: true }
}

/// What the Job of an attempt is to do, or why there is nothing to be done.
fn work(pass: &Pass<'_>, check: &Check, state: &CheckStatus) -> Result<Run, &'static str> {
    let timeout = check.timeout();
    match (&check.job, &check.http, &check.sql) {
        (Some(job), _, _) => Ok(Run::Pod(job.template.clone())),
        (None, Some(http), _) => {
            let addresses = addresses(pass, http, state.attempts);
            if addresses.is_empty() {
                return Err(checks::NOBODY);
            }
            Ok(Run::Http(Box::new(HttpQuestion { addresses, http: request(pass, check, http), timeout })))
        }
        (None, None, Some(sql)) => {
            let source = sql.url_from.clone().ok_or("there is no database to ask: set spec.database.urlFrom")?;
            let own = |database: &Database| {
                [Some(&database.url_from), database.direct_url_from.as_ref()].contains(&Some(&source))
            };
            let ca = pass.policy().database.filter(own).and_then(|database| database.ca_from);
            let url = source.secret_key_ref;
            Ok(Run::Sql(Box::new(SqlQuestion { name: check.name.clone(), sql: sql.clone(), url, ca, timeout })))
        }
        (None, None, None) => Ok(Run::Keys(check.keys.clone())),
    }
}

/// Deletes Jobs that nobody asks about any more: those of attempts that are over, and those under way when a release
/// is. The last one of each check stays, for its log.
pub fn tidy(pass: &mut Pass<'_>) {
    let step = pass.status.step.as_ref().map_or(0, |step| step.index);
    let asking = (!retreat::under_way(pass)).then_some(step);
    let kept = |job: &&Job| {
        if database::is_of_database(pass, job) {
            return !database::is_broken_off(pass, job);
        }
        let named = pass.status.checks.iter().find(|state| state.job.as_deref() == Some(&job.object.name));
        named.is_some_and(|state| state.outcome != CheckOutcome::Running || Some(state.step) == asking)
    };
    let over = pass.seen.jobs.iter().filter(|job| !job.deleting && !kept(job));
    let effects: Vec<_> = over.map(|job| Effect::DeleteJob { object: job.object.clone() }).collect();
    pass.after.extend(effects);
}
