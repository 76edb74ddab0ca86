//! What the Redis store promises beyond the common suite: news, the server's clock, and what happens when the server
//! goes away.

use dockframe_shared::{JobId, LeaseId, QueueKey};
use tokio::time::timeout;

use super::commit::LONGEST_PUBLISHED;
use super::redis_server::RedisServer;
use super::*;
use crate::queue::command::{Due, DueKind};
use crate::store::StoreWrite;
use crate::store::news::{Value as Told, Written};

const SOON: Duration = Duration::from_secs(20);

fn queue() -> QueueDigest {
    QueueKey::new("a canary queue").unwrap().digest()
}

fn key(job: &str) -> Key {
    Key::Record(JobId::new(job).unwrap())
}

fn commit(store: &RedisStore, job: &str, expected: u64, bytes: &[u8]) -> Commit {
    Commit {
        queue: queue(),
        at: store.clock.now(),
        writes: vec![StoreWrite {
            key: key(job),
            expected,
            revision: expected + 1,
            bytes: Some(bytes.to_vec()),
            live: true,
        }],
        due: Vec::new(),
        done: Vec::new(),
        documents: Vec::new(),
        offers: Vec::new(),
    }
}

async fn next(news: &mut mpsc::Receiver<News>) -> News {
    timeout(SOON, news.recv()).await.expect("no news came").unwrap()
}

/// The next that is no hint to read again.
async fn next_told(news: &mut mpsc::Receiver<News>) -> News {
    loop {
        match next(news).await {
            News::Gap => {}
            told => return told,
        }
    }
}

#[tokio::test]
async fn a_commit_is_heard_of_by_the_others_and_counted_by_its_own() {
    let server = RedisServer::start();
    let (one, two) = (
        RedisStore::open(&server.address()).await.unwrap(),
        RedisStore::open(&server.address()).await.unwrap(),
    );
    let (mut first, mut second) = (one.news().unwrap(), two.news().unwrap());
    assert!(two.news().is_none(), "there is one stream");
    for store in [&one, &two] {
        store.subscribe(queue()).await.unwrap();
    }
    one.commit(commit(&one, "a", 0, b"one")).await.unwrap();
    let long = vec![7; LONGEST_PUBLISHED + 1];
    one.commit(commit(&one, "b", 0, &long)).await.unwrap();

    assert_eq!(next_told(&mut first).await, News::Commit { queue: queue(), count: 1, writes: Vec::new() });
    let told = |job: &str, value| vec![Written { key: key(job), revision: 1, value }];
    let value = Told::Is { bytes: b"one".to_vec(), live: true };
    assert_eq!(
        next_told(&mut second).await,
        News::Commit { queue: queue(), count: 1, writes: told("a", value) }
    );
    let news = News::Commit { queue: queue(), count: 2, writes: told("b", Told::Read) };
    assert_eq!(next_told(&mut second).await, news);
    assert_eq!(one.counts(vec![queue(), QueueKey::new("x").unwrap().digest()]).await.unwrap(), [2, 0]);

    let notice = Notice::Lines { job: JobId::new("a").unwrap(), message: String::new() };
    one.tell(queue(), notice.clone()).await;
    assert_eq!(
        next_told(&mut second).await,
        News::Notice { queue: queue(), process: one.process.clone(), notice }
    );
}

#[tokio::test]
async fn news_come_for_as_long_as_somebody_wants_them() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.address()).await.unwrap();
    let other = RedisStore::open(&server.address()).await.unwrap();
    let mut news = store.news().unwrap();
    store.subscribe(queue()).await.unwrap();
    store.subscribe(queue()).await.unwrap();
    store.unsubscribe(queue());
    let listened = QueueKey::new("another").unwrap().digest();
    store.subscribe(listened).await.unwrap();
    let asked = |queue| News::Notice { queue, process: other.process.clone(), notice: Notice::WhoIsThere };
    other.tell(queue(), Notice::WhoIsThere).await;
    assert_eq!(next_told(&mut news).await, asked(queue()));
    store.unsubscribe(queue());
    // Asks are dealt with one after the other: when this one is, the one before is.
    store.subscribe(listened).await.unwrap();
    other.tell(queue(), Notice::WhoIsThere).await;
    other.tell(listened, Notice::WhoIsThere).await;
    assert_eq!(next_told(&mut news).await, asked(listened));
}

