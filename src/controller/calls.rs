//! API calls as the operator makes them: each with a timeout, each only while this process leads,
//! each one attempt. Whether and when to try again is the queue's business.

use std::{sync::Arc, time::Duration};

use http::{Method, Request};
use kube::{Client, core::response::Status};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{api::GROUP, engine::ObjectVersion};

use super::{FIELD_MANAGER, cache::Kind, key::Key, lease::Fence, routers::CustomKind};

/// How long one call may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call did not do what it was made for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Somebody else may lead by now.
    #[error("not sent, because the lease has run out: {what}")]
    NotLeading {
        /// The call.
        what: String,
    },
    /// The object changed, or it is another one of the same name.
    #[error("the object has changed since it was looked at: {what}")]
    Conflict {
        /// The call.
        what: String,
    },
    /// There is an object of that name.
    #[error("the name is taken: {what}")]
    Exists {
        /// The call.
        what: String,
    },
    /// There is no such object.
    #[error("the object does not exist: {what}")]
    Missing {
        /// The call.
        what: String,
    },
    /// The API server will not have it.
    #[error("{what}: refused by the API server ({code}): {message}")]
    Refused {
        /// The call.
        what: String,
        /// The HTTP status.
        code: u16,
        /// What it has against it.
        message: String,
    },
    /// The API server has too much to do: it was not carried out.
    #[error("{what}: the API server has too much to do; it is tried again")]
    Busy {
        /// The call.
        what: String,
    },
    /// It may have been carried out or not.
    #[error("{what}: outcome unknown: {cause}; it is looked at again")]
    Unknown {
        /// The call.
        what: String,
        /// What happened instead of an answer.
        cause: String,
    },
}

/// An object's place in the API.
#[derive(Clone, Debug)]
pub struct Place {
    resource: Resource,
    key: Key,
    subresource: &'static str,
}

/// A kind of object.
#[derive(Clone, Debug)]
enum Resource {
    Of(Kind),
    Custom(Arc<CustomKind>),
    AnalysisTemplate { cluster_scope: bool },
}

impl Resource {
    /// Group, version, kind and plural.
    fn names(&self) -> (&str, &str, &str, &str) {
        match self {
            Self::Of(kind) => kind.resource(),
            Self::Custom(custom) => (&custom.group, &custom.version, &custom.shape.kind, &custom.plural),
            Self::AnalysisTemplate { cluster_scope: false } => {
                (GROUP, "v1alpha1", "AnalysisTemplate", "analysistemplates")
            }
            Self::AnalysisTemplate { cluster_scope: true } => {
                (GROUP, "v1alpha1", "ClusterAnalysisTemplate", "clusteranalysistemplates")
            }
        }
    }
}

impl Place {
    /// Of an object.
    #[must_use]
    pub const fn of(kind: Kind, key: Key) -> Self {
        Self { resource: Resource::Of(kind), key, subresource: "" }
    }

    /// Of an object of a kind that the platform has set up.
    #[must_use]
    pub const fn custom(kind: Arc<CustomKind>, key: Key) -> Self {
        Self { resource: Resource::Custom(kind), key, subresource: "" }
    }

    /// Of an AnalysisTemplate beside a release, or a ClusterAnalysisTemplate.
    #[must_use]
    pub fn analysis_template(beside: &Key, name: &str, cluster_scope: bool) -> Self {
        let key = if cluster_scope { Key::new("", name) } else { beside.beside(name) };
        Self { resource: Resource::AnalysisTemplate { cluster_scope }, key, subresource: "" }
    }

    /// Of its status.
    #[must_use]
    pub const fn status(kind: Kind, key: Key) -> Self {
        Self { resource: Resource::Of(kind), key, subresource: "/status" }
    }

    /// Of its scale.
    #[must_use]
    pub const fn scale(kind: Kind, key: Key) -> Self {
        Self { resource: Resource::Of(kind), key, subresource: "/scale" }
    }

    fn collection(&self) -> String {
        let (group, version, _, plural) = self.resource.names();
        let root = if group.is_empty() { "api" } else { "apis" };
        let slash = if group.is_empty() { "" } else { "/" };
        match &*self.key.namespace {
            "" => format!("/{root}{slash}{group}/{version}/{plural}"),
            namespace => format!("/{root}{slash}{group}/{version}/namespaces/{namespace}/{plural}"),
        }
    }

