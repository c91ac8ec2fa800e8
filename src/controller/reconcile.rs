//! One pass over one release: look, decide, carry out.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tracing::{Instrument as _, debug, info_span, warn};

use crate::{
    api::{
        Router, ServiceRelease, ServiceReleaseStatus, Timestamp,
        status::{MAX_TEXT, bounded},
    },
    engine::{Decision, Denial, Effect, Event, Observed, TemplateCheck},
    telemetry::{Metrics, PassOutcome},
};

use super::{
    asker::Asker,
    build,
    cache::{Cache, Cached as _, Claim, Kind, Unparsable},
    calls::{CallError, Calls, Place},
    commands,
    execute::{self, Executor},
    jobs::Runner,
    key::Key,
    memory::Memory,
    observe::{self, View},
    routers::{self, Looked, Routers},
    status::{self, Trouble},
    templates,
};

/// How soon a view that is behind our own writes is looked at again, if no event comes before.
const BEHIND_DELAY: Duration = Duration::from_millis(250);

/// When a pass that was refused for want of the lease is tried again, if this process lives on.
const NOT_LEADING_DELAY: Duration = Duration::from_secs(1);
/// From how many conflicts in a row on that is told.
const MANY_CONFLICTS: u32 = 8;

/// What decides: `engine::decide`, or a test's stand-in.
pub type Decide = Arc<dyn Fn(&ServiceRelease, &Observed, Timestamp) -> Decision + Send + Sync>;

/// How long after a write to an object of a custom router that is read again.
const AFTER_A_WRITE: Duration = Duration::from_millis(200);
/// How often it is read while a release is under way.
const POLL_UNDER_WAY: Duration = Duration::from_secs(5);
/// How often it is read otherwise.
const POLL_AT_REST: Duration = Duration::from_secs(60);

/// Everything that passes share.
pub struct Context {
    /// What is known.
    pub cache: Arc<Cache>,
    /// How the API server is spoken to.
    pub calls: Calls,
    /// What is asked beyond the API server.
    pub asker: Arc<Asker>,
    /// What is remembered between passes.
    pub memory: Memory,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The custom routers.
    pub routers: Routers,
    /// What runs where the operator itself may not look.
    pub runner: Option<Runner>,
    /// What decides.
    pub decide: Decide,
    /// This process, for Events.
    pub instance: String,
}

/// What the cache has under a key.
enum Subject {
    Nothing,
    Unparsable(Unparsable, crate::engine::ObjectVersion),
    Release(Arc<ServiceRelease>),
}

/// Runs a pass and says when the next is due if nothing happens before.
pub async fn pass(context: &Context, key: &Key) -> Option<Duration> {
    if let Some(rest) = context.memory.resting(key) {
        return Some(rest);
    }
    let started = Instant::now();
    let span = info_span!(
        "pass",
        namespace = &*key.namespace,
        release = &*key.name,
        number = tracing::field::Empty,
        revision = tracing::field::Empty,
        step = tracing::field::Empty,
    );
    let result = AssertUnwindSafe(reconcile(context, key)).catch_unwind().instrument(span.clone()).await;
    let _entered = span.clone().entered();
    let (outcome, next) = match result {
        Ok(Ok(next)) => {
            // The status says still that something was refused.
            let again = context.memory.succeeded(key).then_some(Duration::ZERO);
            (PassOutcome::Done, again.or(next))
        }
        Ok(Err(error)) => failed(context, key, &error),
        Err(panic) => {
            drop(_entered);
            let report = report_panic(context, key, panic_text(&*panic));
            (PassOutcome::Panicked, Some(report.instrument(span).await))
        }
    };
    context.metrics.pass(outcome, started.elapsed());
    next
}

fn failed(context: &Context, key: &Key, error: &CallError) -> (PassOutcome, Option<Duration>) {
    match error {
        CallError::Conflict { .. } | CallError::Missing { .. } => {
            let (delay, times) = context.memory.conflicted(key);
            if times.is_power_of_two() && times >= MANY_CONFLICTS {
                warn!(%error, times, "the world moves on again and again");
            } else {
                debug!(%error, "the world moved on; looking again");
            }
            (PassOutcome::Conflict, Some(delay))
        }
        // The lease may have been renewed at the last moment: then nobody else wakes what was due.
        CallError::NotLeading { .. } => (PassOutcome::Failed, Some(NOT_LEADING_DELAY)),
        error => {
            if let CallError::Refused { what, code, message } = error {
                let text = bounded(&format!("{what}: {message}"), MAX_TEXT);
                context.memory.refused(key, Denial { text, definite: !matches!(code, 401 | 403) });
            }
            let delay = context.memory.failed(key);
            warn!(%error, retry_in = ?delay, "the pass failed");
            (PassOutcome::Failed, Some(delay))
        }
    }
}

