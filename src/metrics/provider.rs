//! The providers that the platform has set up (`--providers`, chart value `providers`). A tenant chooses a
//! name, never an address or a credential.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::engine::{self, KnownProviders, Measure, Reply};

use super::{Provider, connection::Connection, prometheus::Prometheus, web::Web};

/// How long a provider may take for an answer, unless its configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For a Prometheus that scrapes what answers at once, and is asked itself.
const SETTLING: u32 = 1;

/// A kind of provider.
struct Kind {
    /// The field of a metric that asks it, and the one in the operator's configuration that has its address.
    field: &'static str,
    /// What asks over a connection, or what is wrong with the address.
    open: fn(Connection) -> Result<Arc<dyn Provider>, String>,
}

/// The kinds that there are.
const KINDS: &[Kind] = &[Kind { field: "prometheus", open: Prometheus::open }, Kind { field: "web", open: Web::open }];

/// A provider, and the field of metrics that ask it.
#[derive(Clone, Debug)]
struct Known {
    field: &'static str,
    provider: Arc<dyn Provider>,
}

/// The providers by the names under which metrics ask for them.
#[derive(Clone, Debug, Default)]
pub struct Providers(BTreeMap<String, Known>);

/// How a provider is reached, as it is written beside its address.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    /// A file whose text is sent as a bearer token. Read at each question, so that it may be rotated.
    #[serde(default)]
    bearer_token_file: Option<PathBuf>,
    /// A file with the certificates to trust beside the system's.
    #[serde(default)]
    ca_file: Option<PathBuf>,
    /// A file with the certificate to show, and those that lead to its root.
    #[serde(default)]
    cert_file: Option<PathBuf>,
    /// The file with its key.
    #[serde(default)]
    key_file: Option<PathBuf>,
    /// Headers to send, such as X-Scope-OrgID.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Headers whose values are the texts of files, such as API keys. Read at each question.
    #[serde(default)]
    header_files: BTreeMap<String, PathBuf>,
    /// Seconds that an answer may take.
    #[serde(default)]
    timeout_seconds: Option<u64>,
    /// Seconds after which a sample is there for whoever asks. Counters are counted up to then.
    #[serde(default)]
    settle_seconds: Option<u32>,
    /// Whether HTTP_PROXY and its like count: for people, not for the operator.
    #[serde(skip)]
    by_proxy: bool,
}

impl FromStr for Providers {
    type Err = String;

    /// Reads a JSON object of providers by name. Empty text is none.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        crate::controller::use_ring();
        let all: BTreeMap<String, Map<String, Value>> =
            serde_json::from_str(text).map_err(|error| format!("providers: {error}; see the chart's values.yaml"))?;
        let build = |(name, fields): (String, Map<String, Value>)| match build(fields) {
            Ok(known) => Ok((name, known)),
            Err(("", why)) => Err(format!("providers.{name}: {why}")),
            Err((field, why)) => Err(format!("providers.{name}.{field}: {why}")),
        };
        let built = all.into_iter().map(build);
        Ok(Self(built.collect::<Result<_, String>>()?))
    }
}

/// A field, such as `prometheus`, or none, and what is wrong with it.
type Wrong = (&'static str, String);

/// What the fields of a provider stand for.
fn build(mut fields: Map<String, Value>) -> Result<Known, Wrong> {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| fields.contains_key(kind.field)).collect();
    let [Kind { field, open }] = kinds.as_slice() else {
        let all = KINDS.iter().map(|kind| kind.field).collect::<Vec<_>>().join(" and ");
        return Err(("", format!("exactly one of {all} is needed, an address")));
    };
    let Some(Value::String(address)) = fields.remove(*field) else {
        return Err((field, "it is the address, as text".into()));
    };
    let written: Written = serde_json::from_value(Value::Object(fields))
        .map_err(|error| ("", format!("{error}; see the chart's values.yaml")))?;
    let connection = written.connect(field, &address)?;
    Ok(Known { field, provider: open(connection).map_err(|why| (*field, why))? })
}

impl Written {
    /// A client for an address; asks nothing yet.
    fn connect(self, field: &'static str, text: &str) -> Result<Connection, Wrong> {
        let address = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let address = address.ok_or_else(|| (field, format!("{text:?} is no http or https address")))?;
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(self.timeout_seconds.map_or(TIMEOUT, Duration::from_secs))
            .user_agent(concat!("service-release-operator/", env!("CARGO_PKG_VERSION")));
        if !self.by_proxy {
            client = client.no_proxy();
        }
        if address.scheme() == "http" {
            // Without TLS the system's certificates are not looked for: an image may have none.
            client = client.tls_certs_only([]);
        }
        if let Some(file) = self.ca_file {
            let told = |error: &dyn std::fmt::Display| ("caFile", format!("{}: {error}", file.display()));
            let text = std::fs::read(&file).map_err(|error| told(&error))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&text).map_err(|error| told(&error))? {
                client = client.add_root_certificate(certificate);
            }
        }
        if let Some(identity) = identity(self.cert_file.as_deref(), self.key_file.as_deref())? {
            client = client.identity(identity);
        }
        let client = client.build().map_err(|error| (field, error.to_string()))?;
        let Self { bearer_token_file, headers, header_files, .. } = self;
        let settling_millis = i64::from(self.settle_seconds.unwrap_or(SETTLING)) * 1000;
        Ok(Connection { client, address, bearer_token_file, headers, header_files, settling_millis })
    }
}

