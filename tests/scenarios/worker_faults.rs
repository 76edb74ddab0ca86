//! Whatever breaks, no job is lost, no result comes twice, and nothing is left behind.
//!
//! A few rounds at random moments here; `DOCKFRAME_FAULT_ROUNDS=20` for a real trial, which takes its time:
//! `DOCKFRAME_FAULT_ROUNDS=20 cargo test -p dockframe-tests --test scenarios -- worker_faults --test-threads 1`.

use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::load::{self, Load};
use dockframe_tests::own_engine::OwnEngine;
use dockframe_tests::proxy::Proxy;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::wait;
use dockframe_tests::worker::Worker;

/// For one round, its jobs run again included: a lease of a worker that is away lives for 30 s.
const ROUND: Duration = Duration::from_secs(120);
/// Jobs of one round, and how long the longest runs.
const JOBS: usize = 6;
const LONGEST: Duration = Duration::from_secs(3);

/// Sleeps for a random while, at most this long: the moment of a fault is any.
async fn some_time(longest: Duration) {
    tokio::time::sleep(longest.mul_f64(rand::random_range(0.0..1.0))).await;
}

struct Rig {
    relay: Relay,
    link: Proxy,
    worker: Worker,
    load: Load,
}

impl Rig {
    async fn new(scenario: &Arc<Scenario>) -> anyhow::Result<Self> {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(scenario).await?;
        let link = Proxy::start(relay.address()).await?;
        let arguments = ["--cpus", "4", scenario.queue()];
        let worker = Worker::start_with(scenario, &link.url(), &arguments).await?;
        let load = Load::new(relay.client()?, scenario.queue());
        Ok(Self { relay, link, worker, load })
    }

    /// The counts that must be 0. Where an accept may be swallowed a job may be started again, and once recorded.
    async fn judge(&self, scenario: &Scenario, is_once: bool) -> anyhow::Result<()> {
        self.load.none_changed().await?;
        load::nothing_left(&self.worker, None).await?;
        let starts = self.load.starts(None).await?;
        let again =
            starts.iter().filter(|starts| if is_once { **starts != 1 } else { **starts == 0 }).count();
        anyhow::ensure!(
            again == 0,
            "{again} of {} jobs were started too often or never: {starts:?}",
            self.load.len()
        );
        let twice = starts.iter().filter(|starts| **starts > 1).count();
        let jobs = self.load.len();
        scenario.tell(&format!("{jobs} jobs, lost 0, doubled 0, left behind 0; {twice} were started again"));
        Ok(())
    }
}

fn limit() -> Duration {
    ROUND * u32::try_from(load::rounds() + 1).unwrap_or(u32::MAX)
}

#[test]
fn a_killed_worker_loses_nothing() {
    scenario::run_within("a_killed_worker_loses_nothing", limit(), async |scenario| {
        let mut rig = Rig::new(&scenario).await?;
        for _ in 0..load::rounds() {
            rig.load.submit(JOBS, LONGEST).await?;
            some_time(LONGEST).await;
            rig.worker.process().kill().await?;
            some_time(Duration::from_secs(4)).await;
            rig.worker.start_again()?;
            rig.load.all_finish(ROUND).await?;
        }
        rig.judge(&scenario, true).await
    });
}

#[test]
fn a_link_cut_for_a_second_loses_nothing() {
    cut_trial("a_link_cut_for_a_second_loses_nothing", Duration::from_secs(1));
}

/// Nearly as long as a lease lives.
#[test]
fn a_link_cut_for_20_seconds_loses_nothing() {
    if load::is_full() {
        cut_trial("a_link_cut_for_20_seconds_loses_nothing", Duration::from_secs(20));
    }
}

/// Longer than a lease lives. Twenty rounds take an hour.
#[test]
fn a_link_cut_for_two_minutes_loses_nothing() {
    if load::is_full() {
        cut_trial("a_link_cut_for_two_minutes_loses_nothing", Duration::from_secs(120));
    }
}

