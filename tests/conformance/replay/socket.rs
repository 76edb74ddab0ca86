//! The recorded frames of sockets (`relay-socket.json`).
//!
//! Messages of states are compared by the table that they leave at the peer, because a relay may say the same by a
//! full list or by an update (`relay-protocol` 3.9, 3.13); all other frames one by one, in order.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::Strictness;
use crate::check::SOON;
use crate::peers::socket::{Frame, NotOpened, Socket};
use crate::peers::table::fold;
use crate::test::Test;

const RECORDED: &str = include_str!("../../../shared/tests/vectors/relay-socket.json");

/// A table that is intended where another was recorded.
struct Difference {
    note: &'static str,
    /// Which of several steps with this note.
    nth: usize,
    #[expect(dead_code, reason = "it is there for who reads the list")]
    reason: &'static str,
    /// Ids, states and namespaces of all jobs.
    jobs: &'static [(&'static str, &'static str, &'static str)],
    /// What the worker is told besides.
    told: Option<&'static str>,
}

const DONE: (&str, &str, &str) = ("J3", "Queued", "m");

const DIFFERENCES: &[Difference] = &[
    differs("cancel of the last namespace while running: empty update", 0, "R-2: a full list at once", &[]),
    Difference {
        note: "delete while running: ClearJobCache, then empty update",
        nth: 0,
        reason: "R-2: a full list at once",
        jobs: &[],
        told: Some("J2"),
    },
    Difference {
        note: "delete while queued: no ClearJobCache, shown queued without namespaces",
        nth: 0,
        reason: "R-3: gone at once, and the workers are told",
        jobs: &[],
        told: Some("J2"),
    },
    differs("submit into namespace m", 0, "R-3: the deleted job is gone", &[DONE]),
    differs(
        "another job into m: the older one is replaced at once",
        0,
        "R-2: a full list at once",
        &[("J4", "Queued", "m")],
    ),
    differs(
        "the replaced job again: stays replaced",
        0,
        "J-2: queued anew, and the other one is replaced",
        &[DONE],
    ),
    differs("WorkerLost of a queued job: no effect", 0, "J-2: the other job is gone", &[DONE]),
    differs("claim", 3, "J-2: the other job is gone", &[DONE]),
    differs(
        "WorkerLost while running, here sent by a client: back to queued",
        0,
        "J-20: refused from a client",
        &[DONE],
    ),
];

const fn differs(
    note: &'static str,
    nth: usize,
    reason: &'static str,
    jobs: &'static [(&'static str, &'static str, &'static str)],
) -> Difference {
    Difference { note, nth, reason, jobs, told: None }
}

/// A socket of the recording, and what it should have seen.
struct Peer {
    socket: Socket,
    is_worker: bool,
    /// The table as recorded, and as it is after intended differences.
    recorded: Map<String, Value>,
    intended: Map<String, Value>,
}

/// Plays all steps, in order.
///
/// # Errors
/// The first step that came otherwise than recorded or intended.
pub(crate) async fn play(t: &Test, strictness: Strictness) -> anyhow::Result<()> {
    let (queue, nonce) = (t.queue(), Test::nonce());
    let mut text = RECORDED.replace("vecs", &queue);
    for n in 1..=4 {
        text = text.replace(&format!("\"J{n}\""), &format!("\"J{n}-{nonce}\""));
    }
    let text = text.replace("echo J", &format!("echo {nonce}J"));
    let steps: Vec<Value> = serde_json::from_str(&text)?;
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        let note = step["note"].as_str().context("a step without a note")?;
        let nth = notes.entry(note.to_owned()).and_modify(|n| *n += 1).or_default();
        let difference = DIFFERENCES.iter().find(|one| one.note == note && one.nth == *nth);
        let outcome = play_step(t, &mut peers, step, difference, strictness, &nonce).await;
        outcome.with_context(|| format!("sockets, step {n}, {note}"))?;
    }
    Ok(())
}