async fn reconcile(context: &Context, key: &Key) -> Result<Option<Duration>, CallError> {
    if context.memory.is_new(key) {
        // Who led before may have written a status that the watch has not shown yet. To decide on the one
        // before it could close a Service that serves.
        context.memory.doubt(key, Kind::Release, key.clone());
    }
    execute::settle_doubts(&context.calls, &context.cache, &context.memory, key).await?;
    if let Some(behind) = context.cache.world().behind(key) {
        debug!(kind = ?behind.kind, since = ?behind.since.elapsed(), "a watch is behind a write");
        return Ok(Some(BEHIND_DELAY));
    }
    match subject(context, key) {
        Subject::Nothing => {
            context.memory.forget(key);
            context.asker.keep(key, Vec::new());
            commands::reject_orphans(context, key).await
        }
        Subject::Unparsable(what, object) => {
            let trouble = not_understood(&what);
            tell(context, key, &trouble, &what.status, what.generation, object).await?;
            Ok(None)
        }
        Subject::Release(release) => reconcile_release(context, key, &release).await,
    }
}

fn subject(context: &Context, key: &Key) -> Subject {
    let world = context.cache.world();
    match world.releases.get(key) {
        None => Subject::Nothing,
        Some(cached) => match &cached.object {
            Ok(release) => Subject::Release(release.clone()),
            Err(what) => Subject::Unparsable(what.clone(), cached.meta().object()),
        },
    }
}

async fn reconcile_release(
    context: &Context,
    key: &Key,
    release: &ServiceRelease,
) -> Result<Option<Duration>, CallError> {
    commands::reject_unparsable(context, key).await?;
    match routes(context, key, release) {
        Routes::Known => {}
        Routes::Awaited => return Ok(Some(BEHIND_DELAY)),
        Routes::Refused(why) => {
            let status = serde_json::to_value(&release.status).unwrap_or_default();
            let generation = release.metadata.generation.unwrap_or_default();
            tell(context, key, &without_routes(&why), &status, generation, this(key, release)).await?;
            return Ok(None);
        }
    }
    let (observed, recheck) = observe(context, key, release).await?;
    let now = Timestamp::new(jiff::Timestamp::now());
    let decision = (context.decide)(release, &observed, now);
    describe(&decision.status);

    let Context { calls, cache, memory, .. } = context;
    let custom = context.routers.of(release);
    // Nobody says when an object of a custom router has changed.
    let again = custom.as_ref().map(|_| {
        let written = decision.after.iter().any(|effect| matches!(effect, Effect::SetRouteWeights { .. }));
        let under_way = decision.status.candidate.is_some();
        if written {
            AFTER_A_WRITE
        } else if under_way {
            POLL_UNDER_WAY
        } else {
            POLL_AT_REST
        }
    });
    let mut executor = Executor::new(calls, cache, memory, key, release, custom, context.runner.clone());
    if let Err(error) = executor.carry_out(&decision.before).await {
        let found = found_fault(context, key, release, &decision);
        return if found { Ok(Some(Duration::ZERO)) } else { Err(error) };
    }
    let postponed = write_status(context, key, release, &decision, &mut executor).await?;
    // What was answered is on record, so that its question can go.
    context.asker.keep(key, decision.questions.clone());
    let carried_out = executor.carry_out(&decision.after).await;
    // They tell of what is on record, whatever became of the rest.
    publish(context, key, release.metadata.uid.as_deref().unwrap_or_default(), &decision.events).await;
    carried_out?;

    let wake = decision.wake.map(|wake| Duration::from_millis(wake.since(now).as_millis()));
    Ok([wake, postponed, recheck, again].into_iter().flatten().min())
}

/// Whether the view has the route that a release uses, or knows that there is none.
enum Routes {
    Known,
    Awaited,
    Refused(String),
}

