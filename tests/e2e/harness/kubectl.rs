//! Commands as a person types them.

use std::process::Stdio;

use tokio::process::Command;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it printed, standard error after standard output.
    pub text: String,
    /// Standard output alone.
    pub output: String,
}

impl Answer {
    /// The text of a command that must have succeeded.
    pub fn expect_success(self) -> String {
        assert_eq!(self.code, 0, "{}", self.text);
        self.text
    }
}

/// Runs a program with arguments.
pub async fn run(program: &str, arguments: &[&str]) -> Answer {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut text = printed.clone();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Answer { code: output.status.code().unwrap_or(-1), text, output: printed }
}

/// Runs `kubectl -n NAMESPACE WORDS`; the words are separated by blanks and have none in them.
pub async fn kubectl(namespace: &str, words: &str) -> Answer {
    let words: Vec<&str> = ["-n", namespace].into_iter().chain(words.split_whitespace()).collect();
    run("kubectl", &words).await
}

/// Runs the plugin with `-n NAMESPACE WORDS`, likewise.
pub async fn srel(namespace: &str, words: &str) -> Answer {
    let words: Vec<&str> = ["-n", namespace].into_iter().chain(words.split_whitespace()).collect();
    run(env!("CARGO_BIN_EXE_kubectl-srel"), &words).await
}
