//! The pods that work on a database, field by field.

use serde_json::{Value, json};

use super::super::{Runner, body};
use super::*;
use crate::{
    api::{ANNOTATION_OWNER_UID, ANNOTATION_REPORTS, Duration, LABEL_JOB, LABEL_RELEASE, RunnerPod, ServiceRelease},
    checks::AllowedHosts,
    database::expand,
    engine::{Meant, NewJob, Run, SqlRun, Wrapped},
};

fn release() -> ServiceRelease {
    let body = json!({
        "apiVersion": "servicerelease.io/v1alpha1", "kind": "ServiceRelease",
        "metadata": {"name": "shop", "namespace": "ns", "uid": "u-1"}, "spec": {},
    });
    serde_json::from_value(body).unwrap()
}

fn sql() -> SqlRun {
    SqlRun {
        set: "default".into(),
        release: "ns/shop#3".into(),
        lock_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(900),
        plan: Some("abc".into()),
        meant: crate::engine::Meant::default(),
        which: None,
    }
}

fn wrap() -> Task {
    Task::Wrap(Wrapped {
        attempt: 1,
        plan: "abc".into(),
        release: "ns/shop#3".into(),
        again: false,
        meant: crate::engine::Meant::default(),
        lock_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(900),
        seed: None,
    })
}

fn job(task: Option<Task>, pod: TaskPod) -> DatabaseJob {
    let secret = |name: &str| serde_json::from_value(json!({"secretKeyRef": {"name": name, "key": "URL"}})).unwrap();
    DatabaseJob {
        task,
        pod,
        url: secret("db"),
        ca: None,
        scratch: Some(secret("scratch")),
        down_files: None,
        seed_files: None,
        maps: Vec::new(),
        files: Some("migrations".into()),
        backups: serde_json::from_value(json!({"claimName": "backups", "subPath": "shop"})).unwrap(),
        runner: RunnerPod::default(),
    }
}

fn tool() -> Value {
    json!({
        "metadata": {"labels": {"app": "shop"}, "annotations": {"team": "a"}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [
            {"name": "migrate", "image": "tool:1", "command": ["migrate", "-database"], "args": ["$(DATABASE_URL)", "up"],
                "env": [{"name": "JDBC_URL", "value": "jdbc:$(DATABASE_URL)"}, {"name": "SERVICERELEASE_URL", "value": "postgres://other"}],
                "volumeMounts": [{"name": "work", "mountPath": "/work"}], "terminationMessagePath": "/work/end"},
            {"name": "a-proxy", "image": "proxy:1"},
        ]},
    })
}

fn wrapped_tool(image: Option<&str>) -> TaskPod {
    TaskPod::Wrapped { template: tool(), image: image.map(str::to_owned) }
}

fn runner() -> Runner {
    Runner { image: "operator:1".into(), pull_policy: "IfNotPresent".into(), allowed_hosts: AllowedHosts::default() }
}

fn made(job: DatabaseJob, owned: bool) -> Result<Value, String> {
    let new = NewJob {
        name: "shop-migrate-abc".into(),
        run: Run::Database(Box::new(job)),
        timeout: Duration::from_secs(960),
        env: vec![("RELEASE_NAME".into(), "shop".into())],
        never: ["app".to_owned()].into(),
        owned,
    };
    body(&release(), &new, Some(&runner()))
}

fn secret(name: &str, of: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": of, "key": "URL"}}})
}

/// What the kubelet makes of a container's words, where it knows the URL.
fn started(words: &Value) -> Vec<String> {
    let known = |name: &str| (name == "DATABASE_URL").then(|| "postgres://real".to_owned());
    words.as_array().unwrap().iter().map(|word| expand(word.as_str().unwrap(), known)).collect()
}

