//! The one bridge: messages go in, effects are done, and what the screen shows is given to signals.
//!
//! [`Live::send`] is called by everybody who hears of something. Messages are applied one after the other, also
//! when an effect brings a new one at once. After a batch the views are derived and a signal is set only where its
//! value changed, so that components draw only that.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use leptos::prelude::*;
use serde_json::{Map, Value};
use wasm_bindgen_futures::spawn_local;

use dockframe_shared::job::{Definition, JobObject};
use dockframe_shared::metaframe::data_ref::DataRef;
use dockframe_shared::metaframe::outputs::{Fetch, OutputValue, Outputs};
use dockframe_shared::{JobId, Timestamp};

use crate::browser::{self, location, storage, timer};
use crate::host::{Host, HostEvent};
use crate::net::http;
use crate::net::socket::{Socket, SocketEvent};
use crate::screen::{Parts, QueueView, Screen};
use crate::state::actions::JobButton;
use crate::state::consent::Consent;
use crate::state::handshake::Handshake;
use crate::state::job_view::read_result;
use crate::state::log::Log;
use crate::state::{Effect, Intent, Message, Moment, Place, Short, State, Timer, reduce};
use crate::view::header;
use crate::view::lists;
use crate::view::trouble::trouble;

/// Where it is remembered which sites may run jobs on this computer.
const CONSENTED: &str = "dockframe-consent";

/// What components see and do. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Live {
    shell: StoredValue<Rc<Shell>, LocalStorage>,
    /// What the screen shows.
    parts: Parts,
    /// Grows once a second.
    ticks: RwSignal<u32>,
    /// Grows with each change of the log; the log itself is read by [`Live::with_log`].
    pub log_version: RwSignal<u32>,
}

impl std::ops::Deref for Live {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

struct Shell {
    state: RefCell<State>,
    inbox: RefCell<VecDeque<Message>>,
    is_busy: Cell<bool>,
    socket: RefCell<Option<Socket>>,
    timers: RefCell<BTreeMap<Timer, timer::Timeout>>,
    host: RefCell<Option<Rc<Host>>>,
    /// The host's id, under which stops are remembered.
    host_id: RefCell<String>,
    /// The result that `outputs` was derived from.
    shown_result: Cell<*const ()>,
}

impl Live {
    /// Starts everything: the host, the address, the socket.
    #[must_use]
    pub fn start() -> Self {
        let is_embedded = browser::is_embedded();
        let nonce =
            browser::random_key().map_or_else(|| browser::random().to_string(), |key| key[..8].to_owned());
        let place = Place { origin: location::origin(), short_id: location::short_id(), nonce };
        let mut state = State::new(place, is_embedded);
        if is_embedded {
            state.consent = Consent::new(browser::pages_around(), consented());
        }
        let shell = Rc::new(Shell {
            state: RefCell::new(state),
            inbox: RefCell::new(VecDeque::new()),
            is_busy: Cell::new(false),
            socket: RefCell::new(None),
            timers: RefCell::new(BTreeMap::new()),
            host: RefCell::new(None),
            host_id: RefCell::new(String::new()),
            shown_result: Cell::new(std::ptr::null()),
        });
        let live = Self {
            shell: StoredValue::new_local(Rc::clone(&shell)),
            parts: Parts::new(),
            ticks: RwSignal::new(0),
            log_version: RwSignal::new(0),
        };
        if is_embedded {
            let host = Host::start(move |event| live.host_said(event));
            *shell.host.borrow_mut() = Some(host);
        }
        location::follow_hash(move || {
            live.with_shell(|shell| {
                if let Some(host) = &*shell.host.borrow() {
                    host.hash_changed();
                }
            });
            live.send(Message::HashChanged { hash: location::hash() });
        });
        timer::every(1_000, move || {
            live.ticks.update(|ticks| *ticks = ticks.wrapping_add(1));
            // Some troubles are a matter of time alone.
            live.show();
        });
        live.send(Message::HashChanged { hash: location::hash() });
        live
    }

    /// The user wants something.
    pub fn want(self, intent: Intent) {
        self.send(Message::User(intent));
    }

    /// Sets or removes parameters of the address.
    pub fn edit(self, changes: Vec<(String, Option<String>)>) {
        self.want(Intent::Edit(changes));
    }

    /// The wall clock; followed once a second.
    #[must_use]
    pub fn now(self) -> Timestamp {
        self.ticks.track();
        browser::now()
    }

    /// Reads the log.
    pub fn with_log<T>(self, read: impl FnOnce(&Log) -> T) -> T {
        self.with_shell(|shell| read(&shell.state.borrow().log))
    }

    /// Reads the state, for what is needed once.
    pub fn with_state<T>(self, read: impl FnOnce(&State) -> T) -> T {
        self.with_shell(|shell| read(&shell.state.borrow()))
    }

    fn with_shell<T>(self, action: impl FnOnce(&Rc<Shell>) -> T) -> T {
        self.shell.with_value(action)
    }

