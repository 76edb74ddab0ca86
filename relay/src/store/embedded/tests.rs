//! What the embedded store promises beyond the common suite.

use dockframe_shared::{JobId, QueueKey};

use super::*;
use crate::store::StoreWrite;

fn queue() -> QueueDigest {
    QueueKey::new("a very secret queue").unwrap().digest()
}

fn write(job: &str, expected: u64, revision: u64, bytes: &[u8]) -> StoreWrite {
    let key = Key::Record(JobId::new(job).unwrap());
    StoreWrite { key, expected, revision, bytes: Some(bytes.to_vec()), live: true }
}

fn commit(writes: Vec<StoreWrite>) -> Commit {
    Commit {
        queue: queue(),
        at: Timestamp::default(),
        writes,
        due: Vec::new(),
        done: Vec::new(),
        documents: Vec::new(),
        offers: Vec::new(),
    }
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    {
        let database = Database::create(folder.path().join("queues.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(format::META).unwrap().insert("format", "99").unwrap();
        transaction.commit().unwrap();
    }
    let error = EmbeddedStore::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("use a newer dockframe"), "{error}");
}

#[tokio::test]
async fn no_queue_name_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    store.commit(commit(vec![write("a", 0, 1, b"one")])).await.unwrap();
    let bytes = std::fs::read(folder.path().join("queues.redb")).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"very secret"));
}
