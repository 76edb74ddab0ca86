//! The states, and how each is reached.

use std::future::Future;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_tests::pages::JobPage;
use dockframe_tests::{hash, wait};
use serde_json::{Value, json};

use crate::host::Sheet;
use crate::stand_in::{StandIn, entry as table_entry, now, worker};

/// What a state has to work with.
pub(crate) struct Stage {
    pub(crate) relay: StandIn,
    pub(crate) host: Sheet,
}

type Doing<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

pub(crate) struct State {
    pub(crate) name: &'static str,
    pub(crate) before: Box<dyn for<'a> Fn(&'a Stage) -> Doing<'a>>,
    pub(crate) hash: Box<dyn Fn(&Stage) -> String>,
    /// Brings the state about, and waits until all frames show it.
    pub(crate) then: Box<dyn for<'a> Fn(&'a Stage) -> Doing<'a>>,
}

const FRAMES: [&str; 3] = ["strip", "small", "wide"];

impl Stage {
    /// Two frames of the browser's own pass in each document: what was set is drawn.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let script = "return new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 250))";
        self.host.page().run(script, &[]).await?;
        Ok(())
    }

    fn page(&self, frame: &str) -> JobPage {
        JobPage::new(self.host.frame(frame))
    }

    /// Waits until the header of each frame begins so.
    async fn shows(&self, title: &str) -> anyhow::Result<()> {
        for frame in FRAMES {
            wait::until(&format!("{title:?} in {frame}"), wait::PATIENT, async || {
                match self.host.frame(frame).text("[role=status]").await {
                    Ok(Some(text)) if text.starts_with(title) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// The job that all frames want.
    async fn job(&self) -> anyhow::Result<String> {
        self.relay.job(FRAMES.len()).await
    }

    /// Opens a panel in the two frames that have room for it.
    async fn open(&self, panel: &str) -> anyhow::Result<()> {
        for frame in ["small", "wide"] {
            self.host.frame(frame).click(&format!(".header [data-tab={panel}]")).await?;
        }
        Ok(())
    }

    /// Presses a button in the two frames that have room for it.
    async fn press(&self, button: &str) -> anyhow::Result<()> {
        for frame in ["small", "wide"] {
            self.page(frame).press(button).await?;
        }
        Ok(())
    }
}

fn queued() -> Value {
    table_entry("Queued", "", now())
}

fn running() -> Value {
    table_entry("Running", "", now())
}

fn finished(reason: &str, time: u64) -> Value {
    table_entry("Finished", reason, time)
}

fn job() -> Value {
    json!({ "image": "python:3.12-slim", "command": "python /inputs/fit.py --order 3" })
}

fn files() -> Value {
    json!({
        "fit.py": "import csv, json\n\n# points.csv comes from upstream, or from the tab beside\nrows = list(csv.DictReader(open('/inputs/points.csv')))\nx = [float(row['x']) for row in rows]\ny = [float(row['y']) for row in rows]\nprint(f'read {len(x)} rows')\n\n\ndef slope(x, y):\n    mx, my = sum(x) / len(x), sum(y) / len(y)\n    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)\n\n\njson.dump({'slope': slope(x, y)}, open('/outputs/fit.json', 'w'))\n",
        "points.csv": "x,y\n1,2.1\n2,3.9\n3,6.2\n",
    })
}

/// The usual address: a job that runs by itself on the stand-in's queue.
fn address(stage: &Stage, more: &[(&str, String)]) -> String {
    let mut parameters = vec![
        ("job", hash::json(&job())),
        ("queue", format!("{}/lab-7f3ac1d94e0b4d5f9a02c1d9", stage.relay.origin())),
        ("autostart", "true".to_owned()),
        ("terminal", "true".to_owned()),
    ];
    parameters.extend(more.iter().cloned());
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (*name, &**value)).collect();
    hash::hash(&parameters)
}

fn result(outputs: &Value, lines: &Value) -> Value {
    json!({
        "StatusCode": 0, "duration": 3412, "isTimedOut": false, "outputs": outputs, "logs": lines,
        "imageDigest": format!("sha256:{}", "4f".repeat(32)),
    })
}

fn lines() -> Value {
    let at = now();
    json!([
        ["$ python /inputs/fit.py --order 3\n", at],
        ["reading points.csv … \u{1b}[32m1,024 rows\u{1b}[0m\n", at + 410],
        ["epoch 1/3  loss 0.412\n", at + 620],
        ["epoch 2/3  loss 0.207\n", at + 1480],
        ["UserWarning: 3 rows had no label\n", at + 1900, true],
        ["epoch 3/3  loss \u{1b}[32m0.118\u{1b}[0m\n", at + 2330],
        ["wrote /outputs/data.csv, see https://example.org/fit\n", at + 2910],
    ])
}

fn outputs() -> Value {
    let base64 = |text: &str| json!({ "type": "base64", "value": STANDARD.encode(text) });
    let plot = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 400 160'><path d='M10 150 C120 120 200 30 390 14' \
                fill='none' stroke='#0f6fde' stroke-width='3'/><g fill='#5f656b'><circle cx='40' cy='138' r='4'/><circle \
                cx='150' cy='92' r='4'/><circle cx='260' cy='52' r='4'/><circle cx='350' cy='20' r='4'/></g></svg>";
    json!({
        "data.csv": base64("sample,x,y,fit\na-001,0.114,1.92,1.88\na-002,0.207,2.31,2.29\na-003,0.318,2.84,2.90\n"),
        "fit.json": base64("{\"order\":3,\"rms\":0.041,\"coef\":[0.12,-1.9,4.07,0.3]}"),
        "plot.svg": base64(plot),
        "model.bin": { "type": "url", "value": "https://example.org/f/0a1b" },
    })
}

fn failed(error: &Value, lines: &Value) -> Value {
    json!({ "error": error, "logs": lines, "duration": 410, "isTimedOut": false, "outputs": {} })
}

/// A state that is reached from the usual address.
fn usual<T>(name: &'static str, then: T) -> State
where
    T: for<'a> Fn(&'a Stage) -> Doing<'a> + 'static,
{
    State {
        name,
        before: Box::new(|_| Box::pin(async { Ok(()) })),
        hash: Box::new(|stage| address(stage, &[])),
        then: Box::new(then),
    }
}

/// A state that the job's entry alone makes.
fn entry(name: &'static str, title: &'static str, make: fn() -> Value) -> State {
    usual(name, move |stage| {
        Box::pin(async move {
            let job = stage.job().await?;
            stage.relay.set(&job, &make());
            stage.shows(title).await
        })
    })
}

/// A state that a finished job makes.
fn end(name: &'static str, title: &'static str, reason: &'static str, make: fn() -> Value) -> State {
    usual(name, move |stage| {
        Box::pin(async move {
            let job = stage.job().await?;
            stage.relay.set(&job, &running());
            stage.relay.finish(&job, reason, now(), &make());
            stage.shows(title).await
        })
    })
}

/// A running job whose image is being made.
fn building(name: &'static str, title: &'static str, step: &'static str, lines: fn() -> Value) -> State {
    usual(name, move |stage| {
        Box::pin(async move {
            let job = stage.job().await?;
            stage.relay.set(&job, &running());
            stage.relay.logs(&job, step, &lines());
            stage.shows(title).await
        })
    })
}

/// A panel of a page that has run its job.
fn panel(
    name: &'static str,
    more: fn() -> Vec<(&'static str, String)>,
    panel: &'static str,
    section: &'static str,
) -> State {
    State {
        name,
        before: Box::new(|_| Box::pin(async { Ok(()) })),
        hash: Box::new(move |stage| address(stage, &more())),
        then: Box::new(move |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.set(&job, &running());
                stage.relay.finish(&job, "Success", now(), &result(&outputs(), &lines()));
                stage.shows("Finished").await?;
                stage.open(panel).await?;
                if section.is_empty() { Ok(()) } else { stage.press(section).await }
            })
        }),
    }
}

fn nothing() -> Vec<(&'static str, String)> {
    Vec::new()
}

fn with_files() -> Vec<(&'static str, String)> {
    vec![("inputs", hash::json(&files()))]
}

pub(crate) fn all() -> Vec<State> {
    let mut all = before_a_job();
    all.extend(waiting());
    all.extend(running_states());
    all.extend(endings());
    all.extend(panels());
    all
}

fn before_a_job() -> Vec<State> {
    let plain = |name, hash: fn(&Stage) -> String, title: &'static str| State {
        name,
        before: Box::new(|_: &Stage| Box::pin(async { Ok(()) })),
        hash: Box::new(hash),
        then: Box::new(move |stage: &Stage| Box::pin(stage.shows(title))),
    };
    vec![
        plain("empty-page", |_| String::new(), "No job yet"),
        plain("malformed-link", |stage| address(stage, &[("job", "%%%".to_owned())]), "Link not readable"),
        plain("no-queue", |_| hash::hash(&[("job", &hash::json(&job())), ("autostart", "true")]), "No queue"),
        plain("not-run-yet", |stage| address(stage, &[("autostart", "false".to_owned())]), "Ready"),
        State {
            name: "connecting",
            before: Box::new(|_| Box::pin(async { Ok(()) })),
            // Nobody answers at this address, and nobody refuses either.
            hash: Box::new(|stage| address(stage, &[("queue", "http://10.255.255.1/lab-7f3a".to_owned())])),
            then: Box::new(|_| Box::pin(async { Ok(()) })),
        },
        State {
            name: "relay-unreachable",
            before: Box::new(|stage| {
                Box::pin(async move {
                    stage.relay.refuse();
                    Ok(())
                })
            }),
            hash: Box::new(|stage| address(stage, &[])),
            then: Box::new(|stage| {
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
            }),
        },
        State {
            name: "uploading-inputs",
            before: Box::new(|stage| {
                Box::pin(async move {
                    stage.relay.hold_uploads();
                    stage
                        .host
                        .has_inputs(
                            &json!({ "points.csv": "x".repeat(40_000), "order.json": { "order": 3 } }),
                        )
                        .await
                })
            }),
            hash: Box::new(|stage| address(stage, &[])),
            then: Box::new(|stage| Box::pin(stage.shows("Uploading"))),
        },
    ]
}