/// What the client shows of itself.
fn identity(certificate: Option<&Path>, key: Option<&Path>) -> Result<Option<reqwest::Identity>, Wrong> {
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        _ => return Err(("", "certFile and keyFile go together".into())),
    };
    let read = |field, file: &Path| {
        std::fs::read(file).map_err(|error: std::io::Error| (field, format!("{}: {error}", file.display())))
    };
    let mut pem = read("certFile", certificate)?;
    pem.extend(read("keyFile", key)?);
    let identity = reqwest::Identity::from_pem(&pem);
    // The error quotes nothing of the key.
    Ok(Some(identity.map_err(|error| ("keyFile", format!("{}: {error}", key.display())))?))
}

/// A Prometheus that a person names, with this proxy environment, these headers and certificates.
///
/// # Errors
/// The field that is wrong (`prometheus`, `caFile`), and why.
pub fn open(
    address: &str,
    headers: BTreeMap<String, String>,
    ca_file: Option<PathBuf>,
    timeout_seconds: u64,
) -> Result<Prometheus, (&'static str, String)> {
    crate::controller::use_ring();
    let timeout_seconds = Some(timeout_seconds);
    let written = Written { headers, ca_file, timeout_seconds, by_proxy: true, ..Written::default() };
    Ok(Prometheus(written.connect("prometheus", address)?))
}

impl Providers {
    /// The fields of metrics by the names that they may give.
    #[must_use]
    pub fn fields(&self) -> KnownProviders {
        self.0.iter().map(|(name, known)| (name.clone(), known.field)).collect()
    }

    /// Measures, or says why not.
    pub async fn measure(&self, name: &str, measure: &Measure) -> Reply {
        let Some(known) = self.0.get(name) else {
            return Reply::NoProvider(engine::no_provider(name, &self.fields()));
        };
        known.provider.measure(measure).await
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use rstest::rstest;

    use super::*;

    /// What no compiler sees: the lists that are text.
    #[test]
    fn each_field_of_a_metric_that_names_a_provider_is_a_kind_and_counts_as_a_source() {
        let crd = serde_json::to_value(crate::api::ServiceRelease::crd()).unwrap();
        let metrics = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/analysis/properties/metrics";
        let metric = crd.pointer(&format!("{metrics}/items")).unwrap();
        let fields = metric["properties"].as_object().unwrap().iter();
        let asked = fields.filter(|(_, field)| field.pointer("/properties/provider").is_some());
        let mut asked: Vec<&str> = asked.map(|(name, _)| name.as_str()).collect();
        let mut kinds: Vec<&str> = KINDS.iter().map(|kind| kind.field).collect();
        asked.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(asked, kinds);
        let counts =
            |rule: &Value| asked.iter().all(|field| rule["rule"].to_string().contains(&format!("has(self.{field})")));
        let rules = metric["x-kubernetes-validations"].as_array().unwrap();
        let sources = rules.iter().find(|rule| rule["message"].to_string().contains("and workload is needed")).unwrap();
        assert!(counts(sources), "{sources}");
    }

    #[test]
    fn a_name_stands_for_an_address() {
        let text = r#"{"default": {"prometheus": "http://prometheus.monitoring.svc:9090", "timeoutSeconds": 3}}"#;
        assert_eq!(text.parse::<Providers>().unwrap().0.len(), 1);
        assert!("".parse::<Providers>().unwrap().0.is_empty());
    }

    #[rstest]
    #[case(r#"{"a": {"prometheus": "nowhere"}}"#, "providers.a.prometheus")]
    #[case(r#"{"a": {"prometheus": "ftp://x"}}"#, "providers.a.prometheus")]
    #[case(r#"{"a": {"web": "nowhere"}}"#, "providers.a.web")]
    #[case(r#"{"a": {"web": "http://x/?key=1"}}"#, "providers.a.web: the address must have no query")]
    #[case(r#"{"a": {}}"#, "providers.a: exactly one of prometheus and web")]
    #[case(r#"{"a": {"prometheus": "http://x", "web": "http://x"}}"#, "providers.a: exactly one of prometheus and web")]
    #[case(r#"{"a": {"prometheus": "http://x", "token": "t"}}"#, "unknown field `token`")]
    #[case(r#"{"a": {"prometheus": "https://x", "caFile": "/none"}}"#, "providers.a.caFile: /none")]
    #[case(
        r#"{"a": {"prometheus": "https://x", "certFile": "/none"}}"#,
        "providers.a: certFile and keyFile go together"
    )]
    #[case(
        r#"{"a": {"prometheus": "https://x", "certFile": "/none", "keyFile": "/n"}}"#,
        "providers.a.certFile: /none"
    )]
    fn what_is_wrong_is_told_by_its_field(#[case] text: &str, #[case] told: &str) {
        let error = text.parse::<Providers>().unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}
