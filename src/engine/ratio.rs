//! How many pods each revision gets: the arithmetic of a canary by replica ratio. Pure numbers.
//!
//! The bounds are those of a Deployment's rolling update (INVARIANTS T4): pods that exist at most
//! `replicas + maxSurge`, available pods at least `replicas - maxUnavailable`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// maxSurge and maxUnavailable as numbers of pods for a certain number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Pods that serve when nothing is going on.
    pub replicas: i32,
    /// Pods that may exist beyond `replicas`.
    pub surge: i32,
    /// Pods that may be missing.
    pub unavailable: i32,
}

impl Bounds {
    /// Resolves percentages: surge is rounded up, unavailable down; if both come to 0, one pod may
    /// be missing, as in a Deployment.
    #[must_use]
    pub fn resolve(replicas: i32, surge: &IntOrString, unavailable: &IntOrString) -> Self {
        let surge = pods(surge, replicas, true);
        let unavailable = pods(unavailable, replicas, false).min(replicas);
        let unavailable = if surge == 0 && unavailable == 0 { 1.min(replicas) } else { unavailable };
        Self { replicas, surge, unavailable }
    }

    /// A number or percent of replicas in pods, rounded up.
    #[must_use]
    pub fn pods(value: &IntOrString, replicas: i32) -> i32 {
        pods(value, replicas, true)
    }

    /// Pods that must be available for all of the traffic.
    #[must_use]
    pub const fn enough(self) -> i32 {
        self.replicas - self.unavailable
    }
}

fn pods(value: &IntOrString, replicas: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.clamp(0, 100) * i64::from(replicas);
            let count = if up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(count).unwrap_or(i32::MAX)
        }
    }
}

/// Pods wanted for the candidate and for stable at a weight (0 to 100) of the candidate:
/// ceil(replicas x weight) of it, at least one and, below 100, at most replicas - 1. With one
/// replica it is one of each, if there is surge for it.
#[must_use]
pub fn split(bounds: Bounds, weight: i32) -> (i32, i32) {
    let Bounds { replicas, surge, .. } = bounds;
    if replicas <= 0 {
        return (0, 0);
    }
    if weight >= 100 {
        return (replicas, 0);
    }
    if replicas == 1 {
        return (i32::from(surge > 0), 1);
    }
    if weight <= 0 {
        return (1, if surge > 0 { replicas } else { replicas - 1 });
    }
    let share = (i64::from(replicas) * i64::from(weight) + 99) / 100;
    let candidate = i32::try_from(share).unwrap_or(replicas).clamp(1, replicas - 1);
    (candidate, replicas - candidate)
}

/// Pods of a candidate that gets this weight beside a whole stable: ceil(replicas x weight), at least one.
#[must_use]
pub fn beside(replicas: i32, weight: i32) -> i32 {
    let share = (i64::from(replicas) * i64::from(weight.clamp(0, 100)) + 99) / 100;
    i32::try_from(share).unwrap_or(replicas).max(1).min(replicas.max(0))
}

/// The split before the candidate has traffic: as many of its first pods as there is room for beside
/// a stable that still serves alone, whether stable's pods are well at the moment or not.
#[must_use]
pub fn prepare(bounds: Bounds, first_weight: i32) -> (i32, i32) {
    let Bounds { replicas, surge, unavailable } = bounds;
    let (share, _) = split(bounds, first_weight);
    let spare = unavailable.min(replicas - 1).max(0);
    let candidate = share.min(surge + spare);
    (candidate, replicas - (candidate - surge).max(0))
}

/// The pods of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// spec.replicas of its ReplicaSet.
    pub replicas: i32,
    /// Its pods that are not terminating.
    pub pods: i32,
    /// Those of them that take traffic: available and, behind a Service, among its ready endpoints.
    pub serving: i32,
    /// Those that take it now or as soon as an endpoint is there: what would be lost with them.
    pub warm: i32,
    /// Where it should end up.
    pub wanted: i32,
}

