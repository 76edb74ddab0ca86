//! Amounts: `duration-and-bytes.json`, and the GPUs of `worker-misc.json`.

use dockframe_shared::units::gpus::{GpuDevice, GpuOffer};
use dockframe_shared::units::{bytes, duration};
use serde_json::{Value, json};

use crate::{Differences, entries, load, text};

#[test]
fn durations_are_read_as_by_the_library() {
    let mut differences = Differences::default();
    for entry in entries(&load("duration-and-bytes.json")["duration"]) {
        differences.check(text(entry, "in"), &duration::parse(text(entry, "in")), &entry["ms"].as_f64());
    }
}

/// Where ours is meant to differ from the recorded library (`worker` 8.2), and what it gives: none is an error.
const SIZES: [(&str, Option<u64>); 14] = [
    // A unit of one letter, or with `i`, was cut off.
    ("64m", Some(64 << 20)),
    ("64M", Some(64 << 20)),
    ("2g", Some(2 << 30)),
    ("2G", Some(2 << 30)),
    ("100k", Some(100 << 10)),
    ("1gib", Some(1 << 30)),
    ("1 gib", Some(1 << 30)),
    // A space in front made it bytes.
    (" 1gb", Some(1 << 30)),
    // What is no size, or none that could be meant, is refused.
    ("-1mb", None),
    ("0", None),
    ("1e3", None),
    ("1,5gb", None),
    ("abc", None),
    ("", None),
];

#[test]
fn sizes_are_read_as_by_the_library_or_as_they_were_meant() {
    let mut differences = Differences::default();
    for entry in entries(&load("duration-and-bytes.json")["bytes"]) {
        let given = text(entry, "in");
        let meant = SIZES.iter().find(|(text, _)| *text == given);
        let expected = meant.map_or(entry["bytes"].as_u64(), |(_, bytes)| *bytes);
        differences.check(given, &bytes::parse(given).ok(), &expected);
    }
}

/// Values that the recorded program silently took for no GPU, or counted wrongly; ours refuses them
/// (`worker` 2.4), or takes them for what they say.
const REFUSED: [&str; 10] =
    ["device=", "device=1,,3", "device=1, 3", "device=a", "GPU-abc", "-1", "1.5", "", " 2", "device=GPU-"];

fn recorded(offer: &GpuOffer) -> Value {
    let (total, indices) = match offer {
        GpuOffer::None => (0, vec![]),
        GpuOffer::Count(count) => (*count, vec![]),
        // The recorded program took `all` for eight; ours asks the machine.
        GpuOffer::All => (8, vec![]),
        GpuOffer::Devices(devices) => (
            u32::try_from(devices.len()).expect("few devices"),
            devices
                .iter()
                .map(|device| match device {
                    GpuDevice::Index(index) => json!(index),
                    GpuDevice::Uuid(uuid) => json!(uuid),
                })
                .collect(),
        ),
    };
    json!([total, indices])
}

#[test]
fn gpus_are_read_as_by_the_reference_or_refused() {
    let mut differences = Differences::default();
    for entry in entries(&load("worker-misc.json")["gpu"]) {
        let given = text(entry, "in");
        let expected = match given {
            refused if REFUSED.contains(&refused) => None,
            "count=2" => Some(json!([2, []])),
            "device=GPU-1234" => Some(json!([1, ["GPU-1234"]])),
            _ => Some(json!([entry["out"]["totalGpus"], entry["out"]["deviceIndices"]])),
        };
        let ours = given.parse::<GpuOffer>().ok().map(|offer| recorded(&offer));
        differences.check(given, &ours, &expected);
    }
}
