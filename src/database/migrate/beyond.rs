//! Statements that reach beyond their database: what they change is the whole server's, and so a rehearsal in a scratch
//! database of that server would do it in earnest. COMMENT is none of them: what it says of a role or a database is nobody's
//! loss.

use super::{
    files::{Body, File},
    statements::{Piece, words},
};

/// How many are told by their place.
const TOLD: usize = 3;
/// What rights are of that are the server's; and what labels are of. Tables may have such names, too.
const WITH_RIGHTS: &[&str] = &["DATABASE", "TABLESPACE", "PARAMETER"];
const WITH_LABELS: &[&str] = &["DATABASE", "TABLESPACE", "ROLE", "SUBSCRIPTION"];
/// What can be done about them.
pub const REMEDY: &str =
    "run that apart from the release, name another server in backup.scratchUrlFrom, or set rehearsal.mode: Skip";

/// The statements of files that do so, with the remedy; none if there are none.
#[must_use]
pub fn told<'a>(files: impl IntoIterator<Item = &'a File>) -> Option<String> {
    let found: Vec<String> = files.into_iter().flat_map(of_file).collect();
    let more = found.len().saturating_sub(TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let told = found[..found.len().min(TOLD)].join("; ");
    (!found.is_empty()).then(|| {
        format!("{told}{more}: that changes the whole server, where a rehearsal beside the database would do it in earnest: {REMEDY}")
    })
}

fn of_file(file: &File) -> impl Iterator<Item = String> {
    let (Body::Transaction(statements) | Body::Alone(statements)) = &file.body;
    statements.iter().filter_map(|statement| {
        let what = beyond(&statement.pieces)?;
        Some(format!("{}, line {}: {what}", file.name, statement.line))
    })
}

/// What a statement does beyond its database.
fn beyond(pieces: &[Piece]) -> Option<String> {
    let on = pieces.iter().position(|piece| piece.word() == Some("ON"));
    // A kind of object, and one of that kind; else a table of that name.
    let object = |kinds: &'static [&str]| {
        let after = pieces.get(on? + 1..)?;
        let kind = kinds.iter().find(|kind| after.first().and_then(Piece::word) == Some(kind))?;
        let ends =
            |piece: &Piece| matches!(piece, Piece::Mark(_)) || matches!(piece.word(), Some("TO" | "FROM" | "IS"));
        after.get(1).is_some_and(|piece| !ends(piece)).then_some(kind)
    };
    match words(pieces).collect::<Vec<_>>().as_slice() {
        // That of a foreign server is the database's.
        [_, "USER", "MAPPING", "FOR" | "IF", ..] => None,
        [
            verb @ ("CREATE" | "ALTER" | "DROP"),
            object @ ("ROLE" | "USER" | "GROUP" | "DATABASE" | "TABLESPACE" | "SUBSCRIPTION"),
            ..,
        ]
        | [verb @ "ALTER", object @ "SYSTEM", ..]
        | [verb @ ("DROP" | "REASSIGN"), object @ "OWNED", ..] => Some(format!("{verb} {object}")),
        [verb @ ("GRANT" | "REVOKE"), ..] if on.is_none() => Some(format!("{verb} of a role")),
        [verb @ ("GRANT" | "REVOKE"), ..] => Some(format!("{verb} ... ON {}", object(WITH_RIGHTS)?)),
        ["SECURITY", "LABEL", ..] => Some(format!("SECURITY LABEL ... ON {}", object(WITH_LABELS)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::database::migrate::{files, statements};

    #[rstest]
    #[case("CREATE ROLE reporting", Some("CREATE ROLE"))]
    #[case("create user app password 'x'", Some("CREATE USER"))]
    #[case("ALTER ROLE app IN DATABASE shop SET work_mem = '1MB'", Some("ALTER ROLE"))]
    #[case("DROP GROUP IF EXISTS g", Some("DROP GROUP"))]
    #[case("DROP DATABASE archive", Some("DROP DATABASE"))]
    #[case("ALTER DATABASE \"shop\" SET timezone = 'UTC'", Some("ALTER DATABASE"))]
    #[case("ALTER TABLESPACE fast OWNER TO app", Some("ALTER TABLESPACE"))]
    #[case("DROP SUBSCRIPTION s", Some("DROP SUBSCRIPTION"))]
    #[case("ALTER SYSTEM SET work_mem = '1GB'", Some("ALTER SYSTEM"))]
    #[case("REASSIGN OWNED BY a TO b", Some("REASSIGN OWNED"))]
    #[case("DROP OWNED BY a", Some("DROP OWNED"))]
    #[case("GRANT admins TO app WITH ADMIN OPTION", Some("GRANT of a role"))]
    #[case("REVOKE \"on\" FROM app", Some("REVOKE of a role"))]
    #[case("REVOKE CONNECT ON DATABASE shop FROM app", Some("REVOKE ... ON DATABASE"))]
    #[case("GRANT SET ON PARAMETER work_mem TO app", Some("GRANT ... ON PARAMETER"))]
    #[case("SECURITY LABEL FOR x ON ROLE app IS 'y'", Some("SECURITY LABEL ... ON ROLE"))]
    #[case::of_a_foreign_server("CREATE USER MAPPING IF NOT EXISTS FOR app SERVER s", None)]
    #[case("DROP USER MAPPING FOR app SERVER s", None)]
    #[case("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app", None)]
    #[case("GRANT SELECT ON \"database\" TO app", None)]
    #[case("GRANT CONNECT ON DATABASE \"shop\" TO app", Some("GRANT ... ON DATABASE"))]
    #[case::a_table_of_that_name("GRANT SELECT ON role TO app", None)]
    #[case::a_table_of_that_name("REVOKE ALL ON subscription FROM PUBLIC", None)]
    #[case::a_table_of_that_name("GRANT SELECT ON database, parameter TO app", None)]
    #[case::a_table_of_that_name("REVOKE ALL ON tablespace FROM app", None)]
    #[case("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app", None)]
    #[case("SET ROLE app", None)]
    #[case("ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", None)]
    #[case("COMMENT ON DATABASE shop IS 'x'", None)]
    #[case("CREATE TABLE role (id int)", None)]
    #[case("DO $$ BEGIN CREATE ROLE r; END $$", None)]
    fn what_is_the_whole_servers_is_known(#[case] sql: &str, #[case] expected: Option<&str>) {
        let statement = &statements::split(sql).unwrap()[0];
        assert_eq!(beyond(&statement.pieces).as_deref(), expected);
    }

    #[test]
    fn each_is_told_by_its_place_and_the_remedy_once() {
        let file = |name: &str, text: &str| files::of_a_tool(name, text).unwrap();
        let all = [file("1.sql", "SELECT 1;\nCREATE ROLE a"), file("2.sql", "DROP ROLE a; DROP ROLE b; DROP ROLE c")];
        let told = told(&all).unwrap();
        let places = "1.sql, line 2: CREATE ROLE; 2.sql, line 1: DROP ROLE; 2.sql, line 1: DROP ROLE and 1 more: ";
        assert!(told.starts_with(places) && told.ends_with(REMEDY), "{told}");
        assert_eq!(super::told(&[file("1.sql", "CREATE TABLE a ()")]), None);
    }
}
