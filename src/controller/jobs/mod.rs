//! The bodies of Jobs: those of checks are here, those that work on a database beside.

mod database;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    api::{
        ANNOTATION_OWNER_UID, ANNOTATION_REPORTS, Header, KeysOf, LABEL_JOB, LABEL_RELEASE, SecretKey, ServiceRelease,
    },
    checks::{self, AllowedHosts},
    database::protect,
    engine::{HttpQuestion, NewJob, Run, SqlQuestion, task},
};

use super::build;

/// How long a Job that has ended stays, at most, in seconds: a day.
const KEPT: u32 = 24 * 3_600;
/// How much longer than its pod a Job may live, beside the time that the pod has to end, in seconds.
const UNREACHED: u64 = 15;
/// How long a pod has to end where its template does not say, in seconds.
const GRACE: u64 = 30;
/// Where the runner finds what it looks at.
const MOUNTS: &str = "/var/run/check";

/// What the operator's own Jobs run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The operator's image.
    pub image: String,
    /// Always, IfNotPresent or Never.
    pub pull_policy: String,
    /// The hosts beyond releases that checks may ask: the same for a Job's as for the operator's.
    pub allowed_hosts: AllowedHosts,
}

/// A Job of one pod that is never tried again by itself. A pod that is taken from its node does not count, unless it may
/// have changed a database: then what became of that is found out before anything else runs.
///
/// # Errors
/// What is wrong with the template, or that there is no runner.
pub fn body(release: &ServiceRelease, new: &NewJob, runner: Option<&Runner>) -> Result<Value, String> {
    let runner = runner.ok_or("the operator has no runner: set RUNNER_IMAGE (chart value image)");
    let mut template = match &new.run {
        Run::Pod(template) => template.clone(),
        Run::Keys(sources) => keys(sources, runner?),
        Run::Http(question) => http(question, runner?)?,
        Run::Sql(question) => sql(question, runner?),
        Run::Database(job) => database::template(job, runner)?,
    };
    if !template.is_object() {
        return Err("job.template is no pod template: it needs spec.containers".into());
    }
    let name = release.metadata.name.as_deref().unwrap_or_default();
    let labels = json!({ LABEL_RELEASE: name, LABEL_JOB: new.name });
    prepare(&mut template, new, &labels)?;
    let mut metadata = json!({ "name": new.name, "labels": labels });
    if new.owned {
        metadata["ownerReferences"] = build::owner(release);
    } else {
        metadata["annotations"] = json!({ ANNOTATION_OWNER_UID: release.metadata.uid });
    }
    let mut limit = new.timeout.as_millis().div_ceil(1_000).max(1);
    if !matches!(new.run, Run::Database(_)) {
        // The kubelet ends the pod and leaves it, with its log. The Job's own limit would delete it, and is for pods that
        // reach no node.
        let own = template.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_u64).unwrap_or(limit);
        build::merge(&mut template, &json!({ "spec": { "activeDeadlineSeconds": own.min(limit) } }));
        limit += grace(&template) + UNREACHED;
    }
    let mut on_disruption = "Ignore";
    if let Run::Database(job) = &new.run {
        let reports = json!({ "annotations": { ANNOTATION_REPORTS: template.pointer("/spec/containers/0/name") } });
        build::merge(&mut metadata, &reports);
        build::merge(&mut template, &json!({ "metadata": reports }));
        if database::changes(job) {
            on_disruption = "FailJob";
        }
    }
    let body = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": limit,
            "ttlSecondsAfterFinished": KEPT,
            "podFailurePolicy": { "rules": [
                { "action": on_disruption, "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            ]},
            "template": template,
        },
    });
    Ok(body)
}

fn grace(template: &Value) -> u64 {
    template.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(GRACE)
}

