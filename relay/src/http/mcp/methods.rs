//! The methods.

use serde_json::{Map, Value, json};

use super::progress::Notifier;
use super::rpc::{INVALID_PARAMS, METHOD_NOT_FOUND, Request, RpcError};
use super::{Caller, resources, tools};

pub(super) const NAME: &str = "dockframe";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Versions of MCP that are spoken, the newest first.
const VERSIONS: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07"];

const INSTRUCTIONS: &str = "Runs Docker containers as jobs. submit_job starts one and gives its jobId; follow_job \
    waits for its end and gives its log; get_job_status gives its result. A job reads files from /inputs and writes \
    files to /outputs. The queue names the machines that run it: who knows its name may use it.";

pub(super) fn is_supported(version: &str) -> bool {
    VERSIONS.contains(&version)
}

pub(super) async fn answer(
    caller: &Caller,
    request: &Request,
    notifier: &Notifier,
) -> Result<Value, RpcError> {
    let params = &request.params;
    match request.method.as_str() {
        "initialize" => Ok(initialize(params)),
        "ping" | "logging/setLevel" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": tools::list() })),
        "tools/call" => {
            let name = text(params, "name")?;
            let arguments = match params.get("arguments") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(arguments)) => arguments.clone(),
                Some(_) => return Err(RpcError::new(INVALID_PARAMS, "`arguments` must be an object")),
            };
            tools::call(caller, name, arguments, notifier).await
        }
        "resources/list" => Ok(json!({ "resources": [resources::example()] })),
        "resources/templates/list" => Ok(json!({ "resourceTemplates": [resources::template()] })),
        "resources/read" => resources::read(caller, text(params, "uri")?).await,
        _ => Err(RpcError::new(METHOD_NOT_FOUND, "Method not found")),
    }
}

fn initialize(params: &Map<String, Value>) -> Value {
    let wanted = params.get("protocolVersion").and_then(Value::as_str);
    let version = wanted.filter(|version| is_supported(version)).unwrap_or(VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": {}, "resources": {}, "logging": {} },
        "serverInfo": { "name": NAME, "version": VERSION },
        "instructions": INSTRUCTIONS,
    })
}

fn text<'p>(params: &'p Map<String, Value>, name: &str) -> Result<&'p str, RpcError> {
    let missing = || RpcError::new(INVALID_PARAMS, format!("`{name}` must be a text"));
    params.get(name).and_then(Value::as_str).ok_or_else(missing)
}
