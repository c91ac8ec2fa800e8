//! The pods that work on a database: of the operator's own image, or of the user's, whose command is wrapped by the
//! operator's program.

use std::iter::once;

use serde_json::{Map, Value, json};

use crate::{
    api::{CaSource, SecretKey},
    checks,
    controller::build,
    database::protect,
    engine::{
        DatabaseJob, Task, TaskPod,
        task::{
            BACKUPS, CA, DOWN_FILES, FILES, INSTALLER, PROGRAMS, ROOT_CERT, SCRATCH_URL, SEED_FILES, URL, WRAPPER_URL,
        },
    },
};

use super::{Runner, from_secret, own, restricted};

/// User and group of the operator's image.
const NONROOT: u32 = 65_532;
/// How long a pod that is told to go has, in seconds: to end what it does on the server, and to report.
const GRACE: u64 = 60;
/// The volumes of SQL files, backups, and what is for a moment.
const VOLUMES: [&str; 5] = [
    "servicerelease-files",
    "servicerelease-backups",
    "servicerelease-tmp",
    "servicerelease-down",
    "servicerelease-seed",
];
/// The volume of the authorities' certificates, and the file in it.
const CA_VOLUME: (&str, &str) = ("servicerelease-ca", "ca.crt");
/// What the volumes of ConfigMaps of another pod are called, before their number.
const MAPS: &str = "servicerelease-map-";

/// Whether it changes a database that somebody stands on. The scratch database of a rehearsal is none.
pub(super) const fn changes(job: &DatabaseJob) -> bool {
    matches!(&job.task, Some(Task::Migrate(_) | Task::Down { .. } | Task::Wrap(_) | Task::Restore { .. }))
}

/// The pod template of such a Job, without what all Jobs have.
pub(super) fn template(job: &DatabaseJob, runner: Result<&Runner, &'static str>) -> Result<Value, String> {
    match &job.pod {
        TaskPod::Own => Ok(own_pod(job, runner?)),
        TaskPod::Wrapped { template, image } => wrapped(job, template.clone(), image.as_deref(), runner?),
        TaskPod::User(check) => {
            let mut template = check.template.clone();
            set_urls(first_container(&mut template)?, vec![from_secret(URL, &job.url.secret_key_ref)]);
            Ok(template)
        }
    }
}

