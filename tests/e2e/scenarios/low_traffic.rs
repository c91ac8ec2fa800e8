//! Two requests a minute through the gateway, a half of them to the candidate: nothing is decided on too few of them, and
//! in the end they are enough. What takes minutes here takes them because of that.

use std::time::Duration;

use serde_json::json;
use servicerelease::api::{Phase, ServiceReleaseStatus, VerdictOutcome};

use crate::{
    harness::{Load, Scenario, Shop, World, counted, note},
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    a_bad_candidate_is_found, Together, Prometheus;
    a_good_candidate_is_promoted, Together, Prometheus;
};

/// For a dozen of requests to one side.
const PATIENCE: Duration = Duration::from_secs(13 * 60);

/// The candidate beside stable: any error that stable has not is one too many.
async fn shop(world: &World, min_requests: u32) -> (Shop, Load) {
    let counted =
        |more: &str| format!("http_requests_total{{namespace=\"{{{{namespace}}}}\",pod=~\"{{{{pods}}}}\"{more}}}");
    let metric = json!({
        "name": "errors", "compare": {"maxRatio": 1, "minRequests": min_requests},
        "prometheus": {"total": counted(""), "events": counted(",code=~\"5..\"")},
    });
    let scraped = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    let spec = json!({
        "analysis": {"interval": "5s", "metrics": [metric]}, "template": {"metadata": {"annotations": scraped}},
        "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "10s"}}]}},
    });
    let shop = world.routed_shop("GATEWAY", &spec.to_string()).await;
    let load = Load::start_every(world, &world.url_of("edge").await, &world.hostname(), "30s").await;
    (shop, load)
}

async fn a_bad_candidate_is_found(world: World) {
    let (shop, load) = shop(&world, 100).await;
    shop.release("v2", &[("ERROR_RATE", "1")]).await;
    let held = |status: &ServiceReleaseStatus| status.reason == "AnalysisInconclusive";
    shop.reaches("held, its pause being over", held).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack;
    let status = shop.reaches_within(PATIENCE, "taken back", back).await;
    assert_eq!(status.reason, "AnalysisFailed", "{}", status.message);
    shop.always("half of them at most", |status| status.weights.is_none_or(|it| it.desired.candidate <= 50));
    let failed = load.report().await.failures;
    // As many more as the gateway gives the candidate more than its half: it begins its round anew whenever any route changes.
    assert!((4..=20).contains(&failed), "{failed} requests failed");
    note(format!("{failed} requests failed until it was found"));
}

async fn a_good_candidate_is_promoted(world: World) {
    let (shop, load) = shop(&world, 3).await;
    shop.release("v2", &[]).await;
    let held = |status: &ServiceReleaseStatus| status.reason == "AnalysisInconclusive";
    shop.reaches("held, its pause being over", held).await;
    let status = shop.reaches_within(PATIENCE, "Healthy", |status| status.phase == Phase::Healthy).await;
    assert_eq!(status.verdicts[0].outcome, VerdictOutcome::Pass);
    assert!(counted(&status.verdicts[0]).0 >= 3, "{:?}", status.verdicts[0]);
    load.assert_no_failed_requests().await;
}