/// The next sizes, one for each group: as far towards `wanted` as the bounds allow now. Groups grow
/// in the order given and shrink in the reverse order.
#[must_use]
pub fn next_sizes(bounds: Bounds, groups: &[Group]) -> Vec<i32> {
    let mut sizes: Vec<i32> = groups.iter().map(|group| group.replicas).collect();
    let existing: i32 = groups.iter().map(|group| group.replicas.max(group.pods)).sum();
    let mut room = (bounds.replicas + bounds.surge - existing).max(0);
    for (size, group) in sizes.iter_mut().zip(groups) {
        let growth = (group.wanted - group.replicas).clamp(0, room);
        *size += growth;
        room -= growth;
    }
    // A ReplicaSet that shrinks removes pods that are not ready first, so what it keeps serving is
    // min(serving, size). Growth is not serving yet: it counts as nothing here.
    let secure =
        |sizes: &[i32]| -> i32 { groups.iter().zip(sizes).map(|(group, size)| group.serving.min(*size)).sum() };
    let warm: i32 = groups.iter().zip(&sizes).map(|(group, size)| group.warm.min(*size)).sum();
    let needed = bounds.enough().min(warm);
    for (index, group) in groups.iter().enumerate().rev() {
        if group.wanted >= group.replicas {
            continue;
        }
        let others = secure(&sizes) - group.serving.min(sizes[index]);
        sizes[index] = group.wanted.max(needed - others).clamp(0, group.replicas);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn bounds(replicas: i32, surge: i32, unavailable: i32) -> Bounds {
        Bounds { replicas, surge, unavailable }
    }

    #[rstest]
    #[case(1, "25%", "0", (1, 0))]
    #[case(10, "25%", "25%", (3, 2))]
    #[case(3, "0%", "10%", (0, 1))]
    #[case(0, "25%", "0", (0, 0))]
    fn percentages_round_as_in_a_deployment(
        #[case] replicas: i32,
        #[case] surge: &str,
        #[case] unavailable: &str,
        #[case] expected: (i32, i32),
    ) {
        let text = |text: &str| IntOrString::String(text.into());
        let bounds = Bounds::resolve(replicas, &text(surge), &text(unavailable));
        assert_eq!((bounds.surge, bounds.unavailable), expected);
    }

    #[rstest]
    #[case(1, 1, 10, (1, 1))]
    #[case(1, 1, 100, (1, 0))]
    #[case(1, 0, 50, (0, 1))]
    #[case(2, 1, 10, (1, 1))]
    #[case(2, 1, 90, (1, 1))]
    #[case(3, 1, 34, (2, 1))]
    #[case(3, 1, 33, (1, 2))]
    #[case(3, 1, 99, (2, 1))]
    #[case(10, 3, 1, (1, 9))]
    #[case(10, 3, 50, (5, 5))]
    #[case(10, 3, 0, (1, 10))]
    #[case(10, 0, 0, (1, 9))]
    #[case(0, 0, 50, (0, 0))]
    fn a_weight_is_rounded_up_to_pods(
        #[case] replicas: i32,
        #[case] surge: i32,
        #[case] weight: i32,
        #[case] expected: (i32, i32),
    ) {
        assert_eq!(split(bounds(replicas, surge, 1), weight), expected);
    }

    #[rstest]
    #[case(4, 1, 0, 50, (1, 4))]
    #[case(4, 4, 0, 50, (2, 4))]
    #[case(4, 0, 1, 50, (1, 3))]
    #[case(1, 0, 1, 100, (0, 1))]
    #[case(2, 0, 2, 100, (1, 1))]
    #[case(1, 1, 0, 100, (1, 1))]
    #[case(0, 1, 0, 100, (0, 0))]
    fn before_it_has_traffic_the_candidate_takes_no_pod_that_stable_serves_with(
        #[case] replicas: i32,
        #[case] surge: i32,
        #[case] unavailable: i32,
        #[case] first_weight: i32,
        #[case] expected: (i32, i32),
    ) {
        assert_eq!(prepare(bounds(replicas, surge, unavailable), first_weight), expected);
    }

    #[test]
    fn pods_that_do_not_serve_go_without_waiting() {
        let broken_stable = Group { replicas: 4, pods: 4, serving: 0, warm: 0, wanted: 0 };
        let fixed = Group { replicas: 1, pods: 1, serving: 1, warm: 1, wanted: 4 };
        assert_eq!(next_sizes(bounds(4, 1, 0), &[fixed, broken_stable]), [1, 0]);
    }

    #[test]
    fn the_only_pod_that_is_well_stays_although_no_endpoint_shows_it_yet() {
        let broken_stable = Group { replicas: 1, pods: 1, serving: 0, warm: 0, wanted: 1 };
        let candidate = Group { replicas: 1, pods: 1, serving: 0, warm: 1, wanted: 0 };
        assert_eq!(next_sizes(bounds(1, 1, 0), &[broken_stable, candidate]), [1, 1]);
    }

    /// A fair ReplicaSet controller: pods follow the size, all of them serve.
    fn settle(groups: &mut [Group], sizes: &[i32]) {
        for (group, size) in groups.iter_mut().zip(sizes) {
            group.replicas = *size;
            group.pods = *size;
            group.serving = *size;
            group.warm = *size;
        }
    }

    proptest! {
        #[test]
        fn any_shift_stays_within_the_bounds_and_arrives(
            replicas in 1..40i32, surge in 0..10i32, unavailable in 0..10i32,
            from in 0..=100i32, to in 0..=100i32, later in 1..40i32,
        ) {
            let unavailable = unavailable.min(replicas);
            prop_assume!(surge + unavailable > 0);
            let old = bounds(replicas, surge, unavailable);
            let (candidate, stable) = split(old, from);
            let group = |size, wanted| Group { replicas: size, pods: size, serving: size, warm: size, wanted };
            let new = bounds(later, surge, unavailable.min(later));
            prop_assume!(new.surge + new.unavailable > 0);
            let (to_candidate, to_stable) = split(new, to);
            let mut groups = [group(candidate, to_candidate), group(stable, to_stable)];
            for _ in 0..200 {
                let before: i32 = groups.iter().map(|group| group.pods).sum();
                let sizes = next_sizes(new, &groups);
                let after: i32 = sizes.iter().zip(&groups).map(|(size, group)| (*size).max(group.pods)).sum();
                prop_assert!(after <= (later + surge).max(before), "too many pods: {groups:?} {sizes:?}");
                let kept: i32 = sizes.iter().zip(&groups).map(|(size, group)| group.serving.min(*size)).sum();
                prop_assert!(kept >= new.enough().min(before), "too few pods: {groups:?} {sizes:?}");
                settle(&mut groups, &sizes);
            }
            prop_assert_eq!([groups[0].pods, groups[1].pods], [to_candidate, to_stable]);
        }
    }
}
