//! How runs end by themselves: results, and runs that are given back because the machine failed.

use dockframe_shared::protocol::{DeclineRetry, WorkerMessage};
use serde_json::{Value, json};

use super::bench::Bench;
use crate::executor::scripted::{Fault, Hearing, Step};
use crate::executor::{EngineError, ImageError};
use crate::logs::Stream;

fn away() -> EngineError {
    EngineError::Unreachable("away".to_owned())
}

#[tokio::test]
async fn a_run_says_what_its_container_says_and_ends_as_it_ends() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({"env": {"A": "b"}})).await;
    assert_eq!(bench.scripted.spec(&name).env[0], ("A".to_owned(), "b".to_owned()));
    bench.scripted.say(&name, Stream::Stdout, "hello\n");
    match bench.heard().await {
        WorkerMessage::Logs(logs) => {
            assert_eq!(logs.from, Some(0));
            assert_eq!(logs.logs[0].text, "hello\n");
        }
        other => panic!("{other:?}"),
    }
    bench.scripted.say(&name, Stream::Stderr, "no newline");
    bench.scripted.leave(&name, "out.txt", "made");
    bench.scripted.exit(&name, 3);
    let value = bench.finished("l").await;
    assert_eq!(value["reason"], "Success");
    let result = &value["result"];
    assert_eq!(result["StatusCode"], 3);
    assert_eq!((&result["logs"][0][0], &result["logs"][1][0]), (&json!("hello\n"), &json!("no newline")));
    assert_eq!(result["outputs"]["out.txt"], json!({"value": "bWFkZQ==", "type": "base64"}));
    bench.answer("l", true).await;
    bench.is_free().await;
}

#[tokio::test]
async fn a_time_limit_stops_the_container_and_collects_nothing() {
    for hearing in [Hearing::Good, Hearing::Deaf] {
        let mut bench = Bench::new().await;
        bench.scripted.hears(hearing);
        let name = bench.run("l", json!({"maxDuration": "150ms"})).await;
        bench.scripted.leave(&name, "out.txt", "made");
        let value = bench.finished("l").await;
        assert_eq!(value["reason"], "TimedOut");
        assert_eq!(
            (&value["result"]["StatusCode"], &value["result"]["isTimedOut"], &value["result"]["outputs"]),
            (&json!(137), &json!(true), &json!({}))
        );
        assert_eq!((bench.scripted.count(Step::Stop), bench.scripted.count(Step::Outputs)), (1, 0));
        bench.is_free().await;
    }
}

#[tokio::test]
async fn a_phase_takes_no_longer_than_the_lease_leaves() {
    let mut bench = Bench::new().await;
    bench.scripted.hold(Step::Image);
    bench.grant_for("l", json!({}), 1000).await;
    bench.accepted("l").await;
    let value = bench.finished("l").await;
    assert_eq!(value["reason"], "TimedOut");
    let lines = value["result"]["logs"].to_string();
    assert!(lines.contains("pulling or building the image"), "{lines}");
    bench.scripted.let_go(Step::Image);
    bench.is_free().await;
}

#[tokio::test]
async fn an_engine_that_goes_away_is_no_fault_of_the_job() {
    for step in [Step::Image, Step::Create, Step::Fill, Step::Start] {
        let mut bench = Bench::new().await;
        bench.scripted.fail(step, Fault::Engine(away()));
        bench.grant("l", json!({})).await;
        bench.accepted("l").await;
        assert_eq!(bench.declined("l").await, DeclineRetry::Later, "{step:?}");
        bench.is_free().await;
    }
}

#[tokio::test]
async fn an_engine_lost_under_a_running_container_gives_the_job_back() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.scripted.lose(&name, away());
    assert_eq!(bench.declined("l").await, DeclineRetry::Later);
    bench.is_free().await;
}

#[tokio::test]
async fn a_kill_counts_only_while_the_engine_is_well() {
    for is_well in [true, false] {
        let mut bench = Bench::new().await;
        let name = bench.run("l", json!({})).await;
        bench.scripted.is_well(is_well);
        bench.scripted.exit(&name, 137);
        if is_well {
            assert_eq!(bench.finished("l").await["result"]["StatusCode"], 137);
        } else {
            assert_eq!(bench.declined("l").await, DeclineRetry::Later);
        }
        bench.is_free().await;
    }
}

#[tokio::test]
async fn a_refused_start_is_an_error_with_its_code() {
    let mut bench = Bench::new().await;
    let message = "exec: \"ls *.txt\": executable file not found in $PATH";
    bench.scripted.fail(Step::Start, Fault::Start { message, code: 127, is_worth_another: false });
    bench.grant("l", json!({"command": "ls *.txt"})).await;
    bench.accepted("l").await;
    let value = bench.finished("l").await;
    assert_eq!((&value["reason"], &value["result"]["StatusCode"]), (&json!("Error"), &json!(127)));
    assert_eq!(value["result"]["error"]["json"]["message"], message);
    assert!(value["result"]["logs"].to_string().contains("sh -c"), "a hint: {value}");
    bench.is_free().await;
}

