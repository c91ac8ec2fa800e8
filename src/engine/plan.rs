//! What a release is going to do: the strategy compiled to one list of steps, and the limits that
//! hold while it does. Made from the pinned plan in mid-release, from the spec at rest.

use std::fmt;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{
    Analysis, Canary, CanaryStep, Check, Database, DatabaseTask, Duration, Flags, HeaderMatch, MaintenanceMode, Moment,
    ServiceRelease, ServiceReleaseSpec, ServiceReleaseStatus, StepName, Strategy, status::bounded,
};

use super::{
    database::{self, Due},
    observed::{NamedTemplate, Template},
    ratio::{self, Bounds},
    templates,
};

/// One unit of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring up the first candidate pods, without traffic.
    Prepare,
    /// Give the candidate this percentage of the traffic.
    SetWeight(i32),
    /// Give the candidate the requests with these headers.
    SetHeaderRoute(Vec<HeaderMatch>),
    /// Give the candidate copies of this percentage of the requests.
    SetMirrorRoute(i32),
    /// Give the candidate so many pods apart from its weight, or as many as that needs.
    Scale(Option<Size>),
    /// Stay for this long, or until a person goes on.
    Pause(Option<Duration>),
    /// Stay until a person approves.
    Approval,
    /// Ask checks, and go on when they have passed.
    Check {
        /// At which moment.
        when: Moment,
        /// Their names.
        names: Vec<String>,
    },
    /// Work on the database.
    Database(DatabaseTask),
    /// Stay until a person approves the migration, if one has to.
    MigrationApproval,
    /// Put maintenance mode on, until the candidate has all traffic.
    Maintenance,
    /// Give the candidate all traffic, and make it stable.
    Promote,
}

impl Step {
    /// Its name in the status.
    #[must_use]
    pub const fn name(&self) -> StepName {
        match self {
            Self::Prepare => StepName::Prepare,
            Self::SetWeight(_) => StepName::SetWeight,
            Self::SetHeaderRoute(_) => StepName::SetHeaderRoute,
            Self::SetMirrorRoute(_) => StepName::SetMirrorRoute,
            Self::Scale(_) => StepName::Scale,
            Self::Pause(_) => StepName::Pause,
            Self::Approval => StepName::Approval,
            Self::Check { .. } => StepName::Check,
            Self::Database(_) => StepName::Database,
            Self::MigrationApproval => StepName::MigrationApproval,
            Self::Maintenance => StepName::Maintenance,
            Self::Promote => StepName::Promote,
        }
    }
}

/// It as people read it, such as `setWeight 25`.
impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => out.write_str("prepare"),
            Self::SetWeight(weight) => write!(out, "setWeight {weight}"),
            Self::SetHeaderRoute(headers) if headers.is_empty() => out.write_str("setHeaderRoute none"),
            Self::SetHeaderRoute(_) => out.write_str("setHeaderRoute"),
            Self::SetMirrorRoute(percent) => write!(out, "setMirrorRoute {percent}"),
            Self::Scale(Some(Size::Pods(pods))) => write!(out, "scale {pods}"),
            Self::Scale(Some(Size::Percent(percent))) => write!(out, "scale {percent}%"),
            Self::Scale(None) => out.write_str("scale as weight"),
            Self::Pause(_) => out.write_str("pause"),
            Self::Approval => out.write_str("approval"),
            Self::Check { names, .. } => write!(out, "check {}", bounded(&names.join(", "), 40)),
            Self::Database(task) => out.write_str(task.word()),
            Self::MigrationApproval => out.write_str("approval of the migration"),
            Self::Maintenance => out.write_str("maintenance"),
            Self::Promote => out.write_str("promote"),
        }
    }
}

/// A number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many.
    Pods(i32),
    /// So many percent of the release's replicas.
    Percent(i32),
}

/// What is done with requests beside sharing them by weight: what the candidate gets, or nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The requests with all of these headers.
    pub headers: Vec<HeaderMatch>,
    /// Copies of this percentage of the requests; 0 for none.
    pub mirror: i32,
    /// Whether nobody gets any: all requests go to the maintenance Service.
    pub maintenance: bool,
}

/// How traffic is moved.
#[derive(Clone, Debug, PartialEq)]
pub enum Shift {
    /// By the ratio of pods, within maxSurge and maxUnavailable.
    Ratio {
        /// maxSurge as written.
        surge: IntOrString,
        /// maxUnavailable as written.
        unavailable: IntOrString,
    },
    /// By switching the Service's selector from one full set of pods to the other.
    Switch,
    /// By the weights of a route; stable stays whole beside the candidate, or keeps at least this much.
    Route {
        /// dynamicStableScale.atLeast as written.
        keep: Option<IntOrString>,
    },
}

