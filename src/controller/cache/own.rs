//! Cached ServiceReleases, ReleaseCommands and pinned plans. One that does not parse is kept as
//! such, so that it can be told so, and hurts no other.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::api::{LABEL_RELEASE, ReleaseCommandSpec, ReleaseCommandStatus, ServiceRelease};

use super::{
    claim::Claim,
    entry::{Cached, Kind, Meta, RawMeta},
};

/// The fields of an own object: read as they are, then parsed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawOwn {
    spec: Value,
    status: Value,
}

/// Why an object cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unparsable {
    /// What is wrong, with the field.
    pub message: String,
    /// Whether it is the status that this version does not understand, not the spec.
    pub in_status: bool,
    /// metadata.generation
    pub generation: i64,
    /// Its status as it is.
    pub status: Arc<Value>,
}

/// A ServiceRelease.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedRelease {
    meta: Meta,
    /// The object, or what is wrong with it.
    pub object: Result<Arc<ServiceRelease>, Unparsable>,
    /// What it lays claim to in its namespace.
    pub claims: Vec<Claim>,
}

fn parse<T: DeserializeOwned>(field: &str, value: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match path.as_str() {
            "." => format!("{field}: {inner}"),
            path => format!("{field}.{path}: {inner}"),
        }
    })
}

fn object_meta(meta: &RawMeta) -> ObjectMeta {
    let time = |time: crate::api::Timestamp| Time(time.inner());
    ObjectMeta {
        name: Some(meta.name.clone()),
        namespace: Some(meta.namespace.clone()),
        uid: Some(meta.uid.clone()),
        resource_version: Some(meta.resource_version.clone()),
        generation: Some(meta.generation),
        creation_timestamp: meta.creation_timestamp.map(time),
        deletion_timestamp: meta.deletion_timestamp.map(time),
        finalizers: meta.finalizers.clone(),
        ..ObjectMeta::default()
    }
}

fn parse_release(meta: &RawMeta, raw: &RawOwn) -> Result<ServiceRelease, (String, bool)> {
    let spec = parse("spec", &raw.spec).map_err(|message| (message, false))?;
    let status = match &raw.status {
        Value::Null => None,
        status => Some(parse("status", status).map_err(|message| (message, true))?),
    };
    Ok(ServiceRelease { metadata: object_meta(meta), spec, status })
}

impl Cached for CachedRelease {
    type Raw = RawOwn;
    const KIND: Kind = Kind::Release;

    fn read(meta: &RawMeta, raw: RawOwn) -> Option<Self> {
        let parsed = parse_release(meta, &raw);
        let claims = match &parsed {
            Ok(release) => {
                let route = Claim::route(&meta.name, &release.spec);
                let preview = Claim::preview(&meta.name, &release.spec);
                Claim::of(&release.spec).into_iter().chain(route).chain(preview).collect()
            }
            Err(_) => Claim::of_unparsable(&raw.spec),
        };
        let object = parsed.map(Arc::new).map_err(|(message, in_status)| Unparsable {
            message,
            in_status,
            generation: meta.generation,
            status: Arc::new(raw.status),
        });
        Some(Self { meta: meta.slim(), object, claims })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.meta.key.name
    }
}

/// A ReleaseCommand.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedCommand {
    meta: Meta,
    release: Arc<str>,
    /// What it says, or why it cannot be understood.
    pub spec: Result<ReleaseCommandSpec, String>,
    /// What became of it.
    pub status: Option<ReleaseCommandStatus>,
}

impl Cached for CachedCommand {
    type Raw = RawOwn;
    const KIND: Kind = Kind::Command;

    fn read(meta: &RawMeta, raw: RawOwn) -> Option<Self> {
        let release = raw.spec.get("release").and_then(Value::as_str);
        Some(Self {
            meta: meta.slim(),
            release: release.unwrap_or_default().into(),
            spec: parse("spec", &raw.spec),
            status: parse("status", &raw.status).ok(),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.release
    }
}

/// A ControllerRevision that pins a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedPlan {
    meta: Meta,
    release: Arc<str>,
    /// The uid of the ServiceRelease that owns it, if one does.
    pub owner: Option<Arc<str>>,
    /// The release's number.
    pub number: i64,
    /// The plan as JSON text. It is kept of the newest ones only, others are read when needed.
    pub data: Option<Arc<str>>,
}

/// The fields of a ControllerRevision that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawPlan {
    revision: i64,
    data: Value,
}

impl Cached for CachedPlan {
    type Raw = RawPlan;
    const KIND: Kind = Kind::Plan;

    fn read(meta: &RawMeta, raw: RawPlan) -> Option<Self> {
        let owner = meta.controller().filter(|owner| owner.is_release());
        Some(Self {
            meta: meta.slim(),
            release: meta.label(LABEL_RELEASE)?.into(),
            owner: owner.map(|owner| owner.uid.as_str().into()),
            number: raw.revision,
            data: Some(raw.data.to_string().into()),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.release
    }
}
