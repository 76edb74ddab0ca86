//! `dockframe job run`: submits, follows, prints, and exits as the container did.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use dockframe_shared::job::digest::job_id;
use dockframe_shared::job::{
    Control, Definition, Enqueued, FinishReason, Finished, JobResult, LogLine, Rerun,
};
use dockframe_shared::protocol::{
    Change, ClientMessage, LogCursors, LogKind, RelayMessage, StateChange, Watch,
};
use dockframe_shared::{JobId, Namespace, NamespaceSelector, Timestamp};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::follow::{CANCEL, Follow, SUBMIT, Step};
use super::{DefinitionArgs, QueueArgs, outputs};
use crate::{exit, stop};

/// Pauses between attempts to reach the relay again.
const RECONNECT: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];
/// A relay answers sooner, or is lost.
const PONG_TIMEOUT: Duration = Duration::from_secs(15);
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long an interrupt waits for the relay to confirm the cancel.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    queue: QueueArgs,

    /// Put the outputs into this folder
    #[arg(long, short, value_name = "DIR")]
    outputs: Option<PathBuf>,

    /// The slot of the queue that holds at most one live job
    #[arg(long, value_name = "NAME", default_value = "_")]
    namespace: Namespace,

    /// Run it even if a result is stored
    #[arg(long)]
    rerun: bool,

    /// Say nothing about waiting, workers and outputs
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    definition: DefinitionArgs,
}

/// The command's work, with what it needs throughout.
struct Run {
    client: Client,
    follow: Follow,
    submission: Enqueued,
    namespace: Namespace,
    quiet: bool,
}

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let signals = stop::on_signal()?;
    let client = Client::new(args.queue)?;
    let (definition, uploads) = args.definition.build(&client.blobs()?)?;
    for upload in &uploads {
        client.upload(upload).await?;
    }
    let job = job_id(&definition);
    let mut run = Run {
        submission: submission(job.clone(), definition, &args.namespace, args.rerun),
        follow: Follow::new(job.clone()),
        namespace: args.namespace,
        quiet: args.quiet,
        client,
    };
    let reason = tokio::select! {
        reason = run.until_finished(&signals.stop) => reason?,
        () = signals.now.cancelled() => None,
    };
    let Some(reason) = reason else { return Ok(ExitCode::from(exit::LET_GO)) };
    if reason.as_result().is_none() {
        run.say(&format!("the job ended without a result: {}", reason.as_str()));
        return Ok(ExitCode::from(exit::LET_GO));
    }
    let result = run.result(&job).await?;
    run.print_rest(&job, &result).await?;
    outputs::take(&run.client, &result, args.outputs.as_deref(), |line| run.say(line)).await?;
    Ok(run.verdict(reason, &result))
}

fn submission(id: JobId, definition: Definition, namespace: &Namespace, rerun: bool) -> Enqueued {
    let control = Control {
        namespace: (!namespace.is_default()).then(|| namespace.clone()),
        rerun: rerun.then_some(Rerun::Any),
        ..Control::default()
    };
    Enqueued { id, definition: Some(definition), control: Some(control), debug: None }
}

fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

