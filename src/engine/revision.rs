//! Revision identity: which pod template is wanted, and which revision it is (INVARIANTS R1).

use sha2::{Digest, Sha256};

use crate::api::ServiceRelease;

use super::observed::{Observed, Template};

/// The template wanted now, and the revision that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The revision's hash: that of the ReplicaSet that has the template, or that of a new one.
    pub hash: String,
    /// The fingerprint of the template.
    pub fingerprint: String,
    /// The template.
    pub template: Template,
}

/// SHA-256 of the canonical template, in hex.
#[must_use]
pub fn fingerprint(template: &Template) -> String {
    hex(&Sha256::digest(template.as_str()))
}

/// The sixteen letters of a short hash. Without digits YAML never takes it for a number (`12345e6789` is
/// one), without vowels it is no word.
const LETTERS: &[u8; 16] = b"bcdfghjklmnpqrst";

/// The short hash that names a new revision: ten letters, of the template and the collision count.
#[must_use]
pub fn short_hash(template: &Template, collision_count: i64) -> String {
    let mut text = template.as_str().to_owned();
    if collision_count > 0 {
        text.push_str(&format!("#{collision_count}"));
    }
    short(&text)
}

/// A name of ten letters for a text.
pub fn short(text: &str) -> String {
    let nibbles = Sha256::digest(text).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.take(10).map(|nibble| char::from(LETTERS[usize::from(nibble)])).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the spec asks to run; none while the adopted Deployment is missing.
///
/// An inline template is a revision by its fingerprint. A Deployment's template is the revision
/// whose ReplicaSet reads back equal to it, both with the defaults of the same API server.
#[must_use]
pub fn target(release: &ServiceRelease, observed: &Observed) -> Option<Target> {
    let collisions = release.status.as_ref().map_or(0, |status| status.collision_count);
    let (template, existing) = if let Some(inline) = &release.spec.template {
        let template = Template::new(serde_json::to_value(inline).ok()?);
        let fingerprint = fingerprint(&template);
        let existing = observed.revisions.iter().find(|revision| revision.fingerprint == fingerprint);
        (template, existing)
    } else {
        let template = observed.workload.as_ref()?.template.clone();
        let existing = observed.revisions.iter().find(|revision| revision.template == template);
        (template, existing)
    };
    let hash = existing.map_or_else(|| short_hash(&template, collisions), |revision| revision.hash.clone());
    Some(Target { fingerprint: fingerprint(&template), hash, template })
}

/// Whether the name of a new revision is taken by a ReplicaSet of this release with another template.
#[must_use]
pub fn clashes(target: &Target, observed: &Observed) -> bool {
    observed.revisions.iter().any(|revision| {
        revision.hash == target.hash
            && revision.fingerprint != target.fingerprint
            && revision.template != target.template
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn golden_hashes_do_not_change_between_versions_of_the_operator() {
        let template = Template::new(json!({
            "metadata": {"labels": {"app": "shop", "a": "b"}},
            "spec": {"containers": [{"name": "app", "image": "shop:1", "unknown": 1.5}]},
        }));
        assert_eq!(short_hash(&template, 0), "pjqqfdtbdl");
        assert_eq!(short_hash(&template, 1), "mmjktjbqnc");
    }

    #[test]
    fn key_order_and_the_operators_own_labels_do_not_count() {
        let one: serde_json::Value =
            serde_json::from_str(r#"{"spec":{"b":1,"a":2},"metadata":{"labels":{"x":"y"}}}"#).unwrap();
        let other: serde_json::Value = serde_json::from_str(
            r#"{"metadata":{"creationTimestamp":null,"labels":{"servicerelease.io/revision":"1","servicerelease.io/release":"s","x":"y"}},"spec":{"a":2,"b":1}}"#,
        )
        .unwrap();
        assert_eq!(Template::new(one), Template::new(other));
    }
}
