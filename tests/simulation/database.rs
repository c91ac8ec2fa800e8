//! What the manifests of cases with a database say.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use servicerelease::api::{ConfigMapSwitch, Database, Flags, MaintenanceMode};

use crate::{
    event::Event,
    model::database::{CONFIG, faults::Rotation, foreign::Deeds},
    rng::Rng,
};

/// How many kinds of databases there are, beside none.
pub const KINDS: u8 = 10;

/// The key that is maintenance mode.
pub const MAINTENANCE: &str = "MAINTENANCE";
/// How long pods go by what it was, in milliseconds.
pub const SYNC: i64 = 5_000;
/// The flag.
pub const FLAG: &str = "NEW_CHECKOUT";

/// The strategy that goes with a kind, in place of another: old code and new must not serve side by side where the schema
/// that its migrations make is known to one of them only.
pub fn strategy(kind: u8, other: u8) -> u8 {
    if breaks(kind) { 5 + other % 2 } else { other }
}

/// Whether old code cannot live with the schema that its migrations make.
fn breaks(kind: u8) -> bool {
    matches!(kind, 2 | 3 | 5)
}

/// spec.database of a kind, with the migration of a version.
pub fn database(kind: u8, version: u32) -> Option<Database> {
    let url = json!({"secretKeyRef": {"name": "shop-db", "key": "URL"}});
    let sql = |map: String, set: &str| json!({"configMap": map, "set": set});
    let files = |more: &Value| {
        let base = json!({"sql": sql(format!("shop-{version}"), "default"), "timeout": "20s"});
        merged(base, more)
    };
    let image = |word: &str, more: &Value| {
        let pod = json!({"spec": {"containers": [
            {"name": "migrate", "image": format!("{word}:{version}"), "command": ["migrate"]},
        ]}});
        merged(json!({"template": pod, "timeout": "20s"}), more)
    };
    // One whose files somebody reads.
    let mounting = |word: &str, more: &Value| {
        let mut change = image(word, more);
        let pod = &mut change["template"]["spec"];
        pod["containers"][0]["volumeMounts"] = json!([{"name": "sql", "mountPath": "/sql"}]);
        pod["volumes"] = json!([{"name": "sql", "configMap": {"name": "files"}}]);
        change
    };
    let claim = json!({"persistentVolumeClaim": {"claimName": "backups"}, "timeout": "20s"});
    let backup_job =
        json!({"job": {"template": {"spec": {"containers": [{"name": "dump", "image": "dump:1"}]}}}, "timeout": "20s"});
    let verify = json!({"tables": [format!("v{version}")]});
    let compatible = json!({"previousRevisionCompatible": true});
    let breaking = json!({"previousRevisionCompatible": false});
    let more = match kind {
        1 => json!({"migration": files(&compatible), "verify": verify}),
        2 => json!({
            // An approval takes longer than that, sometimes.
            "backup": merged(claim, &json!({"maxAge": "4s"})), "rehearsal": {"timeout": "20s"},
            "migration": files(&breaking), "verify": verify,
            "seed": image("seed", &json!({})), "onRollback": "Restore",
        }),
        3 => json!({
            "migration": files(&merged(breaking, &json!({"approval": "Never"}))), "verify": verify,
            "migrationDown": files(&json!({})), "onRollback": "MigrateDown",
            "seed": {"sql": sql("seed".into(), "seed"), "timeout": "20s"},
        }),
        4 => json!({
            "migration": image("migrate", &compatible), "verify": verify, "seed": mounting("seed", &json!({})),
        }),
        5 => json!({
            "backup": backup_job, "migration": image("migrate", &merged(breaking, &json!({"approval": "Required"}))),
            "migrationDown": image("down", &json!({})), "onRollback": "Halt", "verify": verify,
        }),
        6 => json!({
            "migration": mounting("migrate", &merged(compatible, &json!({"idempotent": true}))), "verify": verify,
            // It comes with a later version, when the database is in use.
            "seed": (version > 1).then(|| json!({"sql": sql("seed".into(), "seed"), "timeout": "20s"})),
        }),
        7 => json!({
            "backup": merged(claim, &json!({"maxAge": "2s"})),
            "migration": files(&merged(compatible, &json!({"approval": "Required"}))),
            "verify": verify, "onRollback": "Restore",
        }),
        8 => json!({"backup": claim, "verify": {"tables": ["v0"]}}),
        9 => json!({
            "backup": claim, "rehearsal": {"timeout": "20s"}, "migration": image("migrate", &compatible), "verify": verify,
            "migrationDown": image("down", &json!({"approval": "WhenDataLoss"})), "onRollback": "MigrateDown",
        }),
        10 => json!({
            "backup": claim, "migration": files(&merged(compatible, &json!({"approval": "Never"}))), "verify": verify,
            "migrationDown": files(&json!({"approval": "WhenDataLoss"})), "onRollback": "MigrateDown",
        }),
        _ => return None,
    };
    Some(serde_json::from_value(merged(json!({"urlFrom": url}), &more)).expect("spec.database"))
}