/// What holds while a release goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How traffic is moved.
    pub shift: Shift,
    /// The steps, first to last.
    pub steps: Vec<Step>,
    /// spec.minReadySeconds
    pub min_ready_seconds: i32,
    /// How long a step may wait for the cluster.
    pub deadline: Duration,
    /// How long pods that lost their traffic stay.
    pub scale_down_delay: Duration,
    /// How long the previous pods stay warm for an undo after the promotion.
    pub keep_previous: Duration,
    /// Whether failures roll back by themselves.
    pub automatic: bool,
    /// spec.checks
    pub checks: Vec<Check>,
    /// spec.analysis
    pub analysis: Option<Analysis>,
    /// spec.observation.duration
    pub observation: Option<Duration>,
    /// spec.database
    pub database: Option<Database>,
    /// spec.maintenance
    pub maintenance: Option<MaintenanceMode>,
    /// spec.flags
    pub flags: Option<Flags>,
}

/// What a spec is compiled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// There is no stable yet: the first revision of all goes without the strategy's steps (INVARIANTS R5).
    pub first: bool,
    /// There is no candidate: the migration is all.
    pub alone: bool,
    /// What of the database's work is due.
    pub due: Due,
}

/// The checks, those by SQL with the database that they ask.
fn checks(spec: &ServiceReleaseSpec) -> Vec<Check> {
    let mut checks = spec.checks.clone();
    for sql in checks.iter_mut().filter_map(|check| check.sql.as_mut()) {
        sql.url_from = sql.url_from.take().or_else(|| Some(spec.database.as_ref()?.url_from.clone()));
    }
    checks
}

impl Situation {
    /// That of the next release with a new pod template, as far as the object itself tells. Of an adopted Deployment's image
    /// it tells nothing: a migration that follows it counts as due.
    #[must_use]
    pub fn next(release: &ServiceRelease) -> Self {
        let status = release.status.clone().unwrap_or_default();
        let template = release.spec.template.as_ref().and_then(|it| serde_json::to_value(it).ok()).map(Template::new);
        let wanted = database::identity(&release.spec, template.as_ref());
        let late = database::seeds_late(&status, None);
        let known = status.database.unwrap_or_default();
        let applied = known.migrations.iter().any(|migration| Some(&migration.migration) == wanted.as_ref());
        let (migration, seed) = (wanted.is_some() && !applied, known.seeded_at.is_none());
        Self { first: status.stable.is_none(), alone: false, due: Due { migration, seed, late } }
    }

    /// That of the release under way, as its status has it.
    #[must_use]
    pub fn under_way(status: &ServiceReleaseStatus) -> Self {
        Self {
            first: status.stable.is_none(),
            alone: status.candidate.is_none() && status.step.is_some(),
            due: Due::under_way(status),
        }
    }
}

