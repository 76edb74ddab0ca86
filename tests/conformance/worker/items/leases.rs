//! 81: leases, `jobs-and-states` 8, as the worker keeps them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::item;
use crate::worker::bench::PATIENT;
use crate::worker::relay::{Way, lease};
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "81a",
            Dockframe,
            "The upgrade asks for leases; where they are granted nothing of the old way is said.",
            header
        ),
        item!("81b", Dockframe, "Without lists nothing is reconnected or killed.", no_lists).long(),
        item!(
            "81c",
            Dockframe,
            "Every accepted lease is in each registration, also after a cut.",
            named_leases
        ),
        item!(
            "81d",
            Dockframe,
            "A grant is answered at once, and no line comes before the accept.",
            accept_first
        ),
        item!("81e", Dockframe, "A revoke that overtakes its grant is remembered.", overtaken_grant),
        item!(
            "81f",
            Dockframe,
            "A finish is sent until it is answered, unchanged, and again at a new epoch.",
            finish_until_answered
        ),
        item!(
            "81g",
            Dockframe,
            "A finish fits into the relay's frame; its text lies where logsUrl says.",
            bounded_finish
        ),
        item!("81h", Dockframe, "Lines of both kinds are numbered from 0 without a gap.", numbered_lines),
        item!(
            "81i",
            Dockframe,
            "What the machine cannot do is declined, what the definition does wrong is an Error.",
            decline_or_error
        ),
        item!(
            "81j",
            Dockframe,
            "A revoke is answered by silence and the end of the container within its grace.",
            revoke
        ),
    ]
}

async fn header(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    that("the header", bench.relay.wanted_leases(0), &bench.relay.paths())?;
    let registration = bench.registered().await?;
    for field in ["instance", "leases", "memoryBytes", "executor"] {
        that(field, !registration[field].is_null(), &registration)?;
    }
    bench.run(t.sh("echo hi")).await?.good()?;
    for kind in ["StateChange", "RequestJobDefinitions", "WorkerStatusResponse"] {
        same(kind, &bench.relay.payloads(kind).len(), &0)?;
    }
    Ok(())
}

