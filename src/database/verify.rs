//! Whether the schema is what a migration was to make of it: what is there, of which type, and in force; whether a
//! migration tool says of itself that it stopped half-way; and what queries of the user's find.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::api::{self, ExpectedColumn, ExpectedConstraint, SqlCheck, Verify, VerifyQuery};

use super::{
    check,
    connection::{self, told},
};

/// How long a query of it may take.
const QUERY: api::Duration = api::Duration::from_secs(300);

/// What is wrong with a database, with the remedy where there is one; empty if nothing is.
///
/// # Errors
/// Why it cannot be looked at.
pub async fn verify(url: &str, wanted: &Verify) -> Result<Vec<String>, String> {
    let opened = connection::open(url, "servicerelease/verify").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let found = async {
        let mut faults = faults(&mut connection, wanted).await.map_err(|error| told(&error))?;
        faults.extend(half_way(&mut connection).await.map_err(|error| told(&error))?);
        for query in &wanted.queries {
            let VerifyQuery { name, query, expect, value, rows } = query.clone();
            let sql = SqlCheck { query, expect, value, rows, url_from: None };
            let answered = check::answer(&mut connection, &sql, QUERY).await;
            faults.extend(answered.err().map(|fault| format!("query {name}: {fault}")));
        }
        Ok(faults)
    };
    let found = found.await;
    let _ = connection.close().await;
    found
}

/// How a migration tool writes that it stopped half-way.
struct Dirt {
    /// Its table.
    table: &'static str,
    /// A column that tells it from a table of another tool by the same name.
    column: &'static str,
    /// What it stopped at, as SQL.
    what: &'static str,
    /// The rows that say so.
    rows: &'static str,
    /// The tool, and what is done about it.
    remedy: &'static str,
}

const DIRT: [Dirt; 4] = [
    Dirt {
        table: "schema_migrations",
        column: "dirty",
        what: "version",
        rows: "dirty",
        remedy: "golang-migrate stopped half-way: look what it made, finish or undo it, then `migrate force VERSION`",
    },
    Dirt {
        table: "_prisma_migrations",
        column: "finished_at",
        what: "migration_name",
        rows: "finished_at IS NULL AND rolled_back_at IS NULL",
        remedy: "Prisma stopped half-way: look what it made, then `prisma migrate resolve --applied NAME` or `--rolled-back NAME`",
    },
    Dirt {
        table: "flyway_schema_history",
        column: "success",
        what: "script",
        rows: "NOT success",
        remedy: "Flyway stopped half-way: look what it made, finish or undo it, then `flyway repair`",
    },
    Dirt {
        table: "_sqlx_migrations",
        column: "success",
        what: "version",
        rows: "NOT success",
        remedy: "sqlx stopped half-way: look what it made, finish it and set success, or undo it and delete the row",
    },
];

/// What migration tools have on record as not finished, with what is done about it; nothing where nobody can look.
pub async fn left_half_way(url: &str) -> Vec<String> {
    let Ok(mut connection) = connection::open(url, "servicerelease/verify").await else { return Vec::new() };
    let found = half_way(&mut connection).await;
    let _ = connection.close().await;
    found.unwrap_or_default()
}

/// What migration tools say of themselves, in the schemas of the search path: in others they may be a neighbour's.
pub(super) async fn half_way(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let tables = "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE relname = $1 AND relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT') \
                  AND nspname = ANY (current_schemas(false)) \
                  AND EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = c.oid AND attname = $2 AND NOT attisdropped)";
    let mut faults = Vec::new();
    for Dirt { table, column, what, rows, remedy } in DIRT {
        let tables: Vec<String> =
            sqlx::query_scalar(tables).bind(table).bind(column).fetch_all(&mut *connection).await?;
        for table in tables {
            let query = format!("SELECT {what}::text FROM {table} WHERE {rows} LIMIT 1");
            let stopped: Option<String> =
                sqlx::query_scalar(AssertSqlSafe(query)).persistent(false).fetch_optional(&mut *connection).await?;
            faults.extend(stopped.map(|at| format!("{table} has {at} as not finished: {remedy}")));
        }
    }
    Ok(faults)
}

async fn faults(connection: &mut PgConnection, schema: &Verify) -> Result<Vec<String>, sqlx::Error> {
    let mut faults = unnamed(connection, schema).await?;
    if !faults.is_empty() {
        return Ok(faults);
    }
    for table in &schema.tables {
        let kind: Option<String> = sqlx::query_scalar(KIND).bind(table).fetch_optional(&mut *connection).await?;
        faults.extend(match kind.as_deref() {
            Some("table") => None,
            Some(kind) => Some(format!("table {table} is missing: {table} is {kind}")),
            None => Some(format!("table {table} is missing{}", folded(table))),
        });
    }
    for column in &schema.columns {
        faults.extend(of_column(connection, column).await?);
    }
    for index in &schema.indexes {
        let valid = "SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass($1)";
        let valid: Option<bool> = sqlx::query_scalar(valid).bind(index).fetch_optional(&mut *connection).await?;
        faults.extend(match valid {
            Some(true) => None,
            Some(false) => Some(format!(
                "index {index} is invalid, since it was broken off while it was built: DROP INDEX CONCURRENTLY {index}, and build it again"
            )),
            None => Some(format!("index {index} is missing{}", folded(index))),
        });
    }
    for ExpectedConstraint { table, name } in &schema.constraints {
        let valid = "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2";
        let valid: Option<bool> =
            sqlx::query_scalar(valid).bind(table).bind(name).fetch_optional(&mut *connection).await?;
        faults.extend(match valid {
            Some(true) => None,
            Some(false) => Some(format!(
                "constraint {name} of {table} does not hold for all rows yet: ALTER TABLE {table} VALIDATE CONSTRAINT {name}"
            )),
            None => Some(format!("constraint {name} of {table} is missing")),
        });
    }
    for extension in &schema.extensions {
        let there = "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = $1)";
        let there: bool = sqlx::query_scalar(there).bind(extension).fetch_one(&mut *connection).await?;
        faults.extend((!there).then(|| format!("extension {extension} is missing: CREATE EXTENSION \"{extension}\"")));
    }
    Ok(faults)
}

