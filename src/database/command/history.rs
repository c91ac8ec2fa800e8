//! What a migration tool has on record of itself, before it is run and after: one that ended well and wrote nothing there
//! had nothing to do, and nothing is to be taken back.

use std::{ffi::OsString, path::Path};

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::database::hexadecimal;

/// A tool that writes a row for all that it does.
struct Tool {
    /// What its program is called.
    program: &'static str,
    /// The words that have it migrate. What else it can do it may do without a row.
    words: &'static [&'static [&'static str]],
    /// Its table.
    table: &'static str,
    /// A column that tells it from a table of another tool by the same name.
    column: &'static str,
}

const TOOLS: [Tool; 4] = [
    Tool {
        program: "prisma",
        words: &[&["migrate", "deploy"]],
        table: "_prisma_migrations",
        column: "applied_steps_count",
    },
    Tool { program: "flyway", words: &[&["migrate"]], table: "flyway_schema_history", column: "installed_rank" },
    Tool { program: "migrate", words: &[&["up"], &["goto"]], table: "schema_migrations", column: "dirty" },
    Tool { program: "sqlx", words: &[&["migrate", "run"]], table: "_sqlx_migrations", column: "execution_time" },
];

/// Programs that run the one that is named after them.
const RUNNERS: [&str; 2] = ["npx", "exec"];
/// Shells, which are given a text.
const SHELLS: [&str; 3] = ["sh", "bash", "dash"];
/// What makes more than one command of a text, or nobody knows what of it.
const JOINED: [&str; 8] = [";", "&", "|", "\n", "`", "$(", "<", ">"];

/// What the tool has on record that a command runs, as a hash. None where it is no such tool, has nothing yet, or cannot be
/// read: then nobody can tell.
pub async fn of(connection: &mut PgConnection, command: &[OsString]) -> Option<String> {
    let Tool { table, column, .. } = tool(command)?;
    let tables = "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE relname = $1 AND relkind IN ('r', 'p') \
                  AND EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = c.oid AND attname = $2 AND NOT attisdropped) ORDER BY 1";
    let tables = sqlx::query_scalar(tables).persistent(false).bind(table).bind(column);
    let tables: Vec<String> = tables.fetch_all(&mut *connection).await.ok()?;
    let mut hash = Sha256::new();
    for table in &tables {
        let rows = format!("SELECT t::text FROM {table} t ORDER BY 1");
        let rows = sqlx::query_scalar(AssertSqlSafe(rows)).persistent(false);
        let rows: Vec<String> = rows.fetch_all(&mut *connection).await.ok()?;
        for text in std::iter::once(table).chain(&rows) {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
    }
    (!tables.is_empty()).then(|| hexadecimal(&hash.finalize()))
}

/// The tool that a command is, and nothing beside it.
fn tool(command: &[OsString]) -> Option<&'static Tool> {
    let words: Vec<&str> = command.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let words = match words.as_slice() {
        [shell, flags, text] if SHELLS.contains(&name(shell)) && flags.starts_with('-') && flags.ends_with('c') => {
            if JOINED.iter().any(|joined| text.contains(joined)) {
                return None;
            }
            text.split_whitespace().collect()
        }
        _ => words,
    };
    let words: Vec<&str> = words.into_iter().skip_while(|word| RUNNERS.contains(word)).collect();
    let (program, rest) = words.split_first()?;
    let migrates =
        |tool: &&Tool| tool.words.iter().any(|wanted| rest.windows(wanted.len()).any(|some| some == *wanted));
    TOOLS.iter().filter(|tool| tool.program == name(program)).find(migrates)
}

/// A program without its directory.
fn name(program: &str) -> &str {
    Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["node_modules/.bin/prisma", "migrate", "deploy"], Some("prisma"))]
    #[case(&["npx", "prisma", "migrate", "deploy", "--schema", "x"], Some("prisma"))]
    #[case(&["prisma", "db", "seed"], None)]
    #[case(&["flyway", "-url=jdbc:postgresql://db/shop", "migrate"], Some("flyway"))]
    #[case(&["flyway", "repair"], None)]
    #[case(&["/bin/sh", "-ec", "exec migrate -path /migrations -database \"$DATABASE_URL\" goto 4"], Some("migrate"))]
    #[case(&["sh", "-c", "migrate up"], Some("migrate"))]
    #[case(&["sh", "-c", "migrate up && psql -c 'UPDATE a SET b = 1'"], None)]
    #[case(&["sh", "-c", "migrate up; node backfill.js"], None)]
    #[case(&["migrate", "force", "3"], None)]
    #[case(&["sqlx", "migrate", "run"], Some("sqlx"))]
    #[case(&["node", "prisma", "migrate", "deploy"], None)]
    #[case(&["sh", "-c"], None)]
    #[case(&[], None)]
    fn only_a_tool_by_itself_is_one(#[case] command: &[&str], #[case] program: Option<&str>) {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        assert_eq!(tool(&command).map(|tool| tool.program), program);
    }
}
