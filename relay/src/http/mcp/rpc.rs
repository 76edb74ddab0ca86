//! JSON-RPC 2.0 as MCP uses it.

use serde_json::{Map, Value, json};

pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// Refusals of the transport.
pub(super) const TRANSPORT_ERROR: i64 = -32000;

/// Messages of one batch.
const MAX_BATCH: usize = 100;

/// Something that is answered.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
}

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
}

impl RpcError {
    /// A failure of ours: told to the log with its causes, to the caller without them.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = crate::error::chain(error), "a call of MCP failed");
        Self::new(INTERNAL_ERROR, "Internal error: try again later")
    }

    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// As an answer to this request; `null`: to none in particular.
    pub(super) fn reply_to(&self, id: &Value) -> Value {
        json!({ "jsonrpc": "2.0", "error": { "code": self.code, "message": self.message }, "id": id })
    }
}

/// What one body holds: requests to be answered. Notifications and responses need no answer.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) requests: Vec<Request>,
    /// It came as a list, and is answered as one where the answer is plain JSON.
    pub(super) is_batch: bool,
}

impl Incoming {
    pub(super) fn read(body: &[u8]) -> Result<Self, RpcError> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| RpcError::new(PARSE_ERROR, format!("Parse error: {error}")))?;
        let (messages, is_batch) = match body {
            Value::Array(messages) => (messages, true),
            message => (vec![message], false),
        };
        if messages.is_empty() || messages.len() > MAX_BATCH {
            let why = format!("Invalid Request: a batch holds 1 to {MAX_BATCH} messages");
            return Err(RpcError::new(INVALID_REQUEST, why));
        }
        let count = messages.len();
        let mut requests = Vec::new();
        for message in messages {
            requests.extend(read_message(message)?);
        }
        if count > 1 && requests.iter().any(|request| request.method == "initialize") {
            let why = "Invalid Request: `initialize` stands alone";
            return Err(RpcError::new(INVALID_REQUEST, why));
        }
        Ok(Self { requests, is_batch })
    }
}

fn read_message(message: Value) -> Result<Option<Request>, RpcError> {
    let invalid = |why: &str| RpcError::new(INVALID_REQUEST, format!("Invalid Request: {why}"));
    let Value::Object(mut fields) = message else { return Err(invalid("a message is an object")) };
    if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(invalid("`jsonrpc` must be \"2.0\""));
    }
    let method = match fields.remove("method") {
        Some(Value::String(method)) => method,
        None if fields.contains_key("result") || fields.contains_key("error") => return Ok(None),
        _ => return Err(invalid("`method` must be a text")),
    };
    let Some(id) = fields.remove("id") else { return Ok(None) };
    if !(id.is_string() || id.is_number()) {
        return Err(invalid("`id` must be a text or a number"));
    }
    let params = match fields.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(invalid("`params` must be an object")),
    };
    Ok(Some(Request { id, method, params }))
}

pub(super) fn reply(request: &Request, outcome: &Result<Value, RpcError>) -> Value {
    match outcome {
        Ok(result) => json!({ "result": result, "jsonrpc": "2.0", "id": request.id }),
        Err(error) => error.reply_to(&request.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> i64 {
        Incoming::read(body.as_bytes()).unwrap_err().code
    }

    #[test]
    fn what_is_not_json_rpc_is_refused_by_its_kind() {
        assert_eq!(code("{bad"), PARSE_ERROR);
        assert_eq!(code(""), PARSE_ERROR);
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":2,"method":"initialize"}"#;
        for body in [
            "5",
            "[]",
            "[5]",
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#,
            &format!("[{ping},{initialize}]"),
            &format!("[{}]", vec![ping; MAX_BATCH + 1].join(",")),
        ] {
            assert_eq!(code(body), INVALID_REQUEST, "{body}");
        }
        assert_eq!(Incoming::read(format!("[{initialize}]").as_bytes()).unwrap().requests.len(), 1);
    }

    #[test]
    fn notifications_and_responses_need_no_answer() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":1,"error":{"code":1}}]"#,
        ] {
            assert!(Incoming::read(body.as_bytes()).unwrap().requests.is_empty(), "{body}");
        }
    }
}