impl Policy {
    /// Compiles a spec, with the templates that its analysis names; those that are missing stay in
    /// `analysis.templates`.
    #[must_use]
    pub fn compile(spec: &ServiceReleaseSpec, known: &[NamedTemplate], situation: Situation) -> Self {
        let Situation { first, alone, due } = situation;
        let default = Strategy { canary: Some(Canary::default()), blue_green: None };
        let strategy = spec.strategy.as_ref().unwrap_or(&default);
        let (shift, middle) = match (&strategy.canary, &strategy.blue_green) {
            (_, Some(blue_green)) => {
                let wait = (!blue_green.auto_promote).then_some(Step::Pause(None));
                let maintenance = blue_green.maintenance.then_some(Step::Maintenance);
                (Shift::Switch, wait.into_iter().chain(maintenance).collect())
            }
            (Some(canary), None) => (ratio(canary), canary_steps(canary)),
            (None, None) => (ratio(&Canary::default()), Vec::new()),
        };
        let routed = spec.router().is_some();
        let keep = strategy.canary.as_ref().and_then(|canary| canary.dynamic_stable_scale.as_ref());
        let shift = if routed { Shift::Route { keep: keep.map(|keep| keep.at_least.clone()) } } else { shift };
        let at = |moment: Moment| check_step(&spec.checks, moment);
        let middle = if first { Vec::new() } else { checked(middle, &spec.checks) };
        let made = at(Moment::AfterBackup);
        let follow = |step: &Step| made.clone().filter(|_| *step == Step::Database(DatabaseTask::Backup));
        let database: Vec<Step> = database::steps(spec, due)
            .into_iter()
            .flat_map(|step| [follow(&step), Some(step)].into_iter().rev().flatten())
            .collect();
        let maintained = database.contains(&Step::Maintenance);
        let middle: Vec<Step> = middle.into_iter().filter(|step| !(maintained && *step == Step::Maintenance)).collect();
        let before = at(Moment::BeforeTraffic);
        let last = at(Moment::BeforePromotion).filter(|_| !first);
        let rollout = [Step::Prepare].into_iter().chain(before).chain(middle).chain(last).chain([Step::Promote]);
        // What serves already is asked whether it still does, on the new schema.
        let after = at(Moment::AfterPromotion).filter(|_| alone);
        let rest = rollout.filter(|_| !alone).chain(after);
        let steps = at(Moment::Preflight).into_iter().chain(database).chain(rest).collect();
        let seconds = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let scale_down_delay = spec.traffic.as_ref().map_or(Duration::default(), |traffic| traffic.scale_down_delay);
        // Where no Service keeps requests from them, they would work beside the others.
        let keep_previous = spec.rollback.keep_previous.filter(|_| spec.traffic.is_some());
        Self {
            shift,
            steps,
            min_ready_seconds: spec.min_ready_seconds,
            deadline: seconds(spec.progress_deadline_seconds),
            scale_down_delay,
            keep_previous: keep_previous.unwrap_or_default(),
            automatic: spec.rollback.automatic,
            checks: checks(spec),
            analysis: spec.analysis.as_ref().map(|it| templates::resolve(it, known).unwrap_or_else(|_| it.clone())),
            observation: spec.observation.map(|observation| observation.duration),
            database: spec.database.clone(),
            maintenance: spec.maintenance.clone(),
            flags: spec.flags.clone(),
        }
    }

    /// The step at a place counted from 1; the last one for places beyond.
    #[must_use]
    pub fn step(&self, index: i32) -> Step {
        let last = self.steps.len().saturating_sub(1);
        let place = usize::try_from(index.saturating_sub(1)).unwrap_or(0).min(last);
        self.steps.get(place).cloned().unwrap_or(Step::Promote)
    }

    /// How many steps there are.
    #[must_use]
    pub fn count(&self) -> i32 {
        i32::try_from(self.steps.len()).unwrap_or(i32::MAX)
    }

    /// The weight that the candidate is prepared for: that of the first step that sets one.
    #[must_use]
    pub fn first_weight(&self) -> i32 {
        let set = self.steps.iter().find_map(|step| match step {
            Step::SetWeight(weight) => Some(*weight),
            _ => None,
        });
        set.unwrap_or(100)
    }

    /// How long the previous pods stay for their connections once others have the traffic; by ratio none of them is left by
    /// then.
    #[must_use]
    pub const fn connections(&self) -> Duration {
        match self.shift {
            Shift::Ratio { .. } => Duration::from_secs(0),
            Shift::Switch | Shift::Route { .. } => self.scale_down_delay,
        }
    }

    /// Whether a route shares the requests.
    #[must_use]
    pub const fn is_routed(&self) -> bool {
        matches!(self.shift, Shift::Route { .. })
    }

    /// Whether the switch goes on behind the maintenance Service.
    #[must_use]
    pub fn has_maintenance(&self) -> bool {
        self.is_routed() && self.steps.contains(&Step::Maintenance)
    }

    /// Whether the candidate has pods at a step.
    #[must_use]
    pub fn has_pods(&self, index: i32) -> bool {
        self.until(index).any(|step| *step == Step::Prepare)
    }

    /// Whether maintenance mode was put on at a step or before it.
    #[must_use]
    pub fn is_maintained(&self, index: i32) -> bool {
        self.until(index).any(|step| *step == Step::Maintenance)
    }

    /// The steps up to a place counted from 1, the latest first.
    fn until(&self, index: i32) -> impl Iterator<Item = &Step> {
        self.steps.iter().take(usize::try_from(index).unwrap_or(0)).rev()
    }

    /// What the candidate gets beside its weight at a step; nothing more once all traffic is to be its.
    #[must_use]
    pub fn extras(&self, index: i32) -> Extras {
        if !self.is_routed() {
            return Extras::default();
        }
        let maintenance = self.is_maintained(index);
        if self.step(index) == Step::Promote {
            return Extras { maintenance, ..Extras::default() };
        }
        let headers = self.until(index).find_map(|step| match step {
            Step::SetHeaderRoute(headers) => Some(headers.clone()),
            _ => None,
        });
        let mirror = self.until(index).find_map(|step| match step {
            Step::SetMirrorRoute(percent) => Some(*percent),
            _ => None,
        });
        Extras { headers: headers.unwrap_or_default(), mirror: mirror.unwrap_or_default(), maintenance }
    }

