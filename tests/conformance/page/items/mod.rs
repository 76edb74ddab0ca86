//! The tests, one file a subject of the checklist (`metaframe` 9), in its order.

mod definition;
pub(super) mod handshake;
mod hash;
mod inputs;
mod job;
mod outputs;
mod queue;
mod running;
pub(super) mod screen;
mod vectors;

use serde_json::Value;

use super::setup::Test;
use crate::registry::Item;

/// All tests, in the checklist's order.
pub(crate) fn all() -> Vec<Item<Test>> {
    let mut all = [
        handshake::items(),
        inputs::items(),
        hash::items(),
        definition::items(),
        job::items(),
        running::items(),
        outputs::items(),
        queue::items(),
        screen::items(),
        vectors::items(),
    ]
    .concat();
    all.sort_by_key(|item| item.about.id.parse::<u32>().unwrap_or(u32::MAX));
    all
}

/// The files of a submitted job.
pub(super) fn inputs_of(enqueued: &Value) -> Value {
    enqueued["definition"]["inputs"].clone()
}
