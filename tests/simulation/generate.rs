//! Makes cases from a seed, and makes failing ones shorter.

use servicerelease::api::Action;

use crate::{
    checks::Violation,
    database,
    event::{Aim, Event, Fault, Meddling},
    metrics::{self, Watched},
    model::{
        catalogue::TEMPLATES,
        cluster::{Lag, Propagation},
    },
    rng::Rng,
    setup::{AFTERWARDS, BEFORE_ALL, BOUNDS, CHECKS, RouterKind, STRATEGIES, Setup, WITH_JOBS},
};

/// One case, made from its seed alone.
#[derive(Clone, Debug)]
pub struct Case {
    pub setup: Setup,
    pub events: Vec<Event>,
    /// Whether it ends with a good template that must become Healthy.
    pub forward: bool,
}

const ACTIONS: [Action; 8] = [
    Action::Promote,
    Action::Abort,
    Action::Undo,
    Action::Retry,
    Action::Approve,
    Action::Pause,
    Action::Resume,
    Action::Skip,
];

impl Case {
    pub fn generate(seed: u64, length: usize) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::generate(&mut rng);
        let mut events = Vec::new();
        if rng.chance(70) {
            events.push(Event::Settle(18));
        }
        while events.len() < length {
            let event = event(&mut rng, &setup);
            events.push(event);
            // After something happened, the operator often has time to react.
            if rng.chance(35) {
                events.push(Event::Settle(rng.pick(&[1, 1, 2, 3, 6, 12])));
            }
        }
        Self { setup, events, forward: rng.chance(50) }
    }

    /// A case with checks, over a route or without one.
    pub fn checked(seed: u64, length: usize) -> Self {
        let mut case = if seed.is_multiple_of(2) { Self::routed(seed, length) } else { Self::generate(seed, length) };
        let mut rng = Rng::new(seed ^ 0x6368_6563_6b73);
        case.setup.checks = 1 + u8::try_from(rng.below(u64::from(CHECKS))).unwrap_or(0);
        case.setup.metric = rng.chance(50).then(|| rng.pick(&metrics::KINDS));
        if case.setup.checks == WITH_JOBS {
            case.events =
                std::mem::take(&mut case.events).into_iter().flat_map(|event| with_jobs(&mut rng, event)).collect();
        }
        case
    }

    /// A case in which a metric has time to be measured: a canary whose weights rise, and seldom anything else than time.
    pub fn analysed(seed: u64, length: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x616e_616c_7973);
        let mut case = if seed.is_multiple_of(4) { Self::routed(seed, length) } else { Self::generate(seed, length) };
        let kinds = u64::try_from(metrics::KINDS.len()).unwrap_or(1);
        let setup = &mut case.setup;
        setup.metric = usize::try_from(seed % kinds).ok().and_then(|kind| metrics::KINDS.get(kind).copied());
        (setup.strategy, setup.checks, setup.replicas) =
            (rng.pick(&[1, 2, 2, 2, 8]), u8::from(rng.chance(20)), Some(4));
        (setup.traffic, setup.automatic, setup.first) = (true, rng.chance(75), 'A');
        // Where restarts are watched some pods restart.
        let letters =
            if setup.metric == Some(Watched::Restarts) { &['A', 'B', 'C', 'F'][..] } else { &['A', 'B', 'C'] };
        let mut events = vec![Event::Settle(18)];
        while events.len() < length {
            events.push(match rng.below(30) {
                0..3 => Event::Template(rng.pick(letters)),
                3 => command(&mut rng),
                4 => pass(&mut rng),
                5 if rng.chance(30) => pods(&mut rng),
                6..9 if case.setup.metric == Some(Watched::Web) => Event::Away(rng.pick(&[6, 12, 30])),
                _ => Event::Settle(rng.pick(&[4, 6, 12])),
            });
        }
        case.events = events;
        case
    }

    /// A case in which what was promoted is observed: releases that come so far, and what becomes of them then.
    pub fn observed(seed: u64, length: usize) -> Self {
        let mut case = if seed.is_multiple_of(3) { Self::routed(seed, length) } else { Self::generate(seed, length) };
        let mut rng = Rng::new(seed ^ 0x6f62_7365_7276);
        let setup = &mut case.setup;
        setup.observation = Some(rng.pick(&[5, 20, 20, 40]));
        setup.metric = rng.chance(70).then(|| rng.pick(&metrics::KINDS));
        setup.checks = if rng.chance(70) { rng.pick(&AFTERWARDS) } else { 0 };
        (setup.strategy, setup.replicas) = (rng.pick(&[0, 1, 5, 5, 8]), Some(rng.pick(&[2, 3, 4, 2, 3, 4, 2, 0])));
        (setup.traffic, setup.router_later, setup.automatic) = (true, false, rng.chance(75));
        (setup.first, setup.keep_previous) = ('A', rng.pick(&[None, Some(20), Some(60)]));
        let mut events = vec![Event::Settle(18)];
        while events.len() < length {
            events.push(match rng.below(40) {
                0..6 => Event::Template(rng.pick(&['A', 'B', 'C', 'B', 'C', 'X', 'O', 'F', 'D', 'D', 'R'])),
                6 => command(&mut rng),
                7 => Event::Command { action: Action::Retry, aim: Aim::Right, full: false },
                8 | 9 => pass(&mut rng),
                10 | 11 => pods(&mut rng),
                12 => Event::Paused(rng.chance(40)),
                13 => edit(&mut rng),
                14 if rng.chance(20) => event(&mut rng, &case.setup),
                15 => Event::DeleteJob(u8::try_from(rng.below(4)).unwrap_or(0)),
                _ => Event::Settle(rng.pick(&[2, 6, 12, 18])),
            });
        }
        case.events = events;
        case
    }

    /// A case with a database: migrations, and what can happen to their Jobs and to the ledger.
    pub fn with_database(seed: u64, length: usize) -> Self {
        let mut case = if seed.is_multiple_of(3) { Self::routed(seed, length) } else { Self::generate(seed, length) };
        let mut rng = Rng::new(seed ^ 0x6461_7461_6261_7365);
        let kinds = u64::from(database::KINDS);
        let kind = 1 + u8::try_from(seed % kinds).unwrap_or(0);
        (case.setup.database, case.setup.strategy) = (kind, database::strategy(kind, case.setup.strategy));
        if rng.chance(20) {
            case.setup.checks = BEFORE_ALL;
        }
        if seed % 4 != 1 {
            case.events = Self::calm(&mut rng, length);
            let setup = &mut case.setup;
            (setup.traffic, setup.replicas, setup.first) = (true, Some(2), 'A');
            if !seed.is_multiple_of(3) {
                setup.adopted = false;
            }
            return case;
        }
        let mut events = Vec::new();
        for mut event in std::mem::take(&mut case.events) {
            if let Event::Strategy(index, _) = &mut event {
                *index = database::strategy(kind, *index);
            }
            events.extend(with_jobs(&mut rng, event));
            match rng.below(20) {
                0 | 1 => events.push(Event::Migration(rng.pick(&[1, 2, 2, 3, 4]))),
                2 => events.push(Event::KillWorker(u8::try_from(rng.below(4)).unwrap_or(0))),
                3 if rng.chance(30) => events.push(Event::Files),
                4 if rng.chance(40) => events.push(Event::SettleByHand),
                5 | 6 => events.push(Event::Command { action: Action::Approve, aim: Aim::Right, full: false }),
                7..10 => events.push(Event::Settle(rng.pick(&[2, 3, 6]))),
                10..13 => events.extend(database::fault(&mut rng)),
                _ => {}
            }
        }
        case.events = events;
        case
    }

    /// A migration that old code cannot live with, promoted behind a Gateway with a page and then undone.
    pub fn undone(seed: u64, _: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x756e_646f);
        let mut case = Self::routed(seed, 1);
        let setup = &mut case.setup;
        (setup.router, setup.router_later, setup.adopted) = (Some(RouterKind::Gateway), false, false);
        (setup.replicas, setup.first, setup.checks, setup.metric) = (Some(2), 'A', 0, None);
        (setup.database, setup.strategy) = (rng.pick(&[2, 3]), 5);
        let right = |action: Action| Event::Command { action, aim: Aim::Right, full: false };
        let mut events = Vec::new();
        for migration in [None, Some([Event::Migration(2), Event::Template('B')])] {
            events.extend(migration.into_iter().flatten());
            events.extend(database::disturbed(&mut rng, 30));
            events.push(right(Action::Approve));
            events.extend(database::disturbed(&mut rng, 50));
        }
        events.extend([right(Action::Undo), Event::Settle(rng.pick(&[1, 3, 9, 30])), pass(&mut rng)]);
        events.extend(database::disturbed(&mut rng, 30));
        events.push(right(Action::Approve));
        events.extend(database::disturbed(&mut rng, 60));
        (case.events, case.forward) = (events, false);
        case
    }

    /// Migrations that come to their end, or nearly so, one after the other: each with what may become of it, and now and
    /// then something that breaks it off.
    fn calm(rng: &mut Rng, length: usize) -> Vec<Event> {
        let right = |action: Action| Event::Command { action, aim: Aim::Right, full: false };
        let mut events = vec![Event::Settle(12), right(Action::Approve), Event::Settle(24)];
        while events.len() < length {
            let n = u8::try_from(rng.below(4)).unwrap_or(0);
            events.push(Event::Migration(rng.pick(&[1, 2, 2, 3, 4])));
            if rng.chance(60) {
                events.push(Event::Template(rng.pick(&['B', 'C', 'A', 'N', 'K'])));
            }
            for _ in 0..5 {
                events.push(Event::Settle(rng.pick(&[1, 1, 2, 3, 6])));
                match rng.below(20) {
                    0..6 => events.push(right(Action::Approve)),
                    6 => events.push(right(Action::Abort)),
                    7..9 => events.push(Event::KillWorker(n)),
                    9 => events.push(Event::DeleteJob(n)),
                    10 => events.push(rng.pick(&[Event::SettleByHand, Event::Files])),
                    11 | 12 => events.extend([pass(rng), Event::Continue(n % 2)]),
                    13 => events.push(command(rng)),
                    14..18 => events.extend(database::fault(rng)),
                    _ => {}
                }
            }
            events.push(right(rng.pick(&[Action::Approve, Action::Undo, Action::Abort, Action::Retry, Action::Skip])));
            events.push(Event::Settle(12));
        }
        events
    }

    /// A case over a route: the same with what can happen to a route and a gateway in between.
    pub fn routed(seed: u64, length: usize) -> Self {
        let mut case = Self::generate(seed, length);
        let mut rng = Rng::new(seed ^ 0x0072_6f75_7465);
        let setup = &mut case.setup;
        (setup.traffic, setup.candidate_service) = (true, true);
        setup.router = Some(if rng.chance(50) { RouterKind::Gateway } else { RouterKind::HttpRoute });
        setup.router_later = rng.chance(15);
        let mut events = Vec::new();
        for mut event in std::mem::take(&mut case.events) {
            match &mut event {
                Event::Tick { lagging, .. } => *lagging |= rng.pick(&[0, 64, 128, 192]),
                Event::Pass { lag, .. } if rng.chance(30) => lag[9] = u8::try_from(rng.below(5)).unwrap_or(0),
                _ => {}
            }
            events.push(event);
            if rng.chance(12) {
                events.push(route_event(&mut rng));
            }
        }
        case.events = events;
        case
    }
}

