//! A relay that is killed again and again under load loses nothing that it acknowledged and doubles nothing.
//!
//! `FAULT_KILLS=100` for as many kills (default: 6); prints what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dockframe_tests::client::Client;
use dockframe_tests::player::Player;
use dockframe_tests::redis::Redis;
use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::wait;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SUBMITTERS: usize = 4;
const WORKERS: usize = 3;
const CPUS: u32 = 8;
/// Between a relay that is ready and its end, in milliseconds: from the middle of its start to the midst of work.
const LIVES: [u64; 8] = [3, 40, 250, 90, 15, 400, 150, 60];

fn kills() -> usize {
    std::env::var("FAULT_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(6)
}

/// What was acknowledged to whom.
#[derive(Debug, Default)]
struct Ledger {
    /// Jobs whose submission was answered with success.
    accepted: BTreeSet<String>,
    /// The leases whose finish was answered with `recorded: true`, by job.
    recorded: BTreeMap<String, BTreeSet<String>>,
    /// Submissions and finishes that had to be said again.
    repeats: usize,
}

type Shared = Arc<Mutex<Ledger>>;

fn lock(ledger: &Shared) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_killed_relay_loses_nothing_and_doubles_nothing() {
    scenario::run_within("a_killed_relay_loses_nothing_and_doubles_nothing", limit(), async |scenario| {
        kill_again_and_again(&scenario, &Store::Embedded).await
    });
}

#[test]
fn a_killed_relay_of_a_redis_loses_nothing_and_doubles_nothing() {
    let name = "a_killed_relay_of_a_redis_loses_nothing_and_doubles_nothing";
    scenario::run_within(name, limit(), async |scenario| {
        let redis = Redis::start(scenario.folder()).await?;
        kill_again_and_again(&scenario, &Store::from(&redis)).await
    });
}

fn limit() -> Duration {
    scenario::LIMIT + Duration::from_secs(5) * u32::try_from(kills()).unwrap_or(u32::MAX)
}

async fn kill_again_and_again(scenario: &Arc<Scenario>, store: &Store) -> anyhow::Result<()> {
    let relay = Relay::start_with(scenario, "relay", store).await?;
    let (ledger, queue) = (Shared::default(), scenario.queue().to_owned());
    let (submitting, working) = (CancellationToken::new(), CancellationToken::new());
    let mut submitters = JoinSet::new();
    for number in 0..SUBMITTERS {
        let (client, queue, ledger) = (relay.client()?, queue.clone(), ledger.clone());
        submitters.spawn(submit(client, queue, number, ledger, submitting.clone()));
    }
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let (url, queue, ledger) = (relay.url(), queue.clone(), ledger.clone());
        let work = work(url, queue, format!("worker-{number}"), ledger);
        workers.spawn(working.clone().run_until_cancelled_owned(work));
    }

    let begun = Instant::now();
    for number in 0..kills() {
        tokio::time::sleep(Duration::from_millis(LIVES[number % LIVES.len()])).await;
        relay.kill().await?;
        relay.start_again().await?;
    }
    submitting.cancel();
    submitters.join_all().await;

    // Everything that was accepted comes to its end.
    let client = relay.client()?;
    let accepted = lock(&ledger).accepted.clone();
    let mut missing = accepted.clone();
    let patience = wait::PATIENT + Duration::from_secs(30);
    let ended = wait::until("a result of every accepted job", patience, async || {
        for job in missing.clone() {
            match client.result(&queue, &job).await {
                Ok(Some(_)) => missing.remove(&job),
                Ok(None) => break,
                Err(error) => return Err(error.to_string()),
            };
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("{} have none", missing.len())) }
    });
    let ended = ended.await;
    working.cancel();
    workers.join_all().await;

    // Of each job one run is recorded, and its result is that run's.
    let (mut doubled, mut changed) = (Vec::new(), Vec::new());
    let recorded = lock(&ledger).recorded.clone();
    for (job, leases) in &recorded {
        if leases.len() > 1 {
            doubled.push(job.clone());
        }
        let result = client.result(&queue, job).await?.unwrap_or_default();
        let shown = result["finished"]["result"]["logs"][0][0].as_str().unwrap_or_default();
        if !leases.contains(shown) {
            changed.push(job.clone());
        }
    }
    let counts = format!(
        "kills {}, accepted {}, lost {}, recorded {}, doubled {}, changed after they were recorded {}, said again {}, \
         in {:.1} s",
        kills(),
        accepted.len(),
        missing.len(),
        recorded.len(),
        doubled.len(),
        changed.len(),
        lock(&ledger).repeats,
        begun.elapsed().as_secs_f64()
    );
    scenario.tell(&counts);
    ended.map_err(|error| error.context(counts.clone()))?;
    anyhow::ensure!(doubled.is_empty() && changed.is_empty(), "{counts}: {doubled:?} {changed:?}");
    anyhow::ensure!(accepted.len() > kills() && recorded.len() > kills(), "too little load: {counts}");
    Ok(())
}

/// Submits job after job; what was not answered is submitted again until it is.
async fn submit(client: Client, queue: String, who: usize, ledger: Shared, stop: CancellationToken) {
    for number in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let definition = json!({ "image": "a", "command": "x", "env": { "N": format!("{who}-{number}") } });
        loop {
            match client.submit(&queue, &definition).await {
                Ok(job) => {
                    lock(&ledger).accepted.insert(job);
                    break;
                }
                // Whether it was taken is not known. After the end nobody cares for it.
                Err(_) if stop.is_cancelled() => return,
                Err(_) => lock(&ledger).repeats += 1,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Takes what it is granted, and says the end of each run until the relay has answered.
async fn work(url: String, queue: String, id: String, ledger: Shared) {
    // Runs that are over and not acknowledged: by lease, the job.
    let mut unanswered: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let held: Vec<String> = unanswered.keys().cloned().collect();
        let Ok(mut player) = Player::join(&url, &queue, &id, CPUS, &held).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        for lease in unanswered.keys() {
            lock(&ledger).repeats += 1;
            player.report(lease, lease);
        }
        while let Some(message) = player.any().await {
            let payload = &message["payload"];
            let lease = payload["leaseId"].as_str().unwrap_or_default().to_owned();
            match message["type"].as_str() {
                Some("LeaseGrant") => {
                    let job = payload["jobId"].as_str().unwrap_or_default().to_owned();
                    player.accept(&lease);
                    player.log(&lease, &job, 0, "running\n");
                    player.report(&lease, &lease);
                    unanswered.insert(lease, job);
                }
                Some("LeaseFinished") => {
                    player.forget(&lease);
                    let Some(job) = unanswered.remove(&lease) else { continue };
                    if payload["recorded"] == true {
                        lock(&ledger).recorded.entry(job).or_default().insert(lease);
                    }
                }
                Some("LeaseRevoke") => {
                    player.forget(&lease);
                    unanswered.remove(&lease);
                }
                _ => {}
            }
        }
    }
}