fn waiting() -> Vec<State> {
    vec![
        State {
            name: "no-worker",
            before: Box::new(|stage| {
                Box::pin(async move {
                    stage.relay.set_workers(Vec::new());
                    Ok(())
                })
            }),
            hash: Box::new(|stage| address(stage, &[])),
            then: Box::new(|stage| Box::pin(stage.shows("Waiting"))),
        },
        entry("waiting-in-line", "Waiting", || {
            let mut entry = queued();
            entry["place"] = json!(3);
            entry["queuedTime"] = json!(now() - 14_000);
            entry
        }),
        entry("refused-by-all-workers", "Waiting", || {
            let mut entry = queued();
            entry["waitReason"] = json!("the job asks for 4 GPUs, and no worker here has more than 2");
            entry["queuedTime"] = json!(now() - 14_000);
            entry
        }),
        usual("worker-lost", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.set(&job, &running());
                stage.relay.logs(&job, "Running", &lines());
                stage.shows("Running").await?;
                stage.relay.set(&job, &queued());
                stage.shows("Waiting").await
            })
        }),
    ]
}

fn running_states() -> Vec<State> {
    vec![
        building("fetching-sources", "Fetching sources", "cloning repo", || {
            json!([["cloning https://github.com/owner/repo", now()], ["checking out 1a2b3c4", now()]])
        }),
        building("pulling", "Pulling image", "docker image pull", || {
            json!([["pulling python:3.12-slim: 5/8 layers, 71 %, 88 MB/s", now()]])
        }),
        building("building", "Building image", "docker build", || {
            json!([
                ["Step 1/4 : FROM python:3.12-slim", now()],
                [" ---> 0a1b2c3d4e5f", now()],
                ["Step 2/4 : RUN pip install numpy", now()],
                ["Collecting numpy", now()],
            ])
        }),
        entry("running-quiet", "Running", || {
            let mut entry = running();
            entry["time"] = json!(now() - 12_000);
            entry
        }),
        usual("running-noisy", |stage| {
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
        usual("stopping", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.keep_jobs();
                stage.relay.set(&job, &running());
                stage.relay.logs(&job, "Running", &lines());
                stage.shows("Running").await?;
                for frame in FRAMES {
                    stage.page(frame).press("Stop Job").await?;
                }
                stage.shows("Stopping").await
            })
        }),
    ]
}