async fn play_step(
    t: &Test,
    peers: &mut BTreeMap<String, Peer>,
    step: &Value,
    difference: Option<&Difference>,
    strictness: Strictness,
    nonce: &str,
) -> anyhow::Result<()> {
    let mut marks: BTreeMap<String, usize> =
        peers.iter().map(|(name, peer)| (name.clone(), peer.socket.mark())).collect();
    if let Some(name) = step["connect"].as_str() {
        let path = step["path"].as_str().context("no path")?;
        if step["received"][name][0].get("<closed>").is_some() {
            return refused(t, path).await;
        }
        let socket = t.socket(path).await?;
        marks.insert(name.to_owned(), 0);
        let peer =
            Peer { socket, is_worker: path.ends_with("/worker"), recorded: Map::new(), intended: Map::new() };
        peers.insert(name.to_owned(), peer);
    } else {
        let from = step["from"].as_str().context("a step that does nothing")?;
        let socket = &peers.get(from).context("no such socket")?.socket;
        match &step["frame"] {
            Value::String(word) => socket.say(word).await?,
            message => socket.send(message).await?,
        }
        // Else what was there before may be as recorded, and be taken for what comes of it.
        socket.settle().await?;
    }
    for (name, peer) in peers.iter_mut() {
        let received: Vec<Frame> =
            step["received"][name].as_array().into_iter().flatten().map(recorded_frame).collect();
        let after = |table: &Map<String, Value>| fold(&[vec![states(table)], received.clone()].concat());
        (peer.recorded, peer.intended) = (after(&peer.recorded), after(&peer.intended));
        let said = others(&received);
        let mut intended_said = said.clone();
        if let Some(difference) = difference {
            peer.intended = intended(difference, nonce);
            if let Some(id) = difference.told.filter(|_| peer.is_worker) {
                let payload = json!({ "jobId": format!("{id}-{nonce}"), "namespace": "a" });
                intended_said = vec![json!({ "type": "ClearJobCache", "payload": payload })];
            }
        }
        let mut wanted = vec![(plain(&peer.intended, peer.is_worker), intended_said)];
        if strictness == Strictness::Either {
            wanted.push((plain(&peer.recorded, peer.is_worker), said));
        }
        let mark = marks.get(name).copied().unwrap_or_default();
        peer.shows(mark, &wanted).await.with_context(|| format!("socket {name}"))?;
    }
    Ok(())
}

/// The intended table.
fn intended(difference: &Difference, nonce: &str) -> Map<String, Value> {
    let jobs = difference.jobs.iter().map(|(id, state, namespace)| {
        let job = json!({ "state": state, "worker": "", "namespaces": [namespace] });
        (format!("{id}-{nonce}"), job)
    });
    jobs.collect()
}

impl Peer {
    /// Waits until table and other frames are as one of those wanted, and stay so.
    async fn shows(&self, mark: usize, wanted: &[(Value, Vec<Value>)]) -> anyhow::Result<()> {
        let is = || {
            let came = (plain(&self.socket.table(), self.is_worker), others(&self.socket.frames(mark)));
            wanted.contains(&came).then_some(()).ok_or(came)
        };
        let _ = self.socket.until("the recorded frames", mark, SOON, |_| is().ok()).await;
        // What is asked before has been handled; the answer itself is left out of the comparison.
        self.socket.settle().await?;
        is().map_err(|came| {
            let wanted: Vec<_> =
                wanted.iter().map(|(table, others)| format!("{table} and {others:?}")).collect();
            anyhow::anyhow!("expected {}; came {} and {:?}", wanted.join(" or "), came.0, came.1)
        })
    }
}

/// A bad path is closed without a code at once, or not upgraded at all.
async fn refused(t: &Test, path: &str) -> anyhow::Result<()> {
    match Socket::open(t.address(), path, &[]).await {
        Err(NotOpened::Refused { .. }) => Ok(()),
        Err(other) => Err(other.into()),
        Ok(socket) => socket.closed(SOON).await.map(|_| ()),
    }
}

fn recorded_frame(value: &Value) -> Frame {
    match value {
        Value::String(word) => Frame::Word(word.clone()),
        other => Frame::Json(other.clone()),
    }
}

fn states(table: &Map<String, Value>) -> Frame {
    Frame::Json(json!({ "type": "JobStates", "payload": { "state": { "jobs": table } } }))
}

/// What a table says without times and without fields of later versions. A worker's list need not have what is
/// finished (`relay-protocol` 3.13).
fn plain(table: &Map<String, Value>, is_worker: bool) -> Value {
    let listed = table.iter().filter(|(_, job)| !(is_worker && job["state"] == "Finished"));
    let jobs = listed.map(|(id, job)| {
        let kept = ["state", "worker", "namespaces", "finishedReason"];
        let kept = kept.iter().filter_map(|name| Some(((*name).to_owned(), job.get(*name)?.clone())));
        (id.clone(), Value::Object(kept.collect()))
    });
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_by(|one, other| one.0.cmp(&other.0));
    Value::Object(jobs.into_iter().collect())
}

/// All frames but those of states, without times, and without the answers to the questions of this replay.
fn others(frames: &[Frame]) -> Vec<Value> {
    let mut all = Vec::new();
    for frame in frames {
        match frame {
            Frame::Json(value) if value["type"] == "JobStates" || value["type"] == "JobStateUpdates" => {}
            Frame::Json(value) => {
                let mut value = value.clone();
                let workers = value.pointer_mut("/payload/workers").and_then(Value::as_array_mut);
                for worker in workers.into_iter().flatten() {
                    worker["time"] = json!(0);
                }
                // Another instance may repeat the list of workers (`relay-protocol` 3.9).
                if value["type"] != "Workers" || all.last() != Some(&value) {
                    all.push(value);
                }
            }
            Frame::Word(word) if word.starts_with("PONG") => {}
            other => all.push(json!(format!("{other:?}"))),
        }
    }
    all
}
