//! What a command of the user's does to a scratch database, as it is seen from outside: every session there but this one
//! is its.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    time::Duration,
};

use reqwest::Url;
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

use crate::{
    api::RehearsalStatus,
    database::{
        self, Places, backup,
        command::child::{self, Child},
        connection::{self, told},
        migrate::beyond::REMEDY,
        scratch::Scratch,
        shared, tool,
    },
};

use super::{
    Found,
    astray::{Real, Watch},
    gone, in_order,
    schema::{Lost, Schema, Touched},
    strength,
};

/// Between two looks at the locks that it has.
const LOOK: Duration = Duration::from_millis(20);

/// The same as [`run`] on the server of the real database. What a command does to the whole of it nobody reads before: it is
/// compared, and of what has changed meanwhile a person is to say whose it is.
pub async fn confined(places: &Places, scratch: &Scratch, rows: &BTreeMap<String, i64>) -> Found {
    let before = match shared::look(&places.url).await {
        Ok(before) => before,
        Err(why) => return Found { fault: Some(why), ..Found::default() },
    };
    let found = run(places, scratch, rows).await;
    let changed = match shared::look(&places.url).await {
        Ok(after) => shared::names(&before.changed(&after)),
        Err(why) => Some(format!("nobody can tell what: {why}")),
    };
    let Some(changed) = changed else { return found };
    let fault = found.fault.map(|fault| format!("; {fault}")).unwrap_or_default();
    let told = format!(
        "while the command ran the whole server has changed, by it or by somebody else ({changed}): undo what is its, and {REMEDY}"
    );
    Found { fault: Some(format!("{told}{fault}")), astray: true, ..found }
}

/// Runs the command on a scratch database that has these rows, and looks what it does.
pub async fn run(places: &Places, scratch: &Scratch, rows: &BTreeMap<String, i64>) -> Found {
    match observed(places, scratch, rows).await {
        Ok(found) => found,
        Err(why) => Found { fault: Some(why), ..Found::default() },
    }
}

async fn observed(places: &Places, scratch: &Scratch, rows: &BTreeMap<String, i64>) -> Result<Found, String> {
    let opened = connection::open_unlimited(&scratch.url, "servicerelease/rehearsal").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let before = Schema::look(&mut connection).await.map_err(|error| told(&error))?;
    let variables = variables(std::env::vars_os(), &places.url, &scratch.url)?;
    let others = std::env::vars_os().filter(|(name, _)| !is_known(name, &variables));
    if let Some(why) = Real::of(&places.url)?.reached_by(others, &places.command) {
        return Err(why);
    }
    // Whoever restored it, and counted, is to be gone first.
    gone(&mut connection).await?;
    let mut watch = Watch::begin(&mut connection).await.map_err(|error| told(&error))?;
    let mut child = Child::spawn(&places.command, &variables, &places.secrets())
        .map_err(|error| format!("the command {} cannot be run: {error}", places.command[0].display()))?;
    let mut locks: HashMap<i64, String> = HashMap::new();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = sleep(LOOK) => {
                note_locks(&mut connection, &mut locks).await.map_err(|error| told(&error))?;
                watch.look(&mut connection).await.map_err(|error| told(&error))?;
            }
        }
    };
    let said = child.last_words().await;
    let fault = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("on the backup it fails: {}: {said}", child::told(status))),
        Err(error) => Some(error.to_string()),
    };
    let gone = gone(&mut connection).await;
    if fault.is_none() {
        let astray = match &gone {
            Ok(()) => watch.elsewhere(&mut connection).await,
            Err(why) => watch.unseen(why),
        };
        if astray.is_some() {
            return Ok(Found { fault: astray, astray: true, ..Found::default() });
        }
    }
    gone?;
    let after = Schema::look(&mut connection).await.map_err(|error| told(&error))?;
    let counted = backup::rows(&mut connection).await?;
    let touched = Touched::look(&mut connection).await?;
    let _ = connection.close().await;
    let named = locks.into_iter().filter_map(|(table, mode)| Some((mode, before.tables.get(&table)?.name.clone())));
    let status = RehearsalStatus {
        locks: in_order(named.collect()),
        rewritten: before.rewritten(&after, rows, &touched),
        ..RehearsalStatus::default()
    };
    let Lost { data, refused } = before.lost(&after, rows, &counted);
    // What is lost of what is there comes first: the list is bounded.
    let risks = data.into_iter().chain(refused).collect();
    Ok(Found { fault, status, risks, ..Found::default() })
}

