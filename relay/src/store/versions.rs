//! Data of every format that there was is read for ever: `tests/data/store-N` holds what a program of format N wrote
//! (`tests/api/versions` made it), in both stores, and is never written again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dockframe_shared::{JobId, QueueDigest, QueueKey, WorkerId};

use super::embedded::EmbeddedStore;
use super::redis::RedisStore;
use super::redis::redis_server::RedisServer;
use super::{DocumentKey, Store};
use crate::queue::record::{EndReason, Phase, Record, Source};
use crate::queue::service::SharedRecord;
use crate::queue::view::{Entry, Key};
use crate::store::codec::{decode, decode_entry, encode_entry};

/// All formats so far.
const FORMATS: [u32; 1] = [1];

fn sample(format: u32, store: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/store-{format}/{store}"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[tokio::test]
async fn an_embedded_store_of_every_earlier_format_is_read() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        copy(&sample(format, "embedded"), folder.path());
        holds_everything(&EmbeddedStore::open(folder.path()).unwrap()).await;
    }
}

#[tokio::test]
async fn a_redis_of_every_earlier_format_is_read() {
    for format in FORMATS {
        let server = RedisServer::start_from(|folder| copy(&sample(format, "redis"), folder));
        holds_everything(&RedisStore::open(&server.address()).await.unwrap()).await;
    }
}

/// What the sample holds is what was written into it.
async fn holds_everything(store: &dyn Store) {
    let queue = |name: &str| QueueKey::new(name).unwrap().digest();
    let (mut entries, mut after) = (HashMap::new(), None);
    loop {
        let page = store.collect().entries(after, 100).await.unwrap();
        for (queue, key, stored) in page.items {
            let entry = decode_entry(&key, &stored.bytes).unwrap();
            // What nothing changes is written again as it was.
            assert_eq!(encode_entry(&entry).unwrap(), stored.bytes, "{key:?}");
            entries.insert((queue, key), entry);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let record = |queue: QueueDigest, job: &str| -> Record {
        match entries.get(&(queue, Key::Record(JobId::new(job).unwrap()))) {
            Some(Entry::Record(record)) => (**record).clone(),
            other => panic!("{job}: {other:?}"),
        }
    };
    let text = async |key: DocumentKey| {
        let bytes = store.document(key.clone()).await.unwrap();
        String::from_utf8(bytes.unwrap_or_else(|| panic!("{key:?} is missing"))).unwrap()
    };

    let waiting = record(queue("sample"), "waiting");
    assert!(matches!(waiting.phase, Phase::Waiting { expired: None }));
    assert_eq!(waiting.priority(), 3);
    let holder = waiting.holders.values().next().unwrap();
    assert_eq!(holder.max_duration.as_deref(), Some("5m"));
    assert!(holder.finished_callback.is_some() && !waiting.verified);
    assert_eq!((waiting.needs.cpus, waiting.needs.memory_bytes), (Some(2.0), crate::limits::bytes("4G")));
    assert_eq!(waiting.needs.tags, ["eu"]);
    let own = DocumentKey::OwnDefinition(queue("sample"), JobId::new("waiting").unwrap());
    assert!(text(own).await.contains("\"command\":\"waiting\""));

    let Phase::Held(lease) = record(queue("sample"), "running").phase else { panic!("it ran") };
    assert_eq!((lease.worker.as_str(), lease.attempt), ("w", 1));
    let Phase::LetGo(let_go) = record(queue("sample"), "cancelled").phase else { panic!("it was let go") };
    assert_eq!((let_go.why, let_go.message.as_deref()), (EndReason::Cancelled, Some("why")));
    let finished = record(queue("sample"), "finished");
    let Some(Source::Run(run)) = finished.outcome().map(|outcome| outcome.source.clone()) else {
        panic!("it had a result")
    };
    assert!(text(DocumentKey::Result(run)).await.contains("the end"));
    let worker = Key::Worker(WorkerId::new("w").unwrap());
    assert!(matches!(entries.get(&(queue("sample"), worker)), Some(Entry::Worker(_))));

    // The same job in two queues: run in one, answered in the other.
    let verified = dockframe_shared::job::digest::job_id(&serde_json::from_str(r#"{"image":"a"}"#).unwrap());
    let shared = store.document(DocumentKey::Shared(verified.clone())).await.unwrap().unwrap();
    let shared: SharedRecord = decode(&shared).unwrap();
    assert!(shared.verified && shared.queue == *queue("sample").as_bytes());
    let answered = record(queue("another"), verified.as_str());
    assert_eq!(answered.outcome().unwrap().source, Source::Shared(shared.run));
    assert_eq!(text(DocumentKey::Definition(verified.clone())).await, r#"{"image":"a"}"#);
    let home = store.document(DocumentKey::Home(verified)).await.unwrap();
    assert_eq!(home.as_deref(), Some(&queue("sample").as_bytes()[..]));

    // What was live then is in the index, and what was due is due.
    let live = store.live(queue("sample")).await.unwrap();
    assert!(live.iter().any(|(key, _)| *key == Key::Record(JobId::new("waiting").unwrap())));
    let much_later = store.clock().now().plus_millis(365 * 24 * 3_600_000);
    let due = store.due(much_later, 1000).await.unwrap();
    assert!(due.iter().any(|entry| entry.queue == queue("sample")), "{due:?}");
}
