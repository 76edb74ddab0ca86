//! MCP: the relay as a set of tools for language models (`relay-protocol` 2.20, R-31, R-41).
//!
//! Stateless: no session is ever issued, nothing has to be initialised, any relay can answer. `transport` speaks the
//! transport (Streamable HTTP), `rpc` reads and writes JSON-RPC, `methods` dispatches, `tools` and `resources` do,
//! `progress` tells of a long call. They call the service directly: the relay needs no address of its own, and a tool
//! can do nothing that its caller's knowledge of a queue's name does not allow. No tool and no resource lists queues.

mod about;
mod methods;
mod progress;
mod resources;
mod rpc;
mod tools;
mod transport;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};

use super::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/mcp", any(transport::endpoint))
        .route("/mcp/health", get(about::health))
        .route("/mcp/info", get(about::info))
}

/// Who calls.
#[derive(Debug)]
struct Caller {
    app: Arc<App>,
    /// Scheme, host and port under which it reaches this relay.
    origin: String,
}