/// An event, and what can happen to Jobs meanwhile.
fn with_jobs(rng: &mut Rng, mut event: Event) -> Vec<Event> {
    if let Event::Pass { lag, .. } = &mut event
        && rng.chance(30)
    {
        lag[10] = u8::try_from(rng.below(5)).unwrap_or(0);
    }
    let deleted = rng.chance(8).then(|| Event::DeleteJob(u8::try_from(rng.below(4)).unwrap_or(0)));
    [Some(event), deleted].into_iter().flatten().collect()
}

fn route_event(rng: &mut Rng) -> Event {
    match rng.below(12) {
        0..3 => Event::RouteWeight(rng.pick(&[0, 10, 50, 100])),
        3 => Event::RouteHealed(rng.pick(&[None, Some(0), Some(50)])),
        4 => Event::DeleteRoute,
        5 | 6 => Event::RestoreRoute,
        7 => Event::GatewayRefuses(true),
        8..10 => Event::GatewayRefuses(false),
        _ => Event::AddRouter,
    }
}

fn event(rng: &mut Rng, setup: &Setup) -> Event {
    match rng.below(100) {
        0..28 => pass(rng),
        28..46 => tick(rng),
        46..60 => edit(rng),
        60..76 => command(rng),
        76..86 => pods(rng),
        86..90 => Event::Continue(u8::from(rng.chance(50))),
        90..93 => meddle(rng, setup),
        93..95 => contest(rng),
        95..97 => Event::Clock(rng.pick(&[-7_200_000, -5_000, 5_000, 3_600_000])),
        97 if rng.chance(40) => {
            Event::DeleteRelease(rng.pick(&[Propagation::Background, Propagation::Foreground, Propagation::Orphan]))
        }
        98 => Event::CreateRelease,
        _ => Event::ApiUpgrade,
    }
}