/// Makes a pod template one of this Job's: never restarted, known by its labels, taken for no pod of the service.
fn prepare(template: &mut Value, new: &NewJob, labels: &Value) -> Result<(), String> {
    strip(template, &new.never);
    build::merge(template, &json!({ "metadata": { "labels": labels }, "spec": { "restartPolicy": "Never" } }));
    let containers = template.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    let containers = containers.ok_or("job.template.spec.containers is missing: it names what is to be run")?;
    for container in containers.iter_mut().filter_map(Value::as_object_mut) {
        say(container);
        let env = container.entry("env").or_insert(json!([]));
        let Some(env) = env.as_array_mut() else { continue };
        for (name, value) in &new.env {
            if env.iter().all(|known| known["name"] != *name) {
                env.push(json!({ "name": name, "value": value }));
            }
        }
    }
    let first = template.pointer_mut("/spec/initContainers").and_then(Value::as_array_mut);
    first.into_iter().flatten().filter_map(Value::as_object_mut).for_each(say);
    Ok(())
}

/// What a container that fails has written last is what it has to say.
fn say(container: &mut Map<String, Value>) {
    container.entry("terminationMessagePolicy").or_insert("FallbackToLogsOnError".into());
}

fn strip(template: &mut Value, never: &BTreeSet<String>) {
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !never.contains(key));
    }
}

/// A pod that asks by HTTP, with the values of Secrets in its environment.
///
/// # Errors
/// If it is to ask a host that the platform does not allow.
fn http(question: &HttpQuestion, runner: &Runner) -> Result<Value, String> {
    if let Some(host) = question.http.host.as_deref().filter(|host| !runner.allowed_hosts.allows(host)) {
        return Err(checks::unallowed(host));
    }
    let secret = |(place, header): (usize, &Header)| {
        let key = &header.value_from.as_ref()?.secret_key_ref;
        Some(from_secret(&format!("{}{place}", checks::HEADER), key))
    };
    let env: Vec<Value> = question.http.headers.iter().enumerate().filter_map(secret).collect();
    let mut template = own("check-http", &["check-http", "--question", &json!(question).to_string()], runner);
    template["spec"]["containers"][0]["env"] = json!(env);
    Ok(template)
}

/// A pod that asks a database, with its URL in the environment.
fn sql(question: &SqlQuestion, runner: &Runner) -> Value {
    let mut template = own("check-sql", &["check-sql", "--question", &json!(question).to_string()], runner);
    let mut env = vec![from_secret(task::URL, &question.url)];
    if let Some(ca) = &question.ca {
        env.push(database::ca_variable());
        template["spec"]["volumes"] = json!([database::ca_volume(ca)]);
        template["spec"]["containers"][0]["volumeMounts"] = json!([database::ca_mount()]);
    }
    template["spec"]["containers"][0]["env"] = json!(env);
    template
}

/// A variable whose value is in a Secret.
fn from_secret(name: &str, key: &SecretKey) -> Value {
    json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": key.name, "key": key.key } } })
}

/// A pod of the operator's own program.
fn own(name: &str, args: &[&str], runner: &Runner) -> Value {
    let args: Vec<String> = args.iter().map(|arg| protect(arg)).collect();
    json!({ "spec": {
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": name,
            "image": runner.image,
            "imagePullPolicy": runner.pull_policy,
            "args": args,
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
            "securityContext": restricted(),
        }],
    }})
}

/// What a container of the operator's image may do.
fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
    })
}

