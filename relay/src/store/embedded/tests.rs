use dockframe_shared::{JobId, QueueKey};

use super::*;
use crate::queue::command::{Due, DueKind};

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
async fn a_commit_writes_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    assert_eq!(store.commit(commit(vec![write("a", 0, 1, b"one")])).await.unwrap(), Committed::Ok);

    let both = commit(vec![write("b", 0, 1, b"new"), write("a", 7, 8, b"two")]);
    let Committed::Conflict(fresh) = store.commit(both).await.unwrap() else { panic!("no conflict") };
    assert_eq!(fresh.len(), 1);
    assert_eq!(fresh[0].1, Some(Stored { revision: 1, bytes: b"one".to_vec() }));
    let absent = store.read(queue(), Key::Record(JobId::new("b").unwrap())).await.unwrap();
    assert_eq!(absent, None);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let epoch = {
        let store = EmbeddedStore::open(folder.path()).unwrap();
        store.commit(commit(vec![write("a", 0, 1, b"one")])).await.unwrap();
        store.epoch().to_owned()
    };
    let store = EmbeddedStore::open(folder.path()).unwrap();
    assert_eq!(store.live(queue()).await.unwrap().len(), 1);
    assert_eq!(store.epoch(), epoch);
}

#[tokio::test]
async fn due_entries_come_in_order_of_time_and_go_with_their_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let due = |at, job: &str| Due {
        at: Timestamp::from_millis(at),
        what: DueKind::Look,
        job: JobId::new(job).unwrap(),
    };
    let entries = vec![due(300, "c"), due(100, "a"), due(200, "b")];
    store.commit(Commit { due: entries, ..commit(Vec::new()) }).await.unwrap();
    let found = store.due(Timestamp::from_millis(200), 10).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.due.at.as_millis()).collect::<Vec<_>>(), [100, 200]);
    store.commit(Commit { done: vec![due(100, "a")], ..commit(Vec::new()) }).await.unwrap();
    assert_eq!(store.due(Timestamp::from_millis(200), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_document_is_set_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let key = || DocumentKey::Shared(JobId::new("a").unwrap());
    assert_eq!(store.set_document(key(), b"first".to_vec()).await.unwrap(), b"first");
    assert_eq!(store.set_document(key(), b"second".to_vec()).await.unwrap(), b"first");
    assert!(!store.remove_document(key(), Some(b"second".to_vec())).await.unwrap());
    assert!(store.remove_document(key(), Some(b"first".to_vec())).await.unwrap());
    assert_eq!(store.document(key()).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    {
        let database = Database::create(folder.path().join("queues.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", "99").unwrap();
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
