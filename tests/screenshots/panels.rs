//! The panels: editor, job, inputs, settings, queue, sharing, search in the log.

use dockframe_tests::{hash, wait};
use serde_json::{Value, json};

use crate::samples::{address, ends, files, finished, lines, outputs, queued, result, running};
use crate::stage::{Stage, State};
use crate::stand_in::{now, worker};

/// What the address says beside the usual.
type More = fn() -> Vec<(&'static str, String)>;

/// The job has run, with outputs.
async fn has_run(stage: &Stage) -> anyhow::Result<()> {
    let job = stage.job().await?;
    ends(&stage.relay, &job, "Success", &result(&outputs(), &lines()));
    stage.shows("Finished").await
}

/// A panel of a page that has run its job.
fn panel(name: &'static str, more: More, panel: &'static str, section: &'static str) -> State {
    State::at(
        name,
        move |stage| address(stage.relay.origin(), &more()),
        move |stage| {
            Box::pin(async move {
                has_run(stage).await?;
                stage.open(panel).await?;
                if section.is_empty() { Ok(()) } else { stage.press(section).await }
            })
        },
    )
}

fn with_files() -> Vec<(&'static str, String)> {
    vec![("inputs", hash::json(&files()))]
}

pub(crate) fn panels() -> Vec<State> {
    vec![
        editor(),
        panel("job", with_files, "job", ""),
        panel("inputs", with_files, "inputs", ""),
        panel("settings-configure", Vec::new, "settings", "Configure"),
        panel("settings-image", Vec::new, "settings", "Image"),
        panel(
            "settings-definition",
            || {
                let pipes = json!({ "version": "2", "inputs": { "points.csv": { "type": "csv" } }, "outputs": { "plot.svg": {} } });
                vec![("definition", hash::json(&pipes))]
            },
            "settings",
            "Definition",
        ),
        settings_of_a_build(),
        queue(),
        State::usual("share", |stage| {
            Box::pin(async move {
                has_run(stage).await?;
                stage.press("Share").await
            })
        }),
        State::usual("log-search", |stage| {
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
    ]
}

/// The first file's editor, once it is there.
const CONTENT: &str =
    "return document.querySelector('.files .code-editor > div')?.shadowRoot?.querySelector('.cm-content')";

fn editor() -> State {
    let hash = |stage: &Stage| {
        let more =
            [("inputs", hash::json(&files())), ("terminal", String::new()), ("autostart", String::new())];
        address(stage.relay.origin(), &more)
    };
    State::at("editor", hash, |stage| {
        Box::pin(async move {
            for frame in ["small", "wide"] {
                let frame = stage.host.frame(frame);
                wait::until("the editor", wait::PATIENT, async || {
                    match frame.run(&format!("{CONTENT} != null"), &[]).await {
                        Ok(Value::Bool(true)) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await?;
                let typing = CONTENT.replace("return", "const content =");
                let typing =
                    format!("{typing}; content.focus(); document.execCommand('insertText', false, '# ')");
                frame.run(&typing, &[]).await?;
            }
            stage.shows("Ready").await
        })
    })
}

fn settings_of_a_build() -> State {
    let hash = |stage: &Stage| {
        let dockerfile = "FROM python:3.12-slim\nRUN pip install numpy\nCOPY . /app\n";
        let build = json!({ "dockerfile": dockerfile, "context": "https://github.com/owner/repo" });
        let job = json!({ "command": "python fit.py", "build": build });
        address(stage.relay.origin(), &[("job", hash::json(&job)), ("autostart", String::new())])
    };
    State::at("settings-build", hash, |stage| {
        Box::pin(async move {
            stage.shows("Ready").await?;
            stage.open("settings").await?;
            stage.press("Image").await
        })
    })
}

fn queue() -> State {
    let state = State::usual("queue-panel", |stage| {
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
    });
    state.after(|stage| {
        stage.relay.set_workers(vec![worker("gpu-box", 2), worker("laptop", 0)]);
        stage.relay.set(&"5b".repeat(32), &running());
        let mut entry = queued();
        entry["waitReason"] = json!("needs 4 GPUs, most here has 2");
        stage.relay.set(&"a0".repeat(32), &entry);
        stage.relay.set(&"c3".repeat(32), &finished("Success", now() - 90_000));
    })
}