fn routes(context: &Context, key: &Key, release: &ServiceRelease) -> Routes {
    if Claim::route(&key.name, &release.spec).is_none() {
        return Routes::Known;
    }
    let world = context.cache.world();
    let looked = |kind: Kind, synced: bool| synced || world.route_api.refusal(kind).is_some();
    let gateways = looked(Kind::Gateway, world.gateways.synced());
    let gateways = gateways && looked(Kind::GatewayClass, world.gateway_classes.synced());
    let protocol = release.spec.router().map(Router::protocol);
    let kind = Kind::of_route(protocol.unwrap_or_default());
    let synced = if kind == Kind::Route { world.routes.synced() } else { world.grpc_routes.synced() };
    match world.route_api.refusal(kind) {
        // What cannot be had does not keep an object from going.
        Some(_) if release.metadata.deletion_timestamp.is_some() => Routes::Known,
        Some(why) => Routes::Refused(why.to_owned()),
        None if synced && gateways => Routes::Known,
        None => Routes::Awaited,
    }
}

fn without_routes(why: &str) -> Trouble {
    Trouble {
        invalid: true,
        reason: "RouterNotAvailable",
        message: format!("spec.traffic.router: {why}; nothing that runs was changed"),
        next_action: "install the Gateway API CRDs and a gateway, or let the operator's role list such routes; it goes on by itself".into(),
    }
}

