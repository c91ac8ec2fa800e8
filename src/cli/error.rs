//! What can go wrong for a person at the command line: what failed, and what to do about it.

use std::error::Error as _;

use kube::core::Status;

use super::exit;

/// How the operator is installed; the remedy when its kinds are missing.
pub const INSTALL: &str = "helm install service-release-operator charts/service-release-operator \
                           -n service-release-system --create-namespace";

/// How to see whether the operator runs.
pub const FIND_OPERATOR: &str = "kubectl get pods -A -l app.kubernetes.io/name=service-release-operator";

/// Why a command could not be done. [`CliError::remedy`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No way to a cluster is configured.
    #[error("no usable kubeconfig: {0}")]
    NoKubeconfig(String),
    /// The API server does not answer.
    #[error("cannot {what}: the API server {server} does not answer: {why}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// Its address.
        server: String,
        /// The chain of causes.
        why: String,
    },
    /// The credentials are not accepted.
    #[error("cannot {what}: the API server does not accept the credentials: {why}")]
    Unauthorized {
        /// What was tried.
        what: String,
        /// The API server's words.
        why: String,
    },
    /// RBAC or an admission policy says no.
    #[error("cannot {what}: {why}")]
    Forbidden {
        /// What was tried.
        what: String,
        /// The API server's words.
        why: String,
        /// Whom or what to ask for.
        remedy: String,
    },
    /// The CRDs are not there.
    #[error("cannot {what}: the cluster does not know ServiceReleases")]
    NotInstalled {
        /// What was tried.
        what: String,
    },
    /// There is no such object.
    #[error("there is no {kind} {name} in namespace {namespace}")]
    NotFound {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What to do instead.
        remedy: String,
    },
    /// The API server refuses for another reason.
    #[error("cannot {what}: {why}")]
    Api {
        /// What was tried.
        what: String,
        /// The API server's words.
        why: String,
    },
    /// The command makes no sense for the release as it is.
    #[error("{what}")]
    NotNow {
        /// Why not.
        what: String,
        /// What to do instead.
        remedy: String,
    },
    /// What was asked for cannot be done with what was given.
    #[error("{what}")]
    Usage {
        /// What is wrong, with the flag.
        what: String,
        /// What to give instead.
        remedy: String,
    },
    /// A Prometheus does not answer, or not sensibly.
    #[error("--prometheus {address}: {why}")]
    Prometheus {
        /// Its address, without credentials.
        address: String,
        /// What it said.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It was deleted while someone waited for it.
    #[error("{0} was deleted meanwhile")]
    Deleted(String),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// A value cannot be written as JSON or YAML.
    #[error("cannot write the output: {0}")]
    Format(String),
}

impl CliError {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::NoKubeconfig(_) => {
                "set KUBECONFIG or --kubeconfig to the file for your cluster, or name one of its contexts with --context (kubectl config get-contexts)".to_owned()
            }
            Self::Unreachable { .. } => {
                "check that `kubectl version` reaches the cluster; a VPN, a proxy or the wrong --context are the usual reasons".to_owned()
            }
            Self::Unauthorized { .. } => "log in to the cluster again; `kubectl auth whoami` shows as whom you are known".to_owned(),
            Self::NotInstalled { .. } => format!("install the operator: {INSTALL}\n  or name another cluster with --context"),
            Self::Forbidden { remedy, .. }
            | Self::NotFound { remedy, .. }
            | Self::NotNow { remedy, .. }
            | Self::Usage { remedy, .. } => remedy.clone(),
            Self::Prometheus { remedy, .. } => (*remedy).to_owned(),
            Self::Deleted(_) => "apply it again, or list what is there: kubectl srel get".to_owned(),
            Self::Api { .. } | Self::File { .. } | Self::Output(_) | Self::Format(_) => return None,
        };
        Some(text)
    }

    /// The exit code of the process.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        exit::ERROR
    }

    /// Translates an error of the client. `what` completes "cannot ...".
    #[must_use]
    pub fn of_client(what: &str, server: &str, error: &kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_status(what, status),
            kube::Error::Auth(error) => Self::Unauthorized { what, why: chain(error) },
            other => Self::Unreachable { what, server: server.to_owned(), why: chain(other) },
        }
    }

    fn of_status(what: String, status: &Status) -> Self {
        let why = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
        match status.code {
            401 => Self::Unauthorized { what, why },
            403 => Self::Forbidden { what, remedy: remedy_for_forbidden(&why), why },
            404 if no_such_kind(status) => Self::NotInstalled { what },
            _ => Self::Api { what, why },
        }
    }

    /// Whether asking again cannot help.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Api { .. })
    }
}

/// A 404 without an object's name is about the kind: the API server has no such path.
fn no_such_kind(status: &Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.name.is_empty())
}

/// Admission policies and RBAC both answer 403; what helps is different.
fn remedy_for_forbidden(message: &str) -> String {
    if message.contains("requestedBy") {
        return "leave requestedBy to this command: it fills in who you are (kubectl auth whoami)".to_owned();
    }
    if message.contains("ValidatingAdmissionPolicy") {
        return "each command is a permission of its own; the ClusterRoles service-release-operator-releaser and \
                service-release-operator-approver, bound in the namespace, have them"
            .to_owned();
    }
    "the ClusterRole service-release-operator-viewer (to read), -releaser or -approver (to give commands), bound in the \
     namespace, allows it; `kubectl auth can-i --list` shows what you may do"
        .to_owned()
}

/// An error and its causes, each once, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl From<kube::config::KubeconfigError> for CliError {
    fn from(error: kube::config::KubeconfigError) -> Self {
        let mut text = error.to_string();
        if let Some(cause) = error.source()
            && !text.contains(&cause.to_string())
        {
            text = format!("{text}: {cause}");
        }
        Self::NoKubeconfig(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str, name: &str) -> CliError {
        let status: Status =
            serde_json::from_value(serde_json::json!({"code": code, "message": message, "details": {"name": name}}))
                .unwrap();
        CliError::of_client("abort shop", "https://server", &kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_404_without_a_name_means_that_the_operator_is_not_installed() {
        let error = refused(404, "the server could not find the requested resource", "");
        assert!(matches!(error, CliError::NotInstalled { .. }));
        assert!(error.remedy().unwrap().contains("helm install"));
        assert!(matches!(refused(404, "not found", "shop"), CliError::Api { .. }));
    }

    #[test]
    fn what_the_admission_policy_refuses_is_told_apart_from_what_rbac_refuses() {
        let policy = refused(
            403,
            "ValidatingAdmissionPolicy 'commands' with binding 'commands' denied request: jane may not abort shop",
            "x",
        );
        assert!(policy.to_string().contains("jane may not abort shop"));
        assert!(policy.remedy().unwrap().contains("permission of its own"));
        let rbac = refused(403, "User \"jane\" cannot create resource \"releasecommands\"", "x");
        assert!(rbac.remedy().unwrap().contains("-viewer"));
    }
}
