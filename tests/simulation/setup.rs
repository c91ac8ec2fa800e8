//! How a case begins: what the manifest says and what was in the cluster before.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use servicerelease::api::{
    Analysis, AnalysisTemplateSpec, Approval, BlueGreen, Canary, CanaryStep, Check, Duration, DynamicStableScale,
    GatewayRoute, HeaderMatch, HeaderRoute, HttpCheck, HttpRouteRef, JobCheck, Maintenance, MirrorRoute, Moment,
    Observation, OnFailure, ParentRef, Pause, Rollback, Router, Scale, Selector, ServiceReleaseSpec, Strategy,
    TemplateRef, Traffic, WorkloadRef,
};
use servicerelease::{checks::incomparable, engine::NamedTemplate};

use crate::{
    database,
    metrics::{self, Watched},
    model::{
        catalogue,
        cluster::{
            CANDIDATE_SERVICE, Cluster, ConfigMapObject, DEPLOYMENT, DeploymentObject, Kind, ReleaseObject, SERVICE,
            ServiceObject,
        },
        controllers::{self, Lagging},
        gateway,
    },
    rng::Rng,
};

/// When the simulation begins: any moment will do.
pub const BEGIN: i64 = 1_770_000_000_000;
/// progressDeadlineSeconds of every manifest here.
pub const DEADLINE: i32 = 60;
/// How many strategies there are to choose from.
pub const STRATEGIES: u8 = 9;
/// How many pairs of maxSurge and maxUnavailable there are.
pub const BOUNDS: u8 = 7;

/// Which router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    Gateway,
    HttpRoute,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    pub adopted: bool,
    pub traffic: bool,
    pub candidate_service: bool,
    pub service_exists: bool,
    pub replicas: Option<i32>,
    pub deployment_replicas: i32,
    pub strategy: u8,
    pub bounds: u8,
    pub min_ready: i32,
    pub automatic: bool,
    pub keep_previous: Option<u64>,
    pub history: i32,
    pub first: char,
    pub router: Option<RouterKind>,
    /// Whether the first manifest has it not yet.
    pub router_later: bool,
    /// Which checks the manifest has.
    pub checks: u8,
    /// What is watched.
    pub metric: Option<Watched>,
    /// Which kind of database the manifest has.
    pub database: u8,
    /// How long a release is observed after its promotion, in seconds.
    pub observation: Option<u64>,
}

impl Setup {
    pub fn generate(rng: &mut Rng) -> Self {
        let adopted = rng.chance(25);
        Self {
            adopted,
            traffic: rng.chance(85),
            candidate_service: rng.chance(60),
            service_exists: adopted || rng.chance(50),
            replicas: if rng.chance(15) { None } else { Some(rng.pick(&[1, 2, 3, 4, 4, 5, 10, 0])) },
            deployment_replicas: rng.pick(&[1, 2, 3, 4]),
            strategy: u8::try_from(rng.below(u64::from(STRATEGIES))).unwrap_or(0),
            bounds: u8::try_from(rng.below(u64::from(BOUNDS))).unwrap_or(0),
            min_ready: rng.pick(&[0, 0, 3]),
            automatic: rng.chance(80),
            keep_previous: rng.pick(&[None, None, Some(20)]),
            history: rng.pick(&[0, 1, 2, 5]),
            first: rng.pick(&['A', 'A', 'A', 'A', 'A', 'A', 'S', 'N', 'K', 'X', 'R']),
            router: None,
            router_later: false,
            checks: 0,
            metric: None,
            database: 0,
            observation: None,
        }
    }

    /// The router that the manifest has, or gets.
    pub fn router(&self) -> Option<Router> {
        let gateway = GatewayRoute {
            parent_refs: vec![ParentRef { name: "edge".into(), ..ParentRef::default() }],
            ..GatewayRoute::default()
        };
        let of_kind = |kind| self.router == Some(kind);
        self.router.map(|_| Router {
            custom: None,
            gateway: of_kind(RouterKind::Gateway).then_some(gateway),
            http_route: of_kind(RouterKind::HttpRoute).then(|| HttpRouteRef { name: gateway::FRONT.into() }),
            propagation_delay: Duration::from_millis(gateway::PROPAGATION.unsigned_abs()),
        })
    }

    /// What is watched, as far as the strategy lets it be.
    fn watched(&self) -> Option<Watched> {
        let strategy = strategy(self.strategy, self.bounds, self.router().filter(|_| !self.router_later).as_ref());
        let shared = incomparable(&ServiceReleaseSpec { strategy, ..ServiceReleaseSpec::default() }).is_none();
        self.metric.filter(|kind| *kind != Watched::Compare || shared)
    }

