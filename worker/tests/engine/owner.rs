//! What the owner of the machine decides: where files are, which images, secrets, room, and what monitoring sees.

use dockframe_shared::ContentHash;
use dockframe_shared::job::{FinishReason, JobResult};
use dockframe_shared::protocol::{DeclineRetry, WorkerMessage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::bench::{Bench, docker, eventually};

async fn run(bench: &Bench, lease: &str, definition: Value) -> (FinishReason, JobResult) {
    bench.relay.grant(lease, lease, definition);
    let (finished, result) = bench.relay.finished(lease).await;
    (finished.reason, result)
}

fn text(result: &JobResult) -> String {
    result.logs.iter().map(|line| line.text.as_str()).collect()
}

async fn declined(bench: &Bench, lease: &str, definition: Value) -> (String, DeclineRetry) {
    bench.relay.grant(lease, lease, definition);
    bench
        .relay
        .wait_for("decline", |heard| match &heard.message {
            WorkerMessage::LeaseDecline(decline) if decline.lease_id.as_str() == lease => {
                Some((decline.why.clone(), decline.retry))
            }
            _ => None,
        })
        .await
}

/// What the Engine remembers of the volumes of this bench's containers, which are gone by now.
fn nameless_volumes(bench: &Bench) -> Vec<String> {
    let events = |filters: &[&str], format: &str| {
        let mut line = vec!["events", "--since", "10m", "--until", "0s", "--format", format];
        line.extend(filters.iter().flat_map(|filter| ["--filter", *filter]));
        String::from_utf8(docker(&line).stdout).unwrap()
    };
    let label = format!("label=container.mtfm.io/worker={}", bench.worker_id);
    let ours = events(&["type=container", "event=create", &label], "{{.Actor.ID}}");
    let mounts =
        events(&["type=volume", "event=mount"], "{{index .Actor.Attributes \"container\"}} {{.Actor.ID}}");
    mounts
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(container, volume)| ours.contains(container) && volume.len() == 64)
        .map(|(_, volume)| volume.to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_engines_host_does_not_see_are_copied_in_and_out() {
    let bench = Bench::new().await;
    let big = vec![7; 3 << 20];
    let hash = ContentHash::of(&big);
    bench.relay.put_blob(&hash.to_string(), &big);
    // As in a container whose data directory is on no volume: nothing is where the Engine would look.
    let worker = bench.worker(&["--host-data-directory=/nowhere/else"]).await;
    let script = "cat /inputs/a/b.txt /etc/made/here.conf; cp /inputs/big /outputs/big; id -u > /outputs/user; \
                  stat -c %a /outputs /inputs/a/b.txt; echo kept >> /inputs/a/b.txt && echo writable";
    let definition = json!({"image": bench.image, "command": ["sh", "-c", script],
        "inputs": {"a/b.txt": {"value": "nested\n"}, "big": {"type": "key", "value": hash.to_string()}},
        "configFiles": {"/etc/made/here.conf": {"value": "config\n"}}});
    let (reason, result) = run(&bench, "l1", definition).await;
    assert_eq!(reason, FinishReason::Success, "{result:?}");
    assert_eq!(text(&result), "nested\nconfig\n777\n644\nwritable\n");
    assert_eq!(result.outputs["user"].value, "MAo=");
    assert_eq!(result.outputs["big"].value.as_str().unwrap(), format!("{}/f/{hash}", bench.relay.address));
    // Volumes without a name go with their container.
    bench.clean().await;
    let volumes = nameless_volumes(&bench);
    assert!(!volumes.is_empty(), "files are copied into volumes");
    let left = String::from_utf8(docker(&["volume", "ls", "--quiet"]).stdout).unwrap();
    assert!(!left.lines().any(|left| volumes.iter().any(|volume| volume == left)), "{volumes:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_writes_outputs_also_where_files_are_copied() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--host-data-directory=/nowhere/else", "--job-user=1234:1234"]).await;
    let script = "id -u > /outputs/user; cat /inputs/x";
    let definition =
        json!({"image": bench.image, "command": ["sh", "-c", script], "inputs": {"x": {"value": "in\n"}}});
    let (reason, result) = run(&bench, "l1", definition).await;
    assert_eq!((reason, text(&result).as_str()), (FinishReason::Success, "in\n"));
    assert_eq!(result.outputs["user"].value, "MTIzNAo=");
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_lent_by_name_and_hidden_in_what_the_job_writes() {
    let bench = Bench::new().await;
    let file = bench.data.path().join("secret");
    std::fs::write(&file, "s3cr3t-value\n").unwrap();
    let flag = format!("--secret=TOKEN=file:{}", file.display());
    let worker = bench.worker(&[&flag]).await;
    let script = "echo have $TOKEN; [ \"$TOKEN\" = s3cr3t-value ] && echo same; [ $(wc -c < /run/secrets/TOKEN) = 12 ] && echo file";
    let variable = json!({"image": bench.image, "command": ["sh", "-c", "echo have $TOKEN; echo ${#TOKEN}"], "secrets": ["TOKEN"]});
    let (_, result) = run(&bench, "l1", variable).await;
    assert_eq!(text(&result), "have ***\n12\n");
    assert_eq!(text_of_live(&bench, "l1"), "have ***\n12\n");
    let as_file =
        json!({"image": bench.image, "command": ["sh", "-c", script], "secrets": {"TOKEN": "file"}});
    let (_, result) = run(&bench, "l2", as_file).await;
    assert_eq!(text(&result), "have\nfile\n", "asked for as a file, it is no variable");
    // Where memory is shared with the Engine, as on the machine itself, a file is on no disk.
    let script = "stat -f -c %T /run/secrets/TOKEN";
    let where_it_is =
        json!({"image": bench.image, "command": ["sh", "-c", script], "secrets": {"TOKEN": "file"}});
    let (_, result) = run(&bench, "l5", where_it_is).await;
    assert_eq!(text(&result), "tmpfs\n");
    let (_, result) = run(&bench, "l3", json!({"image": bench.image, "command": "env"})).await;
    assert!(!text(&result).contains("TOKEN"), "not asked for, not given");
    let (why, retry) = declined(&bench, "l4", json!({"image": bench.image, "secrets": ["OTHER"]})).await;
    assert_eq!((why.as_str(), retry), ("this worker has no secret OTHER", DeclineRetry::Never));
    bench.clean().await;
    worker.stop().await;
}

fn text_of_live(bench: &Bench, lease: &str) -> String {
    bench.relay.run_lines(lease).iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_the_owner_does_not_allow_are_declined_for_good() {
    let bench = Bench::new().await;
    let allow = format!("--allow-image={}", bench.image);
    let worker = bench.worker(&[&allow, "--allow-build=no"]).await;
    let (why, retry) = declined(&bench, "l1", json!({"image": "alpine", "command": "x"})).await;
    assert_eq!((why.as_str(), retry), ("image not allowed on this worker: alpine", DeclineRetry::Never));
    let (why, _) = declined(&bench, "l2", json!({"build": {"dockerfile": "FROM x"}})).await;
    assert!(why.contains("images are not built here"), "{why}");
    let (reason, _) = run(&bench, "l3", json!({"image": bench.image, "command": "true"})).await;
    assert_eq!(reason, FinishReason::Success);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_a_shell_gets_one_where_the_owner_allows_it() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--shell-fallback"]).await;
    let definition = json!({"image": bench.image, "command": "echo one && echo two"});
    let (reason, result) = run(&bench, "l1", definition).await;
    assert_eq!((reason, text(&result).as_str()), (FinishReason::Success, "one\ntwo\n"));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_found_at_the_relay_whatever_name_its_address_has() {
    let bench = Bench::new().await;
    let hash = ContentHash::of(b"content\n");
    bench.relay.put_blob(&hash.to_string(), b"content\n");
    let worker = bench.worker(&[]).await;
    // As a page wrote it that knows the relay by another name. Nobody listens there.
    let address = format!("http://127.0.0.1:1/f/{hash}");
    let definition = json!({"image": bench.image, "command": "cat /inputs/x", "inputs": {"x": {"type": "url", "value": address}}});
    let (reason, result) = run(&bench, "l1", definition).await;
    assert_eq!((reason, text(&result).as_str()), (FinishReason::Success, "content\n"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_kept_out_of_this_host_and_private_networks_unless_allowed() {
    let bench = Bench::new().await;
    let gateway = |bench: &Bench| {
        let inspected = docker(&[
            "network",
            "inspect",
            "metaframe-container-worker-network",
            "--format",
            "{{(index .IPAM.Config 0).Gateway}}",
        ]);
        assert!(inspected.status.success(), "{}", bench.worker_id);
        String::from_utf8(inspected.stdout).unwrap().trim().to_owned()
    };
    let worker = bench.worker(&[]).await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "nc -w 2 {} {port} < /dev/null 2> /dev/null && echo reached || echo blocked",
        gateway(&bench)
    );
    let definition = json!({"image": bench.image, "command": ["sh", "-c", script]});
    let (_, result) = run(&bench, "l1", definition.clone()).await;
    assert_eq!(text(&result).lines().last(), Some("blocked"), "{}", text(&result));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_the_worker_brought_make_room_and_others_stay() {
    let bench = Bench::new().await;
    let others = Bench::new().await;
    let place = bench.data.path().join("remote");
    std::fs::create_dir_all(&place).unwrap();
    // The worker brought two images long ago; a container of somebody's uses one of them.
    let used = Bench::new().await;
    let holder = docker(&["create", "--label", "dockframe-test=holder", &used.image, "true"]);
    let holder = String::from_utf8(holder.stdout).unwrap().trim().to_owned();
    let ledger = json!({bench.image.clone(): 0, used.image.clone(): 0});
    std::fs::write(place.join("images.json"), ledger.to_string()).unwrap();
    let is_there = |image: &str| docker(&["image", "inspect", image]).status.success();
    let worker = bench
        .start_with(&[], |config| {
            config.disk_rules.images_from_percent = 0;
            config.disk_rules.images_to_percent = 0;
        })
        .await
        .unwrap();
    eventually("the unused image is gone", || !is_there(&bench.image)).await;
    assert!(is_there(&used.image), "a container uses it");
    assert!(is_there(&others.image), "it is not the worker's");
    worker.stop().await;
    docker(&["rm", &holder]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_leads_nowhere_is_the_engines_internal_one() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--network=internal"]).await;
    let name = "metaframe-container-worker-network-internal";
    let definition =
        json!({"image": bench.image, "command": ["sh", "-c", "ip -o -4 addr show eth0; sleep 60"]});
    bench.relay.grant("l1", "j", definition);
    bench.relay.log_with("l1", "inet ").await;
    let host = bench.inspect(&bench.containers()[0])["HostConfig"].clone();
    assert_eq!(host["NetworkMode"], name);
    // What the Engine makes of it is the Engine's: it lets nothing out of such a network, and nothing in.
    let inspected = docker(&["network", "inspect", name, "--format", "{{.Internal}}"]);
    assert_eq!(String::from_utf8(inspected.stdout).unwrap().trim(), "true");
    worker.stop().await;
}

async fn get(port: u16, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_sees_numbers_and_no_names() {
    let bench = Bench::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let worker = bench.worker(&["--cpus=3", &format!("--metrics-listen={port}"), "secret-queue"]).await;
    bench.relay.grant("l1", "job-name", json!({"image": bench.image, "command": ["sh", "-c", "exit 3"]}));
    bench.relay.finished("l1").await;
    bench.clean().await;
    let metrics = get(port, "/metrics").await;
    for line in [
        "dockframe_jobs_claimed_total 1",
        "dockframe_jobs_finished_total{reason=\"Success\"} 1",
        "dockframe_job_exit_total{code_class=\"1-125\"} 1",
        "# TYPE dockframe_job_phase_seconds histogram",
        "dockframe_job_phase_seconds_count{phase=\"run\"} 1",
    ] {
        assert!(metrics.lines().any(|seen| seen == line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("secret-queue") && !metrics.contains("job-name"));
    assert!(get(port, "/healthz").await.starts_with("HTTP/1.0 200"));
    let mut ready = String::new();
    for _ in 0..100 {
        ready = get(port, "/readyz").await;
        if ready.starts_with("HTTP/1.0 200") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
    worker.stop().await;
}