#[test]
fn a_task_is_run_by_the_operators_image_under_the_restricted_standard() {
    let task = Task::Verify(
        serde_json::from_value(json!({
            "queries": [{"name": "q", "query": "SELECT $$x$$, '$(DATABASE_URL)'"}],
        }))
        .unwrap(),
    );
    let made = made(job(Some(task.clone()), TaskPod::Own), true).unwrap();
    let pod = &made["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let words = started(&container["args"]);
    assert_eq!(words[..2], ["database", "--task"]);
    assert_eq!(serde_json::from_str::<Task>(&words[2]).unwrap(), task, "as it was written, to the letter");
    assert_eq!(container["image"], "operator:1");
    let env = json!([secret("DATABASE_URL", "db"), secret("SCRATCH_URL", "scratch"), {"name": "RELEASE_NAME", "value": "shop"}]);
    assert_eq!(container["env"], env);
    let mounts = json!([
        {"name": "servicerelease-files", "mountPath": "/var/run/servicerelease/files", "readOnly": true},
        {"name": "servicerelease-backups", "mountPath": "/var/run/servicerelease/backups", "readOnly": false, "subPath": "shop"},
        {"name": "servicerelease-tmp", "mountPath": "/tmp"},
    ]);
    assert_eq!(container["volumeMounts"], mounts);
    let volumes = json!([
        {"name": "servicerelease-files", "configMap": {"name": "migrations", "optional": true}},
        {"name": "servicerelease-backups", "persistentVolumeClaim": {"claimName": "backups"}},
        {"name": "servicerelease-tmp", "emptyDir": {}},
    ]);
    assert_eq!(pod["volumes"], volumes);
    let security = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(pod["securityContext"], security);
    let restricted = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], restricted);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!((&pod["restartPolicy"], &pod["terminationGracePeriodSeconds"]), (&json!("Never"), &json!(60)));
    assert_eq!(container["terminationMessagePolicy"], "File", "a log is no report");
    assert_eq!(container["resources"]["limits"], json!({"memory": "256Mi"}));
}

#[test]
fn a_task_runs_as_the_manifest_says_of_the_runner() {
    let settings: RunnerPod = serde_json::from_value(json!({
        "serviceAccountName": "db-jobs", "resources": {"limits": {"memory": "1Gi"}}, "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}],
    }))
    .unwrap();
    let own = DatabaseJob { runner: settings.clone(), ..job(Some(Task::Migrate(sql())), TaskPod::Own) };
    let pod = made(own, false).unwrap()["spec"]["template"]["spec"].clone();
    for field in ["serviceAccountName", "imagePullSecrets", "nodeSelector", "tolerations"] {
        assert_eq!(pod[field], json!(settings)[field], "{field}");
    }
    assert_eq!(pod["containers"][0]["resources"], json!({"limits": {"memory": "1Gi"}}));

    // The user's pod is the user's; but the operator's image is pulled for it too.
    let others = DatabaseJob { runner: settings, ..job(Some(wrap()), wrapped_tool(None)) };
    let pod = made(others, false).unwrap()["spec"]["template"]["spec"].clone();
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!((pod.get("nodeSelector"), pod.get("serviceAccountName")), (None, None));
}

#[test]
fn a_command_of_the_users_is_run_by_the_operators_program() {
    let made = made(job(Some(wrap()), wrapped_tool(Some("shop:2"))), false).unwrap();
    let template = &made["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    let words = started(&container["command"]);
    let wrapper =
        ["/servicerelease/loader", "--library-path", "/servicerelease", "/servicerelease/runner", "database", "--task"];
    assert_eq!(words[..6], wrapper);
    assert_eq!(serde_json::from_str::<Task>(&words[6]).unwrap(), wrap());
    let command = ["--", "migrate", "-database", "$(DATABASE_URL)", "up"];
    assert_eq!(words[7..], command, "it is the runner that puts in which database");
    assert_eq!(container.get("args"), None);
    assert_eq!(container["image"], "shop:2");
    let env = json!([
        secret("DATABASE_URL", "db"), secret("SERVICERELEASE_URL", "db"), secret("SCRATCH_URL", "scratch"),
        {"name": "JDBC_URL", "value": "jdbc:$(DATABASE_URL)"}, {"name": "RELEASE_NAME", "value": "shop"},
    ]);
    assert_eq!(container["env"], env, "ours first, and none that leads the wrapper astray");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(container["terminationMessagePolicy"], "File");
    let mounts = container["volumeMounts"].as_array().unwrap();
    let programs = json!({"name": "servicerelease-runner", "mountPath": "/servicerelease", "readOnly": true});
    assert!(
        mounts.contains(&programs) && mounts.contains(&json!({"name": "work", "mountPath": "/work"})),
        "{mounts:?}"
    );
    let installer = &template["spec"]["initContainers"][0];
    assert_eq!(installer["args"], json!(["install", "--to", "/servicerelease"]));
    assert_eq!(
        (&installer["image"], &installer["securityContext"]["runAsNonRoot"]),
        (&json!("operator:1"), &json!(true))
    );
    assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 60);
    assert_eq!(template["spec"]["securityContext"]["fsGroup"], 65532);
    assert_eq!(template["metadata"]["labels"], json!({LABEL_RELEASE: "shop", LABEL_JOB: "shop-migrate-abc"}));
    assert_eq!(template["metadata"]["annotations"], json!({"team": "a", ANNOTATION_REPORTS: "migrate"}));
}

