//! The recorded messages of real hosts and of the existing page (item 14, and `reference-app-*`).

use crate::page::replay;
use crate::page::setup::Test;
use crate::registry::{Item, item};

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!("14", Compat, "Every recorded host gets the messages that the recorded metaframe sent, in order.", replay::host::all).long(),
        item!("62", Compat, "Every recorded use of the existing page gives the same messages to host and relay, but for intended differences.", replay::app::all).long(),
    ]
}