    fn host_said(self, event: HostEvent) {
        match event {
            HostEvent::Answered { host, origin, inputs } => {
                let stopped = storage::session_get(&stops_key(&host)).unwrap_or_default();
                let ids = stopped.split_whitespace().filter_map(|id| JobId::new(id).ok());
                let stopped = ids.collect();
                self.with_shell(|shell| *shell.host_id.borrow_mut() = host);
                self.send(Message::HostAnswered { origin, inputs, stopped });
            }
            HostEvent::Inputs(changes) => self.send(Message::InputsUpdated(changes)),
        }
    }

    /// Something happened.
    pub fn send(self, message: Message) {
        let shell = self.with_shell(Rc::clone);
        shell.inbox.borrow_mut().push_back(message);
        if shell.is_busy.replace(true) {
            return;
        }
        loop {
            let next = shell.inbox.borrow_mut().pop_front();
            let Some(message) = next else { break };
            let moment = Moment { now: browser::now(), random: browser::random() };
            let effects = reduce(&mut shell.state.borrow_mut(), message, moment);
            for effect in effects {
                self.perform(&shell, effect);
            }
        }
        shell.is_busy.set(false);
        self.show();
    }

    fn perform(self, shell: &Rc<Shell>, effect: Effect) {
        match effect {
            Effect::WriteHash(hash) => location::write_hash(&hash),
            Effect::Navigate(url) => location::navigate(&url),
            Effect::Connect { socket, url } => self.connect(shell, socket, &url),
            Effect::Disconnect => *shell.socket.borrow_mut() = None,
            Effect::Send(text) => {
                if let Some(socket) = &*shell.socket.borrow() {
                    socket.send(&text);
                }
            }
            Effect::Upload { url, bytes } => spawn_local(async move {
                let outcome = http::put(&url, &bytes).await;
                self.send(Message::Uploaded { url, outcome });
            }),
            Effect::FetchShort { id } => spawn_local(async move {
                self.send(Message::ShortLoaded(fetch_definition(&id).await));
            }),
            Effect::FetchShortFiles(files) => spawn_local(async move {
                if let Some(files) = fetch_texts(files).await {
                    self.send(Message::ShortFilesLoaded(files));
                }
            }),
            Effect::FetchResult { job, time, url } => spawn_local(async move {
                let answer = http::get_text(&url).await;
                let outcome = answer.as_ref().map_err(Clone::clone).and_then(|text| read_result(text));
                let (text, outcome) = (answer.unwrap_or_default(), outcome.map(Box::new));
                self.send(Message::ResultLoaded { job, time, text, outcome });
            }),
            Effect::FetchJobs { url } => spawn_local(async move {
                self.send(Message::JobsLoaded(fetch_jobs(&url).await));
            }),
            Effect::ReadKept { job, key } => spawn_local(async move {
                if let Some(text) = browser::kept::read(&key).await {
                    self.send(Message::KeptLoaded { job, text });
                }
            }),
            Effect::Keep { key, text } => spawn_local(async move {
                browser::kept::write(&key, text.as_deref()).await;
            }),
            Effect::ResolveOutputs { job, time, outputs } => spawn_local(async move {
                let outputs = resolve(outputs).await;
                self.send(Message::OutputsResolved { job, time, outputs });
            }),
            Effect::PostOutputs(outputs) => {
                if let Some(host) = &*shell.host.borrow() {
                    host.post_outputs(outputs);
                }
            }
            Effect::Set(timer, None) => {
                shell.timers.borrow_mut().remove(&timer);
            }
            Effect::Set(timer, Some(millis)) => {
                let timeout = timer::Timeout::new(millis, move || self.send(Message::TimerFired(timer)));
                let replaced = match timeout {
                    Some(timeout) => shell.timers.borrow_mut().insert(timer, timeout),
                    None => None,
                };
                drop(replaced);
            }
            Effect::RememberStop(id, is_stopped) => {
                let key = stops_key(&shell.host_id.borrow());
                let known = storage::session_get(&key).unwrap_or_default();
                let mut ids: Vec<&str> =
                    known.split_whitespace().filter(|known| *known != id.as_str()).collect();
                // A bound: what was stopped long ago will not come back.
                ids.truncate(200);
                if is_stopped && !shell.host_id.borrow().is_empty() {
                    ids.insert(0, id.as_str());
                }
                storage::session_set(&key, (!ids.is_empty()).then(|| ids.join(" ")).as_deref());
            }
            Effect::RememberConsent(sites) => {
                let all: Vec<String> = consented().into_iter().chain(sites).collect();
                storage::local_set(CONSENTED, Some(&all.join(" ")));
            }
            Effect::LogChanged => self.log_version.update(|version| *version = version.wrapping_add(1)),
        }
    }

    fn connect(self, shell: &Rc<Shell>, number: u64, url: &str) {
        let socket = Socket::open(url, move |event| {
            self.send(match event {
                SocketEvent::Opened => Message::SocketOpened { socket: number },
                SocketEvent::Text(text) => Message::SocketFrame { socket: number, text },
                SocketEvent::Closed => Message::SocketClosed { socket: number },
            });
        });
        let failed = socket.is_none();
        *shell.socket.borrow_mut() = socket;
        if failed {
            self.send(Message::SocketClosed { socket: number });
        }
    }

