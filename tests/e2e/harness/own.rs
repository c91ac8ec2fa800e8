//! An operator of a scenario's own: a process on this machine that looks after the scenario's namespace
//! only, through a proxy that does it harm. Started again at once whenever it is killed.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{Arc, OnceLock},
};

use tokio::{
    process::{Child, Command},
    sync::Mutex,
};

use super::{
    World,
    proxy::{Harm, Kill, Proxy},
};

/// A running operator and its proxy.
pub struct OwnOperator {
    /// What it is harmed by.
    pub proxy: Proxy,
    child: Arc<Mutex<Option<Child>>>,
}

impl OwnOperator {
    /// Starts one for the namespace of a scenario.
    pub async fn start(world: &World, harm: Harm) -> Self {
        Self::start_with(world, harm, &[]).await
    }

    /// The same with more arguments.
    pub async fn start_with(world: &World, harm: Harm, more: &[&str]) -> Self {
        let child = Arc::new(Mutex::new(None::<Child>));
        let program = Arc::new(OnceLock::<Program>::new());
        let kill: Kill = {
            let (child, program) = (child.clone(), program.clone());
            Arc::new(move || {
                let (child, program) = (child.clone(), program.clone());
                Box::pin(async move {
                    let mut running = child.lock().await;
                    if let Some(mut old) = running.take() {
                        old.kill().await.expect("SIGKILL");
                    }
                    *running = program.get().map(Program::start);
                })
            })
        };
        let proxy = Proxy::start(world.cluster.client.clone(), harm, kill.clone(), log(world)).await;
        assert!(program.set(Program::prepare(world, &proxy, more)).is_ok());
        kill().await;
        Self { proxy, child }
    }

    /// The most memory that the process now running ever had, in MiB.
    pub async fn peak_mib(&self) -> u64 {
        let pid = self.child.lock().await.as_ref().and_then(Child::id).expect("it runs");
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }

    /// Asserts that it never ended by itself.
    pub async fn assert_running(&self) {
        let mut child = self.child.lock().await;
        let ended = child.as_mut().and_then(|child| child.try_wait().expect("its state"));
        assert!(ended.is_none(), "the operator ended by itself: {ended:?}");
    }
}

/// Where the operator's log goes, and the proxy's.
fn log(world: &World) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("e2e");
    std::fs::create_dir_all(&directory).expect("a directory for logs");
    directory.join(format!("{}.operator.log", world.namespace))
}

struct Program {
    path: PathBuf,
    namespace: String,
    kubeconfig: PathBuf,
    log: PathBuf,
    more: Vec<String>,
}

impl Program {
    fn prepare(world: &World, proxy: &Proxy, more: &[&str]) -> Self {
        let more = more.iter().map(ToString::to_string).collect();
        let log = log(world);
        let namespace = world.namespace.clone();
        let kubeconfig = log.with_extension("kubeconfig");
        let text = include_str!("own.kubeconfig.yaml").replace("ADDRESS", &proxy.address.to_string());
        std::fs::write(&kubeconfig, text).expect("a kubeconfig");
        Self { path: env!("CARGO_BIN_EXE_service-release-operator").into(), namespace, kubeconfig, log, more }
    }

    fn start(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = Command::new(&self.path);
        command
            .args(["run", "--no-leader-election", "--health-addr", "127.0.0.1:0", "--namespaces", &self.namespace])
            .args(&self.more)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("RUNNER_IMAGE", std::env::var("OPERATOR_IMAGE").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .kill_on_drop(true);
        command.spawn().expect("the operator starts")
    }
}
