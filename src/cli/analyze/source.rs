//! The Prometheus of `analyze`: reached by the operator's own client, with errors for a person.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use reqwest::Url;

use crate::{
    api::Timestamp,
    cli::{args::PrometheusArgs, error::CliError},
    engine::{Counters, Measure, Reply},
    metrics::{self, Prometheus, Samples},
};

/// Seconds that an answer may take: a past window is a larger question than the last interval.
const TIMEOUT_SECONDS: u64 = 60;

/// A Prometheus, and its address as it may be shown.
pub struct Source {
    prometheus: Prometheus,
    address: String,
}

impl Source {
    /// The Prometheus that the flags name; asks nothing yet.
    ///
    /// # Errors
    /// When the address, a header or a certificate cannot be used; the value of a header is never told.
    pub fn open(args: &PrometheusArgs) -> Result<Self, CliError> {
        let shown = without_credentials(&args.address);
        let headers = headers(&args.headers)?;
        let opened = metrics::open(&args.address, headers, args.ca_file.clone(), TIMEOUT_SECONDS);
        let prometheus = opened.map_err(|(field, why)| match field {
            "caFile" => CliError::Usage {
                what: format!("--ca-file {why}"),
                remedy: "give a file of certificates in PEM".to_owned(),
            },
            _ => CliError::Usage {
                what: format!("--prometheus {shown:?} is no http or https address"),
                remedy: "give what comes before /api/v1, such as http://localhost:9090".to_owned(),
            },
        })?;
        Ok(Self { prometheus, address: shown })
    }

    /// Measures as the operator would have at a moment.
    ///
    /// # Errors
    /// When there is no answer, or none that makes sense: of a metric (its name is for the message).
    pub async fn measure(&self, metric: &str, measure: &Measure, at: Timestamp) -> Result<Reply, CliError> {
        match self.prometheus.measure_at(measure, at).await {
            Reply::ProviderError(why) | Reply::Senseless(why) | Reply::NoProvider(why) | Reply::Refused(why) => {
                Err(self.fault(metric, &why))
            }
            reply => Ok(reply),
        }
    }

    /// All that the counters of a metric have between two moments, by the values of a label.
    ///
    /// # Errors
    /// When there is no answer, or none that makes sense.
    pub async fn past(
        &self,
        metric: &str,
        counters: &Counters,
        label: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<BTreeMap<String, Samples>, CliError> {
        self.prometheus.past(counters, label, from, to).await.map_err(|why| self.fault(metric, &why))
    }

    fn fault(&self, metric: &str, why: &str) -> CliError {
        CliError::Prometheus {
            address: self.address.clone(),
            why: format!("metric {metric}: {why}"),
            remedy: remedy(why),
        }
    }
}

/// What to do about an answer that is none.
fn remedy(why: &str) -> &'static str {
    let starts = |text: &str| why.starts_with(text);
    match () {
        () if starts("no connection") => {
            "is there a Prometheus at that address? kubectl -n monitoring port-forward svc/prometheus 9090 makes \
             --prometheus http://localhost:9090"
        }
        () if starts("no answer") => "it took too long or broke off: take a shorter window with --from and --to",
        () if ["status 401", "status 403", "status 30"].into_iter().any(starts) => {
            "it wants to know who asks: --header 'Authorization: Bearer ...', or the same in PROMETHEUS_HEADERS"
        }
        () if starts("status ") => {
            "give --prometheus what comes before /api/v1, such as http://localhost:9090 or https://mimir.example.com/prometheus"
        }
        () if why.contains("has no label") => "name the label that tells pods apart with --pod-label",
        () if why.contains("16 MiB") => "select fewer series, or take one metric with --metric",
        () => "correct the metric's query in the manifest (-f); Prometheus's own page shows what it selects",
    }
}

fn headers(texts: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let wrong = |what: String| CliError::Usage {
        what,
        remedy: "write it as --header 'Authorization: Bearer ...', in PROMETHEUS_HEADERS one a line".to_owned(),
    };
    let mut headers = BTreeMap::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let Some((name, value)) = text.split_once(':') else {
            return Err(wrong("--header: one has no colon between its name and its value".to_owned()));
        };
        let (name, value) = (name.trim(), value.trim());
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(wrong(format!("--header: {name:?} is no name of a header")));
        }
        if HeaderValue::from_str(value).is_err() {
            return Err(wrong(format!("--header {name}: its value has characters that no header can have")));
        }
        headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(headers)
}

fn without_credentials(address: &str) -> String {
    let Ok(mut url) = Url::parse(address) else { return address.to_owned() };
    // Addresses that cannot have credentials have none.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string().trim_end_matches('/').to_owned()
}
