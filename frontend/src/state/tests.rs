//! The rules of `metaframe` 5.4 to 5.8 against [`reduce`]: a page is driven by messages alone, and what it would do
//! outside is looked at.

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
        let place = Place { origin: "http://h".into(), short_id: None, nonce: "p".into() };
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
        let inputs = inputs.iter().map(|(name, value)| ((*name).into(), PipeValue::Json(value.clone())));
        self.send(Message::HostAnswered { inputs: inputs.collect(), stopped: Vec::new() });
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

#[test]
fn with_autostart_a_job_runs_once_on_start_and_once_for_each_new_id() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(3_000);
    assert_eq!(page.kinds(), ["Queued"]);
    page.relay_says(&queued());
    page.input("a.txt", json!("1"));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
    // An equal value is sent again, as after every handshake.
    page.input("a.txt", json!("1"));
    page.pass(1_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn without_autostart_nothing_runs_by_itself() {
    let mut page = Page::embedded(&hash(""), &[("a", json!(1))]);
    page.input("b", json!(2));
    page.relay_says(&Value::Null);
    page.pass(30_000);
    assert!(page.kinds().is_empty());
    assert_eq!(job_button(&page.state), JobButton::Run);
    page.user(Intent::Run);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn in_a_frame_nothing_is_computed_before_the_host_answered() {
    let mut page = Page::new(true, &auto());
    page.open(HELLO);
    page.pass(3_000);
    page.user(Intent::Run);
    assert!(page.kinds().is_empty());
    page.host_answers(&[("x", json!("y"))]);
    page.pass(1_000);
    let changes = page.changes();
    assert_eq!(changes.len(), 1);
    let Change::Queued { enqueued, .. } = &changes[0].change else { panic!("a submission") };
    assert!(enqueued.definition.as_ref().unwrap().get("inputs").is_some());
}

#[test]
fn a_silent_host_holds_the_page_up_for_ten_seconds_and_may_still_answer() {
    let mut page = Page::new(true, &auto());
    page.open(HELLO);
    page.pass(9_900);
    assert!(page.kinds().is_empty());
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
    page.host_answers(&[("x", json!("y"))]);
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn nothing_but_ping_is_said_before_the_relay_speaks() {
    let mut page = Page::new(false, &auto());
    let socket = page.state.connection.socket;
    page.send(Message::SocketOpened { socket });
    page.pass(500);
    assert!(page.said().is_empty());
    page.frame(HELLO);
    let said = page.said();
    assert!(matches!(said[0], ClientMessage::Watch(_)), "{said:?}");
    assert!(matches!(said[1], ClientMessage::StateChange(_)), "{said:?}");
}

#[test]
fn a_submission_without_its_done_is_sent_again_on_the_next_socket_with_the_same_reference() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let first = page.changes();
    page.close();
    page.pass(5_000);
    page.open(HELLO);
    let second = page.changes();
    assert_eq!(first[0].reference, second[0].reference);
    let done = json!({"type":"Done","payload":{"ref":second[0].reference,"jobId":page.id(),"revision":1}});
    page.frame(&done.to_string());
    page.close();
    page.pass(5_000);
    page.open(HELLO);
    page.relay_says(&queued());
    page.pass(5_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn a_reconnect_submits_only_what_the_relay_lost() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let reference = page.changes()[0].reference.clone();
    page.frame(&json!({"type":"Done","payload":{"ref":reference}}).to_string());
    page.relay_says(&running(1));
    for (word, expected) in [
        (finished(3), vec![]),
        (running(1), vec![]),
        (ended("Cancelled"), vec![]),
        (Value::Null, vec!["Queued"]),
    ] {
        page.close();
        page.pass(6_000);
        page.open(HELLO);
        page.relay_says(&word);
        page.pass(1_000);
        assert_eq!(page.kinds(), expected, "{word}");
    }
}

#[test]
fn a_stopped_job_is_not_started_by_a_reconnect_but_by_the_user() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    page.user(Intent::Stop);
    assert_eq!(page.kinds(), ["Queued", "Cancelled"]);
    assert!(page.state.job.pending.is_some());
    page.relay_says(&ended("Cancelled"));
    assert_eq!(page.state.job.ending, Some(Ending::StoppedHere));
    assert!(page.state.job.pending.is_none());
    page.close();
    page.pass(6_000);
    page.open(HELLO);
    page.relay_says(&Value::Null);
    page.pass(2_000);
    // The stop had no `Done`, so it is said again; nothing is started.
    assert_eq!(page.kinds(), ["Cancelled"]);
    page.user(Intent::Run);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn stop_and_delete_carry_type_and_the_own_namespace() {
    let control = encode_json(&json!({"namespace":"n7"}));
    let mut page = Page::watching(&hash(&format!("&control={control}")));
    page.user(Intent::Run);
    page.user(Intent::Stop);
    page.user(Intent::Delete);
    let changes = page.changes();
    let values: Vec<Value> =
        changes.iter().skip(1).map(|change| serde_json::to_value(change).unwrap()["value"].clone()).collect();
    assert_eq!(values[0]["type"], "Finished");
    assert_eq!(values[0]["namespace"], "n7");
    assert_eq!(values[0]["message"], "Job cancelled by client");
    assert_eq!(values[1]["reason"], "Deleted");
    assert_eq!(values[1]["namespace"], "n7");
    assert!(values[1].get("message").is_none());
}

#[test]
fn stopping_ends_when_others_go_on_holding_the_job() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&json!({"queuedTime":1,"state":"Running","time":2,"worker":"w","namespaces":["_","b"]}));
    page.user(Intent::Stop);
    page.relay_says(&json!({"queuedTime":1,"state":"Running","time":2,"worker":"w","namespaces":["b"]}));
    assert!(page.state.job.pending.is_none() && page.state.job.held_by_others);
}

#[test]
fn a_stop_that_nobody_confirms_is_said_after_fifteen_seconds() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    page.user(Intent::Stop);
    page.pass(16_000);
    assert!(page.state.job.pending.is_some_and(|pending| pending.is_late));
}

