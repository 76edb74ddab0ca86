//! What the worker keeps when something breaks: its process, the link, the relay's memory, the machine's room.

use std::time::Duration;

use dockframe_shared::job::FinishReason;
use dockframe_shared::protocol::{DeclineRetry, Phase, RevokeWhy, WorkerMessage};
use serde_json::{Value, json};

use super::bench::{Bench, docker, eventually};

/// Counts to 5 on its own, then waits for a file before it goes on to 10.
fn counting(bench: &Bench) -> Value {
    let go = go_file(bench);
    let script = format!(
        "echo started >> /outputs/starts; for i in 1 2 3 4 5; do echo line $i; echo err $i >&2; done; printf 'half'; \
         until [ -e {go} ]; do sleep 0.02; done; rm {go}; echo ' line'; for i in 6 7 8 9 10; do echo line $i; done"
    );
    json!({"image": bench.image, "command": ["sh", "-c", script]})
}

fn go_file(bench: &Bench) -> String {
    format!("/job-cache/go-{}", bench.worker_id)
}

fn go_on(bench: &Bench) {
    let container = bench.containers().remove(0);
    assert!(docker(&["exec", &container, "touch", &go_file(bench)]).status.success());
}

fn stdout(lines: &[dockframe_shared::job::LogLine]) -> String {
    lines.iter().filter(|line| !line.is_stderr).map(|line| line.text.as_str()).collect()
}

const WHOLE: &str =
    "line 1\nline 2\nline 3\nline 4\nline 5\nhalf line\nline 6\nline 7\nline 8\nline 9\nline 10\n";

