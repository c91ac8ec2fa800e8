//! A release that stands on a database: a PostgreSQL of the scenario's own, SQL files in a ConfigMap, and a client that calls
//! the service all the while. What has to hold whatever happened is in `sound`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    api::{ListParams, Patch},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use servicerelease::api::{ApprovalKind, DatabaseTask, Phase, SchemaState, ServiceReleaseStatus, WorkOutcome};
use tokio::time::{interval, timeout};

use super::{Load, Shop, World, postgres::Postgres};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a release with all of a database's work may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(300);

/// What every release here begins with: one file, and two pods.
const SPEC: &str = "{database: {
    urlFrom: {secretKeyRef: {name: shop-db, key: DATABASE_URL}},
    migration: {sql: {configMap: shop-migrations}, version: v1, previousRevisionCompatible: true, lockTimeout: 1s,
        approval: Never}}}";

/// A release, its database and its client.
pub struct Ground {
    /// The scenario's namespace.
    pub world: World,
    /// The server.
    pub postgres: Postgres,
    /// The release.
    pub shop: Shop,
    /// The client.
    pub load: Load,
}

/// A file, which also notes that it was run: one that ran twice is seen.
pub fn file(version: &str, sql: &str) -> (String, String) {
    (format!("{version}_file.sql"), format!("{sql};\nINSERT INTO effects (version) VALUES ('{version}');\n"))
}

impl Ground {
    /// Version v1 with one file applied. `spec` (YAML) is put over the release's spec.
    pub async fn start(world: &World, spec: &str) -> Self {
        let postgres = Postgres::start(world).await;
        Self::on(world, postgres, spec).await
    }

    /// The same on a server that is there.
    pub async fn on(world: &World, postgres: Postgres, spec: &str) -> Self {
        files(world, &[]).await;
        let mut all = super::yaml(SPEC);
        super::merge(&mut all, super::yaml(spec));
        let shop = world.starting_shop(&all.to_string()).await;
        shop.reaches_within(LONG, "Healthy", |status| status.phase == Phase::Healthy).await;
        let load = world.load().await;
        Self { world: world.clone(), postgres, shop, load }
    }

    /// Releases a version that comes with these files beside the first one. `change` (YAML) is put over the database's
    /// part of the spec.
    pub async fn release(&self, version: &str, files: &[(String, String)], change: &str) {
        self::files(&self.world, files).await;
        let mut database = json!({ "migration": { "version": version } });
        super::merge(&mut database, super::yaml(change));
        self.shop.release_with(version, json!({ "spec": { "database": database } })).await;
    }

    /// Waits until a piece of the database's work of the release under way stands so.
    pub async fn work(&self, task: DatabaseTask, outcome: WorkOutcome) -> ServiceReleaseStatus {
        let so = |status: &ServiceReleaseStatus| {
            let number = status.release.as_ref().map(|release| release.number);
            let database = status.database.as_ref().filter(|database| Some(database.release) == number);
            database.and_then(|database| database.last(task)).is_some_and(|work| work.outcome == outcome)
        };
        self.shop.reaches_within(LONG, &format!("{task:?} {outcome:?}"), so).await
    }

