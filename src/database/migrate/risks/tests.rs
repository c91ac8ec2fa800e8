//! What statements risk, one after the other.

use rstest::rstest;

use super::*;
use crate::database::migrate::{files::ordered, statements::split};

/// The risks of the last of some statements.
fn of_last(sql: &str) -> Vec<Risk> {
    let mut reader = Reader::default();
    let risks = split(sql).unwrap().iter().map(|statement| reader.read(statement)).last();
    risks.unwrap()
}

#[rstest]
#[case("DROP TABLE IF EXISTS a, b", &[Risk::DropsTables])]
#[case("drop table a cascade", &[Risk::DropsTables, Risk::DropsDependents])]
#[case("drop schema old cascade", &[Risk::DropsTables, Risk::DropsDependents])]
#[case("DROP OWNED BY old_role", &[Risk::DropsTables])]
#[case("DROP TYPE mood CASCADE", &[Risk::DropsDependents])]
#[case("DROP VIEW v CASCADE", &[Risk::DropsDependents])]
#[case("DROP FUNCTION f(int) CASCADE", &[Risk::DropsDependents])]
#[case("DROP TYPE mood", &[])]
#[case("DROP INDEX i", &[])]
#[case("DROP VIEW v", &[])]
#[case("DO $$ BEGIN EXECUTE 'DROP TABLE a'; END $$", &[Risk::RunsCode])]
#[case("call tidy(1)", &[Risk::RunsCode])]
#[case("EXECUTE prepared", &[Risk::RunsCode])]
#[case("TRUNCATE a", &[Risk::Empties])]
#[case("TRUNCATE TABLE ONLY a RESTART IDENTITY CASCADE", &[Risk::Empties, Risk::EmptiesReferrers])]
#[case("ALTER TYPE pair DROP ATTRIBUTE b", &[Risk::DropsAttribute])]
#[case("ALTER TYPE pair ADD ATTRIBUTE c int, DROP ATTRIBUTE IF EXISTS b CASCADE", &[Risk::DropsAttribute])]
#[case("ALTER TYPE pair ALTER ATTRIBUTE b SET DATA TYPE smallint", &[Risk::ChangesType])]
#[case("ALTER TYPE mood ADD VALUE 'glad'", &[])]
#[case("ALTER TYPE pair RENAME ATTRIBUTE b TO c", &[])]
#[case("ALTER DOMAIN email SET NOT NULL", &[Risk::RequiresValue])]
#[case("ALTER DOMAIN email DROP NOT NULL", &[])]
#[case("ALTER DOMAIN email ADD CHECK (value IS NOT NULL)", &[])]
#[case("CREATE RULE r AS ON DELETE TO a DO INSTEAD NOTHING", &[Risk::TurnsWrites])]
#[case("CREATE OR REPLACE RULE r AS ON INSERT TO a DO ALSO DELETE FROM b", &[Risk::TurnsWrites])]
#[case("CREATE RULE r AS ON INSERT TO a DO (INSERT INTO b VALUES (1); UPDATE c SET n = 1)", &[Risk::TurnsWrites])]
#[case("CREATE RULE r AS ON SELECT TO a DO INSTEAD SELECT * FROM b", &[])]
#[case("CREATE RULE r AS ON UPDATE TO a DO ALSO INSERT INTO log VALUES (1) ON CONFLICT DO NOTHING", &[])]
#[case("CREATE TABLE a (b int NOT NULL)", &[])]
#[case("CREATE TABLE a (b int PRIMARY KEY REFERENCES c ON DELETE CASCADE ON UPDATE CASCADE, update text, \"set\" int)", &[])]
#[case("CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM a; END", &[])]
#[case("CREATE TRIGGER t BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION f()", &[])]
#[case("GRANT DELETE, UPDATE ON a TO b", &[])]
#[case("SELECT a, pg_sleep(1) FROM b FOR UPDATE", &[])]
fn what_a_statement_risks_stands_in_it(#[case] sql: &str, #[case] expected: &[Risk]) {
    assert_eq!(of_last(sql), expected);
}

