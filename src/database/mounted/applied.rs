//! Which files a migration tool has applied, by its own table: those are not due.
//!
//! The tool is known by the names of the files and by its table. Where a database has several tables of one tool, of services
//! with schemas of their own, a file counts as applied that all of them have: nobody knows here which one the tool is going to
//! ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use sqlx::{AssertSqlSafe, FromRow, PgConnection, postgres::PgRow};

use super::conventions::{self, Version};

/// What tools have on record. Of one that has no table nothing is known.
#[derive(Debug, Default)]
pub struct Applied {
    prisma: Vec<BTreeSet<String>>,
    golang_migrate: Vec<GolangMigrate>,
    flyway: Vec<Flyway>,
    sqlx: Vec<BTreeSet<(i64, String)>>,
}

/// The version that the database is at, and whether the way to it was broken off. None before the first.
type GolangMigrate = Option<(i64, bool)>;

/// What Flyway has applied.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flyway {
    /// Versions up to this one were there before it.
    baseline: Option<Version>,
    /// Files by their names, with version and checksum.
    files: BTreeMap<String, (Option<Version>, Option<i32>)>,
}

/// A row of its table: version, script, type, checksum, whether it ended well.
type FlywayRow = (Option<String>, String, String, Option<i32>, bool);

/// Reads the tables of all tools. What cannot be read has nothing applied.
///
/// # Errors
/// Those of the connection.
pub async fn read(connection: &mut PgConnection) -> Result<Applied, sqlx::Error> {
    let mut applied = Applied::default();
    for table in tables(connection, "_prisma_migrations", "applied_steps_count").await? {
        let names = "SELECT migration_name::text FROM {} WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL";
        let rows: Vec<(String,)> = rows(connection, names, &table).await;
        applied.prisma.push(rows.into_iter().map(|(name,)| name).collect());
    }
    for table in tables(connection, "schema_migrations", "dirty").await? {
        let rows = rows(connection, "SELECT version::bigint, dirty FROM {} ORDER BY version LIMIT 1", &table).await;
        applied.golang_migrate.push(rows.into_iter().next());
    }
    for table in tables(connection, "flyway_schema_history", "installed_rank").await? {
        let columns =
            "SELECT version::text, script::text, type::text, checksum, success FROM {} ORDER BY installed_rank";
        applied.flyway.push(Flyway::of(rows(connection, columns, &table).await));
    }
    for table in tables(connection, "_sqlx_migrations", "execution_time").await? {
        let columns = "SELECT version, description FROM {} WHERE success";
        applied.sqlx.push(rows(connection, columns, &table).await.into_iter().collect());
    }
    Ok(applied)
}

/// The tables of a name that have a column, which tells them from those of another tool.
async fn tables(connection: &mut PgConnection, table: &str, column: &str) -> Result<Vec<String>, sqlx::Error> {
    let tables = "SELECT format('%I.%I', nspname, relname) FROM pg_catalog.pg_class c \
                  JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace \
                  WHERE relname = $1 AND relkind IN ('r', 'p') \
                  AND EXISTS (SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = $2 AND NOT attisdropped) \
                  ORDER BY 1";
    sqlx::query_scalar(tables).persistent(false).bind(table).bind(column).fetch_all(connection).await
}

/// The rows of a table, `{}` in the query; none where they cannot be read.
async fn rows<R>(connection: &mut PgConnection, query: &str, table: &str) -> Vec<R>
where
    R: for<'row> FromRow<'row, PgRow> + Send + Unpin,
{
    let query = sqlx::query_as(AssertSqlSafe(query.replace("{}", table))).persistent(false);
    query.fetch_all(connection).await.unwrap_or_default()
}

impl Applied {
    /// Whether a file is applied, so that its tool does not run it again.
    #[must_use]
    pub fn has(&self, path: &Path, text: &str) -> bool {
        fn all<T>(tables: &[T], have: impl Fn(&T) -> bool) -> bool {
            !tables.is_empty() && tables.iter().all(have)
        }
        let name = conventions::name(path);
        let by_prisma = conventions::prisma(path);
        let by_number = conventions::golang_migrate(name);
        let by_sqlx = conventions::sqlx(name);
        by_prisma.is_some_and(|migration| all(&self.prisma, |table| table.contains(migration)))
            || by_number.is_some_and(|version| all(&self.golang_migrate, |at| is_behind(*at, version)))
            || by_sqlx.is_some_and(|it| all(&self.sqlx, |table| table.contains(&it)))
            || all(&self.flyway, |table| table.has(name, text))
    }
}

/// Whether a version of golang-migrate's is one that it does not run any more.
fn is_behind(at: GolangMigrate, version: i64) -> bool {
    at.is_some_and(|(at, dirty)| version < at || (version == at && !dirty))
}

