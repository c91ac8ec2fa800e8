//! PostgreSQL's own programs, pg_dump and pg_restore, told by the environment where the database is: what stands in
//! their arguments every process of the machine can read.

use std::{borrow::Cow, ffi::OsStr, process::Stdio};

use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::process::Command;

use crate::api::status::bounded;

use super::{connection::Connecting, install};

/// The longest that is told of what a program said, in bytes.
const MOST_TOLD: usize = 400;
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
    let mut command = Command::from(install::command(program));
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    // In the words that are looked for, whatever the machine speaks.
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The first error is the cause of the others.
    let cause = said.lines().find(|line| line.contains("error:")).or(said.lines().last()).unwrap_or_default();
    let code = output.status.code().map_or("a signal".to_owned(), |code| format!("exit code {code}"));
    Err(bounded(&format!("{program}: {cause} ({code})"), MOST_TOLD))
}

#[cfg(test)]
mod tests {
    use super::*;

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