#[rstest]
#[case("DELETE FROM a WHERE id = 1", &[Risk::DeletesRows])]
#[case("WITH gone AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM gone", &[Risk::DeletesRows])]
#[case("CREATE TABLE kept AS WITH gone AS (DELETE FROM a RETURNING *) SELECT * FROM gone", &[Risk::DeletesRows])]
#[case("COPY (DELETE FROM a RETURNING *) TO '/tmp/a'", &[Risk::DeletesRows])]
#[case("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE", &[Risk::DeletesRows])]
#[case("WITH b AS (SELECT 1) MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE", &[Risk::DeletesRows])]
#[case("MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN UPDATE SET n = 1", &[Risk::WritesOver])]
#[case("MERGE INTO a USING b ON true WHEN MATCHED AND b.x THEN DELETE WHEN MATCHED THEN UPDATE SET n = 1", &[Risk::DeletesRows, Risk::WritesOver])]
#[case("MERGE INTO a USING b ON a.id = b.id WHEN NOT MATCHED THEN INSERT VALUES (1)", &[])]
#[case("UPDATE a SET b = 'DROP TABLE a'", &[Risk::WritesOver])]
#[case("UPDATE ONLY \"A\" AS x SET (b, c) = (1, 2) FROM d WHERE x.id = d.id", &[Risk::WritesOver])]
#[case("WITH n AS (UPDATE a SET b = 1 RETURNING *) SELECT * FROM n", &[Risk::WritesOver])]
#[case("INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING", &[])]
#[case("INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET n = excluded.n", &[Risk::WritesOver])]
#[case::of_null("UPDATE a SET b = 1 WHERE b IS NULL", &[])]
#[case::of_null_among_others("UPDATE a AS x SET b = 1, c = 2 WHERE id > 7 AND (x.b IS NULL) AND c IS NULL RETURNING *", &[])]
#[case::of_one_of_two("UPDATE a SET b = 1, c = 2 WHERE b IS NULL", &[Risk::WritesOver])]
#[case::or_not("UPDATE a SET b = 1 WHERE b IS NULL OR id = 1", &[Risk::WritesOver])]
#[case::not_null("UPDATE a SET b = 1 WHERE b IS NOT NULL", &[Risk::WritesOver])]
#[case::of_another("UPDATE a SET b = 1 FROM c WHERE c.b IS NULL", &[Risk::WritesOver])]
#[case::between("UPDATE a SET b = 1 WHERE id BETWEEN 1 AND b IS NULL", &[Risk::WritesOver])]
#[case::of_null_by_an_upsert("INSERT INTO a AS x VALUES (1) ON CONFLICT (id) DO UPDATE SET b = 1 WHERE x.b IS NULL", &[])]
#[case::what_is_excluded("INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET b = 1 WHERE excluded.b IS NULL", &[Risk::WritesOver])]
fn what_changes_rows_is_seen_wherever_it_stands(#[case] sql: &str, #[case] expected: &[Risk]) {
    assert_eq!(of_last(sql), expected);
}

#[rstest]
#[case("EXPLAIN DELETE FROM a", &[])]
#[case("EXPLAIN (VERBOSE, ANALYZE false) DELETE FROM a", &[])]
#[case("EXPLAIN (COSTS off) UPDATE a SET b = 1", &[])]
#[case("EXPLAIN ANALYZE DELETE FROM a", &[Risk::DeletesRows])]
#[case("explain analyse verbose update a set b = 1", &[Risk::WritesOver])]
#[case("EXPLAIN (ANALYZE, BUFFERS) DELETE FROM a", &[Risk::DeletesRows])]
#[case("EXPLAIN (FORMAT json, ANALYZE true) EXECUTE prepared", &[Risk::RunsCode])]
fn what_is_explained_by_running_it_is_run(#[case] sql: &str, #[case] expected: &[Risk]) {
    assert_eq!(of_last(sql), expected);
}

