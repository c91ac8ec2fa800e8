//! What has to hold of a release with a database whatever happened: the revision that is stable answers alone, the status is
//! true, each version is in the ledger once, nothing is left over, and the password is nowhere.

use std::{collections::BTreeSet, future::Future, time::Duration};

use k8s_openapi::api::{apps::v1::ReplicaSet, batch::v1::Job};
use kube::{ResourceExt as _, api::ListParams};
use servicerelease::api::{LABEL_RELEASE, LABEL_REVISION, Phase, ServiceRelease, ServiceReleaseStatus, WorkOutcome};
use tokio::time::{interval, timeout};

use super::{database::Ground, kubectl, operator, shop::is};

const PATIENCE: Duration = Duration::from_secs(60);
/// A part of the password in every URL: it is to be nowhere.
const PASSWORD: &str = "s3cret";

/// Every ledger of the database, as a query of its rows: that of files and that of commands are in schemas of their own.
const LEDGERS: &str = "SELECT coalesce(string_agg(format('SELECT set_name, version, state FROM %I.%I', nspname, relname), \
                       ' UNION ALL '), '') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                       WHERE relname = 'servicerelease_ledger' AND relkind = 'r'";

impl Ground {
    /// What has to hold after everything.
    pub async fn is_sound(&self) {
        self.is_quiet().await;
        let twice = "SELECT version FROM effects GROUP BY version HAVING count(*) > 1";
        assert_eq!(self.postgres.sql(twice).await, "", "applied more than once");
    }

    /// The same of a database without the effects of files.
    pub async fn is_quiet(&self) {
        self.server_is_quiet().await;
        let scratch = "SELECT count(*) FROM pg_database WHERE datname LIKE 'servicerelease_%'";
        self.postgres.until(scratch, "0").await;
        until_right(|| self.orphan()).await;
        self.stable_serves().await;
        until_right(|| self.lie()).await;
        self.is_in_the_ledger_once().await;
        self.password_is_nowhere().await;
        self.load.assert_no_failed_requests().await;
    }

    /// No session of the operator's programs is left, and nobody holds the lock of the migrations.
    pub async fn server_is_quiet(&self) {
        let none = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'servicerelease/%'";
        self.postgres.until(none, "0").await;
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        self.postgres.until(locks, "0").await;
    }

    /// No Job runs.
    pub async fn no_job_is_left(&self) {
        until_right(async || {
            let running = self.jobs().await.into_iter().find(is_active);
            running.map(|job| format!("Job {} runs", job.name_any()))
        })
        .await;
    }

    async fn jobs(&self) -> Vec<Job> {
        let own = ListParams::default().labels(&format!("{LABEL_RELEASE}=shop"));
        self.world.api::<Job>().list(&own).await.expect("Jobs").items
    }

    /// A Job that runs, or that nobody knows any more: those that the status names stay for their logs.
    async fn orphan(&self) -> Option<String> {
        let status = self.shop.status().await;
        let work = status.database.iter().flat_map(|database| &database.work).map(|work| work.job.clone());
        let known: BTreeSet<String> = work.chain(status.checks.iter().filter_map(|check| check.job.clone())).collect();
        let orphan = self.jobs().await.into_iter().find(|job| is_active(job) || !known.contains(&job.name_any()));
        orphan.map(|job| format!("Job {} runs, or the status does not know it: {known:?}", job.name_any()))
    }

    /// Only the revision that the status calls stable has pods, and it alone answers.
    async fn stable_serves(&self) {
        until_right(async || {
            let stable = self.shop.status().await.stable.map(|stable| stable.revision).unwrap_or_default();
            let sizes = self.shop.sizes().await;
            let alone = matches!(&*sizes, [(revision, _)] if *revision == stable);
            (!alone).then(|| format!("{stable} is stable, and pods are asked for of {sizes:?}"))
        })
        .await;
        let stable = self.shop.status().await.stable.expect("a stable revision").revision;
        let version = self.version_of(&stable).await;
        self.load.answered_only_by(&version).await;
    }

    /// The version that the pods of a revision have.
    async fn version_of(&self, revision: &str) -> String {
        let own = ListParams::default().labels(&format!("{LABEL_RELEASE}=shop,{LABEL_REVISION}={revision}"));
        let sets = self.world.api::<ReplicaSet>().list(&own).await.expect("ReplicaSets");
        let pod = sets.items.into_iter().find_map(|set| set.spec?.template?.spec);
        let variables = pod.into_iter().flat_map(|pod| pod.containers).flat_map(|one| one.env.unwrap_or_default());
        let version = variables.into_iter().find(|variable| variable.name == "APP_VERSION");
        version.and_then(|variable| variable.value).unwrap_or_else(|| panic!("{revision} has no APP_VERSION"))
    }

