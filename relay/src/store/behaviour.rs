//! What every store promises: one suite, run on each of them, the real thing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LogKind, LogStep};
use dockframe_shared::{JobId, LeaseId, QueueDigest, QueueKey, Timestamp};
use tempfile::TempDir;

use super::embedded::{EmbeddedStore, OpenStoreError};
use super::redis::RedisStore;
use super::redis::redis_server::RedisServer;
use super::{ANY_REVISION, Commit, Committed, DocumentKey, Store, StoreWrite, Stored};
use crate::blobs::{LogStore, Logs};
use crate::queue::command::{Due, DueKind};
use crate::queue::view::Key;

/// Where a store lies, so that it can be opened again.
enum Place {
    Folder(TempDir),
    Server(RedisServer),
}

impl Place {
    async fn open(&self) -> Arc<dyn Store> {
        match self {
            // The writer of one that was just dropped lets go of the file a moment later.
            Self::Folder(folder) => loop {
                match EmbeddedStore::open(folder.path()) {
                    Ok(store) => return Arc::new(store),
                    Err(OpenStoreError::InUse { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            },
            Self::Server(server) => Arc::new(RedisStore::open(&server.address()).await.unwrap()),
        }
    }

    async fn logs(&self) -> Box<dyn Logs> {
        match self {
            Self::Folder(folder) => Box::new(LogStore::open(folder.path()).unwrap()),
            Self::Server(server) => Box::new(RedisStore::open(&server.address()).await.unwrap().logs()),
        }
    }

    /// Makes believe that it is long ago that these were named.
    async fn forget_naming(&self) {
        let Self::Server(server) = self else { return };
        let client = ::redis::Client::open(server.address()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        for key in keys {
            let _: i64 = ::redis::cmd("PERSIST").arg(key).query_async(&mut connection).await.unwrap();
        }
    }

    /// The store's process dies.
    fn crash(&mut self) {
        match self {
            // It died with whoever had it open.
            Self::Folder(_) => {}
            Self::Server(server) => {
                server.kill();
                server.start_again();
            }
        }
    }
}

/// A test for each store.
macro_rules! promises {
    ($($promise:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Place::Folder(tempfile::tempdir().unwrap())).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Place::Server(super::RedisServer::start())).await;
            })*
        }
    };
}

promises! {
    a_commit_writes_all_or_nothing
    exactly_one_of_many_wins_each_revision
    what_is_taken_away_is_absent_and_what_ended_is_not_live
    all_that_is_live_is_found_however_much_it_is
    one_queue_does_not_see_another
    what_was_acknowledged_survives_a_crash
    due_entries_come_in_their_order_when_their_time_has_come
    a_due_entry_goes_with_the_commit_that_dealt_with_it
    a_document_is_set_once_and_taken_away_only_as_it_is
    documents_come_with_a_commit_and_nothing_is_offered_without_one
    a_collection_finds_every_record_and_every_document
    what_is_named_while_it_is_collected_stays
    a_run_whose_lines_are_named_keeps_them
    lines_said_twice_are_there_once
    the_tail_of_a_long_log_is_kept_with_its_numbers
}

fn queue() -> QueueDigest {
    QueueKey::new("a very secret queue").unwrap().digest()
}

fn key(job: &str) -> Key {
    Key::Record(JobId::new(job).unwrap())
}

fn write(job: &str, expected: u64, revision: u64, bytes: &[u8]) -> StoreWrite {
    StoreWrite { key: key(job), expected, revision, bytes: Some(bytes.to_vec()), live: true }
}

fn commit(store: &dyn Store, writes: Vec<StoreWrite>) -> Commit {
    Commit {
        queue: queue(),
        at: store.clock().now(),
        writes,
        due: Vec::new(),
        done: Vec::new(),
        documents: Vec::new(),
        offers: Vec::new(),
    }
}

async fn a_commit_writes_all_or_nothing(place: Place) {
    let store = place.open().await;
    let first = commit(&*store, vec![write("a", 0, 1, b"one")]);
    assert_eq!(store.commit(first).await.unwrap(), Committed::Ok);

    let both =
        commit(&*store, vec![write("b", 0, 1, b"new"), write("a", 7, 8, b"two"), write("c", 4, 5, b"three")]);
    let Committed::Conflict(mut fresh) = store.commit(both).await.unwrap() else { panic!("no conflict") };
    fresh.sort_by(|(a, _), (b, _)| a.cmp(b));
    let one = Stored { revision: 1, bytes: b"one".to_vec() };
    assert_eq!(fresh, [(key("a"), Some(one.clone())), (key("c"), None)]);
    assert_eq!(store.read(queue(), key("b")).await.unwrap(), None);
    assert_eq!(store.live(queue()).await.unwrap(), [(key("a"), one)]);

    let any = commit(&*store, vec![write("a", ANY_REVISION, u64::MAX - 1, &[0, 255, b'\n'])]);
    assert_eq!(store.commit(any).await.unwrap(), Committed::Ok);
    let found = store.read(queue(), key("a")).await.unwrap().unwrap();
    assert_eq!((found.revision, found.bytes), (u64::MAX - 1, vec![0, 255, b'\n']));
}

