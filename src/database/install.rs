//! The operator's program with all it needs, in a directory that another image can run it from: with its own loader and
//! libraries, since that image may have others, or none.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use thiserror::Error;

/// What the program is called there.
pub const RUNNER: &str = "runner";
/// What its loader is called there: `DIR/loader --library-path DIR DIR/runner`.
pub const LOADER: &str = "loader";

/// Programs of PostgreSQL that go with it, where this image has them: what is beside a wrapped command restores a backup, to
/// rehearse on.
const TOOLS: [&str; 1] = ["pg_restore"];

/// Why it is not installed.
#[derive(Debug, Error)]
pub enum Installing {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// The program has no loader.
    #[error("{0} has no dynamic loader, or is no program of this machine's kind")]
    Loader(String),
}

/// Copies the running program, its loader and every library of it into a directory.
///
/// # Errors
/// What cannot be copied, or is not there.
pub fn install(to: &Path) -> Result<(), Installing> {
    let failed = |place: &Path| {
        let place = place.display().to_string();
        move |error| Installing::File(place, error)
    };
    let maps = Path::new("/proc/self/maps");
    let mapped = mapped(&fs::read_to_string(maps).map_err(failed(maps))?);
    let (libraries, others): (Vec<_>, Vec<_>) = mapped.into_iter().partition(|place| is_library(place));
    // Run by its loader, it is not what /proc/self/exe points to.
    let program = program(&others).ok_or_else(|| Installing::Loader("the running program".into()))?;
    let text = fs::read(&program).map_err(failed(&program))?;
    let named = interpreter(&text).ok_or_else(|| Installing::Loader(program.display().to_string()))?;
    let named = Path::new(OsStr::new(&named)).to_owned();
    // What the program names may be a link, or not be there at all if this one was installed before.
    let loader = libraries.iter().find(|place| is_loader(place)).cloned();
    let loader = loader.or_else(|| others.iter().find(|place| place.ends_with(LOADER)).cloned()).unwrap_or(named);
    fs::create_dir_all(to).map_err(failed(to))?;
    let mut all = vec![(program, RUNNER.to_owned()), (loader.clone(), LOADER.to_owned())];
    for tool in TOOLS {
        // Where this one was installed before, they are beside it.
        let beside = others.iter().find(|place| place.ends_with(LOADER)).and_then(|place| place.parent());
        let brought = beside.map(|directory| directory.join(tool)).filter(|place| place.is_file());
        let Some(place) = brought.or_else(|| in_path(tool)) else { continue };
        let named = libraries_of(&loader, beside, &place).map_err(failed(&place))?;
        all.extend(
            named.into_iter().filter_map(|library| Some((library.clone(), library.file_name()?.to_str()?.to_owned()))),
        );
        all.push((place, tool.to_owned()));
    }
    all.extend(libraries.into_iter().filter(|place| !is_loader(place)).filter_map(|place| {
        let name = place.file_name()?.to_str()?.to_owned();
        Some((place, name))
    }));
    for (from, name) in all {
        copy(&from, &to.join(name)).map_err(failed(&from))?;
    }
    Ok(())
}

/// A program that a shell would run under this name; no script.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(name));
    places.find(|place| fs::read(place).is_ok_and(|text| interpreter(&text).is_some()))
}

/// The libraries of a program, as its loader finds them, in a directory first if one is named.
fn libraries_of(loader: &Path, beside: Option<&Path>, program: &Path) -> io::Result<Vec<PathBuf>> {
    let mut command = Command::new(loader);
    if let Some(directory) = beside {
        command.arg("--library-path").arg(directory);
    }
    // Another image may have no /dev/null.
    let output = command.arg("--list").arg(program).stdin(Stdio::inherit()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("its libraries: {}", said.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let places = text.lines().filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next());
    Ok(places.map(PathBuf::from).filter(|place| place.is_absolute() && !is_loader(place)).collect())
}

/// The command that runs a program of PostgreSQL: by its name, or as it was brought along into another image.
#[must_use]
pub fn command(program: &str) -> Command {
    let own = std::env::current_exe().ok().filter(|own| own.ends_with(LOADER));
    let brought = own.as_deref().and_then(Path::parent).map(|directory| (directory, directory.join(program)));
    match (&own, brought) {
        (Some(loader), Some((directory, place))) if place.is_file() => {
            let mut command = Command::new(loader);
            command.arg("--library-path").arg(directory).arg(place);
            command
        }
        _ => Command::new(program),
    }
}

/// The files that a process has mapped to run them.
fn mapped(maps: &str) -> BTreeSet<PathBuf> {
    let places = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (_, rights) = (words.next()?, words.next()?);
        let place = words.nth(3)?;
        (rights.contains('x') && place.starts_with('/')).then(|| PathBuf::from(place))
    });
    places.collect()
}

