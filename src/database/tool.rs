//! PostgreSQL's own programs, pg_dump and pg_restore, told by the environment where the database is: what stands in
//! their arguments every process of the machine can read.

use std::{
    borrow::Cow,
    ffi::OsStr,
    process::{Output, Stdio},
};

use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::process::Command;

use crate::api::status::bounded;

use super::{connection::Connecting, install};

/// The longest that is told of what a program said, in bytes.
const MOST_TOLD: usize = 400;
/// What pg_restore of 17 and later says of the one statement that no server before 17 understands.
const UNKNOWN: &str = "Command was: SET transaction_timeout = 0;";
/// The last word of pg_restore when just one statement failed.
const ONE_FAILED: &str = "errors ignored on restore: 1";
/// Parameters of a URL, and the variables by which libpq knows them.
const VARIABLES: [(&str, &str); 11] = [
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("options", "PGOPTIONS"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
];

/// The variables of libpq for a URL.
///
/// # Errors
/// It is no URL.
pub fn environment(url: &str) -> Result<Vec<(&'static str, String)>, Connecting> {
    let url = Url::parse(url.trim()).map_err(|_| Connecting::Url("it cannot be read as a URL"))?;
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(Cow::into_owned).map_err(|_| Connecting::Url("user, password or name is wrongly encoded"))
    };
    let mut all = vec![("PGAPPNAME", "servicerelease/backup".to_owned()), ("PGCONNECT_TIMEOUT", "30".to_owned())];
    all.extend(url.host_str().map(|host| ("PGHOST", host.trim_matches(['[', ']']).to_owned())));
    all.extend(url.port().map(|port| ("PGPORT", port.to_string())));
    let user = decoded(url.username())?;
    all.extend((!user.is_empty()).then_some(("PGUSER", user)));
    all.extend(url.password().map(decoded).transpose()?.map(|password| ("PGPASSWORD", password)));
    let name = decoded(url.path().trim_start_matches('/'))?;
    all.extend((!name.is_empty()).then_some(("PGDATABASE", name)));
    for (name, value) in url.query_pairs() {
        let variable = VARIABLES.into_iter().find(|(known, _)| *known == name);
        all.extend(variable.map(|(_, variable)| (variable, value.into_owned())));
    }
    Ok(all)
}

/// Runs a program of PostgreSQL, and returns what it printed.
///
/// # Errors
/// The end of what it said when it failed, or that there is no such program.
pub async fn run(
    program: &str,
    environment: &[(&'static str, String)],
    arguments: &[&OsStr],
) -> Result<String, String> {
    let output = output(program, environment, arguments).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(program, &output))
}

/// Runs pg_restore, which stops at the first error. It restores on servers that are older than it is, too: since 17 it
/// begins with a setting that they do not have. There it is run once more without that stop, and this must be all that
/// failed.
///
/// # Errors
/// The first of its other errors, or that there is no such program.
pub async fn restore(environment: &[(&'static str, String)], arguments: &[&OsStr]) -> Result<(), String> {
    const PROGRAM: &str = "pg_restore";
    let stopping: Vec<&OsStr> = [OsStr::new("--exit-on-error")].into_iter().chain(arguments.iter().copied()).collect();
    let first = output(PROGRAM, environment, &stopping).await?;
    let older = !first.status.success() && said(&first).lines().any(|line| line == UNKNOWN);
    // Nothing is there yet: this statement comes before all others.
    let ran = if older { output(PROGRAM, environment, arguments).await? } else { first };
    if ran.status.success() || (older && is_nothing_else(&said(&ran))) { Ok(()) } else { Err(failed(PROGRAM, &ran)) }
}

/// Whether nothing failed but the statement that older servers do not understand.
fn is_nothing_else(said: &str) -> bool {
    let errors = said.lines().filter(|line| line.contains("error:")).count();
    errors == 1 && said.lines().any(|line| line == UNKNOWN) && said.trim_end().ends_with(ONE_FAILED)
}

async fn output(program: &str, environment: &[(&'static str, String)], arguments: &[&OsStr]) -> Result<Output, String> {
    let mut command = Command::from(install::command(program));
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    // In the words that are looked for, whatever the machine speaks.
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    command.output().await.map_err(|error| format!("{program} cannot be run: {error}"))
}

fn said(output: &Output) -> Cow<'_, str> {
    String::from_utf8_lossy(&output.stderr)
}

/// Why a program failed.
fn failed(program: &str, output: &Output) -> String {
    let code = output.status.code().map_or("a signal".to_owned(), |code| format!("exit code {code}"));
    bounded(&format!("{program}: {} ({code})", cause(&said(output))), MOST_TOLD)
}

/// The first error, which is the cause of the others, with its detail.
fn cause(said: &str) -> String {
    let next = said.lines().skip(1).chain([""]);
    let errors = said.lines().zip(next).filter(|(line, next)| line.contains("error:") && *next != UNKNOWN);
    let (error, next) = errors.into_iter().next().unwrap_or((said.lines().last().unwrap_or_default(), ""));
    let detail = next.split_once("detail: ").map(|(_, detail)| format!(": {detail}")).unwrap_or_default();
    format!("{error}{detail}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const OLDER: &str = "pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \
                         \"transaction_timeout\"\nCommand was: SET transaction_timeout = 0;\n\n";

    #[rstest]
    #[case::all_else_was_restored("pg_restore: warning: errors ignored on restore: 1\n", true)]
    #[case::so_did_another(
        "pg_restore: error: could not execute query: ERROR:  x\nCommand was: y\n\npg_restore: warning: errors ignored on restore: 2\n",
        false
    )]
    #[case::it_stopped("pg_restore: error: could not read from input file: end of file\n", false)]
    #[case::it_was_killed("", false)]
    fn only_a_setting_that_older_servers_do_not_have_may_fail(#[case] rest: &str, #[case] nothing_else: bool) {
        assert_eq!(is_nothing_else(&format!("{OLDER}{rest}")), nothing_else);
        assert!(!is_nothing_else(rest));
    }

    #[test]
    fn the_cause_is_the_first_error_with_its_detail() {
        let other = "pg_restore: error: could not execute query: ERROR:  x";
        assert_eq!(cause(&format!("{OLDER}{other}\nCommand was: y\n")), other);
        let said = "pg_dump: error: aborting because of server version mismatch\npg_dump: detail: server version: 17; pg_dump version: 15\n";
        assert_eq!(
            cause(said),
            "pg_dump: error: aborting because of server version mismatch: server version: 17; pg_dump version: 15"
        );
        assert_eq!((cause("killed\n"), cause("")), ("killed".to_owned(), String::new()));
    }

    #[test]
    fn a_url_becomes_the_variables_of_libpq() {
        let url = "postgres://shop:p%40s%2Fs@[::1]:6432/or%20ders?sslmode=verify-full&schema=x&sslrootcert=/ca.crt";
        let all = environment(url).unwrap();
        let of = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        assert_eq!((of("PGHOST"), of("PGPORT"), of("PGUSER")), (Some("::1"), Some("6432"), Some("shop")));
        assert_eq!((of("PGPASSWORD"), of("PGDATABASE")), (Some("p@s/s"), Some("or ders")));
        assert_eq!((of("PGSSLMODE"), of("PGSSLROOTCERT")), (Some("verify-full"), Some("/ca.crt")));
        assert!(environment("postgres://shop:%ff@db/x").is_err());
    }
}
