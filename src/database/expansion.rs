//! `$(NAME)` in a container's command and arguments, by the rules of Kubernetes: `$$` is a dollar, a name that is not known
//! stays as it is written. The kubelet expands it when it makes the container; what it must not touch is protected from it.

/// Text that the kubelet makes the given text of.
#[must_use]
pub fn protect(text: &str) -> String {
    text.replace('$', "$$")
}

/// Text with the variables of an environment put in.
#[must_use]
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        expanded.push_str(&rest[..place]);
        let after = &rest[place + 1..];
        if let Some(literal) = after.strip_prefix('$') {
            expanded.push('$');
            rest = literal;
        } else if let Some((name, end)) = after.strip_prefix('(').and_then(|named| named.split_once(')')) {
            expanded.push_str(&value(name).unwrap_or_else(|| format!("$({name})")));
            rest = end;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    // The cases of k8s.io/kubernetes/third_party/forked/golang/expansion.
    #[rstest]
    #[case("$(URL)", "db")]
    #[case("-url=$(URL)&x", "-url=db&x")]
    #[case("$(URL)$(URL)", "dbdb")]
    #[case("$(NONE)", "$(NONE)")]
    #[case("$$(URL)", "$(URL)")]
    #[case("$$$(URL)", "$db")]
    #[case("DO $$$$ x $$$$", "DO $$ x $$")]
    #[case("$(URL", "$(URL")]
    #[case("$URL $1 $", "$URL $1 $")]
    #[case("a$()b", "a$()b")]
    fn names_are_expanded_as_kubernetes_does(#[case] text: &str, #[case] expanded: &str) {
        assert_eq!(expand(text, |name| (name == "URL").then(|| "db".to_owned())), expanded);
    }

    proptest! {
        #[test]
        fn what_is_protected_comes_out_as_it_was(text in "[$()A-Z{}\" é]{0,24}") {
            prop_assert_eq!(expand(&protect(&text), |_| Some("wrong".to_owned())), text);
        }
    }
}
