//! A real receiver of callbacks on the loopback interface.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::SOON;

/// What came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// What is answered: the next of these, 200 when there is none.
type Answers = Arc<Mutex<VecDeque<(u16, String)>>>;

pub(crate) struct Receiver {
    pub(crate) url: String,
    answers: Answers,
    received: mpsc::UnboundedReceiver<Received>,
    _stop: DropGuard,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Answers::default();
        let (sender, received) = mpsc::unbounded_channel();
        let app = Router::new().fallback(receive).with_state((Arc::clone(&answers), sender));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { url, answers, received, _stop: stop.drop_guard() }
    }

    /// The next request is answered so; `location`: empty, or where to go instead.
    pub(crate) fn answer(&self, status: u16, location: &str) {
        self.answers.lock().unwrap().push_back((status, location.to_owned()));
    }

    pub(crate) async fn next(&mut self) -> Received {
        self.next_within(SOON).await
    }

    pub(crate) async fn next_within(&mut self, limit: Duration) -> Received {
        tokio::time::timeout(limit, self.received.recv()).await.expect("no callback came").unwrap()
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

async fn receive(
    State((answers, sender)): State<(Answers, mpsc::UnboundedSender<Received>)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let received = Received {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    };
    let answer = answers.lock().unwrap().pop_front();
    drop(sender.send(received));
    let (status, location) = answer.unwrap_or((200, String::new()));
    let status = StatusCode::from_u16(status).unwrap();
    if location.is_empty() {
        status.into_response()
    } else {
        (status, [(header::LOCATION, location)]).into_response()
    }
}
