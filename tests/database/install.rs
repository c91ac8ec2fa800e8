//! The program where there is nothing else: no libc, no shell, no files.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

fn operator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_service-release-operator")).args(arguments).output().expect("the program")
}

/// Runs something in a directory as if it were all there is.
fn within(root: &Path, arguments: &[&str]) -> Output {
    let loader = ["/tools/loader", "--library-path", "/tools", "/tools/runner"];
    Command::new("/usr/sbin/chroot").arg(root).args(loader).args(arguments).env_clear().output().expect("chroot")
}

/// The processes of the machine, in a directory.
struct Proc(std::path::PathBuf);

impl Proc {
    fn mount(root: &Path) -> Self {
        let place = root.join("proc");
        fs::create_dir(&place).unwrap();
        assert!(Command::new("mount").args(["-t", "proc", "proc"]).arg(&place).status().unwrap().success());
        Self(place)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn it_runs_where_there_is_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let tools = root.path().join("tools");
    let installed = operator(&["install", "--to", tools.to_str().unwrap()]);
    assert!(installed.status.success(), "{installed:?}");
    // Twice is once.
    assert!(operator(&["install", "--to", tools.to_str().unwrap()]).status.success());
    let mut names: Vec<_> =
        fs::read_dir(&tools).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.contains(&"runner".to_owned()) && names.contains(&"loader".to_owned()), "{names:?}");
    assert!(names.contains(&"libc.so.6".to_owned()) && !names.iter().any(|name| name.ends_with(".part")), "{names:?}");

    let version = within(root.path(), &["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("service-release-operator "), "{version:?}");
    let task = json!({"wrap": {"plan": "p", "release": "a/b#1", "again": false, "lockTimeout": "1s", "timeout": "1s"}});
    let ended = within(root.path(), &["database", "--task", &task.to_string(), "--message", "/report", "--", "true"]);
    assert!(!ended.status.success(), "{ended:?}");
    let report = fs::read_to_string(root.path().join("report")).unwrap();
    assert!(report.contains("DATABASE_URL is not set"), "{report}");

    // From there, by its loader, it installs itself again.
    let _proc = Proc::mount(root.path());
    let again = within(root.path(), &["install", "--to", "/again"]);
    assert!(again.status.success(), "{again:?} {names:?}");
    for name in names {
        let (one, other) = (tools.join(&name), root.path().join("again").join(&name));
        assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap_or_default(), "{name}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told() {
    let refused = operator(&["install", "--to", "/proc/nowhere"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("/proc/nowhere: "), "{said}");
}
