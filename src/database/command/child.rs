//! The user's command as a process: in a group of its own, so that all of it can be ended, and with its words passed on
//! without passwords.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child as Process, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::database::{SCRATCH_URL, Secrets, WRAPPER_URL, expand};

/// The longest line that is looked at as a whole, in bytes.
const LINE: u64 = 64 * 1024;
/// How many lines are remembered.
const LINES: usize = 20;
/// The longest that is told of what it said, in bytes.
const TOLD: usize = 300;
/// How long its output is read after its end: somebody else may hold it open.
const DRAIN: Duration = Duration::from_secs(2);

/// What the command has not in its environment: the wrapper's own ways to databases.
const HIDDEN: [&str; 2] = [WRAPPER_URL, SCRATCH_URL];

/// A running command.
pub struct Child {
    process: Process,
    group: Option<Pid>,
    said: Arc<Said>,
    pipes: Vec<JoinHandle<()>>,
}

/// The last lines of what it said.
#[derive(Debug, Default)]
struct Said {
    errors: Mutex<VecDeque<String>>,
    output: Mutex<VecDeque<String>>,
}

impl Child {
    /// Starts it, with these variables beside those of this process.
    ///
    /// # Errors
    /// There is no such program, or it cannot be run.
    pub fn spawn(command: &[OsString], variables: &[(String, OsString)], secrets: &Secrets) -> io::Result<Self> {
        // The kubelet left `$(NAME)` as it was: the command's own environment counts.
        let known = |name: &str| {
            let given = variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            let value = given.or_else(|| std::env::var_os(name).filter(|_| !HIDDEN.contains(&name)))?;
            value.into_string().ok()
        };
        let expanded = |word: &OsString| match word.to_str() {
            Some(text) => OsString::from(expand(text, known)),
            None => word.clone(),
        };
        let words: Vec<OsString> = command.iter().map(expanded).collect();
        let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let mut command = Command::new(program);
        for name in HIDDEN {
            command.env_remove(name);
        }
        let mut process = command
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let said = Arc::new(Said::default());
        let mut pipes = Vec::new();
        if let Some(pipe) = process.stderr.take() {
            pipes.push(tokio::spawn(pass_on(pipe, secrets.clone(), said.clone(), true)));
        }
        if let Some(pipe) = process.stdout.take() {
            pipes.push(tokio::spawn(pass_on(pipe, secrets.clone(), said.clone(), false)));
        }
        Ok(Self { process, group, said, pipes })
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may just have ended.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Waits for its end. May be broken off and called again.
    ///
    /// # Errors
    /// The system does not say.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Ends what it left running, and returns the end of what it said.
    pub async fn last_words(mut self) -> String {
        self.signal(Signal::KILL);
        for pipe in &mut self.pipes {
            if timeout(DRAIN, &mut *pipe).await.is_err() {
                pipe.abort();
            }
        }
        let errors = lines(&self.said.errors);
        if errors.is_empty() { lines(&self.said.output) } else { errors }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The last lines that fit.
fn lines(said: &Mutex<VecDeque<String>>) -> String {
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let mut kept: VecDeque<&str> = VecDeque::new();
    let mut length = 0;
    for line in said.iter().rev() {
        length += line.len() + 1;
        if length > TOLD && !kept.is_empty() {
            break;
        }
        kept.push_front(line);
    }
    crate::database::report::cut(&kept.into_iter().collect::<Vec<_>>().join(" | "), TOLD)
}

async fn pass_on(pipe: impl AsyncRead + Unpin, secrets: Secrets, said: Arc<Said>, is_error: bool) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    // Bytes that are no text are no reason to stop reading: the command would wait for a reader.
    while matches!((&mut reader).take(LINE).read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = secrets.mask(&String::from_utf8_lossy(&line));
        if is_error {
            eprint!("{text}");
        } else {
            print!("{text}");
        }
        let kept = if is_error { &said.errors } else { &said.output };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.trim().is_empty() {
            kept.push_back(text.trim().to_owned());
        }
        if kept.len() > LINES {
            kept.pop_front();
        }
        line.clear();
    }
}

/// How a process ended, in words.
pub fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "an unknown end".into(),
    }
}
