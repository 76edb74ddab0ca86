//! How a running call tells of its progress.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::rpc::Request;

/// What a call sends before its reply.
#[derive(Debug, Clone)]
pub(super) struct Notifier {
    messages: mpsc::Sender<Value>,
    /// Given by the caller when it wants to hear of progress.
    token: Option<Value>,
}

impl Notifier {
    pub(super) fn new(messages: mpsc::Sender<Value>, request: &Request) -> Self {
        let token = request.params.get("_meta").and_then(|meta| meta.get("progressToken")).cloned();
        Self { messages, token }
    }

    pub(super) async fn progress(&self, progress: u64, message: &str) {
        let Some(token) = &self.token else { return };
        let params = json!({ "progressToken": token, "progress": progress, "message": message });
        let notification = json!({ "method": "notifications/progress", "params": params, "jsonrpc": "2.0" });
        // Whoever does not listen any more ends the call with its connection.
        drop(self.messages.send(notification).await);
    }
}
