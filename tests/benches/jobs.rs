//! How fast jobs go through the whole system: `make bench`. Prints a table; compares nothing, fails nothing.
//!
//! Measured from outside, on a relay and a worker of the release build: the time from a submission to the first line
//! of its output, to its result, and how many short jobs pass in a second when many are waiting.

#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

use std::time::{Duration, Instant};

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use dockframe_tests::worker::Worker;
use serde_json::json;

/// Jobs one after the other, for latencies.
const N_SINGLE: usize = 10;
/// Jobs that wait together, for throughput.
const N_TOGETHER: usize = 16;

fn main() {
    scenario::run("bench_jobs", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start_with(&scenario, &relay.url(), &["--cpus=4", scenario.queue()]).await?;
        let client = relay.client()?;
        let queue = scenario.queue();
        let job = |n: usize| json!({ "image": BUSYBOX, "command": "echo hi", "env": { "N": n.to_string() } });

        // Not measured: the first job waits for the worker, and warms the Engine.
        let id = client.submit(queue, &job(0)).await?;
        client.finished(queue, &id).await?;

        let (mut first_lines, mut results, mut submissions) = (Vec::new(), Vec::new(), Vec::new());
        let mut watcher = client.watch(queue).await?;
        for n in 1..=N_SINGLE {
            let begin = Instant::now();
            let id = client.submit(queue, &job(n)).await?;
            submissions.push(begin.elapsed());
            watcher.send("Watch", &json!({ "jobs": { &id: { "run": 0 } } })).await?;
            let mut has_line = false;
            watcher
                .find(|frame| {
                    if frame["type"] == "JobStatusPayload" && frame["payload"]["jobId"] == id && !has_line {
                        first_lines.push(begin.elapsed());
                        has_line = true;
                    }
                    (frame["payload"]["state"]["jobs"][&id]["state"] == "Finished").then_some(())
                })
                .await?;
            results.push(begin.elapsed());
        }

        let begin = Instant::now();
        let mut ids = Vec::new();
        for n in 0..N_TOGETHER {
            ids.push(client.submit(queue, &job(1000 + n)).await?);
        }
        for id in &ids {
            client.finished(queue, id).await?;
        }
        let together = begin.elapsed();

        let begin = Instant::now();
        for n in 1..=N_SINGLE {
            client.submit(queue, &job(n)).await?;
        }
        let stored = begin.elapsed() / u32::try_from(N_SINGLE)?;

        println!("submission acknowledged, median      {:>9.1} ms", millis(median(&mut submissions)));
        println!("submission to first line, median     {:>9.1} ms", millis(median(&mut first_lines)));
        println!("submission to result, median         {:>9.1} ms", millis(median(&mut results)));
        println!("known job submitted again, mean      {:>9.1} ms", millis(stored));
        println!("short jobs, {N_TOGETHER} waiting together     {:>9.1} jobs/s", rate(N_TOGETHER, together));
        Ok(())
    });
}

/// Of a job that ended before its first line could be told, there is none.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a handful of jobs")]
fn rate(n: usize, time: Duration) -> f64 {
    n as f64 / time.as_secs_f64()
}
