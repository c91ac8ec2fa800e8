//! What a command of the user's does to a scratch database, as it is seen from outside: every session there but this one
//! is its.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    time::Duration,
};

use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    api::RehearsalStatus,
    database::{
        self, Places, backup,
        command::child::{self, Child},
        connection::{self, told},
        scratch::Scratch,
        tool,
    },
};

use super::{Found, in_order, strength};

/// Between two looks at the locks that it has.
const LOOK: Duration = Duration::from_millis(20);
/// How long its sessions may take to end after it.
const GONE: Duration = Duration::from_secs(30);
/// Tables of users.
const TABLES: &str = "c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// Runs the command on a scratch database that has these rows, and looks what it does.
pub async fn run(places: &Places, scratch: &Scratch, rows: &BTreeMap<String, i64>) -> Found {
    match observed(places, scratch, rows).await {
        Ok(found) => found,
        Err(why) => Found { fault: Some(why), ..Found::default() },
    }
}

async fn observed(places: &Places, scratch: &Scratch, rows: &BTreeMap<String, i64>) -> Result<Found, String> {
    let opened = connection::open(&scratch.url, "servicerelease/rehearsal").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let before = Schema::look(&mut connection).await.map_err(|error| told(&error))?;
    let variables = variables(std::env::vars_os(), &places.url, &scratch.url)?;
    let mut child = Child::spawn(&places.command, &variables, &places.secrets())
        .map_err(|error| format!("the command {} cannot be run: {error}", places.command[0].display()))?;
    let mut locks: HashMap<i64, String> = HashMap::new();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = sleep(LOOK) => note_locks(&mut connection, &mut locks).await.map_err(|error| told(&error))?,
        }
    };
    let said = child.last_words().await;
    let fault = match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("on the backup it fails: {}: {said}", child::told(status))),
        Err(error) => Some(error.to_string()),
    };
    gone(&mut connection).await?;
    let after = Schema::look(&mut connection).await.map_err(|error| told(&error))?;
    let counted = backup::rows(&mut connection).await?;
    let _ = connection.close().await;
    let named = locks.into_iter().filter_map(|(table, mode)| Some((mode, before.tables.get(&table)?.name.clone())));
    let status = RehearsalStatus {
        locks: in_order(named.collect()),
        rewritten: before.rewritten(&after, rows),
        ..RehearsalStatus::default()
    };
    let (risks, loses_data) = before.risks(&after, rows, &counted);
    Ok(Found { fault, status, risks, loses_data, ..Found::default() })
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

/// Waits until nobody else is here.
async fn gone(connection: &mut PgConnection) -> Result<(), String> {
    let begun = Instant::now();
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                 AND backend_type = 'client backend'";
    loop {
        let left: i64 = sqlx::query_scalar(query).fetch_one(&mut *connection).await.map_err(|error| told(&error))?;
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > GONE {
            return Err("the command has ended, and its server processes have not".into());
        }
        sleep(LOOK).await;
    }
}

/// A table.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    file: i64,
    kind: String,
    /// By number: names, types, and whether they must have a value.
    columns: BTreeMap<i32, Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    type_name: String,
    required: bool,
    default: bool,
}

/// Tables by their number, which stays when they get another name.
#[derive(Debug, Default)]
struct Schema {
    tables: BTreeMap<i64, Table>,
}

impl Schema {
    async fn look(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let tables = format!(
            "SELECT c.oid::bigint, format('%I.%I', nspname, relname), relfilenode::bigint, relkind::text FROM pg_class c \
             JOIN pg_namespace n ON n.oid = relnamespace WHERE {TABLES}"
        );
        let tables: Vec<(i64, String, i64, String)> =
            sqlx::query_as(AssertSqlSafe(tables)).fetch_all(&mut *connection).await?;
        let columns = format!(
            "SELECT c.oid::bigint, attnum::int, attname::text, format_type(atttypid, atttypmod), attnotnull, \
             atthasdef OR attidentity <> '' FROM pg_attribute \
             JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace \
             WHERE attnum > 0 AND NOT attisdropped AND {TABLES}"
        );
        let columns: Vec<(i64, i32, String, String, bool, bool)> =
            sqlx::query_as(AssertSqlSafe(columns)).fetch_all(connection).await?;
        let table = |(oid, name, file, kind)| (oid, Table { name, file, kind, columns: BTreeMap::new() });
        let mut schema = Self { tables: tables.into_iter().map(table).collect() };
        for (oid, number, name, type_name, required, default) in columns {
            if let Some(table) = schema.tables.get_mut(&oid) {
                table.columns.insert(number, Column { name, type_name, required, default });
            }
        }
        Ok(schema)
    }

