//! The rules of `metaframe` 5.4 to 5.8 against [`reduce`]: a page is driven by messages alone, and what it would do
//! outside is looked at.

mod host;
mod reference;
mod relay;
mod running;

use std::collections::BTreeMap;

use dockframe_shared::metaframe::hash_params::encode_json;
use dockframe_shared::metaframe::inputs::PipeValue;
use dockframe_shared::metaframe::outputs::OutputValue;
use dockframe_shared::protocol::{Change, ClientMessage, StateChange};
use dockframe_shared::{JobId, Timestamp};
use serde_json::{Value, json};

use super::actions::{JobButton, job_button};
use super::job_view::{Ending, ResultState, read_result};
use super::*;

const HELLO: &str = r#"{"type":"Hello","payload":{"relay":"dockframe/1","epoch":"e","maxWatched":256,"maxFrameBytes":4194304}}"#;

/// A page without a browser.
struct Page {
    state: State,
    now: i64,
    hash: String,
    timers: BTreeMap<Timer, i64>,
    /// What was done outside since the last look.
    effects: Vec<Effect>,
    /// The relay answers no `PING`.
    is_mute: bool,
}

impl Page {
    fn new(is_embedded: bool, hash: &str) -> Self {
        Self::at(None, is_embedded, hash)
    }

    /// At a short address, alone.
    fn short(id: &str, hash: &str) -> Self {
        Self::at(Some(id.to_owned()), false, hash)
    }

    fn at(short_id: Option<String>, is_embedded: bool, hash: &str) -> Self {
        let place = Place { origin: "http://h".into(), short_id, nonce: "p".into() };
        let state = State::new(place, is_embedded);
        let mut page = Self {
            state,
            now: 1_000_000,
            hash: hash.into(),
            timers: BTreeMap::new(),
            effects: Vec::new(),
            is_mute: false,
        };
        page.send(Message::HashChanged { hash: hash.into() });
        page
    }

    /// Standalone, connected to a relay that can be watched.
    fn watching(hash: &str) -> Self {
        let mut page = Self::new(false, hash);
        page.open(HELLO);
        page
    }

    /// In a host's frame, connected, with the host's answer.
    fn embedded(hash: &str, inputs: &[(&str, Value)]) -> Self {
        let mut page = Self::new(true, hash);
        page.open(HELLO);
        page.host_answers(inputs);
        page
    }

    fn send(&mut self, message: Message) {
        let moment = Moment { now: Timestamp::from_millis(self.now), random: 0.5 };
        let mut written = None;
        let mut pings = false;
        for effect in reduce(&mut self.state, message, moment) {
            match &effect {
                Effect::Set(timer, Some(millis)) => {
                    self.timers.insert(*timer, self.now + millis);
                }
                Effect::Set(timer, None) => {
                    self.timers.remove(timer);
                }
                Effect::WriteHash(hash) => written = Some(hash.clone()),
                Effect::Send(text) => pings = pings || text == "PING",
                _ => {}
            }
            self.effects.push(effect);
        }
        if pings && !self.is_mute {
            self.frame("PONG");
        }
        // The browser tells everybody of the new hash.
        if let Some(hash) = written {
            self.hash.clone_from(&hash);
            self.send(Message::HashChanged { hash });
        }
    }

    /// Lets time pass; timers fire when they are due.
    fn pass(&mut self, millis: i64) {
        let end = self.now + millis;
        while let Some((timer, at)) =
            self.timers.iter().map(|(timer, at)| (*timer, *at)).min_by_key(|(_, at)| *at)
            && at <= end
        {
            self.now = self.now.max(at);
            self.timers.remove(&timer);
            self.send(Message::TimerFired(timer));
        }
        self.now = end;
    }

    fn open(&mut self, first_frame: &str) {
        let socket = self.state.connection.socket;
        self.send(Message::SocketOpened { socket });
        self.frame(first_frame);
    }

    fn close(&mut self) {
        self.send(Message::SocketClosed { socket: self.state.connection.socket });
    }

    fn frame(&mut self, text: &str) {
        let socket = self.state.connection.socket;
        self.send(Message::SocketFrame { socket, text: text.into() });
    }

    fn id(&self) -> JobId {
        self.state.current().expect("a job").id.clone()
    }

