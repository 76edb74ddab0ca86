//! What this endpoint is, for people and for monitors.

use axum::Json;
use serde_json::{Value, json};

use super::methods::{NAME, VERSION};
use super::tools;

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy", "service": NAME, "version": VERSION }))
}

pub(super) async fn info() -> Json<Value> {
    let names: Vec<&str> = tools::NAMES.iter().map(|(name, _)| *name).collect();
    Json(json!({
        "name": NAME,
        "version": VERSION,
        "description": "Runs Docker containers as jobs: submit, follow, list and cancel them, and upload their files.",
        "transport": "streamable-http",
        "endpoint": "/mcp",
        "tools": names,
        "resources": [super::resources::EXAMPLE],
    }))
}
