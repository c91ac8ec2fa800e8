//! What the names of SQL files say by the conventions of tools: which of them lead forward, and of which version they are.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// What the file of a migration of Prisma's is called; its directory has the name of the migration.
const PRISMA: &str = "migration.sql";

/// The files among these that a tool may run on the way forward. Those that take back are none: `.down.sql` (golang-migrate,
/// sqlx), `U1__name.sql` (Flyway), and whatever is beside a `migration.sql` (Prisma).
#[must_use]
pub fn forward(paths: &[PathBuf]) -> BTreeSet<&Path> {
    let of_prisma: BTreeSet<&Path> =
        paths.iter().filter(|path| name(path) == PRISMA).filter_map(|path| path.parent()).collect();
    let leads = |path: &&Path| {
        let name = name(path);
        let beside = name != PRISMA && path.parent().is_some_and(|parent| of_prisma.contains(parent));
        !beside && !name.ends_with(".down.sql") && flyway(name, 'U').is_none()
    };
    paths.iter().map(PathBuf::as_path).filter(|path| name(path).ends_with(".sql")).filter(leads).collect()
}

/// The name of a file, without its directory.
#[must_use]
pub fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The same for people: those of Prisma are all called alike.
#[must_use]
pub fn told(path: &Path) -> String {
    match prisma(path) {
        Some(migration) => format!("{migration}/{PRISMA}"),
        None => name(path).to_owned(),
    }
}

/// The name of a migration of Prisma's.
#[must_use]
pub fn prisma(path: &Path) -> Option<&str> {
    path.parent().filter(|_| name(path) == PRISMA)?.file_name()?.to_str()
}

/// The version of a file of golang-migrate's: `1_orders.up.sql`.
#[must_use]
pub fn golang_migrate(name: &str) -> Option<i64> {
    numbered(name.strip_suffix(".up.sql")?).map(|(version, _)| version)
}

/// Version and description of a file of sqlx's: `1_orders.sql`, `1_orders.up.sql`.
#[must_use]
pub fn sqlx(name: &str) -> Option<(i64, String)> {
    let stem = name.strip_suffix(".up.sql").or_else(|| name.strip_suffix(".sql"))?;
    numbered(stem).map(|(version, description)| (version, description.replace('_', " ")))
}

fn numbered(stem: &str) -> Option<(i64, &str)> {
    let (version, title) = stem.split_once('_')?;
    let is_number = !version.is_empty() && version.bytes().all(|digit| digit.is_ascii_digit());
    Some((version.parse().ok().filter(|_| is_number)?, title))
}

/// The version of a file of Flyway's with this letter: `V1_2__orders.sql`.
#[must_use]
pub fn flyway(name: &str, letter: char) -> Option<Version> {
    let (version, _) = name.strip_suffix(".sql")?.strip_prefix(letter)?.split_once("__")?;
    Version::of(version)
}

/// Whether Flyway runs it again each time that its contents have changed: `R__views.sql`.
#[must_use]
pub fn is_repeatable(name: &str) -> bool {
    name.starts_with("R__")
}

/// A version as Flyway compares them: numbers with dots or underscores between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<Number>);

/// A number of any length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Number(String);

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Version {
    /// Reads one.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let is_one = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
            is_one.then(|| Number(part.trim_start_matches('0').to_owned()))
        };
        let mut numbers: Vec<Number> = text.split(['.', '_']).map(number).collect::<Option<_>>()?;
        while numbers.last().is_some_and(|last| last.0.is_empty()) {
            numbers.pop();
        }
        Some(Self(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_back_does_not_lead_forward() {
        let all = [
            "/sql/1_a.up.sql",
            "/sql/1_a.down.sql",
            "/sql/notes.txt",
            "/sql/2_b.sql",
            "/flyway/V1__a.sql",
            "/flyway/U1__a.sql",
            "/flyway/U1_2.1__b.sql",
            "/flyway/R__views.sql",
            "/flyway/Users__all.sql",
            "/prisma/seed.sql",
            "/prisma/migrations/1_a/migration.sql",
            "/prisma/migrations/1_a/down.sql",
        ];
        let paths: Vec<PathBuf> = all.iter().map(PathBuf::from).collect();
        let forward: Vec<&str> = forward(&paths).into_iter().filter_map(Path::to_str).collect();
        let expected = [
            "/flyway/R__views.sql",
            "/flyway/Users__all.sql",
            "/flyway/V1__a.sql",
            "/prisma/migrations/1_a/migration.sql",
            "/prisma/seed.sql",
            "/sql/1_a.up.sql",
            "/sql/2_b.sql",
        ];
        assert_eq!(forward, expected);
    }

    #[test]
    fn names_tell_versions_by_the_convention_of_each_tool() {
        assert_eq!(
            (golang_migrate("0012_a_b.up.sql"), golang_migrate("12_a.sql"), golang_migrate("x_a.up.sql")),
            (Some(12), None, None)
        );
        assert_eq!(sqlx("7_two_words.sql"), Some((7, "two words".into())));
        assert_eq!((sqlx("7_a.up.sql"), sqlx("7.sql"), sqlx("+7_a.sql")), (Some((7, "a".into())), None, None));
        assert_eq!(flyway("V01_2.0__a.sql", 'V'), Version::of("1.2"));
        assert_eq!((flyway("V__a.sql", 'V'), flyway("Va__a.sql", 'V')), (None, None));
        assert!(Version::of("9") < Version::of("10") && Version::of("1.9") < Version::of("1.10"));
        assert!(Version::of("1") < Version::of("1.1") && Version::of("1.1") < Version::of("20261130000000000000000"));
        assert_eq!(prisma(Path::new("/p/20260101_a/migration.sql")), Some("20260101_a"));
        assert_eq!(told(Path::new("/p/20260101_a/migration.sql")), "20260101_a/migration.sql");
        assert_eq!(told(Path::new("/p/1.sql")), "1.sql");
    }
}
