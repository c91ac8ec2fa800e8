//! What stands for the words in braces in the texts of a metric, or of a check by HTTP: `{{service}}`, `{{pods}}` and the
//! others.

use crate::api::{Analysis, Duration, ServiceRelease};

use super::pass::Pass;

/// The longest beginning of a pod's name that its ReplicaSet gives it; Kubernetes cuts what is longer.
const LONGEST_PREFIX: usize = 58;
/// Letters of the hash that names a revision.
const HASH: usize = 10;

/// Whose names are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The candidate's.
    Candidate,
    /// Stable's.
    Stable,
    /// The release's as a whole, with revisions of earlier days.
    Both,
}

/// Each word with what stands for it.
#[derive(Clone, Debug)]
pub struct Names([(&'static str, String); 6]);

/// The names of all sides.
#[derive(Clone, Debug)]
pub struct Sides {
    /// See [`Side::Candidate`].
    pub candidate: Names,
    /// See [`Side::Stable`].
    pub stable: Names,
    /// See [`Side::Both`].
    pub both: Names,
}

impl Sides {
    /// Those of two revisions of a release, the candidate with its own Service.
    #[must_use]
    pub fn new(release: &ServiceRelease, interval: Duration, candidate: &str, stable: &str) -> Self {
        let traffic = release.spec.traffic.as_ref();
        let own = traffic.and_then(|traffic| traffic.candidate_service.as_deref());
        Self {
            candidate: Names::new(release, interval, Side::Candidate, candidate, own),
            stable: Names::new(release, interval, Side::Stable, stable, None),
            both: Names::new(release, interval, Side::Both, candidate, None),
        }
    }

    /// Those of a pass. After the promotion there is no candidate any more: stable is what is meant, at its Service.
    pub fn of(pass: &Pass<'_>, analysis: &Analysis) -> Option<Self> {
        let (stable, interval) = (pass.stable_hash()?, analysis.interval);
        let Some(candidate) = pass.candidate_hash() else {
            let names = |side| Names::new(pass.release, interval, side, stable, None);
            return Some(Self {
                candidate: names(Side::Candidate),
                stable: names(Side::Stable),
                both: names(Side::Both),
            });
        };
        Some(Self::new(pass.release, interval, candidate, stable))
    }
}

impl Names {
    /// The names of a side with this revision, at its own Service if it has one.
    fn new(release: &ServiceRelease, interval: Duration, side: Side, hash: &str, own: Option<&str>) -> Self {
        let metadata = &release.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let traffic = release.spec.traffic.as_ref();
        let service = own.or_else(|| traffic.map(|traffic| traffic.service.as_str())).unwrap_or_default();
        Self([
            ("{{namespace}}", metadata.namespace.clone().unwrap_or_default()),
            ("{{release}}", name.to_owned()),
            ("{{revision}}", hash.to_owned()),
            ("{{service}}", service.to_owned()),
            ("{{pods}}", pods(name, (side != Side::Both).then_some(hash))),
            ("{{interval}}", format!("{}ms", interval.as_millis())),
        ])
    }

    /// Those for a check: of the candidate, or else of stable.
    #[must_use]
    pub fn of_check(pass: &Pass<'_>, interval: Duration) -> Self {
        let candidate = pass.candidate_hash();
        let hash = candidate.or(pass.stable_hash()).unwrap_or_default();
        let own = candidate.and(pass.traffic_spec()).and_then(|traffic| traffic.candidate_service.as_deref());
        Self::new(pass.release, interval, Side::Candidate, hash, own)
    }

    /// With another regular expression for the names of pods.
    #[must_use]
    pub fn with_pods(mut self, pods: &str) -> Self {
        for (word, value) in &mut self.0 {
            if *word == "{{pods}}" {
                pods.clone_into(value);
            }
        }
        self
    }

    /// Puts them into a text.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Puts them, percent-encoded, into a path and query.
    #[must_use]
    pub fn fill_encoded(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, &encoded(value)))
    }
}

/// A text as it stands in a query, or in a segment of a path.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// A regular expression for the names of the pods of a revision, or of all.
fn pods(release: &str, hash: Option<&str>) -> String {
    let room = LONGEST_PREFIX.saturating_sub(release.len() + 1);
    let letters = room.min(HASH);
    let hash = match hash {
        Some(hash) => hash.get(..room).unwrap_or(hash).to_owned(),
        // No word has so many consonants in a row: pods of others are not taken for the release's.
        None => format!("[bcdfghjklmnpqrst]{{{letters}}}"),
    };
    let dash = if room > HASH { "-" } else { "" };
    // In a class it needs no backslash, which a PromQL text would want twice.
    let release = release.replace('.', "[.]");
    format!("{release}-{hash}{dash}[a-z0-9]+")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("shop", Some("bcdfghjklm"), "shop-bcdfghjklm-[a-z0-9]+")]
    #[case("shop.eu", Some("bcdfghjklm"), "shop[.]eu-bcdfghjklm-[a-z0-9]+")]
    #[case("shop", None, "shop-[bcdfghjklmnpqrst]{10}-[a-z0-9]+")]
    fn pods_are_named_after_their_replica_set(#[case] name: &str, #[case] hash: Option<&str>, #[case] expected: &str) {
        assert_eq!(pods(name, hash), expected);
    }

    #[test]
    fn something_stands_for_each_word_that_a_manifest_may_have() {
        let names =
            Names::new(&ServiceRelease::new("shop", Default::default()), Duration::default(), Side::Both, "a", None);
        let words = names.0.map(|(word, _)| word);
        assert_eq!(words.map(str::to_owned), crate::checks::WORDS.map(|word| format!("{{{{{word}}}}}")));
    }

    #[test]
    fn long_names_are_cut_as_kubernetes_cuts_them() {
        let name = "x".repeat(52);
        assert_eq!(pods(&name, Some("bcdfghjklm")), format!("{name}-bcdfg[a-z0-9]+"));
        assert_eq!(pods(&name, None), format!("{name}-[bcdfghjklmnpqrst]{{5}}[a-z0-9]+"));
        let name = "x".repeat(47);
        assert_eq!(pods(&name, Some("bcdfghjklm")), format!("{name}-bcdfghjklm[a-z0-9]+"));
    }
}