fn own_pod(job: &DatabaseJob, runner: &Runner) -> Value {
    let mut template = own("database", &["database", "--task", &task(job)], runner);
    let settings = &job.runner;
    let mut mounts = mounts(job, false);
    mounts.push(json!({ "name": VOLUMES[2], "mountPath": "/tmp" }));
    let mut volumes = volumes(job);
    volumes.push(json!({ "name": VOLUMES[2], "emptyDir": {} }));
    build::merge(
        &mut template["spec"],
        &json!({
            "terminationGracePeriodSeconds": GRACE,
            // So that it can write to a volume whoever made that.
            "securityContext": { "runAsGroup": NONROOT, "fsGroup": NONROOT, "fsGroupChangePolicy": "OnRootMismatch" },
            "volumes": volumes,
        }),
    );
    let spec = &mut template["spec"];
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec[field] = value;
        }
    };
    set("serviceAccountName", settings.service_account_name.as_ref().map(|name| json!(name)));
    set("imagePullSecrets", some(&settings.image_pull_secrets).map(|names| json!(names)));
    set("nodeSelector", (!settings.node_selector.is_empty()).then(|| json!(settings.node_selector)));
    set("tolerations", some(&settings.tolerations).map(|all| json!(all)));
    let default = || json!({ "requests": { "cpu": "10m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } });
    let container = &mut template["spec"]["containers"][0];
    container["resources"] = settings.resources.clone().unwrap_or_else(default);
    container["env"] = json!(urls(job, &[URL]));
    container["volumeMounts"] = json!(mounts);
    container["terminationMessagePolicy"] = json!("File");
    template
}

/// A pod of the user's, whose first container runs the operator's program, which runs what the container ran.
fn wrapped(job: &DatabaseJob, mut template: Value, image: Option<&str>, runner: &Runner) -> Result<Value, String> {
    checks::wrappable(&template).map_err(|(field, message)| format!("template{field}: {message}"))?;
    let container = first_container(&mut template)?;
    let loader = format!("{PROGRAMS}/loader");
    let program = format!("{PROGRAMS}/runner");
    let task = task(job);
    let wrapper = [&loader, "--library-path", PROGRAMS, &program, "database", "--task", &task, "--"].map(str::to_owned);
    let all = wrapper.into_iter().chain(words(container, "command")).chain(words(container, "args"));
    let all: Vec<String> = all.map(|word| protect(&word)).collect();
    container.insert("command".into(), json!(all));
    container.remove("args");
    if let Some(image) = image {
        container.insert("image".into(), json!(image));
    }
    // The log is no report, and neither is a file that the container's user cannot write.
    container.insert("terminationMessagePolicy".into(), json!("File"));
    container.insert("terminationMessagePath".into(), json!("/dev/termination-log"));
    set_urls(container, urls(job, &[URL, WRAPPER_URL]));
    let programs = json!({ "name": INSTALLER, "mountPath": PROGRAMS, "readOnly": true });
    put_first(container, "volumeMounts", mounts(job, true).into_iter().chain(once(programs)).collect(), "mountPath");
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return Err(no_containers()) };
    let volumes = volumes(job).into_iter().chain(once(json!({ "name": INSTALLER, "emptyDir": {} })));
    put_first(spec, "volumes", volumes.collect(), "name");
    put_first(spec, "initContainers", vec![installer(runner)], "name");
    let secrets = job.runner.image_pull_secrets.iter().map(|secret| json!(secret)).collect();
    put_first(spec, "imagePullSecrets", secrets, "name");
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64);
    spec.insert("terminationGracePeriodSeconds".into(), json!(grace.unwrap_or(GRACE).max(GRACE)));
    if job.backups.is_some() {
        // Whoever runs in it can read what the operator's image wrote.
        let security = spec.entry("securityContext").or_insert_with(|| json!({}));
        if let Some(security) = security.as_object_mut() {
            security.entry("fsGroup").or_insert(json!(NONROOT));
        }
    }
    Ok(template)
}

/// The init container that brings the operator's program along.
fn installer(runner: &Runner) -> Value {
    let mut security = restricted();
    build::merge(
        &mut security,
        &json!({ "runAsNonRoot": true, "runAsUser": NONROOT, "seccompProfile": { "type": "RuntimeDefault" } }),
    );
    json!({
        "name": INSTALLER,
        "image": runner.image,
        "imagePullPolicy": runner.pull_policy,
        "args": ["install", "--to", PROGRAMS],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "128Mi" } },
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{ "name": INSTALLER, "mountPath": PROGRAMS }],
    })
}

fn task(job: &DatabaseJob) -> String {
    json!(job.task).to_string()
}

fn urls(job: &DatabaseJob, names: &[&str]) -> Vec<Value> {
    let own = names.iter().map(|name| from_secret(name, &job.url.secret_key_ref));
    let ca = job.ca.iter().map(|_| ca_variable());
    own.chain(ca).chain(job.scratch.iter().map(|scratch| from_secret(SCRATCH_URL, &scratch.secret_key_ref))).collect()
}

fn mounts(job: &DatabaseJob, by_others: bool) -> Vec<Value> {
    let maps = [(0, FILES, &job.files), (3, DOWN_FILES, &job.down_files), (4, SEED_FILES, &job.seed_files)];
    let files = maps.into_iter().filter(|(_, _, map)| map.is_some());
    let files = files.map(|(volume, path, _)| json!({ "name": VOLUMES[volume], "mountPath": path, "readOnly": true }));
    let backups = job.backups.iter().map(|claim| {
        let mut mount = json!({ "name": VOLUMES[1], "mountPath": BACKUPS, "readOnly": by_others });
        if let Some(path) = &claim.sub_path {
            mount["subPath"] = json!(path);
        }
        mount
    });
    let others = job.maps.iter().enumerate().map(|(place, map)| {
        let mut mount = json!({ "name": format!("{MAPS}{place}"), "mountPath": map.path, "readOnly": true });
        if let Some(path) = &map.sub_path {
            mount["subPath"] = json!(path);
        }
        mount
    });
    files.chain(backups).chain(others).chain(job.ca.iter().map(|_| ca_mount())).collect()
}

