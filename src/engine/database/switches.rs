//! Keys of ConfigMaps that are switched: maintenance mode, and feature flags. Only ConfigMaps with the release's label are
//! seen here at all.

use std::collections::BTreeMap;

use crate::api::{ConfigMapSwitch, Duration, FlagValue, FlagsStatus, LABEL_RELEASE};

use super::{
    super::{
        effect::{Effect, Event},
        observed::ConfigMap,
        pass::Pass,
        report::kubectl,
        retreat, route,
    },
    steps::state,
};

fn map<'a>(pass: &Pass<'a>, name: &str) -> Option<&'a ConfigMap> {
    pass.seen.config_maps.iter().find(|map| map.object.name == name)
}

/// The key that maintenance mode is, by the pinned plan.
fn switch(pass: &Pass<'_>) -> Option<ConfigMapSwitch> {
    pass.policy().maintenance.map(|mode| mode.config_map)
}

/// Sets a key, unless it is so. Says whether it is.
fn set(pass: &mut Pass<'_>, switch: &ConfigMapSwitch, value: &str) -> bool {
    let Some(map) = map(pass, &switch.name) else { return false };
    if map.data.get(&switch.key).map(String::as_str) == Some(value) {
        return true;
    }
    let values = BTreeMap::from([(switch.key.clone(), Some(value.to_owned()))]);
    let effect = Effect::SetKeys { object: map.object.clone(), values };
    // Traffic and the schema may both ask for it in one pass.
    if !pass.after.contains(&effect) {
        pass.after.push(effect);
    }
    false
}

/// Sees to it that the key is as it is in maintenance mode, and says whether all pods go by it. What somebody set back, such as
/// a sync from a repository, is put back, and told.
pub fn hold(pass: &mut Pass<'_>) -> bool {
    let Some(switch) = switch(pass) else { return true };
    let now = pass.now;
    if set(pass, &switch, &switch.on) {
        let since = *state(pass).maintenance_key_since.get_or_insert(now);
        return pass.elapsed(since, switch.propagation_delay);
    }
    if state(pass).maintenance_key_since.take().is_some() {
        let by = map(pass, &switch.name).and_then(|map| map.changed_by.clone());
        let who = by.clone().map(|by| format!(" by {by}")).unwrap_or_default();
        let note = format!("key {} of ConfigMap {} was set back{who}, and is put on again", switch.key, switch.name);
        pass.status.note(now, "MaintenancePutBack", &note, by.as_deref());
        let (reason, action) = ("MaintenancePutBack".into(), "Maintenance".into());
        pass.events.push(Event { warning: true, reason, action, note });
    }
    false
}

/// How long it takes until pods go by the key.
pub fn delay(pass: &Pass<'_>) -> Duration {
    switch(pass).map(|switch| switch.propagation_delay).unwrap_or_default()
}

/// Whether what is switched cannot be found, so that nobody knows how it stands.
pub fn lacking(pass: &Pass<'_>) -> Option<String> {
    let name = switch(pass).map(|switch| switch.name).filter(|name| map(pass, name).is_none())?;
    let release = pass.release.metadata.name.as_deref().unwrap_or_default();
    Some(format!("there is no ConfigMap {name} with the label {LABEL_RELEASE}={release}"))
}

/// Puts maintenance mode on, by all that it is. Says whether it is on.
pub fn close(pass: &mut Pass<'_>) -> bool {
    let now = pass.now;
    if state(pass).maintenance_since.is_none() {
        state(pass).maintenance_since = Some(now);
        pass.status.note(now, "MaintenanceOn", "maintenance mode is put on", None);
    }
    let switched = hold(pass);
    let weight = weight(pass);
    switched && (!is_routed(pass) || route::settled(pass, weight))
}

/// The weight at which the route leads to the page. On the way back it is the one that is there: it moves once stable is warm.
pub fn weight(pass: &Pass<'_>) -> i32 {
    let now = route::weight(pass).filter(|_| retreat::under_way(pass));
    now.unwrap_or_else(|| pass.desired_weight())
}

