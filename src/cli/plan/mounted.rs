//! The SQL files that the pod of a migration, or of a seed, mounts from ConfigMaps: what stands in them, of which preflight
//! reads those that the migration's tool has not applied yet, as far as its own table tells.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    api::{Change, MountedMaps, ServiceRelease},
    database::mounted::conventions,
    engine::Due,
};

use super::DOWN;

/// What such files are.
pub const MOUNTED: &str = "mounted: ";
/// The same of those that lead back, by the conventions of tools, or are mounted for the way back alone.
pub const BACK: &str = "mounted, for the way back: ";
/// What has to be said of them.
pub const NOT_ALL: &str = "files that a pod mounts are told as they stand in its ConfigMap: which of them its tool runs, it decides itself; \
                           preflight leaves out those that the tool's own table has as applied";

/// The ConfigMaps that the pods of what is due mount, each once.
pub fn config_maps(release: &ServiceRelease, due: Due) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, maps) in mounted(release, due) {
        for name in maps.names() {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Files by their keys, with their contents.
type Files = Vec<(String, String)>;

/// The files that are mounted of one of them, by their keys, with what they are.
pub fn files(
    release: &ServiceRelease,
    due: Due,
    map: &str,
    data: BTreeMap<String, String>,
) -> Vec<(&'static str, Files)> {
    let mounted = mounted(release, due);
    let places = |key: &str, way_back: bool| -> Vec<PathBuf> {
        let changes = mounted.iter().filter(|(what, _)| (*what == DOWN) == way_back);
        changes.flat_map(|(_, maps)| maps.places(map, key)).map(PathBuf::from).collect()
    };
    let paths: Vec<PathBuf> = data.keys().flat_map(|key| places(key, false)).collect();
    let forward = conventions::forward(&paths);
    let (mut leading, mut back) = (Vec::new(), Vec::new());
    for (key, text) in data {
        let is_sql = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sql");
        let (there, then) = (places(&key, false), places(&key, true));
        if there.iter().any(|path| forward.contains(path.as_path())) {
            leading.push((key, text));
        } else if there.iter().chain(&then).any(is_sql) {
            back.push((key, text));
        }
    }
    [(MOUNTED, leading), (BACK, back)].into_iter().filter(|(_, files)| !files.is_empty()).collect()
}

/// What the first containers of the pods mount of ConfigMaps, with what is due.
fn mounted(release: &ServiceRelease, due: Due) -> Vec<(&'static str, MountedMaps<'_>)> {
    fn of<'a>(what: &'static str, change: &'a Change) -> Vec<(&'static str, MountedMaps<'a>)> {
        change.mounted().into_iter().map(|maps| (what, maps)).collect()
    }
    super::changes(release, due).into_iter().flat_map(|(what, change)| of(what, change)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
            {"key": "2_back", "path": "migrations/2_shop/down.sql"},
        ]);
        let release = release(&json!({"spec": {
            "containers": [{"name": "migrate", "volumeMounts": [
                {"name": "sql", "mountPath": "/sql"}, {"name": "both", "mountPath": "/both"}, {"name": "mixed", "mountPath": "/mixed"},
                {"name": "prisma", "mountPath": "/prisma"},
            ]}, {"name": "other"}],
            "volumes": [
                {"name": "sql", "configMap": {"name": "files"}},
                {"name": "both", "projected": {"sources": [{"configMap": {"name": "files"}}, {"configMap": {"name": "more"}}]}},
                {"name": "mixed", "projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "with-secrets"}}]}},
                {"name": "prisma", "configMap": {"name": "prisma", "items": items}},
                {"name": "unmounted", "configMap": {"name": "unmounted"}},
                {"name": "secret", "secret": {"secretName": "s"}},
            ],
        }}));
        let due = Due { migration: true, seed: true, late: false };
        assert_eq!(config_maps(&release, due), ["files", "more", "prisma"], "each once, though two pods mount them");
        assert_eq!(config_maps(&release, Due::default()), [""; 0], "nothing is due");
        let data = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), "SELECT 1".to_owned())).collect();
        let keys = |map: &str, all: &[&str]| {
            let files = files(&release, due, map, data(all)).into_iter();
            files.map(|(what, files)| (what, files.into_iter().map(|(key, _)| key).collect())).collect::<Vec<_>>()
        };
        let some = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let told = keys("files", &["1_a.up.sql", "1_a.down.sql", "notes.txt"]);
        assert_eq!(told, [(MOUNTED, some(&["1_a.up.sql"])), (BACK, some(&["1_a.down.sql"]))]);
        let told = keys("prisma", &["schema.prisma", "2_shop", "2_back", "3_left_out.sql"]);
        assert_eq!(told, [(MOUNTED, some(&["2_shop"])), (BACK, some(&["2_back"]))]);
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
        let plan = collect(&read.release, files);
        assert_eq!(plan.files[0].file, "mounted: 001_drop.sql");
        assert_eq!(plan.files[0].risks, ["line 1: drops tables with their rows"]);
        assert!(plan.gaps.contains(&NOT_ALL.to_owned()), "{:?}", plan.gaps);
        assert!(
            plan.gaps.iter().any(|gap| gap.contains("what else its image runs")),
            "that is not all: {:?}",
            plan.gaps
        );
        assert!(plan.steps.iter().any(|step| step.step == "approval of the migration"), "{:?}", plan.steps);
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