/// Where the authorities' certificates are mounted.
pub(super) fn ca_mount() -> Value {
    json!({ "name": CA_VOLUME.0, "mountPath": CA, "readOnly": true })
}

/// The variable that names them.
pub(super) fn ca_variable() -> Value {
    json!({ "name": ROOT_CERT, "value": format!("{CA}/{}", CA_VOLUME.1) })
}

/// The volume that has them.
pub(super) fn ca_volume(source: &CaSource) -> Value {
    let item = |key: &str| json!([{ "key": key, "path": CA_VOLUME.1 }]);
    // One that is not there is told by the runner, which connects to nothing without it.
    let map = |it: &SecretKey| json!({ "configMap": { "name": it.name, "items": item(&it.key), "optional": true } });
    let secret =
        |it: &SecretKey| json!({ "secret": { "secretName": it.name, "items": item(&it.key), "optional": true } });
    let found = source.config_map_key_ref.as_ref().map(map).or_else(|| source.secret_key_ref.as_ref().map(secret));
    let mut volume = found.unwrap_or_else(|| json!({ "emptyDir": {} }));
    volume["name"] = json!(CA_VOLUME.0);
    volume
}

fn volumes(job: &DatabaseJob) -> Vec<Value> {
    // A ConfigMap that is not there is told by the runner; a volume without it would be waited for in silence.
    let maps = [(VOLUMES[0], &job.files), (VOLUMES[3], &job.down_files), (VOLUMES[4], &job.seed_files)];
    let files = maps.into_iter().filter_map(|(volume, map)| {
        map.as_ref().map(|name| json!({ "name": volume, "configMap": { "name": name, "optional": true } }))
    });
    let backups = job
        .backups
        .iter()
        .map(|claim| json!({ "name": VOLUMES[1], "persistentVolumeClaim": { "claimName": claim.claim_name } }));
    let others = job.maps.iter().enumerate().map(|(place, map)| {
        let mut volume = map.volume.clone();
        volume["name"] = json!(format!("{MAPS}{place}"));
        volume
    });
    files.chain(backups).chain(others).chain(job.ca.iter().map(ca_volume)).collect()
}

fn first_container(template: &mut Value) -> Result<&mut Map<String, Value>, String> {
    let containers = template.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    containers.and_then(|all| all.first_mut()).and_then(Value::as_object_mut).ok_or_else(no_containers)
}

fn no_containers() -> String {
    "template.spec.containers is missing: it names what is to be run".into()
}

/// A list of words, such as a command; empty if there is none.
fn words(container: &Map<String, Value>, field: &str) -> Vec<String> {
    let list = container.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// Puts variables before those of the template, which may be made of them. That of the user's own program is left as the
/// template has it; the others are the operator's.
fn set_urls(container: &mut Map<String, Value>, urls: Vec<Value>) {
    let known = container.get("env").and_then(Value::as_array);
    let sets = known.into_iter().flatten().any(|variable| variable["name"] == URL);
    let urls = urls.into_iter().filter(|url| !sets || url["name"] != URL);
    put_first(container, "env", urls.collect(), "name");
}

/// Puts entries before those that a list has, and in the place of those that have the same key.
fn put_first(of: &mut Map<String, Value>, field: &str, entries: Vec<Value>, key: &str) {
    if entries.is_empty() {
        return;
    }
    let mut known = of.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    known.retain(|other| entries.iter().all(|entry| entry[key] != other[key]));
    let all: Vec<Value> = entries.into_iter().chain(known).collect();
    of.insert(field.into(), json!(all));
}

fn some<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