/// The object as it was observed.
fn this(key: &Key, release: &ServiceRelease) -> crate::engine::ObjectVersion {
    let meta = &release.metadata;
    crate::engine::ObjectVersion {
        name: key.name.to_string(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

/// Puts the release's numbers into the span of the pass.
fn describe(status: &ServiceReleaseStatus) {
    let span = tracing::Span::current();
    if let Some(release) = &status.release {
        span.record("number", release.number);
        span.record("revision", release.revision.as_str());
    }
    if let Some(step) = &status.step {
        span.record("step", step.summary.as_str());
    }
}

/// What the cache knows, with plans that have to be read, and what is remembered of the API server's
/// opinion of a new template.
async fn observe(
    context: &Context,
    key: &Key,
    release: &ServiceRelease,
) -> Result<(Observed, Option<Duration>), CallError> {
    let View { mut observed, unread_plans } = observe::observe(&context.cache.world(), key, release);
    observed.refusal = context.memory.refusal(key);
    observed.answers = context.asker.answers(key);
    observed.asking_since = Some(context.asker.since());
    observed.providers = Some(context.asker.known_providers());
    observed.allowed_hosts = Some(context.asker.allowed_hosts());
    if let Some(wanted) = routers::reference(release) {
        match context.routers.look(&context.calls, key, wanted).await? {
            Looked::At(route) => observed.route = route,
            Looked::Refused(why) => observed.router_refused = Some(why),
        }
    }
    for plan in unread_plans {
        observed.plans.extend(read_plan(context, &plan).await?);
    }
    let lacks_templates = templates::read(&context.calls, key, release, &mut observed).await?;
    let again = lacks_templates.then_some(templates::AGAIN);
    let Some(hash) = observe::untried(release, &observed) else {
        return Ok((observed, again));
    };
    let answer = context.memory.checked(key, release, &hash);
    let again = answer.as_ref().and_then(|answer| answer.again).into_iter().chain(again).min();
    observed.template_check = answer.map_or(TemplateCheck::Unknown, |answer| answer.check);
    Ok((observed, again))
}

/// Whether the API server has said what it has against a template that is not on record yet: that is a
/// finding for the next pass, and no failure of this one.
fn found_fault(context: &Context, key: &Key, release: &ServiceRelease, decision: &Decision) -> bool {
    let on_record = release.status.as_ref().and_then(|status| status.candidate.as_ref());
    let candidate = decision.status.candidate.as_ref().map(|candidate| candidate.revision.as_str());
    let new = candidate.filter(|hash| on_record.is_none_or(|known| known.revision != *hash));
    let answer = new.and_then(|hash| context.memory.checked(key, release, hash));
    answer.is_some_and(|answer| answer.check != TemplateCheck::Passed)
}

async fn read_plan(context: &Context, place: &Key) -> Result<Option<crate::engine::Plan>, CallError> {
    #[derive(serde::Deserialize)]
    struct Pinned {
        #[serde(default)]
        revision: i64,
        #[serde(default)]
        data: serde_json::Value,
    }
    let pinned: Pinned = match context.calls.get(&Place::of(Kind::Plan, place.clone())).await {
        Err(CallError::Missing { .. }) => return Ok(None),
        answer => answer?,
    };
    let text: Arc<str> = pinned.data.to_string().into();
    if let Some(plan) = context.cache.world().plans.get_mut(place) {
        plan.data = Some(text.clone());
    }
    Ok(observe::read_plan(pinned.revision, &text))
}

/// Writes the status if it differs. Where nothing hangs on it but counts of pods it may wait a
/// little: then says how long.
async fn write_status(
    context: &Context,
    key: &Key,
    release: &ServiceRelease,
    decision: &Decision,
    executor: &mut Executor<'_>,
) -> Result<Option<Duration>, CallError> {
    let old = release.status.as_ref();
    let patch = status::patch(old, &decision.status).map_err(|error| CallError::Refused {
        what: format!("status of ServiceRelease {key}"),
        code: 0,
        message: error.to_string(),
    })?;
    let Some(patch) = patch else {
        return Ok(None);
    };
    // Counts are no decision: nothing that follows needs them on record.
    if decision.events.is_empty() {
        let wait = wait_for_counts(context, key, old, &decision.status);
        if wait.is_some() {
            return Ok(wait);
        }
    }
    executor.write_status(patch).await?;
    context.memory.status_written(key);
    Ok(None)
}

fn wait_for_counts(
    context: &Context,
    key: &Key,
    old: Option<&ServiceReleaseStatus>,
    new: &ServiceReleaseStatus,
) -> Option<Duration> {
    let wait = status::may_wait(old?, new)?;
    wait.checked_sub(context.memory.status_age(key)?).filter(|left| !left.is_zero())
}

/// Events are for people: one that does not arrive is not worth holding up a release for.
async fn publish(context: &Context, key: &Key, uid: &str, events: &[Event]) {
    for event in events {
        let now = jiff::Timestamp::now();
        let body = build::event(key, uid, event, &context.instance, now);
        tracing::info!(reason = event.reason, action = event.action, "{}", event.note);
        if let Err(error) = context.calls.create_event(&key.namespace, &body).await {
            warn!(%error, "the Event was not published");
        }
    }
}

fn not_understood(what: &Unparsable) -> Trouble {
    if what.in_status {
        Trouble {
            invalid: false,
            reason: "StatusNotUnderstood",
            message: format!("this version of the operator does not understand the status: {}", what.message),
            next_action: "upgrade the operator to the version that wrote the status; nothing is changed until then"
                .into(),
        }
    } else {
        Trouble {
            invalid: true,
            reason: "Unparsable",
            message: format!("the spec cannot be read: {}; nothing that runs was changed", what.message),
            next_action: "correct the field that the message names, and apply the CRDs of this version of the operator"
                .into(),
        }
    }
}

/// Puts a trouble into an object's status, if it does not stand there.
async fn tell(
    context: &Context,
    key: &Key,
    trouble: &Trouble,
    status: &serde_json::Value,
    generation: i64,
    object: crate::engine::ObjectVersion,
) -> Result<(), CallError> {
    let now = Timestamp::new(jiff::Timestamp::now());
    let Some(patch) = trouble.patch(status, generation, now) else {
        return Ok(());
    };
    warn!(reason = trouble.reason, "{}", trouble.message);
    let place = Place::status(Kind::Release, key.clone());
    let body = build::patch(&object, "status", patch);
    context.calls.patch(&place, &body).await?;
    let (reason, note) = (trouble.reason.to_owned(), trouble.message.clone());
    publish(context, key, &object.uid, &[Event { warning: true, reason, action: "Reconciling".into(), note }]).await;
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".into())
}

/// A pass that broke is the operator's fault: it is told on the object, and tried again later and
/// later, while all others go on.
async fn report_panic(context: &Context, key: &Key, text: String) -> Duration {
    tracing::error!(panic = text, "the pass panicked");
    if let Subject::Release(release) = subject(context, key) {
        let trouble = Trouble {
            invalid: false,
            reason: "InternalError",
            message: format!("the operator failed in looking at this object: {text}; nothing was changed"),
            next_action: "report this as a bug of the operator, with its log".into(),
        };
        let status = serde_json::to_value(&release.status).unwrap_or_default();
        let generation = release.metadata.generation.unwrap_or_default();
        let told = tell(context, key, &trouble, &status, generation, this(key, &release)).await;
        if let Err(error) = told {
            warn!(%error, "the failure could not be told on the object");
        }
    }
    context.memory.failed(key)
}