#[test]
fn delete_runs_again_only_with_autostart_and_in_that_order() {
    for (hash, expected) in [(auto(), vec!["Deleted", "Queued"]), (hash(""), vec!["Deleted"])] {
        let mut page = Page::watching(&hash);
        page.pass(100);
        page.relay_says(&finished(3));
        page.result_comes(3, &one_output());
        page.kinds();
        page.user(Intent::Delete);
        assert_eq!(page.kinds(), expected);
    }
}

#[test]
fn an_ending_by_others_is_said_and_starts_nothing() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_is_done();
    page.relay_says(&running(1));
    page.relay_says(&ended("JobReplacedByClient"));
    page.pass(10_000);
    assert!(matches!(page.state.job.ending, Some(Ending::Elsewhere(Some(_)))));
    assert!(page.kinds().is_empty());
    assert_eq!(job_button(&page.state), JobButton::Run);
}

#[test]
fn outputs_go_to_the_host_once_per_result() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    assert_eq!(page.outputs(), [["a.txt"]]);
    page.relay_says(&finished(3));
    assert!(page.outputs().is_empty());
    // Somebody ran it again.
    page.relay_says(&finished(4));
    page.result_comes(4, &one_output());
    assert_eq!(page.outputs(), [["a.txt"]]);
}

#[test]
fn a_late_result_of_an_earlier_job_is_neither_shown_nor_sent() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(100);
    let first = page.id();
    page.relay_says(&finished(3));
    page.input("a", json!("new"));
    page.outputs();
    let text = json!({"data":{"finished":{"reason":"Success","time":3,"result":one_output()}}}).to_string();
    let outcome = read_result(&text).map(Box::new);
    page.send(Message::ResultLoaded { job: first, time: Timestamp::from_millis(3), text, outcome });
    assert!(page.state.job.finish().is_none());
    assert!(page.outputs().is_empty());
}

#[test]
fn a_result_that_cannot_be_loaded_is_asked_for_again() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&finished(3));
    let fetches = |page: &mut Page| {
        let effects = std::mem::take(&mut page.effects);
        effects.iter().filter(|effect| matches!(effect, Effect::FetchResult { .. })).count()
    };
    assert_eq!(fetches(&mut page), 1);
    for pause in [200, 400, 800] {
        let failed = Message::ResultLoaded {
            job: page.id(),
            time: Timestamp::from_millis(3),
            text: String::new(),
            outcome: Err("the server answered 500".into()),
        };
        page.send(failed);
        page.pass(pause - 1);
        assert_eq!(fetches(&mut page), 0);
        page.pass(1);
        assert_eq!(fetches(&mut page), 1);
    }
    page.result_comes(3, &one_output());
    assert!(page.state.job.finish().is_some());
}

#[test]
fn switching_allowsetjob_on_sends_the_result_file_alone() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    page.outputs();
    page.send(Message::HashChanged { hash: hash("&autostart=true&allowsetjob=true") });
    assert_eq!(page.outputs(), [["job/result.json"]]);
    page.send(Message::HashChanged { hash: hash("&autostart=true&allowsetjob=true&resolverefs=true") });
    assert_eq!(page.outputs(), [["a.txt"]]);
}

