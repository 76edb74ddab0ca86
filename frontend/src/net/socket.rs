//! One WebSocket: opens with its making, closes with its dropping, says what happens in between.

use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{MessageEvent, WebSocket};

/// What happened on a socket.
#[derive(Debug)]
pub enum SocketEvent {
    Opened,
    Text(String),
    /// Closed by whomever, or never opened.
    Closed,
}

/// An open or opening socket.
#[derive(Debug)]
pub struct Socket {
    socket: WebSocket,
    _on_open: Closure<dyn Fn()>,
    _on_message: Closure<dyn Fn(MessageEvent)>,
    _on_close: Closure<dyn Fn()>,
}

impl Socket {
    /// Begins to connect. `None`: the address is none for sockets, or this page may not open it.
    #[must_use]
    pub fn open(url: &str, on_event: impl Fn(SocketEvent) + Clone + 'static) -> Option<Self> {
        let socket = WebSocket::new(url).ok()?;
        let tell = on_event.clone();
        let on_open = Closure::<dyn Fn()>::new(move || tell(SocketEvent::Opened));
        let tell = on_event.clone();
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |event: MessageEvent| {
            // Binary frames mean nothing here.
            if let Some(text) = event.data().as_string() {
                tell(SocketEvent::Text(text));
            }
        });
        let on_close = Closure::<dyn Fn()>::new(move || on_event(SocketEvent::Closed));
        socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        Some(Self { socket, _on_open: on_open, _on_message: on_message, _on_close: on_close })
    }

    /// Sends a frame; a socket that is not open drops it, and its close event tells the rest.
    pub fn send(&self, text: &str) {
        let _ = self.socket.send_with_str(text);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        let _ = self.socket.close();
    }
}