    /// Tables that were written anew, with their rows.
    fn rewritten(&self, after: &Self, rows: &BTreeMap<String, i64>) -> Vec<String> {
        let same = self.tables.iter().filter_map(|(oid, table)| Some((table, after.tables.get(oid)?)));
        let anew = same.filter(|(before, after)| before.file != after.file && before.kind != "p");
        let mut anew: Vec<(i64, &str)> =
            anew.map(|(before, _)| (rows.get(&before.name).copied().unwrap_or(0), before.name.as_str())).collect();
        // What takes longest comes first: the list is bounded.
        anew.sort_by_key(|(rows, name)| (std::cmp::Reverse(*rows), *name));
        anew.into_iter().map(|(rows, name)| format!("{name} ({rows} rows)")).collect()
    }

    /// What is lost, and what rows may lack; and whether anything is lost.
    fn risks(
        &self,
        after: &Self,
        rows: &BTreeMap<String, i64>,
        counted: &BTreeMap<String, i64>,
    ) -> (Vec<String>, bool) {
        let (mut lost, mut refused) = (Vec::new(), Vec::new());
        for (oid, before) in &self.tables {
            let had = rows.get(&before.name).copied().unwrap_or(0);
            let Some(now) = after.tables.get(oid) else {
                lost.push(format!("drops table {} with its {had} rows", before.name));
                continue;
            };
            let has = counted.get(&now.name).copied().unwrap_or(had);
            if has < had {
                lost.push(format!("deletes {} of the {had} rows of {}", had - has, before.name));
            }
            let (gone, lacking) = columns(before, now);
            lost.extend(gone);
            refused.extend(lacking);
        }
        let loses_data = !lost.is_empty();
        lost.extend(refused);
        (lost, loses_data)
    }
}

/// What becomes of the columns of a table: what is lost of them, and which must have values that rows may lack.
fn columns(before: &Table, now: &Table) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut refused) = (Vec::new(), Vec::new());
    let table = &before.name;
    for (number, column) in &before.columns {
        let name = &column.name;
        let Some(new) = now.columns.get(number) else {
            lost.push(format!("drops column {table}.{name} with its values"));
            continue;
        };
        if !holds_all(&column.type_name, &new.type_name) {
            let (from, to) = (&column.type_name, &new.type_name);
            lost.push(format!("makes column {table}.{name} {to} of {from}: values may be cut off"));
        }
        if new.required && !column.required {
            refused.push(format!("requires a value of {table}.{name}, which rows and older code may not have"));
        }
    }
    let added = now.columns.iter().filter(|(number, _)| !before.columns.contains_key(number));
    for (_, column) in added.filter(|(_, column)| column.required && !column.default) {
        refused.push(format!("adds column {table}.{} that older code gives no value", column.name));
    }
    (lost, refused)
}

/// Whether a type holds every value of another one as it is.
fn holds_all(old: &str, new: &str) -> bool {
    if old == new {
        return true;
    }
    let parts = |text: &str| {
        let (base, rest) = text.split_once('(').unwrap_or((text, ""));
        let (sizes, suffix) = rest.split_once(')').unwrap_or(("", rest));
        let sizes: Vec<u32> = sizes.split(',').filter_map(|size| size.trim().parse().ok()).collect();
        (format!("{base}{suffix}"), sizes)
    };
    let ((old, old_sizes), (new, new_sizes)) = (parts(old), parts(new));
    let whole = |name: &str| ["smallint", "integer", "bigint", "numeric"].iter().position(|known| *known == name);
    match (old.as_str(), new.as_str()) {
        ("character varying", "text") => true,
        ("numeric", "numeric") => match (old_sizes[..].as_ref(), new_sizes[..].as_ref()) {
            (_, []) => true,
            ([all, after], [new_all, new_after]) => {
                new_after >= after && new_all - new_after.min(new_all) >= all - after.min(all)
            }
            _ => false,
        },
        (old, new) if old == new => match (old_sizes.first(), new_sizes.first()) {
            (_, None) => true,
            (Some(old), Some(new)) => new >= old,
            (None, Some(_)) => false,
        },
        (old, new) => match (whole(old), whole(new)) {
            (Some(old), Some(new)) => new > old && new_sizes.is_empty(),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("integer", "bigint", true)]
    #[case("bigint", "integer", false)]
    #[case("integer", "numeric", true)]
    #[case("integer", "numeric(3,0)", false)]
    #[case("character varying(10)", "character varying(20)", true)]
    #[case("character varying(20)", "character varying(10)", false)]
    #[case("character varying", "character varying(10)", false)]
    #[case("character varying(10)", "text", true)]
    #[case("text", "character varying(10)", false)]
    #[case("numeric(10,2)", "numeric(12,4)", true)]
    #[case("numeric(10,2)", "numeric(10,4)", false)]
    #[case("numeric(10,2)", "numeric", true)]
    #[case("timestamp(3) without time zone", "timestamp without time zone", true)]
    #[case("timestamp without time zone", "timestamp(3) without time zone", false)]
    #[case("text", "integer", false)]
    fn a_type_that_holds_less_is_known(#[case] old: &str, #[case] new: &str, #[case] all: bool) {
        assert_eq!(holds_all(old, new), all);
    }

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