impl Run {
    /// Follows the job over as many sockets as it takes. `None`: interrupted, and cancelled.
    async fn until_finished(&mut self, stop: &CancellationToken) -> anyhow::Result<Option<FinishReason>> {
        let mut n_failed = 0;
        loop {
            let pause = RECONNECT[n_failed.min(RECONNECT.len() - 1)];
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return Ok(None) }
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = stop.cancelled() => return Ok(None),
            };
            let mut socket = match connected {
                Ok(socket) => socket,
                // Before anything is submitted an error is the answer; later the job goes on without us.
                Err(error) if !self.follow.is_submitted() => return Err(error),
                Err(error) => {
                    tracing::warn!("{error:#}; trying again");
                    n_failed += 1;
                    continue;
                }
            };
            n_failed = 0;
            tokio::select! {
                outcome = self.follow_socket(&mut socket) => match outcome {
                    Ok(reason) => return Ok(Some(reason)),
                    Err(Lost::Refused(problem)) => return Err(problem.context("the relay refuses the job")),
                    Err(Lost::Connection) => tracing::warn!("lost the relay; connecting again"),
                },
                () = stop.cancelled() => {
                    self.cancel(&mut socket).await;
                    return Ok(None);
                }
            }
            n_failed += 1;
        }
    }

    async fn connect(&self) -> anyhow::Result<Socket> {
        let address = self.client.api();
        let socket_address = self.client.socket()?;
        let connecting = tokio_tungstenite::connect_async(socket_address.as_str());
        let (mut socket, _) = tokio::time::timeout(PONG_TIMEOUT, connecting)
            .await
            .with_context(|| format!("the relay at {address} does not answer"))?
            .with_context(|| format!("cannot reach the relay at {address}: is it running?"))?;
        let first = tokio::time::timeout(PONG_TIMEOUT, socket.next()).await;
        match first {
            Ok(Some(Ok(Message::Text(text))))
                if matches!(RelayMessage::read(&text), Ok(RelayMessage::ClientHello(_))) =>
            {
                Ok(socket)
            }
            _ => bail!(
                "the relay at {address} does not speak {}: it is an older one",
                dockframe_shared::protocol::WATCH_PROTOCOL
            ),
        }
    }

    async fn follow_socket(&mut self, socket: &mut Socket) -> Result<FinishReason, Lost> {
        self.watch(socket).await?;
        if !self.follow.is_submitted() {
            let change = Change::Queued { time: now(), enqueued: Box::new(self.submission.clone()) };
            self.send(socket, change, SUBMIT).await?;
        }
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let mut last_frame = tokio::time::Instant::now();
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                _ = ping.tick() => {
                    if last_frame.elapsed() > PONG_TIMEOUT {
                        return Err(Lost::Connection);
                    }
                    socket.send(Message::text("PING")).await.map_err(|_| Lost::Connection)?;
                    continue;
                }
            };
            last_frame = tokio::time::Instant::now();
            let text = match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Lost::Connection),
                Some(Ok(_)) => continue,
            };
            // What this client does not know is not for it.
            let Ok(message) = RelayMessage::read(&text) else { continue };
            for step in self.follow.receive(message) {
                match step {
                    Step::Submitted => self.watch(socket).await?,
                    Step::Refused(problem) => return Err(Lost::Refused(problem.into())),
                    Step::Print(kind, lines) => print(kind, &lines),
                    Step::Tell(word) => self.say(&word),
                    Step::Finished(reason) => return Ok(reason),
                }
            }
        }
    }

    /// Lines are asked for once the submission stands: those of an earlier run are not of interest.
    async fn watch(&self, socket: &mut Socket) -> Result<(), Lost> {
        let cursors = if self.follow.is_submitted() { self.follow.cursors() } else { LogCursors::default() };
        let watch = Watch { jobs: [(self.submission.id.clone(), cursors)].into(), ..Watch::default() };
        send(socket, &ClientMessage::Watch(watch)).await
    }

    async fn send(&self, socket: &mut Socket, change: Change, reference: &str) -> Result<(), Lost> {
        let change = StateChange {
            job: self.submission.id.clone(),
            tag: String::new(),
            change,
            reference: Some(reference.to_owned()),
        };
        send(socket, &ClientMessage::StateChange(change)).await
    }

    /// Tells the relay that this client lets go, and waits for its word, for a while.
    async fn cancel(&self, socket: &mut Socket) {
        let finished = Finished {
            namespace: Some(NamespaceSelector::One(self.namespace.clone())),
            message: Some("cancelled at the command line".to_owned()),
            ..Finished::new(FinishReason::Cancelled, now())
        };
        if self.send(socket, Change::Finished(Box::new(finished)), CANCEL).await.is_err() {
            return self.say("the relay is not there: the job may go on");
        }
        let confirmed = async {
            while let Some(Ok(frame)) = socket.next().await {
                if let Message::Text(text) = frame
                    && let Ok(RelayMessage::Done(done)) = RelayMessage::read(&text)
                    && done.reference.as_deref() == Some(CANCEL)
                {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(CANCEL_TIMEOUT, confirmed).await {
            Ok(true) => self.say("cancelled"),
            _ => self.say("the relay did not confirm the cancel: the job may go on"),
        }
    }

    async fn result(&self, job: &JobId) -> anyhow::Result<JobResult> {
        let finished = self.client.result(job).await?.and_then(|object| object.finished);
        let value = finished.and_then(|finished| finished.result);
        let value = value.context("the relay says that the job is finished, but has no result of it")?;
        serde_json::from_value(value).context("the result cannot be read")
    }

    /// What was not streamed: lines that a slow connection skipped, or all of a stored result.
    async fn print_rest(&self, job: &JobId, result: &JobResult) -> anyhow::Result<()> {
        let is_stored = self.follow.was_stored();
        if is_stored {
            let age = self.follow.time().map_or(0, |time| now().since(time) / 1000);
            let place = if self.follow.is_shared() { ", computed in another queue" } else { "" };
            self.say(&format!("stored result, {age} s old{place}; --rerun runs it again"));
        }
        // The streamed lines are the program's own; a result outlives them, with remarks of its worker.
        let n_printed = self.follow.next(LogKind::Run);
        let rest = self.client.lines(job, LogKind::Run, n_printed).await?;
        let is_gone = is_stored && n_printed == 0 && rest.is_empty();
        print(LogKind::Run, if is_gone { &result.logs } else { &rest });
        Ok(())
    }

    fn verdict(&self, reason: FinishReason, result: &JobResult) -> ExitCode {
        match reason {
            FinishReason::TimedOut => {
                self.say("timed out");
                ExitCode::from(exit::TIMED_OUT)
            }
            FinishReason::Success => exit::container(result.status_code.unwrap_or(0)),
            _ => {
                self.say(&format!("could not be run: {}", outputs::error_text(result)));
                ExitCode::from(exit::NOT_RUN)
            }
        }
    }

    #[expect(clippy::print_stderr, reason = "words to the person at the terminal")]
    fn say(&self, words: &str) {
        if !self.quiet {
            eprintln!("dockframe: {words}");
        }
    }
}

/// Why a socket is no longer followed.
enum Lost {
    Connection,
    Refused(anyhow::Error),
}

async fn send(socket: &mut Socket, message: &ClientMessage) -> Result<(), Lost> {
    let text = serde_json::to_string(message).map_err(|error| Lost::Refused(error.into()))?;
    socket.send(Message::text(text)).await.map_err(|_| Lost::Connection)
}

/// The program's output as it was: stdout to stdout, stderr and build lines to stderr. A closed pipe ends nothing:
/// the job's exit code still counts.
fn print(kind: LogKind, lines: &[LogLine]) {
    for line in lines {
        let newline = if line.text.ends_with('\n') || kind == LogKind::Run { "" } else { "\n" };
        let _ = if line.is_stderr || kind == LogKind::Build {
            write!(std::io::stderr(), "{}{newline}", line.text)
        } else {
            write!(std::io::stdout(), "{}{newline}", line.text)
        };
    }
    let _ = std::io::stdout().flush();
}
