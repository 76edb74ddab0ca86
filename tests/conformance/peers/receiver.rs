//! A server that receives callbacks and keeps them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use dockframe_tests::wait;

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// What the probe found while the call was being answered.
    pub(crate) probed: Option<Value>,
}

#[derive(Debug)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    /// How many calls are refused with 500 before the first is taken.
    refusals: Mutex<u32>,
    /// An address that is read within each call: `{jobId}` stands for the id.
    probe: Option<String>,
    /// How long each call takes.
    delay: Duration,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Listens on loopback.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(refusals: u32, probe: Option<String>, delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let shared =
            Arc::new(Shared { calls: Mutex::default(), refusals: Mutex::new(refusals), probe, delay });
        let router = Router::new().fallback(take).with_state(shared.clone());
        let task = tokio::spawn(async move {
            // It ends with the test; an error of the listener shows as a call that does not come.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared, task })
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a call that is as wanted.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn call(&self, limit: Duration, wanted: impl Fn(&Call) -> bool) -> anyhow::Result<Call> {
        wait::until("a callback", limit, async || {
            let calls = self.calls();
            calls.iter().find(|call| wanted(call)).cloned().ok_or_else(|| format!("{calls:?}"))
        })
        .await
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> StatusCode {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    tokio::time::sleep(shared.delay).await;
    let mut probed = None;
    if let Some(address) = &shared.probe {
        let address = address.replace("{jobId}", body["jobId"].as_str().unwrap_or_default());
        if let Ok(answer) = reqwest::get(address).await {
            probed = answer.json().await.ok();
        }
    }
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { headers, body, probed });
    let mut refusals = shared.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    if *refusals > 0 {
        *refusals -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::OK
}
