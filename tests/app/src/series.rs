//! Series that no code here counts: those of the runbooks' providers, databases and caches. All is well with them
//! unless `METRICS` says otherwise. As of most applications, there is no series of failures before the first one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Each with its value, or by how much it grows in a second.
const USUAL: &str = r#"
shipping_operation_duration_seconds_bucket{operation="zone_lookup",le="0.025"} +10
shipping_operation_duration_seconds_bucket{operation="zone_lookup",le="0.25"} +10
shipping_operation_duration_seconds_bucket{operation="zone_lookup",le="+Inf"} +10
shipping_operation_duration_seconds_bucket{operation="rate_fetch",le="0.025"} +10
shipping_operation_duration_seconds_bucket{operation="rate_fetch",le="0.25"} +10
shipping_operation_duration_seconds_bucket{operation="rate_fetch",le="+Inf"} +10
shipping_operation_duration_seconds_bucket{operation="rate_calculate",le="0.025"} +10
shipping_operation_duration_seconds_bucket{operation="rate_calculate",le="0.25"} +10
shipping_operation_duration_seconds_bucket{operation="rate_calculate",le="+Inf"} +10
shipping_requests_total +10
provider_requests_total{provider="easypost",outcome="success"} +10
provider_requests_total{provider="veeqo",outcome="success"} +10
provider_request_duration_seconds_bucket{provider="shippo",le="0.5"} +10
provider_request_duration_seconds_bucket{provider="shippo",le="2"} +10
provider_request_duration_seconds_bucket{provider="shippo",le="+Inf"} +10
db_query_duration_seconds_bucket{le="0.02"} +100
db_query_duration_seconds_bucket{le="1"} +100
db_query_duration_seconds_bucket{le="+Inf"} +100
db_query_duration_seconds_count +100
pg_replication_lag_seconds 0.02
redis_evicted_keys_total +0
payments_total{outcome="success"} +10
carts_total +10
checkouts_total +9
orders_total +8.5
order_creation_seconds_bucket{le="60"} +8.5
order_creation_seconds_bucket{le="300"} +8.5
order_creation_seconds_bucket{le="+Inf"} +8.5
order_creation_seconds_count +8.5
kubelet_volume_stats_available_bytes 5e10
kubelet_volume_stats_capacity_bytes 1e11
"#;

/// A page of metrics, so long after the start: what is counted, and the series from here.
pub(crate) fn page(counted: &str, others: &str, since: Duration) -> String {
    let others = || others.split([';', '\n']).map(str::trim).filter_map(|line| line.rsplit_once(' '));
    let usual = USUAL.lines().filter_map(|line| line.rsplit_once(' '));
    let series: BTreeMap<&str, &str> = usual.chain(others()).collect();
    let is_other = |line: &&str| others().any(|(series, _)| line.rsplit_once(' ').is_some_and(|(it, _)| it == series));
    let mut page: String = counted.lines().filter(|line| !is_other(line)).flat_map(|line| [line, "\n"]).collect();
    for (series, value) in series {
        let grows = value.strip_prefix('+').and_then(|rate| rate.parse::<f64>().ok());
        // Writing into a String cannot fail.
        let _ = match grows {
            Some(rate) => writeln!(page, "{series} {}", rate * since.as_secs_f64()),
            None => writeln!(page, "{series} {value}"),
        };
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_takes_the_place_of_the_usual_one() {
        let counted = "up_seconds 4\nprocess_cpu_seconds_total 1.5\n";
        let busy = page(counted, "process_cpu_seconds_total +0.5", Duration::from_secs(4));
        assert!(busy.contains("process_cpu_seconds_total 2\n") && !busy.contains(" 1.5\n"), "{busy}");
        let usual = page(counted, "", Duration::from_secs(4));
        assert!(usual.starts_with(counted), "{usual}");
        assert!(!usual.contains("failure") && !usual.contains("errors"), "{usual}");
        assert!(usual.contains("payments_total{outcome=\"success\"} 40\n"), "{usual}");
        let bad = page(
            counted,
            "payments_total{outcome=\"failure\"} +2; kubelet_volume_stats_available_bytes 9",
            Duration::from_secs(4),
        );
        assert!(bad.contains("payments_total{outcome=\"failure\"} 8\n"), "{bad}");
        assert!(bad.contains("kubelet_volume_stats_available_bytes 9\n"), "{bad}");
        assert_eq!(usual.lines().count() + 1, bad.lines().count());
    }
}
