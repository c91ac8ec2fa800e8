//! Cached ConfigMaps with a release's label: the switches and flags that their owners let it set.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;

use crate::{
    api::{LABEL_RELEASE, status::bounded},
    controller::FIELD_MANAGER,
};

use super::entry::{Cached, Kind, Meta, RawMeta};

/// The longest value that is kept whole, in characters. Those of switches and flags are shorter; of others, such as files, it
/// is enough to know that they are something else.
const MOST_KEPT: usize = 1_024;

/// A ConfigMap of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedConfigMap {
    meta: Meta,
    release: Arc<str>,
    /// Its keys, and their values up to 1024 characters; of a longer one the beginning.
    pub data: BTreeMap<String, String>,
    /// Who wrote to it last, if that was not the operator.
    pub changed_by: Option<Arc<str>>,
    /// The keys that the operator set last.
    pub ours: BTreeSet<String>,
}

/// The fields of a ConfigMap that are read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawConfigMap {
    data: Option<BTreeMap<String, String>>,
}

impl Cached for CachedConfigMap {
    type Raw = RawConfigMap;
    const KIND: Kind = Kind::ConfigMap;

    fn read(meta: &RawMeta, raw: RawConfigMap) -> Option<Self> {
        let data = raw.data.unwrap_or_default();
        Some(Self {
            meta: meta.slim(),
            changed_by: meta.written_by(FIELD_MANAGER).map(Into::into),
            ours: meta.keys_of(FIELD_MANAGER).map(Into::into).collect(),
            release: meta.label(LABEL_RELEASE)?.into(),
            data: data.into_iter().map(|(key, value)| (key, bounded(&value, MOST_KEPT))).collect(),
        })
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn group(&self) -> &str {
        &self.release
    }
}