async fn exactly_one_of_many_wins_each_revision(place: Place) {
    const WRITERS: usize = 64;
    const REVISIONS: u64 = 20;
    let store = place.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut won = Vec::new();
            let mut known = 0;
            while known < REVISIONS {
                let bytes = writer.to_string().into_bytes();
                let next = commit(&*store, vec![write("a", known, known + 1, &bytes)]);
                match store.commit(next).await.unwrap() {
                    Committed::Ok => {
                        known += 1;
                        won.push(known);
                    }
                    Committed::Conflict(fresh) => known = fresh[0].1.as_ref().unwrap().revision,
                }
            }
            won
        });
    }
    let mut won: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    assert_eq!(won, (1..=REVISIONS).collect::<Vec<_>>());
}

async fn what_is_taken_away_is_absent_and_what_ended_is_not_live(place: Place) {
    let store = place.open().await;
    let three = vec![write("a", 0, 1, b"x"), write("b", 0, 1, b"x"), write("c", 0, 1, b"x")];
    store.commit(commit(&*store, three)).await.unwrap();
    let ended = StoreWrite { live: false, ..write("a", 1, 2, b"ended") };
    let gone = StoreWrite { bytes: None, live: false, ..write("b", 1, 2, b"") };
    assert_eq!(store.commit(commit(&*store, vec![ended, gone])).await.unwrap(), Committed::Ok);
    assert_eq!(store.read(queue(), key("a")).await.unwrap().unwrap().bytes, b"ended");
    assert_eq!(store.read(queue(), key("b")).await.unwrap(), None);
    let live = store.live(queue()).await.unwrap();
    assert_eq!(live.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key("c")]);
    // Absent again: what is made anew expects nothing.
    let anew = commit(&*store, vec![write("b", 0, 9, b"anew")]);
    assert_eq!(store.commit(anew).await.unwrap(), Committed::Ok);
}

async fn all_that_is_live_is_found_however_much_it_is(place: Place) {
    let store = place.open().await;
    let jobs: Vec<String> = (0..2_500).map(|number| format!("job {number}")).collect();
    for some in jobs.chunks(250) {
        let writes = some.iter().map(|job| write(job, 0, 1, job.as_bytes())).collect();
        assert_eq!(store.commit(commit(&*store, writes)).await.unwrap(), Committed::Ok);
    }
    let live = store.live(queue()).await.unwrap();
    assert_eq!(live.len(), jobs.len());
    let found: HashSet<Vec<u8>> = live.into_iter().map(|(_, stored)| stored.bytes).collect();
    assert!(jobs.iter().all(|job| found.contains(job.as_bytes())));
}

async fn one_queue_does_not_see_another(place: Place) {
    let store = place.open().await;
    store.commit(commit(&*store, vec![write("a", 0, 1, b"one")])).await.unwrap();
    let other = QueueKey::new("another queue").unwrap().digest();
    assert_eq!(store.read(other, key("a")).await.unwrap(), None);
    assert_eq!(store.live(other).await.unwrap(), []);
    let there = Commit { queue: other, ..commit(&*store, vec![write("a", 0, 1, b"there")]) };
    assert_eq!(store.commit(there).await.unwrap(), Committed::Ok);
    assert_eq!(store.read(queue(), key("a")).await.unwrap().unwrap().bytes, b"one");
}

async fn what_was_acknowledged_survives_a_crash(mut place: Place) {
    let epoch = {
        let store = place.open().await;
        let commits = (0..50).map(|number| {
            let commit = commit(&*store, vec![write(&number.to_string(), 0, 1, b"one")]);
            store.commit(commit)
        });
        for outcome in futures_util::future::join_all(commits).await {
            assert_eq!(outcome.unwrap(), Committed::Ok);
        }
        store.epoch().to_owned()
    };
    place.crash();
    let store = place.open().await;
    assert_eq!(store.live(queue()).await.unwrap().len(), 50);
    assert_eq!(store.epoch(), epoch);
}

fn look(at: Timestamp, job: &str) -> Due {
    Due { at, what: DueKind::Look, job: JobId::new(job).unwrap() }
}

