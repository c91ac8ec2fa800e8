//! What the pod of a change mounts of ConfigMaps: the operator looks at that, and never at a Secret.

use serde_json::{Value, json};

use super::Change;

/// A volume of ConfigMaps alone, as the first container of a pod mounts it.
#[derive(Clone, Debug, PartialEq)]
pub struct MountedMaps<'a> {
    /// The ConfigMaps, each as a volume names it.
    pub sources: Vec<&'a Value>,
    /// Where.
    pub path: &'a str,
    /// What of it, if not all.
    pub sub_path: Option<&'a str>,
}

impl Change {
    /// The volumes of ConfigMaps that the first container of its pod mounts. One that has a Secret, or anything else, beside them
    /// is none.
    #[must_use]
    pub fn mounted(&self) -> Vec<MountedMaps<'_>> {
        let volumes = self.list("/spec/volumes");
        let mounts = self.list("/spec/containers/0/volumeMounts").into_iter();
        let of_maps = mounts.filter_map(|mount| {
            let volume = volumes.iter().find(|volume| volume.get("name") == mount.get("name"))?;
            let path = mount.get("mountPath")?.as_str()?;
            Some(MountedMaps {
                sources: sources(volume)?,
                path,
                sub_path: mount.get("subPath").and_then(Value::as_str),
            })
        });
        of_maps.collect()
    }

    /// Whether another pod can be shown the same: nothing else is mounted within those volumes, and no path is made of variables.
    #[must_use]
    pub fn is_mounted_alike(&self) -> bool {
        let mounted = self.mounted();
        let within = |path: &str| {
            let mut roots = mounted.iter().map(|maps| maps.path.trim_end_matches('/'));
            roots.any(|root| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
        };
        let is_other = |path: &str| mounted.iter().all(|maps| maps.path != path);
        self.list("/spec/containers/0/volumeMounts").into_iter().all(|mount| {
            let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            mount.get("subPathExpr").is_none() && !(is_other(path) && within(path))
        })
    }

    fn list(&self, path: &str) -> Vec<&Value> {
        let list = self.template.as_ref().and_then(|pod| pod.pointer(path)).and_then(Value::as_array);
        list.into_iter().flatten().collect()
    }

    /// Whether anybody can read what it runs, or a part of that: SQL files, or what its pod mounts of ConfigMaps.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.sql.is_some() || !self.mounted().is_empty()
    }
}

fn sources(volume: &Value) -> Option<Vec<&Value>> {
    if let Some(map) = volume.get("configMap") {
        return Some(vec![map]);
    }
    let all = volume.pointer("/projected/sources")?.as_array()?;
    all.iter().map(|source| source.get("configMap")).collect()
}

impl MountedMaps<'_> {
    /// The same as a volume of another pod. `optional`: that one does not wait for ConfigMaps that are not there.
    #[must_use]
    pub fn volume(&self, optional: bool) -> Value {
        let source = |map: &&Value| {
            let mut source = projected(map);
            if optional {
                source["optional"] = json!(true);
            }
            json!({ "configMap": source })
        };
        json!({ "projected": { "sources": self.sources.iter().map(source).collect::<Vec<_>>() } })
    }

    /// The names of the ConfigMaps.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter_map(|source| source.get("name")?.as_str())
    }

    /// Where a key of a ConfigMap is in the pod; nowhere, or in more than one place.
    #[must_use]
    pub fn places(&self, map: &str, key: &str) -> Vec<String> {
        let of_map = self.sources.iter().filter(|source| source.get("name").and_then(Value::as_str) == Some(map));
        let within = of_map.flat_map(|source| match source.get("items").and_then(Value::as_array) {
            None => vec![key],
            Some(items) => {
                items.iter().filter(|item| item["key"] == key).filter_map(|item| item["path"].as_str()).collect()
            }
        });
        within.filter_map(|path| self.place(path)).collect()
    }

    fn place(&self, within: &str) -> Option<String> {
        let root = self.path.trim_end_matches('/');
        let Some(sub_path) = self.sub_path.map(|path| path.trim_end_matches('/')) else {
            return Some(format!("{root}/{within}"));
        };
        let rest = within.strip_prefix(sub_path)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{root}{rest}"))
    }
}