/// What the command has in its environment: wherever the database stands, the scratch database. Of another host a database
/// of the same name is taken for the same one, since there may be a pooler in between: a rehearsal must never migrate in
/// earnest.
///
/// # Errors
/// The URL of the scratch database is none.
fn variables(
    all: impl Iterator<Item = (OsString, OsString)>,
    url: &str,
    scratch: &str,
) -> Result<Vec<(String, OsString)>, String> {
    let beside = Url::parse(scratch).map_err(|_| "the URL of the scratch database is none".to_owned())?;
    let real = database_of(url);
    let parts = tool::environment(scratch).map_err(|error| error.to_string())?;
    let mut changed = vec![(database::URL.to_owned(), OsString::from(scratch)), ("PGAPPNAME".into(), NAME.into())];
    for (name, value) in all {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else { continue };
        if [database::URL, database::SCRATCH_URL, database::WRAPPER_URL, "PGAPPNAME"].contains(&name.as_str()) {
            continue;
        }
        if value.trim() == url.trim() {
            changed.push((name, scratch.into()));
        } else if real.is_some() && database_of(&value) == real {
            changed.push((name, elsewhere(&value, &beside).into()));
        } else if let Some((_, part)) = parts.iter().rfind(|(known, _)| *known == name) {
            changed.push((name, part.into()));
        }
    }
    Ok(changed)
}

/// Whether a variable is not the command's, or leads to the scratch database by now.
fn is_known(name: &OsString, changed: &[(String, OsString)]) -> bool {
    let own = [database::URL, database::SCRATCH_URL, database::WRAPPER_URL];
    name.to_str().is_some_and(|name| own.contains(&name) || changed.iter().any(|(known, _)| known == name))
}

/// The name of the database of a URL, also in the words of JDBC.
fn database_of(url: &str) -> Option<String> {
    let url = url.trim();
    let url = Url::parse(url.strip_prefix("jdbc:").unwrap_or(url)).ok()?;
    let name = url.path().trim_start_matches('/');
    (url.scheme().starts_with("postgres") && !name.is_empty()).then(|| name.to_owned())
}

/// A URL with another place; scheme, user and parameters stay.
fn elsewhere(url: &str, to: &Url) -> String {
    let (begin, query) =
        url.split_once('?').map_or((url, String::new()), |(begin, query)| (begin, format!("?{query}")));
    let (scheme, rest) = begin.split_once("://").unwrap_or((begin, ""));
    let user = rest.rsplit_once('@').map_or_else(String::new, |(user, _)| format!("{user}@"));
    let (host, port) = (to.host_str().unwrap_or_default(), to.port().unwrap_or(5432));
    format!("{scheme}://{user}{host}:{port}{}{query}", to.path())
}

/// What the command is called in the server's views.
const NAME: &str = "servicerelease/command rehearsal";

/// Notes the strongest lock on each table that anybody else has here, or waits for.
async fn note_locks(connection: &mut PgConnection, known: &mut HashMap<i64, String>) -> Result<(), sqlx::Error> {
    let query = "SELECT relation::bigint, mode FROM pg_locks WHERE locktype = 'relation' AND pid <> pg_backend_pid() \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock')";
    let all: Vec<(i64, String)> = sqlx::query_as(query).fetch_all(connection).await?;
    for (table, mode) in all {
        let strongest = known.entry(table).or_insert_with(|| mode.clone());
        if strength(&mode) > strength(strongest) {
            *strongest = mode;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_leads_to_the_real_database() {
        let all = [
            ("DATABASE_URL", "postgres://shop:word@db/shop"),
            ("DIRECT_URL", "postgres://shop:word@db/shop"),
            ("OTHER", "postgresql://other:x@db:5432/shop?schema=a"),
            ("FLYWAY_URL", "jdbc:postgresql://db:5432/shop?ssl=true"),
            ("POOLED_URL", "postgres://shop:word@pooler:6432/shop"),
            ("ELSEWHERE", "postgres://db/another"),
            ("PGDATABASE", "shop"),
            ("PGHOST", "pooler"),
            ("HOME", "/"),
        ];
        let all = all.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let beside = "postgres://shop:word@db/servicerelease_scratch_1";
        let changed = variables(all, "postgres://shop:word@db/shop", beside).unwrap();
        let of = |name: &str| changed.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str().unwrap());
        assert_eq!((of("DATABASE_URL"), of("DIRECT_URL")), (Some(beside), Some(beside)));
        assert_eq!(of("OTHER"), Some("postgresql://other:x@db:5432/servicerelease_scratch_1?schema=a"));
        assert_eq!(of("FLYWAY_URL"), Some("jdbc:postgresql://db:5432/servicerelease_scratch_1?ssl=true"));
        assert_eq!(of("POOLED_URL"), Some("postgres://shop:word@db:5432/servicerelease_scratch_1"));
        assert_eq!((of("PGHOST"), of("PGPORT")), (Some("db"), None));
        assert_eq!((of("PGDATABASE"), of("ELSEWHERE"), of("HOME")), (Some("servicerelease_scratch_1"), None, None));
    }
}