    /// What of the status is not so.
    async fn lie(&self) -> Option<String> {
        lie(&self.shop.get().await)
    }

    /// At most one run of each version is on record as applied, in whichever schema a ledger is; of a migration by a command
    /// in whichever release it was: its version there is `migration/HASH/RELEASE`, and the command is what HASH is of.
    async fn is_in_the_ledger_once(&self) {
        let rows = self.postgres.sql(LEDGERS).await;
        if rows.is_empty() {
            return;
        }
        let twice = format!(
            "SELECT set_name, regexp_replace(version, '^(migration/[^/]+)/.*', '\\1'), string_agg(version, ' ') \
             FROM ({rows}) ledger WHERE state = 'Applied' GROUP BY 1, 2 HAVING count(*) > 1"
        );
        assert_eq!(self.postgres.sql(&twice).await, "", "in the ledger more than once");
    }

    /// Neither in objects nor in Events nor in logs.
    pub async fn password_is_nowhere(&self) {
        let mut places = Vec::new();
        for words in [
            "get servicereleases,releasecommands,controllerrevisions,jobs,pods,configmaps -o yaml",
            "get events -o yaml",
            "logs -l servicerelease.io/job --all-containers --tail=-1 --prefix",
        ] {
            places.push((words, self.world.kubectl(words).await.text));
        }
        let words = "logs -l app.kubernetes.io/name=service-release-operator --since=5m --tail=-1";
        places.push(("the operator's log", kubectl::kubectl(operator::NAMESPACE, words).await.text));
        for (place, text) in places {
            let told = text.lines().find(|line| line.contains(PASSWORD));
            assert!(told.is_none(), "the password is in {place}: {}", told.unwrap_or_default());
        }
    }
}

fn is_active(job: &Job) -> bool {
    job.status.as_ref().and_then(|status| status.active).unwrap_or_default() > 0
}

/// What of a status is not so: it is of the spec as it is now, exactly the condition of its phase is True, and where the
/// release is over nothing of it is under way.
fn lie(release: &ServiceRelease) -> Option<String> {
    let status = release.status.clone().unwrap_or_default();
    let wanted = match status.phase {
        Phase::Healthy | Phase::Observing => "Ready",
        Phase::RolledBack | Phase::Halted | Phase::Invalid => "Stalled",
        _ => "Reconciling",
    };
    let holds: Vec<&str> = ["Ready", "Reconciling", "Stalled"].into_iter().filter(|one| is(&status, one)).collect();
    let current = release.metadata.generation == Some(status.observed_generation);
    let told = if !current {
        Some("it is of an older spec".to_owned())
    } else if holds != [wanted] {
        Some(format!("of the three conditions {holds:?} hold"))
    } else if !is(&status, "Available") {
        Some("it is not Available".to_owned())
    } else {
        untrue_at_rest(&status)
    };
    told.map(|what| format!("{:?} {}: {what}; {:?}", status.phase, status.reason, status.conditions))
}

fn untrue_at_rest(status: &ServiceReleaseStatus) -> Option<String> {
    let at_rest = matches!(status.phase, Phase::Healthy | Phase::RolledBack);
    let work = status.database.iter().flat_map(|database| &database.work);
    let running: Vec<_> = work.filter(|work| work.outcome == WorkOutcome::Running).map(|work| work.task).collect();
    let weights = status.weights.unwrap_or_default();
    let fits = status.conditions.iter().find(|one| one.type_ == "DatabaseReady").is_none_or(|one| one.status == "True");
    let untrue = [
        (!running.is_empty(), format!("{running:?} counts as under way")),
        (status.step.is_some(), format!("{:?} counts as under way", status.step)),
        ((weights.desired.candidate, weights.observed.candidate) != (0, 0), format!("a candidate has {weights:?}")),
        (status.phase == Phase::Healthy && !fits, "DatabaseReady does not hold".to_owned()),
        (
            status.phase == Phase::RolledBack && status.rollback.as_ref().is_none_or(|it| it.completed_at.is_none()),
            "the rollback is not over".to_owned(),
        ),
    ];
    untrue.into_iter().find(|(is_so, _)| at_rest && *is_so).map(|(_, what)| what)
}

/// Looks until nothing is wrong any more.
async fn until_right<F: Future<Output = Option<String>>>(looking: impl Fn() -> F) {
    let mut last = String::new();
    let asking = async {
        let mut ticks = interval(Duration::from_millis(250));
        loop {
            ticks.tick().await;
            match looking().await {
                Some(wrong) => last = wrong,
                None => return,
            }
        }
    };
    let ended = timeout(PATIENCE, asking).await;
    assert!(ended.is_ok(), "not within {PATIENCE:?}: {last}");
}
