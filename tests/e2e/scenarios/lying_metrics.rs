//! A metrics server that is slow, or answers what makes no sense: the release stays where it is, says why, and goes on
//! by itself once the answers are sound. Whatever it answers, an operator is not held up by it, and not blown up.

use servicerelease::api::{Phase, ServiceReleaseStatus};

use crate::{
    harness::{
        Scenario, World,
        liar::{Liar, Lie},
        note,
        own::OwnOperator,
        proxy::Harm,
    },
    scenarios,
};

pub const ALL: &[Scenario] = scenarios! {
    held_until_the_answers_are_sound, OwnOperator, Any;
};

const SPEC: &str = r#"
analysis:
  interval: 1s
  metrics:
  - {name: errors, prometheus: {provider: liar, query: errors}, threshold: {max: 0.05}, failureThreshold: 2}
strategy: {canary: {steps: [{setWeight: 50}, {pause: {duration: 1s}}]}}
"#;

/// What the answer of an operator that is not held up by any of it needs in debug builds, in MiB: a tenth of [`Lie::Huge`].
const MOST_MEMORY: u64 = 100;

async fn held_until_the_answers_are_sound(world: World) {
    let liar = Liar::start(Lie::Unavailable).await;
    let providers = format!(r#"{{"liar": {{"prometheus": "http://{}", "timeoutSeconds": 1}}}}"#, liar.address);
    let operator = OwnOperator::start_with(&world, Harm::Nothing, &["--providers", &providers]).await;
    let shop = world.shop(SPEC).await;
    shop.release("v2", &[]).await;
    // Before there are requests it matters only whether there is an answer.
    let status = shop.reaches("held by 503", |status| status.reason == "AnalysisInconclusive").await;
    assert_eq!((status.phase, status.weights.unwrap().desired.candidate), (Phase::Paused, 0), "{}", status.message);
    liar.tell(Lie::Nothing);
    shop.reaches("at its weight", |status| status.weights.is_some_and(|it| it.desired.candidate == 50)).await;
    for (lie, told) in [
        (Lie::Never, "no answer: operation timed out"),
        (Lie::Several, "the query has 3 series, not one"),
        (Lie::Drip, "no answer: operation timed out"),
        (Lie::Page, "status 200, and not Prometheus's JSON"),
        (Lie::Half, "status 200, and not Prometheus's JSON"),
        (Lie::Error, "too many samples"),
        (Lie::Unavailable, "503"),
        (Lie::Elsewhere, "302"),
        (Lie::Nothing, "the query has no series"),
        (Lie::Value("NaN"), "the value is NaN"),
        (Lie::Value("much"), "the value is no number"),
        (Lie::Huge, "longer than 16 MiB"),
    ] {
        liar.tell(lie);
        let held =
            |status: &ServiceReleaseStatus| status.reason == "AnalysisInconclusive" && status.message.contains(told);
        let status = shop.reaches(&format!("held by {lie:?}: {told}"), held).await;
        assert_eq!((status.phase, status.weights.unwrap().desired.candidate), (Phase::Paused, 50), "{lie:?}");
    }
    liar.tell(Lie::InTurns("0.01"));
    shop.healthy().await;

    // A person is obeyed at once, whoever does not answer.
    liar.tell(Lie::Never);
    shop.release("v3", &[]).await;
    shop.reaches("held without an answer", |status| status.reason == "AnalysisInconclusive").await;
    shop.say("Abort").await;
    shop.phase(Phase::RolledBack).await;

    liar.tell(Lie::Value("+Inf"));
    shop.release("v4", &[]).await;
    let back = |status: &ServiceReleaseStatus| status.phase == Phase::RolledBack && status.reason == "AnalysisFailed";
    let status = shop.reaches("taken back, the value being infinite", back).await;
    assert!(status.message.contains("metric errors failed: "), "{}", status.message);
    operator.assert_running().await;
    let peak = operator.peak_mib().await;
    assert!(peak < MOST_MEMORY, "the operator took {peak} MiB");
    note(format!("at most {peak} MiB"));
}
