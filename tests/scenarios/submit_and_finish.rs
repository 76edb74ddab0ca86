//! A job that is submitted runs in a container, with its inputs as files, and ends with its logs, its exit code and
//! its outputs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use dockframe_tests::worker::Worker;
use serde_json::{Value, json};

/// The lines of a result or of a log answer: text alone, of one stream.
fn text_of(lines: &Value, stderr: bool) -> String {
    let lines = lines.as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = lines.iter().filter(|line| line[2].as_bool().unwrap_or(false) == stderr);
    wanted.filter_map(|line| line[0].as_str()).collect()
}

#[test]
fn a_job_over_http_gives_logs_exit_code_and_outputs() {
    scenario::run("a_job_over_http_gives_logs_exit_code_and_outputs", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let client = relay.client()?;

        let script = "cat $JOB_INPUTS/dir/a.txt; echo trouble >&2; echo x,y > $JOB_OUTPUTS/data.csv; \
                      mkdir /outputs/deep; head -c 5000 /dev/zero > /outputs/deep/big.bin; exit 3";
        let definition = json!({
            "image": BUSYBOX,
            "entrypoint": "sh -c",
            "command": format!("'{script}'"),
            "inputs": { "dir/a.txt": { "type": "utf8", "value": "hello\n" } },
        });
        let queue = scenario.queue();
        let id = client.submit(queue, &definition).await?;
        let job = client.finished(queue, &id).await?;

        let result = &job["finished"]["result"];
        assert_eq!(job["finishedReason"], "Success", "{job:#}");
        assert_eq!(result["StatusCode"], 3, "{job:#}");
        assert!(text_of(&result["logs"], false).starts_with("hello\n"), "{result:#}");
        assert!(text_of(&result["logs"], true).contains("trouble\n"), "{result:#}");

        let small = json!({ "type": "base64", "value": STANDARD.encode("x,y\n") });
        assert_eq!(result["outputs"]["data.csv"], small);
        assert_eq!(
            result["outputs"]["deep/big.bin"]["type"], "url",
            "more than 200 bytes travel by reference"
        );

        for (name, wanted) in [("data.csv", b"x,y\n".to_vec()), ("deep/big.bin", vec![0; 5000])] {
            let answer = client.get(&format!("/q/{queue}/j/{id}/outputs/{name}")).await?;
            assert_eq!(answer.status(), 200, "{name}");
            assert_eq!(answer.bytes().await?, wanted, "{name}");
        }
        // What was submitted is answered as it was, no field added or dropped.
        let stored = client.json(&format!("/q/{queue}/j/{id}/definition.json")).await?;
        assert_eq!(stored["data"], definition);
        Ok(())
    });
}

#[test]
fn the_command_line_prints_the_output_and_exits_as_the_container_did() {
    scenario::run("the_command_line_prints_the_output_and_exits_as_the_container_did", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let input = scenario.folder().join("numbers.txt");
        std::fs::write(&input, "1\n2\n3\n".repeat(1000))?;
        let outputs = scenario.folder().join("results");

        let script = "wc -l < /inputs/numbers.txt; echo $GREETING >&2; cp /inputs/numbers.txt /outputs/copy.txt; exit 7";
        let url = relay.url();
        let mut command =
            scenario.dockframe(&["job", "run", "--api-address", &url, "--queue", scenario.queue()])?;
        command.arg("-i").arg(&input).arg("-o").arg(&outputs).args(["-e", "GREETING=hi there"]);
        command.args([BUSYBOX, "--", "sh", "-c", script]);
        let run = scenario.output(command).await?;

        assert_eq!(run.stdout, "3000\n", "{}", run.stderr);
        assert!(run.stderr.contains("hi there\n"), "{}", run.stderr);
        assert_eq!(run.code, Some(7), "{}", run.stderr);
        assert_eq!(std::fs::read(outputs.join("copy.txt"))?, std::fs::read(&input)?);
        Ok(())
    });
}

#[test]
fn log_lines_arrive_while_the_job_runs() {
    scenario::run("log_lines_arrive_while_the_job_runs", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let client = relay.client()?;
        let queue = scenario.queue();

        // The job goes on until it is cancelled: the line cannot come with its end.
        let definition = json!({ "image": BUSYBOX, "command": "sh -c 'echo first; sleep 600'" });
        let id = client.submit(queue, &definition).await?;
        let mut watcher = client.watch(queue).await?;
        watcher.send("Watch", &json!({ "jobs": { &id: { "run": 0 } } })).await?;
        let line = watcher
            .find(|frame| {
                let lines = frame["payload"]["logs"].as_array()?;
                (frame["type"] == "JobStatusPayload" && !lines.is_empty()).then(|| lines[0].clone())
            })
            .await?;
        assert_eq!(line[0], "first\n");
        assert_eq!(client.state(queue, &id).await?.as_deref(), Some("Running"));

        client.cancel(queue, &id).await?;
        let end = watcher
            .find(|frame| {
                let job = &frame["payload"]["state"]["jobs"][&id];
                (job["state"] == "Finished").then(|| job.clone())
            })
            .await?;
        assert_eq!(end["finishedReason"], "Cancelled", "{end:#}");
        Ok(())
    });
}