async fn no_lists(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let job = bench.submit(t.sh("echo up; until [ -e /tmp/go ]; do sleep 0.1; done"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench
        .relay
        .never("new connection", Duration::from_secs(45), |relay| {
            (relay.n_links() > 1).then_some(relay.n_links())
        })
        .await?;
    same("the container", &bench.container(&job).await?, &container)
}

async fn named_leases(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--cpus=2"]).await?;
    let jobs = [bench.submit(t.sh("echo up; sleep 600"))?, bench.submit(t.sh("echo up; sleep 600"))?];
    for job in &jobs {
        bench.relay.prints(job, "up", PATIENT).await?;
    }
    let names_both = |registration: &Value| {
        let all = registration["leases"].as_array().cloned().unwrap_or_default();
        jobs.iter()
            .all(|job| all.iter().any(|one| one["leaseId"] == lease(job, 1) && one["phase"] == "running"))
    };
    bench.relay.message("WorkerRegistration", PATIENT, names_both).await?;
    bench.relay.close(None);
    let first = bench.relay.registered_on(1, PATIENT).await?;
    that("both in the first registration", names_both(&first.frame["payload"]), &first.frame)
}

async fn accept_first(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let begin = Instant::now();
    let job = bench.submit(t.sh("echo hi"))?;
    let accept = bench.relay.message("LeaseAccept", Duration::from_secs(5), |_| true).await?;
    that("within 3 s", accept.at.duration_since(begin) < Duration::from_secs(3), &begin.elapsed())?;
    bench.ended(&job).await?.good()?;
    let first = bench.relay.logs(&job).into_iter().next();
    that("no line before it", first.is_some_and(|logs| logs.at >= accept.at), &accept)
}

async fn overtaken_grant(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let job = format!("overtaken-{}", t.nonce());
    bench.relay.revoke(&job, 1, "cancelled", 0)?;
    bench.relay.grant(&job, 1, t.sh("true"))?;
    bench.run(t.sh("true")).await?.good()?;
    let heard = bench.relay.payloads("LeaseAccept");
    that("no accept", heard.iter().all(|accept| accept["leaseId"] != lease(&job, 1)), &heard)?;
    that("no report", bench.relay.finish(&job).is_none(), &job)
}

async fn finish_until_answered(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    bench.relay.set(|settings| settings.answers_finish = false);
    let job = bench.run(t.sh("echo hi")).await?.good()?.job;
    let count = |n: usize| {
        let job = job.clone();
        move |relay: &crate::worker::relay::Relay| (relay.finishes(&job).len() >= n).then_some(())
    };
    bench.relay.close(None);
    bench.relay.until("the second sending", PATIENT, count(2)).await?;
    bench.relay.set(|settings| settings.answers_finish = true);
    bench.relay.close(None);
    bench.relay.until("the third sending", PATIENT, count(3)).await?;
    bench.relay.set(|settings| settings.epoch = "epoch-2".to_owned());
    bench.relay.close(None);
    bench.relay.until("the sending at a new epoch", PATIENT, count(4)).await?;
    let all = bench.relay.finishes(&job);
    that("all the same", all.windows(2).all(|pair| pair[0] == pair[1]), &all)
}

async fn bounded_finish(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    bench.relay.set(|settings| settings.max_finish_bytes = 20_000);
    bench.relay.close(None);
    bench.relay.registered_on(1, PATIENT).await?;
    let script = "echo begin; yes 0123456789 | head -n 20000; echo end; cd /outputs; n=0; while [ $n -lt 90 ]; do head -c 150 /dev/zero > f$n; n=$((n+1)); done";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let frame = json!({ "type": "LeaseFinish", "payload": { "leaseId": lease(&ended.job, 1), "value": ended.value } });
    let size = frame.to_string().len();
    that("at most 20000 bytes", size <= 20_000, &size)?;
    let url = ended.result()["logsUrl"].as_str().unwrap_or_default().to_owned();
    let key = url.rsplit('/').next().unwrap_or_default();
    let blob = bench.relay.blob(key).map(|blob| String::from_utf8_lossy(&blob).into_owned());
    that(
        "the text at logsUrl",
        blob.is_some_and(|text| text.contains("begin") && text.contains("end")),
        &url,
    )?;
    same("outputs", &ended.outputs().len(), &90)
}

async fn numbered_lines(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let text = format!("FROM {}\nLABEL {}\nRUN echo one && echo two\n", t.image(), t.image_label());
    let script = "n=0; while [ $n -lt 50 ]; do echo line $n; n=$((n+1)); usleep 20000; done";
    let ended = bench
        .run(json!({ "build": { "dockerfile": text }, "command": ["sh", "-c", script] }))
        .await?
        .good()?;
    let mut next = [0_u64; 2];
    for logs in bench.relay.logs(&ended.job) {
        let place = usize::from(logs.step == "Running");
        same(&format!("from of {}", logs.step), &logs.from, &Some(next[place]))?;
        next[place] += logs.lines.len() as u64;
    }
    that("lines of both kinds", next.iter().all(|count| *count > 0), &next)?;
    same_json("the first", &json!(bench.relay.text(&ended.job).lines().next()), &json!("line 0"))
}

async fn decline_or_error(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--memory=1G", "--tag=eu"]).await?;
    let busy = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&busy, "up", PATIENT).await?;
    for (fields, retry) in [
        (json!({}), "soon"),
        (json!({ "requirements": { "gpus": 1 } }), "never"),
        (json!({ "requirements": { "memory": "2G" } }), "never"),
        (json!({ "tags": ["us"] }), "never"),
    ] {
        let mut definition = t.sh("true");
        if let (Value::Object(all), Value::Object(more)) = (&mut definition, fields) {
            all.extend(more);
        }
        let job = bench.submit(definition)?;
        let declined = bench
            .relay
            .message("LeaseDecline", Duration::from_secs(5), |decline| decline["leaseId"] == lease(&job, 1))
            .await?;
        let payload = &declined.frame["payload"];
        same_json("retry", &payload["retry"], &json!(retry))?;
        that("a reason", payload["why"].as_str().is_some_and(|why| why.len() > 3), payload)?;
    }
    bench.relay.revoke(&busy, 1, "cancelled", 0)?;
    bench.no_container(&busy, PATIENT).await?;
    for definition in [
        t.job(json!({ "command": "echo ${" })),
        t.job(json!({ "command": "true", "maxDuration": "soon" })),
        t.job(json!({ "command": "true", "inputs": { "../x": { "value": "" } } })),
    ] {
        bench.run(definition).await?.failed()?;
    }
    Ok(())
}

async fn revoke(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--kill-grace=1s"]).await?;
    let job = bench.submit(t.sh("trap '' TERM; echo up; while :; do echo more; sleep 0.1; done"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let begin = Instant::now();
    bench.relay.revoke(&job, 1, "replaced", 20_000)?;
    bench.no_container(&job, Duration::from_secs(10)).await?;
    that("the worker's smaller grace", begin.elapsed() < Duration::from_secs(8), &begin.elapsed())?;
    let frames = bench.relay.logs(&job).len();
    bench
        .relay
        .never("word of it", Duration::from_secs(4), |relay| {
            let more = relay.logs(&job).len() > frames;
            relay.finish(&job).or_else(|| more.then_some(Value::Null))
        })
        .await?;
    let named = bench.relay.payloads("WorkerRegistration").pop().unwrap_or_default();
    that("not named any more", !named["leases"].to_string().contains(&job), &named)
}
