//! Words in braces in the texts of metrics and checks. One for which nothing stands is asked as it is, and whoever is
//! asked finds nothing: a metric without data, as good as none.

use crate::api::{HttpCheck, Metric};

/// All words.
pub const WORDS: [&str; 6] = ["namespace", "release", "revision", "service", "pods", "interval"];

/// The first field of a metric with a word that is neither one of [`WORDS`] nor known otherwise, and what is wrong.
pub fn of_metric(metric: &Metric, known: impl Fn(&str) -> bool) -> Option<(&'static str, String)> {
    texts(metric).into_iter().find_map(|(field, text)| Some((field, unknown(text?, &known)?)))
}

/// The first selector or query of a metric that names pods of whatever namespace.
pub fn lacks_namespace(metric: &Metric) -> Option<&'static str> {
    let everywhere = |text: &str| text.contains("{{pods}}") && !text.contains("namespace");
    let mut queries = texts(metric).into_iter().filter(|(field, _)| field.starts_with(".prometheus"));
    queries.find_map(|(field, text)| text.filter(|text| everywhere(text)).map(|_| field))
}

fn texts(metric: &Metric) -> Vec<(&'static str, Option<&str>)> {
    let prometheus = metric.prometheus.as_ref();
    let own = prometheus.and_then(|it| it.stable.as_ref());
    vec![
        (".prometheus.query", prometheus.and_then(|it| it.query.as_deref())),
        (".prometheus.requests", prometheus.and_then(|it| it.requests.as_deref())),
        (".prometheus.total", prometheus.and_then(|it| it.total.as_deref())),
        (".prometheus.events", prometheus.and_then(|it| it.events.as_deref())),
        (".prometheus.good", prometheus.and_then(|it| it.good.as_deref())),
        (".prometheus.stable.total", own.and_then(|it| it.total.as_deref())),
        (".prometheus.stable.events", own.and_then(|it| it.events.as_deref())),
        (".prometheus.stable.good", own.and_then(|it| it.good.as_deref())),
        (".web.path", metric.web.as_ref().map(|it| it.path.as_str())),
    ]
}

/// What is wrong with the path of a request. A body is the application's: it may have braces of its own.
pub fn of_path(http: &HttpCheck) -> Option<String> {
    unknown(&http.path, |_| false)
}

fn unknown(text: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    let words = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(word, _)| word);
    let is_word = |word: &&str| {
        !word.is_empty() && word.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.' | ' '))
    };
    let word = words.filter(is_word).find(|word| !WORDS.contains(word) && !known(word))?;
    let all: Vec<String> = WORDS.iter().map(|known| format!("{{{{{known}}}}}")).collect();
    Some(format!("nothing stands for {{{{{word}}}}}; there are {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case(r#"sum(rate(a{pod=~"{{pods}}"}[{{interval}}]))"#, None)]
    #[case(r#"sum(rate(a{pod=~"{{pod}}"}[1m]))"#, Some("{{pod}}"))]
    #[case("/a?b={{service}}&c={{ service }}", Some("{{ service }}"))]
    #[case("{{pods}} {{args.app}}", None)]
    #[case(r#"{"a": {"b": 1}} {{"c": 1}}"#, None)]
    fn words_for_which_nothing_stands_are_found(#[case] text: &str, #[case] word: Option<&str>) {
        let found = super::unknown(text, |word| word.starts_with("args."));
        let all = "{{namespace}}, {{release}}, {{revision}}, {{service}}, {{pods}}, {{interval}}";
        assert_eq!(found, word.map(|word| format!("nothing stands for {word}; there are {all}")));
    }
}