fn endings() -> Vec<State> {
    vec![
        end("exit-0-outputs-sent", "Finished", "Success", || result(&outputs(), &lines())),
        end("exit-3", "Exit 3", "Success", || {
            let mut result = result(
                &json!({}),
                &json!([["reading points.csv\n", now()], ["fit.py: no column named y\n", now(), true]]),
            );
            result["StatusCode"] = json!(3);
            result
        }),
        end("out-of-memory", "Out of memory", "Success", || {
            let mut result = result(&json!({}), &json!([["loading model.bin (3.1 GB)\n", now()]]));
            result["StatusCode"] = json!(137);
            result["oomKilled"] = json!(true);
            result
        }),
        end(
            "timed-out",
            "Timed out",
            "TimedOut",
            || json!({ "error": "the job took longer than 5m", "logs": lines(), "duration": 300_000, "isTimedOut": true, "outputs": {} }),
        ),
        end("could-not-start", "Could not start", "Error", || {
            let text = "failed to create task for container: exec: \"pyton\": executable file not found in $PATH: unknown";
            failed(&json!({ "statusCode": 400, "json": { "message": text } }), &json!([]))
        }),
        end("build-failed", "Build failed", "Error", || {
            let text = "the Dockerfile's step 2 failed: pip install nunpy returned a non-zero code: 1";
            failed(&json!(text), &json!([["ERROR: No matching distribution found for nunpy\n", now(), true]]))
        }),
        end("image-not-found", "Image not found", "Error", || {
            failed(&json!("manifest for python:3.99-slim not found: manifest unknown"), &json!([]))
        }),
        end("pull-denied", "Image not allowed", "Error", || {
            failed(
                &json!(
                    "pull access denied for lab/private, repository does not exist or may require 'docker login'"
                ),
                &json!([]),
            )
        }),
        end("result-too-large", "Too large", "Error", || {
            failed(&json!("the outputs are too large: 6.2 GB, and this worker sends at most 5 GB"), &lines())
        }),
        usual("replaced", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.set(&job, &running());
                stage.relay.logs(&job, "Running", &lines());
                stage.shows("Running").await?;
                stage.relay.set(&job, &finished("JobReplacedByClient", now()));
                stage.shows("Replaced").await
            })
        }),
        usual("cancelled", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.set(&job, &running());
                stage.relay.logs(&job, "Running", &lines());
                stage.shows("Running").await?;
                for frame in FRAMES {
                    stage.page(frame).press("Stop Job").await?;
                }
                stage.shows("Stopped").await
            })
        }),
        usual("stored-result", |stage| {
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
        usual("result-not-loaded", |stage| {
            Box::pin(async move {
                let job = stage.job().await?;
                stage.relay.fail_results();
                stage.relay.set(&job, &finished("Success", now()));
                stage.shows("Finished result not loaded").await
            })
        }),
    ]
}