async fn due_entries_come_in_their_order_when_their_time_has_come(place: Place) {
    let store = place.open().await;
    let now = store.clock().now();
    let at = |millis| now.plus_millis(millis);
    let due = vec![look(at(-10), "c"), look(at(400), "d"), look(at(-30), "a"), look(at(-20), "b")];
    store.commit(Commit { due, ..commit(&*store, Vec::new()) }).await.unwrap();
    let elsewhere = QueueKey::new("another queue").unwrap().digest();
    let due = vec![Due { what: DueKind::Share, ..look(at(-25), "e") }];
    store.commit(Commit { queue: elsewhere, due, ..commit(&*store, Vec::new()) }).await.unwrap();

    let names = async |until, limit| -> Vec<(String, QueueDigest)> {
        let found = store.due(until, limit).await.unwrap();
        found.into_iter().map(|entry| (entry.due.job.as_str().to_owned(), entry.queue)).collect()
    };
    let all = ["a", "e", "b", "c"].map(|job| (job.to_owned(), if job == "e" { elsewhere } else { queue() }));
    assert_eq!(names(now, 10).await, all);
    assert_eq!(names(now, 2).await, all[..2]);
    // Whoever asks before the time gets nothing, again and again; then the entry is there.
    let mut found = names(store.clock().now(), 10).await;
    while found.len() == 4 {
        assert!(store.clock().now() < at(5_000), "it never comes");
        tokio::time::sleep(Duration::from_millis(20)).await;
        found = names(store.clock().now(), 10).await;
    }
    assert_eq!(found[4].0, "d");
    assert!(store.clock().now() >= at(395));
}

async fn a_due_entry_goes_with_the_commit_that_dealt_with_it(place: Place) {
    let store = place.open().await;
    let now = store.clock().now();
    let due = vec![look(now, "a"), look(now.plus_millis(-5), "a"), look(now, "b")];
    store.commit(Commit { due, ..commit(&*store, Vec::new()) }).await.unwrap();
    // Not with one that is refused.
    let done = vec![look(now, "a")];
    let refused = Commit { done: done.clone(), ..commit(&*store, vec![write("x", 3, 4, b"")]) };
    assert!(matches!(store.commit(refused).await.unwrap(), Committed::Conflict(_)));
    assert_eq!(store.due(now, 10).await.unwrap().len(), 3);
    store.commit(Commit { done, ..commit(&*store, vec![write("x", 0, 1, b"")]) }).await.unwrap();
    let left: Vec<Due> = store.due(now, 10).await.unwrap().into_iter().map(|entry| entry.due).collect();
    assert_eq!(left, [look(now.plus_millis(-5), "a"), look(now, "b")]);
}

fn shared(job: &str) -> DocumentKey {
    DocumentKey::Shared(JobId::new(job).unwrap())
}

/// With a commit that does nothing else.
async fn set(store: &dyn Store, key: DocumentKey, bytes: &[u8]) {
    let commit = Commit { documents: vec![(key, bytes.to_vec())], ..commit(store, Vec::new()) };
    assert_eq!(store.commit(commit).await.unwrap(), Committed::Ok);
}

async fn a_document_is_set_once_and_taken_away_only_as_it_is(place: Place) {
    let store = place.open().await;
    assert_eq!(store.document(shared("a")).await.unwrap(), None);
    set(&*store, shared("a"), b"first").await;
    set(&*store, shared("a"), b"second").await;
    assert_eq!(store.document(shared("a")).await.unwrap().as_deref(), Some(&b"first"[..]));
    assert!(!store.remove_document(shared("a"), Some(b"second".to_vec())).await.unwrap());
    assert!(store.remove_document(shared("a"), Some(b"first".to_vec())).await.unwrap());
    assert_eq!(store.document(shared("a")).await.unwrap(), None);
    let run = DocumentKey::Result(LeaseId::new("run").unwrap());
    set(&*store, run.clone(), &[0, 255]).await;
    assert!(store.remove_document(run.clone(), None).await.unwrap());
    assert!(!store.remove_document(run, None).await.unwrap());
    let own = |job: &str| DocumentKey::OwnDefinition(queue(), JobId::new(job).unwrap());
    set(&*store, own("a"), b"own").await;
    let common = DocumentKey::Definition(JobId::new("a").unwrap());
    assert_eq!(store.document(common).await.unwrap(), None);
}