/// spec.maintenance that goes with it.
pub fn maintenance(kind: u8) -> Option<MaintenanceMode> {
    let switch = json!({"name": CONFIG, "key": MAINTENANCE, "propagationDelay": format!("{}ms", SYNC.unsigned_abs())});
    let switch: ConfigMapSwitch = serde_json::from_value(switch).expect("spec.maintenance");
    (breaks(kind) || kind == 7).then_some(MaintenanceMode { config_map: switch })
}

/// spec.flags that goes with it.
pub fn flags(kind: u8, version: u32) -> Option<Flags> {
    let values = BTreeMap::from([(FLAG.to_owned(), format!("v{version}"))]);
    (kind.is_multiple_of(2) && kind > 0).then(|| Flags { config_map: CONFIG.into(), values })
}

/// What happens to the database or on it, from elsewhere.
pub fn fault(rng: &mut Rng) -> Vec<Event> {
    let foreign = |rng: &mut Rng| {
        let files = [Deeds::Nothing, Deeds::OwnFiles, Deeds::SameFiles(1), Deeds::SameFiles(2), Deeds::SameFiles(3)];
        let commands = [Deeds::SameCommand(true), Deeds::SameCommand(true), Deeds::SameCommand(false)];
        let deeds = [files.as_slice(), &commands].concat();
        Event::Foreign(rng.pick(&deeds), rng.pick(&[1, 2, 6, 30, 90]))
    };
    let wrong = |rng: &mut Rng| {
        let settle = Event::Settle(rng.pick(&[1, 2, 3, 6, 12]));
        [Event::Password(Rotation::Role), settle, Event::Password(Rotation::Secret)]
    };
    match rng.below(12) {
        0..3 => vec![Event::Restart],
        3..6 => vec![foreign(rng)],
        6 | 7 => wrong(rng).into(),
        8 => vec![Event::Password(rng.pick(&[Rotation::Role, Rotation::Both, Rotation::Secret]))],
        // Whoever comes back finds the lock taken, or is not let in.
        9 => vec![foreign(rng), Event::Restart, foreign(rng)],
        10 => [vec![Event::Restart], wrong(rng).into()].concat(),
        _ => vec![Event::Password(Rotation::Both), Event::Restart],
    }
}

/// So many seconds, mostly with such a thing somewhere in them.
pub fn disturbed(rng: &mut Rng, seconds: u8) -> Vec<Event> {
    if rng.chance(40) {
        return vec![Event::Settle(seconds)];
    }
    let before = 1 + u8::try_from(rng.below(u64::from(seconds / 2))).unwrap_or(0);
    [vec![Event::Settle(before)], fault(rng), vec![Event::Settle(seconds - before)]].concat()
}

fn merged(mut one: Value, other: &Value) -> Value {
    for (key, value) in other.as_object().into_iter().flatten() {
        one[key] = value.clone();
    }
    one
}
