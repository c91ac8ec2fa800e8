//! A page of metrics as the data planes write them: what each of them counts of a candidate and of stable, in its own
//! words, and beside it the requests of others, which are not to be counted.

use std::fmt::Write as _;

use super::{CANDIDATE, STABLE};

/// Requests that were answered, and those of them that failed or were slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    pub requests: i64,
    pub errors: i64,
    pub slow: i64,
}

struct Side {
    service: &'static str,
    revision: &'static str,
    /// What ingress-nginx names as the canary.
    canary: &'static str,
    served: Served,
}

/// The page of this number.
pub fn page(number: i64, [candidate, stable]: [Served; 2]) -> String {
    let mut page = format!("page {number}\n");
    let candidate =
        Side { service: "shop-candidate", revision: CANDIDATE, canary: "market-shop-candidate-80", served: candidate };
    let stable = Side { service: "shop", revision: STABLE, canary: "", served: stable };
    for namespace in ["market", "elsewhere"] {
        for side in [&candidate, &stable] {
            traefik(&mut page, namespace, side);
            envoy(&mut page, namespace, side);
            istio(&mut page, namespace, side);
            nginx(&mut page, namespace, side);
            http_server(&mut page, namespace, side);
            kubelet(&mut page, namespace, side);
        }
    }
    page
}

/// Counts by status, and a histogram with these bounds, of which one is the limit.
fn family(page: &mut String, names: [&str; 2], status: &str, labels: &str, bounds: &[(&str, bool)], served: Served) {
    let Served { requests, errors, slow } = served;
    let [count, histogram] = names;
    for (code, number) in [("200", requests - errors), ("500", errors)] {
        // Writing into a String cannot fail.
        let _ = writeln!(page, "{count}{{{labels},{status}=\"{code}\"}} {number}");
    }
    for (bound, is_beyond) in bounds {
        let within = if *is_beyond { requests } else { requests - slow };
        let _ = writeln!(page, "{histogram}_bucket{{{labels},le=\"{bound}\"}} {within}");
    }
    let _ = writeln!(page, "{histogram}_count{{{labels}}} {requests}");
}

fn traefik(page: &mut String, namespace: &str, side: &Side) {
    let labels =
        format!("service=\"{namespace}-{}-http-80@kubernetesgateway\",method=\"GET\",protocol=\"http\"", side.service);
    let names = ["traefik_service_requests_total", "traefik_service_request_duration_seconds"];
    family(page, names, "code", &labels, &[("1.2", false), ("5.0", true), ("+Inf", true)], side.served);
}

/// Its counters of all requests and of each class of codes are of different names.
fn envoy(page: &mut String, namespace: &str, side: &Side) {
    let Served { requests, errors, slow } = side.served;
    let labels = format!("envoy_cluster_name=\"{namespace}_{}_80\"", side.service);
    let _ = writeln!(page, "envoy_cluster_upstream_rq_completed{{{labels}}} {requests}");
    for (class, number) in [("2", requests - errors), ("5", errors)] {
        let _ =
            writeln!(page, "envoy_cluster_upstream_rq_xx{{{labels},envoy_response_code_class=\"{class}\"}} {number}");
    }
    for (bound, within) in [("500", requests - slow), ("1000", requests), ("+Inf", requests)] {
        let _ = writeln!(page, "envoy_cluster_upstream_rq_time_bucket{{{labels},le=\"{bound}\"}} {within}");
    }
    let _ = writeln!(page, "envoy_cluster_upstream_rq_time_count{{{labels}}} {requests}");
}

fn istio(page: &mut String, namespace: &str, side: &Side) {
    let names = ["istio_requests_total", "istio_request_duration_milliseconds"];
    let bounds = [("500", false), ("1000", true), ("+Inf", true)];
    // What clients' sidecars report is not counted twice.
    for reporter in ["destination", "source"] {
        let pod = match reporter {
            "destination" => format!("shop-{}-abcde", side.revision),
            _ => "client-0".to_owned(),
        };
        let labels = format!(
            "reporter=\"{reporter}\",namespace=\"{namespace}\",pod=\"{pod}\",destination_version=\"{}\"",
            side.revision
        );
        family(page, names, "response_code", &labels, &bounds, side.served);
    }
}

fn nginx(page: &mut String, namespace: &str, side: &Side) {
    let canary = side.canary.replace("market", namespace);
    let labels =
        format!("exported_namespace=\"{namespace}\",exported_service=\"shop\",ingress=\"shop\",canary=\"{canary}\"");
    let names = ["nginx_ingress_controller_requests", "nginx_ingress_controller_request_duration_seconds"];
    family(page, names, "status", &labels, &[("0.5", false), ("1", true), ("+Inf", true)], side.served);
}

/// Its counter is that of its histogram.
fn http_server(page: &mut String, namespace: &str, side: &Side) {
    let Served { requests, errors, slow } = side.served;
    let name = "http_server_request_duration_seconds";
    for (code, requests, slow) in [("200", requests - errors, slow), ("500", errors, 0)] {
        let labels = format!(
            "namespace=\"{namespace}\",pod=\"shop-{}-abcde\",http_response_status_code=\"{code}\"",
            side.revision
        );
        for (bound, within) in [("0.5", requests - slow), ("1", requests), ("+Inf", requests)] {
            let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {within}");
        }
        let _ = writeln!(page, "{name}_count{{{labels}}} {requests}");
    }
}

/// Of the containers of two pods, of which the second has more to do, and in cAdvisor's way of the pods as a whole, too.
fn kubelet(page: &mut String, namespace: &str, side: &Side) {
    for (pod, size) in [("abcde", 1), ("fghij", 2)] {
        for (container, part) in [("app", 3), ("proxy", 1), ("", 4)] {
            let labels =
                format!("namespace=\"{namespace}\",pod=\"shop-{}-{pod}\",container=\"{container}\"", side.revision);
            let used = side.served.requests * size * part;
            let _ = writeln!(page, "container_cpu_usage_seconds_total{{{labels}}} {used}");
            let _ = writeln!(page, "container_memory_working_set_bytes{{{labels}}} {used}");
        }
    }
}