#[test]
fn the_files_of_a_seed_are_beside_those_of_the_migration() {
    let pod = |pod: TaskPod| {
        let seeded = DatabaseJob { seed_files: Some("rows".into()), ..job(Some(wrap()), pod) };
        made(seeded, false).unwrap()["spec"]["template"]["spec"].clone()
    };
    let mount = json!({"name": "servicerelease-seed", "mountPath": "/var/run/servicerelease/seed", "readOnly": true});
    let volume = json!({"name": "servicerelease-seed", "configMap": {"name": "rows", "optional": true}});
    for pod in [pod(TaskPod::Own), pod(wrapped_tool(None))] {
        assert!(pod["containers"][0]["volumeMounts"].as_array().unwrap().contains(&mount), "{pod}");
        assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
    }
}

#[test]
fn a_template_that_sets_its_url_keeps_it_and_the_wrapper_has_its_own() {
    let mut template = tool();
    template["spec"]["containers"][0]["env"] = json!([{"name": "DATABASE_URL", "value": "prisma://x"}]);
    let pod = TaskPod::Wrapped { template, image: None };
    let made = made(DatabaseJob { scratch: None, ..job(Some(wrap()), pod) }, false).unwrap();
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    let env = json!([
        secret("SERVICERELEASE_URL", "db"), {"name": "DATABASE_URL", "value": "prisma://x"},
        {"name": "RELEASE_NAME", "value": "shop"},
    ]);
    assert_eq!((&container["env"], &container["image"]), (&env, &json!("tool:1")));
}

#[test]
fn what_cannot_be_wrapped_is_told_with_its_field() {
    let told = |path: &str, value: Value| {
        let mut template = tool();
        *template.pointer_mut(path).unwrap() = value;
        made(job(Some(wrap()), TaskPod::Wrapped { template, image: None }), false).unwrap_err()
    };
    assert!(told("/spec/containers/0/command", json!([])).contains("containers[0].command: it is missing"));
    assert!(told("/spec/containers/0/command", json!("migrate")).contains("containers[0].command: it is no list"));
    assert!(told("/spec/containers/0/args", json!([1])).contains("containers[0].args: it is no list"));
    assert!(told("/spec/containers", json!([])).contains("spec.containers: it is missing"));
}