    fn path(&self) -> String {
        let Self { key, subresource, .. } = self;
        format!("{}/{}{subresource}", self.collection(), key.name)
    }

    /// A call in words.
    #[must_use]
    pub fn describe(&self, verb: &str) -> String {
        let (_, _, kind, _) = self.resource.names();
        format!("{verb} {kind}{} {}", self.subresource, self.key)
    }
}

/// An object as a write left it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Written {
    /// Its metadata.
    #[serde(default)]
    pub metadata: super::cache::entry::RawMeta,
}

impl Written {
    /// The object at this version.
    #[must_use]
    pub fn version(&self, name: &str) -> ObjectVersion {
        ObjectVersion {
            name: name.to_owned(),
            uid: self.metadata.uid.clone(),
            resource_version: self.metadata.resource_version.clone(),
        }
    }
}

/// The client with the rules of the module.
#[derive(Clone)]
pub struct Calls {
    client: Client,
    fence: Arc<Fence>,
}

impl Calls {
    /// Over a client, fenced by the lease.
    #[must_use]
    pub const fn new(client: Client, fence: Arc<Fence>) -> Self {
        Self { client, fence }
    }

    /// Reads an object as it is now.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get<T: DeserializeOwned>(&self, place: &Place) -> Result<T, CallError> {
        self.send(Method::GET, place.path(), None, place.describe("get")).await
    }

    /// Creates an object. `extra` is for the query, such as `&dryRun=All`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn create(&self, place: &Place, body: &Value, extra: &str) -> Result<Written, CallError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}{extra}", place.collection());
        let what = place.describe("create");
        self.send(Method::POST, path, Some(("application/json", body)), what).await
    }

    /// Creates an Event.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn create_event(&self, namespace: &str, body: &Value) -> Result<(), CallError> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let what = format!("create Event in {namespace}");
        let body = Some(("application/json", body));
        let _: Written = self.send(Method::POST, path, body, what).await?;
        Ok(())
    }

    /// Changes an object by a JSON merge patch, which names the version that it was decided on.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn patch(&self, place: &Place, body: &Value) -> Result<Written, CallError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", place.path());
        let body = Some(("application/merge-patch+json", body));
        self.send(Method::PATCH, path, body, place.describe("patch")).await
    }

    /// Changes an object by a JSON patch (RFC 6902).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn patch_fields(&self, place: &Place, body: &Value) -> Result<Written, CallError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", place.path());
        let body = Some(("application/json-patch+json", body));
        self.send(Method::PATCH, path, body, place.describe("patch")).await
    }

    /// Deletes an object, and what it owns in the background. `body` holds the preconditions.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete(&self, place: &Place, body: &Value) -> Result<(), CallError> {
        let body = Some(("application/json", body));
        let what = place.describe("delete");
        let _: Value = self.send(Method::DELETE, place.path(), body, what).await?;
        Ok(())
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Option<(&str, &Value)>,
        what: String,
    ) -> Result<T, CallError> {
        if !self.fence.holds() {
            return Err(CallError::NotLeading { what });
        }
        let mut request = Request::builder().method(method).uri(path);
        let mut bytes = Vec::new();
        if let Some((content_type, value)) = body {
            request = request.header(http::header::CONTENT_TYPE, content_type);
            bytes = value.to_string().into_bytes();
        }
        let unknown = |cause: String| CallError::Unknown { what: what.clone(), cause };
        let request = request.body(bytes).map_err(|error| unknown(error.to_string()))?;
        match tokio::time::timeout(TIMEOUT, self.client.request(request)).await {
            Err(_) => Err(unknown(format!("no answer within {TIMEOUT:?}"))),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(classify(what, *status)),
            Ok(Err(error)) => Err(unknown(error.to_string())),
        }
    }
}

fn classify(what: String, status: Status) -> CallError {
    match status.code {
        404 => CallError::Missing { what },
        409 if status.is_already_exists() => CallError::Exists { what },
        409 => CallError::Conflict { what },
        // A 504 or 500 may come from a server that went on and did it.
        429 => CallError::Busy { what },
        500.. => CallError::Unknown { what, cause: format!("{} {}", status.code, status.message) },
        code => CallError::Refused { what, code, message: status.message },
    }
}
