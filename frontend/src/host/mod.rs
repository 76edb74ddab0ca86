//! The page around this one: the postMessage protocol of metaframes (`metaframe` 1).
//!
//! Any page may embed us, so every message is untrusted data: what does not fit is ignored silently. The host's
//! messages are read one after the other, also when one holds files whose bytes take a while.

mod values;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use js_sys::{Object, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::MessageEvent;

use dockframe_shared::metaframe::inputs::PipeValue;
use dockframe_shared::metaframe::outputs::OutputValue;

use crate::browser::timer::Timeout;
use crate::browser::{location, window};

/// The version of the protocol that this page speaks; nothing is negotiated.
const VERSION: &str = "2";
/// First pause before the request is repeated; doubled up to the longest.
const FIRST_PAUSE_MS: i64 = 200;
const LONGEST_PAUSE_MS: i64 = 5_000;

/// What the host said.
#[derive(Debug)]
pub enum HostEvent {
    /// The first answer, with all inputs it holds for us, its id, and where its page is from.
    Answered { host: String, origin: String, inputs: BTreeMap<String, PipeValue> },
    /// Changed inputs; `None` deletes.
    Inputs(Vec<(String, Option<PipeValue>)>),
}

/// The link to the host.
pub struct Host {
    /// Our name, which the host knows us by.
    name: String,
    last_id: Cell<u32>,
    host: RefCell<Option<String>>,
    /// Where the host's page is from.
    origin: RefCell<String>,
    /// Outputs set before the host answered.
    early: RefCell<Vec<(String, OutputValue)>>,
    /// The hash changed before the host answered.
    owes_hash: Cell<bool>,
    retry: RefCell<Option<Timeout>>,
    waiting: RefCell<VecDeque<JsValue>>,
    is_reading: Cell<bool>,
    /// The answer's inputs were read.
    has_answer: Cell<bool>,
    on_event: Box<dyn Fn(HostEvent)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Host {
    /// Listens, then asks until it is answered. Lives as long as the page.
    #[must_use]
    pub fn start(on_event: impl Fn(HostEvent) + 'static) -> Rc<Self> {
        let host = Rc::new(Self {
            name: window().name().unwrap_or_default(),
            last_id: Cell::new(0),
            host: RefCell::new(None),
            origin: RefCell::new(String::new()),
            early: RefCell::new(Vec::new()),
            owes_hash: Cell::new(false),
            retry: RefCell::new(None),
            waiting: RefCell::new(VecDeque::new()),
            is_reading: Cell::new(false),
            has_answer: Cell::new(false),
            on_event: Box::new(on_event),
        });
        let this = Rc::clone(&host);
        let listener = Closure::<dyn Fn(MessageEvent)>::new(move |event: MessageEvent| this.receive(&event));
        let _ = window().add_event_listener_with_callback("message", listener.as_ref().unchecked_ref());
        listener.forget();
        host.ask(FIRST_PAUSE_MS);
        host
    }

    fn ask(self: &Rc<Self>, pause: i64) {
        self.post("SetupIframeClientRequest", &version());
        let this = Rc::clone(self);
        *self.retry.borrow_mut() = Timeout::new(pause, move || this.ask((pause * 2).min(LONGEST_PAUSE_MS)));
    }

    /// One message to the host, in the protocol's envelope.
    fn post(&self, method: &str, params: &JsValue) {
        let Ok(Some(parent)) = window().parent() else { return };
        self.last_id.set(self.last_id.get() + 1);
        let host = self.host.borrow().as_ref().map_or(JsValue::UNDEFINED, |host| host.into());
        let message = object(&[
            ("jsonrpc", "2.0".into()),
            ("id", self.last_id.get().into()),
            ("method", method.into()),
            ("params", params.clone()),
            ("iframeId", self.name.as_str().into()),
            ("parentId", host),
        ]);
        let _ = parent.post_message(&message, "*");
    }

    fn receive(self: &Rc<Self>, event: &MessageEvent) {
        let from_parent = match (event.source(), window().parent()) {
            (Some(source), Ok(Some(parent))) => Object::is(&source, &parent),
            _ => false,
        };
        let data = event.data();
        if !from_parent || !data.is_object() || text(&data, "jsonrpc").as_deref() != Some("2.0") {
            return;
        }
        let params = get(&data, "params");
        match text(&data, "method").as_deref() {
            Some("SetupIframeServerResponse") => self.answered(&params, event.origin()),
            Some("InputsUpdate") => {
                let host = self.host.borrow().clone();
                let is_ours = host.is_some()
                    && text(&data, "parentId") == host
                    && text(&data, "iframeId").as_ref() == Some(&self.name);
                if is_ours {
                    self.read_later(get(&params, "inputs"));
                }
            }
            // `MessageAck` of hosts in debug mode, and whatever comes one day.
            _ => {}
        }
    }

    fn answered(self: &Rc<Self>, params: &JsValue, origin: String) {
        // Several answers come when the request was repeated; the first counts.
        if self.host.borrow().is_some() {
            return;
        }
        let Some(id) = text(params, "parentId") else { return };
        *self.host.borrow_mut() = Some(id);
        *self.origin.borrow_mut() = origin;
        *self.retry.borrow_mut() = None;
        self.post("SetupIframeServerResponseAck", &version());
        let early = std::mem::take(&mut *self.early.borrow_mut());
        self.post("OutputsUpdate", &values::write_map(&early));
        if self.owes_hash.take() {
            self.hash_changed();
        }
        self.read_later(get(&get(params, "state"), "inputs"));
    }

    /// Reads one map of inputs after the other; the first is that of the answer.
    fn read_later(self: &Rc<Self>, inputs: JsValue) {
        self.waiting.borrow_mut().push_back(inputs);
        if self.is_reading.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        wasm_bindgen_futures::spawn_local(async move {
            loop {
                let next = this.waiting.borrow_mut().pop_front();
                let Some(inputs) = next else { break };
                // The first map is that of the answer.
                let event = if this.has_answer.replace(true) {
                    HostEvent::Inputs(values::read_map(&inputs).await)
                } else {
                    let host = this.host.borrow().clone().unwrap_or_default();
                    let origin = this.origin.borrow().clone();
                    HostEvent::Answered { host, origin, inputs: values::read_all(&inputs).await }
                };
                (this.on_event)(event);
            }
            this.is_reading.set(false);
        });
    }

    /// Changed outputs, as one message; before the handshake they are kept for it.
    pub fn post_outputs(&self, outputs: Vec<(String, OutputValue)>) {
        if self.host.borrow().is_some() {
            self.post("OutputsUpdate", &values::write_map(&outputs));
        } else {
            let mut early = self.early.borrow_mut();
            for (name, value) in outputs {
                early.retain(|(known, _)| *known != name);
                early.push((name, value));
            }
        }
    }

    /// Reports a change of the hash, also one that the host made itself. Before the handshake the host would lose
    /// it: then the change is reported after the acknowledgement.
    pub fn hash_changed(&self) {
        if self.host.borrow().is_none() {
            self.owes_hash.set(true);
            return;
        }
        let params =
            object(&[("hash", location::hash().as_str().into()), ("metaframe", self.name.as_str().into())]);
        self.post("HashParamsUpdate", &params);
    }
}

fn version() -> JsValue {
    object(&[("version", VERSION.into())])
}

fn object(entries: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (name, value) in entries {
        // Setting an own property of a plain object cannot fail.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object.into()
}

fn get(value: &JsValue, name: &str) -> JsValue {
    if value.is_object() {
        Reflect::get(value, &name.into()).unwrap_or(JsValue::UNDEFINED)
    } else {
        JsValue::UNDEFINED
    }
}

fn text(value: &JsValue, name: &str) -> Option<String> {
    get(value, name).as_string()
}
