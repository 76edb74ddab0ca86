//! What the scripted relay knows of jobs, and how it tells pages: lists and updates to those of the old way, changes
//! of what they named to those that watch.

use serde_json::{Map, Value, json};

use super::{Relay, Settings, State, Style, Way};
use crate::test::now;

/// A job in the table.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// As in `jobs-and-states` 1.4, without what only watchers are told.
    pub(crate) entry: Value,
    /// The answer of `result.json`: `finished.result`.
    pub(crate) result: Option<Value>,
    /// Lines by kind, for watchers that ask from a number on.
    pub(crate) build: Vec<Value>,
    pub(crate) run: Vec<Value>,
    revision: u64,
}

impl Job {
    /// Old peers are not told of jobs that ended without result, but for the recorded stand-in's cancel.
    fn is_listed(&self) -> bool {
        let reason = self.entry["finishedReason"].as_str();
        reason.is_none_or(|reason| ["Success", "Error", "TimedOut"].contains(&reason))
    }
}

/// Steps whose lines belong to the build log (`metaframe` 5.9).
fn is_build(step: &str) -> bool {
    ["docker image pull", "cloning repo", "docker build", "docker image push"].contains(&step)
}

impl State {
    pub(super) fn say(&self, socket: usize, frame: &Value) {
        let socket = &self.sockets[socket];
        if socket.is_open {
            // It may have closed just now.
            let _ = socket.out.send(super::Order::Say(frame.to_string()));
        }
    }

    /// What a socket is told first.
    pub(super) fn greet(&self, socket: usize) {
        if self.sockets[socket].watches {
            let hello = json!({ "relay": "scripted", "epoch": "epoch-1", "maxWatched": 256, "maxFrameBytes": 4 << 20 });
            self.say(socket, &json!({ "type": "Hello", "payload": hello }));
            self.say(socket, &self.summary());
        } else {
            self.say(socket, &json!({ "type": "Workers", "payload": { "workers": self.settings.workers } }));
            self.say(socket, &self.full());
        }
    }

    fn summary(&self) -> Value {
        let count = |state: &str| self.jobs.values().filter(|job| job.entry["state"] == state).count();
        let workers = self.settings.workers.len();
        json!({ "type": "QueueSummary", "payload": {
            "queued": count("Queued"), "running": count("Running"), "workers": workers,
            "cpus": 4 * workers, "gpus": 0, "freeCpus": 4 * workers, "freeGpus": 0,
        }})
    }

    fn full(&self) -> Value {
        let listed = self.jobs.iter().filter(|(_, job)| job.is_listed());
        let jobs: Map<String, Value> = listed.map(|(id, job)| (id.clone(), job.entry.clone())).collect();
        json!({ "type": "JobStates", "payload": { "state": { "jobs": jobs }, "isSubset": false } })
    }

    fn update(jobs: &Value) -> Value {
        json!({ "type": "JobStateUpdates", "payload": { "state": { "jobs": jobs }, "isSubset": true } })
    }

    /// The job as watchers see it: `null` when unknown.
    fn watched(&self, id: &str) -> Value {
        let Some(job) = self.jobs.get(id) else { return Value::Null };
        let mut entry = job.entry.clone();
        entry["revision"] = job.revision.into();
        entry
    }

    /// Tells watchers of a job.
    fn tell_watchers(&self, id: &str) {
        let update = Self::update(&json!({ id: self.watched(id) }));
        for n in 0..self.sockets.len() {
            if self.sockets[n].watches && self.sockets[n].watched.iter().any(|watched| watched == id) {
                self.say(n, &update);
            }
        }
    }

    fn tell_old(&self, frame: &Value) {
        for n in 0..self.sockets.len() {
            if !self.sockets[n].watches {
                self.say(n, frame);
            }
        }
    }

    fn put(&mut self, id: &str, entry: Value, result: Option<Value>) {
        self.revision += 1;
        let revision = self.revision;
        let begins = entry["state"] == "Queued";
        let job = self.jobs.entry(id.to_owned()).or_insert_with(|| Job {
            entry: Value::Null,
            result: None,
            build: Vec::new(),
            run: Vec::new(),
            revision,
        });
        if begins {
            (job.build, job.run) = (Vec::new(), Vec::new());
        }
        (job.entry, job.result, job.revision) = (entry, result, revision);
    }

