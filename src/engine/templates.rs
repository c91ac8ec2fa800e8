//! Puts the metrics of AnalysisTemplates into an analysis: arguments into their texts, limits in place of theirs.

use crate::{
    api::{
        Analysis, AnalysisTemplateSpec, Metric, Override, Prometheus, ServiceRelease, ServiceReleaseSpec, TemplateArg,
        TemplateRef, Web,
        status::{MAX_TEXT, bounded},
        validate,
    },
    checks,
};

use super::{
    alike,
    invalid::Obstacle,
    names::encoded,
    observed::{NamedTemplate, Observed},
    pass::Pass,
    rest, revision,
};

/// Metrics of a release, those of its templates included; so many verdicts its status has room for.
pub const MAX_METRICS: usize = 8;

/// Why an analysis cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A template does not exist.
    Missing {
        /// The field of the release.
        field: String,
        /// Kind and name.
        template: String,
    },
    /// What the release says does not go with what a template says.
    Mismatch {
        /// The field of the release.
        field: String,
        /// In a line, with the template.
        message: String,
    },
}

/// Whether the templates of a release have to be read: it is to begin, or has begun and its plan is not pinned.
#[must_use]
pub fn wanted(release: &ServiceRelease, observed: &Observed) -> bool {
    if release.spec.analysis.as_ref().is_none_or(|analysis| analysis.templates.is_empty()) {
        return false;
    }
    let status = release.status.as_ref();
    if status.is_some_and(|status| status.candidate.is_some()) {
        let number = status.and_then(|status| status.release.as_ref()).map(|release| release.number);
        return !observed.plans.iter().any(|plan| Some(plan.number) == number);
    }
    let stable = status.and_then(|status| status.stable.as_ref()).map(|stable| stable.revision.as_str());
    revision::target(release, observed).is_some_and(|target| stable != Some(target.hash.as_str()))
}

/// Whether the spec names templates that were not read for this pass: one that begins a release after it has ended
/// another did not know that it would need them.
pub fn lacking(pass: &Pass<'_>) -> bool {
    pass.release.spec.analysis.as_ref().is_some_and(|analysis| resolve(analysis, &pass.seen.templates).is_err())
}

/// What keeps a release that needs its templates from going on.
pub fn fault(pass: &Pass<'_>) -> Option<Obstacle> {
    let analysis = pass.release.spec.analysis.as_ref().filter(|_| wanted(pass.release, pass.seen))?;
    let target = pass.target.as_ref()?;
    if pass.status.candidate.is_none() && rest::is_latched(pass, &target.hash) {
        return None;
    }
    if let Some(why) = &pass.seen.template_unreadable {
        let remedy = "let the operator's role get it (the chart gives it no ClusterAnalysisTemplates with watchNamespaces), or correct it; it is tried again";
        return Some(Obstacle::new("AnalysisTemplateUnreadable", bounded(why, MAX_TEXT), remedy));
    }
    let found = resolve(analysis, &pass.seen.templates).and_then(|resolved| comparable(&pass.release.spec, &resolved));
    Some(match found.err()? {
        Fault::Missing { field, template } => Obstacle::new(
            "AnalysisTemplateNotFound",
            format!("{field}: there is no {template}"),
            "create it, or correct templateName or clusterScope; it goes on by itself",
        ),
        Fault::Mismatch { field, message } => Obstacle::new(
            "AnalysisTemplateInvalid",
            bounded(&format!("{field}: {message}"), MAX_TEXT),
            "correct the field that the message names; nothing that runs was changed",
        ),
    })
}

