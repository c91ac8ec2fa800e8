use super::*;

fn lint(text: &str) -> String {
    report::render(&examine(vec![("shop.yaml".to_owned(), text.to_owned())]), Paint::plain())
}

const GOOD: &str = "\
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata:
  name: shop
spec:
  replicas: 4
  selector:
    matchLabels: {app: shop}
  template:
    metadata:
      labels: {app: shop}
    spec:
      containers:
      - name: app
        image: registry.example.com/shop:1.0.0
        ports:
        - containerPort: 8080
        readinessProbe:
          httpGet: {path: /ready, port: 8080}
        lifecycle:
          preStop:
            sleep: {seconds: 5}
        resources:
          limits: {cpu: 1, memory: 64Mi}
        env:
        - name: PORT
          value: \"8080\"
  traffic:
    service: shop
  strategy:
    canary:
      steps:
      - setWeight: 25
      - pause: {duration: 5m}
";

/// The good manifest with one text replaced by another.
pub(super) fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    lint(&GOOD.replacen(from, to, 1))
}

#[test]
fn a_good_manifest_has_no_findings() {
    assert_eq!(lint(GOOD), "0 errors, 0 warnings in 1 document\n");
}

#[test]
fn what_the_operator_refuses_is_an_error_here() {
    let database = "spec:\n  maintenance: {configMap: {name: mode, key: M}}\n  database:\n    urlFrom: {secretKeyRef: {name: db, key: URL}}\n    \
                    migration: {sql: {configMap: sql}}\n";
    let found = with("spec:\n", database);
    assert!(
        found.contains("shop.yaml:35:5: error: spec.strategy.canary: old and new code would serve side by side"),
        "{found}"
    );
    assert!(found.contains("(CanaryNeedsCompatibility) [invalid]"), "{found}");
    let without = database.replace("  maintenance: {configMap: {name: mode, key: M}}\n", "");
    assert!(with("spec:\n", &without).contains("(MaintenanceMissing) [invalid]"));
    let compatible =
        database.replace("{sql: {configMap: sql}}", "{sql: {configMap: sql}, previousRevisionCompatible: true}");
    assert_eq!(with("spec:\n", &compatible), "0 errors, 0 warnings in 1 document\n");
}

#[rstest::rstest]
#[case::an_image(
    "{template: {spec: {containers: [{name: a, image: 'a:1', command: [a]}]}}, approval: Never}",
    "",
    true
)]
#[case::asks("{template: {spec: {containers: [{name: a, image: 'a:1', command: [a]}]}}}", "", false)]
#[case::backed_up(
    "{sql: {configMap: down}, approval: Never}",
    "    backup: {persistentVolumeClaim: {claimName: a}}\n",
    false
)]
#[case::files_that_lose("{sql: {configMap: down}, approval: Never}", "", true)]
#[case::files_that_do_not("{sql: {configMap: index}, approval: Never}", "", false)]
#[case::files_elsewhere("{sql: {configMap: other}, approval: Never}", "", true)]
fn a_way_back_that_may_lose_data_wants_a_backup_or_a_question(
    #[case] down: &str,
    #[case] backup: &str,
    #[case] warns: bool,
) {
    let database = format!(
        "spec:\n  database:\n    urlFrom: {{secretKeyRef: {{name: db, key: URL}}}}\n    onRollback: MigrateDown\n    \
         migration: {{sql: {{configMap: sql}}, previousRevisionCompatible: true}}\n    migrationDown: {down}\n{backup}"
    );
    let maps = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: down}\ndata: {001_a.sql: SELECT 1, 001_a.down.sql: DROP TABLE a}\n---\n\
                apiVersion: v1\nkind: ConfigMap\nmetadata: {name: index}\ndata: {001_a.down.sql: DROP INDEX a}\n---\n";
    let found = lint(&format!("{maps}{}", GOOD.replacen("spec:\n", &database, 1)));
    let told = "spec.database.migrationDown.approval: it may lose data, nobody is asked, and without backup";
    assert_eq!(found.contains(told), warns, "{found}");
    assert_eq!(found.contains("[loses-data]"), warns, "{found}");
}

