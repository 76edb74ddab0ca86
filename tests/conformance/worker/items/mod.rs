//! The tests of workers, one file a subject, in the order of the checklist (`worker` 25).

mod claiming;
mod command_line;
mod container;
mod endings;
mod failures;
mod images;
mod inputs;
mod lease_life;
mod leases;
mod limits;
mod local;
mod losing;
mod operation;
mod outputs;
mod protocol;
mod streams;

use super::setup::Test;
use crate::registry::Item as AnyItem;

type Item = AnyItem<Test>;

/// All tests, in the order of the specification.
pub(crate) fn all() -> Vec<Item> {
    let mut all = [
        claiming::items(),
        command_line::items(),
        container::items(),
        endings::items(),
        failures::items(),
        images::items(),
        inputs::items(),
        lease_life::items(),
        leases::items(),
        limits::items(),
        local::items(),
        losing::items(),
        operation::items(),
        outputs::items(),
        protocol::items(),
        streams::items(),
    ]
    .concat();
    all.sort_by_key(|item| place(item.about.id));
    all
}

/// `9` before `22a` before `22b` before `W-6`.
fn place(id: &str) -> (bool, u32, &str) {
    let rest = id.trim_start_matches("W-");
    let letters = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &rest[..rest.len() - letters.len()];
    (rest.len() < id.len(), number.parse().unwrap_or(0), letters)
}
