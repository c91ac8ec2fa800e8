//! How an API object becomes a cached one: read field by field into a slim value, so that neither a
//! page of a LIST nor the cache ever holds what nobody reads (managedFields above all).

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    api::{RouteProtocol, Timestamp},
    controller::key::Key,
    engine::ObjectVersion,
};

/// Which watch an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// ServiceRelease
    Release,
    /// ReleaseCommand
    Command,
    /// ControllerRevision
    Plan,
    /// ReplicaSet
    ReplicaSet,
    /// Pod
    Pod,
    /// Deployment
    Deployment,
    /// Service
    Service,
    /// EndpointSlice
    EndpointSlice,
    /// HorizontalPodAutoscaler
    Autoscaler,
    /// Job
    Job,
    /// ConfigMap
    ConfigMap,
    /// HTTPRoute
    Route,
    /// GRPCRoute
    GrpcRoute,
    /// Gateway
    Gateway,
    /// GatewayClass
    GatewayClass,
}

impl Kind {
    /// Those that every cluster has, or has got with the operator.
    pub const ALWAYS: [Self; 11] = [
        Self::Release,
        Self::Command,
        Self::Plan,
        Self::ReplicaSet,
        Self::Pod,
        Self::Deployment,
        Self::Service,
        Self::EndpointSlice,
        Self::Autoscaler,
        Self::Job,
        Self::ConfigMap,
    ];

    /// Group, version, kind and plural, as the API has them.
    #[must_use]
    pub const fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Release => (crate::api::GROUP, "v1alpha1", "ServiceRelease", "servicereleases"),
            Self::Command => (crate::api::GROUP, "v1alpha1", "ReleaseCommand", "releasecommands"),
            Self::Plan => ("apps", "v1", "ControllerRevision", "controllerrevisions"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::Autoscaler => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Route => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::GrpcRoute => ("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
            Self::Gateway => ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
            Self::GatewayClass => ("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses"),
        }
    }

    /// That of a release's route.
    #[must_use]
    pub const fn of_route(protocol: RouteProtocol) -> Self {
        match protocol {
            RouteProtocol::Http => Self::Route,
            RouteProtocol::Grpc => Self::GrpcRoute,
        }
    }

    /// Whether it is watched only once a release uses a route.
    #[must_use]
    pub const fn is_of_gateway_api(self) -> bool {
        matches!(self, Self::Route | Self::GrpcRoute | Self::Gateway | Self::GatewayClass)
    }

    /// Whether only objects with the label servicerelease.io/release are watched.
    #[must_use]
    pub const fn labelled(self) -> bool {
        matches!(self, Self::Plan | Self::ReplicaSet | Self::Pod | Self::Job | Self::ConfigMap)
    }
}

/// What every cached object has. Two are equal also when only their resourceVersion differs, since
/// that alone gives no release a reason to look again.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Namespace and name.
    pub key: Key,
    /// metadata.uid
    pub uid: Arc<str>,
    /// metadata.resourceVersion
    pub version: Arc<str>,
    /// metadata.creationTimestamp
    pub created: Timestamp,
    /// Whether metadata.deletionTimestamp is set.
    pub deleting: bool,
}

impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid && self.deleting == other.deleting
    }
}

impl Meta {
    /// The object at this version, for preconditions.
    #[must_use]
    pub fn object(&self) -> ObjectVersion {
        ObjectVersion {
            name: self.key.name.to_string(),
            uid: self.uid.to_string(),
            resource_version: self.version.to_string(),
        }
    }
}

/// A kind of object in the cache.
pub trait Cached: PartialEq + Clone + Debug + Send + Sync + 'static {
    /// The fields of the API object that are read.
    type Raw: DeserializeOwned;
    /// Which kind it is.
    const KIND: Kind;
    /// The cached value; none for an object that is none of ours.
    fn read(meta: &RawMeta, raw: Self::Raw) -> Option<Self>;
    /// Its metadata.
    fn meta(&self) -> &Meta;
    /// The name, in its namespace, of what it belongs to: objects are looked up by it.
    fn group(&self) -> &str;
}

/// An API object as a watch delivers it: read into its cached value on the spot.
#[derive(Clone, Debug)]
pub struct Slim<T> {
    metadata: ObjectMeta,
    /// Its namespace and name.
    pub key: Key,
    /// metadata.resourceVersion
    pub version: Arc<str>,
    /// The cached value; none for an object that is none of ours.
    pub entry: Option<T>,
}

impl<'de, T: Cached> Deserialize<'de> for Slim<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object<R> {
            #[serde(default)]
            metadata: RawMeta,
            #[serde(flatten)]
            rest: R,
        }
        let Object { metadata, rest } = Object::<T::Raw>::deserialize(deserializer)?;
        Ok(Self {
            key: metadata.key(),
            version: metadata.resource_version.as_str().into(),
            entry: T::read(&metadata, rest),
            metadata: ObjectMeta { resource_version: Some(metadata.resource_version), ..ObjectMeta::default() },
        })
    }
}

impl<T: Cached> Resource for Slim<T> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.resource().2.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::KIND.resource().0.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        T::KIND.resource().1.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::KIND.resource().3.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The metadata that is read of any object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawMeta {
    /// metadata.name
    pub name: String,
    /// metadata.namespace
    pub namespace: String,
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion
    pub resource_version: String,
    /// metadata.generation
    pub generation: i64,
    /// metadata.creationTimestamp
    pub creation_timestamp: Option<Timestamp>,
    /// metadata.deletionTimestamp
    pub deletion_timestamp: Option<Timestamp>,
    /// metadata.labels
    pub labels: Option<BTreeMap<String, String>>,
    /// metadata.annotations
    pub annotations: Option<BTreeMap<String, String>>,
    /// metadata.finalizers
    pub finalizers: Option<Vec<String>>,
    /// metadata.ownerReferences
    pub owner_references: Option<Vec<RawOwner>>,
    /// metadata.managedFields, as far as they say who set a Service's selector or a route's rules.
    pub managed_fields: Option<Vec<RawManager>>,
}