#[tokio::test]
async fn what_the_executor_has_learned_is_tried_anew_but_not_for_ever() {
    let mut bench = Bench::new().await;
    let fault = || Fault::Start { message: "rlimit", code: 128, is_worth_another: true };
    bench.scripted.fail(Step::Start, fault());
    let name = bench.run("l", json!({})).await;
    bench.scripted.exit(&name, 0);
    assert_eq!(bench.finished("l").await["reason"], "Success");

    for _ in 0..10 {
        bench.scripted.fail(Step::Start, fault());
    }
    bench.grant("m", json!({})).await;
    bench.accepted("m").await;
    assert_eq!(bench.finished("m").await["reason"], "Error");
}

#[tokio::test]
async fn an_image_that_is_gone_at_the_last_moment_is_made_available_again() {
    let mut bench = Bench::new().await;
    let message = "No such image: image:scripted".to_owned();
    bench.scripted.fail(Step::Create, Fault::Engine(EngineError::Refused { status: 404, message }));
    let name = bench.run("l", json!({})).await;
    assert_eq!(bench.scripted.count(Step::Image), 2);
    bench.scripted.exit(&name, 0);
    assert_eq!(bench.finished("l").await["reason"], "Success");
    bench.is_free().await;
}

#[tokio::test]
async fn gpus_that_the_engine_cannot_give_are_announced_no_more() {
    let mut bench = Bench::with(|bench| {
        bench.lends_gpus(&["0", "1"]);
        bench.scripted.has_no_gpus();
    })
    .await;
    bench.grant("l", json!({"requirements": {"gpus": 2}})).await;
    bench.accepted("l").await;
    assert_eq!(bench.declined("l").await, DeclineRetry::Never);
    bench.registers(|now| now.gpus.0 == 0.0).await;
    bench.grant("m", json!({"requirements": {"gpus": 1}})).await;
    assert_eq!(bench.declined("m").await, DeclineRetry::Never);
    bench.is_free().await;
}

#[tokio::test]
async fn a_refusal_that_is_the_jobs_fault_is_its_result() {
    let refused = |message: &str| EngineError::Refused { status: 400, message: message.to_owned() };
    let cases: [(Step, Fault, &str); 3] = [
        (Step::Image, Fault::Image(ImageError::Pull("manifest unknown".into())), "manifest unknown"),
        (Step::Create, Fault::Engine(refused("bad workdir")), "bad workdir"),
        (Step::Fill, Fault::Engine(refused("no room")), "no room"),
    ];
    for (step, fault, text) in cases {
        let mut bench = Bench::new().await;
        bench.scripted.fail(step, fault);
        bench.grant("l", json!({})).await;
        bench.accepted("l").await;
        let value = bench.finished("l").await;
        assert_eq!(value["reason"], "Error");
        assert!(value["result"].to_string().contains(text), "{value}");
        bench.is_free().await;
    }
}

#[tokio::test]
async fn outputs_that_cannot_be_brought_are_an_error_with_the_exit_code() {
    let mut bench = Bench::new().await;
    bench.scripted.fail(Step::Outputs, Fault::Outputs("the copy broke"));
    let name = bench.run("l", json!({})).await;
    bench.scripted.exit(&name, 0);
    let value = bench.finished("l").await;
    assert_eq!((&value["reason"], &value["result"]["StatusCode"]), (&json!("Error"), &json!(0)));
    assert!(value["result"]["error"].to_string().contains("the copy broke"), "{value}");
    bench.is_free().await;
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_starts_nothing() {
    let mut bench = Bench::new().await;
    for (number, definition) in
        [json!({"command": "echo ${"}), json!({"maxDuration": "-1s"}), json!({"env": 7})]
            .into_iter()
            .enumerate()
    {
        let lease = format!("l{number}");
        bench.grant(&lease, definition).await;
        bench.accepted(&lease).await;
        assert_eq!(bench.finished(&lease).await["reason"], "Error");
        bench.answer(&lease, true).await;
    }
    assert_eq!(bench.scripted.count(Step::Create), 0);
    bench.is_free().await;
}

#[tokio::test]
async fn a_fault_inside_the_worker_ends_one_job_and_not_the_worker() {
    let mut bench = Bench::new().await;
    bench.scripted.fail(Step::Image, Fault::Panic);
    bench.grant("l", json!({})).await;
    bench.accepted("l").await;
    let value = bench.finished("l").await;
    assert_eq!(value["reason"], "Error");
    assert_ne!(value["result"]["error"], Value::Null);
    bench.within(bench.scripted.reached(Step::Remove, 1)).await;
    bench.is_free().await;
}

#[tokio::test]
async fn a_result_waits_for_its_relay_and_goes_out_again_until_it_is_answered() {
    let mut bench = Bench::new().await;
    let name = bench.run("l", json!({})).await;
    bench.disconnect().await;
    bench.scripted.exit(&name, 0);
    bench.within(bench.scripted.reached(Step::Remove, 1)).await;
    bench.connect("epoch").await;
    let first = bench.finished("l").await;
    // The answer was lost with the connection.
    bench.connect("epoch").await;
    assert_eq!(bench.finished("l").await, first);
    bench.answer("l", true).await;
    // A relay whose store lost its tail asks by its epoch.
    bench.connect("another").await;
    assert_eq!(bench.finished("l").await, first);
    bench.answer("l", true).await;
    bench.connect("another").await;
    bench.is_free().await;
}
