//! Where the relay is meant to answer otherwise than was recorded over HTTP, and why.

use anyhow::ensure;
use serde_json::json;

use crate::peers::http::Answer;

/// What is intended in place of the recorded answer.
type Intended = fn(&Answer, &str) -> anyhow::Result<()>;

/// One difference: the note of the step, why, and what is intended. The check is given the id of the job whose
/// submission was recorded as `H1`.
#[derive(Debug)]
pub(super) struct Difference {
    note: &'static str,
    pub(super) reason: &'static str,
    pub(super) intended: Intended,
}

pub(super) fn of(note: &str) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| difference.note == note)
}

const fn differs(note: &'static str, reason: &'static str, intended: Intended) -> Difference {
    Difference { note, reason, intended }
}

const DIFFERENCES: &[Difference] = &[
    differs("submit: empty body", "R-8: what is no submission is 400", refused),
    differs("submit: broken", "R-8: what is no submission is 400", refused),
    differs("submit: empty object", "R-8: what is no submission is 400", refused),
    differs("submit: list", "R-8: what is no submission is 400", refused),
    differs("submit: number", "R-8: what is no submission is 400", refused),
    differs("submit: id without definition", "R-8: what is no submission is 400", refused),
    differs("submit: bare definition", "R-8: a bare definition may be taken", |answer, id| {
        match answer.status {
            200 => Ok(()),
            _ => refused(answer, id),
        }
    }),
    differs("copy, no body", "R-28: a copy without a queue is 400", refused),
    differs(
        "namespace with a lone percent",
        "R-23: decoded once, and if that fails as it is",
        |answer, _| {
            ensure!(answer.is(200)?.json()?.is_object(), "expected an object");
            Ok(())
        },
    ),
    differs("live logs without queue: nothing yet", "R-17: the same lines by both forms", |answer, _| {
        let body = json!({ "data": [["r1\n", 2], ["e1\n", 3, true]], "sliceStart": 0, "nextCursor": 2, "isFinal": false });
        answer.says(200, &body)
    }),
    differs(
        "results, other queue",
        "R-34, R-11: an unverified id answers its own queue alone",
        |answer, _| answer.says(200, &json!({ "data": null })),
    ),
    differs(
        "status there shows it",
        "R-34, R-11: an unverified id answers its own queue alone",
        |answer, id| {
            let state = answer.is(200)?.json()?["jobs"][id]["state"].take();
            ensure!(state == "Queued", "expected the job Queued; came {state}");
            Ok(())
        },
    ),
    differs("list there does not", "R-34, R-38: one view for all", |answer, id| {
        let state = answer.is(200)?.json()?["data"][id]["state"].take();
        ensure!(state == "Queued", "expected the job Queued; came {state}");
        Ok(())
    }),
    differs("cancel there does not find it", "R-34, R-38: one view for all", |answer, id| {
        answer.says(200, &json!({ "success": true, "jobId": id, "namespace": "_" }))
    }),
    differs("output own", "R-12: only an own origin is taken for a key", |answer, _| {
        leads_to(answer, "https://relay.example/f/abc")
    }),
    differs("output other", "R-12: what points elsewhere leads there", |answer, _| {
        leads_to(answer, "https://example.org/data/file.bin")
    }),
    differs("output nourl", "R-40: 404", |answer, _| answer.tells(404, "Output file 'nourl' not found")),
    differs("output k", "R-15: a key is read as a blob", |answer, _| {
        ensure!(
            matches!(answer.status, 200 | 302 | 404),
            "expected the blob or its absence; came {}",
            answer.status
        );
        Ok(())
    }),
    differs("output untyped", "R-15: no type is text", |answer, _| answer.tells(200, "x")),
    differs("output a%20b", "R-13: names are decoded", |answer, _| answer.tells(200, "sp")),
    differs("output o.html", "R-15: active types are text or attachments", |answer, _| {
        answer.tells(200, "<b>")
    }),
    differs("upload", "R-10: an upload may be taken directly", |answer, _| {
        ensure!(matches!(answer.status, 200 | 201), "expected 200 or 201; came {}", answer.status);
        Ok(())
    }),
    differs("download", "R-10: a relay that stores blobs itself may hand them out itself", |answer, _| {
        match answer.status {
            302 => Ok(()),
            _ => answer.tells(200, "hello"),
        }
    }),
    differs(
        "download of nothing",
        "R-10: a relay that stores blobs itself knows that there is none",
        |answer, _| {
            ensure!(matches!(answer.status, 302 | 404), "expected 404; came {}", answer.status);
            Ok(())
        },
    ),
    differs("key with an encoded slash", "R-37: a key is one segment after decoding", |answer, _| {
        answer.is(400).map(|_| ())
    }),
    differs("wrong method", "R-9: a 404 under the API is JSON", |answer, _| answer.is(404).map(|_| ())),
];

fn refused(answer: &Answer, _: &str) -> anyhow::Result<()> {
    answer.refuses(400)
}

fn leads_to(answer: &Answer, target: &str) -> anyhow::Result<()> {
    let location = answer.is(302)?.header("location");
    ensure!(location == Some(target), "expected {target}; came {location:?}");
    Ok(())
}