/// Takes maintenance mode off, if this release put it on. Says whether it is off.
pub fn open(pass: &mut Pass<'_>) -> bool {
    let on = pass.status.database.as_ref().is_some_and(|database| database.maintenance_since.is_some());
    if !on {
        return true;
    }
    // Of one that is not to be found nobody knows what pods go by.
    let open = switch(pass).is_none_or(|switch| set(pass, &switch, &switch.off));
    state(pass).maintenance_key_since = None;
    if open {
        state(pass).maintenance_since = None;
        pass.status.note(pass.now, "MaintenanceOff", "maintenance mode is taken off", None);
    }
    // The route is yet to follow.
    open && !is_routed(pass)
}

/// Takes off what was left on: a cache that lags shows the key as it was before it was set, so that maintenance mode may
/// be on record as off while it is not. What somebody else sets is theirs.
pub fn take_off_what_is_left(pass: &mut Pass<'_>) {
    let Some(switch) = switch(pass).filter(|_| !is_closed(pass)) else { return };
    let Some(map) = map(pass, &switch.name) else { return };
    if map.ours.contains(&switch.key) && map.data.get(&switch.key) == Some(&switch.on) {
        set(pass, &switch, &switch.off);
        let note = format!("key {} of ConfigMap {} was left on, and is taken off", switch.key, switch.name);
        let (reason, action) = ("MaintenanceOff".into(), "Maintenance".into());
        pass.events.push(Event { warning: true, reason, action, note });
    }
}

/// Whether maintenance mode is a Service that the route leads to.
fn is_routed(pass: &Pass<'_>) -> bool {
    pass.traffic_spec().is_some_and(|traffic| traffic.maintenance.is_some())
}

/// Whether it is meant to be on.
pub fn is_closed(pass: &Pass<'_>) -> bool {
    pass.status.database.as_ref().is_some_and(|database| database.maintenance_since.is_some())
}

/// The key that is still as it is in maintenance mode, in words, and the command that sets it back.
pub fn closed(pass: &Pass<'_>) -> Option<(String, String)> {
    let ConfigMapSwitch { name, key, off, .. } = switch(pass).filter(|_| is_closed(pass))?;
    let patch = serde_json::json!({ "data": { &key: off } });
    let command = format!("{} patch configmap {name} --type merge -p '{patch}'", kubectl(pass));
    Some((format!("key {key} of ConfigMap {name}"), command))
}

/// The candidate was promoted: its flags are to be set, and what they were before is kept.
pub fn raise_flags(pass: &mut Pass<'_>) {
    let Some(flags) = pass.policy().flags else { return };
    let release = pass.status.release.as_ref().map_or(0, |release| release.number);
    let data = map(pass, &flags.config_map).map(|map| map.data.clone()).unwrap_or_default();
    let before = flags.values.keys().map(|key| FlagValue { key: key.clone(), value: data.get(key).cloned() }).collect();
    let wanted = flags.values.into_iter().map(|(key, value)| FlagValue { key, value: Some(value) }).collect();
    pass.status.flags = Some(FlagsStatus { config_map: flags.config_map, release, wanted, before, set_at: None });
}

/// The release that set them is taken back: they are to be what they were.
pub fn lower_flags(pass: &mut Pass<'_>, release: i64) {
    let Some(flags) = pass.status.flags.as_mut().filter(|flags| flags.release == release) else { return };
    if flags.wanted != flags.before {
        flags.wanted.clone_from(&flags.before);
        flags.set_at = None;
    }
}

/// Sets flags once; what somebody sets afterwards stays.
pub fn keep_flags(pass: &mut Pass<'_>) {
    let Some(flags) = pass.status.flags.clone().filter(|flags| flags.set_at.is_none()) else { return };
    let Some(map) = map(pass, &flags.config_map) else { return };
    let differs = |flag: &&FlagValue| map.data.get(&flag.key) != flag.value.as_ref();
    let values: BTreeMap<String, Option<String>> =
        flags.wanted.iter().filter(differs).map(|flag| (flag.key.clone(), flag.value.clone())).collect();
    if values.is_empty() {
        let word = |FlagValue { key, value }: &FlagValue| {
            value.as_ref().map_or(format!("{key} removed"), |value| format!("{key}={value}"))
        };
        let words: Vec<String> = flags.wanted.iter().map(word).collect();
        let now = pass.now;
        pass.status.note(now, "Flags", &format!("ConfigMap {}: {}", flags.config_map, words.join(", ")), None);
        if let Some(known) = &mut pass.status.flags {
            known.set_at = Some(now);
        }
        return;
    }
    pass.after.push(Effect::SetKeys { object: map.object.clone(), values });
}