#[rstest]
#[case("DROP COLUMN b, ADD COLUMN c int", &[Risk::DropsColumn])]
#[case("DROP \"default\"", &[Risk::DropsColumn])]
#[case("DROP COLUMN IF EXISTS b CASCADE", &[Risk::DropsColumn, Risk::DropsDependents])]
#[case("DROP CONSTRAINT c CASCADE", &[Risk::DropsDependents])]
#[case("DROP CONSTRAINT c, ALTER COLUMN b DROP NOT NULL, ALTER b DROP DEFAULT", &[])]
#[case("ALTER COLUMN b TYPE varchar(10)", &[Risk::ChangesType])]
#[case("ALTER b SET DATA TYPE int USING b::int", &[Risk::ChangesType])]
#[case("ADD COLUMN type text", &[])]
#[case("ADD COLUMN b int NOT NULL", &[Risk::AddsRequired])]
#[case("ADD \"B\" int CONSTRAINT c NOT NULL", &[Risk::AddsRequired])]
#[case("ADD COLUMN IF NOT EXISTS b int PRIMARY KEY", &[Risk::AddsRequired])]
#[case("ADD COLUMN b int NOT NULL DEFAULT NULL", &[Risk::AddsRequired])]
#[case("ADD COLUMN b int NOT NULL REFERENCES c ON DELETE SET DEFAULT", &[Risk::AddsRequired])]
#[case("ADD COLUMN b int NOT NULL DEFAULT 0", &[])]
#[case("ADD COLUMN b int DEFAULT 0 NOT NULL, ADD c int NOT NULL", &[Risk::AddsRequired])]
#[case("ADD COLUMN b bigserial NOT NULL", &[])]
#[case("ADD COLUMN b int NOT NULL GENERATED BY DEFAULT AS IDENTITY", &[])]
#[case("ADD COLUMN b int GENERATED ALWAYS AS (a * 2) STORED NOT NULL", &[])]
#[case("ADD COLUMN b int CHECK (b IS NOT NULL)", &[])]
#[case("ADD CONSTRAINT c CHECK (b IS NOT NULL) NOT VALID", &[])]
#[case("ADD CONSTRAINT c PRIMARY KEY (b)", &[])]
#[case("ADD CONSTRAINT c NOT NULL b", &[Risk::RequiresValue])]
#[case("ALTER COLUMN b SET NOT NULL", &[Risk::RequiresValue])]
#[case("ALTER COLUMN b SET NOT NULL, ALTER b SET DEFAULT 0", &[])]
#[case("ALTER COLUMN b SET DEFAULT NULL, ALTER b SET NOT NULL", &[Risk::RequiresValue])]
#[case("ALTER b SET NOT NULL, ALTER b ADD GENERATED ALWAYS AS IDENTITY", &[])]
fn what_altering_a_table_risks(#[case] actions: &str, #[case] expected: &[Risk]) {
    assert_eq!(of_last(&format!("ALTER TABLE IF EXISTS ONLY shop.a * {actions}")), expected);
}

/// What was made by the same files has no values but theirs.
#[rstest]
#[case::a_column("ALTER TABLE a ADD b int; UPDATE a SET b = c", &[])]
#[case::in_quotes("ALTER TABLE s.\"A\" ADD \"B\" int; UPDATE s.\"A\" SET \"B\" = c", &[])]
#[case::and_another("ALTER TABLE a ADD b int; UPDATE a SET b = 1, c = 2", &[Risk::WritesOver])]
#[case::behind_what_compares("ALTER TABLE a ADD b bool; UPDATE a SET b = c IS DISTINCT FROM d, e = 2", &[Risk::WritesOver])]
#[case::of_another_table("ALTER TABLE a ADD b int; UPDATE c SET b = 1", &[Risk::WritesOver])]
#[case::of_another_schema("ALTER TABLE a ADD b int; UPDATE s.a SET b = 1", &[Risk::WritesOver])]
#[case::perhaps_there("ALTER TABLE a ADD IF NOT EXISTS b int; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::dropped_and_added("ALTER TABLE a ADD b int; ALTER TABLE a DROP b; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::by_an_upsert("ALTER TABLE a ADD b int; INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET b = 1", &[])]
#[case::by_a_merge("ALTER TABLE a ADD b int; MERGE INTO a USING c ON true WHEN MATCHED THEN UPDATE SET b = CASE WHEN x THEN 1 END, d = 2", &[Risk::WritesOver])]
#[case::a_table("CREATE TABLE a (b int); UPDATE a SET b = 1", &[])]
#[case::a_table_perhaps_there("CREATE TABLE IF NOT EXISTS a (b int); UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::a_table_of_the_session("CREATE TEMP TABLE a (b int); UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::a_part("CREATE TABLE a PARTITION OF c DEFAULT; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::with_rows_of_others("CREATE TABLE a (b int) PARTITION BY LIST (b); ALTER TABLE a ATTACH PARTITION c DEFAULT; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::renamed("CREATE TABLE a (b int); ALTER TABLE a RENAME TO d; ALTER TABLE c RENAME TO a; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::found_elsewhere("CREATE TABLE a (b int); SET LOCAL search_path = s; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::found_elsewhere_by_a_function("CREATE TABLE a (b int); SELECT set_config('search_path', 's', false); UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::after_code("CREATE TABLE a (b int); DO $$ BEGIN END $$; UPDATE a SET b = 1", &[Risk::WritesOver])]
#[case::after_a_setting("CREATE TABLE a (b int); SET lock_timeout = '1s'; UPDATE a SET b = 1", &[])]
#[case::its_rows_are_deleted_all_the_same("CREATE TABLE a (b int); DELETE FROM a", &[Risk::DeletesRows])]
#[case::a_column_of_a_new_table("CREATE TABLE a (); ALTER TABLE a ADD b int NOT NULL", &[])]
#[case::required_in_a_new_table("CREATE TABLE a (b int); ALTER TABLE a ALTER b SET NOT NULL", &[])]
#[case::filled_and_required("ALTER TABLE a ADD b int; UPDATE a SET b = 1; ALTER TABLE a ALTER b SET NOT NULL", &[Risk::RequiresValue])]
#[case::required_with_a_default("ALTER TABLE a ADD b int DEFAULT 1; ALTER TABLE a ALTER b SET NOT NULL", &[])]
#[case::that_is_taken_away("ALTER TABLE a ADD b int NOT NULL DEFAULT 1; ALTER TABLE a ALTER b DROP DEFAULT", &[Risk::RequiresValue])]
#[case::and_no_longer_required("ALTER TABLE a ADD b int NOT NULL DEFAULT 1; ALTER TABLE a ALTER b DROP NOT NULL; ALTER TABLE a ALTER b DROP DEFAULT", &[])]
#[case::a_function("CREATE FUNCTION tidy() RETURNS void LANGUAGE sql AS ''; SELECT s.tidy()", &[Risk::RunsCode])]
#[case::a_function_among_values("CREATE FUNCTION tidy() RETURNS int LANGUAGE sql AS ''; VALUES (tidy())", &[Risk::RunsCode])]
#[case::a_function_that_gives_rows("CREATE FUNCTION tidy() RETURNS int LANGUAGE sql AS ''; INSERT INTO log SELECT tidy()", &[Risk::RunsCode])]
#[case::a_function_behind_with("CREATE FUNCTION tidy() RETURNS int LANGUAGE sql AS ''; WITH x AS (SELECT 1) SELECT tidy() FROM x", &[Risk::RunsCode])]
#[case::a_function_that_makes_a_table("CREATE FUNCTION tidy() RETURNS int LANGUAGE sql AS ''; CREATE TABLE t AS SELECT tidy()", &[Risk::RunsCode])]
#[case::a_function_that_a_view_would_call("CREATE FUNCTION tidy() RETURNS int LANGUAGE sql AS ''; CREATE VIEW v AS SELECT tidy()", &[])]
#[case::a_function_that_is_a_default("CREATE FUNCTION tidy() RETURNS int LANGUAGE sql AS ''; CREATE TABLE t (a int DEFAULT tidy())", &[])]
#[case::that_changes_nothing("CREATE FUNCTION tidy() RETURNS int IMMUTABLE LANGUAGE sql AS ''; SELECT tidy()", &[])]
fn what_the_files_have_made_counts(#[case] sql: &str, #[case] expected: &[Risk]) {
    assert_eq!(of_last(sql), expected);
}

