//! The socket of one queue: connecting, registering, staying alive, coming back (`worker` 5, `jobs-and-states` 8).
//!
//! The link knows nothing of jobs. It sends the registration that the dispatcher keeps in a watch channel (so that
//! every held lease is named, on every connection, first), passes frames on in order, and reports. What the relay has
//! certainly read it reports too: a `PONG` confirms every frame before its `PING`.

use std::collections::VecDeque;
use std::time::Duration;

use dockframe_shared::QueueKey;
use dockframe_shared::protocol::{
    CLOSE_ID_TAKEN, CLOSE_RESTART, LEASE_PROTOCOL, PROTOCOL_HEADER, Registration, RelayMessage, WorkerHello,
    WorkerMessage,
};
use futures_util::{SinkExt as _, StreamExt as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::RngExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock;
use crate::disk::Disk;
use crate::messages::{Event, LinkEvent, QueueIndex};
use crate::old_way::{Effect, OldWay};

const CONNECT_LIMIT: Duration = Duration::from_secs(6);
const PING_EVERY: Duration = Duration::from_secs(5);
/// A socket that answers nothing for so long is dead.
const PONG_LIMIT: Duration = Duration::from_secs(10);
/// Until the relay has greeted; renewals are its `renewMs` from then on.
const FIRST_RENEWAL: Duration = Duration::from_secs(10);
/// Pauses between attempts while a lease is held; the last one repeats, with jitter.
const HELD_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
const HELD_LAST: Duration = Duration::from_secs(2);
const IDLE_FIRST: Duration = Duration::from_millis(500);
const IDLE_MOST: Duration = Duration::from_secs(30);
/// Longest accepted frame: a definition with inline inputs is the largest.
const MAX_FRAME_BYTES: usize = 64 << 20;
/// Two of these within a minute mean a twin (`worker` 2.5).
const TWIN_WINDOW: Duration = Duration::from_secs(60);

/// Everything but letters, digits and `-._~`: a queue's name is one segment of the path.
pub(crate) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A relay without leases sends its table about every ten seconds.
const LIST_LIMIT: Duration = Duration::from_secs(20);
/// How often its table is looked at when nothing comes, and when something is about to be due.
const OLD_LOOK: Duration = Duration::from_secs(1);
const OLD_LOOK_SOON: Duration = Duration::from_millis(50);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How a link says good-bye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    ForGood,
    /// Another process takes the runs up: close with code 4000.
    BackSoon,
}

/// How relay and worker agreed to share out jobs, for a socket's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Leases,
    Old,
}

/// What a link needs.
pub(crate) struct Link {
    pub(crate) queue: QueueIndex,
    pub(crate) key: QueueKey,
    /// Base address of the relay.
    pub(crate) address: String,
    pub(crate) registration: watch::Receiver<Registration>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) stop: CancellationToken,
    pub(crate) farewell: watch::Receiver<Farewell>,
    pub(crate) connector: Option<Connector>,
    /// What is known of a relay without leases.
    pub(crate) old: Option<OldWay>,
    /// Nothing is claimed while it is low.
    pub(crate) disk: Disk,
}

/// Why a connection is over.
#[derive(Debug)]
enum Lost {
    /// We were told to stop.
    Stopped,
    Closed {
        code: Option<u16>,
    },
    Failed(String),
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Trying again soon will not help.
    #[error("it refused: {0}")]
    Refused(String),
}

