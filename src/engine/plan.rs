//! What a release is going to do: the strategy compiled to one list of steps, and the limits that
//! hold while it does. Made from the pinned plan in mid-release, from the spec at rest.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{Canary, Duration, ServiceReleaseSpec, StepName, Strategy};

use super::ratio::Bounds;

/// One unit of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring up the first candidate pods, without traffic.
    Prepare,
    /// Give the candidate this percentage of the traffic.
    SetWeight(i32),
    /// Stay for this long, or until a person goes on.
    Pause(Option<Duration>),
    /// Stay until a person approves.
    Approval,
    /// Give the candidate all traffic, and make it stable.
    Promote,
}

impl Step {
    /// Its name in the status.
    #[must_use]
    pub const fn name(self) -> StepName {
        match self {
            Self::Prepare => StepName::Prepare,
            Self::SetWeight(_) => StepName::SetWeight,
            Self::Pause(_) => StepName::Pause,
            Self::Approval => StepName::Approval,
            Self::Promote => StepName::Promote,
        }
    }
}

/// How traffic is moved.
#[derive(Clone, Debug, PartialEq)]
pub enum Shift {
    /// By the ratio of pods, within maxSurge and maxUnavailable.
    Ratio {
        /// maxSurge as written.
        surge: IntOrString,
        /// maxUnavailable as written.
        unavailable: IntOrString,
    },
    /// By switching the Service's selector from one full set of pods to the other.
    Switch,
    /// By the weights of a route; stable stays whole beside the candidate.
    Route,
}

/// What holds while a release goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How traffic is moved.
    pub shift: Shift,
    /// The steps, first to last.
    pub steps: Vec<Step>,
    /// spec.minReadySeconds
    pub min_ready_seconds: i32,
    /// How long a step may wait for the cluster.
    pub deadline: Duration,
    /// How long pods that lost their traffic stay.
    pub scale_down_delay: Duration,
    /// How long the previous pods stay after a switch.
    pub keep_previous: Duration,
    /// Whether failures roll back by themselves.
    pub automatic: bool,
}

impl Policy {
    /// Compiles a spec. The first revision of all goes without the strategy's steps (INVARIANTS R5).
    #[must_use]
    pub fn compile(spec: &ServiceReleaseSpec, first: bool) -> Self {
        let default = Strategy { canary: Some(Canary::default()), blue_green: None };
        let strategy = spec.strategy.as_ref().unwrap_or(&default);
        let (shift, middle) = match (&strategy.canary, &strategy.blue_green) {
            (_, Some(blue_green)) => {
                let wait = (!blue_green.auto_promote).then_some(Step::Pause(None));
                (Shift::Switch, wait.into_iter().collect())
            }
            (Some(canary), None) => (ratio(canary), canary_steps(canary)),
            (None, None) => (ratio(&Canary::default()), Vec::new()),
        };
        let routed = spec.traffic.as_ref().is_some_and(|traffic| traffic.router.is_some());
        let shift = if routed { Shift::Route } else { shift };
        let middle = if first { Vec::new() } else { middle };
        let seconds = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let scale_down_delay = spec.traffic.as_ref().map_or(Duration::default(), |traffic| traffic.scale_down_delay);
        Self {
            shift,
            steps: [vec![Step::Prepare], middle, vec![Step::Promote]].concat(),
            min_ready_seconds: spec.min_ready_seconds,
            deadline: seconds(spec.progress_deadline_seconds),
            scale_down_delay,
            keep_previous: spec.rollback.keep_previous.unwrap_or_default().max(scale_down_delay),
            automatic: spec.rollback.automatic,
        }
    }

    /// The step at a place counted from 1; the last one for places beyond.
    #[must_use]
    pub fn step(&self, index: i32) -> Step {
        let last = self.steps.len().saturating_sub(1);
        let place = usize::try_from(index.saturating_sub(1)).unwrap_or(0).min(last);
        self.steps.get(place).copied().unwrap_or(Step::Promote)
    }

    /// How many steps there are.
    #[must_use]
    pub fn count(&self) -> i32 {
        i32::try_from(self.steps.len()).unwrap_or(i32::MAX)
    }

    /// The weight that the candidate is prepared for: that of the first step that sets one.
    #[must_use]
    pub fn first_weight(&self) -> i32 {
        let set = self.steps.iter().find_map(|step| match step {
            Step::SetWeight(weight) => Some(*weight),
            _ => None,
        });
        set.unwrap_or(100)
    }

    /// The limits on pods for a number of replicas. A switch keeps all of them.
    #[must_use]
    pub fn bounds(&self, replicas: i32) -> Bounds {
        match &self.shift {
            Shift::Ratio { surge, unavailable } => Bounds::resolve(replicas, surge, unavailable),
            Shift::Switch | Shift::Route => Bounds { replicas, surge: replicas, unavailable: 0 },
        }
    }
}

fn ratio(canary: &Canary) -> Shift {
    Shift::Ratio { surge: canary.max_surge.clone(), unavailable: canary.max_unavailable.clone() }
}

fn canary_steps(canary: &Canary) -> Vec<Step> {
    let step = |step: &crate::api::CanaryStep| match (step.set_weight, &step.pause, &step.approval) {
        (Some(weight), ..) => Step::SetWeight(weight.clamp(0, 100)),
        (None, Some(pause), _) => Step::Pause(pause.duration),
        (None, None, _) => Step::Approval,
    };
    canary.steps.iter().map(step).collect()
}
