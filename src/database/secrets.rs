//! What is never told: passwords of URLs, wherever a program writes them.

use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::Regex;
use reqwest::Url;

/// What stands in the place of a password.
const MASK: &str = "***";
/// A password shorter than this is masked where a URL has it, and not in other words.
const LEAST: usize = 3;

/// What the names of variables with a password end with.
const NAMES: [&str; 6] = ["PASSWORD", "PASSWD", "_PASS", "_PWD", "SECRET", "TOKEN"];

/// URLs with a password, and settings of one.
static SHAPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let shapes = r#"(?i)(?<before>[a-z][a-z0-9+.-]*://[^\s:/@'"]*:)(?<url>[^\s'"]+)(?<after>@)|(?<name>(?:password|passwd|pwd)["']?\s*[=:]\s*)(?<value>'[^']*'|"[^"]*"|[^\s&;,]+)"#;
    Regex::new(shapes).ok()
});

/// Passwords that are known.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those of URLs.
    #[must_use]
    pub fn of<'a>(urls: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known: Vec<String> = urls.into_iter().flat_map(passwords).filter(|word| word.len() >= LEAST).collect();
        // The longest first: one may be a part of another.
        known.sort_by_key(|word| std::cmp::Reverse(word.len()));
        known.dedup();
        Self(known)
    }

    /// The same, with those that this process has in its environment: passwords by their names, and those of URLs.
    #[must_use]
    pub fn known(urls: &[&str]) -> Self {
        let (mut values, mut words) = (Vec::new(), Vec::new());
        for (name, value) in std::env::vars_os() {
            let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else { continue };
            let name = name.to_ascii_uppercase();
            if NAMES.iter().any(|end| name.ends_with(end)) {
                words.push(value);
            } else if value.contains("://") {
                values.push(value);
            }
        }
        let Self(mut all) = Self::of(urls.iter().copied().chain(values.iter().map(String::as_str)));
        all.extend(words.into_iter().filter(|word| word.len() >= LEAST));
        all.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self(all)
    }

    /// A text without any of them, and without what looks like one.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let known = self.0.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), MASK));
        let Some(shapes) = SHAPES.as_ref() else { return known };
        let hidden = |found: &regex::Captures<'_>| match (found.name("before"), found.name("name")) {
            (Some(before), _) => format!("{}{MASK}@", before.as_str()),
            (None, Some(name)) => format!("{}{MASK}", name.as_str()),
            (None, None) => MASK.to_owned(),
        };
        shapes.replace_all(&known, hidden).into_owned()
    }
}

/// The passwords of a URL, as they stand in it and as they are.
fn passwords(url: &str) -> Vec<String> {
    let url = url.trim();
    // What is no URL for this program may be one for another.
    let raw =
        url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).and_then(|(user, _)| user.split_once(':'));
    let mut all: Vec<String> = raw.map(|(_, password)| password.to_owned()).into_iter().collect();
    if let Ok(url) = Url::parse(url) {
        all.extend(url.password().map(str::to_owned));
        all.extend(url.query_pairs().filter(|(name, _)| name == "password").map(|(_, value)| value.into_owned()));
    }
    let decoded: Vec<String> =
        all.iter().filter_map(|word| percent_decode_str(word).decode_utf8().ok().map(Into::into)).collect();
    all.extend(decoded);
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("cannot connect to postgres://shop:p%40ss@db/x?a=b", "cannot connect to postgres://shop:***@db/x?a=b")]
    #[case("the password is p@ss.", "the password is ***.")]
    #[case("jdbc:postgresql://other:word@db/x", "jdbc:postgresql://other:***@db/x")]
    #[case("mysql://a:b@c@db and on", "mysql://a:***@db and on")]
    #[case(
        "jdbc:postgresql://db/x?user=a&password=word&ssl=true",
        "jdbc:postgresql://db/x?user=a&password=***&ssl=true"
    )]
    #[case("host=db PGPASSWORD='a b' user=c", "host=db PGPASSWORD=*** user=c")]
    #[case(r#"{"host":"db","password":"word","pwd": "word"}"#, r#"{"host":"db","password":***,"pwd": ***}"#)]
    #[case("https://example.com:8080/a", "https://example.com:8080/a")]
    #[case("nothing to hide: 5 rows", "nothing to hide: 5 rows")]
    fn no_password_is_told(#[case] text: &str, #[case] told: &str) {
        assert_eq!(Secrets::of(["postgres://shop:p%40ss@db/x"]).mask(text), told);
    }

    #[test]
    fn a_password_that_breaks_its_url_is_masked_all_the_same() {
        let secrets = Secrets::of(["postgres://shop:p@s/s#w@db/x", "not a url"]);
        assert_eq!(secrets.mask("p@s/s#w"), "***");
    }
}
