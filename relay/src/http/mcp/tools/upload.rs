//! `upload_file`: bytes under a key of their own, for the inputs of jobs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dockframe_shared::javascript::uri::encode_component;
use futures_util::stream;
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, arguments, tool, unavailable};
use crate::blobs::{BlobKey, PutError};
use crate::http::mcp::Caller;
use crate::limits::cut;

const CONTENT_TYPE: &str = "text/plain";
/// What a key keeps of a name; time and random letters come before it.
const MAX_NAME_BYTES: usize = 200;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    filename: String,
    content: String,
    content_type: Option<String>,
    encoding: Option<Encoding>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Text,
    Base64,
}

pub(super) fn schema() -> Value {
    tool(
        "upload_file",
        "Upload a file. Its downloadUrl can be an input of a job: \
         {\"type\": \"url\", \"value\": downloadUrl} in a definition's `inputs`.",
        &json!({
            "filename": { "type": "string", "description": "Name of the file" },
            "content": { "type": "string", "description": "Its content, as `encoding` says" },
            "contentType": { "type": "string", "description": "Its media type", "default": CONTENT_TYPE },
            "encoding": { "type": "string", "enum": ["text", "base64"], "description": "How the content is written", "default": "text" },
        }),
        &["filename", "content"],
    )
}

pub(super) async fn upload(caller: &Caller, given: Map<String, Value>) -> Result<Value, Failure> {
    let given: Arguments = arguments(given)?;
    let encoding = given.encoding.unwrap_or(Encoding::Text);
    let (name, content) = match encoding {
        Encoding::Text => ("text", given.content.into_bytes()),
        Encoding::Base64 => {
            let decoded = STANDARD.decode(given.content.trim());
            let unreadable = |_| Failure::new("Invalid content", "The content is not base64.");
            ("base64", decoded.map_err(unreadable)?)
        }
    };
    let size = content.len();
    let key = key(&given.filename, caller.app.service.now().as_millis())
        .ok_or_else(|| Failure::new("Invalid filename", "A file needs a name."))?;
    let content = stream::iter([Ok::<_, std::io::Error>(Bytes::from(content))]);
    let stored = caller.app.service.blobs.put(&key, u64::try_from(size).ok(), content).await;
    stored.map_err(|error| match error {
        PutError::Disk(_) => unavailable(&error),
        error => Failure::new("Upload failed", error.to_string()),
    })?;
    Ok(json!({
        "success": true,
        "filename": given.filename,
        "key": key.as_str(),
        "contentType": given.content_type.as_deref().unwrap_or(CONTENT_TYPE),
        "encoding": name,
        "size": size,
        "downloadUrl": format!("{}/f/{}", caller.origin, encode_component(key.as_str())),
        "message": format!("{} is uploaded", given.filename),
    }))
}

/// `<ms>-<6 random>-<filename>`: what a key may not hold is replaced.
fn key(filename: &str, now: i64) -> Option<BlobKey> {
    let name: String = filename
        .chars()
        .map(|letter| if matches!(letter, '/' | '\\') || letter.is_control() { '_' } else { letter })
        .collect();
    let letters: String =
        rand::rng().sample_iter(rand::distr::Alphanumeric).take(6).map(char::from).collect();
    let key = format!("{now}-{}-{}", letters.to_ascii_lowercase(), cut(&name, MAX_NAME_BYTES));
    (!name.is_empty()).then(|| BlobKey::new(&key)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_key() {
        let long = "ä".repeat(300);
        for name in ["f.txt", "a/b.txt", "..", "what?\n#.txt", "a\\b", long.as_str()] {
            let key = key(name, 1_795_461_425_388).unwrap();
            let mut parts = key.as_str().splitn(3, '-');
            assert_eq!(parts.next(), Some("1795461425388"));
            assert_eq!(parts.next().map(str::len), Some(6));
            assert!(parts.next().is_some_and(|name| !name.is_empty()));
        }
        assert_eq!(key("", 1), None);
    }
}
