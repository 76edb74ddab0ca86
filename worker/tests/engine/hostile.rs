//! Jobs that mean no good, or go wrong in every way a program can: the worker and its host stay well.

use std::process::Command;
use std::time::{Duration, Instant};

use dockframe_shared::job::{FinishReason, JobResult};
use dockframe_shared::protocol::WorkerMessage;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use super::bench::{Bench, eventually};

async fn run(bench: &Bench, lease: &str, definition: Value) -> (FinishReason, JobResult) {
    bench.relay.grant(lease, lease, definition);
    let (finished, result) = bench.relay.finished(lease).await;
    (finished.reason, result)
}

fn text(result: &JobResult) -> String {
    result.logs.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_at_its_time_limit_and_the_next_job_runs() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let bomb = json!({"image": bench.image, "command": ["sh", "-c", "b() { b | b & }; b; while :; do b; sleep 0.2; done"], "maxDuration": "2s"});
    let (reason, result) = run(&bench, "bomb", bomb).await;
    // A shell that may make no more processes may also give up by itself.
    assert!(matches!(reason, FinishReason::TimedOut | FinishReason::Success), "{result:?}");
    let (reason, result) = run(&bench, "next", json!({"image": bench.image, "command": "echo well"})).await;
    assert_eq!((reason, text(&result).as_str()), (FinishReason::Success, "well\n"));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ignores_sigterm_ends_at_its_time_limit_plus_the_grace() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--kill-grace=1s"]).await;
    let stubborn = json!({"image": bench.image, "maxDuration": "1s",
        "command": ["sh", "-c", "trap 'echo no' TERM; while :; do sleep 0.05; done"]});
    let (reason, result) = run(&bench, "l1", stubborn).await;
    assert_eq!((reason, result.status_code), (FinishReason::TimedOut, Some(137)));
    let took = result.duration.unwrap().0;
    assert!((1900.0..6000.0).contains(&took), "{took}");
    assert!(text(&result).contains("no\n"), "it was asked first");
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_links_and_devices_among_the_outputs_harm_nobody() {
    for flags in [&[][..], &["--host-data-directory=/nowhere/else"]] {
        let bench = Bench::new().await;
        let worker = bench.worker(flags).await;
        let script = "cd /outputs && mkfifo pipe && ln -s /etc/shadow shadow && ln -s ../../../../../../etc/shadow up && \
                      ln -s loop loop && ln -s real inside && echo content > real && mkdir -p deep/er && echo x > deep/er/file && \
                      mkdir empty && ln real hard";
        let (reason, result) =
            run(&bench, "l1", json!({"image": bench.image, "command": ["sh", "-c", script]})).await;
        assert_eq!((reason, result.status_code), (FinishReason::Success, Some(0)), "{}", text(&result));
        let names: Vec<&str> = result.outputs.keys().map(String::as_str).collect();
        assert_eq!(names, ["deep/er/file", "hard", "inside", "real"], "{flags:?}");
        let mut skipped: Vec<String> =
            result.outputs_skipped.unwrap().into_iter().map(|skipped| skipped.name).collect();
        skipped.sort();
        assert_eq!(skipped, ["loop", "pipe", "shadow", "up"], "{flags:?}");
        bench.clean().await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_writes_more_than_it_may_is_stopped_and_told_so() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--job-disk=8M"]).await;
    let script = "head -c 50000000 /dev/zero > /outputs/big; sleep 60";
    let (reason, result) =
        run(&bench, "l1", json!({"image": bench.image, "command": ["sh", "-c", script]})).await;
    assert_eq!(reason, FinishReason::Error);
    let error = result.error.unwrap().to_string();
    assert!(error.contains("disk limit exceeded: used 47 of 8 MiB"), "{error}");
    assert!(result.outputs.is_empty());
    bench.clean().await;
    worker.stop().await;
}

/// A tenth of what was tried by hand: a worker that is not optimised takes minutes for a gigabyte.
const OUTPUT_BYTES: u64 = 100_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn endless_output_neither_stalls_the_job_nor_fills_the_memory() {
    let bench = Bench::new().await;
    let process = bench.process(&[]);
    bench.relay.connected(1).await;
    let before = Instant::now();
    let script = format!("yes 0123456789abcdef0123456789abcdef | head -c {OUTPUT_BYTES}; echo; echo the end");
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": ["sh", "-c", script]}));
    let mut most = 0;
    let mut finished = Box::pin(bench.relay.finished_within("l1", Duration::from_secs(300)));
    let (_, result) = loop {
        tokio::select! {
            done = &mut finished => break done,
            () = tokio::time::sleep(Duration::from_millis(100)) => most = most.max(process.resident_bytes()),
        }
    };
    eprintln!(
        "1 GB of output in {:.1} s, at most {} MiB resident",
        before.elapsed().as_secs_f64(),
        most >> 20
    );
    assert_eq!(result.status_code, Some(0));
    let text = text(&result);
    assert!(
        text.starts_with("0123456789abcdef") && text.ends_with("the end\n") && text.contains("bytes omitted")
    );
    assert!(most < 128 << 20, "{} MiB", most >> 20);
    bench.clean().await;
    process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_jobs_and_has_room_again_later() {
    let bench = Bench::new().await;
    let place = bench.data.path().join("remote");
    std::fs::create_dir_all(&place).unwrap();
    let disk = SmallDisk::mount(&place);
    let worker = bench.worker(&[]).await;
    let image = &bench.image;
    // A job that fills the disk itself fails alone.
    let script = "head -c 100000000 /dev/zero > /outputs/big; echo code $?; rm /outputs/big";
    let (reason, result) = run(&bench, "l1", json!({"image": image, "command": ["sh", "-c", script]})).await;
    assert_eq!((reason, text(&result).contains("code 1")), (FinishReason::Success, true), "{result:?}");
    eventually("the run's directory is gone", || bench.run_directories().is_empty()).await;
    std::fs::write(place.join("ballast"), vec![0; 63 << 20]).unwrap();
    bench.relay.grant("l2", "l2", json!({"image": image, "command": "true"}));
    let why = bench.relay.declined("l2").await;
    assert!(why.contains("disk is nearly full"), "{why}");
    std::fs::remove_file(place.join("ballast")).unwrap();
    let (reason, _) = run(&bench, "l3", json!({"image": image, "command": "true"})).await;
    assert_eq!(reason, FinishReason::Success);
    bench.clean().await;
    worker.stop().await;
    drop(disk);
}

/// A file system of 64 MiB, gone when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &std::path::Path) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(path).status();
        assert!(mounted.unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~é\\x00/$'\"{}]{0,12}".prop_map(Value::String),
        Just(Value::String("x".repeat(70_000))),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(
                "[a-z./]{0,8}|type|value|maxDuration|memory|gpus|dockerfile|context",
                inner,
                0..3
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_of_any_shape_is_answered_and_the_worker_lives() {
    const FIELDS: [&str; 16] = [
        "image",
        "build",
        "command",
        "entrypoint",
        "env",
        "workdir",
        "shmSize",
        "inputs",
        "configFiles",
        "maxDuration",
        "requirements",
        "tags",
        "platform",
        "network",
        "secrets",
        "v",
    ];
    let bench = Bench::new().await;
    let worker = bench.worker(&["--cpus=4", "--pull-policy=never", "--max-job-duration=5s"]).await;
    let mut runner = TestRunner::deterministic();
    let mut leases = Vec::new();
    for (number, field) in FIELDS.iter().cycle().take(FIELDS.len() * 4).enumerate() {
        let mut definition = Map::new();
        definition.insert("image".to_owned(), bench.image.clone().into());
        definition.insert("command".to_owned(), "true".into());
        let value = any_json().new_tree(&mut runner).unwrap().current();
        definition.insert((*field).to_owned(), value);
        let lease = format!("l{number}");
        bench.relay.grant(&lease, &lease, Value::Object(definition.clone()));
        leases.push(lease.clone());
        // One after the other, so that none is declined for want of room.
        bench
            .relay
            .wait_for(&format!("answer to {}", Value::Object(definition)), |heard| match &heard.message {
                WorkerMessage::LeaseFinish(finish) => (finish.lease_id.as_str() == lease).then_some(()),
                WorkerMessage::LeaseDecline(decline) => (decline.lease_id.as_str() == lease).then_some(()),
                _ => None,
            })
            .await;
    }
    for heard in bench.relay.heard() {
        if let WorkerMessage::LeaseFinish(finish) = heard.message {
            let is_error = finish.value["reason"] == "Error";
            let says_why = finish.value["result"]["error"] != Value::Null;
            assert_eq!(is_error, says_why, "{}", finish.value);
        }
    }
    let (reason, _) = run(&bench, "last", json!({"image": bench.image, "command": "true"})).await;
    assert_eq!(reason, FinishReason::Success);
    bench.clean().await;
    worker.stop().await;
}