#[test]
fn unknown_fields_are_named_with_their_place_and_the_nearest_one() {
    insta::assert_snapshot!(with("- setWeight: 25", "- setWieght: 25"), @"
    shop.yaml:33:9: error: spec.strategy.canary.steps[0].setWieght: there is no such field; did you mean setWeight? [unknown-field]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("  traffic:", "  windows: {}\n  traffic:"), @"
    shop.yaml:28:3: error: spec.windows: there is no such field in this version; there are analysis, checks, database, flags, maintenance, minReadySeconds, observation, paused, progressDeadlineSeconds, replicas, retryToken, revisionHistoryLimit, rollback, selector, strategy, template, traffic, workloadRef [unknown-field]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("        readinessProbe:", "        readynessProbe:"), @"
    shop.yaml:14:9: warning: spec.template.spec.containers[0]: container app has no readinessProbe: it gets requests as soon as its process runs, and a release cannot see that it does not work [readiness-probe]
    shop.yaml:18:9: error: spec.template.spec.containers[0].readynessProbe: there is no such field; did you mean readinessProbe? [unknown-field]
    1 error, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("        readinessProbe:", "        somethingNew: 1\n        readinessProbe:"), @"
    shop.yaml:18:9: warning: spec.template.spec.containers[0].somethingNew: Kubernetes 1.35 has no such field; the API server drops it, unless it is newer [unknown-field]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("- pause: {duration: 5m}", "- approval: {by: jane}"), @"
    shop.yaml:34:20: error: spec.strategy.canary.steps[1].approval.by: there is no such field; this one is empty: {} [unknown-field]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("metadata:\n", "metadata:\n  lables: {}\n"), @"
    shop.yaml:4:3: error: metadata.lables: there is no such field; did you mean labels? [unknown-field]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("spec:\n  replicas", "sepc: {}\nspec:\n  replicas"), @"
    shop.yaml:5:1: error: sepc: there is no such field; there are apiVersion, kind, metadata, spec; did you mean spec? [unknown-field]
    1 error, 0 warnings in 1 document
    ");
}

#[test]
fn types_ranges_patterns_and_what_is_missing_are_told_as_the_api_server_would() {
    insta::assert_snapshot!(with("replicas: 4", "replicas: four"), @r#"
    shop.yaml:6:3: error: spec.replicas: must be a whole number, but is the text "four" [type]
    1 error, 0 warnings in 1 document
    "#);
    insta::assert_snapshot!(with("replicas: 4", "replicas: -1"), @"
    shop.yaml:6:3: error: spec.replicas: -1 is not between 0 and 100000 [range]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("setWeight: 25", "setWeight: 101"), @"
    shop.yaml:33:9: error: spec.strategy.canary.steps[0].setWeight: 101 is not between 0 and 100 [range]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("duration: 5m", "duration: 5 min"), @r#"
    shop.yaml:34:17: error: spec.strategy.canary.steps[1].pause.duration: "5 min" is not a duration: write hours, minutes, seconds, milliseconds such as 1h30m, 30s or 500ms [pattern]
    1 error, 0 warnings in 1 document
    "#);
    insta::assert_snapshot!(with("service: shop", "service: Shop_"), @r#"
    shop.yaml:29:5: error: spec.traffic.service: "Shop_" is not the name of a Service: lower-case letters, digits and -, first a letter, last no - [pattern]
    1 error, 0 warnings in 1 document
    "#);
    insta::assert_snapshot!(with("    service: shop\n", "    scaleDownDelay: 1m\n"), @"
    shop.yaml:28:3: error: spec.traffic: service is missing [required]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("value: \"8080\"", "value: 8080"), @"
    shop.yaml:27:11: error: spec.template.spec.containers[0].env[0].value: must be a text, but is the number 8080; write it in quotes [type]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("value: \"8080\"", "value: on"), @"
    shop.yaml:27:11: error: spec.template.spec.containers[0].env[0].value: must be a text, but is the boolean true; write it in quotes [type]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("steps:\n", "maxSurge: 1.5\n      steps:\n"), @"
    shop.yaml:32:7: error: spec.strategy.canary.maxSurge: must be a number or a text, but is the number 1.5 [type]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("name: shop\nspec", "labels: {a: b}\nspec"), @"
    shop.yaml:3:1: error: metadata: name is missing [required]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("name: shop\nspec", "name: Shop\nspec"), @r#"
    shop.yaml:4:3: error: metadata.name: "Shop" is not a name: lower-case letters, digits, - and ., first and last a letter or digit [name]
    1 error, 0 warnings in 1 document
    "#);
    insta::assert_snapshot!(with("      steps:", "      steps: {}\n      other:"), @"
    shop.yaml:32:7: error: spec.strategy.canary.steps: must be a list, but is a map [type]
    shop.yaml:33:7: error: spec.strategy.canary.other: there is no such field in this version; there are dynamicStableScale, maxSurge, maxUnavailable, steps [unknown-field]
    2 errors, 0 warnings in 1 document
    ");
}

#[test]
fn the_rules_between_fields_are_those_of_the_crd() {
    insta::assert_snapshot!(with("- setWeight: 25", "- setWeight: 50\n      - setWeight: 25"), @"
    shop.yaml:34:9: error: spec.strategy.canary.steps[1].setWeight: setWeight must not fall from step to step [rule]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("- pause: {duration: 5m}", "- pause:"), @"
    shop.yaml:32:7: warning: spec.strategy.canary.steps: no step waits: the weights follow each other as fast as pods become available; add a pause or an approval [no-pause]
    shop.yaml:34:9: error: spec.strategy.canary.steps[1].pause: has no value; write pause: {} [empty-step]
    1 error, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("{app: shop}\n  template", "{app: other}\n  template"), @"
    shop.yaml:11:7: error: spec.template.metadata.labels: template.metadata.labels must contain every label of selector.matchLabels [rule]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("steps:\n", "maxSurge: 0\n      steps:\n"), @"
    shop.yaml:31:5: error: spec.strategy.canary: maxSurge and maxUnavailable cannot both be 0 [rule]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("    canary:", "    blueGreen: {}\n    canary:"), @"
    shop.yaml:30:3: error: spec.strategy: exactly one of canary and blueGreen is needed [rule]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("  traffic:", "  workloadRef: {name: shop}\n  traffic:"), @"
    shop.yaml:5:1: error: spec: exactly one of template and workloadRef is needed [rule]
    1 error, 0 warnings in 1 document
    ");
}

#[test]
fn expressions_are_read_as_the_operator_would() {
    let metric = "  analysis:\n    metrics:\n    - name: a\n      web: {path: /a, value: 'json.a +'}\n      threshold: {max: 1}\n  traffic:";
    let found = with("  traffic:", metric);
    let told = "shop.yaml:31:23: error: spec.analysis.metrics[0].web.value: ";
    assert!(found.starts_with(told) && found.contains(" [check]\n1 error, 0 warnings"), "{found}");
}

#[test]
fn a_null_stands_for_the_default_where_the_api_server_has_one() {
    insta::assert_snapshot!(with("replicas: 4", "replicas:"), @"
    shop.yaml:32:7: warning: spec.strategy.canary.steps: by the ratio of pods, with 1 replica: 25% is 50%; use more replicas or other weights [share]
    0 errors, 1 warning in 1 document
    ");
    assert_eq!(
        with("  traffic:", "  minReadySeconds:\n  rollback:\n  traffic:"),
        "0 errors, 0 warnings in 1 document\n"
    );
    assert_eq!(with("- setWeight: 25", "- setWeight: 25\n        pause:"), "0 errors, 0 warnings in 1 document\n");
    insta::assert_snapshot!(with("    service: shop", "    service:"), @"
    shop.yaml:28:3: error: spec.traffic: service is missing [required]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("- setWeight: 25", "- setWeight: 25\n      -"), @"
    shop.yaml:34:8: error: spec.strategy.canary.steps[1]: must be a map, but is empty [type]
    1 error, 0 warnings in 1 document
    ");
}

#[test]
fn kinds_and_versions_that_do_not_exist_are_errors() {
    insta::assert_snapshot!(with("v1alpha1", "v1"), @"
    shop.yaml:1:1: error: apiVersion: must be servicerelease.io/v1alpha1 [api-version]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("kind: ServiceRelease", "kind: ServiceRelaese"), @"
    shop.yaml:2:1: error: kind: servicerelease.io has the kinds ServiceRelease, ReleaseCommand, AnalysisTemplate, ClusterAnalysisTemplate; did you mean ServiceRelease? [kind]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("servicerelease.io", "servicereleases.io"), @"
    shop.yaml:1:1: error: apiVersion: must be servicerelease.io/v1alpha1 [api-version]
    1 error, 0 warnings in 1 document
    ");
}

#[test]
fn what_loses_requests_is_warned_of() {
    insta::assert_snapshot!(with("        readinessProbe:\n          httpGet: {path: /ready, port: 8080}\n", ""), @"
    shop.yaml:14:9: warning: spec.template.spec.containers[0]: container app has no readinessProbe: it gets requests as soon as its process runs, and a release cannot see that it does not work [readiness-probe]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("        lifecycle:\n          preStop:\n            sleep: {seconds: 5}\n", ""), @"
    shop.yaml:14:9: warning: spec.template.spec.containers[0]: container app has no preStop hook: unless the application goes on serving for 5s after SIGTERM, requests are lost; add lifecycle.preStop.sleep.seconds: 5 [pre-stop]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("seconds: 5", "seconds: 2"), @"
    shop.yaml:22:21: warning: spec.template.spec.containers[0].lifecycle.preStop.sleep.seconds: 2s are too short: endpoints take up to 5s to be gone everywhere [pre-stop]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("      containers:", "      terminationGracePeriodSeconds: 5\n      containers:"), @"
    shop.yaml:13:7: warning: spec.template.spec.terminationGracePeriodSeconds: 5s are too short: the application has to serve for 5s after SIGTERM, and then to finish its requests; use 30 [grace-period]
    shop.yaml:23:21: warning: spec.template.spec.containers[0].lifecycle.preStop.sleep.seconds: 5s of sleep use up the grace period of 5s: the process is killed at once after it [pre-stop]
    0 errors, 2 warnings in 1 document
    ");
    insta::assert_snapshot!(with("shop:1.0.0", "shop"), @"
    shop.yaml:15:9: warning: spec.template.spec.containers[0].image: registry.example.com/shop has no tag, which means latest: a new image of that name is no release, and pods of one revision can differ; use a tag of its own or a digest [image-tag]
    0 errors, 1 warning in 1 document
    ");
}

#[test]
fn pods_apart_from_the_weight_are_to_be_enough_for_it() {
    let router = "    service: shop\n    candidateService: shop-candidate\n    router: {httpRoute: {name: front}}\n";
    let text = GOOD.replace("    service: shop\n", router).replace("setWeight: 25", "setWeight: 50");
    let scaled = |scale: &str| lint(&text.replace("      steps:\n", &format!("      steps:\n      - {scale}\n")));
    assert_eq!(scaled("scale: {percent: 100}"), "0 errors, 0 warnings in 1 document\n");
    let found = scaled("scale: {replicas: 1}");
    assert!(found.contains("go to 1 pods, as an earlier scale says") && found.contains("[scale]"), "{found}");
}

#[test]
fn with_a_router_shares_are_exact_and_bounds_have_no_use() {
    let router = "    service: shop\n    candidateService: shop-candidate\n    router: {httpRoute: {name: front}}\n";
    let with_router = |text: &str| lint(&text.replace("    service: shop\n", router));
    assert_eq!(with_router(&GOOD.replace("replicas: 4", "replicas: 1")), "0 errors, 0 warnings in 1 document\n");
    insta::assert_snapshot!(with_router(&GOOD.replace("    canary:\n", "    canary:\n      maxUnavailable: 1\n")), @"
    shop.yaml:34:7: warning: spec.strategy.canary.maxUnavailable: has no use with traffic.router: stable keeps all its pods beside the candidate's [router]
    0 errors, 1 warning in 1 document
    ");
}

#[test]
fn what_will_surprise_is_warned_of() {
    insta::assert_snapshot!(with("replicas: 4", "replicas: 1"), @"
    shop.yaml:32:7: warning: spec.strategy.canary.steps: by the ratio of pods, with 1 replica: 25% is 50%; use more replicas or other weights [share]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("setWeight: 25", "setWeight: 1"), @"
    shop.yaml:32:7: warning: spec.strategy.canary.steps: by the ratio of pods, with 4 replicas: 1% is 25%; use more replicas or other weights [share]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("      - pause: {duration: 5m}\n", ""), @"
    shop.yaml:32:7: warning: spec.strategy.canary.steps: no step waits: the weights follow each other as fast as pods become available; add a pause or an approval [no-pause]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("    canary:\n      steps:\n      - setWeight: 25\n      - pause: {duration: 5m}\n", "    canary: {}\n"), @"
    shop.yaml:31:5: warning: spec.strategy.canary: there are no steps: a new version takes all traffic as soon as its pods are available; add setWeight and pause [no-steps]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("    service: shop\n", "    service: shop\n    candidateService: shop\n"), @"
    shop.yaml:30:5: error: spec.traffic.candidateService: is the same as service: name another Service for the candidate [same-service]
    1 error, 0 warnings in 1 document
    ");
    insta::assert_snapshot!(with("  replicas: 4\n", "  replicas: 4\n  minReadySeconds: 600\n"), @"
    shop.yaml:5:1: warning: spec.progressDeadlineSeconds: must be more than minReadySeconds (600): a step would fail before its pods can count as available [deadline]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("spec:\n  replicas", "status: {}\nspec:\n  replicas"), @"
    shop.yaml:5:1: warning: status: is written by the operator; what a manifest says is dropped [status]
    0 errors, 1 warning in 1 document
    ");
    let blue_green = "  traffic:\n    service: shop\n  strategy:\n    canary:\n      steps:\n      - setWeight: 25\n      - pause: {duration: 5m}\n";
    insta::assert_snapshot!(with(blue_green, "  strategy:\n    blueGreen: {}\n"), @"
    shop.yaml:29:5: warning: spec.strategy.blueGreen: there is no traffic.service to switch: both versions get requests at the same time [no-service]
    0 errors, 1 warning in 1 document
    ");
}

const BESIDE: &str = "\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: search}
spec:
  replicas: 2
  template:
    spec:
      containers: [{name: app, image: search:latest}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: scaler}
spec:
  minReplicas: 3
  scaleTargetRef: {kind: KIND, name: NAME}
";

const ADOPTS: &str = "\
apiVersion: servicerelease.io/v1alpha1
kind: ServiceRelease
metadata: {name: adopted}
spec:
  workloadRef: {name: search}
  strategy:
    canary:
      steps: [{setWeight: 50}, {pause: {}}]
";

#[test]
fn a_release_is_seen_beside_what_is_in_the_other_files() {
    let beside = |kind: &str, name: &str| BESIDE.replace("KIND", kind).replace("NAME", name);
    let files = |release: &str, other: String| {
        report::render(
            &examine(vec![("a.yaml".to_owned(), release.to_owned()), ("b.yaml".to_owned(), other)]),
            Paint::plain(),
        )
    };
    insta::assert_snapshot!(files(GOOD, beside("ServiceRelease", "shop")), @"
    a.yaml:6:3: warning: spec.replicas: HorizontalPodAutoscaler scaler sets it, too: each apply of this manifest sets it back; remove it here with server-side apply, or after kubectl apply edit-last-applied (a plain kubectl apply would take it away from the object, which the autoscaler needs set) [replicas]
    a.yaml:32:7: warning: spec.strategy.canary.steps: by the ratio of pods, with 3 replicas: 25% is 33%; use more replicas or other weights [share]
    0 errors, 2 warnings in 1 document
    ");
    insta::assert_snapshot!(files(ADOPTS, beside("Deployment", "search")), @"
    a.yaml:5:3: error: spec.workloadRef: HorizontalPodAutoscaler scaler targets the adopted Deployment: set its scaleTargetRef to {apiVersion: servicerelease.io/v1alpha1, kind: ServiceRelease, name: adopted} [autoscaler]
    b.yaml:6:3: warning: spec.replicas: ServiceRelease adopted adopts this Deployment and holds it at 0: applying this again starts pods beside its own; remove replicas here and set them there [replicas]
    b.yaml:9:20: warning: spec.template.spec.containers[0]: container app has no readinessProbe: it gets requests as soon as its process runs, and a release cannot see that it does not work [readiness-probe]
    b.yaml:9:20: warning: spec.template.spec.containers[0]: container app has no preStop hook: unless the application goes on serving for 5s after SIGTERM, requests are lost; add lifecycle.preStop.sleep.seconds: 5 [pre-stop]
    b.yaml:9:32: warning: spec.template.spec.containers[0].image: search:latest has the tag latest: a new image of that name is no release, and pods of one revision can differ; use a tag of its own or a digest [image-tag]
    1 error, 4 warnings in 1 document
    ");
    insta::assert_snapshot!(files(ADOPTS, beside("Deployment", "other")), @"
    b.yaml:6:3: warning: spec.replicas: ServiceRelease adopted adopts this Deployment and holds it at 0: applying this again starts pods beside its own; remove replicas here and set them there [replicas]
    b.yaml:9:20: warning: spec.template.spec.containers[0]: container app has no readinessProbe: it gets requests as soon as its process runs, and a release cannot see that it does not work [readiness-probe]
    b.yaml:9:20: warning: spec.template.spec.containers[0]: container app has no preStop hook: unless the application goes on serving for 5s after SIGTERM, requests are lost; add lifecycle.preStop.sleep.seconds: 5 [pre-stop]
    b.yaml:9:32: warning: spec.template.spec.containers[0].image: search:latest has the tag latest: a new image of that name is no release, and pods of one revision can differ; use a tag of its own or a digest [image-tag]
    0 errors, 4 warnings in 1 document
    ");
}

#[test]
fn commands_are_checked_too() {
    let command = "apiVersion: servicerelease.io/v1alpha1\nkind: ReleaseCommand\nmetadata: {generateName: shop-}\nspec: {release: shop, action: promote}\n";
    insta::assert_snapshot!(lint(command), @r#"
    shop.yaml:4:23: error: spec.action: the text "promote" is not one of Promote, Abort, Undo, Retry, Approve, Pause, Resume, Skip; did you mean Promote? [enum]
    1 error, 0 warnings in 1 document
    "#);
    insta::assert_snapshot!(lint(&command.replace("promote", "Promote")), @"
    shop.yaml:4:1: error: spec: revision is required for Promote, Approve, Skip and Retry (status.candidate.revision, or the failed one for Retry) [rule]
    1 error, 0 warnings in 1 document
    ");
}

#[test]
fn what_cannot_be_read_or_is_about_something_else_is_said() {
    insta::assert_snapshot!(lint("spec:\n  image: {{ .Values.image }}\n  other: [\n"), @"
    shop.yaml:2:11: error: expected string scalar; a template has to be rendered first: helm template ... | kubectl srel lint -f - [yaml]
    1 error, 0 warnings in 0 documents
    ");
    insta::assert_snapshot!(lint("kind: ConfigMap\napiVersion: v1\n"), @"
    shop.yaml:1:1: warning: there is no ServiceRelease in what was given [nothing]
    0 errors, 1 warning in 0 documents
    ");
    let list = format!(
        "kind: List\napiVersion: v1\nitems:\n{}",
        GOOD.lines()
            .enumerate()
            .map(|(line, text)| format!("{}{text}\n", if line == 0 { "- " } else { "  " }))
            .collect::<String>()
    );
    insta::assert_snapshot!(lint(&list.replace("replicas: 4", "replicas: -4")), @"
    shop.yaml:9:5: error: spec.replicas: -4 is not between 0 and 100000 [range]
    1 error, 0 warnings in 1 document
    ");
}

#[test]
fn warnings_fail_only_when_they_are_to() {
    let files = |text: &str| examine(vec![("shop.yaml".to_owned(), text.to_owned())]);
    let warned = files(&GOOD.replace("replicas: 4", "replicas: 1"));
    assert_eq!((exit_code(&warned, false), exit_code(&warned, true)), (exit::OK, exit::ERROR));
    let wrong = files(&GOOD.replace("replicas: 4", "replicas: -1"));
    assert_eq!(exit_code(&wrong, false), exit::ERROR);
    assert_eq!(exit_code(&files(GOOD), true), exit::OK);
}

#[test]
fn directories_are_searched_as_kubectl_does() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("inner")).unwrap();
    for name in ["b.yaml", "a.yml", "notes.txt", "inner/c.json"] {
        std::fs::write(root.path().join(name), "").unwrap();
    }
    let names = |recursive: bool| -> Vec<String> {
        let files = sources(&[root.path().to_path_buf()], recursive).unwrap();
        files.iter().map(|path| path.strip_prefix(root.path()).unwrap().display().to_string()).collect()
    };
    assert_eq!(names(false), ["a.yml", "b.yaml"]);
    assert_eq!(names(true), ["a.yml", "b.yaml", "inner/c.json"]);
}

#[test]
fn the_examples_of_the_project_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &PathBuf| (path.display().to_string(), read(path).unwrap());
    let templates = sources(&[root.join("charts/service-release-operator/files/analysis-templates")], true).unwrap();
    let files = sources(&[root.join("deploy/examples"), root.join("deploy/runbooks")], true).unwrap();
    assert!(files.len() >= 20 && templates.len() >= 5);
    for path in files {
        let seen = examine(templates.iter().chain([&path]).map(text).collect());
        let found: Vec<&Finding> =
            seen.iter().flat_map(|file| &file.findings).filter(|it| it.rule != "nothing").collect();
        assert!(found.is_empty(), "{path:?}: {found:?}");
    }
}

#[rstest::rstest]
#[case("      containers:\n", "      restartPolicy: Never\n      containers:\n", "spec.template.spec.restartPolicy")]
#[case("pause: {duration: 5m}", "pause: {duration: 0s}", "steps[1].pause.duration: is no pause")]
fn what_the_api_server_refuses_or_does_not_mean_is_named(#[case] from: &str, #[case] to: &str, #[case] told: &str) {
    assert!(with(from, to).contains(told), "{}", with(from, to));
}

#[test]
fn a_pod_without_containers_is_an_error() {
    let (head, rest) = GOOD.split_once("      containers:\n").unwrap();
    let tail = rest.find("  traffic:").map(|at| &rest[at..]).unwrap();
    let text = lint(&format!("{head}      containers: []\n{tail}"));
    assert!(text.contains("spec.template.spec.containers: needs at least one container"), "{text}");
}

/// The good manifest with another strategy and these fields beside it.
fn with_strategy(strategy: &str, more: &str) -> String {
    let canary = "    canary:\n      steps:\n      - setWeight: 25\n      - pause: {duration: 5m}\n";
    with(canary, &format!("    {strategy}\n{more}"))
}

const METRIC: &str =
    "  analysis:\n    metrics:\n    - {name: errors, prometheus: {query: errors}, threshold: {max: 0.05}}\n";
const OBSERVED: &str = "  observation: {duration: 1h}\n  rollback: {keepPrevious: 1h}\n";

#[test]
fn metrics_of_a_switch_that_is_not_observed_are_told() {
    insta::assert_snapshot!(with_strategy("blueGreen: {}", METRIC), @"
    shop.yaml:32:3: warning: spec.analysis: blueGreen measures metrics after the switch, for as long as observation says, and there is none: no metric is asked; add observation: {duration: 1h} [never-asked]
    0 errors, 1 warning in 1 document
    ");
    let observed = format!("{METRIC}{OBSERVED}");
    insta::assert_snapshot!(with_strategy("blueGreen: {}", &observed), @"0 errors, 0 warnings in 1 document");
    let seen = "  analysis:\n    metrics:\n    - {name: pods, workload: {}}\n";
    insta::assert_snapshot!(with_strategy("blueGreen: {}", seen), @"0 errors, 0 warnings in 1 document");
}

#[test]
fn metrics_of_a_canary_that_gets_no_share_are_told() {
    let pause = "canary: {steps: [{pause: {duration: 10s}}]}";
    insta::assert_snapshot!(with_strategy(pause, METRIC), @"
    shop.yaml:32:3: warning: spec.analysis: a canary measures metrics while it has a share of the requests, and no step gives it one: no metric is asked; add a setWeight, or observation: {duration: 1h} [never-asked]
    0 errors, 1 warning in 1 document
    ");
    let observed = format!("{METRIC}{OBSERVED}");
    insta::assert_snapshot!(with_strategy(pause, &observed), @"0 errors, 0 warnings in 1 document");
    let weight = "canary: {steps: [{setWeight: 25}]}";
    insta::assert_snapshot!(with_strategy(weight, METRIC), @"0 errors, 0 warnings in 1 document");
}

#[test]
fn pods_of_any_namespace_are_told() {
    let metric = |query: &str| {
        let analysis = "  analysis:\n    metrics:\n    - name: p95\n      prometheus: {query: 'QUERY'}\n      threshold: {max: 1}\n  strategy:";
        with("  strategy:", &analysis.replace("QUERY", query))
    };
    insta::assert_snapshot!(metric("p95{pod=~\"{{pods}}\"}"), @r#"
    shop.yaml:33:20: warning: spec.analysis.metrics[0].prometheus.query: pods of another namespace may have the same names, and would be counted too: add namespace="{{namespace}}" beside pod=~"{{pods}}" [namespace]
    0 errors, 1 warning in 1 document
    "#);
    let named = metric("p95{namespace=\"{{namespace}}\",pod=~\"{{pods}}\"}");
    insta::assert_snapshot!(named, @"0 errors, 0 warnings in 1 document");
}

#[test]
fn a_comparison_of_a_release_with_itself_is_an_error() {
    let compared = "  analysis:\n    metrics:\n    - name: errors\n      prometheus: {total: 'all{service=\"{{service}}\"}', events: 'bad{namespace=\"{{namespace}}\",pod=~\"{{pods}}\"}'}\n      compare: {}\n  strategy:";
    insta::assert_snapshot!(with("  strategy:", compared), @r#"
    shop.yaml:33:20: error: spec.analysis.metrics[0].prometheus.total: both sides of compare ask for the same series, and the candidate is as good as itself: {{service}} is the Service of both without spec.traffic.candidateService: set it, or name the pods, pod=~"{{pods}}" [check]
    1 error, 0 warnings in 1 document
    "#);
}

#[test]
fn an_observation_in_which_no_metric_can_fail_is_told() {
    let observed = |metrics: &[&str]| {
        let metrics: Vec<String> = metrics.iter().map(|metric| format!("    - {metric}\n")).collect();
        let analysis = format!("  analysis:\n    metrics:\n{}{OBSERVED}  strategy:", metrics.concat());
        with("  strategy:", &analysis)
    };
    let compared = "{name: errors, prometheus: {total: 'all{revision=\"{{revision}}\"}', events: 'bad{revision=\"{{revision}}\"}'}, compare: {}}";
    let told = "{name: traffic, prometheus: {query: rate}, threshold: {min: 0}}";
    insta::assert_snapshot!(observed(&[compared, told]), @"
    shop.yaml:34:3: warning: spec.observation: no metric can fail after the promotion, when there is nobody to compare with: the observation watches pods and checks only; add a metric with threshold (the share of errors) or burnRate [never-asked]
    0 errors, 1 warning in 1 document
    ");
    let share = "{name: share, prometheus: {query: share}, threshold: {max: 0.05}}";
    insta::assert_snapshot!(observed(&[compared, share]), @"0 errors, 0 warnings in 1 document");
    insta::assert_snapshot!(observed(&[compared, "{name: pods, workload: {}}"]), @"0 errors, 0 warnings in 1 document");
}

#[test]
fn an_observation_under_a_template_that_only_compares_is_told() {
    let template = include_str!("../../../charts/service-release-operator/files/analysis-templates/traefik.yaml");
    let named = "  analysis:\n    templates: [{templateName: golden-signals-traefik, clusterScope: true}]\n  observation: {duration: 1h}\n  strategy:";
    let release = GOOD.replace("  strategy:", named);
    let text = lint(&format!("{template}---\n{release}"));
    assert!(text.contains("spec.observation: no metric can fail after the promotion"), "{text}");
}

#[test]
fn checks_that_are_never_asked_are_told() {
    let each = "  checks:\n  - {name: live, when: [EachStep, BeforePromotion], http: {}}\n";
    insta::assert_snapshot!(with_strategy("blueGreen: {}", each), @"
    shop.yaml:33:18: warning: spec.checks[0].when: EachStep is after each weight, and the strategy sets none: the check is not asked then; BeforeTraffic and BeforePromotion come before a switch, AfterPromotion after it [never-asked]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with("  strategy:", &format!("{each}  strategy:")), @"0 errors, 0 warnings in 1 document");
    let unnamed = "  checks:\n  - name: load\n    when: []\n    http: {}\n";
    insta::assert_snapshot!(with("  strategy:", &format!("{unnamed}  strategy:")), @"
    shop.yaml:32:5: warning: spec.checks[0].when: no moment and no step names the check: it is never asked; give it a moment, or name it in a step: check: [load] [never-asked]
    0 errors, 1 warning in 1 document
    ");
    let named = "      - check: [load]\n      - pause: {duration: 5m}\n";
    insta::assert_snapshot!(with("      - pause: {duration: 5m}\n", &format!("{named}{unnamed}")), @"0 errors, 0 warnings in 1 document");
    let standing = "  checks:\n  - name: live\n    when: []\n    every: 5m\n    http: {}\n";
    insta::assert_snapshot!(with("  strategy:", &format!("{standing}  strategy:")), @"
    shop.yaml:33:5: warning: spec.checks[0].every: is for as long as the release is observed, and there is no observation: it is not asked again; add observation: {duration: 1h} [never-asked]
    0 errors, 1 warning in 1 document
    ");
    let observed = format!("{standing}{OBSERVED}  strategy:");
    insta::assert_snapshot!(with("  strategy:", &observed), @"0 errors, 0 warnings in 1 document");
}

/// The good manifest with a check of these fields, and this beside it.
fn with_check(fields: &str, more: &str) -> String {
    let fields: String = fields.split("; ").map(|field| format!("    {field}\n")).collect();
    with("  strategy:", &format!("  checks:\n  - name: live\n{fields}{more}  strategy:"))
}

const JOB: &str = "job: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: 'a:1'}]}}}";

#[test]
fn wrong_answers_that_are_tolerated_for_too_long_are_told() {
    insta::assert_snapshot!(with_check("http: {}; failureThreshold: 30; interval: 30s", ""), @"
    shop.yaml:33:5: warning: spec.checks[0].failureThreshold: 30 wrong answers can take 17m (timeout 5s each, interval 30s between), but a check that has neither passed nor failed after 10m35s fails: not all of them are waited for; lower it or interval, or raise progressDeadlineSeconds (600) [deadline]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with_check(&format!("when: [EachStep]; {JOB}; failureThreshold: 2"), ""), @"
    shop.yaml:34:5: warning: spec.checks[0].failureThreshold: 2 wrong answers can take 20m2s (timeout 10m each, interval 2s between), while clients are on the new version: one that hangs keeps them for as long; lower it, interval or timeout, for 10m at the most [slow-check]
    0 errors, 1 warning in 1 document
    ");
    insta::assert_snapshot!(with_check("http: {}; every: 2h", OBSERVED), @"
    shop.yaml:33:5: warning: spec.checks[0].every: 2h is not less than observation.duration (1h): it is asked once after the promotion, and not again; shorten it, or observe for longer [never-asked]
    0 errors, 1 warning in 1 document
    ");
}

#[rstest::rstest]
#[case::the_first_wrong_answer_ends_it("when: [EachStep]; http: {}; attempts: 100; interval: 1m", "")]
#[case::the_deadline_is_long_enough(
    "http: {}; failureThreshold: 30; interval: 30s",
    "  progressDeadlineSeconds: 1200\n"
)]
#[case::one_answer_takes_what_its_timeout_says(&format!("when: [EachStep]; {JOB}; timeout: 2h"), "")]
#[case::nobody_is_on_it_yet(&format!("{JOB}; failureThreshold: 2"), "")]
#[case::nothing_follows(&format!("when: [EachStep]; {JOB}; failureThreshold: 2; onFailure: Ignore"), "")]
#[case::in_time(&format!("when: [EachStep]; {JOB}; failureThreshold: 2; timeout: 4m"), "")]
#[case::what_is_asked_for_longer_than_it_rests("http: {}; attempts: 50; every: 30s", OBSERVED)]
fn what_takes_long_and_does_no_harm_is_not(#[case] fields: &str, #[case] more: &str) {
    assert_eq!(with_check(fields, more), "0 errors, 0 warnings in 1 document\n");
}