    /// The pod of the Job of a piece of work, once it runs.
    pub async fn pod(&self, task: DatabaseTask) -> Pod {
        let looking = async {
            let mut ticks = interval(Duration::from_millis(100));
            loop {
                ticks.tick().await;
                let status = self.shop.status().await;
                let work = status.database.as_ref().and_then(|database| database.last(task));
                let Some(job) = work.map(|work| work.job.clone()) else { continue };
                let of_job = ListParams::default().labels(&format!("job-name={job}"));
                let pods = self.world.api::<Pod>().list(&of_job).await.expect("pods");
                let runs = |pod: &Pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
                if let Some(pod) = pods.into_iter().find(runs) {
                    return pod;
                }
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: a pod of the {task:?}"))
    }

    /// The release ends so, for this reason; its message has this in it.
    pub async fn ends(&self, phase: Phase, reason: &str, told: &str) -> ServiceReleaseStatus {
        let what = format!("{phase:?} {reason}: {told}");
        let ended = |status: &ServiceReleaseStatus| {
            status.phase == phase || (status.phase != Phase::RollingBack && is_end(status.phase))
        };
        let status = self.shop.reaches_within(LONG, &what, ended).await;
        assert_eq!((status.phase, status.reason.as_str()), (phase, reason), "{}", status.message);
        assert!(status.message.contains(told), "{told:?} in {}", status.message);
        status
    }

    /// The release goes through.
    pub async fn healthy(&self) -> ServiceReleaseStatus {
        self.ends(Phase::Healthy, "", "").await
    }

    /// The release is taken back before the candidate had a pod, and what served serves on.
    pub async fn taken_back(&self, reason: &str, told: &str, schema: SchemaState) -> ServiceReleaseStatus {
        let status = self.ends(Phase::RolledBack, reason, told).await;
        assert_eq!(status.database.as_ref().map(|database| database.schema), Some(schema), "{}", status.message);
        self.never_had_a_pod();
        self.is_sound().await;
        status
    }

    /// The same of a database without the effects of files.
    pub async fn taken_back_quietly(&self, reason: &str, schema: SchemaState) {
        let status = self.ends(Phase::RolledBack, reason, "").await;
        assert_eq!(status.database.as_ref().map(|database| database.schema), Some(schema), "{}", status.message);
        self.never_had_a_pod();
        self.is_quiet().await;
    }

    /// The candidate of the release under way, or the last one, was given neither a pod nor traffic.
    fn never_had_a_pod(&self) {
        self.shop.always("no candidate has pods or traffic", |status| {
            let pods = status.candidate.as_ref().map_or(0, |candidate| candidate.replicas);
            (pods, status.weights.unwrap_or_default().observed.candidate) == (0, 0)
        });
    }

    /// The files that were applied, by what they did: `001,002`.
    pub async fn effects(&self) -> String {
        self.postgres.sql("SELECT string_agg(version, ',' ORDER BY version) FROM effects").await
    }

    /// Changes a ConfigMap by a JSON merge patch.
    pub async fn patch_config_map(&self, name: &str, change: Value) {
        let changed = self.world.api::<ConfigMap>().patch(name, &Default::default(), &Patch::Merge(change)).await;
        changed.expect("a ConfigMap");
    }

    /// A key of a ConfigMap.
    async fn key(&self, map: &str, key: &str) -> String {
        let map = self.world.api::<ConfigMap>().get(map).await.expect("a ConfigMap");
        map.data.unwrap_or_default().remove(key).unwrap_or_default()
    }

    /// Maintenance mode, as the application sees it.
    pub async fn mode(&self) -> String {
        self.key("shop-mode", "MAINTENANCE_MODE").await
    }

    /// Waits until a key of a ConfigMap has a value.
    pub async fn key_becomes(&self, map: &str, key: &'static str, value: &str) {
        let wanted = value.to_owned();
        let is = move |map: Option<&ConfigMap>| map.and_then(|it| it.data.as_ref()?.get(key)) == Some(&wanted);
        let waiting = timeout(PATIENCE, await_condition(self.world.api::<ConfigMap>(), map, is)).await;
        waiting.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {key} {value}")).expect("a watch");
    }

    /// Waits until something waits for an approval of a kind, and gives it.
    pub async fn approves(&self, kind: &str) {
        let waits = |status: &ServiceReleaseStatus| {
            status.phase == Phase::AwaitingApproval && status.reason == format!("{kind}AwaitsApproval")
        };
        self.shop.reaches_within(LONG, &format!("the {kind} waits for approval"), waits).await;
        self.approve(kind).await;
    }

    /// Gives an approval of the plan that waits for it.
    pub async fn approve(&self, kind: &str) {
        let database = self.shop.status().await.database.unwrap_or_default();
        let plan = match kind {
            "MigrateDown" => database.plan(ApprovalKind::MigrateDown),
            _ => &database.plan_hash,
        };
        let more = json!({ "approval": { "kind": kind, "planHash": plan } });
        let answer = self.shop.command("Approve", &more.to_string()).await;
        assert_eq!(answer.phase, servicerelease::api::CommandPhase::Applied, "{}", answer.message);
    }
}

const fn is_end(phase: Phase) -> bool {
    matches!(phase, Phase::Healthy | Phase::RolledBack | Phase::Halted | Phase::Invalid)
}

/// The ConfigMap with the first file and these.
pub async fn files(world: &World, more: &[(String, String)]) {
    config_map(world, "shop-migrations", [&[first_file()], more].concat()).await;
}

/// The first file, with the table in which the others note that they were run.
pub fn first_file() -> (String, String) {
    let sql =
        "CREATE TABLE effects (version text, at timestamptz DEFAULT now());\nINSERT INTO effects VALUES ('001');\n";
    ("001_effects.sql".to_owned(), sql.to_owned())
}

/// A ConfigMap of a name, whatever it was before.
pub async fn config_map(world: &World, name: &str, data: Vec<(String, String)>) {
    let data: Value =
        data.into_iter().map(|(key, value)| (key, json!(value))).collect::<serde_json::Map<_, _>>().into();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    world.apply_value(map).await;
}