    /// The manifest that is applied first.
    pub fn spec(&self) -> ServiceReleaseSpec {
        let inline = !self.adopted;
        ServiceReleaseSpec {
            replicas: self.replicas,
            selector: inline.then(|| Selector { match_labels: [("app".to_owned(), "shop".to_owned())].into() }),
            template: inline.then(|| catalogue::written(self.first)),
            workload_ref: self.adopted.then(|| WorkloadRef {
                api_version: "apps/v1".into(),
                name: DEPLOYMENT.into(),
                ..WorkloadRef::default()
            }),
            min_ready_seconds: self.min_ready,
            progress_deadline_seconds: DEADLINE,
            revision_history_limit: self.history,
            traffic: self.traffic.then(|| Traffic {
                service: SERVICE.into(),
                candidate_service: self.candidate_service.then(|| CANDIDATE_SERVICE.into()),
                scale_down_delay: Duration::from_secs(5),
                maintenance: (self.router == Some(RouterKind::Gateway) && !self.router_later)
                    .then(|| Maintenance { service: gateway::PAGE.into(), ..Maintenance::default() }),
                router: if self.router_later { None } else { self.router() },
            }),
            strategy: strategy(self.strategy, self.bounds, self.router().filter(|_| !self.router_later).as_ref()),
            checks: checks(self.checks),
            database: database::database(self.database, 1),
            maintenance: database::maintenance(self.database),
            flags: database::flags(self.database, 1),
            // The template comes without a draw of its own, so that seeds keep their cases.
            analysis: self.watched().map(|kind| analysis(kind, self.checks % 2 == 1)),
            observation: self.observation.map(|seconds| Observation { duration: Duration::from_secs(seconds) }),
            rollback: Rollback {
                automatic: self.automatic,
                keep_previous: self.keep_previous.map(Duration::from_secs),
            },
            ..ServiceReleaseSpec::default()
        }
    }

    /// The cluster as it is when the manifest has just been applied.
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::new(BEGIN);
        if self.adopted {
            let version = cluster.fresh();
            cluster.live.deployment = Some(DeploymentObject {
                uid: "deployment-1".into(),
                version,
                generation: 1,
                letter: self.first,
                replicas: self.deployment_replicas,
                deleting: false,
                observed_generation: 0,
                pods: 0,
                available: 0,
            });
        }
        if self.traffic && self.service_exists {
            let version = cluster.fresh();
            let service = ServiceObject {
                uid: "service-1".into(),
                version,
                selector: [("app".to_owned(), "shop".to_owned())].into(),
                original: None,
                owner: None,
                made: false,
                contested_by: None,
            };
            cluster.live.services.insert(SERVICE.into(), service);
        }
        if self.database > 0 {
            let version = cluster.fresh();
            let data = [(database::MAINTENANCE.to_owned(), "false".to_owned())].into();
            cluster.live.config_map = Some(ConfigMapObject { version, switched_at: 0, data, ours: BTreeSet::new() });
            cluster.touch(Kind::Others);
        }
        if self.router == Some(RouterKind::HttpRoute) {
            cluster.put_route(gateway::FRONT, false, None, gateway::users_route(0));
        }
        cluster.touch(Kind::Deployment);
        cluster.touch(Kind::Services);
        for _ in 0..6 {
            controllers::tick(&mut cluster, 1_000, Lagging::default());
        }
        self.apply(&mut cluster);
        cluster
    }

    /// Creates the ServiceRelease.
    pub fn apply(&self, cluster: &mut Cluster) {
        // Those of an object that had the name before are not this one's.
        cluster.live.plans.clear();
        cluster.touch(Kind::Plans);
        let version = cluster.fresh();
        cluster.live.release = Some(ReleaseObject {
            uid: format!("release-{version}"),
            version,
            generation: 1,
            created: cluster.now,
            spec: self.spec(),
            status: None,
            finalizer: false,
            deleting: None,
        });
        cluster.touch(Kind::Release);
        cluster.commit();
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = if self.adopted {
            format!("Deployment of {}, template", self.deployment_replicas)
        } else {
            "template".to_owned()
        };
        let service = match (self.traffic, self.service_exists) {
            (false, _) => "no Service",
            (true, true) => "Service there before",
            (true, false) => "Service to be made",
        };
        let router = match (self.router, self.router_later) {
            (None, _) => "",
            (Some(RouterKind::Gateway), false) => ", a Gateway",
            (Some(RouterKind::HttpRoute), false) => ", a route of the user's",
            (Some(RouterKind::Gateway), true) => ", a Gateway later",
            (Some(RouterKind::HttpRoute), true) => ", a route of the user's later",
        };
        let preview = if self.traffic && self.candidate_service { " and a candidate Service" } else { "" };
        write!(
            f,
            "{source} {}, replicas {:?}, {}, {service}{preview}{router}, checks {}, metric {:?}, observation {:?}, database {}, minReadySeconds {}, rollback.automatic {}, keepPrevious {:?}, history {}",
            self.first,
            self.replicas,
            describe(self.strategy, self.bounds),
            self.checks,
            self.metric,
            self.observation,
            self.database,
            self.min_ready,
            self.automatic,
            self.keep_previous,
            self.history
        )
    }
}

