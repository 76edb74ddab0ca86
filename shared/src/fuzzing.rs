//! What must hold for whatever comes from outside. The fuzz targets (`fuzz/`) try these promises on bytes of their
//! own making, and the tests here on every seed.
//!
//! Built for these two alone. A promise is more than "does not panic": what is read and written again is the same,
//! and nothing answers with much more than it was given.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::command;
use crate::ids::{JobId, Namespace};
use crate::javascript::url::HttpUrl;
use crate::javascript::{base64, json as javascript, uri};
use crate::job::canonical::canonical_json;
use crate::job::digest::{canonical_definition, job_id};
use crate::job::resolve::{Candidate, Standing, Winner, ours, reference};
use crate::job::{Control, Definition, Enqueued, FinishReason, Finished, JobObject, JobResult};
use crate::metaframe::data_ref::DataRef;
use crate::metaframe::data_url::{self, DataUrl};
use crate::metaframe::hash_params::HashParams;
use crate::metaframe::inputs::{PipeValue, Staged};
use crate::metaframe::job_url::{Source, page_job};
use crate::metaframe::queue::QueueAddress;
use crate::protocol::{BadFrame, ClientMessage, Registration, RelayMessage, Watch, WorkerMessage};
use crate::time::Timestamp;
use crate::units::gpus::GpuOffer;
use crate::units::{bytes, duration};

/// How much longer a text may come out than it went in: an exponent becomes digits, a control character an escape.
const GROWTH: usize = 16;

/// Frames of all sockets, each by every reader: a peer may be anything.
pub fn frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    comes_back(text, ClientMessage::read);
    comes_back(text, WorkerMessage::read);
    comes_back(text, RelayMessage::read);
    comes_back(text, RelayMessage::read_as_client);
}

fn comes_back<M: Serialize + PartialEq + Debug>(text: &str, read: fn(&str) -> Result<M, BadFrame>) {
    let Ok(message) = read(text) else { return };
    match serde_json::to_string(&message) {
        Ok(written) => {
            assert!(written.len() <= GROWTH * text.len() + 1024, "{} bytes of {text}", written.len());
            assert_eq!(read(&written).ok().as_ref(), Some(&message), "{written}");
        }
        // The words that are no JSON.
        Err(_) => assert!(!text.starts_with('{'), "{text}"),
    }
}

/// A JSON text as definition, as what goes with one, and as data reference.
pub fn job(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let canonical = canonical_json(&value);
    assert!(canonical.len() <= GROWTH * data.len() + 64);
    assert_eq!(canonical_json(&parsed(&canonical)), canonical, "canonical JSON is its own canonical form");
    assert_eq!(canonical_json(&reversed(&value)), canonical, "the order of names does not count");
    let _ = parsed(&javascript::stringify(&value));

    is_kept::<Control>(&value);
    is_kept::<Enqueued>(&value);
    is_kept::<Finished>(&value);
    is_kept::<JobObject>(&value);
    is_kept::<JobResult>(&value);
    is_kept::<Registration>(&value);
    is_kept::<Watch>(&value);
    is_kept::<DataRef>(&value);
    if let Some(reference) = DataRef::try_from_entry(&value) {
        let _ = reference.content();
    }
    let _ = Staged::from(PipeValue::Json(value.clone()));
    let _ = bytes::size_of(Some(&value));
    let _ = duration::limit_of(Some(&value));

    let Value::Object(fields) = value else { return };
    let definition = Definition(fields);
    let _ = (definition.requirements(), definition.tags());
    let text = canonical_definition(&definition);
    let id = job_id(&definition);
    assert!(id.is_digest());
    let Value::Object(again) = parsed(&text) else { panic!("a canonical definition is an object: {text}") };
    assert_eq!(canonical_definition(&Definition(again)), text, "a canonical definition names itself");
    let Value::Object(other_order) = reversed(&Value::Object(definition.0)) else { return };
    assert_eq!(job_id(&Definition(other_order)), id);
}

