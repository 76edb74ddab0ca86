//! One socket: frames in, in order where it counts; what its outbox holds out; both at once, so that neither waits for
//! the other.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use dockframe_shared::protocol::{CLOSE_BACK_SOON, CLOSE_ID_TAKEN, CLOSE_RESTART};
use futures_util::future::join_all;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::queue::outbox::{Closing, Outbox, Parcel};

/// Looked at so often: a peer that said nothing since is asked for a sign of life.
/// Shorter than the 10 s within which old peers want a list.
const ASK: Duration = Duration::from_secs(9);
const GONE_MS: i64 = 30_000;
/// How long the words of parting may take.
const PARTING: Duration = Duration::from_secs(1);
/// A peer that takes longer for one frame does not read.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// Text frames taken up together, if they are there: so many, and no more once they have this size together.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 256 << 10;
const CLOSE_SLOW: u16 = 1008;
const CLOSE_TRY_AGAIN: u16 = 1013;

/// What is particular to a kind of peer.
pub(super) trait Peer: Sync {
    /// A text frame, read.
    type Message: Send;

    /// `None`: it means nothing, and is dropped.
    fn read(&self, text: Utf8Bytes) -> Option<Self::Message>;

    /// Messages of one name are handled one after the other, and those of several names at once: each waits until what
    /// it changes is durable, and so they share that. `None`: after all before it, and before all after it.
    fn lane(_message: &Self::Message) -> Option<&str> {
        None
    }

    fn message(&self, message: Self::Message) -> impl Future<Output = ()> + Send;

    /// Some seconds passed.
    fn tick(&self) {}

    /// Makes frames of what is to be told.
    fn frames(&self, parcel: Parcel) -> impl Future<Output = Vec<String>> + Send;
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The relay closed it.
    ByRelay,
    /// The peer said that it comes back.
    BackSoon,
    /// It closed, or the connection broke, or it fell silent.
    Lost,
}

pub(super) struct Connection<'a, P> {
    pub peer: &'a P,
    pub outbox: &'a Outbox,
    /// When the last frame of any kind came, by the relay's clock.
    pub last_frame: Arc<AtomicI64>,
    pub clock: &'a Clock,
    pub stop: &'a CancellationToken,
}

impl<P: Peer> Connection<'_, P> {
    pub(super) async fn run(&self, socket: WebSocket) -> Ended {
        self.alive();
        let (mut sink, mut stream) = socket.split();
        // Dropping the loser is safe: the socket is over for both.
        let ended = tokio::select! {
            ended = self.read(&mut stream) => ended,
            ended = self.write(&mut sink) => ended,
        };
        // A close is answered, or its answer waited for, but not for long: a connection that is dropped with words on
        // their way is broken for the peer, whatever was said before.
        let parted = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = tokio::time::timeout(PARTING, parted).await;
        ended
    }

    fn alive(&self) {
        self.last_frame.store(self.clock.now().as_millis(), Ordering::Relaxed);
    }

    async fn read(&self, stream: &mut SplitStream<WebSocket>) -> Ended {
        while let Some(Ok(frame)) = stream.next().await {
            let mut messages = Vec::new();
            let mut bytes = size(&frame);
            let mut ended = self.take(frame, &mut messages);
            while ended.is_none() && messages.len() < TOGETHER && bytes < TOGETHER_BYTES {
                ended = match stream.next().now_or_never() {
                    None => break,
                    Some(Some(Ok(frame))) => {
                        bytes += size(&frame);
                        self.take(frame, &mut messages)
                    }
                    Some(Some(Err(_)) | None) => Some(Ended::Lost),
                };
            }
            if !messages.is_empty() {
                // On the heap while it lasts: a socket that waits has no room for what a message may need.
                Box::pin(self.handle(messages)).await;
            }
            if let Some(ended) = ended {
                return ended;
            }
        }
        Ended::Lost
    }

    fn take(&self, frame: Message, messages: &mut Vec<P::Message>) -> Option<Ended> {
        self.alive();
        match frame {
            Message::Text(text) => messages.extend(self.peer.read(text)),
            Message::Close(Some(frame)) if frame.code == CLOSE_BACK_SOON => return Some(Ended::BackSoon),
            Message::Close(_) => return Some(Ended::Lost),
            // Binary frames mean nothing here; control frames are signs of life.
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
        None
    }

    async fn handle(&self, messages: Vec<P::Message>) {
        let mut lanes: Vec<Vec<P::Message>> = Vec::new();
        for message in messages {
            let Some(name) = P::lane(&message) else {
                self.handle_lanes(std::mem::take(&mut lanes)).await;
                self.peer.message(message).await;
                continue;
            };
            let known = lanes.iter().position(|lane| lane.first().and_then(P::lane) == Some(name));
            match known.and_then(|at| lanes.get_mut(at)) {
                Some(lane) => lane.push(message),
                None => lanes.push(vec![message]),
            }
        }
        self.handle_lanes(lanes).await;
    }

    async fn handle_lanes(&self, lanes: Vec<Vec<P::Message>>) {
        let lanes = lanes.into_iter().map(|lane| async {
            for message in lane {
                self.peer.message(message).await;
            }
        });
        join_all(lanes).await;
    }

    async fn write(&self, sink: &mut SplitSink<WebSocket, Message>) -> Ended {
        let mut ask = tokio::time::interval_at(tokio::time::Instant::now() + ASK, ASK);
        loop {
            let parcel = tokio::select! {
                parcel = self.outbox.take() => parcel,
                _ = ask.tick() => {
                    let silent = self.clock.now().as_millis() - self.last_frame.load(Ordering::Relaxed);
                    if silent >= GONE_MS {
                        close(sink, Closing::Silent).await;
                        return Ended::Lost;
                    }
                    self.peer.tick();
                    if silent >= 8_000 && !send(sink, Message::Ping(bytes::Bytes::new())).await {
                        return Ended::Lost;
                    }
                    continue;
                }
                () = self.stop.cancelled() => {
                    close(sink, Closing::Restart).await;
                    return Ended::ByRelay;
                }
            };
            let closing = parcel.closing;
            let mut parcel = parcel;
            let words = std::mem::take(&mut parcel.words);
            for text in Box::pin(self.peer.frames(parcel)).await.into_iter().chain(words) {
                if !send(sink, Message::Text(text.into())).await {
                    return Ended::Lost;
                }
            }
            if let Some(closing) = closing {
                close(sink, closing).await;
                return if closing == Closing::Slow { Ended::Lost } else { Ended::ByRelay };
            }
        }
    }
}

fn size(frame: &Message) -> usize {
    match frame {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    matches!(tokio::time::timeout(SEND_LIMIT, sink.send(message)).await, Ok(Ok(())))
}

async fn close(sink: &mut SplitSink<WebSocket, Message>, closing: Closing) {
    let (code, reason) = match closing {
        Closing::Superseded => (1000, "another socket took this one's place"),
        Closing::IdTaken => (CLOSE_ID_TAKEN, "another process has this worker id"),
        Closing::Slow => (CLOSE_SLOW, "too much is waiting to be read"),
        Closing::Restart => (CLOSE_RESTART, "the relay restarts"),
        Closing::TryAgain => (CLOSE_TRY_AGAIN, "not possible now"),
        Closing::Silent => (1001, "no frame for too long"),
    };
    let frame = CloseFrame { code, reason: reason.into() };
    // The peer may be gone already, which is what is wanted.
    let _ = send(sink, Message::Close(Some(frame))).await;
}