    /// Derives what is shown.
    fn show(self) {
        let shell = self.with_shell(Rc::clone);
        let Ok(state) = shell.state.try_borrow() else { return };
        let button = header::button(&state);
        let trouble = trouble(&state, browser::now());
        let is_idle = matches!(button, JobButton::Run | JobButton::SaveAndRun)
            && !state.address.settings.autostart
            && state.log.is_empty()
            && state.job.ending.is_none()
            && trouble.is_none();
        // Outputs may be large: they are derived only from another result.
        let result = state.job.shown_finish().map_or(std::ptr::null(), |finish| Rc::as_ptr(finish).cast());
        let outputs = if shell.shown_result.replace(result) == result {
            self.outputs.get_untracked()
        } else {
            Rc::new(lists::outputs(&state))
        };
        let finish = state.job.finish();
        let header = header::header(&state);
        self.parts.show(Screen {
            percent: header.percent,
            header,
            can_stop: header::can_stop(&state),
            can_delete: header::can_delete(&state),
            are_outputs_sent: finish
                .is_some_and(|finish| state.sent.as_ref().is_some_and(|(_, time)| *time == finish.time)),
            inputs: lists::inputs(&state),
            address: state.address.clone(),
            definition: state.edited_definition(),
            queue: queue_view(&state),
            job_link: state.current().map(|wanted| {
                let id = wanted.id.to_string();
                (format!("{}/j/{id}", wanted.queue.api_origin()), id)
            }),
            files: state.file_names(),
            workers: state.workers.as_deref().map(lists::workers),
            jobs: lists::jobs(&state),
            is_blank: state.address.is_blank() && matches!(state.short, Short::None),
            drafts: state.drafts.keys().cloned().collect(),
            pin: header::pin(&state),
            end: header::end_line(&state),
            button,
            trouble,
            outputs,
            is_idle,
        });
    }
}

fn queue_view(state: &State) -> QueueView {
    let queue = state.address.settings.queue.as_ref();
    QueueView {
        name: state.address.queue_text().to_owned(),
        // Alone there is no page around this one that could set the queue (`metaframe` 5.11).
        is_locked: state.address.queue_is_locked() && state.handshake != Handshake::Standalone,
        api_origin: queue.map(|queue| queue.api_origin().to_owned()).unwrap_or_default(),
        key: queue.map(|queue| queue.key().reveal().to_owned()).unwrap_or_default(),
        is_connected: state.connection.may_speak(),
        has_no_worker: state.has_no_worker(),
        summary: state.summary,
        n_workers: match (&state.summary, &state.workers) {
            (Some(summary), None) => Some(summary.workers),
            (_, Some(workers)) => Some(workers.len() as u64),
            (None, None) => None,
        },
    }
}

/// The sites that may run jobs on this computer; none where nothing can be remembered.
fn consented() -> Vec<String> {
    let known = storage::local_get(CONSENTED).unwrap_or_default();
    known.split_whitespace().map(str::to_owned).collect()
}

fn stops_key(host: &str) -> String {
    format!("dockframe-stopped:{host}")
}

/// The jobs of a queue, as far as they are listed.
async fn fetch_jobs(url: &str) -> Result<BTreeMap<JobId, JobObject>, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        data: BTreeMap<JobId, JobObject>,
    }
    let text = http::get_text(url).await?;
    let answer: Answer = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(answer.data)
}

/// Asks the page's own origin for the definition of a short address.
async fn fetch_definition(id: &str) -> Result<Option<Definition>, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        data: Option<Definition>,
    }
    let url = format!("{}/j/{id}/definition.json", location::origin());
    let text = http::get_text(&url).await?;
    let answer: Answer =
        serde_json::from_str(&text).map_err(|_| "the server's answer cannot be read".to_owned())?;
    Ok(answer.data)
}

/// The files of a definition as texts; `None` when one of them is none, or cannot be had: what is saved from the
/// editor takes the place of all of them.
async fn fetch_texts(files: Map<String, Value>) -> Option<Map<String, Value>> {
    let mut texts = Map::new();
    for (name, entry) in files {
        let text = match lists::content(&DataRef::try_from_entry(&entry)?, &location::origin()) {
            lists::Content::Bytes(bytes) => String::from_utf8(bytes).ok()?,
            lists::Content::Url(url) => String::from_utf8(http::get_bytes(&url).await.ok()?).ok()?,
        };
        texts.insert(name, Value::from(text));
    }
    Some(texts)
}

/// Fetches the contents that lie elsewhere; one that cannot be fetched is sent as its address.
async fn resolve(outputs: Outputs) -> Vec<(String, OutputValue)> {
    let mut resolved = outputs.ready;
    for Fetch { name, url } in outputs.fetch {
        let value = match http::get_bytes(&url).await {
            Ok(bytes) => OutputValue::blob(&bytes),
            Err(_) => OutputValue::Plain(serde_json::json!({ "type": "url", "value": url })),
        };
        resolved.push((name, value));
    }
    resolved
}
