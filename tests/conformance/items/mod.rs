//! The tests, one file a subject.

mod basics;
mod blobs;
mod callbacks;
mod cancel;
mod copies;
mod endings;
mod files;
mod frames;
mod identity;
mod instances;
mod lease_ends;
mod leases;
mod lists;
mod logs;
mod lost;
mod mcp;
mod mixed;
mod namespaces;
mod reads;
mod rights;
mod robustness;
mod sockets;
mod status;
mod stream;
mod submit;
mod trust;
mod unseen;
mod vectors;
mod watch;

use crate::registry::Item;

/// All tests, in the order of the specification: the checklists, then the rows.
pub(crate) fn all() -> Vec<Item> {
    let mut all: Vec<Item> = [
        basics::items(),
        blobs::items(),
        callbacks::items(),
        cancel::items(),
        copies::items(),
        endings::items(),
        files::items(),
        frames::items(),
        identity::items(),
        instances::items(),
        lease_ends::items(),
        leases::items(),
        lists::items(),
        logs::items(),
        lost::items(),
        mcp::items(),
        mixed::items(),
        namespaces::items(),
        reads::items(),
        rights::items(),
        robustness::items(),
        sockets::items(),
        status::items(),
        stream::items(),
        submit::items(),
        trust::items(),
        unseen::items(),
        vectors::items(),
        watch::items(),
    ]
    .concat();
    all.sort_by_key(|item| place(item.about.id));
    all
}

/// `7.18` before `10.3a` before `R-2` before `J-1`.
fn place(id: &str) -> (u8, u32, &str) {
    let (section, rest) = match id.split_once(['.', '-']) {
        Some(("7", rest)) => (0, rest),
        Some(("10", rest)) => (1, rest),
        Some(("R", rest)) => (2, rest),
        _ => (3, id.trim_start_matches("J-")),
    };
    let letters = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &rest[..rest.len() - letters.len()];
    (section, digits.parse().unwrap_or(0), letters)
}