fn cut_trial(name: &str, cut: Duration) {
    let rounds = u32::try_from(load::rounds()).unwrap_or(u32::MAX);
    scenario::run_within(name, limit() + cut * rounds, async |scenario| {
        let mut rig = Rig::new(&scenario).await?;
        for _ in 0..load::rounds() {
            rig.load.submit(JOBS, LONGEST).await?;
            some_time(LONGEST).await;
            rig.link.cut();
            tokio::time::sleep(cut).await;
            rig.link.mend();
            rig.load.all_finish(ROUND).await?;
        }
        rig.judge(&scenario, false).await
    });
}

#[test]
fn a_killed_relay_loses_nothing() {
    scenario::run_within("a_killed_relay_loses_nothing", limit(), async |scenario| {
        let mut rig = Rig::new(&scenario).await?;
        for round in 0..load::rounds() {
            rig.load.submit(JOBS, LONGEST).await?;
            some_time(LONGEST).await;
            if round % 2 == 0 {
                rig.relay.kill().await?
            } else {
                rig.relay.stop().await?
            }
            some_time(Duration::from_secs(3)).await;
            rig.relay.start_again().await?;
            rig.load.all_finish(ROUND).await?;
        }
        rig.judge(&scenario, true).await
    });
}

#[test]
fn two_workers_start_every_job_once() {
    scenario::run_within("two_workers_start_every_job_once", limit() * 2, async |scenario| {
        let mut rig = Rig::new(&scenario).await?;
        let arguments = ["--cpus", "4", scenario.queue()];
        let second = Worker::start_with(&scenario, &rig.relay.url(), &arguments).await?;
        let jobs = if load::is_full() { 100 } else { 16 };
        rig.load.submit(jobs, Duration::from_millis(300)).await?;
        rig.load.all_finish(ROUND * 2).await?;
        load::nothing_left(&second, None).await?;
        rig.judge(&scenario, true).await
    });
}

#[test]
fn a_killed_engine_loses_nothing() {
    scenario::run_within("a_killed_engine_loses_nothing", limit(), async |scenario| {
        if !OwnEngine::is_possible() {
            // Without root there is no namespace for a second Engine, and the machine's own is not ours to kill.
            return Ok(());
        }
        let engine = OwnEngine::start().await?;
        let outcome = engine_trial(&scenario, &engine).await;
        let closed = engine.close().await;
        outcome.and(closed)
    });
}

async fn engine_trial(scenario: &Arc<Scenario>, engine: &OwnEngine) -> anyhow::Result<()> {
    let address = engine.address();
    let relay = Relay::start(scenario).await?;
    let arguments = ["--cpus", "4", scenario.queue()];
    let worker = Worker::start_at(scenario, &relay.url(), &arguments, &[("DOCKER_HOST", &address)])?;
    let mut load = Load::new(relay.client()?, scenario.queue());
    for round in 0..load::rounds() {
        load.submit(JOBS, LONGEST).await?;
        some_time(LONGEST).await;
        if round % 2 == 0 {
            engine.kill().await?
        } else {
            engine.process().stop(wait::PATIENT).await.map(drop)?
        }
        some_time(Duration::from_secs(4)).await;
        engine.start_again().await?;
        load.all_finish(ROUND).await?;
        // 65: it never ended.
        anyhow::ensure!(
            worker.process().ended().await?.is_none(),
            "the worker ended: {}",
            worker.process().output()
        );
    }
    load.none_changed().await?;
    load::nothing_left(&worker, Some(&address)).await?;
    let starts = load.starts(Some(&address)).await?;
    anyhow::ensure!(starts.iter().all(|starts| *starts >= 1), "never started: {starts:?}");
    let twice = starts.iter().filter(|starts| **starts > 1).count();
    scenario
        .tell(&format!("{} jobs, lost 0, doubled 0, left behind 0; {twice} were started again", load.len()));
    worker.process().stop(wait::PATIENT).await?;
    Ok(())
}
