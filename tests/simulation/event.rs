//! What can happen in a case, from outside the operator and inside it, and how it is put in words.

use std::fmt;

use servicerelease::api::Action;

use crate::{
    model::{
        cluster::{Lag, Propagation},
        database::{faults::Rotation, foreign::Deeds},
    },
    setup,
};

/// What goes wrong in a pass of the operator, at the k-th write (counted from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    None,
    /// The process dies before the write.
    CrashBefore(u8),
    /// The process dies after the write.
    CrashAfter(u8),
    /// The write is carried out, but reported as failed.
    Lost(u8),
    /// The write is refused (429, 5xx).
    Refused(u8),
    /// The process is stopped before the write, and may be continued later.
    Stopped(u8),
}

/// What a command is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The revision and the step that are right at the moment.
    Right,
    /// The right revision, without a step.
    RevisionOnly,
    /// Neither, for those that need none.
    Bare,
    /// Another revision.
    WrongRevision,
    /// The step before: a late duplicate.
    LateStep,
    /// A step that has not come.
    NextStep,
}

/// What a person makes of a Service's selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// The operator's labels are taken out.
    Widened,
    /// It selects a revision that there is not.
    Astray,
    /// It selects the pods of another application.
    Replaced,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passes; controllers whose bit is set lag behind.
    Tick {
        millis: i64,
        lagging: u8,
    },
    /// One pass of an operator process, with caches that lag by so many changes, kind by kind.
    Pass {
        leader: u8,
        lag: Lag,
        fault: Fault,
    },
    /// Rounds of one second in which everything works.
    Settle(u8),
    /// For so many seconds no operator runs.
    Away(u8),
    /// A stopped process goes on with the pass that it was in.
    Continue(u8),
    Template(char),
    Strategy(u8, u8),
    Replicas(i32),
    Paused(bool),
    RetryToken(u8),
    MinReady(i32),
    Automatic(bool),
    HistoryLimit(i32),
    Command {
        action: Action,
        aim: Aim,
        full: bool,
    },
    /// Two commands that contradict each other, at the same moment.
    Commands(Action, Action),
    RecreateCommand,
    DeleteCommand,
    LoseReadiness(u8),
    Crash(u8),
    Evict(u8),
    Drain(u8),
    NodeLoss,
    DeleteSet(u8),
    ScaleSet(u8, i32),
    DeleteService(bool),
    DeleteJob(u8),
    /// The manifest's migration becomes that of a version.
    Migration(u8),
    /// The contents of the ConfigMap with SQL files change behind its name.
    Files,
    /// The pod of a Job of the database is killed.
    KillWorker(u8),
    /// A release of another namespace works on the same database: what it does, and for how many seconds it has the lock.
    Foreign(Deeds, u8),
    /// The database is restarted.
    Restart,
    /// The password of the database's role, or the Secret with it, changes.
    Password(Rotation),
    /// A person finds out what became of what nobody knew, and notes it in the ledger.
    SettleByHand,
    DeleteRelease(Propagation),
    CreateRelease,
    ScaleDeployment(i32),
    Autoscaler(bool),
    Rival(bool),
    Contest(bool),
    ApiUpgrade,
    /// A person sets the candidate's weight in the route.
    RouteWeight(i32),
    /// The candidate's weight that a GitOps tool applies in the user's route whenever it differs.
    RouteHealed(Option<i32>),
    /// A person changes what a Service selects.
    Selector {
        candidate: bool,
        how: Meddling,
    },
    DeleteRoute,
    /// What a person does who is told that the user's route is missing.
    RestoreRoute,
    GatewayRefuses(bool),
    /// A router is added to the spec.
    AddRouter,
    /// The clock of both operators jumps.
    Clock(i64),
}