fn files(all: &[(&str, &str)]) -> Vec<File> {
    ordered(all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()).unwrap()
}

const REQUIRED: &str = "2.sql, line 1: adds a column NOT NULL without DEFAULT: rows that older code writes are refused";

#[test]
fn every_risk_loses_data_unless_a_rehearsal_knows_better() {
    let all = files(&[("1.sql", "DO ''"), ("2.sql", "ALTER TABLE a ADD b int NOT NULL"), ("3.sql", "DROP TABLE c")]);
    let (told, loses) = super::told(&all, false);
    let first = "1.sql, line 1: runs code (DO, CALL, EXECUTE, a function of these files): whether it loses data only a rehearsal tells";
    assert_eq!(
        (told, loses),
        (vec![first.into(), "3.sql, line 1: drops tables with their rows".into(), REQUIRED.into()], true)
    );
    assert_eq!(super::told(&all[..2], true), (vec![REQUIRED.to_owned()], false));
    assert!(super::told(&all[1..2], false).1, "rows that nobody has written yet are lost, too");
    assert!(super::told(&all, true).1);
}

#[test]
fn files_that_come_after_others_know_what_those_have_made() {
    let (before, seed) = (
        files(&[("1.sql", "CREATE TABLE a (id int PRIMARY KEY, n int)")]),
        "INSERT INTO a VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET n = 2",
    );
    let seed = files(&[("1_rows.sql", seed)]);
    assert_eq!(told_after(&before, &seed), (Vec::new(), false));
    let told = "1_rows.sql, line 1: writes over values that are there, which no rehearsal sees".to_owned();
    assert_eq!(told_after([], &seed), (vec![told], true));
}

/// A status keeps 160 characters of each, with the name of a file before it.
#[test]
fn what_is_told_of_a_risk_is_short() {
    use Risk::*;
    for risk in [
        DropsTables,
        DropsColumn,
        DropsAttribute,
        DropsDependents,
        Empties,
        EmptiesReferrers,
        DeletesRows,
        WritesOver,
        ChangesType,
        TurnsWrites,
        AddsRequired,
        RequiresValue,
        RunsCode,
    ] {
        assert!(risk.told().len() <= 110, "{risk:?}: {}", risk.told().len());
    }
}
