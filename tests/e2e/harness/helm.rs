//! The chart, as `tests/setup/up` installed it.

use super::{kubectl, operator::NAMESPACE};

const NAME: &str = "service-release-operator";
const CHART: &str = "charts/service-release-operator";

/// Runs helm for the operator's release; `words` begin with the verb.
pub async fn run(words: &[&str]) -> String {
    let (verb, options) = words.split_first().expect("a verb");
    let chart: &[&str] = if matches!(*verb, "upgrade" | "install") { &[CHART] } else { &[] };
    let arguments = [&[*verb, NAME], chart, &["--namespace", NAMESPACE], options].concat();
    let program = std::env::var("HELM").expect("HELM, from tests/setup/env.sh");
    kubectl::run(&program, &arguments).await.expect_success()
}

/// The values that it was installed with, as JSON.
pub async fn values() -> String {
    let arguments = ["get", "values", NAME, "--namespace", NAMESPACE, "-o", "json"];
    let program = std::env::var("HELM").expect("HELM, from tests/setup/env.sh");
    kubectl::run(&program, &arguments).await.expect_success()
}

/// Uninstalls the operator and waits until its pods are gone.
pub async fn uninstall() {
    run(&["uninstall", "--wait"]).await;
    let words = format!("wait --for=delete pod -l app.kubernetes.io/name={NAME} --timeout=60s");
    kubectl::kubectl(NAMESPACE, &words).await.expect_success();
}

/// Installs it with such values.
pub async fn install(values: &str) {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("values.json");
    std::fs::write(&file, values).expect("a file of values");
    run(&["install", "--wait", "--values", &file.to_string_lossy()]).await;
}
