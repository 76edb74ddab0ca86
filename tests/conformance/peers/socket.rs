//! One WebSocket, and everything that has come over it. A reader collects in the background; whoever waits looks at
//! all that was seen since a mark, so nothing is missed by looking late.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Map, Value};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::table::{fold, jobs_of};
use crate::check::SOON;

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long an upgrade may take.
const UPGRADE: Duration = Duration::from_secs(10);
/// How many frames a message of a failure shows.
const SHOWN: usize = 6;

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    Json(Value),
    /// A text that is no JSON object.
    Word(String),
    Binary(usize),
    /// The other side closed, with this code.
    Closed(Option<u16>),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    #[error("the upgrade of {path} is refused with {status}")]
    Refused { path: String, status: u16 },
    #[error("no socket at {path}: {why}")]
    Failed { path: String, why: String },
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(Instant, Frame)>>);

impl Seen {
    fn frames(&self) -> MutexGuard<'_, Vec<(Instant, Frame)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open socket. Dropping it cuts the connection without a goodbye.
#[derive(Debug)]
pub(crate) struct Socket {
    seen: Arc<Seen>,
    news: watch::Receiver<usize>,
    out: tokio::sync::Mutex<SplitSink<Stream, Message>>,
    /// The value of `Dockframe-Protocol` in the answer to the upgrade.
    pub(crate) protocol: Option<String>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Socket {
    /// Opens a path of the relay at `base`.
    ///
    /// # Errors
    /// No upgrade.
    pub(crate) async fn open(base: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self, NotOpened> {
        let failed = |why: String| NotOpened::Failed { path: path.to_owned(), why };
        let url = format!("{}{path}", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().map_err(|error| failed(error.to_string()))?;
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).map_err(|error| failed(error.to_string()))?;
            let value = HeaderValue::try_from(*value).map_err(|error| failed(error.to_string()))?;
            request.headers_mut().insert(name, value);
        }
        let opened = tokio::time::timeout(UPGRADE, tokio_tungstenite::connect_async(request)).await;
        let (stream, answer) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(tungstenite::Error::Http(answer))) => {
                return Err(NotOpened::Refused { path: path.to_owned(), status: answer.status().as_u16() });
            }
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("no answer".to_owned())),
        };
        let protocol = answer.headers().get("dockframe-protocol");
        let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (out, frames) = stream.split();
        let (tell, news) = watch::channel(0);
        let seen = Arc::<Seen>::default();
        let reader = tokio::spawn(read(frames, seen.clone(), tell));
        Ok(Self { seen, news, out: tokio::sync::Mutex::new(out), protocol, reader })
    }

    /// # Errors
    /// The socket is closed.
    pub(crate) async fn send(&self, message: &Value) -> anyhow::Result<()> {
        self.say(&message.to_string()).await
    }

    /// A text as it is.
    ///
    /// # Errors
    /// The socket is closed.
    pub(crate) async fn say(&self, text: &str) -> anyhow::Result<()> {
        let sent = self.out.lock().await.send(Message::text(text)).await;
        sent.with_context(|| format!("cannot send {}; came {}", short(text), self.tail(0)))
    }

    /// # Errors
    /// The socket is closed.
    pub(crate) async fn send_binary(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.out.lock().await.send(Message::binary(bytes)).await?)
    }

    /// Closes with a code.
    ///
    /// # Errors
    /// It is closed already.
    pub(crate) async fn close(&self, code: u16) -> anyhow::Result<()> {
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() };
        Ok(self.out.lock().await.send(Message::Close(Some(frame))).await?)
    }

    /// A place in what was seen: later frames come after it.
    pub(crate) fn mark(&self) -> usize {
        self.seen.frames().len()
    }

    /// All frames since a mark.
    pub(crate) fn frames(&self, mark: usize) -> Vec<Frame> {
        self.seen.frames().iter().skip(mark).map(|(_, frame)| frame.clone()).collect()
    }

    /// The messages of one type since a mark: their payloads.
    pub(crate) fn payloads(&self, mark: usize, kind: &str) -> Vec<Value> {
        let frames = self.frames(mark).into_iter();
        frames
            .filter_map(|frame| match frame {
                Frame::Json(mut value) if value["type"] == kind => Some(value["payload"].take()),
                _ => None,
            })
            .collect()
    }

    /// When each message of a type arrived.
    pub(crate) fn arrivals(&self, kind: &str) -> Vec<Instant> {
        let is = |frame: &Frame| matches!(frame, Frame::Json(value) if value["type"] == kind);
        self.seen.frames().iter().filter(|(_, frame)| is(frame)).map(|(when, _)| *when).collect()
    }

    /// The types of all messages since a mark, in order.
    pub(crate) fn kinds(&self, mark: usize) -> Vec<String> {
        self.frames(mark)
            .iter()
            .map(|frame| match frame {
                Frame::Json(value) => value["type"].as_str().unwrap_or("?").to_owned(),
                Frame::Word(word) => word.clone(),
                Frame::Binary(_) => "binary".to_owned(),
                Frame::Closed(_) => "closed".to_owned(),
            })
            .collect()
    }

    /// Waits until all frames since a mark, looked at together, give something.
    ///
    /// # Errors
    /// They did not within the limit: what was expected, and what came.
    pub(crate) async fn until<T>(
        &self,
        expected: &str,
        mark: usize,
        limit: Duration,
        mut pick: impl FnMut(&[Frame]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut news = self.news.clone();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            news.borrow_and_update();
            if let Some(found) = pick(&self.frames(mark)) {
                return Ok(found);
            }
            // An error of the channel: the reader has ended, nothing more will come.
            let more = tokio::time::timeout_at(deadline, news.changed()).await;
            if !matches!(more, Ok(Ok(()))) {
                if let Some(found) = pick(&self.frames(mark)) {
                    return Ok(found);
                }
                anyhow::bail!("expected {expected} within {limit:?}; came {}", self.tail(mark));
            }
        }
    }

    /// Waits for a message of a type and gives its payload.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn message(&self, mark: usize, kind: &str) -> anyhow::Result<Value> {
        self.message_that(mark, kind, kind, |_| true).await
    }

    /// Waits for a message of a type whose payload is as wanted.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn message_that(
        &self,
        mark: usize,
        kind: &str,
        expected: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.until(expected, mark, SOON, |frames| {
            frames.iter().find_map(|frame| match frame {
                Frame::Json(value) if value["type"] == kind && wanted(&value["payload"]) => {
                    Some(value["payload"].clone())
                }
                _ => None,
            })
        })
        .await
    }

    /// Waits for a bare word.
    ///
    /// # Errors
    /// It did not come.
    pub(crate) async fn word(&self, mark: usize, word: &str) -> anyhow::Result<()> {
        self.until(&format!("the word {word:?}"), mark, SOON, |frames| {
            frames.contains(&Frame::Word(word.to_owned())).then_some(())
        })
        .await
    }

    /// Waits until the other side has closed, and gives the code.
    ///
    /// # Errors
    /// It stays open.
    pub(crate) async fn closed(&self, limit: Duration) -> anyhow::Result<Option<u16>> {
        self.until("a closed socket", 0, limit, |frames| {
            frames.iter().find_map(|frame| match frame {
                Frame::Closed(code) => Some(*code),
                _ => None,
            })
        })
        .await
    }

    /// That all sent so far was handled, and the socket is open: frames of one socket are handled in order.
    ///
    /// # Errors
    /// No `PONG`.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let mark = self.mark();
        self.say("PING").await?;
        self.until("PONG", mark, SOON, |frames| {
            let pong = |frame: &Frame| matches!(frame, Frame::Word(word) if word.starts_with("PONG"));
            frames.iter().any(pong).then_some(())
        })
        .await
    }

    /// The table that the messages of states give, folded as every peer folds them.
    pub(crate) fn table(&self) -> Map<String, Value> {
        fold(&self.frames(0))
    }

    /// Waits until the folded table gives something.
    ///
    /// # Errors
    /// It did not: the table as it is.
    pub(crate) async fn until_table<T>(
        &self,
        expected: &str,
        limit: Duration,
        mut pick: impl FnMut(&Map<String, Value>) -> Option<T>,
    ) -> anyhow::Result<T> {
        let found = self.until(expected, 0, limit, |frames| pick(&fold(frames))).await;
        found.map_err(|_| {
            let table = Value::Object(self.table());
            anyhow::anyhow!(
                "expected {expected} within {limit:?}; the table is {}",
                short(&table.to_string())
            )
        })
    }

    /// Waits until a job is shown in a state, and gives its object.
    ///
    /// # Errors
    /// It is not.
    pub(crate) async fn state(&self, id: &str, state: &str) -> anyhow::Result<Value> {
        self.state_within(id, state, SOON).await
    }

    /// Like [`Socket::state`], with a limit.
    ///
    /// # Errors
    /// It is not shown so.
    pub(crate) async fn state_within(&self, id: &str, state: &str, limit: Duration) -> anyhow::Result<Value> {
        self.until_table(&format!("job {} {state}", short(id)), limit, |table| {
            table.get(id).filter(|job| job["state"] == state).cloned()
        })
        .await
    }

    /// Waits until a job is no longer in the table.
    ///
    /// # Errors
    /// It stays.
    pub(crate) async fn gone(&self, id: &str, limit: Duration) -> anyhow::Result<()> {
        self.until_table(&format!("no job {}", short(id)), limit, |table| {
            (!table.contains_key(id)).then_some(())
        })
        .await
    }

    /// Every object of a job that came since a mark, in order.
    pub(crate) fn jobs(&self, mark: usize, id: &str) -> Vec<Value> {
        let frames = self.frames(mark);
        frames.iter().filter_map(jobs_of).filter_map(|(_, jobs)| jobs.get(id).cloned()).collect()
    }

    /// The last frames since a mark, short enough for a message.
    pub(crate) fn tail(&self, mark: usize) -> String {
        let frames = self.frames(mark);
        if frames.is_empty() {
            return "nothing".to_owned();
        }
        let skipped = frames.len().saturating_sub(SHOWN);
        let shown = frames.iter().skip(skipped).map(|frame| match frame {
            Frame::Json(value) => short(&value.to_string()),
            other => format!("{other:?}"),
        });
        let dots = if skipped > 0 { format!("({skipped} frames) … ") } else { String::new() };
        dots + &shown.collect::<Vec<_>>().join(" | ")
    }
}

/// The beginning of a long text.
pub(crate) fn short(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

async fn read(mut frames: SplitStream<Stream>, seen: Arc<Seen>, tell: watch::Sender<usize>) {
    loop {
        let frame = match frames.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str::<Value>(&text) {
                Ok(value) if value.is_object() => Frame::Json(value),
                _ => Frame::Word(text.to_string()),
            },
            Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.len()),
            // Without a code the peer sees 1005, as browsers do.
            Some(Ok(Message::Close(close))) => Frame::Closed(close.map(|close| close.code.into())),
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => Frame::Closed(None),
        };
        let last = matches!(frame, Frame::Closed(_));
        let mut all = seen.frames();
        all.push((Instant::now(), frame));
        let n = all.len();
        drop(all);
        let _ = tell.send(n);
        if last {
            return;
        }
    }
}