async fn documents_come_with_a_commit_and_nothing_is_offered_without_one(place: Place) {
    let store = place.open().await;
    let with = |store: &dyn Store, expected, text: &str| Commit {
        documents: vec![(DocumentKey::Definition(JobId::new("a").unwrap()), text.as_bytes().to_vec())],
        offers: vec![(shared("a"), text.as_bytes().to_vec())],
        ..commit(store, vec![write("a", expected, expected + 1, b"")])
    };
    assert!(matches!(store.commit(with(&*store, 5, "refused")).await.unwrap(), Committed::Conflict(_)));
    assert_eq!(store.document(shared("a")).await.unwrap(), None);
    for (expected, text) in [(0, "first"), (1, "second")] {
        assert_eq!(store.commit(with(&*store, expected, text)).await.unwrap(), Committed::Ok);
        assert_eq!(store.document(shared("a")).await.unwrap().unwrap(), b"first");
    }
    assert!(store.document(DocumentKey::Definition(JobId::new("a").unwrap())).await.unwrap().is_some());
}

fn definition(job: &str) -> DocumentKey {
    DocumentKey::Definition(JobId::new(job).unwrap())
}

async fn all_entries(store: &dyn Store) -> HashSet<(QueueDigest, Key)> {
    let (mut found, mut after) = (HashSet::new(), None);
    loop {
        let page = store.collect().entries(after, 7).await.unwrap();
        found.extend(page.items.into_iter().map(|(queue, key, _)| (queue, key)));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn all_documents(store: &dyn Store) -> HashSet<Vec<u8>> {
    let (mut found, mut after) = (HashSet::new(), None);
    loop {
        let page = store.collect().documents(after, 7).await.unwrap();
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn a_collection_finds_every_record_and_every_document(place: Place) {
    let store = place.open().await;
    let other = QueueKey::new("another").unwrap().digest();
    let mut entries = HashSet::new();
    let mut documents = HashSet::new();
    for number in 0..50 {
        let job = format!("job{number}");
        let queue = if number % 2 == 0 { queue() } else { other };
        let key = match number % 5 {
            0 => Key::Worker(dockframe_shared::WorkerId::new(&job).unwrap()),
            _ => key(&job),
        };
        let document = match number % 4 {
            0 => definition(&job),
            1 => DocumentKey::OwnDefinition(queue, JobId::new(&job).unwrap()),
            2 => DocumentKey::Home(JobId::new(&job).unwrap()),
            _ => DocumentKey::Result(LeaseId::new(&job).unwrap()),
        };
        let live = number % 3 == 0;
        let write = StoreWrite { key: key.clone(), expected: 0, revision: 1, bytes: Some(vec![1]), live };
        let documents_of = vec![(document.clone(), vec![2]), (shared(&job), vec![3])];
        let commit = Commit { queue, documents: documents_of, ..commit(&*store, vec![write]) };
        assert_eq!(store.commit(commit).await.unwrap(), Committed::Ok);
        entries.insert((queue, key));
        documents.insert(store.collect().name_of(&document));
    }
    // Things of other kinds are none of its business.
    let slot = Key::Slot(dockframe_shared::Namespace::new("n").unwrap());
    let slot = StoreWrite { key: slot, expected: 0, revision: 1, bytes: Some(vec![1]), live: true };
    store.commit(commit(&*store, vec![slot])).await.unwrap();
    assert_eq!(all_entries(&*store).await, entries);
    assert_eq!(all_documents(&*store).await, documents);
    assert!(store.collect().count().await.unwrap() >= 50);
}

/// Submissions and a collection run against each other: no record is left without its document.
async fn what_is_named_while_it_is_collected_stays(place: Place) {
    const JOBS: usize = 30;
    let store = place.open().await;
    let job = |round: usize, number: usize| format!("job-{round}-{number}");
    for round in 0..8 {
        for number in 0..JOBS {
            set(&*store, definition(&job(round, number)), b"left behind").await;
        }
        place.forget_naming().await;
        store.collect().begin();
        let since = store.clock().now();
        let submitting = async {
            for number in (0..JOBS).step_by(2) {
                let job = job(round, number);
                let documents = vec![(definition(&job), b"anew".to_vec())];
                let commit = Commit { documents, ..commit(&*store, vec![write(&job, 0, 1, b"")]) };
                assert_eq!(store.commit(commit).await.unwrap(), Committed::Ok);
            }
            // And one that is only named, as a result that answers in another queue: it is told whether it is there.
            assert!(!store.collect().name(definition("nowhere")).await.unwrap());
            store.collect().name(definition(&job(round, 1))).await.unwrap()
        };
        let collecting = async {
            store.collect().settle().await.unwrap();
            let needed = all_entries(&*store).await;
            let is_needed = |number: &usize| needed.contains(&(queue(), key(&job(round, *number))));
            let left = (0..JOBS).filter(|number| !is_needed(number));
            let names = left.map(|number| store.collect().name_of(&definition(&job(round, number))));
            store.collect().remove_unnamed(names.collect(), since).await.unwrap()
        };
        let (was_there, _) = tokio::join!(submitting, collecting);
        // What was named is not taken in the same collection, whenever it was named in it.
        let again = (0..JOBS).map(|number| store.collect().name_of(&definition(&job(round, number))));
        store.collect().remove_unnamed(again.collect(), since).await.unwrap();
        store.collect().end();
        for number in 0..JOBS {
            let is_there = store.document(definition(&job(round, number))).await.unwrap().is_some();
            let wanted = number % 2 == 0 || (number == 1 && was_there);
            assert_eq!(is_there, wanted, "{round} {number}");
        }
    }
}

async fn a_run_whose_lines_are_named_keeps_them(place: Place) {
    let logs = place.logs().await;
    let runs = ["kept", "gone"].map(|run| LeaseId::new(run).unwrap());
    for run in &runs {
        logs.append(run, &LogStep::Running, Some(0), lines(0, 3)).await.unwrap();
    }
    let named = async |after| {
        let (mut found, mut after): (Vec<String>, Option<Vec<u8>>) = (Vec::new(), after);
        loop {
            let page = logs.runs(after, 10).await.unwrap();
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                found.sort();
                found.dedup();
                return found;
            }
        }
    };
    let mut names = runs.each_ref().map(crate::blobs::run_name).to_vec();
    names.sort();
    assert_eq!(named(None).await, names);
    place.forget_naming().await;
    // Times of files are kept to the millisecond or so.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let since = crate::clock::Clock::start().now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    logs.name(&runs[0]).await.unwrap();
    assert_eq!(logs.remove_unnamed(names.clone(), since).await.unwrap(), 1);
    assert_eq!(logs.remove_unnamed(names, since).await.unwrap(), 0);
    for (run, total) in runs.iter().zip([3, 0]) {
        assert_eq!(logs.read(run, LogKind::Run, 0, 10).await.unwrap().total, total);
    }
}

fn lines(from: u64, count: u64) -> Vec<LogLine> {
    let line = |number| LogLine {
        text: format!("{number}\n"),
        time: Timestamp::from_millis(1),
        is_stderr: number % 2 == 0,
    };
    (from..from + count).map(line).collect()
}

async fn lines_said_twice_are_there_once(place: Place) {
    let logs = place.logs().await;
    let run = LeaseId::new("lease").unwrap();
    let append = async |step: LogStep, from, lines| logs.append(&run, &step, from, lines).await.unwrap();
    assert_eq!(append(LogStep::Running, Some(0), lines(0, 5)).await, lines(0, 5));
    assert_eq!(append(LogStep::Running, Some(2), lines(2, 3)).await, []);
    assert_eq!(append(LogStep::Running, Some(3), lines(3, 4)).await, lines(5, 2));
    assert_eq!(append(LogStep::Running, None, lines(7, 1)).await, lines(7, 1));
    assert_eq!(append(LogStep::Build, Some(0), lines(0, 1)).await, lines(0, 1));
    let found = logs.read(&run, LogKind::Run, 0, usize::MAX).await.unwrap();
    assert_eq!((found.start, found.total), (0, 8));
    assert_eq!(found.lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), lines(0, 8));
    let some = logs.read(&run, LogKind::Run, 3, 2).await.unwrap();
    assert_eq!((some.start, some.lines.len(), some.total), (3, 2, 8));
    let none = logs.read(&run, LogKind::Run, 8, 2).await.unwrap();
    assert_eq!((none.start, none.lines.len(), none.total), (8, 0, 8));
    assert_eq!(logs.read(&run, LogKind::Build, 0, 9).await.unwrap().lines[0].0, LogStep::Build);
}

async fn the_tail_of_a_long_log_is_kept_with_its_numbers(place: Place) {
    let logs = place.logs().await;
    let run = LeaseId::new("lease").unwrap();
    for start in (0..23_500).step_by(2_350) {
        logs.append(&run, &LogStep::Running, Some(start), lines(start, 2_350)).await.unwrap();
    }
    let found = logs.read(&run, LogKind::Run, 0, usize::MAX).await.unwrap();
    assert_eq!((found.start, found.total), (13_500, 23_500));
    assert_eq!(found.lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), lines(13_500, 10_000));
    logs.remove(&run).await.unwrap();
    assert_eq!(logs.read(&run, LogKind::Run, 0, 9).await.unwrap().total, 0);
}
