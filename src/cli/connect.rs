//! The way to the API server: kubeconfig, namespace, and every call with a timeout and an error
//! that names what was tried.

use std::{fmt::Debug, future::Future, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;

use super::{args::Connection, error::CliError};
use crate::api::ServiceRelease;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);

/// A cluster, and the namespace that is meant.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// The API server's address, for messages.
    pub server: String,
}

impl Cluster {
    /// Connects as kubectl would: --kubeconfig, $KUBECONFIG, ~/.kube/config, then the pod's account.
    ///
    /// # Errors
    /// When none of these leads to a usable configuration.
    pub async fn connect(connection: &Connection) -> Result<Self, CliError> {
        let mut config = load(connection).await?;
        // A create that is sent twice is decided twice, and a person would rather see the error.
        config.default_retry = false;
        config.connect_timeout = Some(CALL / 2);
        if connection.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&connection.as_user);
        }
        if !connection.as_groups.is_empty() {
            config.auth_info.impersonate_groups = Some(connection.as_groups.clone());
        }
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| CliError::NoKubeconfig(super::error::chain(&error)))?;
        Ok(Self { client, namespace, server })
    }

    /// The objects of a kind in the namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Does one call. `what` completes "cannot ...".
    ///
    /// # Errors
    /// When the call fails or takes too long.
    pub async fn call<T>(&self, what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, CliError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(result) => result.map_err(|error| CliError::of_client(what, &self.server, &error)),
            Err(_) => Err(CliError::Unreachable {
                what: what.to_owned(),
                server: self.server.clone(),
                why: format!("no answer in {} seconds", CALL.as_secs()),
            }),
        }
    }

    /// The release of a name.
    ///
    /// # Errors
    /// When it cannot be read; if there is none, with the names that are near.
    pub async fn release(&self, name: &str) -> Result<ServiceRelease, CliError> {
        let what = format!("read ServiceRelease {}/{name}", self.namespace);
        match self.call(&what, self.api::<ServiceRelease>().get_opt(name)).await? {
            Some(release) => Ok(release),
            None => Err(self.no_such_release(name).await),
        }
    }

    /// Why there is no release of that name here: not installed, a typo, or another namespace.
    pub async fn no_such_release(&self, name: &str) -> CliError {
        let what = format!("read ServiceRelease {}/{name}", self.namespace);
        let here = match self.call(&what, self.names(self.api())).await {
            Ok(names) => names,
            Err(error @ CliError::NotInstalled { .. }) => return error,
            Err(_) => Vec::new(),
        };
        let everywhere = self.call(&what, self.names(Api::all(self.client.clone()))).await.unwrap_or_default();
        CliError::NotFound {
            kind: "ServiceRelease",
            name: name.to_owned(),
            namespace: self.namespace.clone(),
            remedy: remedy_for_missing(name, &here, &everywhere),
        }
    }

    /// Namespace and name of each release.
    async fn names(&self, api: Api<PartialObjectMeta<ServiceRelease>>) -> kube::Result<Vec<(String, String)>> {
        let list = api.list(&ListParams::default().limit(1000)).await?;
        Ok(list.iter().map(|object| (object.namespace().unwrap_or_default(), object.name_any())).collect())
    }

    /// The objects of a kind that carry the release's label.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn of_release<K>(&self, release: &str, plural: &str) -> Result<Vec<K>, CliError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let selector = format!("{}={release}", crate::api::LABEL_RELEASE);
        let what = format!("list the {plural} of {}/{release}", self.namespace);
        let list = self.call(&what, self.api::<K>().list(&ListParams::default().labels(&selector))).await?;
        Ok(list.items)
    }
}

async fn load(connection: &Connection) -> Result<Config, CliError> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &connection.kubeconfig {
        return Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?);
    }
    match Config::from_kubeconfig(&options).await {
        Ok(config) => Ok(config),
        // In a pod without a kubeconfig the service account is meant, unless a context was named.
        Err(error) if connection.context.is_none() && std::env::var_os("KUBECONFIG").is_none() => {
            Config::incluster().map_err(|_| error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What to try when there is no such release.
fn remedy_for_missing(name: &str, here: &[(String, String)], everywhere: &[(String, String)]) -> String {
    if let Some((namespace, _)) = everywhere.iter().find(|(_, other)| other == name) {
        return format!("there is one of that name in namespace {namespace}: add -n {namespace}");
    }
    let mut near: Vec<&str> =
        here.iter().map(|(_, other)| other.as_str()).filter(|other| is_near(name, other)).collect();
    near.sort_by_key(|other| strsim::damerau_levenshtein(name, other));
    near.truncate(3);
    match (near.is_empty(), here.is_empty()) {
        (false, _) => format!("did you mean {}?", near.join(" or ")),
        (true, false) => {
            let names: Vec<&str> = here.iter().take(5).map(|(_, other)| other.as_str()).collect();
            let more = if here.len() > 5 { ", ..." } else { "" };
            format!("releases of this namespace: {}{more} (kubectl srel get)", names.join(", "))
        }
        (true, true) => "there are none in this namespace; kubectl srel get -A lists those of all".to_owned(),
    }
}

/// Whether a name was probably meant by another: few edits away, or a part of it.
#[must_use]
pub fn is_near(meant: &str, name: &str) -> bool {
    let allowed = (meant.chars().count() / 3).clamp(1, 3);
    strsim::damerau_levenshtein(meant, name) <= allowed || (meant.len() >= 3 && name.contains(meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(namespace: &str, names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| (namespace.to_owned(), (*name).to_owned())).collect()
    }

    #[test]
    fn the_nearest_names_are_offered_first() {
        let here = names("a", &["shopping-cart", "shop", "billing"]);
        assert_eq!(remedy_for_missing("shpo", &here, &here), "did you mean shop?");
        assert_eq!(remedy_for_missing("cart", &here, &here), "did you mean shopping-cart?");
        assert!(remedy_for_missing("x", &here, &here).contains("shopping-cart, shop, billing"));
    }

    #[test]
    fn a_release_of_another_namespace_is_pointed_at() {
        let everywhere = names("production", &["shop"]);
        assert_eq!(
            remedy_for_missing("shop", &[], &everywhere),
            "there is one of that name in namespace production: add -n production"
        );
        assert!(remedy_for_missing("shop", &[], &[]).contains("get -A"));
    }
}
