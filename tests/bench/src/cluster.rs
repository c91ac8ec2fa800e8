//! The cluster that is measured on: brought up fresh, with simulated nodes and an audit log, and what
//! the harness itself needs in it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// The name of the cluster; whoever uses it at the same time disturbs the figures.
const NAME: &str = "bench";
/// Where releases are made.
pub const NAMESPACE: &str = "bench";
/// The processes of the operator that may run; each is a user of its own in the audit log.
pub const OPERATORS: [&str; 2] = ["operator-a", "operator-b"];

/// See the module.
pub struct Cluster {
    /// The harness' own client.
    pub client: Client,
    /// Files of this run.
    pub files: PathBuf,
    state: PathBuf,
    api_server: u32,
}

impl Cluster {
    /// Starts it anew.
    pub async fn start(root: &Path, files: &Path) -> Result<Self> {
        devcluster(root, &["down"])?;
        let kubeconfig = files.join("kubeconfig");
        let path = kubeconfig.to_str().context("the path of target/ is not UTF-8")?;
        devcluster(root, &["up", "--nodes", "simulated", "--node-count", "20", "--audit", "--kubeconfig", path])?;
        let config = Kubeconfig::read_from(&kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let state = state();
        let api_server = fs::read_to_string(state.join("pids/kube-apiserver"))?;
        let api_server = api_server.split_whitespace().next().context("no pid of the API server")?.parse()?;
        let cluster = Self { client: Client::try_from(config)?, files: files.to_owned(), state, api_server };
        cluster.prepare(root, &kubeconfig)?;
        Ok(cluster)
    }

    /// The CRDs, a namespace, and for each operator a user with a kubeconfig of its own.
    fn prepare(&self, root: &Path, kubeconfig: &Path) -> Result<()> {
        let kubectl = |args: &[&str]| run(Command::new("kubectl").arg("--kubeconfig").arg(kubeconfig).args(args));
        let crds = root.join("crds");
        kubectl(&["apply", "--server-side", "-f", crds.to_str().unwrap_or_default()])?;
        kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
        kubectl(&["create", "namespace", NAMESPACE])?;
        let mut config: Value = json!(Kubeconfig::read_from(kubeconfig)?);
        for name in OPERATORS {
            kubectl(&["-n", "default", "create", "serviceaccount", name])?;
            let account = format!("--serviceaccount=default:{name}");
            kubectl(&["create", "clusterrolebinding", name, "--clusterrole=cluster-admin", &account])?;
            let token = kubectl(&["-n", "default", "create", "token", name, "--duration=24h"])?;
            config["users"][0]["user"] = json!({ "token": token.trim() });
            fs::write(self.kubeconfig(name), config.to_string())?;
        }
        Ok(())
    }

    /// The kubeconfig of an operator.
    pub fn kubeconfig(&self, operator: &str) -> PathBuf {
        self.files.join(format!("{operator}.kubeconfig"))
    }

    /// CPU seconds that the API server has used.
    pub fn api_server_cpu(&self) -> Result<f64> {
        crate::process::cpu(self.api_server)
    }

    /// The end of the audit log, to count from later.
    pub fn mark(&self) -> Result<Mark> {
        let log = self.state.join("logs/audit.json");
        let offset = fs::metadata(&log)?.len();
        Ok(Mark { log, offset })
    }

    /// Takes it down again.
    pub fn end(root: &Path) -> Result<()> {
        devcluster(root, &["down"])
    }
}

/// A place in the audit log.
pub struct Mark {
    log: PathBuf,
    offset: u64,
}

impl Mark {
    /// The operators' requests since then.
    pub fn requests(&self) -> Result<Requests> {
        let mut file = fs::File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut counts = BTreeMap::new();
        // The last line may be half written.
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if let Some(request) = Request::read(&event) {
                *counts.entry(request).or_insert(0) += 1;
            }
        }
        Ok(Requests(counts))
    }
}

/// A request as it is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    verb: String,
    resource: String,
    refused: bool,
    dry_run: bool,
}

impl Request {
    fn read(event: &Value) -> Option<Self> {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let user = text("/user/username").strip_prefix("system:serviceaccount:default:")?;
        let verb = text("/verb");
        // A watch is over when it ends; it is counted when it begins.
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        if !OPERATORS.contains(&user) || text("/stage") != stage {
            return None;
        }
        let subresource = text("/objectRef/subresource");
        let slash = if subresource.is_empty() { "" } else { "/" };
        Some(Self {
            verb: verb.to_owned(),
            resource: format!("{}{slash}{subresource}", text("/objectRef/resource")),
            refused: event.pointer("/responseStatus/code").and_then(Value::as_i64).is_some_and(|code| code >= 400),
            dry_run: text("/requestURI").contains("dryRun=All"),
        })
    }

    fn lease(&self) -> bool {
        self.resource == "leases"
    }

    fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list")
    }

    /// Whether it changes something besides the lease.
    fn writes(&self) -> bool {
        !self.lease() && !self.dry_run && self.verb != "watch" && !self.reads()
    }
}

/// Requests and how often each was made.
pub struct Requests(BTreeMap<Request, usize>);

impl Requests {
    fn sum(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.0.iter().filter(|(request, _)| which(request)).map(|(_, count)| count).sum()
    }

    /// Writes, besides the lease and dry runs.
    pub fn writes(&self) -> usize {
        self.sum(Request::writes)
    }

    /// Writes of the status of a ServiceRelease.
    pub fn status_writes(&self) -> usize {
        self.sum(|request| request.writes() && request.resource == "servicereleases/status")
    }

    /// GETs and LISTs, besides the lease.
    pub fn reads(&self) -> usize {
        self.sum(|request| request.reads() && !request.lease())
    }

    /// Everything but watches and the lease.
    pub fn avoidable(&self) -> usize {
        self.sum(|request| !request.lease() && request.verb != "watch")
    }

    /// In words, the most frequent first.
    pub fn list(&self) -> String {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(request, count)| (std::cmp::Reverse(**count), (*request).clone()));
        let words = |(request, count): (&Request, &usize)| {
            let Request { verb, resource, refused, dry_run } = request;
            let refused = if *refused { " (refused)" } else { "" };
            let dry_run = if *dry_run { " (dry run)" } else { "" };
            format!("{count} {verb} {resource}{dry_run}{refused}")
        };
        let words: Vec<String> = all.into_iter().map(words).collect();
        if words.is_empty() { "nothing".into() } else { words.join(", ") }
    }
}

fn state() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let default = || {
        let base = set("XDG_STATE_HOME").unwrap_or_else(|| "/var/lib".into());
        base.join("service-release-operator/devcluster")
    };
    set("DEVCLUSTER_STATE").unwrap_or_else(default).join(NAME)
}

fn devcluster(root: &Path, args: &[&str]) -> Result<()> {
    run(Command::new(root.join("tests/devcluster/devcluster")).args(["--name", NAME]).args(args)).map(drop)
}

/// Runs a program to its end and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
