//! The connection on which news come: one for all queues, made anew whenever it breaks.
//!
//! Whenever it could not hear for a moment it says so with [`News::Gap`], so that nobody relies on having heard all.

use std::collections::HashMap;
use std::time::Duration;

use dockframe_shared::QueueDigest;
use futures_util::StreamExt as _;
use redis::Client;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval_at, sleep, timeout};

use super::{keys, message};
use crate::store::news::News;

/// Connecting, or an answer, takes no longer on a server that is there.
const LIMIT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes is asked so often whether it is still one.
const ASK: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Channels named in one command.
const AT_ONCE: usize = 1000;

pub(super) enum Ask {
    /// Answered once news come.
    Subscribe(QueueDigest, oneshot::Sender<()>),
    Unsubscribe(QueueDigest),
}

pub(super) struct Subscriber {
    pub client: Client,
    /// Who this process is among others.
    pub process: String,
    pub asks: mpsc::UnboundedReceiver<Ask>,
    pub news: mpsc::Sender<News>,
}

/// Where the news go; says so when there was no room for some.
struct Outlet {
    news: mpsc::Sender<News>,
    has_gap: bool,
}

impl Outlet {
    fn put(&mut self, news: News) {
        if self.has_gap {
            self.has_gap = self.news.try_send(News::Gap).is_err();
        }
        if !self.has_gap && self.news.try_send(news).is_err() {
            self.has_gap = true;
        }
    }
}

enum Ended {
    /// The store is not used any more.
    Closed,
    Broken,
}

impl Subscriber {
    /// Runs until the store is dropped.
    pub(super) async fn run(mut self) {
        let mut wanted: HashMap<QueueDigest, usize> = HashMap::new();
        let mut outlet = Outlet { news: self.news.clone(), has_gap: false };
        let mut wait = FIRST_WAIT;
        loop {
            if let Some((sink, stream)) = self.connect(&wanted).await {
                wait = FIRST_WAIT;
                outlet.put(News::Gap);
                match self.listen(sink, stream, &mut wanted, &mut outlet).await {
                    Ended::Closed => return,
                    Ended::Broken => tracing::warn!("the connection for news of other relays broke"),
                }
            }
            if self.news.is_closed() {
                return;
            }
            // All relays lose their connections at the same moment; they need not come back at the same one.
            sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn connect(&self, wanted: &HashMap<QueueDigest, usize>) -> Option<(PubSubSink, PubSubStream)> {
        let connected = async {
            let (mut sink, stream) = self.client.get_async_pubsub().await?.split();
            let channels: Vec<String> = wanted.keys().map(|queue| keys::channel(*queue)).collect();
            for some in channels.chunks(AT_ONCE) {
                sink.subscribe(some).await?;
            }
            Ok::<_, redis::RedisError>((sink, stream))
        };
        match timeout(LIMIT, connected).await {
            Ok(Ok(connection)) => Some(connection),
            Ok(Err(error)) => {
                tracing::warn!(%error, "no connection for news of other relays");
                None
            }
            Err(_) => {
                tracing::warn!("no connection for news of other relays: no answer in {LIMIT:?}");
                None
            }
        }
    }

    async fn listen(
        &mut self,
        mut sink: PubSubSink,
        mut stream: PubSubStream,
        wanted: &mut HashMap<QueueDigest, usize>,
        outlet: &mut Outlet,
    ) -> Ended {
        let mut ask = interval_at(tokio::time::Instant::now() + ASK, ASK);
        loop {
            // Each branch is cancel-safe: what was not taken stays where it is.
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => self.heard(&message, outlet),
                    None => return Ended::Broken,
                },
                asked = self.asks.recv() => {
                    let Some(asked) = asked else { return Ended::Closed };
                    if timeout(LIMIT, change(&mut sink, asked, wanted)).await.is_err() {
                        return Ended::Broken;
                    }
                }
                _ = ask.tick() => {
                    if !matches!(timeout(LIMIT, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                        return Ended::Broken;
                    }
                }
            }
        }
    }

    fn heard(&self, message: &redis::Msg, outlet: &mut Outlet) {
        let Some(queue) = keys::queue_of_channel(message.get_channel_name()) else { return };
        match message::read(queue, message.get_payload_bytes(), &self.process) {
            Ok(Some(news)) => outlet.put(news),
            Ok(None) => {}
            Err(message::Unreadable) => {
                tracing::warn!(queue.hash = %queue, "news that this relay cannot read: the queue is read again");
                outlet.put(News::Gap);
            }
        }
    }
}

/// Subscribes for the first who wants a queue, and lets go of it after the last. A failure shows on the stream too.
async fn change(sink: &mut PubSubSink, asked: Ask, wanted: &mut HashMap<QueueDigest, usize>) {
    let outcome = match asked {
        // Whoever asked has given up by now.
        Ask::Subscribe(_, answer) if answer.is_closed() => return,
        Ask::Subscribe(queue, answer) => {
            let users = wanted.entry(queue).or_default();
            *users += 1;
            let outcome = if *users == 1 { sink.subscribe(keys::channel(queue)).await } else { Ok(()) };
            if (outcome.is_ok() && answer.send(()).is_err()) || outcome.is_err() {
                let _ = let_go(sink, queue, wanted).await;
            }
            outcome
        }
        Ask::Unsubscribe(queue) => let_go(sink, queue, wanted).await,
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, "a subscription could not be changed");
    }
}

async fn let_go(
    sink: &mut PubSubSink,
    queue: QueueDigest,
    wanted: &mut HashMap<QueueDigest, usize>,
) -> redis::RedisResult<()> {
    let Some(users) = wanted.get_mut(&queue) else { return Ok(()) };
    *users -= 1;
    if *users > 0 {
        return Ok(());
    }
    wanted.remove(&queue);
    sink.unsubscribe(keys::channel(queue)).await
}
