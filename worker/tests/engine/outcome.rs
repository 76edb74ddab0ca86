//! What comes of a job: exit codes, logs, inputs, outputs, errors.

use dockframe_shared::ContentHash;
use dockframe_shared::job::FinishReason;
use dockframe_shared::metaframe::data_ref::DataRefKind;
use dockframe_shared::protocol::RevokeWhy;
use serde_json::json;

use super::bench::{Bench, eventually};

fn texts(lines: &[dockframe_shared::job::LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_its_output_comes_back() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": "echo hello"}));
    bench.relay.accepted("l1").await;
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!((finished.reason, result.status_code), (FinishReason::Success, Some(0)));
    assert_eq!(texts(&result.logs), ["hello\n"]);
    assert_eq!(texts(&bench.relay.run_lines("l1")), ["hello\n"]);
    assert!(!result.is_timed_out && result.outputs.is_empty() && result.error.is_none());
    let phases = result.phases.unwrap();
    for phase in ["inputs", "image", "start", "run", "outputs"] {
        assert!(phases.contains_key(phase), "{phases:?}");
    }
    assert!(result.image_digest.unwrap().starts_with("sha256:"));
    // Imported here: no registry has it.
    assert_eq!(result.image_is_local, Some(true));
    assert_eq!(result.platform.as_deref(), Some("linux/amd64"));
    assert_eq!(result.worker, Some(bench.worker_id.clone()));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_of_every_kind_are_files_and_outputs_come_back() {
    let bench = Bench::new().await;
    let content = b"from the store".repeat(100);
    let hash = ContentHash::of(&content);
    bench.relay.put_blob(&hash.to_string(), &content);
    bench.relay.put_blob("some key", b"by key");
    let worker = bench.worker(&[]).await;
    let script = "cd /inputs && find . -type f | sort && cat a/utf8 && cp -r . /outputs && cat /etc/x:y && echo > /outputs/.hidden && mkdir /outputs/empty && : > /outputs/nothing";
    bench.relay.grant(
        "l1",
        "job1",
        json!({
            "image": bench.image, "command": ["sh", "-c", script],
            "inputs": {
                "a/utf8": {"type": "utf8", "value": "text é\n"},
                "json": {"type": "json", "value": {"b": [1]}},
                "base64": {"type": "base64", "value": "AAEC"},
                "url": {"type": "url", "value": format!("{}/f/{hash}", bench.relay.address)},
                "key": {"type": "key", "value": "some key"},
                "data": {"type": "url", "value": "data:text/plain,d%20d"},
                "x.sh": {"value": "replaced"},
            },
            "configFiles": {"x.sh": {"value": "#!/bin/sh\n"}, "/etc/x:y": {"value": "mounted\n"}},
        }),
    );
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!((finished.reason, result.status_code), (FinishReason::Success, Some(0)), "{result:#?}");
    assert_eq!(
        texts(&result.logs).concat(),
        "./a/utf8\n./base64\n./data\n./json\n./key\n./url\n./x.sh\ntext é\nmounted\n"
    );
    let value = |name: &str| result.outputs[name].value.as_str().unwrap();
    assert_eq!(
        result.outputs.keys().map(String::as_str).collect::<Vec<_>>(),
        [".hidden", "a/utf8", "base64", "data", "json", "key", "nothing", "url", "x.sh"]
    );
    assert_eq!((value("base64"), value("nothing"), value("json")), ("AAEC", "", "eyJiIjpbMV19"));
    assert_eq!(result.outputs["url"].kind, Some(DataRefKind::Url));
    assert_eq!(value("url"), format!("{}/f/{hash}", bench.relay.address));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_200_bytes_are_uploaded_over_redirects() {
    let bench = Bench::new().await;
    bench.relay.set(|settings| settings.redirect_puts = Some(axum::http::StatusCode::TEMPORARY_REDIRECT));
    let worker = bench.worker(&[]).await;
    let script = "head -c 200 /dev/zero > /outputs/small; head -c 201 /dev/zero > /outputs/large";
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": ["sh", "-c", script]}));
    let (_, result) = bench.relay.finished("l1").await;
    assert_eq!(result.outputs["small"].kind, Some(DataRefKind::Base64));
    let hash = ContentHash::of(&[0; 201]).to_string();
    assert_eq!(result.outputs["large"].value, format!("{}/f/{hash}", bench.relay.address));
    assert_eq!(bench.relay.blob(&hash).unwrap().len(), 201);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_programs_failure_is_success_with_its_code_and_its_outputs() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let script = "echo out; echo err >&2; echo kept > /outputs/x; exit 3";
    bench.relay.grant("l1", "job1", json!({"image": bench.image, "command": ["sh", "-c", script]}));
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!((finished.reason, result.status_code), (FinishReason::Success, Some(3)));
    assert!(result.outputs.contains_key("x"));
    assert!(result.logs.iter().any(|line| line.text == "err\n" && line.is_stderr));
    let last: Vec<_> = texts(&result.logs).into_iter().rev().take(2).collect();
    assert_eq!(last, ["💥 StatusCode: 3", "⚠️ Container exited with status code: 3"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_stream_while_the_job_runs() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let script = "echo first; until [ -e /job-cache/go-$JOB_ID ]; do sleep 0.05; done; rm /job-cache/go-$JOB_ID; printf 'no end'";
    let job = bench.worker_id.clone();
    bench.relay.grant("l1", &job, json!({"image": bench.image, "command": ["sh", "-c", script]}));
    bench.relay.log_with("l1", "first\n").await;
    let container = bench.containers().remove(0);
    super::bench::docker(&["exec", &container, "touch", &format!("/job-cache/go-{job}")]);
    let (_, result) = bench.relay.finished("l1").await;
    assert_eq!(texts(&result.logs).concat(), "first\nno end");
    assert_eq!(texts(&bench.relay.run_lines("l1")).concat(), "first\nno end");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_job_is_asked_to_stop_then_killed_and_says_nothing_more() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--cpus=2"]).await;
    let polite =
        "trap 'echo asked > /job-cache/$JOB_ID; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let stubborn = "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done";
    let (polite_job, check_job) = (bench.worker_id.clone(), format!("{}-check", bench.worker_id));
    bench.relay.grant("l1", &polite_job, json!({"image": bench.image, "command": ["sh", "-c", polite]}));
    bench.relay.grant("l2", "stubborn", json!({"image": bench.image, "command": ["sh", "-c", stubborn]}));
    bench.relay.log_with("l1", "ready").await;
    bench.relay.log_with("l2", "ready").await;
    let began = std::time::Instant::now();
    bench.relay.revoke("l1", RevokeWhy::Cancelled, 2000);
    bench.relay.revoke("l2", RevokeWhy::Replaced, 1000);
    eventually("both containers are gone", || bench.containers().is_empty()).await;
    let took = began.elapsed();
    assert!(took > std::time::Duration::from_millis(900), "killed before its grace: {took:?}");
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    let script = format!("cat /job-cache/{polite_job}; rm /job-cache/{polite_job}");
    bench.relay.grant("l3", &check_job, json!({"image": bench.image, "command": ["sh", "-c", script]}));
    let (_, result) = bench.relay.finished("l3").await;
    assert_eq!(texts(&result.logs), ["asked\n"]);
    let spoke = bench.relay.heard().iter().any(|heard| match &heard.message {
        dockframe_shared::protocol::WorkerMessage::LeaseFinish(finish) => finish.lease_id.as_str() != "l3",
        dockframe_shared::protocol::WorkerMessage::LeaseDecline(_) => true,
        _ => false,
    });
    assert!(!spoke, "a stopped run must say nothing");
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_limit_ends_a_job_without_outputs() {
    let bench = Bench::new().await;
    let worker = bench.worker(&[]).await;
    let definition = json!({"image": bench.image, "command": ["sh", "-c", "echo x > /outputs/x; echo on; sleep 100"], "maxDuration": "1s"});
    bench.relay.grant("l1", "job1", definition);
    let (finished, result) = bench.relay.finished("l1").await;
    assert_eq!((finished.reason, result.status_code), (FinishReason::TimedOut, Some(137)));
    assert!(result.is_timed_out && result.outputs.is_empty());
    assert!(texts(&result.logs).contains(&"💥 Timed out"), "{:?}", result.logs);
    let took = result.duration.unwrap().0;
    assert!((1000.0..2500.0).contains(&took), "{took}");
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_an_error_that_says_why() {
    let bench = Bench::new().await;
    let worker = bench.worker(&["--pull-policy=never", "--cpus=8"]).await;
    let image = bench.image.clone();
    let cases = [
        ("missing", json!({"image": "localhost:1/nothing:here", "command": "x"}), "localhost:1/nothing:here"),
        ("none", json!({"command": "x"}), "Missing image or build configuration"),
        ("input", json!({"image": image, "inputs": {"../x": {"value": ""}}}), "inputs \"../x\""),
        (
            "fetch",
            json!({"image": image, "inputs": {"far": {"type": "url", "value": format!("{}/f/nope", bench.relay.address)}}}),
            "input far: the server answered 404",
        ),
        ("command", json!({"image": image, "command": "echo ${"}), "cannot parse command: Bad substitution"),
        ("glob", json!({"image": image, "command": "ls *.txt"}), "sh -c 'ls *.txt'"),
        ("type", json!({"image": image, "env": 5}), "env must be an object"),
    ];
    for (lease, definition, _) in &cases {
        bench.relay.grant(lease, lease, definition.clone());
    }
    for (lease, definition, part) in &cases {
        let (finished, result) = bench.relay.finished(lease).await;
        let text = texts(&result.logs).concat();
        assert_eq!(finished.reason, FinishReason::Error, "{definition}");
        assert!(text.contains(part), "{definition}: {text}");
        assert!(result.error.is_some());
        if *lease == "glob" {
            assert_eq!(result.status_code, Some(127));
            assert!(
                result.error.unwrap()["json"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("executable file not found")
            );
        }
    }
    bench.clean().await;
    worker.stop().await;
}