fn pass(rng: &mut Rng) -> Event {
    let k = u8::try_from(rng.weighted(&[(4, 0u64), (4, 1), (3, 2), (2, 3), (1, 4), (1, 5)])).unwrap_or(0);
    let fault = rng.weighted(&[
        (3, Fault::None),
        (2, Fault::CrashBefore(k)),
        (2, Fault::CrashAfter(k)),
        (2, Fault::Lost(k)),
        (1, Fault::Refused(k)),
        (2, Fault::Stopped(k)),
    ]);
    let mut lag: Lag = [0; 11];
    match rng.below(10) {
        0..5 => {}
        5 => lag = [u8::try_from(rng.below(8)).unwrap_or(0); 11],
        _ => {
            for kind in &mut lag[..9] {
                if rng.chance(35) {
                    *kind = u8::try_from(rng.below(6)).unwrap_or(0);
                }
            }
        }
    }
    Event::Pass { leader: u8::from(rng.chance(40)), lag, fault }
}

fn tick(rng: &mut Rng) -> Event {
    let lagging = if rng.chance(35) { u8::try_from(rng.below(64)).unwrap_or(0) } else { 0 };
    Event::Tick { millis: rng.pick(&[5, 200, 1_000, 1_000, 2_000, 4_000, 10_000, 35_000]), lagging }
}

