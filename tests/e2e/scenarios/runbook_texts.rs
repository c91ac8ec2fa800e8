//! The manifests of `deploy/runbooks` as scenarios apply them: times are shorter, and what is not there has a stand-in.

pub(super) const SHIPPING: &str = include_str!("../../../deploy/runbooks/shipping.yaml");
pub(super) const MULTISHIP: &str = include_str!("../../../deploy/runbooks/multiship.yaml");
pub(super) const SPORTS_NUTRITION: &str = include_str!("../../../deploy/runbooks/sports-nutrition.yaml");
pub(super) const FARMERS_MARKET: &str = include_str!("../../../deploy/runbooks/farmers-market.yaml");
pub(super) const SERIALIZATION: &str = include_str!("../../../deploy/runbooks/serialization.yaml");
const ALL: [&str; 5] = [SHIPPING, MULTISHIP, SPORTS_NUTRITION, FARMERS_MARKET, SERIALIZATION];

/// What the manifests say, and what they say here.
const SHORTER: [(&str, &str); 33] = [
    ("pause: {duration: 1h}", "pause: {duration: 12s}"),
    ("pause: {duration: 30m}", "pause: {duration: 12s}"),
    ("pause: {duration: 5m}", "pause: {duration: 12s}"),
    ("interval: 30s", "interval: 2s"),
    ("interval: 1m", "interval: 1s"),
    ("[5m]", "[15s]"),
    ("[1d]", "[15s]"),
    ("every: 15m", "every: 3s"),
    // A Job at a time, and not one after the other.
    ("every: 5m\n    job:", "every: 30s\n    job:"),
    ("every: 5m", "every: 3s"),
    ("every: 1m", "every: 3s"),
    ("duration: 24h", "duration: 20s"),
    ("observation:\n    duration: 1h", "observation:\n    duration: 25s"),
    // As long as the load tests take nobody else on this machine is to starve.
    ("vus: 50", "vus: 10"),
    ("duration: '5m'", "duration: '2s'"),
    ("duration: '1m'", "duration: '2s'"),
    // The limits stay: of what is asked for there has to be enough for all scenarios together.
    ("requests: {cpu: 100m, memory: 128Mi}", "requests: {cpu: 10m, memory: 16Mi}"),
    // What Prometheus hears of pods that were taken back is not to be taken for the next ones'.
    ("candidateService: shop-candidate", "candidateService: shop-candidate\n    scaleDownDelay: 2s"),
    // The test application's word for it.
    ("status: ok", "status: healthy"),
    // Another host that answers here.
    ("host: www.example.com, scheme: HTTPS, path: /", "host: 'prometheus.monitoring.svc:9090', path: /-/healthy"),
    // Before the first release nobody has exported anything here.
    ("when: [Preflight, AfterPromotion]", "when: [AfterPromotion]"),
    ("when: [Preflight]\n    http:", "when: [AfterPromotion]\n    http:"),
    // Slow is what is made slow, not what a busy machine makes so.
    ("http_req_duration: ['p(95)<1000']", "http_req_duration: ['p(95)<1900']"),
    ("http_req_duration: ['p(95)<500']", "http_req_duration: ['p(95)<1900']"),
    ("maxLatency: 500ms", "maxLatency: 5s"),
    ("attempts: 5\n    interval: 2s\n", "attempts: 5\n    interval: 500ms\n"),
    ("attempts: 3\n", "attempts: 3\n    timeout: 30s\n"),
    ("attempts: 20\n", "attempts: 20\n    timeout: 30s\n"),
    // A tenth of the client's requests, in windows of seconds.
    ("minRequests: 1000", "minRequests: 300"),
    ("minRequests: 100", "minRequests: 30"),
    ("minRequests: 200", "minRequests: 100"),
    ("> 1000", "> 100"),
    ("failureThreshold: 11", "failureThreshold: 4"),
];

/// Programs of the application's own image, and where it is asked in their place.
const PROGRAMS: [(&str, &str); 3] = [
    ("[pnpm, 'db:performance:check']", "/api/orders/performance"),
    ("[npm, run, 'db:validate']", "/api/orders/validation"),
    ("[npm, run, 'db:analyze-queries']", "/api/orders/queries"),
];

/// What stands in for a program: requests to a path, each of which is to be answered.
fn stand_in((program, path): (&str, &str)) -> (String, String) {
    let container = |image: &str, rest: &str| format!("image: {image}\n            {rest}");
    let args = format!("--url, 'http://$(RELEASE_CANDIDATE_SERVICE):8080{path}', --rate, '5', --duration, 1s");
    let here = format!("imagePullPolicy: IfNotPresent\n            args: [load, {args}, --fail-on-error]");
    let there = format!("command: {program}");
    (container("registry.example.com/shop:1.0.0", &there), container("TESTAPP_IMAGE", &here))
}

/// A manifest as it is applied here. What is to be replaced stands in one of the manifests at least: a limit that is another
/// one there by now would otherwise be tried as it is, or not at all.
pub(super) fn shorter(text: &str) -> String {
    let (mut text, mut all) = (super::checks::with_k6(text), ALL.map(str::to_owned));
    let own = |(long, short): (&str, &str)| (long.to_owned(), short.to_owned());
    for (long, short) in PROGRAMS.into_iter().map(stand_in).chain(SHORTER.into_iter().map(own)) {
        assert!(all.iter().any(|manifest| manifest.contains(&long)), "no manifest of deploy/runbooks has {long:?}");
        for manifest in all.iter_mut().chain([&mut text]) {
            *manifest = manifest.replace(&long, &short);
        }
    }
    text
}
