//! The SQL files that the pod of a migration, or of a seed, mounts from ConfigMaps: what stands in them, which is not all of
//! what its tool will run.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    api::{Change, ServiceRelease},
    engine::Due,
};

/// What such files are.
pub const MOUNTED: &str = "mounted: ";
/// What has to be said of them.
pub const NOT_ALL: &str = "files that a pod mounts are told as they stand in its ConfigMap: which of them its tool runs, and in which direction, it \
                           decides itself";

/// The ConfigMaps that the pods of what is due mount, each once.
pub fn config_maps(release: &ServiceRelease, due: Due) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in sources(release, due).into_iter().filter_map(name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The files that are mounted of one of them, by their keys.
pub fn files(release: &ServiceRelease, due: Due, map: &str, data: BTreeMap<String, String>) -> Vec<(String, String)> {
    let sources = sources(release, due);
    let of_map: Vec<&Value> = sources.into_iter().filter(|source| name(source).as_deref() == Some(map)).collect();
    let is_file = |key: &str| {
        of_map.iter().any(|source| match source.get("items").and_then(Value::as_array) {
            None => key.ends_with(".sql"),
            Some(items) => items
                .iter()
                .filter(|item| item["key"] == key)
                .any(|item| item["path"].as_str().is_some_and(|path| path.ends_with(".sql"))),
        })
    };
    data.into_iter().filter(|(key, _)| is_file(key)).collect()
}

/// What the first containers of the pods mount of ConfigMaps: `configMap` of a volume, or of a projected one.
fn sources(release: &ServiceRelease, due: Due) -> Vec<&Value> {
    super::changes(release, due).into_iter().flat_map(|(_, change)| of_change(change)).collect()
}

fn of_change(change: &Change) -> Vec<&Value> {
    let list = |path: &str| change.template.as_ref().and_then(|pod| pod.pointer(path)).and_then(Value::as_array);
    let mounts: Vec<&Value> = list("/spec/containers/0/volumeMounts").into_iter().flatten().collect();
    let is_mounted = |volume: &&Value| mounts.iter().any(|mount| mount.get("name") == volume.get("name"));
    let volumes = list("/spec/volumes").into_iter().flatten().filter(is_mounted);
    let mut found = Vec::new();
    for volume in volumes {
        let projected = volume.pointer("/projected/sources").and_then(Value::as_array);
        found.extend(projected.into_iter().flatten().filter_map(|source| source.get("configMap")));
        found.extend(volume.get("configMap"));
    }
    found
}

fn name(source: &Value) -> Option<String> {
    source.get("name")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{args, collect, exit, manifest, run},
        *,
    };
    use crate::{cli::fake::Fake, engine::plan::Situation};

    fn release(template: &Value) -> ServiceRelease {
        let change = json!({"template": template, "previousRevisionCompatible": true});
        serde_json::from_value(json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease", "metadata": {"name": "shop"},
            "spec": {
                "strategy": {"blueGreen": {}},
                "database": {
                    "urlFrom": {"secretKeyRef": {"name": "db", "key": "URL"}},
                    "migration": change, "migrationDown": {"template": template},
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn files_are_those_of_the_config_maps_that_the_first_container_mounts() {
        let items = json!([
            {"key": "schema.prisma", "path": "schema.prisma"}, {"key": "2_shop", "path": "migrations/2_shop/migration.sql"},
        ]);
        let release = release(&json!({"spec": {
            "containers": [{"name": "migrate", "volumeMounts": [{"name": "sql"}, {"name": "both"}, {"name": "prisma"}]}, {"name": "other"}],
            "volumes": [
                {"name": "sql", "configMap": {"name": "files"}},
                {"name": "both", "projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "more"}}]}},
                {"name": "prisma", "configMap": {"name": "prisma", "items": items}},
                {"name": "unmounted", "configMap": {"name": "unmounted"}},
                {"name": "secret", "secret": {"secretName": "s"}},
            ],
        }}));
        let due = Due { migration: true, seed: true };
        assert_eq!(config_maps(&release, due), ["files", "more", "prisma"], "each once, though two pods mount them");
        assert_eq!(config_maps(&release, Due::default()), [""; 0], "nothing is due");
        let data = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), "SELECT 1".to_owned())).collect();
        let keys = |map: &str, all: &[&str]| {
            let files = files(&release, due, map, data(all));
            files.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys("files", &["1_a.up.sql", "1_a.down.sql", "notes.txt"]), ["1_a.down.sql", "1_a.up.sql"]);
        assert_eq!(keys("prisma", &["schema.prisma", "2_shop", "3_left_out.sql"]), ["2_shop"]);
    }

    const MANIFEST: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: sql}
data: {001_drop.sql: DROP TABLE old;}
---
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template: {metadata: {labels: {app: shop}}, spec: {containers: [{name: app, image: 'shop:3'}]}}
  strategy: {blueGreen: {}}
  database:
    urlFrom: {secretKeyRef: {name: db, key: URL}}
    migration:
      previousRevisionCompatible: true
      template:
        spec:
          containers:
          - {name: tool, image: tool, command: [tool], volumeMounts: [{name: sql, mountPath: /sql}]}
          volumes:
          - {name: sql, configMap: {name: sql}}
";

    #[tokio::test]
    async fn files_that_a_pod_mounts_are_told_as_they_stand() {
        let read = manifest(MANIFEST, "shop.yaml", "shop").unwrap();
        assert_eq!(super::super::config_maps(&read.release), [(MOUNTED, "sql".to_owned())]);
        let due = Situation::next(&read.release).due;
        let files = files(&read.release, due, "sql", read.config_maps[0].data.clone().unwrap());
        let plan = collect(&read.release, vec![(MOUNTED, files)]);
        assert_eq!(plan.files[0].file, "mounted: 001_drop.sql");
        assert_eq!(plan.files[0].risks, ["line 1: drops tables with their rows"]);
        assert!(plan.gaps.contains(&NOT_ALL.to_owned()), "{:?}", plan.gaps);
        assert!(plan.gaps.iter().any(|gap| gap.contains("statements of an image")), "that is not all: {:?}", plan.gaps);
        // What its tool alone can read is told, and keeps nothing else back.
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let odd = vec![file("1.sql", "SELECT 'open"), file("2.sql", "BEGIN; DROP TABLE a; COMMIT")];
        let plan = collect(&read.release, vec![(MOUNTED, odd)]);
        assert_eq!((plan.files.len(), plan.files[0].risks.len()), (1, 1), "{plan:?}");
        assert!(plan.gaps[0].starts_with("1.sql: "), "{:?}", plan.gaps);

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.yaml");
        std::fs::write(&path, MANIFEST).unwrap();
        let (_fake, cluster) = Fake::start();
        let args = args::Plan { name: "shop".into(), filename: Some(path), output: None };
        assert_eq!(run(&cluster, &args).await.unwrap(), exit::OK);
    }
}
