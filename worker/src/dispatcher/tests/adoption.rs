//! A process that is killed, and one that follows: containers are taken up, and nothing is run or said twice.

use dockframe_shared::protocol::{DeclineRetry, Phase, WorkerMessage};
use serde_json::json;

use super::bench::{Bench, SLOTS};
use crate::executor::EngineError;
use crate::executor::scripted::{Fault, Step};
use crate::logs::Stream;

/// Texts and first number of the next frame of lines.
async fn lines(bench: &mut Bench) -> (u64, Vec<String>) {
    match bench.heard().await {
        WorkerMessage::Logs(logs) => {
            (logs.from.unwrap(), logs.logs.into_iter().map(|line| line.text).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_running_container_is_taken_up_and_each_line_keeps_its_number() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.scripted.say(&name, Stream::Stdout, "one\n");
    assert_eq!(lines(&mut bench).await, (0, vec!["one\n".to_owned()]));
    bench.kill().await;
    bench.scripted.say(&name, Stream::Stdout, "two\n");
    bench.begin().await;
    assert_eq!(bench.named(), [("l".to_owned(), Phase::Inputs)], "named before anything else is said");
    // The relay may not have read it: the same line under the same number.
    assert_eq!(lines(&mut bench).await, (0, vec!["one\n".to_owned()]));
    assert_eq!(lines(&mut bench).await, (1, vec!["two\n".to_owned()]));
    bench.scripted.exit(&name, 0);
    let value = bench.finished("l").await;
    assert_eq!(value["result"]["logs"].as_array().unwrap().len(), 2, "{value}");
    assert_eq!((bench.scripted.count(Step::Create), bench.scripted.count(Step::Start)), (1, 1));
    bench.is_free().await;
}

#[tokio::test]
async fn a_container_that_ended_meanwhile_is_a_result() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.kill().await;
    bench.scripted.leave(&name, "out", "made");
    bench.scripted.exit(&name, 4);
    bench.begin().await;
    let value = bench.finished("l").await;
    assert_eq!(value["result"]["StatusCode"], 4);
    assert!(value["result"]["outputs"]["out"].is_object(), "{value}");
    assert_eq!(bench.scripted.count(Step::Create), 1);
    bench.is_free().await;
}

#[tokio::test]
async fn a_run_that_had_no_container_yet_begins_again() {
    let mut bench = Bench::new().await;
    bench.scripted.hold(Step::Image);
    bench.grant("l", json!({})).await;
    bench.accepted("l").await;
    bench.within(bench.scripted.reached(Step::Image, 1)).await;
    bench.kill().await;
    bench.scripted.let_go(Step::Image);
    bench.begin().await;
    let name = bench.within(bench.scripted.running()).await;
    bench.scripted.exit(&name, 0);
    assert_eq!(bench.finished("l").await["reason"], "Success");
    bench.is_free().await;
}

#[tokio::test]
async fn a_container_that_was_made_and_not_started_is_made_anew() {
    let mut bench = Bench::new().await;
    bench.scripted.hold(Step::Start);
    bench.grant("l", json!({})).await;
    bench.accepted("l").await;
    bench.within(bench.scripted.reached(Step::Start, 1)).await;
    bench.kill().await;
    bench.scripted.let_go(Step::Start);
    bench.begin().await;
    let name = bench.within(bench.scripted.running()).await;
    bench.scripted.exit(&name, 0);
    assert_eq!(bench.finished("l").await["reason"], "Success");
    assert_eq!(bench.scripted.count(Step::Create), 2);
    bench.is_free().await;
}

#[tokio::test]
async fn an_engine_that_is_away_at_the_restart_costs_no_job() {
    let mut bench = Bench::new().await;
    bench.run("l", json!({})).await;
    bench.kill().await;
    bench.scripted.fail(Step::Resume, Fault::Engine(EngineError::Unreachable("away".into())));
    bench.begin().await;
    assert_eq!(bench.declined("l").await, DeclineRetry::Later);
    bench.is_free().await;
}

#[tokio::test]
async fn what_is_taken_up_holds_its_room_until_it_ends() {
    let mut bench = Bench::new().await;
    let mut names = Vec::new();
    for number in 0..SLOTS {
        bench.grant(&format!("l{number}"), json!({})).await;
        bench.accepted(&format!("l{number}")).await;
    }
    bench.within(bench.scripted.reached(Step::Start, SLOTS as usize)).await;
    names.extend(bench.scripted.containers());
    bench.kill().await;
    bench.begin().await;
    bench.grant("more", json!({})).await;
    assert_eq!(bench.declined("more").await, DeclineRetry::Soon);
    for name in names {
        bench.scripted.exit(&name, 0);
    }
    for _ in 0..SLOTS {
        assert!(matches!(bench.heard().await, WorkerMessage::LeaseFinish(_)));
    }
    bench.is_free().await;
}

#[tokio::test]
async fn a_revoke_stops_what_was_taken_up() {
    let mut bench = Bench::new().await;
    bench.run("l", json!({})).await;
    bench.kill().await;
    bench.begin().await;
    bench.within(bench.scripted.reached(Step::Resume, 1)).await;
    bench.revoke("l").await;
    bench.within(bench.scripted.reached(Step::Stop, 1)).await;
    bench.is_free().await;
}

#[tokio::test]
async fn a_result_that_was_written_is_sent_and_not_made_again() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.disconnect().await;
    // Killed between the result and the removal of what the run left.
    bench.scripted.hold(Step::Remove);
    bench.scripted.exit(&name, 0);
    bench.within(bench.scripted.reached(Step::Remove, 1)).await;
    bench.kill().await;
    bench.scripted.let_go(Step::Remove);
    bench.begin().await;
    assert_eq!(bench.finished("l").await["reason"], "Success");
    assert_eq!((bench.scripted.count(Step::Create), bench.scripted.count(Step::Resume)), (1, 0));
}