#[test]
fn run_again_names_the_result_it_replaces() {
    let mut page = Page::watching(&hash(""));
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    assert_eq!(job_button(&page.state), JobButton::RunAgain);
    page.kinds();
    page.user(Intent::RunAgain);
    assert_eq!(page.kinds(), ["rerun"]);
    page.relay_says(&running(2));
    assert!(matches!(page.state.job.result, ResultState::None) && page.state.log.is_empty());
    page.pass(20_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn a_relay_that_knows_no_rerun_gets_a_deletion_and_a_submission() {
    let mut page = Page::new(false, &hash(""));
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    let id = page.id();
    page.full_list(&json!({id.as_str(): finished(3)}));
    page.result_comes(3, &one_output());
    page.kinds();
    page.user(Intent::RunAgain);
    assert_eq!(page.kinds(), ["rerun"]);
    page.pass(5_000);
    assert_eq!(page.kinds(), ["Deleted", "Queued"]);
}

#[test]
fn a_result_of_another_queue_offers_to_run_here() {
    let mut page = Page::watching(&hash(""));
    let mut shared = finished(3);
    shared["shared"] = json!(true);
    page.relay_says(&shared);
    page.result_comes(3, &one_output());
    assert_eq!(job_button(&page.state), JobButton::RunHere);
}

#[test]
fn the_old_way_waits_for_the_list_and_asks_for_what_is_missing() {
    let mut page = Page::new(false, &auto());
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    page.pass(300);
    assert!(page.said().is_empty());
    page.full_list(&json!({}));
    let said = page.said();
    assert!(said.iter().any(|message| matches!(message, ClientMessage::QueryJob { .. })), "{said:?}");
    let submissions = said.iter().filter(|message| matches!(message, ClientMessage::StateChange(_)));
    assert_eq!(submissions.count(), 1);
    // Unknown is the answer to the query; the submission's list follows.
    page.frame(r#"{"type":"JobStateUpdates","payload":{"state":{"jobs":{}},"isSubset":true}}"#);
    page.pass(1_000);
    let id = page.id();
    page.full_list(&json!({id.as_str(): queued()}));
    assert_eq!(job_button(&page.state), JobButton::Stop);
}

#[test]
fn the_old_way_takes_an_empty_update_for_an_ending() {
    let mut page = Page::new(false, &auto());
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    let id = page.id();
    page.full_list(&json!({id.as_str(): running(1)}));
    page.pass(500);
    page.kinds();
    page.frame(r#"{"type":"JobStateUpdates","payload":{"state":{"jobs":{}},"isSubset":true}}"#);
    assert_eq!(page.state.job.ending, Some(Ending::Elsewhere(None)));
    page.pass(2_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn the_old_way_keeps_a_finished_job_that_left_the_lists() {
    let mut page = Page::new(false, &hash(""));
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    let id = page.id();
    page.full_list(&json!({id.as_str(): finished(3)}));
    page.result_comes(3, &one_output());
    page.said();
    page.full_list(&json!({}));
    assert!(matches!(page.said().as_slice(), [ClientMessage::QueryJob { .. }]));
    assert!(page.state.job.finish().is_some());
    page.relay_says(&finished(3));
    assert!(page.state.job.finish().is_some());
}

#[test]
fn an_upload_comes_before_the_submission_and_its_failure_holds_it_up() {
    let mut page = Page::embedded(&auto(), &[("big.txt", json!("x".repeat(500)))]);
    page.pass(1_000);
    let effects = std::mem::take(&mut page.effects);
    let url = effects.iter().find_map(|effect| match effect {
        Effect::Upload { url, .. } => Some(url.clone()),
        _ => None,
    });
    let url = url.expect("an upload");
    assert!(page.kinds().is_empty());
    assert!(matches!(job_button(&page.state), JobButton::Blocked(_)));
    page.send(Message::Uploaded { url: url.clone(), outcome: Err("the server answered 500".into()) });
    page.pass(1_000);
    assert!(page.kinds().is_empty());
    page.user(Intent::RetryUploads);
    let retried = page.effects.iter().any(|effect| matches!(effect, Effect::Upload { .. }));
    assert!(retried);
    page.send(Message::Uploaded { url, outcome: Ok(()) });
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_failed_upload_is_forgotten_with_its_input() {
    let mut page = Page::embedded(&auto(), &[("big.txt", json!("x".repeat(500)))]);
    page.pass(100);
    let url = page.state.current().unwrap().uploads[0].url.clone();
    page.send(Message::Uploaded { url, outcome: Err("no".into()) });
    page.kinds();
    page.send(Message::InputsUpdated(vec![("big.txt".into(), None)]));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn one_job_runs_for_a_burst_and_something_leaves_every_second_in_a_stream() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(1_000);
    page.kinds();
    for n in 0..30 {
        page.input("a", json!(n));
        page.pass(100);
    }
    let count = page.kinds().len();
    assert!((2..=5).contains(&count), "{count}");
}

#[test]
fn the_input_job_is_written_to_the_hash_once_and_is_no_file() {
    let mut page = Page::embedded("#?allowsetjob=true&autostart=true&queue=q1", &[]);
    page.input("job", json!({"image":"alpine:3.18.5","command":"ls -la"}));
    page.pass(500);
    assert!(page.hash.contains("job="));
    let changes = page.changes();
    assert_eq!(changes.len(), 1);
    let id = "52f48871aa9fa48b6793ae170415ec4e248ab2bf4243c5dc9f1fbc95dd49ecaa";
    assert_eq!(changes[0].job.as_str(), id);
    // The user edits; a later message without `job` does not undo it.
    page.user(Intent::EditDefinition(serde_json::from_value(json!({"image":"b"})).unwrap()));
    let edited = page.hash.clone();
    page.input("x", json!("1"));
    page.input("job", Value::Null);
    assert_eq!(page.hash, edited);
}

#[test]
fn without_allowsetjob_the_input_job_does_nothing() {
    let mut page = Page::embedded(&auto(), &[]);
    let before = page.id();
    page.input("job", json!({"image":"other"}));
    assert_eq!(page.id(), before);
}

#[test]
fn the_hosts_hash_changes_are_followed_live_and_never_answered_by_a_write() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(500);
    page.kinds();
    page.send(Message::HashChanged { hash: hash("&autostart=true&FOO=1") });
    let wrote = page.effects.iter().any(|effect| matches!(effect, Effect::WriteHash(_)));
    assert!(!wrote);
    page.pass(500);
    assert_eq!(page.kinds(), ["Queued"]);
    // Removing the job leaves nothing to run.
    page.send(Message::HashChanged { hash: "#?queue=q1".into() });
    assert!(matches!(page.state.wanted, Err(WantedError::NoJob)));
    assert_eq!(job_button(&page.state), JobButton::None);
}

#[test]
fn another_queue_is_connected_and_gets_the_same_job() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    page.kinds();
    page.send(Message::HashChanged { hash: auto().replace("queue=q1", "queue=q2") });
    let urls: Vec<_> = page
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Connect { url, .. } => Some(url.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(urls, ["ws://h/q/q2/client?protocol=watch/1"]);
    assert!(page.state.job.finish().is_none());
    page.open(HELLO);
    page.pass(500);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_job_whose_worker_was_lost_keeps_its_lines_and_counts_anew() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    let id = page.id();
    let lines = |from: u64, text: &str| {
        json!({"type":"JobStatusPayload","payload":{"jobId":id,"step":"Running","logs":[[text,1]],"from":from}})
            .to_string()
    };
    page.frame(&lines(0, "first\n"));
    page.relay_says(&queued());
    assert!(page.state.job.was_lost);
    page.relay_says(&running(2));
    page.frame(&lines(0, "again\n"));
    let texts: Vec<_> = page.state.log.rows().iter().map(log::Row::text).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!((texts[0].as_str(), texts[2].as_str()), ("first", "again"));
}

#[test]
fn lines_before_running_and_after_stop_are_kept() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let id = page.id();
    page.frame(
        &json!({"type":"JobStatusPayload","payload":{"jobId":id,"step":"Running","logs":[["early\n",1]],"from":0}})
            .to_string(),
    );
    page.relay_says(&running(1));
    page.user(Intent::Stop);
    page.relay_says(&ended("Cancelled"));
    assert_eq!(page.state.log.rows().len(), 1);
}

#[test]
fn an_older_revision_changes_nothing() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let with = |mut job: Value, revision: u64| {
        job["revision"] = json!(revision);
        job
    };
    page.relay_says(&with(queued(), 1));
    page.relay_says(&with(running(1), 3));
    page.relay_says(&with(queued(), 2));
    assert!(page.state.job.object().is_some_and(|job| job.worker == "w"));
}

#[test]
fn a_refusal_is_shown_with_its_words() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let reference = page.changes()[0].reference.clone();
    let error = json!({"code":"full","title":"This queue is full","detail":"Wait."});
    page.frame(&json!({"type":"Done","payload":{"ref":reference,"error":error}}).to_string());
    assert!(page.state.job.refused.is_some());
    assert_eq!(crate::view::header::header(&page.state).detail, "This queue is full");
}

#[test]
fn a_socket_that_never_answers_ping_is_replaced() {
    let mut page = Page::watching(&auto());
    let before = page.state.connection.socket;
    page.pass(60_000);
    assert_eq!(page.state.connection.socket, before);
    page.is_mute = true;
    page.pass(30_000);
    assert!(page.state.connection.socket > before);
}

#[test]
fn a_submission_carries_the_control_and_debug_of_the_moment() {
    let mut page = Page::watching(&hash(""));
    page.send(Message::HashChanged { hash: hash("&debug=true&maxJobDuration=7m") });
    page.user(Intent::Run);
    let changes = page.changes();
    let Change::Queued { enqueued, .. } = &changes[0].change else { panic!("a submission") };
    assert_eq!(enqueued.debug, Some(true));
    assert_eq!(enqueued.control.as_ref().and_then(|control| control.max_duration.as_deref()), Some("7m"));
}

#[test]
fn malformed_frames_cost_only_themselves() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    for text in ["", "undefined", "{", "[]", r#"{"type":"JobStateUpdates","payload":{"state":7}}"#, "PONG x"]
    {
        page.frame(text);
    }
    page.relay_says(&running(1));
    assert_eq!(job_button(&page.state), JobButton::Stop);
}

fn kept_text(time: i64) -> String {
    json!({"data":{"finished":{"reason":"Success","time":time,"result":one_output()}}}).to_string()
}

#[test]
fn a_kept_result_is_shown_until_the_relay_speaks_and_sends_nothing() {
    let keeps = |page: &mut Page| {
        let effects = std::mem::take(&mut page.effects);
        effects.iter().any(|effect| matches!(effect, Effect::Keep { text: None, .. }))
    };
    for (word, stays) in [
        (finished(3), true),
        (finished(4), false),
        (running(1), false),
        (queued(), false),
        (Value::Null, false),
    ] {
        let mut page = Page::embedded(&hash(""), &[]);
        page.send(Message::KeptLoaded { job: page.id(), text: kept_text(3) });
        assert!(page.state.job.kept.is_some());
        assert!(page.outputs().iter().all(Vec::is_empty));
        assert_eq!(crate::view::header::header(&page.state).title, "Kept result");
        page.relay_says(&word);
        assert!(page.state.job.kept.is_none());
        assert_eq!(page.state.job.finish().is_some(), stays, "{word}");
        if stays {
            let effects = &page.effects;
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::FetchResult { .. })));
            assert_eq!(page.outputs(), [["a.txt"]]);
        } else {
            assert!(keeps(&mut page), "{word}");
        }
    }
}

