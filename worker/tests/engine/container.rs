//! What a container sees and may do.

use dockframe_shared::job::JobResult;
use serde_json::{Value, json};

use super::bench::Bench;

async fn run(bench: &Bench, lease: &str, definition: Value) -> JobResult {
    bench.relay.grant(lease, lease, definition);
    bench.relay.finished(lease).await.1
}

fn text(result: &JobResult) -> String {
    result.logs.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_image_and_three_directories() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let result = run(&bench, "l1", json!({"image": bench.image, "command": "ls -a /"})).await;
    let text = text(&result);
    let seen: Vec<&str> = text.lines().filter(|name| !matches!(*name, "." | "..")).collect();
    assert_eq!(
        seen,
        [".dockerenv", "bin", "dev", "etc", "inputs", "job-cache", "outputs", "proc", "sys", "tmp"]
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_users_and_then_the_jobs() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let definition = json!({"image": bench.image, "command": "env",
        "env": {"JOB_ID": "mine", "A": 5, "PATH": "/bin:/mine", "JOB_CPUS": "user's", "NVIDIA_VISIBLE_DEVICES": "all"}});
    let result = run(&bench, "l1", definition).await;
    let text = text(&result);
    let relay = &bench.relay.address;
    for line in [
        "A=5",
        "PATH=/bin:/mine",
        "JOB_ID=l1",
        "JOB_INPUTS=/inputs",
        "JOB_OUTPUTS=/outputs",
        "JOB_CACHE=/job-cache",
        &format!("JOB_URL_PREFIX={relay}/j/l1"),
        &format!("JOB_OUTPUTS_URL_PREFIX={relay}/j/l1/outputs/"),
        &format!("JOB_INPUTS_URL_PREFIX={relay}/j/l1/inputs/"),
        "JOB_ATTEMPT=1",
        "JOB_CPUS=user's",
        "NVIDIA_VISIBLE_DEVICES=void",
    ] {
        assert_eq!(text.lines().filter(|seen| *seen == line).count(), 1, "{line} in {text}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_confined_and_its_program_is_process_1() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let script = "echo pid $$; id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status; df -k /dev/shm | tail -1 | awk '{print $2}'; pwd";
    let definition = json!({"image": bench.image, "command": ["sh", "-c", script], "shmSize": "3m", "workdir": "/made/here"});
    let result = run(&bench, "l1", definition).await;
    assert_eq!(text(&result), "pid 1\n0\nCapEff:\t00000000a00405fb\nNoNewPrivs:\t1\n3072\n/made/here\n");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_carries_the_known_labels_and_limits() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let definition =
        json!({"image": bench.image, "command": "sleep 100", "requirements": {"memory": "64m", "cpus": 0.5}});
    bench.relay.grant("l1", "job/odd", definition);
    bench.relay.phase("l1", dockframe_shared::protocol::Phase::Running).await;
    let inspected = bench.inspect(&bench.containers().remove(0));
    let labels = &inspected["Config"]["Labels"];
    assert_eq!(labels["container.mtfm.io"], "true");
    assert_eq!(labels["container.mtfm.io/queue"], "q");
    assert_eq!(labels["container.mtfm.io/worker"], bench.worker_id);
    assert_eq!(labels["container.mtfm.io/attempt"], "1");
    assert_eq!(labels["container.mtfm.io/id"].as_str().unwrap().len(), 64, "an odd id becomes its digest");
    let host = &inspected["HostConfig"];
    assert_eq!((host["Memory"].as_u64(), host["PidsLimit"].as_u64()), (Some(64 << 20), Some(4096)));
    assert_eq!(host["NetworkMode"], "metaframe-container-worker-network");
    assert_eq!(host["LogConfig"]["Type"], "local");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_eats_its_memory_is_told_so() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let definition = json!({"image": bench.image, "command": ["sh", "-c", "x=x; while :; do x=$x$x; done"], "requirements": {"memory": "32m"}});
    let result = run(&bench, "l1", definition).await;
    assert_eq!((result.status_code, result.oom_killed), (Some(137), Some(true)), "{result:?}");
    assert!(text(&result).contains("out of memory"));
    let definition = json!({"image": bench.image, "command": ["sh", "-c", "kill -9 $$"], "entrypoint": ["sh", "-c", "sh -c 'kill -9 $$'; exit 137"]});
    let result = run(&bench, "l2", definition).await;
    assert_eq!((result.status_code, result.oom_killed), (Some(137), None));
    assert!(!text(&result).contains("out of memory"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_ask_for_no_network_and_then_has_none() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let script = "ls /sys/class/net | tr '\\n' ' '";
    let none = json!({"image": bench.image, "command": ["sh", "-c", script], "network": "none"});
    let result = run(&bench, "l1", none).await;
    assert!(!text(&result).contains("eth0"), "{}", text(&result));
    let nat = json!({"image": bench.image, "command": ["sh", "-c", script]});
    assert!(text(&run(&bench, "l2", nat).await).contains("eth0"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_of_output_neither_stall_nor_vanish() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let script =
        "yes 0123456789abcdef0123456789abcde | head -c 20000000; echo; echo the end; seq 1 30000 >&2";
    let result = run(&bench, "l1", json!({"image": bench.image, "command": ["sh", "-c", script]})).await;
    assert_eq!(result.status_code, Some(0));
    let text = text(&result);
    assert!(
        text.starts_with("0123456789abcdef") && text.contains("bytes omitted") && text.contains("the end\n")
    );
    assert!(text.contains("30000\n"), "the last line of the other stream");
    assert!(text.len() < 4 << 20);
    worker.stop().await;
}