/// What has a name: ordinary, partitioned and foreign tables are tables.
const KIND: &str = "SELECT CASE WHEN relkind IN ('r', 'p', 'f') THEN 'table' WHEN relkind = 'v' THEN 'a view' \
                    WHEN relkind = 'm' THEN 'a materialized view' WHEN relkind IN ('i', 'I') THEN 'an index' \
                    WHEN relkind = 'S' THEN 'a sequence' WHEN relkind = 'c' THEN 'a composite type' ELSE 'no table' END \
                    FROM pg_class WHERE oid = to_regclass($1)";

/// Names that PostgreSQL cannot read as such. From 16 on to_regclass finds nothing by one, and says no more.
async fn unnamed(connection: &mut PgConnection, schema: &Verify) -> Result<Vec<String>, sqlx::Error> {
    let tables = schema.tables.iter().map(|name| ("tables", name));
    let columns = schema.columns.iter().map(|column| ("columns", &column.table));
    let indexes = schema.indexes.iter().map(|name| ("indexes", name));
    let constraints = schema.constraints.iter().map(|constraint| ("constraints", &constraint.table));
    let mut faults = Vec::new();
    for (list, name) in tables.chain(columns).chain(indexes).chain(constraints) {
        let parts = sqlx::query_scalar::<_, i32>("SELECT cardinality(parse_ident($1))");
        let is_name = match parts.bind(name).fetch_one(&mut *connection).await {
            Ok(parts) => parts <= 3,
            // invalid_parameter_value
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "22023") => false,
            Err(error) => return Err(error),
        };
        faults.extend((!is_name).then(|| format!("spec.database.verify.{list}: {name} is no name: {}", quoted(name))));
    }
    Ok(faults)
}

/// What may be meant by a name that is not there: without quotes PostgreSQL reads capitals as small letters.
fn folded(name: &str) -> String {
    let capital = !name.contains('"') && name.chars().any(char::is_uppercase);
    if capital { format!(" ({})", quoted(name)) } else { String::new() }
}

fn quoted(name: &str) -> String {
    format!("with capitals or spaces it is written in quotes, '\"{}\"'", name.replace('"', ""))
}

/// A type without its length, and that: of `timestamp(3) with time zone` the 3.
fn parts(type_name: &str) -> (String, &str) {
    let split = type_name.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?)));
    split.map_or((type_name.to_owned(), ""), |(before, (length, after))| (format!("{before}{after}"), length))
}

async fn of_column(connection: &mut PgConnection, expected: &ExpectedColumn) -> Result<Option<String>, sqlx::Error> {
    let ExpectedColumn { table, name, type_name, nullable } = expected;
    // A type without its length is any length of it.
    let query = "SELECT format_type(atttypid, atttypmod), NOT attnotnull, \
                 coalesce(to_regtype($3::text) = atttypid, false), to_regtype($3::text) IS NOT NULL \
                 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND attnum > 0 AND NOT attisdropped";
    let wanted = type_name.as_deref().unwrap_or_default();
    let (base, length) = parts(wanted);
    let base = Some(base.trim()).filter(|base| !base.is_empty());
    let found: Option<(String, bool, bool, bool)> =
        sqlx::query_as(query).bind(table).bind(name).bind(base).fetch_optional(connection).await?;
    let Some((found, may_be_null, same, known)) = found else {
        return Ok(Some(format!("column {table}.{name} is missing")));
    };
    let (_, found_length) = parts(&found);
    if !wanted.is_empty() && !known {
        return Ok(Some(format!("column {table}.{name} is {found}; {wanted} is no type of this database")));
    }
    let plain = |text: &str| text.replace(' ', "");
    if !wanted.is_empty() && (!same || (!length.is_empty() && plain(length) != plain(found_length))) {
        return Ok(Some(format!("column {table}.{name} is {found}, not {wanted}")));
    }
    Ok(nullable.filter(|nullable| *nullable != may_be_null).map(|nullable| match nullable {
        true => format!("column {table}.{name} is NOT NULL, and should not be"),
        false => format!("column {table}.{name} may be NULL, and should not"),
    }))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_length_may_stand_in_the_middle_of_a_type() {
        assert_eq!(parts("timestamp(3) with time zone"), ("timestamp with time zone".to_owned(), "3"));
        assert_eq!(parts("numeric(10, 2)[]"), ("numeric[]".to_owned(), "10, 2"));
        assert_eq!(parts("bigint"), ("bigint".to_owned(), ""));
    }
}
