//! `kubectl srel completion`, and the names that kubectl asks for when Tab is pressed behind
//! `kubectl srel`.

use clap::CommandFactory as _;
use clap_complete::{Shell as Target, generate};

use super::{
    args::{Cli, Complete, Connection, Shell},
    connect::Cluster,
    error::CliError,
    exit, output,
};

/// To be put into the PATH as kubectl_complete-srel; kubectl runs it with the words so far.
const FOR_KUBECTL: &str = "#!/bin/sh\nexec kubectl-srel __complete \"$@\"\n";

/// kubectl's directive "these are all; do not offer file names".
const NO_FILES: &str = ":4";
/// kubectl's directive "offer file names".
const FILES: &str = ":0";

/// Prints the script.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(shell: Shell) -> Result<u8, CliError> {
    let target = match shell {
        Shell::Bash => Target::Bash,
        Shell::Zsh => Target::Zsh,
        Shell::Fish => Target::Fish,
        Shell::PowerShell => Target::PowerShell,
        Shell::Kubectl => {
            output::print(FOR_KUBECTL)?;
            return Ok(exit::OK);
        }
    };
    let mut script = Vec::new();
    generate(target, &mut Cli::command(), "kubectl-srel", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}

/// Prints what can follow the words, in the form that kubectl expects.
///
/// # Errors
/// When standard output cannot be written.
pub async fn complete(connection: &Connection, complete: &Complete) -> Result<u8, CliError> {
    let (last, before) =
        complete.words.split_last().map_or(("", [].as_slice()), |(last, before)| (last.as_str(), before));
    let found = match candidates(before, last) {
        Candidates::Words(words) => words,
        Candidates::Files => {
            output::print(&format!("{FILES}\n"))?;
            return Ok(exit::OK);
        }
        Candidates::Releases => releases(connection, before).await,
    };
    let fitting = found.iter().filter(|word| word.starts_with(last)).map(|word| format!("{word}\n"));
    output::print(&(fitting.collect::<String>() + NO_FILES + "\n"))?;
    Ok(exit::OK)
}

enum Candidates {
    Words(Vec<String>),
    Releases,
    Files,
}

/// What can stand behind the words, by the command line's own definition.
fn candidates(before: &[String], last: &str) -> Candidates {
    let cli = Cli::command();
    let command = before.iter().find_map(|word| cli.find_subcommand(word));
    let arguments = || command.into_iter().chain([&cli]).flat_map(clap::Command::get_arguments);
    let takes_value = |word: &String| {
        arguments().find(|argument| {
            let long = argument.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
            let short = argument.get_short().is_some_and(|short| *word == format!("-{short}"));
            (long || short) && argument.get_action().takes_values()
        })
    };
    if let Some(option) = before.last().and_then(takes_value) {
        let values = option.get_possible_values();
        return match option.get_id().as_str() {
            "filename" | "filenames" | "kubeconfig" | "ca_file" => Candidates::Files,
            _ => Candidates::Words(values.iter().map(|value| value.get_name().to_owned()).collect()),
        };
    }
    if last.starts_with('-') {
        return Candidates::Words(
            arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect(),
        );
    }
    match command {
        None => Candidates::Words(
            cli.get_subcommands()
                .filter(|command| !command.is_hide_set())
                .map(|command| command.get_name().to_owned())
                .collect(),
        ),
        Some(command) => match command.get_positionals().next() {
            Some(first) if first.get_id() == "name" => Candidates::Releases,
            Some(first) => {
                Candidates::Words(first.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect())
            }
            None => Candidates::Words(Vec::new()),
        },
    }
}

/// Names of releases; none if the cluster cannot be asked, since an error has no place in a completion.
async fn releases(connection: &Connection, before: &[String]) -> Vec<String> {
    let mut connection = connection.clone();
    let value = |names: [&str; 2]| {
        before
            .iter()
            .zip(before.iter().skip(1))
            .find(|(word, _)| names.contains(&word.as_str()))
            .map(|(_, value)| value.clone())
    };
    connection.namespace = value(["-n", "--namespace"]).or(connection.namespace);
    connection.context = value(["--context", "--context"]).or(connection.context);
    connection.kubeconfig = value(["--kubeconfig", "--kubeconfig"]).map(Into::into).or(connection.kubeconfig);
    let Ok(cluster) = Cluster::connect(&connection).await else { return Vec::new() };
    let api = cluster.api::<crate::api::ServiceRelease>();
    let params = kube::api::ListParams::default();
    let list = tokio::time::timeout(std::time::Duration::from_secs(3), api.list_metadata(&params));
    match list.await {
        Ok(Ok(list)) => list.iter().map(kube::ResourceExt::name_any).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        let (last, before) = line.split_last().unwrap();
        let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        match candidates(&before, last) {
            Candidates::Words(words) => words.into_iter().filter(|word| word.starts_with(last)).collect(),
            Candidates::Releases => vec!["<releases>".to_owned()],
            Candidates::Files => vec!["<files>".to_owned()],
        }
    }

    #[test]
    fn commands_flags_values_files_and_releases_are_told_apart() {
        assert_eq!(words(&["ab"]), ["abort"]);
        assert_eq!(words(&["-n", "production", "un"]), ["undo"]);
        assert_eq!(words(&["abort", ""]), ["<releases>"]);
        assert_eq!(words(&["get", "-o", ""]), ["json", "yaml"]);
        assert_eq!(words(&["lint", "-f", ""]), ["<files>"]);
        assert_eq!(words(&["promote", "--fu"]), ["--full"]);
        assert_eq!(words(&["completion", "z"]), ["zsh"]);
        assert!(words(&[""]).iter().all(|word| !word.starts_with("__")));
    }

    #[test]
    fn each_shell_gets_a_script_that_names_the_plugin() {
        for target in [Target::Bash, Target::Zsh, Target::Fish, Target::PowerShell] {
            let mut script = Vec::new();
            generate(target, &mut Cli::command(), "kubectl-srel", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("kubectl-srel"));
        }
    }
}