fn edit(rng: &mut Rng) -> Event {
    let small = |rng: &mut Rng, below: u8| u8::try_from(rng.below(u64::from(below))).unwrap_or(0);
    match rng.below(20) {
        0..10 => Event::Template(if rng.chance(65) { rng.pick(&['A', 'B', 'C']) } else { rng.pick(TEMPLATES).0 }),
        10..12 => Event::Strategy(small(rng, STRATEGIES), small(rng, BOUNDS)),
        12..15 => Event::Replicas(rng.pick(&[0, 1, 2, 3, 4, 6, 10])),
        15..17 => Event::Paused(rng.chance(40)),
        17 => Event::RetryToken(small(rng, 4)),
        18 => Event::Automatic(rng.chance(60)),
        _ if rng.chance(50) => Event::MinReady(rng.pick(&[0, 2, 5])),
        _ => Event::HistoryLimit(rng.pick(&[0, 1, 3])),
    }
}

fn command(rng: &mut Rng) -> Event {
    match rng.below(20) {
        0 => Event::Commands(rng.pick(&ACTIONS), rng.pick(&ACTIONS)),
        1 => Event::Commands(rng.pick(&ACTIONS), Action::Abort),
        2 => Event::RecreateCommand,
        3 => Event::DeleteCommand,
        _ => Event::Command {
            action: rng.pick(&ACTIONS),
            aim: rng.weighted(&[
                (10, Aim::Right),
                (4, Aim::RevisionOnly),
                (3, Aim::Bare),
                (1, Aim::WrongRevision),
                (1, Aim::LateStep),
                (1, Aim::NextStep),
            ]),
            full: rng.chance(25),
        },
    }
}

fn pods(rng: &mut Rng) -> Event {
    let n = u8::try_from(rng.below(12)).unwrap_or(0);
    match rng.below(9) {
        0..3 => Event::LoseReadiness(n),
        3 | 4 => Event::Crash(n),
        5 | 6 => Event::Evict(n),
        7 => Event::Drain(n),
        _ => Event::NodeLoss,
    }
}

fn meddle(rng: &mut Rng, setup: &Setup) -> Event {
    let n = u8::try_from(rng.below(4)).unwrap_or(0);
    match rng.below(6) {
        0 => Event::DeleteSet(n),
        1 => Event::ScaleSet(n, rng.pick(&[0, 1, 3])),
        2 if setup.adopted => Event::ScaleDeployment(rng.pick(&[0, 1, 2])),
        3 | 4 => Event::Selector {
            candidate: rng.chance(50),
            how: rng.pick(&[Meddling::Widened, Meddling::Astray, Meddling::Replaced]),
        },
        _ => Event::DeleteService(rng.chance(40)),
    }
}

