//! Whether what is about to be run is what preflight looked at, and a person may have approved: compared under the lock
//! (RELIABILITY, migration rule 4).

use std::{fs, io, path::Path};

use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use crate::engine::Meant;

use super::{hexadecimal, mounted, preflight::text};

/// The most that is read of mounted files, in bytes; a ConfigMap has at most 1 MiB.
const MOST: u64 = 16 << 20;

/// The database of a connection: its name, and the server that it is on, whatever name that is reached by.
///
/// # Errors
/// Those of the connection.
pub async fn database(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let server = server(connection).await?;
    let name = text(connection, "SELECT current_database()::text").await?;
    Ok(format!("{name}@{server}"))
}

/// The server of a connection, as it stands behind the name of each of its databases.
///
/// # Errors
/// Those of the connection.
pub async fn server(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let allowed = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')::int::text";
    let server = if text(connection, allowed).await? == "1" {
        "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
    } else {
        "SELECT coalesce(pg_catalog.host(pg_catalog.inet_server_addr()), 'local')"
    };
    text(connection, server).await
}

/// Whether a server is known by what it is, and not by the way to it, which another pod of it changes.
#[must_use]
pub fn is_identifier(server: &str) -> bool {
    !server.is_empty() && server.bytes().all(|digit| digit.is_ascii_digit())
}

/// Whether a database (see [`database`]) may be the one that was meant days ago: of servers that are known by the way to
/// them alone the name has to do.
#[must_use]
pub fn may_be(is: &str, meant: &str) -> bool {
    let parts = |text: &str| text.rsplit_once('@').map(|(name, server)| (name.to_owned(), server.to_owned()));
    match (parts(is), parts(meant)) {
        (Some((is, at)), Some((meant, then))) => {
            is == meant && (at == then || !is_identifier(&at) || !is_identifier(&then))
        }
        _ => is == meant,
    }
}

/// What is told where the URL leads to another database than preflight looked at.
#[must_use]
pub fn moved(is: &str, was: &str) -> String {
    format!("the URL leads to database {is}, and preflight looked at {was}: the Secret changed after the plan was made")
}

/// Why it is not what was meant; none if it is.
///
/// # Errors
/// Those of the connection.
pub async fn differs(connection: &mut PgConnection, meant: &Meant) -> Result<Option<String>, sqlx::Error> {
    if !meant.database.is_empty() {
        let is = database(connection).await?;
        if is != meant.database {
            return Ok(Some(moved(&is, &meant.database)));
        }
    }
    if meant.files.is_empty() {
        return Ok(None);
    }
    Ok(match files(&meant.watched) {
        Ok(hash) if hash == meant.files => None,
        Ok(_) => Some(format!(
            "the files under {} are not those that were meant: they changed after the plan was made",
            meant.watched.join(", ")
        )),
        Err(error) => Some(format!("the files under {} cannot be read: {error}", meant.watched.join(", "))),
    })
}

/// Files and directories as a hash, by their names and contents. What a kubelet keeps beside mounted files (`..data` and
/// the like) is none of them.
///
/// # Errors
/// Those of the file system, and files beyond all measure.
pub fn files(paths: &[String]) -> io::Result<String> {
    files_under(Path::new("/"), paths)
}

/// The same where the files of another pod are mounted under a root: they have the names that they have there.
///
/// # Errors
/// See [`files`].
pub fn files_under(root: &Path, paths: &[String]) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut left = MOST;
    for path in paths {
        add(&mounted::under(root, path), Path::new(path), &mut hash, &mut left)?;
    }
    Ok(hexadecimal(&hash.finalize())[..32].to_owned())
}

/// `called`: what it is called where it is meant to be.
fn add(path: &Path, called: &Path, hash: &mut Sha256, left: &mut u64) -> io::Result<()> {
    let known = fs::metadata(path)?;
    let name = called.to_string_lossy();
    if known.is_dir() {
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.retain(|entry| !entry.file_name().to_string_lossy().starts_with(".."));
        entries.sort_by_key(fs::DirEntry::file_name);
        return entries.iter().try_for_each(|entry| add(&entry.path(), &called.join(entry.file_name()), hash, left));
    }
    *left = left
        .checked_sub(known.len())
        .ok_or_else(|| io::Error::other(format!("{name}: more than {MOST} bytes in all")))?;
    let contents = fs::read(path)?;
    hash.update(format!("{name}\0{}\0", contents.len()));
    hash.update(contents);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_mounted_config_map_is_known_by_what_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let hash = || files(&[directory.path().to_string_lossy().into_owned()]).unwrap();
        // As a kubelet mounts one.
        fs::create_dir(path("..2026_1")).unwrap();
        fs::write(path("..2026_1/001.sql"), "CREATE TABLE a ();").unwrap();
        symlink("..2026_1", path("..data")).unwrap();
        symlink("..data/001.sql", path("001.sql")).unwrap();
        let first = hash();
        fs::create_dir(path("..2026_2")).unwrap();
        fs::write(path("..2026_2/001.sql"), "CREATE TABLE a ();").unwrap();
        fs::remove_file(path("..data")).unwrap();
        symlink("..2026_2", path("..data")).unwrap();
        assert_eq!(hash(), first, "the same files, mounted again");
        let under = files_under(directory.path(), &["/".to_owned()]).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir(elsewhere.path().join("sql")).unwrap();
        fs::write(elsewhere.path().join("sql/001.sql"), "CREATE TABLE a ();").unwrap();
        let moved = files_under(elsewhere.path(), &["/sql".to_owned()]).unwrap();
        assert_ne!(moved, under, "it is called /sql/001.sql there");
        let root = elsewhere.path().join("sql");
        assert_eq!(files_under(&root, &["/".to_owned()]).unwrap(), under);
        fs::write(path("..2026_2/001.sql"), "DROP TABLE customers;").unwrap();
        assert_ne!(hash(), first);
        assert!(files(&["/nowhere/at/all".to_owned()]).is_err());
    }
}
