//! The states before, during and after a run, and how each is reached.

use dockframe_tests::browser::FOREIGN_HOST;
use dockframe_tests::{hash, wait};
use serde_json::{Value, json};

use crate::panels::panels;
use crate::samples::{address, builds, ends, failed, finished, job, lines, outputs, queued, result, running};
use crate::stage::{FRAMES, Stage, State};
use crate::stand_in::now;

pub(crate) fn all() -> Vec<State> {
    let mut all = before_a_job();
    all.extend(waiting());
    all.extend(running_states());
    all.extend(endings());
    all.extend(panels());
    all
}

fn before_a_job() -> Vec<State> {
    let plain = |name, hash: fn(&Stage) -> String, title: &'static str| {
        State::at(name, hash, move |stage| Box::pin(stage.shows(title)))
    };
    let with = |stage: &Stage, name: &'static str, value: &str| {
        address(stage.relay.origin(), &[(name, value.to_owned())])
    };
    let mut uploading = State::usual("uploading-inputs", |stage| Box::pin(stage.shows("Uploading")));
    uploading.before = Box::new(|stage| {
        Box::pin(async move {
            stage.relay.hold_uploads();
            let inputs = json!({ "points.csv": "x".repeat(40_000), "order.json": { "order": 3 } });
            stage.host.has_inputs(&inputs).await
        })
    });
    let own_queue = |stage: &Stage| {
        address(stage.relay.origin(), &[("queue", format!("{}/local", stage.relay.origin()))])
    };
    let mut asks = State::at("asks-for-consent", own_queue, |stage| Box::pin(stage.shows("Waiting for you")));
    asks.before = Box::new(|stage| {
        Box::pin(async move {
            let foreign = stage.relay.origin().replace("127.0.0.1", FOREIGN_HOST);
            stage.host.move_to(&foreign).await
        })
    });
    vec![
        plain("empty-page", |_| String::new(), "No job yet"),
        State::at(
            "malformed-link",
            move |stage| with(stage, "job", "%%%"),
            |stage| Box::pin(stage.shows("Link not readable")),
        ),
        plain("no-queue", |_| hash::hash(&[("job", &hash::json(&job())), ("autostart", "true")]), "No queue"),
        State::at(
            "not-run-yet",
            move |stage| with(stage, "autostart", "false"),
            |stage| Box::pin(stage.shows("Ready")),
        ),
        // Nobody answers at this address, and nobody refuses either.
        State::at(
            "connecting",
            move |stage| with(stage, "queue", "http://10.255.255.1/lab-7f3a"),
            |_| Box::pin(async { Ok(()) }),
        ),
        State::usual("relay-unreachable", |stage| {
            Box::pin(async move {
                for frame in ["small", "wide"] {
                    stage.page(frame).shows("does not answer").await?;
                }
                wait::until("the trouble", wait::PATIENT, async || {
                    match stage.host.frame("wide").text(".trouble").await {
                        Ok(Some(_)) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await
            })
        })
        .after(|stage| stage.relay.refuse()),
        uploading,
        asks,
    ]
}

fn waiting() -> Vec<State> {
    vec![
        State::usual("no-worker", |stage| Box::pin(stage.shows("Waiting")))
            .after(|stage| stage.relay.set_workers(Vec::new())),
        State::told("waiting-in-line", "Waiting", |relay, job| {
            let mut entry = queued();
            entry["place"] = json!(3);
            entry["queuedTime"] = json!(now() - 14_000);
            relay.set(job, &entry);
        }),
        State::told("refused-by-all-workers", "Waiting", |relay, job| {
            let mut entry = queued();
            entry["waitReason"] = json!("the job asks for 4 GPUs, and no worker here has more than 2");
            entry["queuedTime"] = json!(now() - 14_000);
            relay.set(job, &entry);
        }),
        State::usual("worker-lost", |stage| {
            Box::pin(async move {
                let job = runs(stage).await?;
                stage.relay.set(&job, &queued());
                stage.shows("Waiting").await
            })
        }),
    ]
}

/// The job runs, and has written its lines.
async fn runs(stage: &Stage) -> anyhow::Result<String> {
    let job = stage.job().await?;
    stage.relay.set(&job, &running());
    stage.relay.logs(&job, "Running", &lines());
    stage.shows("Running").await?;
    Ok(job)
}

/// *Stop* is pressed in all frames.
async fn stops(stage: &Stage) -> anyhow::Result<()> {
    for frame in FRAMES {
        stage.page(frame).press("Stop Job").await?;
    }
    Ok(())
}

fn running_states() -> Vec<State> {
    vec![
        State::told("fetching-sources", "Fetching sources", |relay, job| {
            let lines =
                json!([["cloning https://github.com/owner/repo", now()], ["checking out 1a2b3c4", now()]]);
            builds(relay, job, "cloning repo", &lines);
        }),
        State::told("pulling", "Pulling image", |relay, job| {
            let lines = json!([["pulling python:3.12-slim: 5/8 layers, 71 %, 88 MB/s", now()]]);
            builds(relay, job, "docker image pull", &lines);
        }),
        State::told("building", "Building image", |relay, job| {
            let lines = json!([
                ["Step 1/4 : FROM python:3.12-slim", now()],
                [" ---> 0a1b2c3d4e5f", now()],
                ["Step 2/4 : RUN pip install numpy", now()],
                ["Collecting numpy", now()],
            ]);
            builds(relay, job, "docker build", &lines);
        }),
        State::told("running-quiet", "Running", |relay, job| {
            let mut entry = running();
            entry["time"] = json!(now() - 12_000);
            relay.set(job, &entry);
        }),
        State::usual("running-noisy", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.set(&job, &running());
                let at = now();
                let lines: Vec<Value> = (0..400)
                    .map(|n| {
                        let text = format!(
                            "epoch {}/400  loss \u{1b}[33m{:.4}\u{1b}[0m  lr 0.001\n",
                            n + 1,
                            1.0 / f64::from(n + 2)
                        );
                        if n % 37 == 36 {
                            json!([format!("warning: {text}"), at + u64::from(n as u32) * 40, true])
                        } else {
                            json!([text, at + u64::from(n as u32) * 40])
                        }
                    })
                    .collect();
                stage.relay.logs(&job, "Running", &json!(lines));
                stage.shows("Running").await?;
                stage.page("wide").shows("400 lines").await
            })
        }),
        State::usual("stopping", |stage| {
            Box::pin(async move {
                stage.relay.keep_jobs();
                runs(stage).await?;
                stops(stage).await?;
                stage.shows("Stopping").await
            })
        }),
    ]
}