/// An owner.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawOwner {
    /// apiVersion
    pub api_version: String,
    /// kind
    pub kind: String,
    /// uid
    pub uid: String,
    /// controller
    pub controller: Option<bool>,
}

/// A field manager.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawManager {
    /// manager
    pub manager: String,
    /// Apply or Update
    pub operation: String,
    /// fieldsV1
    pub fields_v1: Option<RawFields>,
    /// time
    pub time: Option<Timestamp>,
}

/// The fields that a manager owns, of which only those of a Service's selector, a route's spec and a ConfigMap's keys are
/// read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawFields {
    #[serde(rename = "f:spec")]
    spec: Option<RawSpecFields>,
    #[serde(rename = "f:data")]
    data: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawSpecFields {
    #[serde(rename = "f:selector")]
    selector: Option<serde::de::IgnoredAny>,
    #[serde(rename = "f:rules")]
    rules: Option<serde::de::IgnoredAny>,
    #[serde(rename = "f:parentRefs")]
    parent_refs: Option<serde::de::IgnoredAny>,
    #[serde(rename = "f:hostnames")]
    hostnames: Option<serde::de::IgnoredAny>,
    #[serde(rename = "f:useDefaultGateways")]
    use_default_gateways: Option<serde::de::IgnoredAny>,
}

impl RawManager {
    fn spec(&self) -> Option<&RawSpecFields> {
        self.fields_v1.as_ref()?.spec.as_ref()
    }

    /// Whether it said what it wants by server-side apply.
    #[must_use]
    pub fn applies(&self) -> bool {
        self.operation == "Apply"
    }
}

impl RawMeta {
    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    /// What is kept of it.
    #[must_use]
    pub fn slim(&self) -> Meta {
        Meta {
            key: self.key(),
            uid: self.uid.as_str().into(),
            version: self.resource_version.as_str().into(),
            created: self.creation_timestamp.unwrap_or_else(|| Timestamp::from_millis(0)),
            deleting: self.deletion_timestamp.is_some(),
        }
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// An annotation's value.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The owner that controls it.
    #[must_use]
    pub fn controller(&self) -> Option<&RawOwner> {
        self.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }

    /// The first field manager that applied spec.selector (server-side), other than `own`.
    #[must_use]
    pub fn selector_applied_by(&self, own: &str) -> Option<&str> {
        let applied = |manager: &&RawManager| {
            let selector = manager.spec().is_some_and(|spec| spec.selector.is_some());
            manager.applies() && manager.manager != own && selector
        };
        let mut managers = self.managed_fields.iter().flatten();
        Some(managers.find(applied)?.manager.as_str())
    }

    /// Who set spec.selector last, which is one field to its managers (an atomic map); none if that was `own`.
    #[must_use]
    pub fn selector_set_by(&self, own: &str) -> Option<&str> {
        Some(self.set_by(own, |spec| spec.selector.is_some())?.manager.as_str())
    }

    /// Who set spec.rules last; none if that was `own`, also where somebody else set the same since.
    #[must_use]
    pub fn rules_set_by(&self, own: &str) -> Option<&RawManager> {
        self.set_by(own, |spec| spec.rules.is_some())
    }

    /// The same of any field of a route's spec.
    #[must_use]
    pub fn route_set_by(&self, own: &str) -> Option<&RawManager> {
        self.rules_set_by(own)
            .or_else(|| self.set_by(own, |spec| spec.parent_refs.is_some()))
            .or_else(|| self.set_by(own, |spec| spec.hostnames.is_some()))
            .or_else(|| self.set_by(own, |spec| spec.use_default_gateways.is_some()))
    }

    /// Who wrote to the object last; none if that was `own`.
    #[must_use]
    pub fn written_by(&self, own: &str) -> Option<&str> {
        let last = self.managed_fields.iter().flatten().max_by_key(|manager| manager.time)?;
        Some(last.manager.as_str()).filter(|manager| *manager != own && !manager.is_empty())
    }

    /// The keys of a ConfigMap that a field manager owns: it set them, and nobody set them to anything else since.
    pub fn keys_of(&self, own: &str) -> impl Iterator<Item = &str> {
        let owned = self.managed_fields.iter().flatten().filter(move |manager| manager.manager == own);
        let keys = owned.filter_map(|manager| manager.fields_v1.as_ref()?.data.as_ref()).flat_map(BTreeMap::keys);
        keys.filter_map(|key| key.strip_prefix("f:"))
    }

    fn set_by(&self, own: &str, field: impl Fn(&RawSpecFields) -> bool) -> Option<&RawManager> {
        let sets = |manager: &&RawManager| manager.spec().is_some_and(&field);
        let managers: Vec<&RawManager> = self.managed_fields.iter().flatten().filter(sets).collect();
        let ours = managers.iter().any(|manager| manager.manager == own);
        managers.into_iter().filter(|_| !ours).max_by_key(|manager| manager.time)
    }
}

impl RawOwner {
    /// Whether it is a ServiceRelease.
    #[must_use]
    pub fn is_release(&self) -> bool {
        self.kind == "ServiceRelease"
            && self.api_version.strip_prefix(crate::api::GROUP).is_some_and(|rest| rest.starts_with('/'))
    }
}
