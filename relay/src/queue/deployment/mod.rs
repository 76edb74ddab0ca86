//! A whole deployment in one thread: two relays of the real core, a store and a network against them, four workers and
//! three clients, by the thousand (`jobs-and-states` 9).
//!
//! Everything around the core lives as well: each request to the store and each message on a socket is an event of its
//! own, and anything may crash, be cut, or be late between two of them.
//! A schedule is its seed. A failure names it; `DEPLOYMENT_SEED=… cargo test -p dockframe-relay deployment::replay --
//! --nocapture` tells what happened in it.
//!
//! Read `world`, then `relay`, then `invariants`.

mod chance;
mod client;
pub(crate) mod guards;
mod invariants;
mod network;
mod old_worker;
mod relay;
mod store;
mod worker;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use guards::Guard;
use world::{Broken, World};

/// Of every test run.
const SCHEDULES: u64 = 20_000;

/// One schedule; what it broke, and how many events it had.
fn play(seed: u64, without: Option<Guard>) -> (Option<Broken>, usize) {
    guards::take_out(without);
    let mut world = World::new(seed, false);
    world.run();
    (world.broken, world.steps)
}

/// Plays schedules on all cores until one breaks something; how many were played, and the broken one of the smallest
/// seed among those played.
fn play_many(count: u64, without: Option<Guard>) -> (u64, u64, Option<(u64, Broken)>) {
    let (next, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let found: Mutex<Option<(u64, Broken)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count || found.lock().unwrap().is_some() {
                        return;
                    }
                    let (mut broken, steps) = play(seed, without);
                    if without.is_some() && broken.is_some() && play(seed, None).0.is_some() {
                        // It is not the missing guard that breaks this one.
                        broken = None;
                    }
                    events.fetch_add(steps as u64, Ordering::Relaxed);
                    if let Some(broken) = broken {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(known, _)| seed < *known) {
                            *found = Some((seed, broken));
                        }
                    }
                }
            });
        }
    });
    (next.into_inner().min(count), events.into_inner(), found.into_inner().unwrap())
}

fn holds(count: u64) {
    let begin = std::time::Instant::now();
    let (played, events, found) = play_many(count, None);
    if let Some((seed, Broken { invariant, text })) = found {
        panic!("invariant {invariant} is broken by seed {seed}: {text}");
    }
    println!("{played} schedules, {events} events, {:.1} s", begin.elapsed().as_secs_f64());
}

/// In parts, for as many cores as there are.
mod no_schedule_breaks_a_promise {
    use super::{Broken, SCHEDULES, play};

    const PARTS: u64 = 8;

    fn part(number: u64) {
        for seed in (number..SCHEDULES).step_by(usize::try_from(PARTS).unwrap()) {
            if let Some(Broken { invariant, text }) = play(seed, None).0 {
                panic!("invariant {invariant} is broken by seed {seed}: {text}");
            }
        }
    }

    macro_rules! parts {
        ($($name:ident = $number:literal),*) => {
            $(
                #[test]
                fn $name() {
                    part($number);
                }
            )*
        };
    }

    parts!(a = 0, b = 1, c = 2, d = 3, e = 4, f = 5, g = 6, h = 7);
}

/// `make nightly`: `DEPLOYMENT_SCHEDULES` says how many.
#[test]
#[ignore = "takes long"]
fn no_schedule_of_a_million_breaks_a_promise() {
    let count = std::env::var("DEPLOYMENT_SCHEDULES").ok().and_then(|count| count.parse().ok());
    holds(count.unwrap_or(1_000_000));
}

/// Tells the story of `DEPLOYMENT_SEED`.
#[test]
#[ignore = "for people"]
fn replay() {
    let seed = std::env::var("DEPLOYMENT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    guards::take_out(None);
    let mut world = World::new(seed, true);
    world.run();
    println!("seed {seed}: {:?}, encodes: {}", world.kind, world.store.encodes);
    for line in world.story.into_iter().flatten() {
        println!("{line}");
    }
    assert!(world.broken.is_none(), "{:?}", world.broken);
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    for seed in 0..20 {
        let story = |seed| {
            guards::take_out(None);
            let mut world = World::new(seed, true);
            world.run();
            world.story
        };
        assert_eq!(story(seed), story(seed));
    }
}

fn is_missed(guard: Guard) {
    let (played, _, found) = play_many(SCHEDULES, Some(guard));
    let Some((seed, Broken { invariant, text })) = found else {
        panic!("nothing was found in {played} schedules without {guard:?}");
    };
    println!("without {guard:?}: invariant {invariant} is broken by seed {seed}: {text}");
}

#[test]
fn a_missing_fence_is_found() {
    is_missed(Guard::Fence);
}

#[test]
fn due_entries_after_their_commit_are_found() {
    is_missed(Guard::DueFirst);
}

#[test]
fn a_lease_that_outlives_its_job_is_found() {
    is_missed(Guard::LeaseEnds);
}

#[test]
fn a_missing_check_of_the_session_is_found() {
    is_missed(Guard::SessionCheck);
}

#[test]
fn a_shared_result_that_is_overwritten_is_found() {
    is_missed(Guard::SharedOnce);
}

#[test]
fn an_answer_that_is_another_queues_to_delete_is_found() {
    is_missed(Guard::OthersResults);
}

#[test]
fn a_commit_that_compares_nothing_is_found() {
    is_missed(Guard::CompareAndSet);
}

#[test]
fn a_job_that_ends_for_all_when_one_lets_go_is_found() {
    is_missed(Guard::Holders);
}

/// How often which invariant breaks, for those who change the core.
#[test]
#[ignore = "for people"]
fn survey() {
    let count =
        std::env::var("DEPLOYMENT_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let mut found: std::collections::BTreeMap<(u8, String), Vec<u64>> = std::collections::BTreeMap::new();
    let begin = std::time::Instant::now();
    let mut events = 0;
    for seed in 0..count {
        let (broken, steps) = play(seed, None);
        events += steps;
        if let Some(Broken { invariant, text }) = broken {
            let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
            found.entry((invariant, kind)).or_default().push(seed);
        }
    }
    println!("{count} schedules, {events} events, {:.1} s", begin.elapsed().as_secs_f64());
    for ((invariant, kind), seeds) in found {
        println!("{invariant} {:>5} {kind} {:?}", seeds.len(), &seeds[..seeds.len().min(6)]);
    }
}