fn finishes(bench: &Bench) -> usize {
    let is_finish = |message: &WorkerMessage| matches!(message, WorkerMessage::LeaseFinish(_));
    bench.relay.heard().iter().filter(|heard| is_finish(&heard.message)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_takes_its_running_job_up_again() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.log_with("l1", "half").await;
    let container = bench.containers();
    worker.kill().await;
    // It goes on while nobody looks.
    let worker = bench.start(&[]).await.unwrap();
    let registration = bench.relay.connected(2).await;
    assert_eq!(registration.leases.unwrap()[0].lease_id.as_str(), "l1", "named in the first registration");
    assert_eq!(bench.containers(), container, "the same container");
    go_on(&bench);
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!((finished.reason, result.status_code), (FinishReason::Success, Some(0)));
    assert_eq!(stdout(&bench.relay.run_lines("l1")), WHOLE, "each line once");
    assert_eq!(stdout(&result.logs), WHOLE);
    assert_eq!(result.outputs["starts"].value, "c3RhcnRlZAo=", "it was started once");
    assert!(result.phases.unwrap().contains_key("image"));
    bench.clean().await;
    worker.stop().await;
    assert_eq!(finishes(&bench), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ended_while_no_worker_looked_is_not_run_again() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.log_with("l1", "half").await;
    let container = bench.containers().remove(0);
    worker.kill().await;
    go_on(&bench);
    docker(&["wait", &container]);
    let worker = bench.start(&[]).await.unwrap();
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!((finished.reason, result.status_code), (FinishReason::Success, Some(0)));
    assert_eq!(stdout(&bench.relay.run_lines("l1")), WHOLE);
    assert_eq!(result.outputs["starts"].value, "c3RhcnRlZAo=");
    bench.clean().await;
    worker.stop().await;
    assert_eq!(finishes(&bench), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_loses_no_line_and_no_job() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.log_with("l1", "half").await;
    bench.relay.set(|settings| settings.accept_connections = false);
    bench.relay.close(None);
    go_on(&bench);
    eventually("the container ends with nobody listening", || bench.containers().is_empty()).await;
    bench.relay.set(|settings| settings.accept_connections = true);
    let registration = bench.relay.connected(2).await;
    assert_eq!(registration.leases.unwrap()[0].phase, Phase::Ended);
    let (_, result) = bench.relay.finished("l1").await;
    assert_eq!(stdout(&bench.relay.run_lines("l1")), WHOLE);
    assert_eq!(stdout(&result.logs), WHOLE);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_sent_until_it_is_answered_also_by_the_next_process() {
    let bench = Bench::new().await;
    bench.relay.set(|settings| settings.answer_finish = false);
    let worker = bench.worker(&[]).await;
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": "echo hi"}));
    bench.relay.finished("l1").await;
    bench.relay.close(Some(1012));
    bench.relay.connected(2).await;
    eventually("it is sent on the second connection", || finishes(&bench) == 2).await;
    worker.kill().await;
    bench.relay.set(|settings| settings.answer_finish = true);
    let worker = bench.start(&[]).await.unwrap();
    let registration = bench.relay.connected(3).await;
    assert_eq!(registration.leases.unwrap()[0].phase, Phase::Ended);
    eventually("it is sent by the next process", || finishes(&bench) == 3).await;
    let values: Vec<Value> = bench
        .relay
        .heard()
        .into_iter()
        .filter_map(|heard| match heard.message {
            WorkerMessage::LeaseFinish(finish) => Some(finish.value),
            _ => None,
        })
        .collect();
    assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "unchanged");
    // A relay whose store lost its tail is told again, though it had answered.
    bench.relay.set(|settings| settings.epoch = "epoch-2".to_owned());
    bench.relay.close(None);
    eventually("a new epoch is told", || finishes(&bench) == 4).await;
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_finds_no_room_is_declined_by_its_reason() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--cpus=1", "--tag=eu", "--memory=1G"]).await;
    let registration = bench.relay.registration().await;
    assert_eq!((registration.cpus.0, registration.memory_bytes), (1.0, Some(1 << 30)));
    assert_eq!(
        (registration.tags.unwrap(), registration.executor.as_deref()),
        (vec!["eu".to_owned()], Some("docker"))
    );
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.accepted("l1").await;
    let image = &bench.image;
    for (lease, extra, retry) in [
        ("room", json!({}), DeclineRetry::Soon),
        ("gpus", json!({"requirements": {"gpus": 1}}), DeclineRetry::Never),
        ("memory", json!({"requirements": {"memory": "2G"}}), DeclineRetry::Never),
        ("tag", json!({"tags": ["us"]}), DeclineRetry::Never),
    ] {
        let mut definition = json!({"image": image, "command": "true"});
        definition.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        bench.relay.grant(lease, lease, definition);
        bench.relay.declined(lease).await;
        let heard = bench.relay.heard();
        let declined = heard.iter().find_map(|heard| match &heard.message {
            WorkerMessage::LeaseDecline(decline) if decline.lease_id.as_str() == lease => Some(decline.retry),
            _ => None,
        });
        assert_eq!(declined, Some(retry), "{lease}");
    }
    bench.relay.log_with("l1", "half").await;
    bench.relay.revoke("l1", RevokeWhy::Cancelled, 0);
    bench.clean().await;
    bench.relay.grant("l2", "job2", json!({"image": image, "command": "true"}));
    bench.relay.finished("l2").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_stops_its_jobs_and_gives_them_back() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.log_with("l1", "half").await;
    worker.stop().await;
    assert_eq!(bench.relay.declined("l1").await, "this worker is about to stop");
    assert_eq!(finishes(&bench), 0);
    bench.clean().await;
    let drained = bench.relay.heard().iter().any(|heard| match &heard.message {
        WorkerMessage::Registration(registration) => {
            registration.draining == Some(true) && registration.cpus.0 == 1.0
        }
        _ => false,
    });
    assert!(drained, "it said that it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_lets_its_jobs_end_and_takes_no_new_ones() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--drain-timeout=job", "--cpus=2"]).await;
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.log_with("l1", "half").await;
    let stopping = tokio::spawn(worker.stop());
    bench
        .relay
        .wait_for("draining", |heard| match &heard.message {
            WorkerMessage::Registration(registration) => (registration.draining == Some(true)).then_some(()),
            _ => None,
        })
        .await;
    bench.relay.grant("l2", "job2", json!({"image": bench.image, "command": "true"}));
    bench.relay.declined("l2").await;
    go_on(&bench);
    let (finished, _) = bench.relay.finished("l1").await;
    assert_eq!(finished.reason, FinishReason::Success);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_ends_a_drain_at_once() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--drain-timeout=job"]).await;
    let stubborn = "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done";
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": ["sh", "-c", stubborn]}));
    bench.relay.log_with("l1", "ready").await;
    let hurry = worker.hurry.clone();
    let stopping = tokio::spawn(worker.stop());
    hurry.cancel();
    stopping.await.unwrap();
    assert_eq!(bench.relay.declined("l1").await, "this worker is about to stop");
    bench.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_queues_share_a_worker_and_nothing_else() {
    let bench = Bench::new().await;
    let queues = ["one", "two"].map(|name| format!("{name}-{}", bench.worker_id));
    let worker = bench.start(&["--cpus=2", &queues[0], &queues[1]]).await.unwrap();
    bench.relay.connected(2).await;
    let mut paths = bench.relay.paths();
    paths.sort();
    assert_eq!(paths, queues.clone().map(|queue| format!("/q/{queue}/worker")));
    // The scripted relay says it on both sockets: the same job, in two queues.
    bench.relay.grant(
        "l1",
        "job1",
        json!({"image": bench.image, "command": ["sh", "-c", "echo up; sleep 3"]}),
    );
    eventually("two runs", || bench.relay.logs("l1").len() == 2).await;
    let label = |id: &String| bench.inspect(id)["Config"]["Labels"]["container.mtfm.io/queue"].clone();
    let labels: Vec<Value> = bench.containers().iter().map(label).collect();
    assert!(queues.iter().all(|queue| labels.contains(&json!(queue))), "{labels:?}");
    eventually("two results", || finishes(&bench) == 2).await;
    let connections: std::collections::BTreeSet<usize> = bench
        .relay
        .heard()
        .iter()
        .filter(|heard| matches!(heard.message, WorkerMessage::LeaseFinish(_)))
        .map(|heard| heard.connection)
        .collect();
    assert_eq!(connections.len(), 2, "each to its own queue");
    bench.clean().await;
    worker.stop().await;
    for queue in queues {
        let digest = dockframe_shared::QueueKey::new(queue).unwrap().digest().to_hex();
        let volume = format!("metaframe-container-worker-cache-{}", &digest[..16]);
        assert!(docker(&["volume", "rm", &volume]).status.success(), "each queue has a cache of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_left_running_is_taken_up_after_the_restart() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--on-exit=leave"]).await;
    bench.relay.grant("l1", "job1", counting(&bench));
    bench.relay.log_with("l1", "half").await;
    worker.stop().await;
    assert_eq!(bench.containers().len(), 1, "it runs on");
    let worker = bench.start(&[]).await.unwrap();
    bench.relay.connected(2).await;
    go_on(&bench);
    let (_, result) = bench.relay.finished("l1").await;
    assert_eq!(stdout(&result.logs), WHOLE);
    assert_eq!(stdout(&bench.relay.run_lines("l1")), WHOLE);
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_id_is_taken_goes_on_under_another() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let first = bench.relay.registration().await;
    bench.relay.close(Some(4409));
    let second = bench.relay.connected(2).await;
    assert_ne!(first.id, second.id);
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": "true"}));
    let (finished, _) = bench.relay.finished("l1").await;
    assert_eq!(finished.worker, Some(second.id.to_string()));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_comes_after_its_revoke_is_dropped() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.relay.revoke("l1", RevokeWhy::Cancelled, 0);
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": "true"}));
    bench.relay.grant("l2", "job2", json!({"image": bench.image, "command": "true"}));
    bench.relay.finished("l2").await;
    let of_l1 = |message: &WorkerMessage| match message {
        WorkerMessage::LeaseAccept(accept) => accept.lease_id.as_str() == "l1",
        WorkerMessage::LeaseFinish(finish) => finish.lease_id.as_str() == "l1",
        _ => false,
    };
    assert!(!bench.relay.heard().iter().any(|heard| of_l1(&heard.message)));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_there_is_one_sentence_that_says_what_to_do() {
    let bench = Bench::new().await;
    let refused = bench
        .start_with(&[], |config| {
            config.engine_address = Some("unix:///nowhere/docker.sock".to_owned());
            config.engine_patience = Duration::from_millis(300);
        })
        .await;
    let text = refused.err().unwrap().to_string();
    assert!(text.starts_with("no Docker Engine answers at unix:///nowhere/docker.sock"), "{text}");
    assert!(text.contains("install and start Docker") && !text.contains('\n'), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_relay_is_left_and_found_again() {
    let bench = Bench::new().await;
    bench.relay.set(|settings| settings.answer_ping = false);
    let worker = bench.worker(&[]).await;
    // Ten seconds without PONG.
    bench.relay.connected(2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queues_name_is_one_encoded_segment() {
    let bench = Bench::new().await;
    let worker = bench.start(&["a/b c?#é"]).await.unwrap();
    bench.relay.registration().await;
    assert_eq!(bench.relay.paths(), ["/q/a%2Fb%20c%3F%23%C3%A9/worker"]);
    worker.stop().await;
}