/// Whether there is somebody to compare the candidate with, where a template's metrics do, and something to tell the two
/// apart by.
///
/// # Errors
/// [`Fault::Mismatch`]
pub fn comparable(spec: &ServiceReleaseSpec, resolved: &Analysis) -> Result<(), Fault> {
    let mismatch = |message| Fault::Mismatch { field: "spec.analysis.templates".into(), message };
    let why = checks::incomparable(spec);
    if let Some((metric, why)) = resolved.metrics.iter().find(|metric| metric.compare.is_some()).zip(why) {
        return Err(mismatch(format!("metric {} has compare: {why}", metric.name)));
    }
    // The release's own are told by their fields.
    let own = |metric: &Metric| spec.analysis.iter().any(|own| own.metrics.iter().any(|it| it.name == metric.name));
    let mut others = resolved.metrics.iter().filter(|metric| !own(metric));
    let alike = |metric: &Metric| {
        let (field, why) = alike::sides(metric, spec.traffic.as_ref())?;
        Some(mismatch(format!("metric {}{field}: {why}", metric.name)))
    };
    others.find_map(alike).map_or(Ok(()), Err)
}

/// The analysis with the metrics of its templates before its own, and without references.
///
/// # Errors
/// See [`Fault`].
pub fn resolve(analysis: &Analysis, known: &[NamedTemplate]) -> Result<Analysis, Fault> {
    let mut metrics: Vec<Metric> = Vec::new();
    for (index, reference) in analysis.templates.iter().enumerate() {
        let field = format!("spec.analysis.templates[{index}]");
        let is_meant =
            |it: &&NamedTemplate| it.name == reference.template_name && it.cluster_scope == reference.cluster_scope;
        let Some(template) = known.iter().find(is_meant) else {
            return Err(Fault::Missing { field, template: describe(reference) });
        };
        metrics.extend(filled(&template.spec, reference, &field)?);
    }
    if analysis.templates.is_empty() {
        return Ok(analysis.clone());
    }
    metrics.extend(analysis.metrics.iter().cloned());
    let mismatch = |message: String| Fault::Mismatch { field: "spec.analysis".into(), message };
    for (place, metric) in metrics.iter().enumerate() {
        if metrics[..place].iter().any(|other| other.name == metric.name) {
            return Err(mismatch(format!("there are two metrics {}, those of templates included", metric.name)));
        }
    }
    if metrics.len() > MAX_METRICS {
        let count = metrics.len();
        return Err(mismatch(format!("{count} metrics, those of templates included; at most {MAX_METRICS}")));
    }
    Ok(Analysis { metrics, templates: Vec::new(), ..analysis.clone() })
}

/// A template as people name it.
fn describe(reference: &TemplateRef) -> String {
    let kind = if reference.cluster_scope { "ClusterAnalysisTemplate" } else { "AnalysisTemplate" };
    format!("{kind} {}", reference.template_name)
}

/// The metrics of a template as a release wants them.
fn filled(template: &AnalysisTemplateSpec, reference: &TemplateRef, field: &str) -> Result<Vec<Metric>, Fault> {
    let name = describe(reference);
    let mismatch = |field: String, message: String| Fault::Mismatch { field, message };
    for (index, arg) in reference.args.iter().enumerate() {
        if !template.args.iter().any(|known| known.name == arg.name) {
            let known: Vec<&str> = template.args.iter().map(|arg| arg.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("{name} has no argument {}; it has {known}", arg.name);
            return Err(mismatch(format!("{field}.args[{index}]"), message));
        }
    }
    let mut args = Vec::new();
    for arg in &template.args {
        let given = reference.args.iter().find(|given| given.name == arg.name).map(|given| &given.value);
        let Some(value) = given.or(arg.value.as_ref()) else {
            return Err(mismatch(format!("{field}.args"), format!("{name} needs a value for {}", arg.name)));
        };
        args.push((word(arg), value.as_str()));
    }
    let mut metrics = template.metrics.clone();
    for (index, other) in reference.overrides.iter().enumerate() {
        let field = format!("{field}.overrides[{index}]");
        let Some(metric) = metrics.iter_mut().find(|metric| metric.name == other.name) else {
            return Err(mismatch(field, format!("{name} has no metric {}", other.name)));
        };
        replace_limits(metric, other)
            .map_err(|has| mismatch(field, format!("metric {} of {name} has {has}", other.name)))?;
    }
    for (index, metric) in metrics.iter_mut().enumerate() {
        metric.dry_run |= reference.dry_run;
        put(&args, metric);
        let place = format!("spec.metrics[{index}]");
        if let Some((at, message)) = wrong(metric, template, &place) {
            return Err(mismatch(field.to_owned(), format!("{name}: {at}: {message}")));
        }
    }
    Ok(metrics)
}

/// Puts a release's limits in place of a metric's; says what it has if it has another kind.
fn replace_limits(metric: &mut Metric, other: &Override) -> Result<(), &'static str> {
    match (metric.threshold.as_mut(), metric.compare.as_mut(), metric.burn_rate.as_mut()) {
        (Some(own), ..) => *own = other.threshold.ok_or("threshold")?,
        (_, Some(own), _) => *own = other.compare.ok_or("compare")?,
        (.., Some(own)) => *own = other.burn_rate.ok_or("burnRate")?,
        (None, None, None) => return Err("no limits that could be set: it is of kind workload"),
    }
    Ok(())
}

