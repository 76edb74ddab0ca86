//! The first visit: what this is, and three jobs that work.

use leptos::prelude::*;
use serde_json::json;

use super::{Panels, Tab};
use crate::live::Live;
use crate::state::Intent;
use crate::state::edit::with_value;
use dockframe_shared::metaframe::hash_params::encode_json;

/// A job to begin with.
struct Example {
    title: &'static str,
    image: &'static str,
    command: &'static str,
    what: &'static str,
    files: &'static [(&'static str, &'static str)],
}

const EXAMPLES: [Example; 3] = [
    Example {
        title: "Python: fit a line",
        image: "python:3.12-slim",
        command: "python /inputs/fit.py",
        what: "points.csv → fit.py → fit.json",
        files: &[
            ("points.csv", "x,y\n1,2.1\n2,3.9\n3,6.2\n4,7.8\n5,10.1\n"),
            (
                "fit.py",
                "import csv, json, os\n\nos.makedirs('/outputs', exist_ok=True)\nrows = list(csv.DictReader(open('/inputs/points.csv')))\nx = [float(r['x']) for r in rows]\ny = [float(r['y']) for r in rows]\nn = len(x)\nmx, my = sum(x) / n, sum(y) / n\nslope = sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)\nfit = {'slope': round(slope, 4), 'offset': round(my - slope * mx, 4)}\nprint('read', n, 'points')\nprint('fit', fit)\njson.dump(fit, open('/outputs/fit.json', 'w'), indent=2)\n",
            ),
        ],
    },
    Example {
        title: "R: summary of a table",
        image: "r-base:4.4.1",
        command: "Rscript /inputs/report.R",
        what: "data.csv → report.R → summary.csv",
        files: &[
            ("data.csv", "group,value\na,1\na,2\nb,5\nb,9\n"),
            (
                "report.R",
                "data <- read.csv('/inputs/data.csv')\nsummary <- aggregate(value ~ group, data, mean)\nprint(summary)\ndir.create('/outputs', showWarnings = FALSE)\nwrite.csv(summary, '/outputs/summary.csv', row.names = FALSE, quote = FALSE)\n",
            ),
        ],
    },
    Example {
        title: "Shell: anything in a line",
        image: "alpine:3.20",
        command: "sh -c 'wc -l /inputs/* | tee /outputs/n.txt'",
        what: "wc -l /inputs/* → n.txt",
        files: &[("notes.txt", "one\ntwo\nthree\n")],
    },
];

#[component]
pub(super) fn Start() -> AnyView {
    let live = expect_context::<Live>();
    let panels = expect_context::<Panels>();
    let open = move |example: &'static Example| {
        let job = json!({ "image": example.image, "command": example.command });
        let files: serde_json::Map<_, _> =
            example.files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        panels.open(Tab::Job);
        live.edit(vec![
            ("job".into(), Some(encode_json(&job))),
            ("inputs".into(), Some(encode_json(&serde_json::Value::Object(files)))),
            ("autostart".into(), Some("true".into())),
        ]);
    };
    let empty = move |_| {
        panels.open(Tab::Job);
        let definition = with_value(None, "image", Some(json!("alpine:3.20")));
        live.want(Intent::EditDefinition(with_value(
            Some(&definition),
            "command",
            Some(json!("echo hello")),
        )));
    };
    let build = move |_| {
        panels.open(Tab::Settings);
        crate::browser::storage::local_set("settings-tab", Some("Image"));
        let job = json!({ "build": { "dockerfile": "FROM alpine:3.20\n" }, "command": "echo hello" });
        if let serde_json::Value::Object(job) = job {
            live.want(Intent::EditDefinition(dockframe_shared::job::Definition(job)));
        }
    };
    view! {
        <div class="start">
            <h1>"Run a container right here"</h1>
            <p>
                "A job is an image, a command and files. It runs on a computer that serves your queue, its log appears \
                 here, and what it writes to "
                <code>"/outputs"</code>
                " comes back. The whole job is in this page's address: share it like any link."
            </p>
            <div class="cards">
                {EXAMPLES
                    .iter()
                    .map(|example| {
                        view! {
                            <article class="card">
                                <h2>{example.title}</h2>
                                <pre>{format!("FROM {}\n{}", example.image, example.what)}</pre>
                                <button type="button" on:click=move |_| open(example)>"Open"</button>
                            </article>
                        }
                    })
                    .collect_view()}
            </div>
            <p>
                "Or start from "
                <button type="button" class="link" on:click=empty>"an empty job"</button>
                ", or from "
                <button type="button" class="link" on:click=build>"a Dockerfile or a git repository"</button>
                "."
            </p>
        </div>
    }
    .into_any()
}
