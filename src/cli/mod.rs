//! The kubectl plugin `kubectl srel`: what a person sees of releases, and says to them. Reads and
//! watches the API server; decides nothing, and writes nothing but ReleaseCommands.

mod analyze;
pub mod args;
mod completion;
mod connect;
pub mod error;
pub mod exit;
mod get;
mod history;
mod lint;
mod live;
mod outcome;
mod output;
mod paint;
mod plan;
mod report;
mod say;
mod screen;
mod status;
mod time;
mod words;

#[cfg(test)]
mod fake;

use clap::Parser as _;

use crate::api::Action;
use args::{Cli, Command, Connection, Say};
use connect::Cluster;
use error::CliError;
use paint::{Paint, Tone};
use say::Wish;

/// Runs the plugin on the process's arguments; the exit code is documented in [`args::EXIT_CODES`].
pub async fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version are no errors; wrong usage must not look like RolledBack (2).
            let code = if error.use_stderr() { exit::ERROR } else { exit::OK };
            let _ = error.print();
            return code;
        }
    };
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            let paint = Paint::for_stderr();
            eprintln!("{} {error}", paint.text(Tone::Bad, "error:"));
            if let Some(remedy) = error.remedy() {
                eprintln!("  {remedy}");
            }
            error.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<u8, CliError> {
    let Cli { connection, command } = cli;
    let plain = Wish::default;
    match command {
        Command::Completion(args) => completion::run(args.shell),
        Command::Complete(args) => completion::complete(&connection, &args).await,
        Command::Get(args) => get::run(&Cluster::connect(&connection).await?, &args).await,
        Command::Status(args) => status::run(&Cluster::connect(&connection).await?, &args).await,
        Command::History(args) => history::run(&Cluster::connect(&connection).await?, &args).await,
        Command::Plan(args) => plan::run(&Cluster::connect(&connection).await?, &args).await,
        Command::Report(args) => report::run(&Cluster::connect(&connection).await?, &args).await,
        Command::Promote(args) => {
            say_to(&connection, Action::Promote, &args.say, Wish { full: args.full, ..plain() }).await
        }
        Command::Undo(args) => {
            say_to(&connection, Action::Undo, &args.say, Wish { to_revision: args.to, ..plain() }).await
        }
        Command::Abort(say) => say_to(&connection, Action::Abort, &say, plain()).await,
        Command::Retry(say) => say_to(&connection, Action::Retry, &say, plain()).await,
        Command::Pause(say) => say_to(&connection, Action::Pause, &say, plain()).await,
        Command::Resume(say) => say_to(&connection, Action::Resume, &say, plain()).await,
        Command::Approve(args) => {
            let approval = say::approval(args.migration, args.migrate_down, args.restore);
            say_to(&connection, Action::Approve, &args.say, Wish { approval, ..plain() }).await
        }
        Command::Skip(say) => say_to(&connection, Action::Skip, &say, plain()).await,
        Command::Lint(args) => lint::run(&args),
        Command::Analyze(args) => analyze::run(&connection, &args).await,
    }
}

async fn say_to(connection: &Connection, action: Action, say: &Say, wish: Wish) -> Result<u8, CliError> {
    say::run(&Cluster::connect(connection).await?, action, say, &wish).await
}
