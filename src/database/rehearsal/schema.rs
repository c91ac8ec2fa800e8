//! What there is before and after a rehearsal, and so what a migration does to it, whatever it is written in.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::database::{connection::told, migrate::ledger};

/// Tables of users.
const TABLES: &str = "c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// How long a server before 15 may take to write down what it has counted.
const COUNTED: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(50);

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
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

impl Column {
    /// Whether a row without a value of it is refused.
    const fn is_refusing(&self) -> bool {
        self.required && !self.default
    }
}

/// Tables by their number, which stays when they get another name.
#[derive(Debug, Default)]
pub struct Schema {
    pub tables: BTreeMap<i64, Table>,
}

impl Schema {
    /// Looks.
    pub async fn look(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
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

    /// Tables that were written anew, with their rows, and those with rows that statements have updated or deleted.
    pub fn rewritten(&self, after: &Self, rows: &BTreeMap<String, i64>, touched: &Touched) -> Vec<String> {
        let same = self.tables.iter().filter_map(|(oid, table)| Some((oid, table, after.tables.get(oid)?)));
        let mut all: Vec<(i64, String)> = same
            .filter_map(|(oid, before, after)| {
                let anew = before.file != after.file && before.kind != "p";
                let rows = rows.get(&before.name).copied().filter(|_| anew).unwrap_or(0);
                let (updated, deleted) = touched.0.get(oid).copied().unwrap_or_default();
                let told = [
                    anew.then(|| format!("{rows} rows")),
                    (updated > 0).then(|| format!("{updated} rows updated")),
                    (deleted > 0).then(|| format!("{deleted} rows deleted")),
                ];
                let told: Vec<String> = told.into_iter().flatten().collect();
                let sum = rows.saturating_add(updated).saturating_add(deleted);
                (!told.is_empty()).then(|| (sum, format!("{} ({})", before.name, told.join(", "))))
            })
            .collect();
        // What takes longest comes first: the list is bounded.
        all.sort_by(|(one, name), (other, another)| (other, name).cmp(&(one, another)));
        all.into_iter().map(|(_, told)| told).collect()
    }

    /// The rows that were there and were written over, or deleted and made anew, in words: of how many there are nothing is seen.
    pub fn overwritten(
        &self,
        rows: &BTreeMap<String, i64>,
        counted: &BTreeMap<String, i64>,
        touched: &Touched,
    ) -> Vec<String> {
        let count = |all: &BTreeMap<String, i64>, table: &str| all.get(table).copied().unwrap_or(0);
        let told = self.tables.iter().filter_map(|(oid, table)| {
            let (updated, deleted) = touched.0.get(oid).copied()?;
            let gone = (count(rows, &table.name) - count(counted, &table.name)).max(0);
            let written = updated + (deleted - gone).max(0);
            (written > 0).then(|| format!("writes over {written} rows of {} by code that nobody reads", table.name))
        });
        told.collect()
    }

    /// What has become of what was there, with the rows of each table before and after.
    pub fn lost(&self, after: &Self, rows: &BTreeMap<String, i64>, counted: &BTreeMap<String, i64>) -> Lost {
        let mut lost = Lost::default();
        for (oid, before) in &self.tables {
            let had = rows.get(&before.name).copied().unwrap_or(0);
            let Some(now) = after.tables.get(oid) else {
                // What a query makes it makes again.
                if before.kind != "m" {
                    lost.data.push(format!("drops table {} with its {had} rows", before.name));
                }
                continue;
            };
            let has = counted.get(&now.name).copied().unwrap_or(had);
            if has < had {
                lost.data.push(format!("deletes {} of the {had} rows of {}", had - has, before.name));
            }
            let (gone, lacking) = columns(before, now);
            lost.data.extend(gone);
            lost.refused.extend(lacking);
        }
        lost
    }
}

/// How many rows of each table statements have updated, and how many they have deleted, each time that they did. A restore does
/// neither.
#[derive(Debug, Default)]
pub struct Touched(BTreeMap<i64, (i64, i64)>);

impl Touched {
    /// Looks, once all sessions have ended that touched any: as they end the server has their counts.
    pub async fn look(connection: &mut PgConnection) -> Result<Self, String> {
        Self::counted(connection).await.map_err(|error| told(&error))
    }

    async fn counted(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let now: String = sqlx::query_scalar("SELECT clock_timestamp()::text").fetch_one(&mut *connection).await?;
        // Before 15 they are read from a file that is written now and then; later versions tell no time.
        let is_current = "SELECT coalesce(pg_stat_get_snapshot_timestamp() >= $1::timestamptz, true)";
        let begun = Instant::now();
        while !sqlx::query_scalar::<_, bool>(is_current).bind(&now).fetch_one(&mut *connection).await?
            && begun.elapsed() < COUNTED
        {
            sleep(PAUSE).await;
            connection.execute("SELECT pg_stat_clear_snapshot()").await?;
        }
        let query = "SELECT relid::bigint, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname <> $1";
        let all: Vec<(i64, i64, i64)> = sqlx::query_as(query).bind(ledger::TABLE).fetch_all(connection).await?;
        Ok(Self(all.into_iter().map(|(table, updated, deleted)| (table, (updated, deleted))).collect()))
    }
}

/// What a migration does to what was there, in words.
#[derive(Debug, Default)]
pub struct Lost {
    /// Data that are gone afterwards.
    pub data: Vec<String>,
    /// Values that rows, and older code, may not have.
    pub refused: Vec<String>,
}

/// What becomes of the columns of a table: what is lost of them, and which must have values that older code may not give them.
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
        match (new.is_refusing(), column.required) {
            (true, false) => {
                refused.push(format!("requires a value of {table}.{name}, which rows and older code may not have"));
            }
            (true, true) if column.default => {
                refused.push(format!("takes the default of {table}.{name} away, which older code may give no value"));
            }
            _ => {}
        }
    }
    let added = now.columns.iter().filter(|(number, _)| !before.columns.contains_key(number));
    for (_, column) in added.filter(|(_, column)| column.is_refusing()) {
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

    fn table(required: bool, default: bool) -> Table {
        let column = Column { name: "mail".into(), type_name: "text".into(), required, default };
        let (name, kind) = ("public.users".to_owned(), "r".to_owned());
        Table { name, file: 1, kind, columns: BTreeMap::from([(1, column)]) }
    }

    #[rstest]
    #[case((false, false), (true, false), Some("requires a value of public.users.mail, which rows and older code may not have"))]
    #[case::the_default_was_there((false, true), (true, true), None)]
    #[case((true, true), (true, false), Some("takes the default of public.users.mail away, which older code may give no value"))]
    #[case::as_before((true, false), (true, false), None)]
    #[case((true, false), (false, false), None)]
    fn a_column_that_refuses_rows_from_now_on_is_known(
        #[case] before: (bool, bool),
        #[case] now: (bool, bool),
        #[case] told: Option<&str>,
    ) {
        let (_, refused) = columns(&table(before.0, before.1), &table(now.0, now.1));
        assert_eq!(refused, Vec::from_iter(told));
    }

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
}
