//! The hosts beyond a release that checks may ask (`--allowed-hosts`, chart value `allowedHosts`). Without a list the
//! operator would ask, from its own place in the network, whatever a tenant writes.

use std::str::FromStr;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl FromStr for AllowedHosts {
    type Err = String;

    /// Reads hosts, separated by commas: `payments.internal`, `payments.internal:8443` for that port alone,
    /// `*.internal` for all below it.
    fn from_str(text: &str) -> Result<Self, String> {
        let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_ascii_lowercase()).collect();
        let hosts: Vec<String> = hosts.into_iter().filter(|host| !host.is_empty()).collect();
        let sound = |host: &&String| {
            let name = host.strip_prefix("*.").unwrap_or(host);
            name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && name.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | ':'))
        };
        match hosts.iter().find(|host| !sound(host)) {
            Some(host) => Err(format!("allowedHosts: {host:?} is none of HOST, HOST:PORT and *.DOMAIN")),
            None => Ok(Self(hosts)),
        }
    }
}

impl AllowedHosts {
    /// Whether a host, with or without a port, may be asked.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let name = host.split(':').next().unwrap_or_default();
        self.0.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(domain) => name.len() > domain.len() && name.ends_with(domain),
            None => *allowed == host || *allowed == name,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "payments.internal", false)]
    #[case("payments.internal", "payments.internal", true)]
    #[case("payments.internal", "Payments.internal:8443", true)]
    #[case("payments.internal:8443", "payments.internal:8443", true)]
    #[case("payments.internal:8443", "payments.internal", false)]
    #[case("payments.internal:8443", "payments.internal:22", false)]
    #[case("a.test, *.internal", "deep.payments.internal:1", true)]
    #[case("*.internal", "internal", false)]
    #[case("*.internal", "evilinternal", false)]
    #[case("payments.internal", "169.254.169.254", false)]
    fn what_is_listed_may_be_asked(#[case] list: &str, #[case] host: &str, #[case] allowed: bool) {
        assert_eq!(list.parse::<AllowedHosts>().unwrap().allows(host), allowed);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for list in ["*", "http://payments", "a b", "*."] {
            assert!(list.parse::<AllowedHosts>().unwrap_err().starts_with("allowedHosts: "), "{list}");
        }
    }
}
