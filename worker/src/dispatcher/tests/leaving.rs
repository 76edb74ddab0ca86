//! How the worker leaves: what it takes, what it stops, and what it leaves to the next process.

use std::time::Duration;

use dockframe_shared::protocol::DeclineRetry;
use serde_json::json;

use super::bench::Bench;
use crate::config::{DrainTimeout, OnExit};
use crate::executor::scripted::{Hearing, Step};

#[tokio::test]
async fn a_worker_that_is_stopped_gives_back_what_it_runs() {
    let mut bench = Bench::new().await;
    bench.run("l", json!({})).await;
    bench.stop();
    bench.registers(|now| now.draining == Some(true) && now.cpus.0 > 0.0).await;
    assert_eq!(bench.declined("l").await, DeclineRetry::Later);
    assert!(!bench.ends().await);
    assert!(bench.scripted.containers().is_empty());
    assert_eq!(bench.run_directories(), 0);
}

#[tokio::test]
async fn a_draining_worker_takes_nothing_and_waits_for_its_jobs() {
    let mut bench = Bench::with(|bench| bench.leaves(DrainTimeout::Job, OnExit::AsAgreed)).await;
    let name = bench.run("l", json!({})).await;
    bench.stop();
    bench.registers(|now| now.draining == Some(true)).await;
    bench.grant("m", json!({})).await;
    assert_eq!(bench.declined("m").await, DeclineRetry::Later);
    assert_eq!(bench.scripted.count(Step::Stop), 0);
    bench.scripted.exit(&name, 0);
    assert_eq!(bench.finished("l").await["reason"], "Success");
    bench.answer("l", true).await;
    assert!(!bench.ends().await);
}

#[tokio::test]
async fn a_drain_is_over_when_its_time_is() {
    let limit = DrainTimeout::After(Duration::from_millis(100));
    let mut bench = Bench::with(|bench| bench.leaves(limit, OnExit::AsAgreed)).await;
    bench.run("l", json!({})).await;
    bench.stop();
    assert_eq!(bench.declined("l").await, DeclineRetry::Later);
    assert!(!bench.ends().await);
}

#[tokio::test]
async fn a_second_signal_kills_at_once() {
    let mut bench = Bench::with(|bench| bench.leaves(DrainTimeout::Job, OnExit::AsAgreed)).await;
    bench.scripted.hears(Hearing::Deaf);
    bench.run("l", json!({})).await;
    bench.stop();
    bench.registers(|now| now.draining == Some(true)).await;
    bench.hurry();
    assert_eq!(bench.declined("l").await, DeclineRetry::Later);
    assert!(!bench.ends().await);
    assert!(bench.scripted.containers().is_empty());
}

#[tokio::test]
async fn what_is_left_is_taken_up_by_the_next_process() {
    let none = DrainTimeout::After(Duration::ZERO);
    let mut bench = Bench::with(|bench| bench.leaves(none, OnExit::Leave)).await;
    let name = bench.run("l", json!({})).await;
    bench.stop();
    assert!(bench.ends().await, "the link says that somebody comes back");
    assert_eq!(bench.scripted.containers(), std::slice::from_ref(&name));
    assert_eq!(bench.scripted.count(Step::Stop), 0);
    bench.begin().await;
    bench.scripted.exit(&name, 0);
    assert_eq!(bench.finished("l").await["reason"], "Success");
    bench.is_free().await;
}

#[tokio::test]
async fn a_worker_with_nothing_to_do_ends_at_once() {
    let mut bench = Bench::new().await;
    bench.stop();
    assert!(!bench.ends().await);
}

#[tokio::test]
async fn a_container_that_is_slow_to_go_does_not_hold_up_the_end() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.scripted.hold(Step::Remove);
    bench.scripted.exit(&name, 0);
    bench.finished("l").await;
    bench.answer("l", true).await;
    bench.stop();
    // A supervisor would kill it after ten seconds.
    assert!(!bench.ends().await);
    // The next process clears away what it finds.
    assert_eq!(bench.scripted.containers(), [name]);
}
