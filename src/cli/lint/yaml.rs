//! YAML (and JSON, which is YAML) with the place of every key and value.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

/// Where something stands in a file, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl Place {
    fn of(location: Location) -> Self {
        Self { line: location.line().max(1), column: location.column().max(1) }
    }
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// What.
    pub content: Content,
}

/// What stands there.
#[derive(Clone, Debug)]
pub enum Content {
    /// A null, a boolean, a number or a text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where.
    pub place: Place,
}

/// A file that is not YAML.
#[derive(Debug)]
pub struct Unreadable {
    /// Where.
    pub place: Place,
    /// Why.
    pub message: String,
}

/// The documents of a file.
///
/// # Errors
/// When the text is not YAML.
pub fn parse(text: &str) -> Result<Vec<Node>, Unreadable> {
    let documents = serde_saphyr::from_multiple::<Spanned<Raw>>(text).map_err(|error| Unreadable {
        place: error.location().map(Place::of).unwrap_or_default(),
        message: reason(&error.without_snippet().to_string()),
    })?;
    Ok(documents.into_iter().map(|document| node(document, text)).collect())
}

/// The parser's words without the place, which is told apart, and without advice for programmers.
fn reason(message: &str) -> String {
    let end = [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|tail| message.find(tail)).min();
    message[..end.unwrap_or(message.len())].to_owned()
}

/// A value as the parser gives it, every part with its place.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let content = match raw.value {
        Raw::Scalar(Value::String(word)) => Content::Scalar(boolean_to_kubectl(word, raw.defined, text)),
        Raw::Scalar(value) => Content::Scalar(value),
        Raw::List(items) => Content::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Content::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { place: Place::of(key.referenced), name: key.value }, node(value, text)))
                .collect(),
        ),
    };
    Node { place: Place::of(raw.referenced), content }
}

/// kubectl reads YAML 1.1, in which `yes`, `on` and the like are booleans unless they are quoted.
fn boolean_to_kubectl(word: String, at: Location, text: &str) -> Value {
    let value = match word.as_str() {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true,
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => false,
        _ => return Value::String(word),
    };
    let begin = at.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
    match begin.and_then(|begin| text.get(begin..)) {
        Some(rest) if rest.starts_with(&word) => Value::Bool(value),
        _ => Value::String(word),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        // `4.0` is a whole number to the API server.
        #[allow(clippy::cast_possible_truncation)] // only where nothing is lost
        if value.fract() == 0.0 && value.abs() < 1e15 {
            return Ok(Raw::Scalar((value as i64).into()));
        }
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

impl Node {
    /// The value as JSON.
    #[cfg(test)]
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect())
            }
        }
    }

    /// The value as the API server takes it: a null stands for the default, as if nothing was written.
    #[must_use]
    pub fn to_json_without_nulls(&self) -> Value {
        let is_null = |node: &Self| matches!(node.content, Content::Scalar(Value::Null));
        match &self.content {
            Content::Map(entries) => {
                let set = entries.iter().filter(|(_, value)| !is_null(value));
                Value::Object(set.map(|(key, value)| (key.name.clone(), value.to_json_without_nulls())).collect())
            }
            Content::List(items) => items.iter().map(Self::to_json_without_nulls).collect(),
            Content::Scalar(value) => value.clone(),
        }
    }

    /// The value of a key, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(name, _)| name.name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The items, if this is a list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Content::List(items) = &self.content { items } else { &[] }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Content::Scalar(Value::String(text)) = &self.content { Some(text) } else { None }
    }

    /// The value of a field of a field.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The whole number, if this is one.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        if let Content::Scalar(value) = &self.content { value.as_i64() } else { None }
    }

    /// Where a field such as `spec.steps[2].pause` stands: its key, or what of its path there is.
    #[must_use]
    pub fn find(&self, field: &str) -> Place {
        let mut node = self;
        let mut place = node.first_key();
        for part in field.split('.') {
            let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
            let Content::Map(entries) = &node.content else { return place };
            let Some((key, value)) = entries.iter().find(|(key, _)| key.name == name) else { return place };
            (place, node) = (key.place, value);
            for index in indexes.split('[').map(|index| index.trim_end_matches(']')).filter(|index| !index.is_empty()) {
                let Some(item) = index.parse().ok().and_then(|index: usize| node.items().get(index)) else {
                    return place;
                };
                (place, node) = (item.place, item);
            }
        }
        place
    }

    fn first_key(&self) -> Place {
        match &self.content {
            Content::Map(entries) => entries.first().map_or(self.place, |(key, _)| key.place),
            _ => self.place,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
# a comment
kind: A
spec:
  steps:
  - setWeight: 10
  - {pause: {duration: 5m}}
  on: yes
  quoted: \"yes\"
  number: 1.5
  whole: 4.0
---
kind: B
---
# nothing
";

    #[test]
    fn places_are_those_of_an_editor() {
        let documents = parse(TEXT).unwrap();
        assert_eq!(documents.len(), 2);
        let at = |field: &str| documents[0].find(field);
        assert_eq!(at("kind"), Place { line: 2, column: 1 });
        assert_eq!(at("spec.steps[0].setWeight"), Place { line: 5, column: 5 });
        assert_eq!(at("spec.steps[1].pause.duration"), Place { line: 6, column: 14 });
        assert_eq!(at("spec.steps[1]"), Place { line: 6, column: 5 });
        assert_eq!(at("spec.missing.deeper"), Place { line: 3, column: 1 });
        assert_eq!(documents[1].find("kind"), Place { line: 12, column: 1 });
    }

    #[test]
    fn values_are_those_that_kubectl_reads() {
        let spec = parse(TEXT).unwrap()[0].get("spec").unwrap().to_json();
        assert_eq!(spec["on"], json!(true));
        assert_eq!(spec["quoted"], json!("yes"));
        assert_eq!(spec["number"], json!(1.5));
        assert_eq!(spec["whole"], json!(4));
        assert_eq!(spec["steps"], json!([{"setWeight": 10}, {"pause": {"duration": "5m"}}]));
    }

    #[test]
    fn json_is_read_too() {
        let documents = parse("{\"kind\": \"A\",\n \"spec\": {\"replicas\": 1}}").unwrap();
        assert_eq!(documents[0].find("spec.replicas"), Place { line: 2, column: 11 });
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_place() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.place.line >= 2, "{error:?}");
        let error = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(error.place.line, 2);
        assert_eq!(error.message, "duplicate mapping key: a");
    }
}
