//! Making a result fit into a frame (`worker` 6.5, End): long logs and inline outputs become blobs.

use std::time::Duration;

use dockframe_shared::javascript::base64;
use dockframe_shared::job::{FinishReason, Finished, JobResult};
use dockframe_shared::metaframe::data_ref::DataRefKind;
use serde_json::Value;
use tracing::warn;

use crate::files::outputs::Uploader;
use crate::logs::ResultLog;

/// Room for the frame around the result.
const ENVELOPE_BYTES: u64 = 4096;
/// Text that stays in the result when the whole log has become a blob.
const KEPT_LOG_BYTES: u64 = 192 << 10;

/// The result as it is, or with its largest parts brought to the relay's store first.
pub(crate) async fn shrink(finished: Finished, max: u64, uploader: &Uploader, limit: Duration) -> Finished {
    let before = bytes(&finished);
    if before <= max {
        return finished;
    }
    let Some(mut result) =
        finished.result.clone().and_then(|value| serde_json::from_value::<JobResult>(value).ok())
    else {
        return finished;
    };
    let whole = serde_json::to_vec(&result.logs).unwrap_or_default();
    match uploader.bring_bytes(whole, limit).await {
        Ok(reference) => result.logs_url = reference.value.as_str().map(str::to_owned),
        Err(error) => warn!("a long log could not be uploaded, only its head and tail are kept: {error}"),
    }
    // As JSON a text may be several times longer: of a small frame it takes a small part.
    let mut kept = ResultLog::new(KEPT_LOG_BYTES.min(max / 8));
    for line in result.logs.drain(..) {
        kept.push(line);
    }
    result.logs = kept.into_lines(finished.time);
    let mut finished = with_result(finished, &result);
    if bytes(&finished) <= max {
        return finished;
    }
    for reference in result.outputs.values_mut() {
        let inline = match (&reference.value, reference.kind) {
            (Value::String(text), Some(DataRefKind::Base64)) => base64::decode(text).ok(),
            _ => None,
        };
        if let Some(content) = inline.filter(|content| !content.is_empty())
            && let Ok(brought) = uploader.bring_bytes(content, limit).await
        {
            *reference = brought;
        }
    }
    finished = with_result(finished, &result);
    let after = bytes(&finished);
    if after <= max {
        return finished;
    }
    result.outputs.clear();
    result.logs.truncate(1);
    result.error = Some(Value::String(format!(
        "result too large: {before} bytes, {after} without logs and inline outputs; the relay takes {max}"
    )));
    finished.reason = FinishReason::Error;
    with_result(finished, &result)
}

fn with_result(mut finished: Finished, result: &JobResult) -> Finished {
    finished.result = serde_json::to_value(result).ok();
    finished
}

fn bytes(finished: &Finished) -> u64 {
    serde_json::to_vec(finished).map_or(u64::MAX, |text| text.len() as u64 + ENVELOPE_BYTES)
}
