//! The job of the pictures, and what the relay says of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_tests::hash;
use serde_json::{Value, json};

use crate::stand_in::{StandIn, entry, now};

pub(crate) fn queued() -> Value {
    entry("Queued", "", now())
}

pub(crate) fn running() -> Value {
    entry("Running", "", now())
}

pub(crate) fn finished(reason: &str, time: u64) -> Value {
    entry("Finished", reason, time)
}

pub(crate) fn job() -> Value {
    json!({ "image": "python:3.12-slim", "command": "python /inputs/fit.py --order 3" })
}

pub(crate) fn files() -> Value {
    json!({
        "fit.py": "import csv, json\n\n# points.csv comes from upstream, or from the tab beside\nrows = list(csv.DictReader(open('/inputs/points.csv')))\nx = [float(row['x']) for row in rows]\ny = [float(row['y']) for row in rows]\nprint(f'read {len(x)} rows')\n\n\ndef slope(x, y):\n    mx, my = sum(x) / len(x), sum(y) / len(y)\n    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)\n\n\njson.dump({'slope': slope(x, y)}, open('/outputs/fit.json', 'w'))\n",
        "points.csv": "x,y\n1,2.1\n2,3.9\n3,6.2\n",
    })
}

/// The usual address: a job that runs by itself on the stand-in's queue.
pub(crate) fn address(origin: &str, more: &[(&str, String)]) -> String {
    let mut parameters = vec![
        ("job", hash::json(&job())),
        ("queue", format!("{}/lab-7f3ac1d94e0b4d5f9a02c1d9", origin)),
        ("autostart", "true".to_owned()),
        ("terminal", "true".to_owned()),
    ];
    parameters.extend(more.iter().cloned());
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (*name, &**value)).collect();
    hash::hash(&parameters)
}

pub(crate) fn result(outputs: &Value, lines: &Value) -> Value {
    json!({
        "StatusCode": 0, "duration": 3412, "isTimedOut": false, "outputs": outputs, "logs": lines,
        "imageDigest": format!("sha256:{}", "4f".repeat(32)),
    })
}

pub(crate) fn lines() -> Value {
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

pub(crate) fn outputs() -> Value {
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

pub(crate) fn failed(error: &Value, lines: &Value) -> Value {
    json!({ "error": error, "logs": lines, "duration": 410, "isTimedOut": false, "outputs": {} })
}

/// The job runs, and ends so.
pub(crate) fn ends(relay: &StandIn, job: &str, reason: &str, result: &Value) {
    relay.set(job, &running());
    relay.finish(job, reason, now(), result);
}

/// The job runs, and its image is being made.
pub(crate) fn builds(relay: &StandIn, job: &str, step: &str, lines: &Value) {
    relay.set(job, &running());
    relay.logs(job, step, lines);
}
