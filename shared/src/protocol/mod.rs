//! What travels between relay, clients and workers (`relay-protocol` 3, `jobs-and-states` 8).
//!
//! A frame is a bare word (`PING`, `PONG …`) or one JSON object `{"type": …, "payload": …}`. Reading is in two
//! steps, the type first, so that an unknown or malformed message costs its sender only that frame. One enum a
//! direction: [`ClientMessage`] and [`WorkerMessage`] come to the relay, [`RelayMessage`] leaves it.

mod client;
mod relay;
mod state_change;
mod worker;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use client::{ClientMessage, LogCursors, Watch};
pub use relay::{
    ClientHello, Definitions, Done, Jobs, LeaseFinished, LeaseGrant, LeaseRevoke, LogLines, QueueSummary,
    RelayMessage, RevokeWhy, Table, WatchedJobs, WorkerHello, Workers,
};
pub use state_change::{Change, StateChange};
pub use worker::{
    DeclineRetry, Lease, LeaseDecline, LeaseFinish, LeaseRef, LogKind, LogStep, Logs, Phase, Registration,
    StatusEntry, StatusResponse, WorkerMessage,
};

/// Name of the header by which worker and relay agree on leases at the upgrade (`jobs-and-states` 8.1).
pub const PROTOCOL_HEADER: &str = "dockframe-protocol";
/// Its value.
pub const LEASE_PROTOCOL: &str = "lease/1";
/// Value of the query parameter `protocol` by which a client asks to watch (`relay-protocol` 3.13).
pub const WATCH_PROTOCOL: &str = "watch/1";

/// The worker has this id already elsewhere (`jobs-and-states` 8.1).
pub const CLOSE_ID_TAKEN: u16 = 4409;
/// The worker means to come back: do not grant its leases anew early (`jobs-and-states` 8.7).
pub const CLOSE_BACK_SOON: u16 = 4000;
/// The relay restarts or drains: resume elsewhere.
pub const CLOSE_RESTART: u16 = 1012;