impl Link {
    /// Keeps the queue connected until stopped.
    pub(crate) async fn run(mut self) {
        let mut failures: u32 = 0;
        let mut normal_closes: VecDeque<Instant> = VecDeque::new();
        let mut was_told = false;
        let mut was_connected = false;
        while !self.stop.is_cancelled() {
            let connected = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                connected = self.connect() => connected,
            };
            let mut at_once = false;
            let mut refused = false;
            match connected {
                Ok((socket, way)) => {
                    let since = Instant::now();
                    if std::mem::replace(&mut was_connected, true) && !self.report(LinkEvent::Again).await {
                        return;
                    }
                    was_told = false;
                    let lost = self.converse(socket, way).await;
                    if !self.report(LinkEvent::Down).await {
                        return;
                    }
                    if since.elapsed() > PING_EVERY {
                        failures = 0;
                    }
                    match lost {
                        Lost::Stopped => return,
                        Lost::Closed { code: Some(CLOSE_ID_TAKEN) } => {
                            if !self.report(LinkEvent::IdTaken).await {
                                return;
                            }
                        }
                        Lost::Closed { code: Some(CLOSE_RESTART) } => at_once = failures == 0,
                        Lost::Closed { code: Some(1000) } => {
                            normal_closes.push_back(Instant::now());
                            normal_closes.retain(|at| at.elapsed() < TWIN_WINDOW);
                            if normal_closes.len() >= 2 {
                                normal_closes.clear();
                                if !self.report(LinkEvent::IdTaken).await {
                                    return;
                                }
                            }
                        }
                        Lost::Closed { .. } => {}
                        Lost::Failed(why) => {
                            info!(queue = %self.key.digest(), "connection to the relay lost: {why}")
                        }
                    }
                }
                Err(error) => {
                    refused = !matches!(error, NoConnection::Unreachable(_));
                    if !std::mem::replace(&mut was_told, true) {
                        warn!(queue = %self.key.digest(), "no connection to the relay at {}: {error}", self.address);
                    }
                }
            }
            let pause = if at_once { Duration::ZERO } else { self.pause(failures, refused) };
            failures = failures.saturating_add(1);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    fn pause(&self, failures: u32, refused: bool) -> Duration {
        let holds = self.registration.borrow().leases.as_ref().is_some_and(|leases| !leases.is_empty());
        let mut random = rand::rng();
        if holds {
            let known = HELD_PAUSES.get(failures as usize).copied();
            return known.unwrap_or_else(|| HELD_LAST.mul_f64(random.random_range(0.8..1.2)));
        }
        if refused {
            return IDLE_MOST;
        }
        let most = IDLE_FIRST.saturating_mul(1 << failures.min(10)).min(IDLE_MOST);
        most.mul_f64(random.random_range(0.0..1.0))
    }

    async fn report(&self, event: LinkEvent) -> bool {
        self.events.send(Event::Link { queue: self.queue, event }).await.is_ok()
    }

    async fn connect(&self) -> Result<(Socket, Way), NoConnection> {
        let base = self.address.strip_prefix("http").unwrap_or(&self.address);
        let segment = utf8_percent_encode(self.key.reveal(), SEGMENT);
        let mut request = format!("ws{base}/q/{segment}/worker")
            .into_client_request()
            .map_err(|error| NoConnection::Refused(error.to_string()))?;
        request.headers_mut().insert(PROTOCOL_HEADER, HeaderValue::from_static(LEASE_PROTOCOL));
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES))
            .read_buffer_size(16 << 10)
            .write_buffer_size(0);
        let connecting = connect_async_tls_with_config(request, Some(config), true, self.connector.clone());
        match timeout(CONNECT_LIMIT, connecting).await {
            Err(_) => {
                Err(NoConnection::Unreachable(format!("no answer within {} s", CONNECT_LIMIT.as_secs())))
            }
            Ok(Ok((socket, response))) => {
                let agreed =
                    response.headers().get(PROTOCOL_HEADER).is_some_and(|value| value == LEASE_PROTOCOL);
                Ok((socket, if agreed { Way::Leases } else { Way::Old }))
            }
            Ok(Err(SocketError::Http(response))) if response.status().is_client_error() => {
                Err(NoConnection::Refused(format!("HTTP status {}", response.status())))
            }
            Ok(Err(SocketError::Tls(error))) => Err(NoConnection::Refused(error.to_string())),
            Ok(Err(error)) => Err(NoConnection::Unreachable(error.to_string())),
        }
    }

    /// From the registration to the end of the connection.
    async fn converse(&mut self, socket: Socket, way: Way) -> Lost {
        self.begin_way(way).await;
        let (mut sink, mut stream) = socket.split();
        let (frames, mut outgoing) = mpsc::unbounded_channel::<String>();
        let mut frames = Some(frames);
        let mut sent: u64 = 0;
        // For each PING on its way: how many frames went before it.
        let mut pings: VecDeque<u64> = VecDeque::new();
        let mut pings_due = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut last_pong = Instant::now();
        let mut renew = FIRST_RENEWAL;
        let mut renew_at = Instant::now();
        let urgent = |registration: &Registration| (registration.draining, registration.gpus);
        let mut told = urgent(&self.registration.borrow_and_update());
        let mut last_list = Instant::now();
        let mut look_at = Instant::now() + OLD_LOOK;

        macro_rules! send {
            ($message:expr) => {
                match timeout(PONG_LIMIT, sink.send($message)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Lost::Failed(error.to_string()),
                    Err(_) => return Lost::Failed("the relay reads nothing".to_owned()),
                }
            };
        }

        macro_rules! perform {
            ($effects:expr) => {
                for effect in $effects {
                    match effect {
                        Effect::Say(message) => {
                            send!(Message::text(serde_json::to_string(&message).unwrap_or_default()));
                        }
                        Effect::Tell(event) => {
                            if !self.report(event).await {
                                return Lost::Stopped;
                            }
                        }
                    }
                }
            };
        }

        macro_rules! forward {
            ($frame:expr) => {
                match self.translate($frame) {
                    Ok(frame) => send!(Message::text(frame)),
                    Err(effects) => perform!(effects),
                }
            };
        }

        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    // What was given to this link before it was stopped still goes out.
                    while let Ok(frame) = outgoing.try_recv() {
                        forward!(frame);
                    }
                    let code = match *self.farewell.borrow() {
                        Farewell::ForGood => CloseCode::Normal,
                        Farewell::BackSoon => CloseCode::from(dockframe_shared::protocol::CLOSE_BACK_SOON),
                    };
                    let close = CloseFrame { code, reason: "".into() };
                    let _ = timeout(Duration::from_secs(1), sink.send(Message::Close(Some(close)))).await;
                    let _ = timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = stream.next().await {} }).await;
                    return Lost::Stopped;
                }
                () = sleep_until(renew_at) => {
                    let message = self.registration_message(way);
                    send!(Message::text(message));
                    renew_at = Instant::now() + renew;
                    for message in self.remind() {
                        send!(Message::text(serde_json::to_string(&message).unwrap_or_default()));
                    }
                    if way == Way::Old
                        && let Some(frames) = frames.take()
                        && !self.report(LinkEvent::Up { hello: OldWay::hello(), frames }).await
                    {
                        return Lost::Stopped;
                    }
                }
                () = sleep_until(last_list + LIST_LIMIT), if way == Way::Old => {
                    return Lost::Failed(format!("no list of jobs within {} s", LIST_LIMIT.as_secs()));
                }
                () = sleep_until(look_at), if way == Way::Old => {
                    perform!(self.decide());
                    let is_waiting = self.old.as_ref().is_some_and(OldWay::is_waiting);
                    look_at = Instant::now() + if is_waiting { OLD_LOOK_SOON } else { OLD_LOOK };
                }
                () = sleep_until(last_pong + PONG_LIMIT) => {
                    return Lost::Failed(format!("no PONG within {} s", PONG_LIMIT.as_secs()));
                }
                _ = pings_due.tick() => {
                    pings.push_back(sent);
                    send!(Message::text("PING"));
                }
                Ok(()) = self.registration.changed() => {
                    // Phases can wait for the next renewal; that we drain, or lend less, cannot.
                    let now = urgent(&self.registration.borrow_and_update());
                    if now != told {
                        told = now;
                        renew_at = Instant::now();
                    }
                }
                frame = stream.next() => {
                    let text = match frame {
                        None => return Lost::Closed { code: None },
                        Some(Err(error)) => return Lost::Failed(error.to_string()),
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Close(close))) => {
                            let code = close.map(|frame| u16::from(frame.code));
                            debug!(queue = %self.key.digest(), ?code, "the relay closed the socket");
                            // Lets the library answer.
                            let _ = timeout(Duration::from_secs(1), sink.flush()).await;
                            return Lost::Closed { code };
                        }
                        Some(Ok(_)) => continue,
                    };
                    let message = match RelayMessage::read(&text) {
                        Ok(message) => message,
                        Err(error) => {
                            debug!("a frame from the relay is ignored: {error}");
                            continue;
                        }
                    };
                    let event = match message {
                        RelayMessage::Pong(id) => {
                            last_pong = Instant::now();
                            if id.is_some_and(|id| id != self.registration.borrow().id.as_str()) {
                                renew_at = Instant::now();
                            }
                            pings.pop_front().map(|frames| LinkEvent::Confirmed { frames })
                        }
                        RelayMessage::WorkerHello(hello) => {
                            renew = renewal(&hello);
                            renew_at = renew_at.min(Instant::now() + renew);
                            frames.take().map(|frames| LinkEvent::Up { hello, frames })
                        }
                        // Of these a relay with leases sends none that matter, and one without none of those below.
                        other if way == Way::Old => {
                            if matches!(other, RelayMessage::JobStates(_) | RelayMessage::JobStateUpdates(_)) {
                                last_list = Instant::now();
                            }
                            perform!(self.hear_old(other));
                            perform!(self.decide());
                            look_at = Instant::now() + OLD_LOOK_SOON;
                            None
                        }
                        RelayMessage::LeaseGrant(grant) => Some(LinkEvent::Grant(grant)),
                        RelayMessage::LeaseRevoke(revoke) => Some(LinkEvent::Revoke(revoke)),
                        RelayMessage::LeaseFinished(finished) => Some(LinkEvent::Finished(finished)),
                        _ => None,
                    };
                    if let Some(event) = event && !self.report(event).await {
                        return Lost::Stopped;
                    }
                }
                Some(frame) = outgoing.recv() => {
                    forward!(frame);
                    sent += 1;
                }
            }
        }
    }

    /// A queue's way is that of its socket. What was claimed the old way is over when leases come.
    async fn begin_way(&mut self, way: Way) {
        let registration = self.registration.borrow().clone();
        match way {
            Way::Old => {
                if self.old.is_none() && self.key.reveal().contains(['/', '#', '?']) {
                    warn!(
                        queue = %self.key.digest(),
                        "this relay knows no leases and reads `/`, `#` and `?` in a queue's name differently than the \
                         existing worker: they would not meet there"
                    );
                }
                self.old.get_or_insert_with(|| OldWay::new(&registration)).connected();
            }
            Way::Leases => {
                self.old = None;
                for event in OldWay::abandon(&registration) {
                    self.report(event).await;
                }
            }
        }
    }

    /// A frame of the dispatcher's, as the relay understands it: as it is, or what to do instead.
    fn translate(&mut self, frame: String) -> Result<String, Vec<Effect>> {
        let Some(old) = &mut self.old else { return Ok(frame) };
        let me = self.registration.borrow().id.clone();
        let message = WorkerMessage::read(&frame).map_err(|_| Vec::new())?;
        Err(old.translate(message, &me, std::time::Instant::now(), clock::now()))
    }

    fn hear_old(&mut self, message: RelayMessage) -> Vec<Effect> {
        let Some(old) = &mut self.old else { return Vec::new() };
        let registration = self.registration.borrow();
        match message {
            RelayMessage::JobStates(jobs) => old.list(jobs),
            RelayMessage::JobStateUpdates(jobs) => old.updates(jobs),
            RelayMessage::BroadcastJobDefinitions(known) => old.define(known.definitions),
            RelayMessage::Workers(workers) => old.workers(&workers.workers, &registration.id),
            RelayMessage::StatusRequest => return vec![Effect::Say(old.status(&registration, clock::now()))],
            RelayMessage::ClearJobCache { job_id, .. } => return old.clear(&job_id),
            _ => {}
        }
        Vec::new()
    }

    /// What goes out with each registration to a relay without leases.
    fn remind(&mut self) -> Vec<WorkerMessage> {
        let Some(old) = &mut self.old else { return Vec::new() };
        old.remind(&self.registration.borrow().id, std::time::Instant::now())
    }

    fn decide(&mut self) -> Vec<Effect> {
        let Some(old) = &mut self.old else { return Vec::new() };
        let registration = self.registration.borrow();
        let is_closed = registration.draining == Some(true) || self.disk.refusal().is_some();
        let now = std::time::Instant::now();
        old.decide(&registration.id, is_closed, now, clock::now(), || rand::rng().random())
    }

    /// Names what this kind of relay may know of.
    fn registration_message(&self, way: Way) -> String {
        let mut registration = self.registration.borrow().clone();
        registration.time = clock::now();
        match way {
            Way::Leases => {
                let leases = registration.leases.iter_mut();
                leases.for_each(|leases| leases.retain(|lease| !OldWay::made(&lease.lease_id)));
            }
            Way::Old => {
                registration.leases = None;
                registration.instance = None;
            }
        }
        // A struct of texts and numbers is always writable.
        serde_json::to_string(&WorkerMessage::Registration(registration)).unwrap_or_default()
    }
}

/// The relay's wish, within reason.
fn renewal(hello: &WorkerHello) -> Duration {
    Duration::from_millis(hello.renew_ms).clamp(Duration::from_millis(100), Duration::from_secs(60))
}