/// A pod that has the keys as files and looks at them. What is missing is no volume's fault: all of it is optional.
fn keys(sources: &[KeysOf], runner: &Runner) -> Value {
    let items = |source: &KeysOf| source.keys.iter().map(|key| json!({ "key": key, "path": key })).collect::<Vec<_>>();
    let volume = |(place, source): (usize, &KeysOf)| {
        let name = format!("source-{place}");
        let items = items(source);
        match (&source.secret, &source.config_map) {
            (Some(secret), _) => json!({
                "name": name, "secret": { "secretName": secret, "optional": true, "items": items, "defaultMode": 0o444 },
            }),
            (None, map) => json!({
                "name": name, "configMap": { "name": map, "optional": true, "items": items, "defaultMode": 0o444 },
            }),
        }
    };
    let mount = |(place, _): (usize, &KeysOf)| json!({ "name": format!("source-{place}"), "mountPath": format!("{MOUNTS}/{place}"), "readOnly": true });
    let args = ["check-keys", "--mounts", MOUNTS, "--sources", &json!(sources).to_string()];
    let mut template = own("check-keys", &args, runner);
    template["spec"]["containers"][0]["volumeMounts"] = sources.iter().enumerate().map(mount).collect();
    template["spec"]["volumes"] = sources.iter().enumerate().map(volume).collect();
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> ServiceRelease {
        let body = json!({
            "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
            "metadata": {"name": "shop", "namespace": "ns", "uid": "u-1"}, "spec": {},
        });
        serde_json::from_value(body).unwrap()
    }

    fn runner() -> Runner {
        Runner {
            image: "operator:1".into(),
            pull_policy: "IfNotPresent".into(),
            allowed_hosts: AllowedHosts::default(),
        }
    }

    fn job(run: Run) -> NewJob {
        NewJob {
            name: "shop-smoke-abc".into(),
            run,
            timeout: crate::api::Duration::from_millis(1_500),
            env: vec![("RELEASE_NAME".into(), "shop".into()), ("RELEASE_SERVICE".into(), "shop".into())],
            never: ["app".to_owned()].into(),
            owned: true,
        }
    }

    #[test]
    fn a_pod_of_the_users_becomes_a_job_of_the_release() {
        let template = json!({
            "metadata": {"labels": {"app": "shop", "team": "a"}},
            "spec": {"restartPolicy": "OnFailure", "containers": [
                {"name": "k6", "image": "k6", "env": [{"name": "RELEASE_NAME", "value": "mine"}]},
            ]},
        });
        let body = body(&release(), &job(Run::Pod(template)), None).unwrap();
        let labels = json!({"team": "a", LABEL_RELEASE: "shop", LABEL_JOB: "shop-smoke-abc"});
        let pod = &body["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"], labels, "no Service takes it for a pod of the release");
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["terminationMessagePolicy"], "FallbackToLogsOnError");
        let env = json!([{"name": "RELEASE_NAME", "value": "mine"}, {"name": "RELEASE_SERVICE", "value": "shop"}]);
        assert_eq!(container["env"], env);
        assert_eq!(body["spec"]["backoffLimit"], 0);
        let deadlines = (&pod["spec"]["activeDeadlineSeconds"], &body["spec"]["activeDeadlineSeconds"]);
        assert_eq!(deadlines, (&json!(2), &json!(2 + 30 + 15)), "the kubelet ends it first, and its log stays");
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u-1");
    }

    #[test]
    fn keys_are_mounted_as_far_as_they_are_there() {
        let sources: Vec<KeysOf> = serde_json::from_value(json!([
            {"secret": "env", "keys": ["A", "B"]}, {"configMap": "config", "keys": ["C"], "minLength": 3},
        ]))
        .unwrap();
        let run = Run::Keys(sources);
        assert!(body(&release(), &job(run.clone()), None).unwrap_err().contains("RUNNER_IMAGE"));
        let body = body(&release(), &job(run), Some(&runner())).unwrap();
        let spec = &body["spec"]["template"]["spec"];
        let secret = &spec["volumes"][0]["secret"];
        assert_eq!((&secret["optional"], &secret["items"][1]), (&json!(true), &json!({"key": "B", "path": "B"})));
        assert_eq!(spec["volumes"][1]["configMap"]["name"], "config");
        assert_eq!(spec["containers"][0]["volumeMounts"][1]["mountPath"], "/var/run/check/1");
        assert_eq!(spec["automountServiceAccountToken"], false);
    }

    #[test]
    fn a_header_from_a_secret_is_in_the_environment_of_the_pod_and_nowhere_else() {
        let http = json!({"headers": [
            {"name": "Accept", "value": "text/plain"},
            {"name": "Authorization", "value": "Bearer ", "valueFrom": {"secretKeyRef": {"name": "env", "key": "TOKEN"}}},
        ]});
        let question = HttpQuestion {
            addresses: vec!["198.18.0.9:8080".into()],
            http: serde_json::from_value(http).unwrap(),
            timeout: crate::api::Duration::from_secs(5),
        };
        let body = body(&release(), &job(Run::Http(Box::new(question.clone()))), Some(&runner())).unwrap();
        let container = &body["spec"]["template"]["spec"]["containers"][0];
        let secret = json!({"name": "CHECK_HEADER_1", "valueFrom": {"secretKeyRef": {"name": "env", "key": "TOKEN"}}});
        assert_eq!(container["env"][0], secret);
        let told: HttpQuestion = serde_json::from_str(container["args"][2].as_str().unwrap()).unwrap();
        assert_eq!(told, question);
    }

    #[test]
    fn a_job_asks_no_host_that_the_operator_would_not() {
        let http = json!({"host": "payments.internal:8443", "headers": [
            {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "env", "key": "TOKEN"}}},
        ]});
        let question = HttpQuestion {
            addresses: vec!["payments.internal:8443".into()],
            http: serde_json::from_value(http).unwrap(),
            timeout: crate::api::Duration::from_secs(5),
        };
        let run = job(Run::Http(Box::new(question)));
        let told = body(&release(), &run, Some(&runner())).unwrap_err();
        assert!(told.starts_with("host payments.internal:8443 is not allowed: "), "{told}");
        let allowed = Runner { allowed_hosts: "payments.internal".parse().unwrap(), ..runner() };
        assert!(body(&release(), &run, Some(&allowed)).is_ok());
    }

    #[test]
    fn the_url_of_a_database_is_in_the_environment_of_the_pod_and_nowhere_else() {
        let question = SqlQuestion {
            ca: Some(crate::api::CaSource {
                config_map_key_ref: Some(crate::api::SecretKey { name: "authorities".into(), key: "db.pem".into() }),
                secret_key_ref: None,
            }),
            name: "orders".into(),
            sql: serde_json::from_value(json!({"query": "SELECT 1"})).unwrap(),
            url: serde_json::from_value(json!({"name": "db", "key": "URL"})).unwrap(),
            timeout: crate::api::Duration::from_secs(5),
        };
        let body = body(&release(), &job(Run::Sql(Box::new(question.clone()))), Some(&runner())).unwrap();
        let container = &body["spec"]["template"]["spec"]["containers"][0];
        let secret = json!({"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "URL"}}});
        assert_eq!(container["env"][0], secret);
        let root = json!({"name": "PGSSLROOTCERT", "value": "/var/run/servicerelease/ca/ca.crt"});
        assert!(container["env"].as_array().unwrap().contains(&root));
        assert_eq!(container["volumeMounts"][0]["mountPath"], "/var/run/servicerelease/ca");
        let items = json!([{"key": "db.pem", "path": "ca.crt"}]);
        let volume = &body["spec"]["template"]["spec"]["volumes"][0];
        assert_eq!(volume["configMap"], json!({"name": "authorities", "items": items, "optional": true}));
        let told: SqlQuestion = serde_json::from_str(container["args"][2].as_str().unwrap()).unwrap();
        assert_eq!(told, question);
    }

    #[test]
    fn what_is_no_pod_template_is_told() {
        for template in [json!("k6"), json!({"spec": {}}), json!({"spec": {"containers": {}}})] {
            assert!(body(&release(), &job(Run::Pod(template)), None).unwrap_err().contains("spec.containers"));
        }
    }
}