/// How many lists of checks there are, beside that without any.
pub const CHECKS: u8 = 4;
/// The list with a check that is a Job.
pub const WITH_JOBS: u8 = 4;

/// The list with a Job that is asked before all else, also where there is no candidate.
pub const BEFORE_ALL: u8 = 5;
/// The lists of what is asked after the promotion: once, again and again, and by Jobs.
pub const AFTERWARDS: [u8; 3] = [6, 7, 8];

/// The metric, written in the release or in a template that it names.
fn analysis(kind: Watched, in_template: bool) -> Analysis {
    let reference = TemplateRef {
        template_name: metrics::name(kind),
        cluster_scope: false,
        dry_run: false,
        args: Vec::new(),
        overrides: Vec::new(),
    };
    Analysis {
        interval: Duration::from_secs(3),
        max_duration: None,
        on_inconclusive: None,
        metrics: if in_template { Vec::new() } else { vec![metrics::metric(kind)] },
        templates: if in_template { vec![reference] } else { Vec::new() },
    }
}

/// The template that a release may name.
pub fn template(kind: Watched) -> NamedTemplate {
    let spec = AnalysisTemplateSpec { args: Vec::new(), metrics: vec![metrics::metric(kind)] };
    NamedTemplate { name: metrics::name(kind), cluster_scope: false, spec }
}

fn checks(index: u8) -> Vec<Check> {
    let check = |name: &str, when: &[Moment], attempts: i32, failures: i32, on_failure: OnFailure| Check {
        name: name.into(),
        when: when.to_vec(),
        http: Some(HttpCheck { path: "/".into(), ..HttpCheck::default() }),
        job: None,
        keys: Vec::new(),
        logs: None,
        sql: None,
        attempts: Some(attempts),
        success_threshold: None,
        failure_threshold: Some(failures),
        interval: Duration::from_secs(1),
        every: None,
        timeout: Some(Duration::from_secs(5)),
        on_failure,
    };
    let template = serde_json::json!({"spec": {"containers": [{"name": "smoke", "image": "smoke:1"}]}});
    let job = |check: Check| Check { http: None, job: Some(JobCheck { template: template.clone() }), ..check };
    let every = |seconds: u64, check: Check| Check { every: Some(Duration::from_secs(seconds)), ..check };
    match index {
        6 => vec![
            check("after", &[Moment::AfterPromotion, Moment::AfterRollback], 2, 1, OnFailure::Rollback),
            every(5, check("told", &[Moment::BeforeTraffic], 1, 1, OnFailure::Ignore)),
        ],
        7 => vec![
            every(4, check("probe", &[], 1, 2, OnFailure::Rollback)),
            check("after", &[Moment::AfterPromotion], 1, 1, OnFailure::Hold),
        ],
        8 => vec![every(6, job(check("probe", &[Moment::AfterPromotion], 1, 1, OnFailure::Rollback)))],
        BEFORE_ALL => vec![job(check("schema", &[Moment::Preflight, Moment::AfterBackup], 1, 1, OnFailure::Rollback))],
        WITH_JOBS => vec![
            job(check("smoke", &[Moment::BeforeTraffic, Moment::EachStep], 2, 2, OnFailure::Rollback)),
            job(check("end", &[Moment::BeforePromotion], 1, 1, OnFailure::Hold)),
        ],
        1 => vec![check("health", &[Moment::BeforeTraffic], 3, 1, OnFailure::Rollback)],
        2 => vec![
            check("health", &[Moment::BeforeTraffic, Moment::EachStep], 1, 1, OnFailure::Hold),
            check("end", &[Moment::BeforePromotion], 2, 2, OnFailure::Rollback),
        ],
        3 => vec![
            check("each", &[Moment::EachStep], 1, 2, OnFailure::Rollback),
            check("told", &[Moment::BeforeTraffic, Moment::BeforePromotion], 2, 1, OnFailure::Ignore),
        ],
        _ => Vec::new(),
    }
}

