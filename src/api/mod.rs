//! The custom resources: types, defaults, validation, conditions. No I/O.
//!
//! The manifests under `crds/` are generated from here (`service-release-operator crd`).

pub mod analysis;
pub mod check;
pub mod command;
pub mod conditions;
pub mod crds;
pub mod database;
pub mod database_status;
pub mod evidence;
pub mod http_check;
pub mod mounted;
pub mod progress_status;
pub mod release;
pub mod router;
pub mod scalar;
pub mod shares;
pub mod sql_check;
pub mod status;
pub mod strategy;
pub mod template;
pub mod validate;
pub mod verify;

pub use analysis::{
    Analysis, BurnRate, Compare, Metric, NoData, OnInconclusive, Prometheus, ProviderError, Source, StableCounters,
    Threshold, Web, Workload,
};
pub use check::{Check, JobCheck, KeysOf, LogsCheck, Moment, OnFailure};
pub use command::{
    Action, ApprovalKind, CommandApproval, CommandPhase, ReleaseCommand, ReleaseCommandSpec, ReleaseCommandStatus,
};
pub use database::{
    Backup, BackupClaim, Change, ConfigMapSwitch, Database, DatabasePreflight, Engine, Flags, ImageFrom,
    LocalReference, MaintenanceMode, Migration, MigrationApproval, MigrationDown, OnRollback, Proof, Rehearsal,
    RehearsalMode, Retention, RunnerPod, Seed, SqlFiles,
};
pub use database_status::{
    BackupStatus, DatabaseApproval, DatabaseFix, DatabaseStatus, DatabaseTask, DatabaseWork, FlagValue, FlagsStatus,
    MigratedStatus, MigrationDownStatus, ProvenBackup, RehearsalStatus, SchemaState, SeedStatus, WorkOutcome,
};
pub use evidence::{
    CheckOutcome, CheckStatus, RecentStatus, SegmentStatus, TallyStatus, VerdictOutcome, VerdictStatus, WindowStatus,
};
pub use http_check::{CaSource, Expect, Header, HttpCheck, Method, Scheme, SecretKey, SecretSource, Target};
pub use mounted::MountedMaps;
pub use progress_status::{
    Draining, Hold, RollbackCause, RollbackStatus, StepName, StepProgress, StepStatus, Suspension, Unreached,
};
pub use release::{
    Observation, PodTemplate, PodTemplateMetadata, Rollback, Selector, ServiceRelease, ServiceReleaseSpec, Traffic,
    WorkloadKind, WorkloadRef,
};
pub use router::{CustomRef, GatewayRoute, HttpRouteRef, Maintenance, ParentRef, RouteProtocol, Router};
pub use scalar::{Duration, Timestamp};
pub use shares::{RouteStatus, WeightShare, Weights};
pub use sql_check::{ExpectedRows, ExpectedValue, SqlCheck, SqlExpect};
pub use status::{
    CommandRecord, FailedRevision, ObservationStatus, Phase, PodProblem, RecordedRevision, ReleaseStatus,
    RevisionStatus, ServiceReleaseStatus, TimelineEntry, WorkloadStatus,
};
pub use strategy::{
    Approval, BlueGreen, Canary, CanaryStep, DynamicStableScale, HeaderMatch, HeaderMatchType, HeaderRoute,
    MirrorRoute, Pause, Scale, Strategy,
};
pub use template::{AnalysisTemplate, AnalysisTemplateSpec, ArgValue, Override, TemplateArg, TemplateRef};
pub use verify::{ExpectedColumn, ExpectedConstraint, Verify, VerifyQuery};

/// The API group of every kind defined here.
pub const GROUP: &str = "servicerelease.io";
/// The name under which the operator writes.
pub const FIELD_MANAGER: &str = "service-release-operator";
/// Label on everything the operator makes: the name of the ServiceRelease.
pub const LABEL_RELEASE: &str = "servicerelease.io/release";
/// Label on everything the operator makes for one revision: its hash.
pub const LABEL_REVISION: &str = "servicerelease.io/revision";
/// The label with the name of the Job, on Jobs of a release and their pods.
pub const LABEL_JOB: &str = "servicerelease.io/job";
/// Annotation on a Service that was there before: its selector as the user wrote it, as JSON.
pub const ANNOTATION_ORIGINAL_SELECTOR: &str = "servicerelease.io/original-selector";
/// Annotation on a ReplicaSet: the fingerprint of the template that it was made from.
pub const ANNOTATION_FINGERPRINT: &str = "servicerelease.io/fingerprint";
/// Annotation on a Job that outlives the ServiceRelease: the uid of that, in place of an ownerReference.
pub const ANNOTATION_OWNER_UID: &str = "servicerelease.io/owner-uid";
/// Annotation on a Job that works on a database, and on its pod: the container whose termination message is its report.
pub const ANNOTATION_REPORTS: &str = "servicerelease.io/reports";
/// Finalizer of a ServiceRelease that has something to give back on deletion.
pub const FINALIZER: &str = "servicerelease.io/hand-back";
