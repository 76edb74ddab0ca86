//! `job-outputs.json`: results, and the outputs that are sent of them.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::load;
use crate::check::{same_json, that};
use crate::page::items::handshake::no_inputs;
use crate::page::items::screen::{RUN, RUNNING};
use crate::page::relay::{Way, id_of};
use crate::page::setup::{Hash, Test};

/// What lies at every address of a recorded output.
const FETCHED: &str = "twelve bytes";

pub(crate) async fn replay(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Old).await?;
    let origin = relay.url();
    let vectors = load("job-outputs.json", &origin)?;
    for key in ["0123", "4567"] {
        relay.put_blob(key, FETCHED);
    }
    let bench = test.scripted(relay, "", &Value::Null).await?;
    for (n, entry) in vectors["vectors"].as_array().context("no vectors")?.iter().enumerate() {
        let name = entry["name"].as_str().unwrap_or_default();
        if entry["queue"] == "local" {
            // Its port is fixed: shown by item 34.
            continue;
        }
        let queue = entry["queue"].as_str().unwrap_or_default();
        let mut hash = Hash::auto(queue, &test.job()).with("N", &n.to_string());
        for flag in ["allowsetjob", "resolverefs"] {
            if entry[flag] == true {
                hash = hash.with(flag, "true");
            }
        }
        let mark = bench.relay.mark();
        bench.host.load(&format!("{origin}/?n={n}{}", hash.text()), &no_inputs()).await?;
        let id = id_of(&bench.relay.submission_numbered(&n.to_string(), mark).await?)?;
        let reason = entry["finished"]["reason"].as_str().unwrap_or_default();
        bench.relay.runs(&id);
        bench.relay.finishes(&id, reason, entry["finished"]["result"].clone());
        let sent = bench.host.says("OutputsUpdate", 1).await.with_context(|| name.to_owned())?;
        let wanted = repaired(&entry["outputs"], entry, &id);
        for (output, value) in wanted.as_object().into_iter().flatten() {
            same_json(&format!("{name}: {output}"), &sent["params"][output], value)?;
        }
        let count = |value: &Value| value.as_object().map(serde_json::Map::len);
        that(
            &format!("{name}: no other outputs"),
            count(&sent["params"]) == count(&wanted),
            &sent["params"],
        )?;
    }
    // Without a result nothing is sent: a page that was stopped, and one whose job was replaced.
    for reason in ["Cancelled", "Deleted", "JobReplacedByClient", "WorkerLost"] {
        let hash = Hash::auto(&test.queue(), &test.job()).with("N", reason);
        let mark = bench.relay.mark();
        bench.host.load(&format!("{origin}/?r={reason}{}", hash.text()), &no_inputs()).await?;
        let id = id_of(&bench.relay.submission_numbered(reason, mark).await?)?;
        bench.relay.runs(&id);
        bench.page.shows_one(RUNNING).await?;
        bench.relay.ends_elsewhere(&id, reason);
        bench.relay.list();
        bench.page.has_one(RUN, Some(true)).await?;
        let said = bench.host.said().await?;
        let updates = said.iter().filter(|said| said.is("OutputsUpdate")).count();
        that(&format!("nothing sent after {reason}"), updates == 1, &crate::page::host::methods(&said))?;
    }
    Ok(())
}

/// Blobs with their real bytes and number (5.8), and the address of this job.
fn repaired(outputs: &Value, entry: &Value, id: &str) -> Value {
    let mut outputs = outputs.clone();
    for value in outputs.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if value["_c"] == "Blob" {
            if value["value"] == "" {
                value["value"] = json!(STANDARD.encode(FETCHED));
            }
            let bytes = STANDARD.decode(value["value"].as_str().unwrap_or_default()).unwrap_or_default();
            value["size"] = json!(bytes.len());
        }
        if let Some(url) = value["url"].as_str() {
            value["url"] = json!(url.replace(entry["jobId"].as_str().unwrap_or_default(), id));
        }
    }
    outputs
}