fn weight(weight: i32) -> CanaryStep {
    CanaryStep { set_weight: Some(weight), ..CanaryStep::default() }
}

fn pause(duration: Option<u64>) -> CanaryStep {
    CanaryStep { pause: Some(Pause { duration: duration.map(Duration::from_millis) }), ..CanaryStep::default() }
}

fn approval() -> CanaryStep {
    CanaryStep { approval: Some(Approval {}), ..CanaryStep::default() }
}

fn steps(index: u8) -> Vec<CanaryStep> {
    match index {
        1 => vec![weight(25), pause(Some(10_000)), weight(50), pause(Some(4_000))],
        2 => vec![weight(20), pause(None), weight(60)],
        3 => vec![weight(50), approval()],
        4 => vec![weight(0), approval(), weight(100), pause(Some(1_500))],
        7 => vec![pause(None), weight(50)],
        8 => vec![weight(34), weight(67), pause(Some(6_000))],
        _ => Vec::new(),
    }
}

fn bounds(index: u8) -> (IntOrString, IntOrString) {
    let percent = |text: &str| IntOrString::String(text.into());
    match index {
        1 => (IntOrString::Int(1), IntOrString::Int(0)),
        2 => (IntOrString::Int(0), IntOrString::Int(1)),
        3 => (percent("100%"), IntOrString::Int(0)),
        4 => (percent("50%"), percent("50%")),
        5 => (IntOrString::Int(0), percent("25%")),
        6 => (IntOrString::Int(2), IntOrString::Int(1)),
        _ => (percent("25%"), IntOrString::Int(0)),
    }
}

/// What only a route can do, in place of the strategy of a number.
fn routed_canary(index: u8, router: &Router) -> Option<Canary> {
    let scale = |percent| CanaryStep { scale: Some(Scale { percent, replicas: None }), ..CanaryStep::default() };
    let header = |names: &[&str]| {
        let header = |name: &&str| HeaderMatch { name: (*name).into(), value: "yes".into(), ..HeaderMatch::default() };
        let headers = names.iter().map(header).collect();
        CanaryStep { set_header_route: Some(HeaderRoute { headers }), ..CanaryStep::default() }
    };
    let mirror = |percent| CanaryStep { set_mirror_route: Some(MirrorRoute { percent }), ..CanaryStep::default() };
    match index {
        7 if router.gateway.is_some() => Some(Canary {
            steps: vec![
                header(&["x-tester"]),
                pause(None),
                mirror(30),
                scale(Some(100)),
                weight(50),
                header(&[]),
                pause(Some(3_000)),
                mirror(0),
                scale(None),
            ],
            ..Canary::default()
        }),
        8 => Some(Canary {
            dynamic_stable_scale: Some(DynamicStableScale { at_least: IntOrString::String("40%".into()) }),
            steps: vec![weight(34), weight(67), pause(Some(6_000)), weight(100), pause(Some(2_000))],
            ..Canary::default()
        }),
        _ => None,
    }
}

/// The strategy of a number, with a pair of bounds.
pub fn strategy(index: u8, pair: u8, router: Option<&Router>) -> Option<Strategy> {
    if let Some(canary) = router.and_then(|router| routed_canary(index, router)) {
        return Some(Strategy { canary: Some(canary), blue_green: None });
    }
    let (canary, blue_green) = match index {
        0 => return None,
        5 | 6 => (
            None,
            Some(BlueGreen { auto_promote: index == 5, maintenance: router.is_some_and(|it| it.gateway.is_some()) }),
        ),
        _ => {
            let (max_surge, max_unavailable) = bounds(pair);
            let steps = steps(index);
            let canary = Canary { max_surge, max_unavailable, steps, ..Canary::default() };
            (Some(canary), None)
        }
    };
    Some(Strategy { canary, blue_green })
}

/// The same in words.
pub fn describe(index: u8, pair: u8) -> String {
    let (surge, unavailable) = bounds(pair);
    let text = |bound: IntOrString| match bound {
        IntOrString::Int(pods) => pods.to_string(),
        IntOrString::String(text) => text,
    };
    let steps = match index {
        0 => return "no strategy".into(),
        5 => return "blueGreen".into(),
        6 => return "blueGreen by hand".into(),
        1 => "25%, pause 10s, 50%, pause 4s",
        2 => "20%, pause, 60%",
        3 => "50%, approval",
        4 => "0%, approval, 100%, pause 1.5s",
        7 => "pause, 50%; over a Gateway headers, copies and scale",
        _ => "34%, 67%, pause 6s; over a route with dynamicStableScale",
    };
    format!("canary ({steps}; maxSurge {}, maxUnavailable {})", text(surge), text(unavailable))
}