    /// The relay's word about the current job.
    fn relay_says(&mut self, job: &Value) {
        let id = self.id();
        self.frame(
            &json!({"type":"JobStateUpdates","payload":{"state":{"jobs":{id.as_str():job}},"isSubset":true}})
                .to_string(),
        );
    }

    /// The relay acknowledges all changes since the last look.
    fn relay_is_done(&mut self) {
        for change in self.changes() {
            self.frame(&json!({"type":"Done","payload":{"ref":change.reference}}).to_string());
        }
    }

    fn full_list(&mut self, jobs: &Value) {
        self.frame(
            &json!({"type":"JobStates","payload":{"state":{"jobs":jobs},"isSubset":false}}).to_string(),
        );
    }

    fn result_comes(&mut self, time: i64, result: &Value) {
        let text = json!({"data":{"finished":{"reason":"Success","time":time,"worker":"w","result":result}}});
        let text = text.to_string();
        let outcome = read_result(&text).map(Box::new);
        self.send(Message::ResultLoaded {
            job: self.id(),
            time: Timestamp::from_millis(time),
            text,
            outcome,
        });
    }

    fn host_answers(&mut self, inputs: &[(&str, Value)]) {
        self.host_answers_from("http://localhost", inputs);
    }

    fn host_answers_from(&mut self, origin: &str, inputs: &[(&str, Value)]) {
        let inputs = inputs.iter().map(|(name, value)| ((*name).into(), PipeValue::Json(value.clone())));
        self.send(Message::HostAnswered {
            origin: origin.into(),
            inputs: inputs.collect(),
            stopped: Vec::new(),
        });
    }

    fn input(&mut self, name: &str, value: Value) {
        self.send(Message::InputsUpdated(vec![(name.into(), Some(PipeValue::Json(value)))]));
    }

    fn user(&mut self, intent: Intent) {
        self.send(Message::User(intent));
    }

    /// What went over the socket since the last look.
    fn said(&mut self) -> Vec<ClientMessage> {
        let effects = std::mem::take(&mut self.effects);
        let texts = effects.iter().filter_map(|effect| match effect {
            Effect::Send(text) => ClientMessage::read(text).ok(),
            _ => None,
        });
        texts.filter(|message| *message != ClientMessage::Ping).collect()
    }

    fn changes(&mut self) -> Vec<StateChange> {
        let said = self.said().into_iter();
        said.filter_map(|message| match message {
            ClientMessage::StateChange(change) => Some(change),
            _ => None,
        })
        .collect()
    }

    /// Kinds of changes: `Queued`, or the reason of an ending.
    fn kinds(&mut self) -> Vec<&'static str> {
        self.changes()
            .iter()
            .map(|change| match &change.change {
                Change::Finished(finished) => finished.reason.as_str(),
                Change::Queued { enqueued, .. } => {
                    if enqueued.control.as_ref().is_some_and(|control| control.rerun.is_some()) {
                        "rerun"
                    } else {
                        "Queued"
                    }
                }
                _ => "other",
            })
            .collect()
    }

    fn outputs(&mut self) -> Vec<Vec<String>> {
        let effects = std::mem::take(&mut self.effects);
        let posts = effects.into_iter().filter_map(|effect| match effect {
            Effect::PostOutputs(outputs) => Some(outputs.into_iter().map(|(name, _)| name).collect()),
            _ => None,
        });
        posts.collect()
    }
}

fn hash(extra: &str) -> String {
    let job = encode_json(&json!({"image":"alpine:3.18.5","command":"ls -la"}));
    format!("#?job={job}&queue=q1{extra}")
}

fn auto() -> String {
    hash("&autostart=true")
}

fn queued() -> Value {
    json!({"queuedTime":1,"state":"Queued","time":1,"worker":"","namespaces":["_"]})
}

fn running(attempt: u32) -> Value {
    json!({"queuedTime":1,"state":"Running","time":2,"worker":"w","namespaces":["_"],"attempt":attempt})
}

fn finished(time: i64) -> Value {
    json!({"queuedTime":1,"state":"Finished","time":time,"worker":"w","namespaces":["_"],"finishedReason":"Success"})
}

fn ended(reason: &str) -> Value {
    json!({"queuedTime":1,"state":"Finished","time":9,"worker":"","namespaces":[],"finishedReason":reason})
}

fn one_output() -> Value {
    json!({"StatusCode":0,"logs":[["hi\n",2]],"isTimedOut":false,"outputs":{"a.txt":{"type":"utf8","value":"hi"}}})
}
