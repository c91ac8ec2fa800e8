//! Looks at the keys of Secrets and ConfigMaps, in the release's namespace: part of the runner, never of the operator.

use std::{collections::BTreeSet, fs, io, path::Path};

use crate::api::KeysOf;

/// How many of the faults are told by name.
const TOLD: usize = 8;

/// What is missing among files that a Job has mounted, one directory for each source; none if all is there.
///
/// # Errors
/// If a file cannot be looked at for another reason than that it is not there.
pub fn fault(mounts: &Path, sources: &[KeysOf]) -> io::Result<Option<String>> {
    let mut faults = Vec::new();
    // The kubelet mounts of a Secret that is not there the same as of one without any of the keys.
    let mut there = BTreeSet::new();
    let mut missing: Vec<(String, Vec<&str>)> = Vec::new();
    for (place, source) in sources.iter().enumerate() {
        let name = name(source);
        let mut lacks = Vec::new();
        for key in &source.keys {
            match read(&mounts.join(place.to_string()).join(key))? {
                None => lacks.push(key.as_str()),
                Some(value) => {
                    there.insert(name.clone());
                    let told = wrong(&value, source.min_length);
                    faults.extend(told.map(|told| format!("{name}: {key} {told}")));
                }
            }
        }
        if !lacks.is_empty() {
            missing.push((name, lacks));
        }
    }
    for (name, keys) in missing {
        if there.contains(&name) {
            faults.extend(keys.into_iter().map(|key| format!("{name} has no key {key}")));
        } else {
            faults.push(format!("{name} has no key {}, or is not there at all", listed(&keys)));
        }
    }
    let more = faults.len().saturating_sub(TOLD);
    faults.truncate(TOLD);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    Ok((!faults.is_empty()).then(|| faults.join("; ")))
}

/// What is told where all is there: how many keys of which objects.
#[must_use]
pub fn found(sources: &[KeysOf]) -> String {
    let counts: Vec<String> =
        sources.iter().take(TOLD).map(|source| format!("{} of {}", source.keys.len(), name(source))).collect();
    let all: usize = sources.iter().map(|source| source.keys.len()).sum();
    let more = if sources.len() > TOLD { ", ..." } else { "" };
    let keys = if all == 1 { "1 key is there" } else { &format!("{all} keys are there") };
    format!("{keys}: {}{more}", counts.join(", "))
}

fn name(source: &KeysOf) -> String {
    match (&source.secret, &source.config_map) {
        (Some(secret), _) => format!("Secret {secret}"),
        (None, map) => format!("ConfigMap {}", map.as_deref().unwrap_or_default()),
    }
}

/// The names of keys, the first ones of many.
fn listed(keys: &[&str]) -> String {
    let more = keys.len().saturating_sub(TOLD);
    let told = keys.get(..keys.len() - more).unwrap_or_default().join(", ");
    if more > 0 { format!("{told} and {more} more") } else { told }
}

/// A file's content; none if it is not there.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a value has against it; none of it is told.
fn wrong(value: &[u8], min_length: i64) -> Option<String> {
    let (length, least) = (value.len(), usize::try_from(min_length).unwrap_or(1));
    match () {
        () if value.is_empty() => Some("is empty".to_owned()),
        () if String::from_utf8_lossy(value).trim().is_empty() => {
            Some("is empty but for spaces or line breaks".to_owned())
        }
        () if length < least => Some(format!("has {length} bytes, at least {least} are needed")),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_there_and_long_enough_or_told_by_name_never_by_value() {
        let mounts = std::env::temp_dir().join(format!("check-keys-{}", std::process::id()));
        let _ = fs::remove_dir_all(&mounts);
        fs::create_dir_all(mounts.join("0")).unwrap();
        fs::create_dir_all(mounts.join("1")).unwrap();
        fs::write(mounts.join("0/URL"), "postgres://secret").unwrap();
        fs::write(mounts.join("0/EMPTY"), "").unwrap();
        fs::write(mounts.join("0/LINE"), "\n").unwrap();
        fs::write(mounts.join("0/BLANK"), " \t\r\n ").unwrap();
        fs::write(mounts.join("0/BYTES"), b"\xff\n").unwrap();
        fs::write(mounts.join("1/LEVEL"), "info").unwrap();
        let sources = |json| serde_json::from_value::<Vec<KeysOf>>(json).unwrap();
        let good =
            sources(json!([{"secret": "env", "keys": ["URL", "BYTES"]}, {"configMap": "config", "keys": ["LEVEL"]}]));
        assert_eq!(fault(&mounts, &good).unwrap(), None);
        let bad = sources(json!([
            {"secret": "env", "keys": ["EMPTY", "JWT", "LINE", "BLANK"]}, {"configMap": "config", "keys": ["LEVEL"], "minLength": 9},
        ]));
        let told = "Secret env: EMPTY is empty; \
                    Secret env: LINE is empty but for spaces or line breaks; \
                    Secret env: BLANK is empty but for spaces or line breaks; \
                    ConfigMap config: LEVEL has 4 bytes, at least 9 are needed; Secret env has no key JWT";
        assert_eq!(fault(&mounts, &bad).unwrap().unwrap(), told);
        assert_eq!(found(&good), "3 keys are there: 2 of Secret env, 1 of ConfigMap config");
        assert_eq!(found(&good[1..]), "1 key is there: 1 of ConfigMap config");
        // An empty directory is mounted for what is not there, and for what has none of the keys.
        let gone = sources(json!([
            {"secret": "env", "keys": ["URL"]}, {"configMap": "config", "keys": ["LEVEL"]},
            {"secret": "gone", "keys": ["A", "B"]}, {"secret": "env", "keys": ["JWT"]},
        ]));
        let told = "Secret gone has no key A, B, or is not there at all; Secret env has no key JWT";
        assert_eq!(fault(&mounts, &gone).unwrap().unwrap(), told);
        fs::remove_dir_all(&mounts).unwrap();
    }
}
