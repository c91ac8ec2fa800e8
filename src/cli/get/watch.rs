//! `get -w`: the picture anew whenever something changes. On a terminal it is drawn over the old one,
//! and once a second the times that are left are brought up to date, without asking the API server;
//! elsewhere it is appended.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{ResourceExt as _, runtime::watcher};

use serde_json::json;

use super::{render_list, render_one, scope, table, view};
use crate::{
    api::{LABEL_RELEASE, ServiceRelease, ServiceReleaseSpec},
    cli::{
        args::{self, Format},
        connect::Cluster,
        error::CliError,
        live::Live,
        outcome::Workload,
        output,
        paint::Paint,
        screen::Screen,
        time,
    },
};

/// Changes that come together are shown together.
const SETTLE: Duration = Duration::from_millis(50);

/// Where pictures go: over the old one on a terminal, after it elsewhere.
struct Show {
    screen: Screen,
    terminal: bool,
    last: String,
}

impl Show {
    fn new(format: Option<Format>) -> Self {
        let terminal = format.is_none() && std::io::stdout().is_terminal();
        Self { screen: Screen::default(), terminal, last: String::new() }
    }

    /// Shows a picture; `stamp` is what of it does not change with time alone.
    fn show(&mut self, picture: &str, stamp: String) -> Result<(), CliError> {
        if self.terminal {
            return output::print(&self.screen.frame(picture));
        }
        if stamp == self.last {
            return Ok(());
        }
        let separator = if self.last.is_empty() { "" } else { "\n" };
        self.last = stamp;
        output::print(&format!("{separator}{picture}"))
    }

