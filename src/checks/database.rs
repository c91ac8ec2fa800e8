//! What is wrong with spec.database that the CRD's schema cannot say: pods of the user's above all.

use serde_json::Value;

use crate::api::{Change, ServiceReleaseSpec};

use super::Unsound;

/// All that is wrong with what is run on a database.
pub(super) fn unsound(spec: &ServiceReleaseSpec) -> Vec<Unsound> {
    let Some(database) = &spec.database else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |field: String, message: String| {
        found.push(Unsound { field: format!("spec.database.{field}"), message });
    };
    let migration = database.migration.as_ref().map(|migration| ("migration", &migration.change));
    let seed = database.seed.as_ref().map(|seed| ("seed", &seed.change));
    let down = database.migration_down.as_ref().map(|down| ("migrationDown", &down.change));
    for (name, change) in [migration, seed, down].into_iter().flatten() {
        for (field, message) in of_change(spec, change) {
            add(format!("{name}.{field}"), message);
        }
    }
    let job = database.backup.as_ref().and_then(|backup| backup.job.as_ref());
    if job.is_some_and(|job| first_container(&job.template).is_none()) {
        add("backup.job.template.spec.containers".into(), NOTHING_TO_RUN.into());
    }
    found
}

const NOTHING_TO_RUN: &str = "it is missing: it names what is to be run";

fn of_change(spec: &ServiceReleaseSpec, change: &Change) -> Vec<(String, String)> {
    let Some(template) = &change.template else {
        let nothing = change.sql.is_none();
        return nothing
            .then(|| ("sql".into(), "exactly one of sql and template is needed".into()))
            .into_iter()
            .collect();
    };
    let mut found = Vec::new();
    if change.sql.is_some() {
        found.push(("template".into(), "exactly one of sql and template is needed".into()));
    }
    if let Err((field, message)) = wrappable(template) {
        found.push((format!("template{field}"), message));
    } else if change.image_from.is_none() && template.pointer("/spec/containers/0/image").is_none() {
        let message = "it is missing: name one, or take the candidate's by imageFrom";
        found.push(("template.spec.containers[0].image".into(), message.into()));
    }
    // Of an adopted Deployment the template is not known here.
    if let (Some(from), Some(pods)) = (&change.image_from, &spec.template) {
        let containers = pods.spec.get("containers").and_then(Value::as_array).into_iter().flatten();
        let names: Vec<&str> = containers.filter_map(|container| container["name"].as_str()).collect();
        if !names.contains(&from.container.as_str()) {
            let message = format!("spec.template has no container {}: it has {}", from.container, names.join(", "));
            found.push(("imageFrom.container".into(), message));
        }
    }
    found
}

/// Whether the first container of a pod template has a command that can be wrapped.
///
/// # Errors
/// The field, from the template on, and what is wrong with it.
pub fn wrappable(template: &Value) -> Result<(), (&'static str, String)> {
    let container = first_container(template).ok_or((".spec.containers", NOTHING_TO_RUN.to_owned()))?;
    let texts = |field: &str| match &container[field] {
        Value::Null => Ok(0),
        Value::Array(words) if words.iter().all(Value::is_string) => Ok(words.len()),
        _ => Err("it is no list of texts".to_owned()),
    };
    let command = texts("command").map_err(|message| (".spec.containers[0].command", message))?;
    texts("args").map_err(|message| (".spec.containers[0].args", message))?;
    if command == 0 {
        let message = "it is missing: it is what is wrapped, and what the image would run without it is not known here";
        return Err((".spec.containers[0].command", message.to_owned()));
    }
    Ok(())
}

fn first_container(template: &Value) -> Option<&Value> {
    template.pointer("/spec/containers/0").filter(|container| container.is_object())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(database: Value) -> Vec<String> {
        let mut spec = json!({
            "template": {"spec": {"containers": [{"name": "app", "image": "shop:1"}, {"name": "proxy", "image": "p"}]}},
        });
        spec["database"] = database;
        spec["database"]["urlFrom"] = json!({"secretKeyRef": {"name": "db", "key": "URL"}});
        let spec: ServiceReleaseSpec = serde_json::from_value(spec).unwrap();
        super::super::unsound(&spec).into_iter().map(|it| format!("{}: {}", it.field, it.message)).collect()
    }

    fn tool(container: Value) -> Value {
        json!({"template": {"spec": {"containers": [container]}}})
    }

    #[test]
    fn a_template_that_cannot_be_wrapped_is_found_with_its_field() {
        let first = |database: Value| found(database).into_iter().next().unwrap_or_default();
        for part in ["migration", "seed", "migrationDown"] {
            let told = first(json!({part: tool(json!({"name": "m", "image": "m"}))}));
            let field = format!("spec.database.{part}.template.spec.containers[0].command: it is missing");
            assert!(told.starts_with(&field), "{told}");
            let told = first(json!({part: {"template": {"spec": {"containers": []}}}}));
            assert!(told.starts_with(&format!("spec.database.{part}.template.spec.containers: ")), "{told}");
            let told = first(json!({part: tool(json!({"image": "m", "command": ["m"], "args": "up"}))}));
            assert!(told.contains("containers[0].args: it is no list of texts"), "{told}");
            let told = first(json!({part: tool(json!({"command": ["m"]}))}));
            assert!(told.contains("containers[0].image: it is missing"), "{told}");
        }
        let told = first(json!({"backup": {"job": {"template": {}}}}));
        assert!(told.starts_with("spec.database.backup.job.template.spec.containers: "), "{told}");
        assert!(first(json!({"seed": {}})).starts_with("spec.database.seed.sql: exactly one of"));
        let sound = json!({"migration": tool(json!({"image": "m", "command": ["m"], "args": ["$(DATABASE_URL)"]}))});
        assert_eq!(found(sound), Vec::<String>::new());
    }

    #[test]
    fn an_image_is_taken_of_a_container_that_there_is() {
        let migration = |container: &str| {
            let mut migration = tool(json!({"name": "m", "command": ["m"]}));
            migration["imageFrom"] = json!({"container": container});
            found(json!({"migration": migration}))
        };
        assert_eq!(migration("app"), Vec::<String>::new());
        let told = "spec.database.migration.imageFrom.container: spec.template has no container ap: it has app, proxy";
        assert_eq!(migration("ap"), [told]);
    }
}