fn panels() -> Vec<State> {
    vec![
        State {
            name: "editor",
            before: Box::new(|_| Box::pin(async { Ok(()) })),
            hash: Box::new(|stage| {
                address(
                    stage,
                    &[
                        ("inputs", hash::json(&files())),
                        ("terminal", String::new()),
                        ("autostart", String::new()),
                    ],
                )
            }),
            then: Box::new(|stage| {
                Box::pin(async move {
                    for frame in ["small", "wide"] {
                        wait::until("the editor", wait::PATIENT, async || {
                            let script = "return [...document.querySelectorAll('.files .code-editor > div')].some((e) => e.shadowRoot?.querySelector('.cm-content'))";
                            match stage.host.frame(frame).run(script, &[]).await {
                                Ok(Value::Bool(true)) => Ok(()),
                                other => Err(format!("{other:?}")),
                            }
                        })
                        .await?;
                        let typing = "const content = document.querySelector('.files .code-editor > div').shadowRoot.querySelector('.cm-content'); content.focus(); document.execCommand('insertText', false, '# ')";
                        stage.host.frame(frame).run(typing, &[]).await?;
                    }
                    stage.shows("Ready").await
                })
            }),
        },
        panel("job", with_files, "job", ""),
        panel("inputs", with_files, "inputs", ""),
        panel("settings-configure", nothing, "settings", "Configure"),
        panel("settings-image", nothing, "settings", "Image"),
        panel(
            "settings-definition",
            || {
                vec![(
                    "definition",
                    hash::json(
                        &json!({ "version": "2", "inputs": { "points.csv": { "type": "csv" } }, "outputs": { "plot.svg": {} } }),
                    ),
                )]
            },
            "settings",
            "Definition",
        ),
        State {
            name: "settings-build",
            before: Box::new(|_| Box::pin(async { Ok(()) })),
            hash: Box::new(|stage| {
                let job = json!({ "command": "python fit.py", "build": { "dockerfile": "FROM python:3.12-slim\nRUN pip install numpy\nCOPY . /app\n", "context": "https://github.com/owner/repo" } });
                address(stage, &[("job", hash::json(&job)), ("autostart", String::new())])
            }),
            then: Box::new(|stage| {
                Box::pin(async move {
                    stage.shows("Ready").await?;
                    stage.open("settings").await?;
                    stage.press("Image").await
                })
            }),
        },
        State {
            name: "queue-panel",
            before: Box::new(|stage| {
                Box::pin(async move {
                    stage.relay.set_workers(vec![worker("gpu-box", 2), worker("laptop", 0)]);
                    stage.relay.set(&"5b".repeat(32), &running());
                    let mut entry = queued();
                    entry["waitReason"] = json!("needs 4 GPUs, most here has 2");
                    stage.relay.set(&"a0".repeat(32), &entry);
                    stage.relay.set(&"c3".repeat(32), &finished("Success", now() - 90_000));
                    Ok(())
                })
            }),
            hash: Box::new(|stage| address(stage, &[])),
            then: Box::new(|stage| {
                Box::pin(async move {
                    let job = stage.job().await?;
                    stage.relay.set(&job, &running());
                    stage.shows("Running").await?;
                    for frame in ["small", "wide"] {
                        stage.host.frame(frame).click(".queue-button").await?;
                        stage.page(frame).shows("gpu-box").await?;
                    }
                    Ok(())
                })
            }),
        },
        State {
            name: "share",
            before: Box::new(|_| Box::pin(async { Ok(()) })),
            hash: Box::new(|stage| address(stage, &[])),
            then: Box::new(|stage| {
                Box::pin(async move {
                    let job = stage.job().await?;
                    stage.relay.set(&job, &running());
                    stage.relay.finish(&job, "Success", now(), &result(&outputs(), &lines()));
                    stage.shows("Finished").await?;
                    stage.page("wide").press("Share").await
                })
            }),
        },
        State {
            name: "log-search",
            before: Box::new(|_| Box::pin(async { Ok(()) })),
            hash: Box::new(|stage| address(stage, &[])),
            then: Box::new(|stage| {
                Box::pin(async move {
                    let job = stage.job().await?;
                    stage.relay.set(&job, &running());
                    stage.relay.logs(&job, "Running", &lines());
                    stage.shows("Running").await?;
                    for frame in ["small", "wide"] {
                        stage.page(frame).press("Search").await?;
                        stage.host.frame(frame).fill("input[type=search]", "epoch").await?;
                        stage.page(frame).shows("of 3 lines").await?;
                    }
                    Ok(())
                })
            }),
        },
    ]
}
