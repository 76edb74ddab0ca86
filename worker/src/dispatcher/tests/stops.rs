//! A run that the relay takes away, in whatever it waits for: it stops, says nothing more, and leaves nothing.

use dockframe_shared::protocol::DeclineRetry;
use serde_json::json;

use super::bench::{Bench, SLOTS};
use crate::executor::scripted::{Fault, Hearing, Step};
use crate::executor::{EngineError, ImageError};

/// Revoked while it is in this step, which then goes on only if the run waits for it.
async fn revoked_in(step: Step, goes_on: bool) {
    let mut bench = Bench::new().await;
    bench.scripted.hold(step);
    bench.grant("l", json!({})).await;
    bench.accepted("l").await;
    if step == Step::Outputs {
        let name = bench.within(bench.scripted.running()).await;
        bench.scripted.exit(&name, 0);
    }
    bench.within(bench.scripted.reached(step, 1)).await;
    bench.revoke("l").await;
    bench.registers(|now| now.leases.as_ref().is_some_and(Vec::is_empty)).await;
    if goes_on {
        bench.scripted.let_go(step);
    }
    bench.within(bench.scripted.reached(Step::Remove, 1)).await;
    bench.is_free().await;
}

#[tokio::test]
async fn every_wait_hears_that_the_run_is_revoked() {
    for step in [Step::Image, Step::Fill, Step::Outputs] {
        revoked_in(step, false).await;
    }
}

#[tokio::test]
async fn what_is_being_made_is_waited_for_and_then_removed() {
    for step in [Step::Create, Step::Start] {
        revoked_in(step, true).await;
    }
}

#[tokio::test]
async fn a_running_container_is_asked_and_a_deaf_one_killed() {
    for hearing in [Hearing::Good, Hearing::Deaf] {
        let mut bench = Bench::new().await;
        bench.scripted.hears(hearing);
        bench.run("l", json!({})).await;
        bench.revoke("l").await;
        bench.within(bench.scripted.reached(Step::Stop, 1)).await;
        bench.is_free().await;
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_written_still_hears_a_revoke() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    // Where results go is a file: no result can be written.
    let outbox = bench.place().join("outbox");
    std::fs::remove_dir_all(&outbox).unwrap();
    std::fs::write(&outbox, "").unwrap();
    bench.scripted.exit(&name, 0);
    bench
        .registers(|now| now.leases.iter().flatten().any(|lease| lease.phase == super::super::Phase::Ended))
        .await;
    bench.revoke("l").await;
    bench.within(bench.scripted.reached(Step::Remove, 1)).await;
    bench.is_free().await;
}

#[tokio::test]
async fn an_input_or_image_that_fails_just_then_reports_nothing() {
    let mut bench = Bench::new().await;
    bench.scripted.hold(Step::Image);
    bench.scripted.fail(Step::Image, Fault::Image(ImageError::Pull("no such image".into())));
    bench.grant("l", json!({})).await;
    bench.accepted("l").await;
    bench.within(bench.scripted.reached(Step::Image, 1)).await;
    bench.revoke("l").await;
    bench.scripted.let_go(Step::Image);
    bench.is_free().await;
}

#[tokio::test]
async fn a_grant_that_its_revoke_has_overtaken_is_dropped() {
    let mut bench = Bench::new().await;
    bench.revoke("l").await;
    bench.grant("l", json!({})).await;
    bench.is_free().await;
    assert_eq!(bench.scripted.count(Step::Create), 0);
}

#[tokio::test]
async fn a_result_that_does_not_count_is_forgotten_and_frees_nothing_twice() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.scripted.exit(&name, 0);
    bench.finished("l").await;
    bench.answer("l", false).await;
    // Said twice, and taken away besides.
    bench.answer("l", false).await;
    bench.revoke("l").await;
    bench.is_free().await;
    assert_eq!(bench.named().iter().filter(|(lease, _)| lease == "l").count(), 0);
}

#[tokio::test]
async fn what_does_not_fit_is_declined_and_a_grant_said_twice_is_one_run() {
    let mut bench = Bench::new().await;
    for number in 0..SLOTS {
        let lease = format!("l{number}");
        bench.grant(&lease, json!({})).await;
        bench.accepted(&lease).await;
    }
    bench.grant("l0", json!({})).await;
    bench.accepted("l0").await;
    bench.grant("more", json!({})).await;
    assert_eq!(bench.declined("more").await, DeclineRetry::Soon);
    bench.within(bench.scripted.reached(Step::Start, SLOTS as usize)).await;
    for number in 0..SLOTS {
        bench.revoke(&format!("l{number}")).await;
    }
    bench.is_free().await;
}

#[tokio::test]
async fn a_container_that_cannot_be_stopped_or_removed_keeps_no_room() {
    let mut bench = Bench::new().await;
    bench.run("l", json!({})).await;
    let away = || Fault::Engine(EngineError::Unreachable("away".into()));
    bench.scripted.fail(Step::Stop, away());
    bench.scripted.fail(Step::Remove, away());
    bench.revoke("l").await;
    bench.within(bench.scripted.reached(Step::Remove, 1)).await;
    // The reaper's, which is not here.
    for name in bench.scripted.containers() {
        use crate::executor::Executor as _;
        bench.scripted.remove(&name).await.unwrap();
    }
    bench.is_free().await;
}