    /// A frame of a page: what the protocol wants of it.
    pub(super) fn hear(&mut self, socket: usize, frame: &Value) {
        if frame == "PING" && self.settings.answers_pings {
            let _ = self.sockets[socket].out.send(super::Order::Say("PONG".to_owned()));
        }
        let payload = &frame["payload"];
        match frame["type"].as_str() {
            Some("QueryJob") if self.settings.answers_queries => {
                let Some(id) = payload["jobId"].as_str() else { return };
                let known = self.jobs.get(id).filter(|job| job.is_listed());
                let jobs = known.map_or(json!({}), |job| json!({ id: job.entry }));
                self.say(socket, &Self::update(&jobs));
            }
            Some("QueryJobStates") => self.say(socket, &self.full()),
            Some("Watch") => self.watch(socket, payload),
            Some("StateChange") => self.change(socket, payload),
            _ => {}
        }
    }

    fn watch(&mut self, socket: usize, payload: &Value) {
        let jobs = payload["jobs"].as_object().cloned().unwrap_or_default();
        self.sockets[socket].watched = jobs.keys().cloned().collect();
        if payload["workers"] == true {
            self.say(socket, &json!({ "type": "Workers", "payload": { "workers": self.settings.workers } }));
        }
        let states: Map<String, Value> = jobs.keys().map(|id| (id.clone(), self.watched(id))).collect();
        self.say(socket, &Self::update(&states.into()));
        for (id, wants) in &jobs {
            let Some(job) = self.jobs.get(id) else { continue };
            for (kind, step, lines) in
                [("build", "docker image pull", &job.build), ("run", "Running", &job.run)]
            {
                let Some(from) = wants[kind].as_u64() else { continue };
                let place = usize::try_from(from).unwrap_or(usize::MAX).min(lines.len());
                if place < lines.len() {
                    let logs = json!({ "jobId": id, "step": step, "logs": lines[place..], "from": from });
                    self.say(socket, &json!({ "type": "JobStatusPayload", "payload": logs }));
                }
            }
        }
    }

    fn change(&mut self, socket: usize, payload: &Value) {
        let Some(id) = payload["job"].as_str() else { return };
        let (reference, value) = (&payload["ref"], &payload["value"]);
        if let Some(why) = &self.settings.refuses {
            let error = json!({ "code": "refused", "title": "Refused", "detail": why });
            let done = json!({ "ref": reference, "error": error });
            self.say(socket, &json!({ "type": "Done", "payload": done }));
            return;
        }
        if !self.settings.records {
            return;
        }
        match (payload["state"].as_str(), value["reason"].as_str()) {
            (Some("Queued"), _) => self.submitted(id, &value["enqueued"]),
            (Some("Finished"), Some(reason @ ("Cancelled" | "Deleted"))) => self.ended(id, reason),
            _ => {}
        }
        if self.sockets[socket].watches && !reference.is_null() {
            let done = json!({ "ref": reference, "jobId": id, "revision": self.revision });
            self.say(socket, &json!({ "type": "Done", "payload": done }));
        }
    }

    fn submitted(&mut self, id: &str, enqueued: &Value) {
        let namespace = enqueued["control"]["namespace"].as_str().unwrap_or("_");
        let rerun = &enqueued["control"]["rerun"];
        let held = self.jobs.get(id).filter(|job| job.is_listed());
        let is_known = held.is_some_and(|job| {
            let again = self.settings.knows_rerun && !rerun.is_null() && *rerun == job.entry["time"];
            !again
        });
        if !is_known {
            let time = now();
            let entry = json!({
                "queuedTime": time, "state": "Queued", "time": time, "worker": "", "namespaces": [namespace],
            });
            self.put(id, entry, None);
        }
        self.tell_watchers(id);
        match self.settings.style {
            Style::Updates => self.tell_old(&Self::update(&json!({ id: self.jobs[id].entry }))),
            Style::Lists | Style::ListsAtOnce => self.tell_old(&self.full()),
        }
        let echoes = self.settings.echoes && !is_known;
        if let Some(inputs) = enqueued["definition"]["inputs"].as_object().filter(|_| echoes) {
            // `command` is what the recorded metaframe took for orders, not for an input.
            let inputs = inputs.iter().filter(|(name, _)| *name != "command");
            let outputs: Map<String, Value> =
                inputs.map(|(name, value)| (format!("echo/{name}"), value.clone())).collect();
            if outputs.is_empty() {
                return;
            }
            let entry = finished("Success", now());
            self.put(id, entry.clone(), Some(super::with_outputs(&outputs.into())));
            self.tell_watchers(id);
            self.tell_old(&Self::update(&json!({ id: entry })));
        }
    }