fn endings() -> Vec<State> {
    vec![
        State::told("exit-0-outputs-sent", "Finished", |relay, job| {
            ends(relay, job, "Success", &result(&outputs(), &lines()));
        }),
        State::told("exit-3", "Exit 3", |relay, job| {
            let mut result = result(
                &json!({}),
                &json!([["reading points.csv\n", now()], ["fit.py: no column named y\n", now(), true]]),
            );
            result["StatusCode"] = json!(3);
            ends(relay, job, "Success", &result);
        }),
        State::told("out-of-memory", "Out of memory", |relay, job| {
            let mut result = result(&json!({}), &json!([["loading model.bin (3.1 GB)\n", now()]]));
            result["StatusCode"] = json!(137);
            result["oomKilled"] = json!(true);
            ends(relay, job, "Success", &result);
        }),
        State::told("timed-out", "Timed out", |relay, job| {
            let mut result = failed(&json!("the job took longer than 5m"), &lines());
            result["duration"] = json!(300_000);
            result["isTimedOut"] = json!(true);
            ends(relay, job, "TimedOut", &result);
        }),
        State::told("could-not-start", "Could not start", |relay, job| {
            let text = "failed to create task for container: exec: \"pyton\": executable file not found in $PATH: unknown";
            ends(
                relay,
                job,
                "Error",
                &failed(&json!({ "statusCode": 400, "json": { "message": text } }), &json!([])),
            );
        }),
        State::told("build-failed", "Build failed", |relay, job| {
            let text = "the Dockerfile's step 2 failed: pip install nunpy returned a non-zero code: 1";
            ends(
                relay,
                job,
                "Error",
                &failed(
                    &json!(text),
                    &json!([["ERROR: No matching distribution found for nunpy\n", now(), true]]),
                ),
            );
        }),
        State::told("image-not-found", "Image not found", |relay, job| {
            ends(
                relay,
                job,
                "Error",
                &failed(&json!("manifest for python:3.99-slim not found: manifest unknown"), &json!([])),
            );
        }),
        State::told("pull-denied", "Image not allowed", |relay, job| {
            ends(
                relay,
                job,
                "Error",
                &failed(
                    &json!(
                        "pull access denied for lab/private, repository does not exist or may require 'docker login'"
                    ),
                    &json!([]),
                ),
            );
        }),
        State::told("result-too-large", "Too large", |relay, job| {
            ends(
                relay,
                job,
                "Error",
                &failed(
                    &json!("the outputs are too large: 6.2 GB, and this worker sends at most 5 GB"),
                    &lines(),
                ),
            );
        }),
        State::usual("replaced", |stage| {
            Box::pin(async move {
                let job = runs(stage).await?;
                stage.relay.set(&job, &finished("JobReplacedByClient", now()));
                stage.shows("Replaced").await
            })
        }),
        State::usual("cancelled", |stage| {
            Box::pin(async move {
                runs(stage).await?;
                stops(stage).await?;
                stage.shows("Stopped").await
            })
        }),
        State::usual("stored-result", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                let before = now() - 3 * 86_400_000;
                stage.relay.finish(&job, "Success", before, &result(&outputs(), &lines()));
                // Who comes now finds it there.
                for frame in FRAMES {
                    stage.host.frame(frame).run("location.reload()", &[]).await?;
                }
                stage.shows("Stored result").await
            })
        }),
        State::usual("result-not-loaded", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.fail_results();
                stage.relay.set(&job, &finished("Success", now()));
                stage.shows("Finished result not loaded").await
            })
        }),
    ]
}
