//! Which image a migration runs, by its digest: what a person approves must be what is run, and a tag can be moved in
//! between (RELIABILITY, migration rule 4).

use serde_json::Value;

use crate::api::Change;

use super::{super::pass::Pass, image_from, template};

/// The image as the manifest names it, with the digest that a kubelet reported (`containerStatuses[].imageID`). None where
/// that is not a digest of the same repository: then the node has the image from elsewhere, and no registry has it by
/// that name.
#[must_use]
pub fn pinned(image: &str, reported: &str) -> Option<String> {
    if image.contains('@') {
        return None;
    }
    let reported = reported.split_once("://").map_or(reported, |(_, rest)| rest);
    let (repository, digest) = reported.split_once('@')?;
    let written = without_tag(image);
    let is_digest = digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (is_digest && whole(written) == whole(repository)).then(|| format!("{written}@{digest}"))
}

/// The image of a change by the digest that was found.
pub fn by_digest(change: &Change, image: Option<&str>, reported: &str) -> Option<String> {
    let written = change.template.as_ref()?.pointer("/spec/containers/0/image").and_then(Value::as_str);
    pinned(image.or(written)?, reported)
}

/// Whether a change is run by its tag, although it is known which image that was: the node has it from elsewhere than the
/// manifest says, so that nobody knows a repository that has it by this digest.
pub fn is_loose(pass: &Pass<'_>, change: &Change, reported: &str) -> bool {
    let image = image_from(change, template(pass).as_ref());
    let written =
        change.template.as_ref().and_then(|pod| pod.pointer("/spec/containers/0/image")).and_then(Value::as_str);
    let tag = image.as_deref().or(written).is_some_and(|image| !image.contains('@'));
    tag && !reported.is_empty() && by_digest(change, image.as_deref(), reported).is_none()
}

/// What a kubelet reported, without the repository.
#[must_use]
pub fn digest(reported: &str) -> &str {
    reported.rsplit_once('@').map_or(reported, |(_, digest)| digest)
}

/// Whether two images that kubelets reported are known to be others. One that only one of two nodes has a digest of a
/// repository for may be the same.
#[must_use]
pub fn differ(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((_, one)), Some((_, other))) => one != other,
        (None, None) => !one.is_empty() && !other.is_empty() && one != other,
        _ => false,
    }
}

fn without_tag(image: &str) -> &str {
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    image[name..].find(':').map_or(image, |colon| &image[..name + colon])
}

/// The repository with the registry and the path that are meant where none are written.
fn whole(repository: &str) -> String {
    let first = repository.split('/').next().unwrap_or_default();
    let names_registry = repository.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match (names_registry, repository.contains('/')) {
        (true, _) => repository.replacen("index.docker.io/", "docker.io/", 1),
        (false, true) => format!("docker.io/{repository}"),
        (false, false) => format!("docker.io/library/{repository}"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[rstest]
    #[case("busybox:1.36", "docker.io/library/busybox@", Some("busybox@"))]
    #[case("flyway/flyway", "docker.io/flyway/flyway@", Some("flyway/flyway@"))]
    #[case("registry:5000/team/shop:2", "registry:5000/team/shop@", Some("registry:5000/team/shop@"))]
    #[case("localhost/shop:2", "docker-pullable://localhost/shop@", Some("localhost/shop@"))]
    #[case("shop:2", "docker.io/library/import-2026-11-29@", None)]
    #[case("shop:2", "", None)]
    #[case("mirror.example.com/shop:2", "docker.io/library/shop@", None)]
    fn a_tag_gives_way_to_the_digest_of_the_same_repository(
        #[case] image: &str,
        #[case] repository: &str,
        #[case] expected: Option<&str>,
    ) {
        let expected = expected.map(|repository| format!("{repository}{DIGEST}"));
        assert_eq!(pinned(image, &format!("{repository}{DIGEST}")), expected);
    }

    #[rstest]
    #[case::moved("docker.io/library/import-1@sha256:a", "docker.io/library/import-1@sha256:b", true)]
    #[case::elsewhere("mirror.example.com/shop@sha256:a", "docker.io/team/shop@sha256:a", false)]
    #[case::by_id("sha256:a", "sha256:b", true)]
    #[case::not_told("docker.io/team/shop@sha256:a", "", false)]
    #[case::by_id_on_one_node("docker.io/team/shop@sha256:a", "sha256:b", false)]
    fn images_differ_by_their_digests(#[case] one: &str, #[case] other: &str, #[case] expected: bool) {
        assert_eq!((differ(one, other), differ(other, one)), (expected, expected));
    }

    #[test]
    fn what_is_no_digest_of_a_repository_pins_nothing() {
        let fixed = format!("shop@{DIGEST}");
        let known = format!("docker.io/library/shop@{DIGEST}");
        for (image, reported) in [
            (fixed.as_str(), known.as_str()),
            ("shop:2", DIGEST),
            ("shop:2", "docker.io/library/shop@sha256:short"),
            ("shop:2", "docker.io/library/shop:2"),
            ("", ""),
            ("", "@"),
        ] {
            assert_eq!(pinned(image, reported), None, "{image} {reported}");
        }
    }
}