    /// Whether the candidate got anything beside its weight at a step or before it.
    #[must_use]
    pub fn probes(&self, index: i32) -> bool {
        self.until(index).any(|step| match step {
            Step::SetHeaderRoute(headers) => !headers.is_empty(),
            Step::SetMirrorRoute(percent) => *percent > 0,
            _ => false,
        })
    }

    /// The candidate's pods beside a whole stable at a step and its weight, of so many replicas.
    #[must_use]
    pub fn beside(&self, index: i32, weight: i32, replicas: i32) -> i32 {
        if self.step(index) == Step::Promote {
            return replicas;
        }
        let size = |step: &Step| match step {
            Step::Scale(size) => Some(*size),
            _ => None,
        };
        let mut next =
            self.steps.iter().skip_while(|step| matches!(step, Step::Prepare)).filter_map(|step| match step {
                Step::Scale(Some(size)) => Some(Some(*size)),
                Step::SetWeight(_) => Some(None),
                _ => None,
            });
        let sizes = |step: &Step| matches!(step, Step::Scale(_) | Step::SetWeight(_));
        // The first pods are those for the first step that needs some.
        let scale = if self.until(index).any(sizes) { self.until(index).find_map(size) } else { next.next() };
        match scale.flatten() {
            Some(Size::Pods(pods)) => pods.min(replicas),
            Some(Size::Percent(percent)) => ratio::beside(replicas, percent),
            None => ratio::beside(replicas, if weight == 0 { self.first_weight() } else { weight }),
        }
    }

    /// Stable's pods over a route, while the candidate is known to have this weight.
    #[must_use]
    pub fn kept(&self, weight: i32, replicas: i32) -> i32 {
        match &self.shift {
            Shift::Route { keep: Some(keep) } => {
                let floor = Bounds::pods(keep, replicas).min(replicas);
                let share = if weight >= 100 { 0 } else { ratio::beside(replicas, 100 - weight) };
                share.max(floor)
            }
            _ => replicas,
        }
    }

    /// The limits on pods for a number of replicas. A switch keeps all of them.
    #[must_use]
    pub fn bounds(&self, replicas: i32) -> Bounds {
        match &self.shift {
            Shift::Ratio { surge, unavailable } => Bounds::resolve(replicas, surge, unavailable),
            Shift::Switch | Shift::Route { .. } => Bounds { replicas, surge: replicas, unavailable: 0 },
        }
    }
}

/// The step that asks the checks of a moment, if there are any.
fn check_step(checks: &[Check], when: Moment) -> Option<Step> {
    let names: Vec<String> =
        checks.iter().filter(|check| check.when.contains(&when)).map(|check| check.name.clone()).collect();
    (!names.is_empty()).then_some(Step::Check { when, names })
}

/// The steps of a strategy, with the checks that are asked after each weight.
fn checked(steps: Vec<Step>, checks: &[Check]) -> Vec<Step> {
    let each = check_step(checks, Moment::EachStep);
    let follow = |step: &Step| each.clone().filter(|_| matches!(step, Step::SetWeight(1..)));
    steps.into_iter().flat_map(|step| [follow(&step), Some(step)].into_iter().rev().flatten()).collect()
}

fn ratio(canary: &Canary) -> Shift {
    Shift::Ratio { surge: canary.max_surge.clone(), unavailable: canary.max_unavailable.clone() }
}

fn canary_steps(canary: &Canary) -> Vec<Step> {
    canary.steps.iter().map(compile).collect()
}

fn compile(step: &CanaryStep) -> Step {
    if let Some(weight) = step.set_weight {
        return Step::SetWeight(weight.clamp(0, 100));
    }
    if let Some(route) = &step.set_header_route {
        return Step::SetHeaderRoute(route.headers.clone());
    }
    if let Some(mirror) = &step.set_mirror_route {
        return Step::SetMirrorRoute(mirror.percent.clamp(0, 100));
    }
    if let Some(scale) = &step.scale {
        let pods = scale.replicas.map(|pods| Size::Pods(pods.max(1)));
        return Step::Scale(pods.or_else(|| scale.percent.map(|percent| Size::Percent(percent.clamp(1, 100)))));
    }
    if let Some(names) = &step.check {
        return Step::Check { when: Moment::Step, names: names.clone() };
    }
    match &step.pause {
        Some(pause) => Step::Pause(pause.duration),
        None => Step::Approval,
    }
}
