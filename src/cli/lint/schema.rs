//! Checks a document against an OpenAPI schema as the API server would, and names fields that are
//! not in it. Of JSON Schema it knows what CRDs and Kubernetes' own types use.

use std::sync::LazyLock;

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::CustomResourceExt as _;
use regex::Regex;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{
    Finding, Severity,
    yaml::{Content, Node, Place},
};
use crate::{
    api::{AnalysisTemplate, ReleaseCommand, ServiceRelease},
    cli::connect::is_near,
};

/// A schema with the definitions that it refers to.
pub struct Schema {
    root: Value,
    /// Whether it is one of Kubernetes' own, so that a newer cluster may know more fields.
    of_kubernetes: bool,
}

/// The schema of a ServiceRelease.
pub static SERVICE_RELEASE: LazyLock<Schema> = LazyLock::new(|| of_crd(serde_json::to_value(ServiceRelease::crd())));
/// The schema of a ReleaseCommand.
pub static RELEASE_COMMAND: LazyLock<Schema> = LazyLock::new(|| of_crd(serde_json::to_value(ReleaseCommand::crd())));
/// The schema of an AnalysisTemplate, and of a ClusterAnalysisTemplate.
pub static ANALYSIS_TEMPLATE: LazyLock<Schema> =
    LazyLock::new(|| of_crd(serde_json::to_value(AnalysisTemplate::crd())));
/// The schema of metadata.
pub static METADATA: LazyLock<Schema> = LazyLock::new(of_type::<ObjectMeta>);
/// The schema of a pod spec; the CRD leaves it to the API server.
pub static POD_SPEC: LazyLock<Schema> = LazyLock::new(of_type::<PodSpec>);

fn of_crd(crd: serde_json::Result<Value>) -> Schema {
    let crd = crd.unwrap_or_default();
    let root = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default();
    Schema { root, of_kubernetes: false }
}

fn of_type<T: schemars::JsonSchema>() -> Schema {
    let schema = SchemaSettings::openapi3().into_generator().into_root_schema_for::<T>();
    Schema { root: schema.into(), of_kubernetes: true }
}

/// Checks a node, a value at `field`, against a schema.
pub fn check(schema: &Schema, node: &Node, field: &str, found: &mut Vec<Finding>) {
    let mut checker = Checker { schema, found };
    checker.value(&schema.root, node, node.place, field);
}

/// Checks a field of a document against the part of a schema that is about it.
pub fn check_property(schema: &Schema, name: &str, node: &Node, place: Place, found: &mut Vec<Finding>) {
    if let Some(property) = schema.root.get("properties").and_then(|properties| properties.get(name)) {
        Checker { schema, found }.value(property, node, place, name);
    }
}

struct Checker<'a> {
    schema: &'a Schema,
    found: &'a mut Vec<Finding>,
}

impl<'a> Checker<'a> {
    fn error(&mut self, place: Place, field: &str, rule: &'static str, message: String) {
        self.found.push(Finding { place, field: field.to_owned(), severity: Severity::Error, rule, message });
    }