#[test]
fn cancelling_anothers_job_names_everybody_only_when_told() {
    let mut page = Page::watching(&hash(""));
    let other = JobId::new("other").unwrap();
    page.user(Intent::Cancel { job: other.clone(), everybody: false });
    page.user(Intent::Cancel { job: other, everybody: true });
    let namespaces: Vec<Value> = page
        .changes()
        .iter()
        .map(|change| serde_json::to_value(change).unwrap()["value"]["namespace"].clone())
        .collect();
    assert_eq!(namespaces, ["_", "*"]);
}

#[test]
fn a_malformed_parameter_is_said_and_the_page_stays() {
    let page = Page::watching("#?job=%%%&queue=q1");
    assert!(matches!(page.state.wanted, Err(WantedError::Malformed(_))));
    assert_eq!(crate::view::header::header(&page.state).title, "Link not readable");
    let trouble = crate::view::trouble::trouble(&page.state, Timestamp::from_millis(0)).expect("a screen");
    assert!(trouble.why.contains("job"));
}

#[test]
fn the_result_files_absent_fields_are_undefined() {
    let mut page = Page::embedded(&hash("&allowsetjob=true"), &[]);
    page.relay_says(&finished(3));
    page.result_comes(3, &json!({"error":"no","logs":[]}));
    let posts: Vec<_> = page
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::PostOutputs(outputs) => Some(outputs.clone()),
            _ => None,
        })
        .collect();
    let OutputValue::Object(fields) = &posts[0][0].1 else { panic!("an object") };
    assert!(fields.iter().any(|(name, value)| *name == "statusCode" && value.is_none()));
}
