//! SIGKILL of the whole worker, at whatever moment: nothing is lost, nothing happens twice, nothing stays behind.

use std::time::Duration;

use dockframe_shared::job::FinishReason;
use dockframe_shared::protocol::{Phase, WorkerMessage};
use rand::RngExt as _;
use serde_json::{Value, json};

use super::bench::{Bench, eventually};

/// Each time at another moment; together they hit every phase of a job.
const ROUNDS: usize = 10;

fn finish_values(bench: &Bench, lease: &str) -> Vec<Value> {
    let heard = bench.relay.heard();
    let finishes = heard.into_iter().filter_map(|heard| match heard.message {
        WorkerMessage::LeaseFinish(finish) if finish.lease_id.as_str() == lease => Some(finish.value),
        _ => None,
    });
    finishes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_moment_loses_no_job_and_runs_none_twice() {
    let bench = Bench::new().await;
    bench.relay.put_blob("far", b"from afar\n");
    let script = "echo started >> /outputs/starts; cat /inputs/far; for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.1; done; \
                  head -c 5000 /dev/zero > /outputs/big";
    let definition = json!({"image": bench.image, "command": ["sh", "-c", script],
        "inputs": {"far": {"type": "key", "value": "far"}}});
    let mut process = bench.process(&["--cpus=2"]);
    let mut connection = 1;
    bench.relay.connected(connection).await;
    for round in 0..ROUNDS {
        let mut lease = format!("l{round}");
        bench.relay.grant(&lease, &format!("job{round}"), definition.clone());
        let moment = rand::rng().random_range(0..2500);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        process.kill();
        process = bench.process(&["--cpus=2"]);
        connection += 1;
        let registration = bench.relay.connected(connection).await;
        // What a relay does with a lease that its worker does not name: the job is granted anew.
        let is_named = registration.leases.unwrap().iter().any(|held| held.lease_id.as_str() == lease);
        if !is_named && finish_values(&bench, &lease).is_empty() {
            lease = format!("{lease}-again");
            bench.relay.grant(&lease, &format!("job{round}"), definition.clone());
        }
        let (finished, result) = bench.relay.finished(&lease).await;
        assert_eq!(finished.reason, FinishReason::Success, "killed after {moment} ms: {result:?}");
        assert_eq!(result.outputs["starts"].value, "c3RhcnRlZAo=", "killed after {moment} ms: started once");
        let text: String = result.logs.iter().map(|line| line.text.as_str()).collect();
        let whole: String = (1..=8).map(|number| format!("line {number}\n")).collect();
        assert_eq!(text, format!("from afar\n{whole}"), "killed after {moment} ms");
        let values = finish_values(&bench, &lease);
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "one result, sent as often as it takes");
        let live: String = bench.relay.run_lines(&lease).iter().map(|line| line.text.as_str()).collect();
        assert_eq!(live, text, "killed after {moment} ms: each line once, by number");
    }
    bench.clean().await;
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_the_relay_is_away_delivers_after_its_restart() {
    let bench = Bench::new().await;
    let process = bench.process(&[]);
    bench.relay.connected(1).await;
    bench.relay.grant(
        "l1",
        "job1",
        json!({"image": bench.image, "command": ["sh", "-c", "echo one; sleep 1; echo two"]}),
    );
    bench.relay.log_with("l1", "one").await;
    bench.relay.set(|settings| settings.accept_connections = false);
    bench.relay.close(None);
    eventually("it ends with nobody listening", || bench.containers().is_empty()).await;
    process.kill();
    let process = bench.process(&[]);
    bench.relay.set(|settings| settings.accept_connections = true);
    let registration = bench.relay.connected(2).await;
    assert_eq!(registration.leases.unwrap()[0].phase, Phase::Ended);
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!(finished.reason, FinishReason::Success);
    assert_eq!(result.logs.iter().map(|line| line.text.as_str()).collect::<String>(), "one\ntwo\n");
    bench.clean().await;
    process.terminate().await;
}