/// A frame that means nothing to this side. It is dropped and counted; the socket stays.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    #[error("neither a word of the protocol nor a JSON object")]
    NoMessage,
    #[error("no JSON object with a `type`")]
    NoType(#[source] serde_json::Error),
    #[error("a type that this side does not know")]
    UnknownType,
    #[error("no payload where one is needed")]
    NoPayload,
    #[error("a payload that cannot be read")]
    BadPayload(#[source] serde_json::Error),
}

/// Outermost form of a message.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Self, BadFrame> {
        if !text.starts_with('{') {
            return Err(BadFrame::NoMessage);
        }
        serde_json::from_str(text).map_err(BadFrame::NoType)
    }

    fn payload<T: DeserializeOwned>(&self) -> Result<T, BadFrame> {
        let raw = self.payload.ok_or(BadFrame::NoPayload)?;
        serde_json::from_str(raw.get()).map_err(BadFrame::BadPayload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Result<ClientMessage, BadFrame> {
        ClientMessage::read(text)
    }

    #[test]
    fn words_and_messages_are_told_apart() {
        assert!(matches!(client("PING"), Ok(ClientMessage::Ping)));
        assert!(matches!(client(""), Err(BadFrame::NoMessage)));
        assert!(matches!(client("undefined"), Err(BadFrame::NoMessage)));
        assert!(matches!(client("[]"), Err(BadFrame::NoMessage)));
        assert!(matches!(client("{"), Err(BadFrame::NoType(_))));
        assert!(matches!(client(r#"{"type":"Nope","payload":1}"#), Err(BadFrame::UnknownType)));
        assert!(matches!(client(r#"{"type":"StateChange"}"#), Err(BadFrame::NoPayload)));
        assert!(matches!(
            client(r#"{"type":"QueryJob","payload":{"jobId":["x"]}}"#),
            Err(BadFrame::BadPayload(_))
        ));
        assert!(matches!(client(r#"{"type":"QueryJobStates"}"#), Ok(ClientMessage::QueryJobStates)));
    }

    /// Each JSON example of the lease protocol is read, and written back as it was.
    #[test]
    fn lease_messages_read_and_write_the_documented_json() {
        let from_worker = [
            r#"{"type":"WorkerRegistration","payload":{"time":1784941344026,"version":"1.0.0","id":"w-7f","instance":"5b0c","cpus":4,"gpus":2,"maxJobDuration":"20m","memoryBytes":34359738368,"tags":["eu"],"draining":false,"executor":"docker","leases":[{"leaseId":"01J9ZK3V8Q4M","phase":"running"}]}}"#,
            r#"{"type":"LeaseAccept","payload":{"leaseId":"01J9ZK3V8Q4M"}}"#,
            r#"{"type":"LeaseDecline","payload":{"leaseId":"01J9ZK3V8Q4M","why":"image not allowed here","retry":"never"}}"#,
            r#"{"type":"LeaseFinish","payload":{"leaseId":"01J9ZK3V8Q4M","value":{"type":"Finished","reason":"Success","worker":"w-7f","time":1784941345026,"result":{"logs":[["hi\n",1784941344900]],"isTimedOut":false,"StatusCode":0,"duration":184,"outputs":{}}}}}"#,
            r#"{"type":"JobStatusLogs","payload":{"jobId":"69b3","step":"docker image pull","logs":[["a",1],["b",2,true]],"leaseId":"01J9","from":3}}"#,
            r#"{"type":"StateChange","payload":{"job":"69b3","tag":"w1","state":"Running","value":{"type":"Running","worker":"w1","time":1784941344026}}}"#,
        ];
        for text in from_worker {
            let message = WorkerMessage::read(text).unwrap();
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&message).unwrap(), expected);
        }
        let from_relay = [
            r#"{"type":"Hello","payload":{"relay":"dockframe/1.0.0","epoch":"9c1f","ttlMs":30000,"renewMs":10000,"maxFinishBytes":4194304}}"#,
            r#"{"type":"LeaseGrant","payload":{"leaseId":"01J9ZK3V8Q4M","jobId":"69b3","attempt":1,"definition":{"image":"alpine:3.18.5","command":"date"},"control":{"maxDuration":"5m"},"deadlineMs":4800000}}"#,
            r#"{"type":"LeaseRevoke","payload":{"leaseId":"01J9ZK3V8Q4M","why":"replaced","graceMs":2000}}"#,
            r#"{"type":"LeaseFinished","payload":{"leaseId":"01J9ZK3V8Q4M","recorded":true}}"#,
            r#"{"type":"JobStates","payload":{"state":{"jobs":{}},"isSubset":false}}"#,
            r#"{"type":"StatusRequest"}"#,
        ];
        for text in from_relay {
            let message = RelayMessage::read(text).unwrap();
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&message).unwrap(), expected);
        }
    }

    #[test]
    fn client_messages_read_and_write_the_documented_json() {
        let texts = [
            r#"{"type":"StateChange","payload":{"job":"40b5","tag":"","state":"Queued","value":{"type":"Queued","time":1795461439920,"enqueued":{"id":"40b5","definition":{"image":"alpine","command":"echo hi"},"control":{"namespace":"n1"}}}}}"#,
            r#"{"type":"StateChange","payload":{"job":"40b5","tag":"api","state":"Finished","value":{"type":"Finished","reason":"Cancelled","time":1795461440000,"namespace":"n1","message":"m"},"ref":"r1"}}"#,
            r#"{"type":"QueryJob","payload":{"jobId":"40b5"}}"#,
            r#"{"type":"Watch","payload":{"jobs":{"40b5":{"run":0}},"workers":true}}"#,
        ];
        for text in texts {
            let message = ClientMessage::read(text).unwrap();
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&message).unwrap(), expected);
        }
    }

    #[test]
    fn who_waits_for_an_answer_to_an_unreadable_message_is_known() {
        let reference = ClientMessage::unread_reference;
        let named = |name: &str| Some(Some(name.to_owned()));
        assert_eq!(reference(r#"{"type":"StateChange","payload":{"job":"","ref":"r1"}}"#), named("r1"));
        assert_eq!(reference(r#"{"type":"StateChange","payload":{"job":""}}"#), None);
        assert_eq!(reference(r#"{"type":"StateChange","payload":{"job":"a","ref":5}}"#), None);
        assert_eq!(reference(r#"{"type":"Watch","payload":{"jobs":{"":{}},"ref":"r2"}}"#), named("r2"));
        assert_eq!(reference(r#"{"type":"Watch","payload":[]}"#), Some(None));
        assert_eq!(reference(r#"{"type":"QueryJob","payload":{"ref":"r3"}}"#), None);
        assert_eq!(reference("PING"), None);
    }

    #[test]
    fn a_change_whose_ids_differ_is_refused() {
        let text = r#"{"type":"StateChange","payload":{"job":"a","tag":"","state":"Queued","value":{"type":"Queued","time":1,"enqueued":{"id":"b"}}}}"#;
        assert!(matches!(client(text), Err(BadFrame::BadPayload(_))));
    }
}