    /// Follows a reference to its definition.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let all_of = schema.pointer("/allOf/0/$ref").and_then(Value::as_str);
        let target = reference.or(all_of).and_then(|path| path.strip_prefix('#'));
        target.and_then(|path| self.schema.root.pointer(path)).unwrap_or(schema)
    }

    /// `place` is where the field is named; scalars are pointed at there.
    fn value(&mut self, schema: &'a Value, node: &Node, place: Place, field: &str) {
        let schema = self.resolve(schema);
        match &node.content {
            Content::Scalar(Value::Null) => {
                // Without `nullable` the API server drops a null, or puts the default in its place.
            }
            Content::Scalar(value) => self.scalar(schema, value, place, field),
            Content::List(items) => self.list(schema, items, place, field),
            Content::Map(entries) => {
                if !allows(schema, "object") {
                    return self.wrong_type(schema, "a map", place, field);
                }
                self.map(schema, node, entries, place, field);
            }
        }
    }

    fn wrong_type(&mut self, schema: &Value, is: &str, place: Place, field: &str) {
        let wanted = match schema.get("type").and_then(Value::as_str) {
            _ if is_int_or_string(schema) => "a number or a text",
            Some("object") => "a map",
            Some("array") => "a list",
            Some("string") => "a text",
            Some("integer") => "a whole number",
            Some("number") => "a number",
            Some("boolean") => "true or false",
            _ => "another type",
        };
        let hint = if wanted == "a text" && !is.starts_with("a map") && !is.starts_with("a list") {
            "; write it in quotes"
        } else {
            ""
        };
        self.error(place, field, "type", format!("must be {wanted}, but is {is}{hint}"));
    }

    fn scalar(&mut self, schema: &Value, value: &Value, place: Place, field: &str) {
        let fits = match value {
            Value::String(_) => allows(schema, "string") || is_int_or_string(schema),
            Value::Bool(_) => allows(schema, "boolean"),
            Value::Number(number) => {
                let whole = number.is_i64() || number.is_u64();
                allows(schema, "number")
                    || (whole && allows(schema, "integer"))
                    || (is_int_or_string(schema) && (whole || self.schema.of_kubernetes))
            }
            _ => true,
        };
        if !fits {
            return self.wrong_type(schema, &describe(value), place, field);
        }
        self.choices(schema, value, place, field);
        match value {
            Value::String(text) => self.text(schema, text, place, field),
            Value::Number(number) => self.number(schema, number.as_f64().unwrap_or_default(), place, field),
            _ => {}
        }
    }

    fn choices(&mut self, schema: &Value, value: &Value, place: Place, field: &str) {
        let Some(choices) = schema.get("enum").and_then(Value::as_array) else { return };
        if choices.contains(value) {
            return;
        }
        let words: Vec<String> = choices.iter().map(plain).collect();
        let near = nearest(&plain(value), words.iter().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        self.error(place, field, "enum", format!("{} is not one of {}{hint}", describe(value), words.join(", ")));
    }

    fn text(&mut self, schema: &Value, text: &str, place: Place, field: &str) {
        let length = text.chars().count() as u64;
        if limit(schema, "maxLength").is_some_and(|max| length > max) {
            let max = limit(schema, "maxLength").unwrap_or_default();
            self.error(place, field, "length", format!("has {length} characters, at most {max} are allowed"));
        }
        if limit(schema, "minLength").is_some_and(|min| length < min) {
            self.error(place, field, "length", "must not be empty".to_owned());
        } else if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            // A pattern that this engine cannot read is the API server's to judge.
            let fits = Regex::new(pattern).map_or(true, |pattern| pattern.is_match(text));
            if !fits {
                self.error(place, field, "pattern", format!("{text:?} {}", explain(pattern)));
            }
        }
    }

    fn number(&mut self, schema: &Value, number: f64, place: Place, field: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        match (bound("minimum"), bound("maximum")) {
            (Some(min), Some(max)) if number < min || number > max => {
                self.error(place, field, "range", format!("{number} is not between {min} and {max}"));
            }
            (Some(min), None) if number < min => {
                self.error(place, field, "range", format!("{number} is less than {min}"));
            }
            (None, Some(max)) if number > max => {
                self.error(place, field, "range", format!("{number} is more than {max}"));
            }
            _ => {}
        }
    }

    fn list(&mut self, schema: &'a Value, items: &[Node], place: Place, field: &str) {
        if !allows(schema, "array") {
            return self.wrong_type(schema, "a list", place, field);
        }
        if let Some(min) = limit(schema, "minItems").filter(|min| (items.len() as u64) < *min) {
            self.error(place, field, "length", format!("has {} items, at least {min} are needed", items.len()));
        }
        if let Some(max) = limit(schema, "maxItems").filter(|max| items.len() as u64 > *max) {
            self.error(place, field, "length", format!("has {} items, at most {max} are allowed", items.len()));
        }
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                if matches!(item.content, Content::Scalar(Value::Null)) {
                    self.wrong_type(self.resolve(schema), "empty", item.place, &format!("{field}[{index}]"));
                    continue;
                }
                self.value(schema, item, item.place, &format!("{field}[{index}]"));
            }
        }
    }

    fn map(&mut self, schema: &'a Value, node: &Node, entries: &[(super::yaml::Key, Node)], place: Place, field: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties").filter(|additional| additional.is_object());
        let count = entries.len() as u64;
        if let Some(max) = limit(schema, "maxProperties").filter(|max| count > *max) {
            self.error(place, field, "length", format!("has {count} entries, at most {max} are allowed"));
        }
        if limit(schema, "minProperties").is_some_and(|min| count < min) {
            self.error(place, field, "length", "must have at least one entry".to_owned());
        }
        for (key, value) in entries {
            let path = if field.is_empty() { key.name.clone() } else { format!("{field}.{}", key.name) };
            match (properties.and_then(|properties| properties.get(&key.name)), additional) {
                (Some(property), _) => self.value(property, value, key.place, &path),
                (None, Some(additional)) => self.value(additional, value, key.place, &path),
                (None, None) => self.unknown(schema, properties, key, &path),
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if node.get(name).is_none_or(|value| matches!(value.content, Content::Scalar(Value::Null))) {
                self.error(place, field, "required", format!("{name} is missing"));
            }
        }
    }

    /// A field that the schema does not have. In a pod spec a newer cluster may know it.
    fn unknown(&mut self, schema: &Value, properties: Option<&Map<String, Value>>, key: &super::yaml::Key, path: &str) {
        let preserved = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        let Some(properties) = properties.filter(|_| !preserved) else {
            // Free-form, or an object without any field, such as `approval: {}`.
            if !preserved && allows(schema, "object") && schema.get("type").is_some() && !self.schema.of_kubernetes {
                self.error(
                    key.place,
                    path,
                    "unknown-field",
                    "there is no such field; this one is empty: {}".to_owned(),
                );
            }
            return;
        };
        let near = nearest(&key.name, properties.keys().map(String::as_str));
        let known = || properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match (near, self.schema.of_kubernetes) {
            (Some(near), _) => {
                self.error(key.place, path, "unknown-field", format!("there is no such field; did you mean {near}?"));
            }
            (None, false) => {
                let message = format!("there is no such field in this version; there are {}", known());
                self.error(key.place, path, "unknown-field", message);
            }
            (None, true) => self.found.push(Finding {
                place: key.place,
                field: path.to_owned(),
                severity: Severity::Warning,
                rule: "unknown-field",
                message: "Kubernetes 1.35 has no such field; the API server drops it, unless it is newer".to_owned(),
            }),
        }
    }
}

fn limit(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name).and_then(Value::as_u64)
}

fn is_int_or_string(schema: &Value) -> bool {
    schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
}

/// Whether a schema takes values of a type. One without a type takes any.
fn allows(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(some)) => some.iter().any(|one| one == kind),
        _ => !is_int_or_string(schema),
    }
}

/// The nearest of some names, if one is near.
fn nearest<'a>(meant: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = meant.to_lowercase();
    let near = names.filter(|name| is_near(meant, name) || lower == name.to_lowercase());
    near.min_by_key(|name| strsim::damerau_levenshtein(&lower, &name.to_lowercase()))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {text:?}"),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(number) => format!("the number {number}"),
        other => other.to_string(),
    }
}

/// What a pattern wants, in words where it is one that occurs here.
fn explain(pattern: &str) -> String {
    match pattern {
        crate::api::scalar::DURATION_PATTERN => {
            "is not a duration: write hours, minutes, seconds, milliseconds such as 1h30m, 30s or 500ms".to_owned()
        }
        "^[a-z]([-a-z0-9]*[a-z0-9])?$" => {
            "is not the name of a Service: lower-case letters, digits and -, first a letter, last no -".to_owned()
        }
        other => format!("does not match {other}"),
    }
}