#[test]
fn a_pod_of_the_users_that_makes_a_backup_is_left_as_it_is() {
    let check = serde_json::from_value(json!({"template": tool()})).unwrap();
    let made = made(job(None, TaskPod::User(check)), true).unwrap();
    let spec = &made["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["command"], json!(["migrate", "-database"]));
    assert_eq!(container["env"][0], secret("DATABASE_URL", "db"));
    assert_eq!((spec.get("initContainers"), spec.get("volumes")), (None, None));
    assert_eq!(made["metadata"]["annotations"][ANNOTATION_REPORTS], "migrate");
}

#[test]
fn what_changes_a_database_fails_when_it_is_taken_from_its_node_and_is_not_made_anew() {
    let (name, suffix) = ("shop-3".to_owned(), "_before_3".to_owned());
    let restore = Task::Restore { name, suffix, release: "ns/shop#3".into(), meant: Meant::default() };
    let settle = match wrap() {
        Task::Wrap(wrapped) => Task::Settle(wrapped),
        _ => unreachable!(),
    };
    for (task, action) in [
        (Task::Migrate(sql()), "FailJob"),
        (Task::Down { run: sql(), of: "ns/shop#3".into(), seed: None }, "FailJob"),
        (restore, "FailJob"),
        (settle, "Ignore"),
        (
            Task::Backup {
                release: String::new(),
                name: "shop-3".into(),
                of: "ns/shop".into(),
                proof: true,
                keep: Some(7),
                max_age: None,
                spared: None,
                proven: None,
                rehearsed: false,
            },
            "Ignore",
        ),
    ] {
        let made = made(job(Some(task), TaskPod::Own), false).unwrap();
        let spec = &made["spec"];
        assert_eq!(spec["podFailurePolicy"]["rules"][0]["action"], action, "{spec}");
        let once = [&spec["parallelism"], &spec["completions"], &spec["backoffLimit"]];
        assert_eq!(once, [&json!(1), &json!(1), &json!(0)]);
        assert_eq!((&spec["podReplacementPolicy"], &spec["activeDeadlineSeconds"]), (&json!("Failed"), &json!(960)));
    }
}

#[test]
fn preflight_has_the_files_of_the_seed_beside_those_of_the_migration() {
    for pod in [TaskPod::Own, wrapped_tool(None)] {
        let job = DatabaseJob { seed_files: Some("seed".into()), ..job(Some(Task::Migrate(sql())), pod) };
        let made = made(job, true).unwrap();
        let pod = &made["spec"]["template"]["spec"];
        let has = |list: &Value, wanted: Value| list.as_array().unwrap().contains(&wanted);
        let volume = json!({"name": "servicerelease-seed", "configMap": {"name": "seed", "optional": true}});
        assert!(has(&pod["volumes"], volume), "{pod}");
        let mount =
            json!({"name": "servicerelease-seed", "mountPath": "/var/run/servicerelease/seed", "readOnly": true});
        assert!(has(&pod["containers"][0]["volumeMounts"], mount), "{pod}");
    }
}

#[test]
fn what_another_pod_mounts_of_config_maps_is_mounted_beside() {
    for pod in [TaskPod::Own, wrapped_tool(None)] {
        let volume = json!({"projected": {"sources": [{"configMap": {"name": "rows"}}]}});
        let map = |path: &str, sub_path: Option<&str>| crate::engine::MapVolume {
            volume: volume.clone(),
            path: path.into(),
            sub_path: sub_path.map(str::to_owned),
        };
        let maps = vec![map("/seed/a", None), map("/seed/b.sql", Some("b.sql"))];
        let job = DatabaseJob { maps, ..job(Some(Task::Migrate(sql())), pod) };
        let made = made(job, true).unwrap();
        let pod = &made["spec"]["template"]["spec"];
        let has = |list: &Value, wanted: Value| list.as_array().unwrap().contains(&wanted);
        let named = json!({"name": "servicerelease-map-1", "projected": volume["projected"]});
        assert!(has(&pod["volumes"], named), "{pod}");
        let mounts = &pod["containers"][0]["volumeMounts"];
        assert!(
            has(mounts, json!({"name": "servicerelease-map-0", "mountPath": "/seed/a", "readOnly": true})),
            "{pod}"
        );
        let part =
            json!({"name": "servicerelease-map-1", "mountPath": "/seed/b.sql", "readOnly": true, "subPath": "b.sql"});
        assert!(has(mounts, part), "{pod}");
    }
}

#[test]
fn what_must_outlive_the_release_names_it_and_is_not_owned_by_it() {
    let made = |owned| made(job(Some(Task::Migrate(sql())), TaskPod::Own), owned).unwrap();
    let (owned, free) = (made(true), made(false));
    assert_eq!(owned["metadata"]["ownerReferences"][0]["uid"], "u-1");
    assert_eq!(owned["metadata"]["annotations"].get(ANNOTATION_OWNER_UID), None);
    assert_eq!(free["metadata"].get("ownerReferences"), None);
    let annotations = json!({ANNOTATION_OWNER_UID: "u-1", ANNOTATION_REPORTS: "database"});
    assert_eq!(free["metadata"]["annotations"], annotations);
    assert_eq!(free["metadata"]["labels"], json!({LABEL_RELEASE: "shop", LABEL_JOB: "shop-migrate-abc"}));
}