fn is_library(place: &Path) -> bool {
    let name = place.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.ends_with(".so") || name.contains(".so.")
}

fn is_loader(place: &Path) -> bool {
    place.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("ld-"))
}

/// The program among what is mapped and is no library.
fn program(others: &[PathBuf]) -> Option<PathBuf> {
    let own = fs::read_link("/proc/self/exe").ok();
    let is_own = |place: &&PathBuf| own.as_ref() == Some(*place) && !place.ends_with(LOADER);
    let program = others.iter().find(is_own).or_else(|| others.iter().find(|place| !place.ends_with(LOADER)));
    program.cloned()
}

/// The loader that a program of 64 bits names.
fn interpreter(program: &[u8]) -> Option<String> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(length)?)?;
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    // ELF, 64 bits, the lowest byte first.
    if program.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let header =
        (0..count).map(|place| table + place * size).find(|at| number(*at, 4) == Some(INTERPRETER as usize))?;
    let (offset, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
    let name = program.get(offset..offset.checked_add(length)?)?;
    String::from_utf8(name.strip_suffix(&[0]).unwrap_or(name).to_vec()).ok()
}

/// Copies a file so that it is whole under its name, also if this is done twice at once.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_extension(format!("{}.part", std::process::id()));
    fs::copy(from, &part)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(&part, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_to_be_run_is_told_from_the_rest() {
        let maps = "55d0-55e0 r--p 00000000 fe:00 1 /usr/bin/operator\n55e0-55f0 r-xp 00000000 fe:00 1 /usr/bin/operator\n\
                    7f00-7f10 r-xp 00000000 fe:00 2 /usr/lib/libc.so.6\n7f20-7f30 rw-p 00000000 00:00 0\n\
                    7f30-7f40 r-xp 00000000 00:00 0 [vdso]\n7f50-7f60 r--p 00000000 fe:00 3 /usr/share/locale\n";
        let all: Vec<_> = mapped(maps).into_iter().collect();
        assert_eq!(all, [PathBuf::from("/usr/bin/operator"), PathBuf::from("/usr/lib/libc.so.6")]);
        assert!(is_library(&all[1]) && !is_library(&all[0]));
        assert!(is_loader(Path::new("/lib64/ld-linux-x86-64.so.2")) && !is_loader(&all[1]));
    }

    #[test]
    fn a_program_names_its_loader() {
        let own = fs::read("/proc/self/exe").unwrap();
        let loader = interpreter(&own).unwrap();
        assert!(loader.contains("ld-") && Path::new(&loader).exists(), "{loader}");
        assert_eq!(interpreter(b"#!/bin/sh"), None);
        assert_eq!(interpreter(b"\x7fELF\x02\x01"), None);
    }

    #[test]
    fn a_loader_tells_the_libraries_of_a_program() {
        let own = std::env::current_exe().unwrap();
        let loader = interpreter(&fs::read(&own).unwrap()).unwrap();
        let libraries = libraries_of(Path::new(&loader), None, &own).unwrap();
        assert!(libraries.iter().any(|place| place.ends_with("libc.so.6")), "{libraries:?}");
        assert!(libraries.iter().all(|place| place.exists() && !is_loader(place)), "{libraries:?}");
        assert!(libraries_of(Path::new(&loader), None, Path::new("/etc/passwd")).is_err());
        assert!(in_path("no-such-program").is_none());
    }
}