    /// Ends a job without result and tells of it as the style says.
    fn ended(&mut self, id: &str, reason: &str) {
        let Some(job) = self.jobs.get(id) else { return };
        let mut entry = job.entry.clone();
        (entry["state"], entry["finishedReason"], entry["time"]) =
            ("Finished".into(), reason.into(), now().into());
        self.put(id, entry.clone(), None);
        self.tell_watchers(id);
        match self.settings.style {
            Style::Updates if reason == "Cancelled" => self.tell_old(&Self::update(&json!({ id: entry }))),
            Style::Updates | Style::Lists => self.tell_old(&Self::update(&json!({}))),
            Style::ListsAtOnce => self.tell_old(&self.full()),
        }
        if reason == "Deleted" {
            self.jobs.remove(id);
        }
    }
}

impl Relay {
    /// A full list to pages of the old way.
    pub(crate) fn list(&self) {
        let state = self.inner.state();
        state.tell_old(&state.full());
    }

    /// Puts a job into the table without telling anybody.
    pub(crate) fn put(&self, id: &str, entry: Value, result: Option<Value>) {
        self.inner.state().put(id, entry, result);
    }

    /// Takes a job out of the table without telling anybody.
    pub(crate) fn forget(&self, id: &str) {
        self.inner.state().jobs.remove(id);
    }

    /// Puts a job into the table and tells of it.
    pub(crate) fn becomes(&self, id: &str, entry: &Value, result: Option<Value>) {
        let mut state = self.inner.state();
        state.put(id, entry.clone(), result);
        state.tell_watchers(id);
        state.tell_old(&State::update(&json!({ id: entry })));
    }

    /// *Running*, on `worker1`.
    pub(crate) fn runs(&self, id: &str) {
        self.becomes(id, &entry("Running", now(), json!({})), None);
    }

    /// *Finished* for this reason, now; gives the time.
    pub(crate) fn finishes(&self, id: &str, reason: &str, result: Value) -> u64 {
        let time = now();
        self.becomes(id, &finished(reason, time), Some(result));
        time
    }

    /// Ends a job without result, as somebody else would: `Cancelled`, `Deleted`, `JobReplacedByClient`.
    pub(crate) fn ends_elsewhere(&self, id: &str, reason: &str) {
        self.inner.state().ended(id, reason);
    }

    /// Log lines of a job: `[text, time, isStdErr?]` each.
    pub(crate) fn logs(&self, id: &str, step: &str, lines: &[Value]) {
        let mut state = self.inner.state();
        let mut from = 0;
        if let Some(job) = state.jobs.get_mut(id) {
            let kind = if is_build(step) { &mut job.build } else { &mut job.run };
            from = kind.len();
            kind.extend_from_slice(lines);
        }
        for n in 0..state.sockets.len() {
            let mut payload = json!({ "jobId": id, "step": step, "logs": lines });
            if state.sockets[n].watches {
                if !state.sockets[n].watched.iter().any(|watched| watched == id) {
                    continue;
                }
                payload["from"] = from.into();
            }
            state.say(n, &json!({ "type": "JobStatusPayload", "payload": payload }));
        }
    }

    /// The entry of a job as the table has it.
    pub(crate) fn entry(&self, id: &str) -> Value {
        self.inner.state().jobs.get(id).map_or(Value::Null, |job| job.entry.clone())
    }
}

/// An entry of the table, with more fields.
pub(crate) fn entry(state: &str, time: u64, more: Value) -> Value {
    let mut entry = json!({
        "queuedTime": time, "state": state, "time": time, "worker": "worker1", "namespaces": ["_"],
    });
    if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
        entry.extend(more);
    }
    entry
}

/// An entry that has ended.
pub(crate) fn finished(reason: &str, time: u64) -> Value {
    entry("Finished", time, json!({ "finishedReason": reason }))
}

impl Settings {
    /// Whether a socket that asks for `watch/1` gets it.
    pub(super) fn watches(&self, query: &str) -> bool {
        self.way == Way::Watch
            && query.split('&').any(|part| part == "protocol=watch/1" || part == "protocol=watch%2F1")
    }
}