/// What a projected volume knows of a ConfigMap.
fn projected(map: &Value) -> Value {
    let fields = ["name", "items", "optional"].into_iter().filter_map(|field| Some((field, map.get(field)?)));
    fields.map(|(field, value)| (field.to_owned(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(mounts: &Value, volumes: &Value) -> Change {
        let containers = json!([{"name": "tool", "volumeMounts": mounts}, {"name": "other"}]);
        let template = json!({"spec": {"containers": containers, "volumes": volumes}});
        serde_json::from_value(json!({ "template": template })).unwrap()
    }

    #[test]
    fn config_maps_are_known_by_their_mounts_and_secrets_are_left_alone() {
        let items = json!([{"key": "2_shop", "path": "migrations/2_shop/migration.sql"}]);
        let volumes = json!([
            {"name": "sql", "configMap": {"name": "files", "defaultMode": 256}},
            {"name": "two", "projected": {"sources": [{"configMap": {"name": "a"}}, {"configMap": {"name": "b", "items": items}}]}},
            {"name": "mixed", "projected": {"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "s"}}]}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "unmounted", "configMap": {"name": "unmounted"}},
        ]);
        let mounts = json!([
            {"name": "sql", "mountPath": "/sql/"}, {"name": "two", "mountPath": "/app/prisma"},
            {"name": "two", "mountPath": "/one", "subPath": "migrations/2_shop"},
            {"name": "two", "mountPath": "/one.sql", "subPath": "migrations/2_shop/migration.sql"},
            {"name": "mixed", "mountPath": "/mixed"}, {"name": "secret", "mountPath": "/secret"},
        ]);
        let change = change(&mounts, &volumes);
        let mounted = change.mounted();
        let paths: Vec<&str> = mounted.iter().map(|maps| maps.path).collect();
        assert_eq!(paths, ["/sql/", "/app/prisma", "/one", "/one.sql"]);
        let places =
            |map: &str, key: &str| -> Vec<String> { mounted.iter().flat_map(|maps| maps.places(map, key)).collect() };
        assert_eq!(places("files", "1.sql"), ["/sql/1.sql"]);
        assert_eq!(places("a", "1.sql"), ["/app/prisma/1.sql"], "the other mounts leave it out");
        assert_eq!(
            places("b", "2_shop"),
            ["/app/prisma/migrations/2_shop/migration.sql", "/one/migration.sql", "/one.sql"]
        );
        assert_eq!(places("b", "1.sql"), [""; 0], "it is no item");
        let volume = json!({"projected": {"sources": [{"configMap": {"name": "a"}}, {"configMap": {"name": "b", "items": items}}]}});
        assert_eq!(mounted[1].volume(false), volume);
        let optional = json!({"projected": {"sources": [{"configMap": {"name": "files", "optional": true}}]}});
        assert_eq!(mounted[0].volume(true), optional);
        assert_eq!(mounted[1].names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_only_the_pod_itself_sees_is_known() {
        let volumes = json!([{"name": "sql", "configMap": {"name": "files"}}, {"name": "work", "emptyDir": {}}]);
        let alike = |mounts: Value| change(&mounts, &volumes).is_mounted_alike();
        let sql = json!({"name": "sql", "mountPath": "/sql"});
        assert!(alike(
            json!([sql, {"name": "sql", "mountPath": "/sql/more"}, {"name": "work", "mountPath": "/sqlite"}])
        ));
        assert!(!alike(json!([sql, {"name": "work", "mountPath": "/sql/work"}])));
        assert!(!alike(json!([{"name": "sql", "mountPath": "/sql", "subPathExpr": "$(VERSION)"}])));
    }

    #[test]
    fn what_nobody_can_read_is_known() {
        let none = json!([]);
        assert!(!change(&none, &none).is_readable());
        let volumes = json!([{"name": "sql", "configMap": {"name": "files"}}]);
        assert!(!change(&none, &volumes).is_readable(), "its first container has it not");
        assert!(change(&json!([{"name": "sql", "mountPath": "/sql"}]), &volumes).is_readable());
        assert!(serde_json::from_value::<Change>(json!({"sql": {"configMap": "a"}})).unwrap().is_readable());
    }
}