impl Flyway {
    fn of(rows: Vec<FlywayRow>) -> Self {
        let mut known = Self::default();
        for (version, script, kind, checksum, _) in rows.into_iter().filter(|(.., success)| *success) {
            let version = version.as_deref().and_then(Version::of);
            let name = conventions::name(Path::new(&script)).to_owned();
            if kind == "BASELINE" {
                known.baseline = version;
            } else if kind.starts_with("UNDO") || kind == "DELETE" {
                known.files.retain(|file, (of, _)| *file != name && (version.is_none() || *of != version));
            } else {
                known.files.insert(name, (version, checksum));
            }
        }
        known
    }

    fn has(&self, name: &str, text: &str) -> bool {
        if conventions::is_repeatable(name) {
            return self.files.get(name).is_some_and(|(_, known)| *known == Some(checksum(text)));
        }
        let Some(version) = conventions::flyway(name, 'V') else { return false };
        self.files.contains_key(name) || self.baseline.as_ref().is_some_and(|baseline| version <= *baseline)
    }
}

/// Flyway's checksum of a file: CRC-32 of its lines without what ends them.
fn checksum(text: &str) -> i32 {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let bytes = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    };
    (!bytes.fold(u32::MAX, step)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(applied: &Applied, path: &str) -> bool {
        applied.has(Path::new(path), "SELECT 1")
    }

    #[test]
    fn what_no_tool_has_on_record_is_due() {
        for path in ["/p/1_a/migration.sql", "/1_a.up.sql", "/V1__a.sql", "/R__a.sql", "/1_a.sql", "/all.sql"] {
            assert!(!has(&Applied::default(), path), "{path}");
        }
    }

    #[test]
    fn each_tool_is_asked_by_the_names_of_its_files() {
        let prisma = Applied { prisma: vec![["1_a".to_owned()].into()], ..Applied::default() };
        assert!(
            has(&prisma, "/p/1_a/migration.sql") && !has(&prisma, "/p/2_b/migration.sql") && !has(&prisma, "/1_a.sql")
        );
        let sqlx = Applied { sqlx: vec![[(1, "a b".to_owned())].into()], ..Applied::default() };
        assert!(has(&sqlx, "/01_a_b.sql") && has(&sqlx, "/1_a_b.up.sql") && !has(&sqlx, "/1_other.sql"));
        let at = |at| Applied { golang_migrate: vec![at], ..Applied::default() };
        let clean = at(Some((2, false)));
        assert!(has(&clean, "/1_a.up.sql") && has(&clean, "/2_b.up.sql") && !has(&clean, "/3_c.up.sql"));
        assert!(!has(&clean, "/1_a.sql"), "no file of its");
        let dirty = at(Some((2, true)));
        assert!(has(&dirty, "/1_a.up.sql") && !has(&dirty, "/2_b.up.sql"), "the second was broken off");
        assert!(!has(&at(None), "/1_a.up.sql"));
    }

    #[test]
    fn of_several_tables_all_have_to_have_it() {
        let both = Applied { golang_migrate: vec![Some((50, false)), Some((3, false))], ..Applied::default() };
        assert!(has(&both, "/3_a.up.sql") && !has(&both, "/4_b.up.sql"), "one of another service is at 50");
    }

    #[test]
    fn flyway_is_read_as_its_history_goes_on() {
        let row = |version: Option<&str>, script: &str, kind: &str, checksum: Option<i32>, success| {
            (version.map(str::to_owned), script.to_owned(), kind.to_owned(), checksum, success)
        };
        let views = "CREATE VIEW v AS\r\n  SELECT 1;\n";
        let rows = vec![
            row(Some("2"), "<< Flyway Baseline >>", "BASELINE", None, true),
            row(Some("3"), "V3__c.sql", "SQL", Some(7), true),
            row(Some("4"), "sub/V4__d.sql", "SQL", Some(7), true),
            row(Some("5"), "V5__e.sql", "SQL", Some(7), false),
            row(Some("6"), "V6__f.sql", "SQL", Some(7), true),
            row(Some("6"), "U6__f.sql", "UNDO_SQL", Some(7), true),
            row(None, "R__views.sql", "SQL", Some(checksum(views)), true),
            row(None, "R__gone.sql", "SQL", Some(checksum(views)), true),
            row(None, "R__gone.sql", "DELETE", None, true),
        ];
        let applied = Applied { flyway: vec![Flyway::of(rows)], ..Applied::default() };
        let has = |path: &str| applied.has(Path::new(path), views);
        assert!(has("/V1__a.sql") && has("/V2.0__b.sql"), "they were there before the baseline");
        assert!(has("/V3__c.sql") && has("/x/V4__d.sql"));
        for due in ["/V5__e.sql", "/V6__f.sql", "/V7__g.sql", "/R__gone.sql", "/R__other.sql", "/all.sql"] {
            assert!(!has(due), "{due}");
        }
        assert!(has("/R__views.sql") && !applied.has(Path::new("/R__views.sql"), "CREATE VIEW v AS SELECT 2;"));
    }

    /// The check value of CRC-32, over lines as Flyway has them.
    #[test]
    fn a_checksum_is_flyways() {
        let expected = 0xcbf4_3926_u32.cast_signed();
        assert_eq!((checksum("123456789"), checksum("\u{feff}1234\r\n56789\n")), (expected, expected));
    }
}