fn contest(rng: &mut Rng) -> Event {
    match rng.below(3) {
        0 => Event::Autoscaler(rng.chance(40)),
        1 => Event::Rival(rng.chance(40)),
        _ => Event::Contest(rng.chance(40)),
    }
}

/// Makes a failing case shorter: drops events, then simplifies those that are left, as long as the
/// same rule is broken.
pub fn shrink(case: &Case, rule: &'static str, fails: impl Fn(&Case) -> Option<Violation>) -> Case {
    let breaks = |case: &Case| fails(case).is_some_and(|it| it.rule == rule);
    let mut best = case.clone();
    let calm = Case { forward: false, ..best.clone() };
    if best.forward && breaks(&calm) {
        best = calm;
    }
    loop {
        let before = best.events.clone();
        let mut size = best.events.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < best.events.len() {
                let mut shorter = best.clone();
                let end = (start + size).min(shorter.events.len());
                shorter.events.drain(start..end);
                if breaks(&shorter) {
                    best = shorter;
                } else {
                    start += size;
                }
            }
            size /= 2;
        }
        for index in 0..best.events.len() {
            for simpler in simplify(&best.events[index]) {
                let mut case = best.clone();
                case.events[index] = simpler;
                if breaks(&case) {
                    best = case;
                }
            }
        }
        for setup in simplify_setup(&best.setup) {
            let case = Case { setup, ..best.clone() };
            if breaks(&case) {
                best = case;
            }
        }
        if best.events == before {
            return best;
        }
    }
}

fn simplify(event: &Event) -> Vec<Event> {
    match event {
        Event::Tick { millis, lagging } if *lagging != 0 => vec![Event::Tick { millis: *millis, lagging: 0 }],
        Event::Pass { leader, lag, fault } => {
            let mut simpler = Vec::new();
            let with = |lag: Lag, fault: Fault| Event::Pass { leader: *leader, lag, fault };
            if *fault != Fault::None {
                simpler.push(with(*lag, Fault::None));
            }
            if lag.iter().any(|it| *it > 0) {
                simpler.push(with([0; 11], *fault));
            }
            for kind in 0..10 {
                if lag[kind] > 0 && lag.iter().filter(|it| **it > 0).count() > 1 {
                    let mut less = *lag;
                    less[kind] = 0;
                    simpler.push(with(less, *fault));
                }
            }
            simpler
        }
        Event::Settle(rounds) if *rounds > 1 => {
            vec![Event::Settle(1), Event::Settle(rounds / 2), Event::Settle(rounds - 1)]
        }
        _ => Vec::new(),
    }
}

fn simplify_setup(setup: &Setup) -> Vec<Setup> {
    let mut simpler = Vec::new();
    let mut add = |change: &dyn Fn(&mut Setup)| {
        let mut setup = setup.clone();
        change(&mut setup);
        simpler.push(setup);
    };
    add(&|it| it.adopted = false);
    add(&|it| it.strategy = 0);
    add(&|it| it.bounds = 0);
    add(&|it| it.min_ready = 0);
    add(&|it| it.candidate_service = it.router.is_some());
    add(&|it| it.router = it.router.and(Some(RouterKind::Gateway)));
    add(&|it| it.router_later = false);
    add(&|it| it.database = 0);
    add(&|it| it.database = it.database.min(1));
    add(&|it| it.checks = it.checks.min(1));
    add(&|it| it.checks = 0);
    add(&|it| it.observation = None);
    add(&|it| it.metric = None);
    add(&|it| it.metric = it.metric.and(Some(metrics::Watched::Threshold)));
    add(&|it| it.keep_previous = None);
    add(&|it| it.replicas = Some(2));
    add(&|it| it.replicas = Some(1));
    add(&|it| it.first = 'A');
    add(&|it| it.automatic = true);
    add(&|it| it.history = 5);
    add(&|it| it.traffic = it.router.is_some());
    add(&|it| it.service_exists = false);
    simpler.retain(|it| it != setup);
    simpler
}