fn parsed(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => panic!("what was written is no JSON: {error}: {text}"),
    }
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(reversed).collect(),
        Value::Object(fields) => fields
            .iter()
            .rev()
            .map(|(name, value)| (name.clone(), reversed(value)))
            .collect::<Map<_, _>>()
            .into(),
        plain => plain.clone(),
    }
}

fn is_kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &Value) {
    let Ok(read) = T::deserialize(value) else { return };
    let Ok(written) = serde_json::to_value(&read) else { panic!("cannot be written: {read:?}") };
    assert_eq!(T::deserialize(&written).ok().as_ref(), Some(&read), "{written}");
}

/// Texts with a grammar of their own; the first letter says which.
pub fn text(data: &[u8]) {
    let Some((grammar, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match grammar {
        b'c' => command_text(text),
        b'd' => data_address(text),
        b'h' => fragment(text),
        b'q' => queue(text),
        b'r' => states(rest),
        b'u' => units(text),
        b'n' => names(text),
        _ => {}
    }
}

fn command_text(text: &str) {
    let Value::Object(env) = json!({"A": "one two", "B": "", "N": 5, "Q": "'\"$A"}) else { return };
    let longest = 8;
    if let Ok(argv) = command::parse(text, &env) {
        let total: usize = argv.args.iter().map(String::len).sum();
        assert!(total <= longest * text.len(), "{total} bytes of arguments from {text}");
        assert!(argv.taken_whole.is_none() || argv.args == [text], "the whole text is the one argument");
        let quotable = |word: &String| !word.contains(['\'', '\\']);
        if argv.taken_whole.is_none() && argv.args.iter().all(quotable) {
            let quoted: Vec<String> = argv.args.iter().map(|word| format!("'{word}'")).collect();
            assert_eq!(command::parse(&quoted.join(" "), &env), Ok(argv), "single quotes keep everything");
        }
    }
}

fn data_address(text: &str) {
    let _ = DataRef::from_data_url(text);
    if let Some(url) = DataUrl::parse(text) {
        let _ = (url.media_type(), url.is_json(), url.is_base64(), url.text(), url.json(), url.url());
        let _ = (url.parameters().count(), url.typed_array());
        if let Ok(bytes) = url.bytes() {
            assert!(bytes.len() <= text.len());
            let written = data_url::of_bytes("application/octet-stream", &bytes);
            let again = DataUrl::parse(&written).and_then(|url| url.bytes().ok());
            assert_eq!(again.as_ref(), Some(&bytes));
        }
    }
    let written = data_url::of_text(text);
    let read = DataUrl::parse(&written).and_then(|url| url.text().ok().map(|text| text.into_owned()));
    assert_eq!(read.as_deref(), Some(text));
    assert_eq!(uri::decode_component(&uri::encode_component(text)).as_deref(), Ok(text));
    assert_eq!(base64::decode(&base64::encode(text.as_bytes())).as_deref(), Ok(text.as_bytes()));
    let _ = (base64::decode(text), uri::decode_component(text));
}

fn fragment(text: &str) {
    let params = HashParams::parse(text);
    assert_eq!(params.to_string(), text, "an unchanged address stays as it is");
    let page = page_job(&params, "https://page.example", Source::Hash, []);
    if let Ok(job) = &page.job {
        assert_eq!(job_id(&job.definition), job.id);
    }
    let mut changed = params.clone();
    changed.set_base64("note", text);
    assert_eq!(changed.base64("note"), Ok(Some(text.to_owned()).filter(|text| !text.is_empty())));
    let others = |params: &HashParams| -> Vec<(String, String)> {
        let pairs = params.iter().filter(|(name, _)| *name != "note");
        let mut pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.sort();
        pairs
    };
    assert_eq!(others(&changed), others(&params), "setting one parameter leaves the others");
    let mut again = changed.clone();
    assert!(!again.set_base64("note", text), "setting what is set changes nothing");
}

fn queue(text: &str) {
    if let Some(url) = HttpUrl::parse(text) {
        assert!(url.path.starts_with('/') && url.origin.starts_with("http"), "{url:?}");
    }
    let Ok(address) = QueueAddress::resolve(text, "https://page.example") else { return };
    let key = address.key().reveal();
    let debug = format!("{address:?}");
    assert!(key.len() < 8 || address.api_origin().contains(key) || !debug.contains(key), "{debug}");
    assert!(address.websocket().starts_with("ws"));
    for address in [address.websocket(), address.jobs()] {
        // A host outside ASCII is the browser's to write down.
        let path = address.splitn(4, '/').nth(3).unwrap_or_default();
        assert!(path.is_ascii() && !address.contains(char::is_whitespace), "{address}");
    }
}

/// Two states and two times, as bytes: a standing result is taken away by deleting alone.
fn states(data: &[u8]) {
    let [held, arriving, times, rest @ ..] = data else { return };
    let worker = std::str::from_utf8(rest).unwrap_or("w");
    let standing = |byte: &u8| match byte % 12 {
        0 => Standing::Queued,
        1 => Standing::Running("w"),
        2 => Standing::Running(worker),
        3 => Standing::Finished(None),
        4 => Standing::Removed,
        5 => Standing::Unknown,
        6 => Standing::Finished(Some(FinishReason::Success)),
        7 => Standing::Finished(Some(FinishReason::Error)),
        8 => Standing::Finished(Some(FinishReason::TimedOut)),
        9 => Standing::Finished(Some(FinishReason::Cancelled)),
        10 => Standing::Finished(Some(FinishReason::WorkerLost)),
        _ => Standing::Finished(Some(FinishReason::Deleted)),
    };
    let at = |byte: &u8, time: u8| Candidate {
        standing: standing(byte),
        time: Timestamp::from_millis(time.into()),
    };
    let (held, arriving) = (at(held, times >> 4), at(arriving, times & 15));
    let _ = reference(&held, &arriving);
    let is_result =
        |of: Standing<'_>| matches!(of, Standing::Finished(Some(reason)) if reason.as_result().is_some());
    let deletes = matches!(
        arriving.standing,
        Standing::Finished(Some(FinishReason::Deleted) | None) | Standing::Removed | Standing::Unknown
    );
    if is_result(held.standing) && !deletes {
        assert_eq!(ours(&held, &arriving), Winner::Held, "{held:?} {arriving:?}");
    }
}

fn units(text: &str) {
    if let Ok(size) = bytes::parse(text) {
        assert_eq!(bytes::parse(&bytes::print(size)), Ok(size), "{text}");
    }
    if let Ok(span) = duration::parse_limit(text) {
        let printed = duration::print(span);
        if span.as_millis() > 0 {
            let again = duration::parse_limit(&printed).map(|span| span.as_secs_f64());
            let is_near =
                |again: f64| (again - span.as_secs_f64()).abs() <= 0.001 + span.as_secs_f64() * 1e-12;
            assert!(again.is_ok_and(is_near), "{text} {printed}");
        }
    }
    let _ = duration::forgets_its_unit(text);
    let _ = text.parse::<GpuOffer>();
    if let Ok(number) = text.parse::<f64>() {
        let written = crate::javascript::number::to_text(number);
        assert!(!number.is_finite() || written.parse() == Ok(number), "{number:?} {written}");
    }
}

fn names(text: &str) {
    if let Ok(id) = JobId::new(text) {
        assert!(id.as_str() == text && text.len() <= JobId::MAX_BYTES);
    }
    if let Ok(namespace) = Namespace::new(text) {
        assert_eq!(Namespace::new(namespace.as_str()), Ok(namespace));
    }
    if let Ok(key) = crate::QueueKey::new(text) {
        let printed = format!("{key:?} {}", key.digest());
        assert!(text.len() < 8 || !printed.contains(text), "{printed}");
    }
}

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_frames_holds() {
        seeds::of("frame").iter().for_each(|seed| frame(seed));
    }

    #[test]
    fn every_seed_of_jobs_holds() {
        seeds::of("job").iter().for_each(|seed| job(seed));
    }

    #[test]
    fn every_seed_of_texts_holds() {
        seeds::of("text").iter().for_each(|seed| text(seed));
    }
}
