//! The SQL files that the pod of a change mounts from ConfigMaps: those that its tool has still to run are read before it does.

pub mod applied;
pub mod conventions;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sqlx::Connection as _;

use super::{
    connection::{self, told},
    migrate::{files, risks},
};

/// How many files are read, and how much of them in bytes. Statements take several times as much.
const MOST_FILES: usize = 500;
const MOST_BYTES: usize = 4 << 20;
/// What is told where there is nothing to read, and a person wants to be asked.
const NOTHING: &str = "the pod mounts no file *.sql: whether it loses data nobody can tell";

/// The files that are due.
#[derive(Debug, Default)]
pub struct Due {
    /// Those that can be read, in the order of their paths.
    pub files: Vec<files::File>,
    /// The names of all.
    pub names: Vec<String>,
    /// Why others cannot be read.
    unread: Vec<String>,
    /// That there are more than are read.
    beyond: Option<String>,
    /// Whether any leads forward, due or not.
    any: bool,
}

/// Reads the files that are due of what is mounted at these paths, under a root. `but`: what is of another change.
///
/// # Errors
/// The files, or what the tools have on record, cannot be read.
pub async fn due(url: &str, root: &Path, paths: &[String], but: &[files::File]) -> Result<Due, String> {
    let unread = |error: io::Error| format!("the files under {} cannot be read: {error}", paths.join(", "));
    let mut all = Vec::new();
    for path in paths {
        add(&under(root, path), &mut all).map_err(unread)?;
    }
    all.sort();
    all.dedup();
    let forward = conventions::forward(&all);
    if forward.is_empty() {
        return Ok(Due::default());
    }
    let opened = connection::open(url, "servicerelease/preflight").await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    let applied = applied::read(&mut connection).await;
    let _ = connection.close().await;
    let applied = applied.map_err(|error| format!("the tables of migration tools cannot be read: {}", told(&error)))?;
    let mut due = Due { any: true, ..Due::default() };
    let mut left = MOST_BYTES;
    for path in forward {
        let bytes = fs::read(path).map_err(unread)?;
        let name = conventions::told(path);
        let text = String::from_utf8(bytes);
        if text.as_ref().is_ok_and(|text| applied.has(path, text)) {
            continue;
        }
        due.take(name, text.ok(), &mut left, but);
    }
    Ok(due)
}

/// Where a path of another pod is in this one.
pub fn under(root: &Path, path: &str) -> PathBuf {
    if root == Path::new("/") { PathBuf::from(path) } else { root.join(path.trim_start_matches('/')) }
}

/// Whether nothing is there: a ConfigMap is mounted so that does not exist.
pub fn is_empty(root: &Path, path: &str) -> bool {
    let mut all = Vec::new();
    add(&under(root, path), &mut all).is_err() || all.is_empty()
}

/// The files of a directory, and of those in it. What a kubelet keeps beside them (`..data` and the like) is none of them.
fn add(path: &Path, all: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        all.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("..") {
            add(&entry.path(), all)?;
        }
    }
    Ok(())
}

impl Due {
    /// Whether all that can be run was: the tool's own table has all files.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.any && self.names.is_empty()
    }

    fn take(&mut self, name: String, text: Option<String>, left: &mut usize, but: &[files::File]) {
        let length = text.as_ref().map_or(0, String::len);
        if self.names.len() >= MOST_FILES || length > *left {
            self.names.push(name);
            self.beyond = Some(format!(
                "more than {MOST_FILES} files, or {} MiB, are due: the others were not read, and may lose data",
                MOST_BYTES >> 20
            ));
            return;
        }
        *left -= length;
        let read = text
            .ok_or_else(|| format!("{name}: it is no text"))
            .and_then(|text| files::of_a_tool(&name, &text).map_err(|wrong| wrong.to_string()));
        match read {
            Ok(file) if but.contains(&file) => return,
            Ok(file) => self.files.push(file),
            Err(wrong) => self.unread.push(format!("not read, and it may lose data: {wrong}")),
        }
        self.names.push(name);
    }

    /// What they lose, and whether data are lost for all that anybody knows. `before`: files that are run before them;
    /// `rehearsed`: a rehearsal tells what cannot be read; `wary`: a person is asked also where there is nothing to read.
    #[must_use]
    pub fn told(&self, before: &[files::File], rehearsed: bool, wary: bool) -> (Vec<String>, bool) {
        let (mut told, mut loses_data) = match before {
            [] => risks::told(&self.files, rehearsed),
            before => risks::told_after(before, &self.files),
        };
        let unread = self.unread.iter().filter(|_| !rehearsed).chain(&self.beyond);
        let nothing = (wary && !self.any).then(|| NOTHING.to_owned());
        let first: Vec<String> = unread.cloned().chain(nothing).collect();
        loses_data |= !first.is_empty();
        told.splice(0..0, first);
        (told, loses_data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(all: &[(&str, &str)]) -> Due {
        let mut due = Due { any: true, ..Due::default() };
        let mut left = MOST_BYTES;
        for (name, text) in all {
            due.take((*name).to_owned(), Some((*text).to_owned()), &mut left, &[]);
        }
        due
    }

    #[test]
    fn what_is_read_tells_what_it_loses() {
        let due = due(&[("1.sql", "CREATE TABLE a ();"), ("2.sql", "BEGIN; DROP TABLE b; COMMIT;")]);
        let told = vec!["2.sql, line 1: drops tables with their rows".to_owned()];
        assert_eq!(due.told(&[], false, true), (told.clone(), true));
        assert_eq!(due.told(&[], true, false), (told, true));
        assert_eq!(due.names, ["1.sql", "2.sql"]);
    }

    #[test]
    fn what_cannot_be_read_may_lose_data_unless_it_is_rehearsed() {
        let due = due(&[("1.sql", "\\i other.sql")]);
        let (told, loses_data) = due.told(&[], false, false);
        assert!(loses_data && told[0].starts_with("not read, and it may lose data: 1.sql: "), "{told:?}");
        assert_eq!(due.told(&[], true, false), (Vec::new(), false));
    }

    #[test]
    fn a_person_who_wants_to_be_asked_is_where_there_is_nothing_to_read() {
        let none = Due::default();
        assert_eq!(none.told(&[], false, false), (Vec::new(), false));
        assert_eq!(none.told(&[], false, true), (vec![NOTHING.to_owned()], true));
        assert_eq!(Due { any: true, ..Due::default() }.told(&[], false, true), (Vec::new(), false), "all are applied");
    }

    #[test]
    fn beyond_the_bound_nothing_is_read_and_that_is_told() {
        let names: Vec<String> = (0..=MOST_FILES).map(|number| format!("{number:04}.sql")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "SELECT 1")).collect();
        let long = format!("SELECT '{}'", "x".repeat(MOST_BYTES));
        for due in [due(&many), due(&[("1.sql", &long)])] {
            for rehearsed in [false, true] {
                let (told, loses_data) = due.told(&[], rehearsed, false);
                assert!(loses_data && told[0].starts_with("more than 500 files, or 4 MiB, are due"), "{told:?}");
            }
        }
    }

    #[test]
    fn files_of_another_change_are_left_to_that() {
        let of_migration = due(&[("1.sql", "DROP TABLE a;")]);
        let mut due = Due { any: true, ..Due::default() };
        let mut left = MOST_BYTES;
        for name in ["1.sql", "2.sql"] {
            due.take(name.to_owned(), Some("DROP TABLE a;".to_owned()), &mut left, &of_migration.files);
        }
        assert_eq!(due.names, ["2.sql"]);
    }
}
