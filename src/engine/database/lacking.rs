//! What a Job of the database waits for that somebody else has to make: a Secret or a key of it, a ConfigMap, a volume. The
//! kubelet and the scheduler name the object; here it is said which field of the spec names it, and what mends it.

use std::sync::LazyLock;

use regex::Regex;

use crate::api::{CaSource, Change, Database, SecretKey, WorkOutcome};

use super::super::{
    pass::Pass,
    report::kubectl,
    runs::NO_POD,
    task::{DatabaseJob, NO_AUTHORITY, NO_FILES, OF_SEED},
};

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// In a word for machines.
    pub reason: &'static str,
    /// Which object or key of which field.
    pub message: String,
    /// What mends it.
    pub remedy: String,
}

/// The words of kubelets and schedulers (kubernetes/pkg/kubelet/kubelet_pods.go, plugins/volumebinding).
static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let object =
        r#"(?i)(?<kind>secret|configmap|persistentvolumeclaim) "(?<name>[^"]+)" (?<what>not found|is being deleted)"#;
    let key = r"couldn't find key (?<key>\S+) in (?<in>Secret|ConfigMap) [^/\s]+/(?<of>[^\s,;]+)";
    Regex::new(&format!("{object}|{key}")).ok()
});

/// A place in the spec that names an object.
struct Named {
    field: &'static str,
    kind: Kind,
    name: String,
    key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    ConfigMap,
    Claim,
}

impl Kind {
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "secret" => Self::Secret,
            "configmap" => Self::ConfigMap,
            _ => Self::Claim,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Claim => "PersistentVolumeClaim",
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Secret => "SecretMissing",
            Self::ConfigMap => "ConfigMapMissing",
            Self::Claim => "VolumeClaimMissing",
        }
    }
}

/// What the Job waits for that is at work on the database, if it is told. None: it waits for nothing, or for something else.
pub fn waited_for(pass: &Pass<'_>) -> Option<Lacking> {
    let (job, why) = waiting(pass)?;
    if why == NO_POD {
        let remedy = format!("{} describe job {job}; it goes on by itself", kubectl(pass));
        return Some(Lacking { reason: "PodMissing", message: String::new(), remedy });
    }
    let found = super::pinned(pass).and_then(|database| find(pass, &database, &why));
    Some(found.unwrap_or_else(|| Lacking {
        reason: "",
        message: String::new(),
        remedy: format!("{} describe pod -l {}={job}; {}", kubectl(pass), crate::api::LABEL_JOB, goes_on(&why)),
    }))
}

/// What becomes of it if nobody does anything.
fn goes_on(why: &str) -> &'static str {
    match why.contains("Image") {
        true => "it goes on once that image can be pulled; with another one in the manifest: abort, then retry",
        false => "it goes on by itself",
    }
}

/// The Job that waits, and why, in the words of whoever holds it up.
fn waiting(pass: &Pass<'_>) -> Option<(String, String)> {
    let work = pass.status.database.as_ref()?.work.iter().filter(|work| work.outcome == WorkOutcome::Running);
    let work = work.max_by_key(|work| work.started_at)?;
    let job = pass.seen.jobs.iter().find(|job| job.object.name == work.job && job.end.is_none())?;
    let podless = || work.message.ends_with(NO_POD).then(|| NO_POD.to_owned());
    Some((work.job.clone(), job.stuck.clone().or_else(podless)?))
}

/// What is not there, of what somebody says of a pod.
pub fn find(pass: &Pass<'_>, database: &Database, words: &str) -> Option<Lacking> {
    if words.contains("unbound immediate PersistentVolumeClaim") {
        let claim = named(database).into_iter().find(|named| named.kind == Kind::Claim)?;
        let message = format!("{} of {} is bound to no volume", described(&claim, None), claim.field);
        let remedy = format!("{} describe pvc {}; it goes on by itself", kubectl(pass), claim.name);
        return Some(Lacking { reason: "VolumeClaimUnbound", message, remedy });
    }
    let found = WORDS.as_ref()?.captures(words)?;
    let text = |group: &str| found.name(group).map(|it| it.as_str().to_owned());
    let key = text("key");
    let kind = Kind::of(&text("kind").or_else(|| text("in"))?);
    let name = text("name").or_else(|| text("of"))?;
    let same = |named: &Named| named.kind == kind && named.name == name && (key.is_none() || named.key == key);
    let places: Vec<Named> = named(database).into_iter().filter(same).collect();
    let object = Named { field: "", kind, name, key: places.first().and_then(|place| place.key.clone()) };
    let fields: Vec<&str> = places.iter().map(|place| place.field).collect();
    let fields = if fields.is_empty() { "a pod template of spec.database".to_owned() } else { fields.join(" and ") };
    let what = match text("what").as_deref() {
        Some("is being deleted") => "is being deleted",
        _ if key.is_some() => "is not there",
        _ => "does not exist",
    };
    let message = format!("{}, which {fields} names, {what}", described(&object, key.as_deref()));
    Some(Lacking { reason: kind.reason(), message, remedy: remedy(pass, &object, key.is_some(), places.first()) })
}

fn described(object: &Named, key: Option<&str>) -> String {
    let Named { kind, name, .. } = object;
    match key {
        Some(key) => format!("key {key} of {} {name}", kind.word()),
        None => format!("{} {name}", kind.word()),
    }
}