/// Puts arguments into a metric's texts.
fn put(args: &[(String, &str)], metric: &mut Metric) {
    let fill = |text: &mut String| {
        for (word, value) in args {
            *text = text.replace(word, value);
        }
    };
    // Each field by its name: one that is new may have texts.
    let Metric {
        prometheus,
        web,
        name: _,
        workload: _,
        threshold: _,
        compare: _,
        burn_rate: _,
        failure_threshold: _,
        success_threshold: _,
        dry_run: _,
        no_data: _,
        provider_error: _,
    } = metric;
    if let Some(Prometheus { provider, query, requests, total, events, good, stable }) = prometheus {
        fill(provider);
        let own = stable.iter_mut().flat_map(|own| [&mut own.total, &mut own.events, &mut own.good]);
        [query, requests, total, events, good].into_iter().chain(own).flatten().for_each(fill);
    }
    if let Some(Web { provider, path, value: expression }) = web {
        fill(provider);
        fill(expression);
        for (word, value) in args {
            // Words in braces are encoded when it is known what stands for them.
            let value = encoded(value).replace("%7B%7B", "{{").replace("%7D%7D", "}}");
            *path = path.replace(word, &value);
        }
    }
}

/// The field of a template's metric that is wrong with the arguments put in so far, and why.
fn wrong(metric: &Metric, template: &AnalysisTemplateSpec, place: &str) -> Option<(String, String)> {
    if let Some(violation) = validate::metric(place, metric).into_iter().next() {
        return Some((violation.field, violation.message.to_owned()));
    }
    let texts = serde_json::to_string(metric).unwrap_or_default();
    let words = texts.split("{{args.").skip(1).map(|rest| rest.split("}}").next().unwrap_or_default());
    let mut unknown = words.filter(|word| !template.args.iter().any(|arg| arg.name == *word));
    if let Some(word) = unknown.next() {
        return Some((place.to_owned(), format!("{{{{args.{}}}}} is not among spec.args", bounded(word, 63))));
    }
    if let Some((field, message)) = checks::unknown_word(metric, |word| word.starts_with("args.")) {
        return Some((format!("{place}{field}"), message));
    }
    let (field, expression) = metric.expression().filter(|(_, expression)| !expression.contains("{{args."))?;
    Some((format!("{place}.{field}"), checks::compiles(expression).err()?))
}

/// The first field of a template that is wrong whatever a release says, and why.
#[must_use]
pub fn unsound(template: &AnalysisTemplateSpec) -> Option<(String, String)> {
    let defaults: Vec<_> = template.args.iter().filter_map(|arg| Some((word(arg), arg.value.as_deref()?))).collect();
    template.metrics.iter().enumerate().find_map(|(index, metric)| {
        let mut metric = metric.clone();
        put(&defaults, &mut metric);
        wrong(&metric, template, &format!("spec.metrics[{index}]"))
    })
}

/// What stands for an argument in a template's texts.
fn word(arg: &TemplateArg) -> String {
    format!("{{{{args.{}}}}}", arg.name)
}
