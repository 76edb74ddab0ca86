//! The table of jobs that messages of states leave at a peer.

use serde_json::{Map, Value};

use super::socket::Frame;

/// The jobs of a message of states, and whether it is the whole table.
pub(super) fn jobs_of(frame: &Frame) -> Option<(bool, &Map<String, Value>)> {
    let Frame::Json(value) = frame else { return None };
    let whole = match value["type"].as_str()? {
        "JobStates" => true,
        "JobStateUpdates" => false,
        _ => return None,
    };
    Some((whole, value["payload"]["state"]["jobs"].as_object()?))
}

/// A full list replaces the table, an update is merged into it; `null` (to watchers) takes a job out.
pub(crate) fn fold(frames: &[Frame]) -> Map<String, Value> {
    let mut table = Map::new();
    for (whole, jobs) in frames.iter().filter_map(jobs_of) {
        if whole {
            table.clear();
        }
        for (id, job) in jobs {
            if job.is_null() {
                table.remove(id);
            } else {
                table.insert(id.clone(), job.clone());
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn states(kind: &str, jobs: &Value) -> Frame {
        Frame::Json(json!({ "type": kind, "payload": { "state": { "jobs": jobs } } }))
    }

    #[test]
    fn a_full_list_replaces_the_table_and_an_update_merges() {
        let frames = [
            states("JobStates", &json!({ "a": 1, "b": 2 })),
            states("JobStateUpdates", &json!({ "b": 3 })),
            Frame::Word("PONG".to_owned()),
        ];
        assert_eq!(Value::Object(fold(&frames)), json!({ "a": 1, "b": 3 }));
        let replaced = states("JobStates", &json!({ "c": 4 }));
        assert_eq!(Value::Object(fold(&[frames[0].clone(), replaced])), json!({ "c": 4 }));
    }
}