/// The command that makes it.
fn remedy(pass: &Pass<'_>, object: &Named, only_key: bool, place: Option<&Named>) -> String {
    let Named { kind, name, key, .. } = object;
    let key = key.as_deref().unwrap_or("KEY");
    let kubectl = kubectl(pass);
    let is_url = place.is_none_or(|place| !place.field.contains("caFrom"));
    let command = match (kind, only_key) {
        (Kind::Secret, true) if is_url => format!(
            "{kubectl} patch secret {name} -p '{{\"stringData\": {{\"{key}\": \"postgres://USER:PASSWORD@HOST:5432/NAME\"}}}}'"
        ),
        (Kind::Secret, false) if is_url => format!(
            "{kubectl} create secret generic {name} --from-literal={key}='postgres://USER:PASSWORD@HOST:5432/NAME'"
        ),
        (Kind::Secret, _) => format!("{kubectl} create secret generic {name} --from-file={key}=ca.crt"),
        (Kind::ConfigMap, _) => format!("{kubectl} create configmap {name} --from-file={key}=FILE"),
        (Kind::Claim, _) => format!(
            "make PersistentVolumeClaim {name}, or name another one in {}",
            place.map_or("the pod template", |place| place.field)
        ),
    };
    let or = if only_key { ", or name another key in the spec" } else { "" };
    format!("{command}{or}; it goes on by itself")
}

/// The object that somebody says a pod lacks, and what is the matter with it, where they name one.
pub fn object(words: &str) -> Option<(String, &'static str)> {
    let found = WORDS.as_ref()?.captures(words)?;
    let text = |group: &str| found.name(group).map(|it| it.as_str().to_owned());
    let key = text("key");
    let (kind, name) = (Kind::of(&text("kind").or_else(|| text("in"))?), text("name").or_else(|| text("of"))?);
    let what = match text("what").as_deref() {
        Some("is being deleted") => "is being deleted",
        _ if key.is_some() => "is not there",
        _ => "does not exist",
    };
    Some((described(&Named { field: "", kind, name, key: None }, key.as_deref()), what))
}

/// All places of the spec that name an object which a Job of the database needs.
fn named(database: &Database) -> Vec<Named> {
    let mut all = Vec::new();
    let mut secret = |field, SecretKey { name, key }: &SecretKey| {
        all.push(Named { field, kind: Kind::Secret, name: name.clone(), key: Some(key.clone()) });
    };
    secret("spec.database.urlFrom", &database.url_from.secret_key_ref);
    let direct = database.direct_url_from.as_ref();
    direct.into_iter().for_each(|url| secret("spec.database.directUrlFrom", &url.secret_key_ref));
    let backup = database.backup.as_ref();
    let scratch = backup.and_then(|backup| backup.scratch_url_from.as_ref());
    scratch.into_iter().for_each(|url| secret("spec.database.backup.scratchUrlFrom", &url.secret_key_ref));
    all.extend(database.ca_from.as_ref().and_then(of_authority));
    let claim = backup.and_then(|backup| backup.persistent_volume_claim.as_ref());
    all.extend(claim.map(|claim| Named {
        field: "spec.database.backup.persistentVolumeClaim.claimName",
        kind: Kind::Claim,
        name: claim.claim_name.clone(),
        key: None,
    }));
    all
}

fn of_authority(source: &CaSource) -> Option<Named> {
    let (kind, SecretKey { name, key }) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(it), _) => (Kind::ConfigMap, it),
        (None, it) => (Kind::Secret, it.as_ref()?),
    };
    Some(Named { field: "spec.database.caFrom", kind, name: name.clone(), key: Some(key.clone()) })
}

/// The ConfigMap that brought no SQL files, and the field that names it.
fn without_files(database: &Database, job: &DatabaseJob, message: &str) -> Option<(String, &'static str)> {
    // Those of the migration come first, where both are not there.
    let no_seed_files = format!("{OF_SEED}{NO_FILES}");
    let own = job.files.as_ref().filter(|_| message.replace(&no_seed_files, "").contains(NO_FILES));
    let Some(map) = own else {
        let of_seed = job.seed_files.as_ref().filter(|_| message.contains(&no_seed_files))?;
        return Some((of_seed.clone(), "seed"));
    };
    let of = |change: Option<&Change>| change.and_then(|it| it.sql.as_ref()).is_some_and(|it| it.config_map == *map);
    let field = match () {
        () if of(database.migration.as_ref().map(|it| &it.change)) => "migration",
        () if of(database.seed.as_ref().map(|it| &it.change)) => "seed",
        () => "migrationDown",
    };
    Some((map.clone(), field))
}

/// What the runner found missing in its pod, with the object and the field that were to bring it.
pub fn told(pass: &Pass<'_>, database: &Database, job: &DatabaseJob, message: &str) -> String {
    if let Some((map, field)) = without_files(database, job, message) {
        return format!(
            "ConfigMap {map}, which spec.database.{field}.sql.configMap names, does not exist or has no key that ends in .sql: {} \
             create configmap {map} --from-file=DIRECTORY, then retry ({message})",
            kubectl(pass)
        );
    }
    let authority = job.ca.as_ref().filter(|_| message.contains(NO_AUTHORITY)).and_then(of_authority);
    let Some(authority) = authority else { return message.to_owned() };
    let key = authority.key.as_deref();
    format!(
        "{}, which {} names, does not exist: {}, then retry ({message})",
        described(&authority, key),
        authority.field,
        remedy(pass, &authority, false, Some(&authority)).trim_end_matches("; it goes on by itself")
    )
}
