//! Looks at the keys of Secrets and ConfigMaps, in the release's namespace: part of the runner, never of the operator.

use std::{fs, io, path::Path};

use crate::api::KeysOf;

/// How many of the faults are told by name.
const TOLD: usize = 8;

/// What is missing among files that a Job has mounted, one directory for each source; none if all is there.
///
/// # Errors
/// If a file cannot be looked at for another reason than that it is not there.
pub fn fault(mounts: &Path, sources: &[KeysOf]) -> io::Result<Option<String>> {
    let mut faults = Vec::new();
    for (place, source) in sources.iter().enumerate() {
        let name = match (&source.secret, &source.config_map) {
            (Some(secret), _) => format!("Secret {secret}"),
            (None, map) => format!("ConfigMap {}", map.as_deref().unwrap_or_default()),
        };
        for key in &source.keys {
            let value = match fs::read(mounts.join(place.to_string()).join(key)) {
                Ok(value) => value,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    faults.push(format!("{name} has no key {key}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (length, least) = (value.len(), usize::try_from(source.min_length).unwrap_or(1));
            let told = match () {
                () if value.is_empty() => "is empty".to_owned(),
                () if String::from_utf8_lossy(&value).trim().is_empty() => {
                    "is empty but for spaces or line breaks".to_owned()
                }
                () if length < least => format!("has {length} bytes, at least {least} are needed"),
                () => continue,
            };
            faults.push(format!("{name}: {key} {told}"));
        }
    }
    let more = faults.len().saturating_sub(TOLD);
    faults.truncate(TOLD);
    if more > 0 {
        faults.push(format!("and {more} more"));
    }
    Ok((!faults.is_empty()).then(|| faults.join("; ")))
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
        let told = "Secret env: EMPTY is empty; Secret env has no key JWT; \
                    Secret env: LINE is empty but for spaces or line breaks; \
                    Secret env: BLANK is empty but for spaces or line breaks; \
                    ConfigMap config: LEVEL has 4 bytes, at least 9 are needed";
        assert_eq!(fault(&mounts, &bad).unwrap().unwrap(), told);
        fs::remove_dir_all(&mounts).unwrap();
    }
}