    /// Until the times that are shown have to be brought up to date.
    async fn tick(&self) {
        if self.terminal {
            tokio::time::sleep(Duration::from_secs(1)).await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}

/// The list. Elsewhere than on a terminal only the lines that changed are appended, as `kubectl get -w` does.
///
/// # Errors
/// When the releases cannot be watched.
pub async fn list(cluster: &Cluster, args: &args::Get) -> Result<(), CliError> {
    let (api, place) = scope(cluster, args.all_namespaces);
    let what = format!("watch the ServiceReleases of {place}");
    let mut releases = Live::new(api, watcher::Config::default(), what, &cluster.server);
    let mut show = Show::new(args.output);
    let mut appended = Appended { list: table::List::new(args.all_namespaces), known: BTreeMap::new() };
    loop {
        tokio::select! {
            changed = releases.changed() => changed?,
            () = show.tick(), if releases.is_complete() => {}
        }
        let now: Vec<ServiceRelease> = releases.items().cloned().collect();
        if show.terminal {
            let picture = render_list(&now, args.all_namespaces, None, Paint::for_stdout())?;
            show.show(&picture, String::new())?;
        } else {
            appended.changed(&now, args.output)?;
        }
    }
}

/// A list that is appended to.
struct Appended {
    list: table::List,
    known: BTreeMap<(String, String), String>,
}

impl Appended {
    /// Appends the lines that changed.
    fn changed(&mut self, releases: &[ServiceRelease], format: Option<Format>) -> Result<(), CliError> {
        let key = |release: &ServiceRelease| (release.namespace().unwrap_or_default(), release.name_any());
        let mut rows = Vec::new();
        for release in releases {
            let row = table::row(release);
            let stamp = serde_json::to_string(&row).map_err(|error| CliError::Format(error.to_string()))?;
            if self.known.insert(key(release), stamp.clone()) != Some(stamp) {
                rows.push(row);
            }
        }
        let here: Vec<_> = releases.iter().map(key).collect();
        for (namespace, name) in self.known.keys().filter(|known| !here.contains(known)) {
            eprintln!("ServiceRelease {namespace}/{name} was deleted.");
        }
        self.known.retain(|known, _| here.contains(known));
        match format {
            _ if rows.is_empty() => Ok(()),
            Some(format) => output::print(&output::format(&json!({ "items": rows }), format)?),
            None => output::print(&self.list.add(&rows, time::now(), Paint::for_stdout())),
        }
    }
}

/// What one release consists of, kept up to date.
struct Watched {
    release: Live<ServiceRelease>,
    replica_sets: Option<Live<ReplicaSet>>,
    pods: Option<Live<Pod>>,
    deployment: Option<Live<Deployment>>,
    gaps: Vec<String>,
}

impl Watched {
    fn start(cluster: &Cluster, release: &ServiceRelease) -> Self {
        let (name, server) = (release.name_any(), &cluster.server);
        let labels = watcher::Config::default().labels(&format!("{LABEL_RELEASE}={name}"));
        let what = |kinds: &str| format!("watch the {kinds} of {}/{name}", cluster.namespace);
        let workload = release.spec.workload_ref.as_ref();
        Self {
            release: Live::one(cluster.api(), &name, what("status"), server),
            replica_sets: Some(Live::new(cluster.api(), labels.clone(), what("ReplicaSets"), server)),
            pods: Some(Live::new(cluster.api(), labels, what("pods"), server)),
            deployment: workload.map(|workload| Live::one(cluster.api(), &workload.name, what("Deployment"), server)),
            gaps: Vec::new(),
        }
    }

    /// Waits for a change of any of them. What may not be watched is left out from then on.
    async fn changed(&mut self) -> Result<(), CliError> {
        let (gaps, lost) = tokio::select! {
            changed = self.release.changed() => return changed,
            changed = on(&mut self.replica_sets) => (changed.err(), 0),
            changed = on(&mut self.pods) => (changed.err(), 1),
            changed = on(&mut self.deployment) => (changed.err(), 2),
        };
        if let Some(error) = gaps {
            self.gaps.push(error.to_string());
            match lost {
                0 => self.replica_sets = None,
                1 => self.pods = None,
                _ => self.deployment = None,
            }
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.release.is_complete()
            && self.replica_sets.as_ref().is_none_or(Live::is_complete)
            && self.pods.as_ref().is_none_or(Live::is_complete)
            && self.deployment.as_ref().is_none_or(Live::is_complete)
    }

    fn view(&self, release: &ServiceRelease, plan: Option<&ServiceReleaseSpec>) -> view::View {
        let generation = |deployment: &Deployment| deployment.metadata.generation.unwrap_or_default();
        let workload = match self.deployment.as_ref().map(Live::single) {
            Some(Some(deployment)) => Workload::Generation(generation(deployment)),
            Some(None) => Workload::Missing,
            None => Workload::None,
        };
        let standing = [self.release.trouble()].into_iter().flatten().map(str::to_owned);
        view::view(&view::Seen {
            release,
            replica_sets: self.replica_sets.iter().flat_map(Live::items).collect(),
            pods: self.pods.iter().flat_map(Live::items).collect(),
            plan,
            workload,
            gaps: self.gaps.iter().cloned().chain(standing).collect(),
        })
    }
}

/// A change of a watch, or never if there is none.
async fn on<K>(live: &mut Option<Live<K>>) -> Result<(), CliError>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    match live {
        Some(live) => live.changed().await,
        None => std::future::pending().await,
    }
}

/// One release.
///
/// # Errors
/// When it cannot be watched, or is deleted.
pub async fn one(cluster: &Cluster, name: &str, format: Option<Format>) -> Result<(), CliError> {
    let mut watched = Watched::start(cluster, &cluster.release(name).await?);
    let mut show = Show::new(format);
    let mut plan: (i64, Option<ServiceReleaseSpec>) = (0, None);
    loop {
        tokio::select! {
            changed = watched.changed() => {
                changed?;
                settle(&mut watched).await?;
            }
            () = show.tick(), if watched.is_complete() => {}
        }
        if !watched.is_complete() {
            continue;
        }
        let Some(release) = watched.release.single().cloned() else {
            return Err(CliError::Deleted(format!("ServiceRelease {}/{name}", cluster.namespace)));
        };
        let number = release.status.as_ref().and_then(|status| status.release.as_ref()).map_or(0, |it| it.number);
        if plan.0 != number {
            plan = (number, super::plan(cluster, &release).await);
        }
        let view = watched.view(&release, plan.1.as_ref());
        let stamp = serde_json::to_string(&view).map_err(|error| CliError::Format(error.to_string()))?;
        show.show(&render_one(&view, format, Paint::for_stdout())?, stamp)?;
    }
}

/// Takes in what comes within a moment.
async fn settle(watched: &mut Watched) -> Result<(), CliError> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    while let Ok(changed) = tokio::time::timeout_at(deadline, watched.changed()).await {
        changed?;
    }
    Ok(())
}