impl Event {
    /// The row of the coverage table.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tick { .. } | Self::Settle(_) => "time",
            Self::Pass { .. } | Self::Continue(_) => "pass",
            Self::Away(_) => "away",
            Self::Template(_) => "template",
            Self::Strategy(..) | Self::MinReady(_) | Self::Automatic(_) | Self::HistoryLimit(_) | Self::ApiUpgrade => {
                "spec"
            }
            Self::Replicas(_) => "replicas",
            Self::Paused(_) => "paused",
            Self::RetryToken(_) => "retryToken",
            Self::Command { action, .. } => match action {
                Action::Promote => "promote",
                Action::Abort => "abort",
                Action::Undo => "undo",
                Action::Retry => "retry",
                Action::Approve => "approve",
                Action::Pause => "pause",
                Action::Resume => "resume",
                Action::Skip => "skip",
            },
            Self::Commands(..) | Self::RecreateCommand | Self::DeleteCommand => "commands",
            Self::LoseReadiness(_) | Self::Crash(_) | Self::Evict(_) | Self::Drain(_) | Self::NodeLoss => "pods",
            Self::DeleteSet(_)
            | Self::Selector { .. }
            | Self::ScaleSet(..)
            | Self::DeleteService(_)
            | Self::ScaleDeployment(_)
            | Self::DeleteJob(_) => "meddling",
            Self::Migration(_) | Self::Files | Self::KillWorker(_) | Self::SettleByHand => "database",
            Self::Foreign(..) => "foreign",
            Self::Restart => "restart",
            Self::Password(_) => "password",
            Self::DeleteRelease(_) | Self::CreateRelease => "deletion",
            Self::Autoscaler(_) | Self::Rival(_) | Self::Contest(_) => "contest",
            Self::RouteWeight(_) | Self::RouteHealed(_) | Self::DeleteRoute | Self::RestoreRoute => "route",
            Self::GatewayRefuses(_) | Self::AddRouter => "router",
            Self::Clock(_) => "clock",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick { millis, lagging } => {
                write!(f, "{millis} ms pass")?;
                let names =
                    ["kubelet", "ReplicaSets", "Deployment", "endpoints", "proxy", "gc", "gateway", "data plane"];
                let lags = names.iter().enumerate().filter(|(bit, _)| lagging >> bit & 1 == 1);
                let lags: Vec<_> = lags.map(|(_, name)| *name).collect();
                if lags.is_empty() { Ok(()) } else { write!(f, "; lagging: {}", lags.join(", ")) }
            }
            Self::Pass { leader, lag, fault } => {
                write!(f, "pass of operator {leader}")?;
                let names = [
                    "release",
                    "sets",
                    "pods",
                    "deployment",
                    "services",
                    "slices",
                    "plans",
                    "commands",
                    "others",
                    "route",
                    "jobs",
                ];
                for (name, lag) in names.iter().zip(lag).filter(|(_, lag)| **lag > 0) {
                    write!(f, ", {name} {lag} behind")?;
                }
                match fault {
                    Fault::None => Ok(()),
                    Fault::CrashBefore(k) => write!(f, ", dies before write {k}"),
                    Fault::CrashAfter(k) => write!(f, ", dies after write {k}"),
                    Fault::Lost(k) => write!(f, ", the response to write {k} is lost"),
                    Fault::Refused(k) => write!(f, ", write {k} is refused"),
                    Fault::Stopped(k) => write!(f, ", is stopped before write {k}"),
                }
            }
            Self::Settle(rounds) => write!(f, "{rounds} s in which all works"),
            Self::Away(seconds) => write!(f, "for {seconds} s no operator runs"),
            Self::Continue(leader) => write!(f, "operator {leader} is continued"),
            Self::Template(letter) => write!(f, "the template becomes {letter}"),
            Self::Strategy(index, bounds) => {
                write!(f, "the strategy becomes {}", setup::describe(*index, *bounds))
            }
            Self::Replicas(replicas) => write!(f, "spec.replicas becomes {replicas}"),
            Self::Paused(paused) => write!(f, "spec.paused becomes {paused}"),
            Self::RetryToken(token) => write!(f, "spec.retryToken becomes {token}"),
            Self::MinReady(seconds) => write!(f, "spec.minReadySeconds becomes {seconds}"),
            Self::Automatic(yes) => write!(f, "rollback.automatic becomes {yes}"),
            Self::HistoryLimit(limit) => write!(f, "revisionHistoryLimit becomes {limit}"),
            Self::Command { action, aim, full } => {
                let full = if *full { " full" } else { "" };
                write!(f, "command {action:?}{full}, aimed {aim:?}")
            }
            Self::Commands(one, other) => write!(f, "commands {one:?} and {other:?} at once"),
            Self::RecreateCommand => write!(f, "the last command is created again"),
            Self::DeleteCommand => write!(f, "the last command is deleted by its user"),
            Self::LoseReadiness(n) => write!(f, "pod #{n} is unready for 7 s"),
            Self::Crash(n) => write!(f, "pod #{n} crashes"),
            Self::Evict(n) => write!(f, "pod #{n} is evicted"),
            Self::Drain(n) => write!(f, "pod #{n} is drained"),
            Self::NodeLoss => write!(f, "a node is lost with every second pod"),
            Self::DeleteSet(n) => write!(f, "a user deletes ReplicaSet #{n}"),
            Self::ScaleSet(n, to) => write!(f, "a user scales ReplicaSet #{n} to {to}"),
            Self::DeleteService(candidate) => {
                let which = if *candidate { "candidate " } else { "" };
                write!(f, "a user deletes the {which}Service")
            }
            Self::DeleteJob(n) => write!(f, "a user deletes Job #{n}"),
            Self::Migration(version) => write!(f, "spec.database becomes that of version {version}"),
            Self::Files => write!(f, "SQL files change behind their ConfigMap's name"),
            Self::KillWorker(n) => write!(f, "pod #{n} of those at work on the database is killed"),
            Self::Foreign(deeds, seconds) => {
                write!(f, "a release of another namespace has the database's lock for {seconds} s: {deeds:?}")
            }
            Self::Restart => write!(f, "the database is restarted"),
            Self::Password(how) => write!(f, "the password of the database changes: {how:?}"),
            Self::SettleByHand => write!(f, "a person notes in the ledger what became of what nobody knew"),
            Self::DeleteRelease(how) => write!(f, "the ServiceRelease is deleted ({how:?})"),
            Self::CreateRelease => write!(f, "the ServiceRelease is created again"),
            Self::ScaleDeployment(n) => write!(f, "a user scales the Deployment to {n}"),
            Self::Autoscaler(on) => write!(f, "an HPA on the Deployment: {on}"),
            Self::Rival(on) => write!(f, "an older ServiceRelease with the same Service: {on}"),
            Self::Contest(on) => write!(f, "another manager applies the Service's selector: {on}"),
            Self::ApiUpgrade => write!(f, "the API server is upgraded and has one more default"),
            Self::RouteWeight(weight) => write!(f, "a person gives the candidate {weight}% in the route"),
            Self::RouteHealed(weight) => write!(f, "a GitOps tool heals the user's route to {weight:?}"),
            Self::Selector { candidate, how } => {
                let which = if *candidate { "candidate " } else { "" };
                write!(f, "a person changes the {which}Service's selector: {how:?}")
            }
            Self::DeleteRoute => write!(f, "a user deletes the route"),
            Self::RestoreRoute => write!(f, "the user's route is there again"),
            Self::GatewayRefuses(yes) => write!(f, "the gateway refuses the route: {yes}"),
            Self::AddRouter => write!(f, "a router is added to the spec"),
            Self::Clock(by) => write!(f, "the operators' clock jumps by {by} ms"),
        }
    }
}
