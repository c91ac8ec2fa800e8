//! The pod templates that the simulated users apply, each with a character: what its pods do.

use std::{cell::RefCell, collections::HashMap};

use serde_json::{Value, json};
use servicerelease::{
    api::{PodTemplate, PodTemplateMetadata},
    engine::Template,
};

/// What pods of a template do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    Good,
    /// Ready only after 25 s.
    Slow,
    NeverReady,
    ImagePull,
    InvalidImage,
    NeverPull,
    /// Restarts before it is ever ready.
    CrashLoop,
    /// Ready, then it crashes again and again.
    CrashAfterReady,
    /// Ready, then it is killed for its memory.
    OutOfMemory,
    /// Ready, and its container ends now and then, so seldom that it is started again without a back-off.
    Restarts,
    /// Ready, and after a while its readiness probe fails for good.
    LosesReadiness,
    ConfigError,
    /// A configuration error that goes away after 10 s (the Secret was created late).
    LateConfig,
    Unschedulable,
    /// The API server refuses the template.
    Refused,
}

/// Letters of the templates. Those that are good come first.
pub const TEMPLATES: &[(char, Quality)] = &[
    ('A', Quality::Good),
    ('B', Quality::Good),
    ('C', Quality::Good),
    ('Y', Quality::Good),
    ('Z', Quality::Good),
    ('S', Quality::Slow),
    ('L', Quality::LateConfig),
    ('N', Quality::NeverReady),
    ('P', Quality::ImagePull),
    ('I', Quality::InvalidImage),
    ('M', Quality::NeverPull),
    ('K', Quality::CrashLoop),
    ('X', Quality::CrashAfterReady),
    ('O', Quality::OutOfMemory),
    ('E', Quality::ConfigError),
    ('U', Quality::Unschedulable),
    ('R', Quality::Refused),
    ('F', Quality::Restarts),
    ('D', Quality::LosesReadiness),
];

pub fn quality(letter: char) -> Quality {
    TEMPLATES.iter().find(|(name, _)| *name == letter).map_or(Quality::Good, |(_, quality)| *quality)
}

/// Whether a release of this template can be expected to end well.
pub fn is_good(letter: char) -> bool {
    matches!(quality(letter), Quality::Good | Quality::Slow | Quality::LateConfig)
}

fn labels() -> Value {
    json!({"app": "shop"})
}

/// The template as a user writes it.
pub fn written(letter: char) -> PodTemplate {
    PodTemplate {
        metadata: Some(PodTemplateMetadata {
            labels: Some([("app".to_owned(), "shop".to_owned())].into()),
            annotations: None,
        }),
        spec: pod_spec(letter),
    }
}

fn pod_spec(letter: char) -> Value {
    json!({"containers": [{
        "name": "app",
        "image": format!("shop:{letter}"),
        "ports": [{"name": "http", "containerPort": 8080}],
    }]})
}

thread_local! {
    static READ: RefCell<HashMap<(char, u8), Template>> = RefCell::default();
}

/// The template as the API server of a version returns it, with the defaults of that version.
pub fn read_back(letter: char, version: u8) -> Template {
    READ.with_borrow_mut(|cache| {
        cache
            .entry((letter, version))
            .or_insert_with(|| {
                let mut spec = pod_spec(letter);
                spec["restartPolicy"] = "Always".into();
                for extra in 0..version {
                    spec[format!("defaultOfVersion{extra}")] = true.into();
                }
                Template::new(json!({"metadata": {"labels": labels()}, "spec": spec}))
            })
            .clone()
    })
}

/// Which template this is, by its image.
pub fn letter_of(template: &Template) -> char {
    let text = template.as_str();
    text.find("\"shop:").and_then(|at| text[at + 6..].chars().next()).unwrap_or('?')
}