#[tokio::test]
async fn nothing_is_acknowledged_while_the_server_is_away_and_all_goes_on_after_it() {
    let mut server = RedisServer::start();
    let store = RedisStore::open(&server.address()).await.unwrap();
    let mut news = store.news().unwrap();
    store.subscribe(queue()).await.unwrap();
    store.commit(commit(&store, "a", 0, b"before")).await.unwrap();
    assert!(matches!(next_told(&mut news).await, News::Commit { count: 1, .. }));
    server.kill();
    for _ in 0..3 {
        let outcome = timeout(SOON, store.commit(commit(&store, "b", 0, b"meanwhile"))).await.unwrap();
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert!(store.live(queue()).await.is_err());
    }
    server.start_again();
    let outcome = async {
        loop {
            // The script has to be loaded anew, too.
            match store.commit(commit(&store, "b", 0, b"after")).await {
                Ok(outcome) => return outcome,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    assert_eq!(timeout(SOON, outcome).await.unwrap(), Committed::Ok);
    assert_eq!(store.live(queue()).await.unwrap().len(), 2);
    assert_eq!(next(&mut news).await, News::Gap, "something may have been missed");
    store.commit(commit(&store, "c", 0, b"after")).await.unwrap();
    assert!(
        matches!(next_told(&mut news).await, News::Commit { count: 2.., .. }),
        "the subscription is back"
    );
}

#[tokio::test]
async fn a_decision_of_another_time_does_not_count() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.address()).await.unwrap();
    let now = store.clock.now();
    for off in [-MOST_LATE_MS - 1_000, MOST_LATE_MS + 1_000] {
        let late = Commit { at: now.plus_millis(off), ..commit(&store, "a", 0, b"late") };
        assert_eq!(store.commit(late).await.unwrap(), Committed::Conflict(Vec::new()));
        assert_eq!(store.read(queue(), key("a")).await.unwrap(), None);
    }
    // A process whose clock is wrong learns the server's and decides anew.
    store.clock.learn(now.plus_millis(-60_000), Instant::now());
    let wrong = commit(&store, "a", 0, b"wrong clock");
    assert_eq!(store.commit(wrong).await.unwrap(), Committed::Conflict(Vec::new()));
    assert_eq!(store.commit(commit(&store, "a", 0, b"right clock")).await.unwrap(), Committed::Ok);
    // And nothing is due before the server's time, whatever a process believes.
    let due = Due { at: now.plus_millis(3_600_000), what: DueKind::Look, job: JobId::new("a").unwrap() };
    store.commit(Commit { due: vec![due], ..commit(&store, "b", 0, b"") }).await.unwrap();
    assert_eq!(store.due(now.plus_millis(7_200_000), 10).await.unwrap(), []);
}

#[tokio::test]
async fn the_index_forgets_minutes_that_are_over_and_no_others() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.address()).await.unwrap();
    let now = store.clock.now();
    let members = async || -> Vec<String> {
        let mut range = cmd("ZRANGE");
        range.arg(keys::bucket_of(queue())).arg(0).arg(-1);
        store.ask(range).await.unwrap()
    };
    let due = Due { at: now, what: DueKind::Look, job: JobId::new("a").unwrap() };
    store.commit(Commit { due: vec![due.clone()], ..commit(&store, "a", 0, b"") }).await.unwrap();
    let old = now.plus_millis(-300_000);
    let mut add = cmd("ZADD");
    add.arg(keys::bucket_of(queue())).arg(old.as_millis()).arg(keys::minute(queue(), old));
    let _: i64 = store.ask(add).await.unwrap();
    assert_eq!(store.due(now, 10).await.unwrap().len(), 1);
    assert_eq!(members().await.len(), 2, "something is due in the queue");
    store.commit(Commit { done: vec![due], ..commit(&store, "a", 1, b"") }).await.unwrap();
    assert_eq!(store.due(now, 10).await.unwrap(), []);
    let left = members().await;
    assert_eq!(left.len(), 1, "a commit may still count on this minute");
    assert_ne!(left[0], keys::minute(queue(), old), "this one is over");
}

#[tokio::test]
async fn a_log_is_bounded_in_bytes_too() {
    use crate::blobs::Logs as _;
    use dockframe_shared::job::LogLine;
    use dockframe_shared::protocol::{LogKind, LogStep};
    let server = RedisServer::start();
    let logs = RedisStore::open(&server.address()).await.unwrap().logs();
    let run = LeaseId::new("run").unwrap();
    let line = LogLine { text: "x".repeat(60_000), time: Timestamp::default(), is_stderr: false };
    for from in (0..600).step_by(100) {
        logs.append(&run, &LogStep::Running, Some(from), vec![line.clone(); 100]).await.unwrap();
    }
    let found = logs.read(&run, LogKind::Run, 0, usize::MAX).await.unwrap();
    assert_eq!(found.total, 600);
    assert_eq!(found.start + found.lines.len() as u64, 600);
    assert!((250..300).contains(&found.lines.len()), "{}", found.lines.len());
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused_with_a_sentence() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.address()).await.unwrap();
    let mut set = cmd("SET");
    set.arg(keys::FORMAT).arg(FORMAT + 1);
    let _: String = store.ask(set).await.unwrap();
    let error = RedisStore::open(&server.address()).await.unwrap_err();
    assert!(error.to_string().contains("use a newer dockframe"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_its_password() {
    let error = RedisStore::open("redis://user:swordfish@127.0.0.1:1").await.unwrap_err();
    let told = format!("{error} {}", crate::error::chain(&error));
    assert!(told.contains("127.0.0.1:1") && !told.contains("swordfish"), "{told}");
    let error = RedisStore::open("rediss://host").await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[tokio::test]
async fn no_queue_name_reaches_the_server() {
    let mut server = RedisServer::start();
    let store = RedisStore::open(&server.address()).await.unwrap();
    let due = Due { at: store.clock.now(), what: DueKind::Look, job: JobId::new("a").unwrap() };
    let documents = vec![(DocumentKey::OwnDefinition(queue(), JobId::new("a").unwrap()), b"x".to_vec())];
    store.commit(Commit { due: vec![due], documents, ..commit(&store, "a", 0, b"one") }).await.unwrap();
    server.kill();
    let mut bytes = 0;
    let mut folders = vec![server.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = std::fs::read(path).unwrap();
            assert!(!content.windows(6).any(|window| window == b"canary"));
            bytes += content.len();
        }
    }
    assert!(bytes > 100);
}
