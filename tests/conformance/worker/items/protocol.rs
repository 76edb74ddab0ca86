//! 10 to 14: registration, timers, status and definitions, the old way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::{item, unseen};
use crate::test::now;
use crate::worker::bench::PATIENT;
use crate::worker::relay::{Relay, Way, queued};
use crate::worker::setup::{Line, START, Test};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "10a",
            Compat,
            "A registration is the first frame, comes every 10 s, and at a foreign PONG.",
            registrations
        )
        .long(),
        item!("10b", Dockframe, "Registrations go on after a reconnect.", registrations_after_reconnect)
            .long(),
        item!("10c", Dockframe, "The queue's name is one encoded segment of the path.", encoded_queue),
        item!(
            "11a",
            Compat,
            "PING comes every 5 s, and a relay that does not answer is left within 30 s.",
            pings
        )
        .long(),
        item!("11b", Compat, "A relay that sends no list is left within 45 s.", no_lists).long(),
        item!("11c", Compat, "A cut connection is opened again within 10 s.", reconnects),
        item!(
            "11d",
            Dockframe,
            "A cut connection is opened again at once while a job is held.",
            reconnects_at_once
        ),
        unseen!(
            "11e",
            Dockframe,
            "Memory stays bounded while the relay refuses for an hour.",
            "takes an hour: a soak, not a test"
        ),
        item!(
            "12",
            Compat,
            "Running and Finished have their fields, and what is unknown is ignored.",
            fields
        ),
        item!("13a", Compat, "A status request is answered within 2 s.", status),
        item!(
            "13b",
            Dockframe,
            "The status tells no definition, and a running job is not finished.",
            status_tells_little
        ),
        item!(
            "14a",
            Compat,
            "Definitions of waiting jobs are asked for, and the jobs claimed then.",
            definitions
        ),
        item!("14b", Dockframe, "A missing definition delays no other job.", missing_definition),
        item!("14c", Dockframe, "A definition of 1 MiB works.", large_definition),
        item!("14d", Dockframe, "Definitions are asked for in batches, and only of candidates.", batches),
        item!(
            "14e",
            Dockframe,
            "A job that was taken while its definition came is not claimed.",
            taken_meanwhile
        ),
    ]
}

async fn registrations(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let first = bench.relay.heard()[0].clone();
    same_json("type of the first frame", &first.frame["type"], &json!("WorkerRegistration"))?;
    for field in ["time", "version", "id", "cpus", "gpus", "maxJobDuration"] {
        that(field, !first.frame["payload"][field].is_null(), &first.frame)?;
    }
    let times = bench.relay.until("two more registrations", Duration::from_secs(26), |relay| {
        let heard = relay.heard().into_iter();
        let times: Vec<Instant> =
            heard.filter(|heard| heard.frame["type"] == "WorkerRegistration").map(|heard| heard.at).collect();
        (times.len() >= 3).then_some(times)
    });
    let times = times.await?;
    for pair in times.windows(2) {
        let gap = pair[1].duration_since(pair[0]);
        that("10 s between registrations", (8.0..13.0).contains(&gap.as_secs_f64()), &gap)?;
    }
    let n = bench.relay.payloads("WorkerRegistration").len();
    bench.relay.say(&json!("PONG somebody-else"))?;
    bench
        .relay
        .until("a registration at a foreign PONG", Duration::from_secs(3), |relay| {
            (relay.payloads("WorkerRegistration").len() > n).then_some(())
        })
        .await
}

async fn registrations_after_reconnect(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.close(None);
    let first = bench.relay.registered_on(1, PATIENT).await?;
    let of_link = |relay: &Relay| {
        let heard = relay.heard().into_iter().filter(|heard| heard.link == first.link);
        heard.filter(|heard| heard.frame["type"] == "WorkerRegistration").count()
    };
    bench
        .relay
        .until("a second and third registration there", Duration::from_secs(26), |relay| {
            (of_link(relay) >= 3).then_some(())
        })
        .await?;
    let frames = bench.relay.heard();
    let begin = frames.iter().find(|heard| heard.link == first.link);
    that(
        "a registration first",
        begin.is_some_and(|heard| heard.frame["type"] == "WorkerRegistration"),
        &begin,
    )
}

async fn encoded_queue(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Leases).await?;
    let queue = format!("a b/c?d#e%ü-{}", t.nonce());
    let worker = t.worker_by(&relay, Line { queue: Some(queue.clone()), ..Line::default() })?;
    relay.registration(START).await.map_err(|error| error.context(worker.process.output()))?;
    let path = &relay.paths()[0];
    let segment = path.strip_prefix("/q/").and_then(|rest| rest.strip_suffix("/worker"));
    let decoded = segment.map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy());
    that("one encoded segment", decoded.as_deref() == Some(&*queue) && path.matches('/').count() == 3, path)
}

async fn pings(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let pings = bench.relay.until("four pings", Duration::from_secs(25), |relay| {
        let pings: Vec<Instant> =
            relay.heard().iter().filter(|heard| heard.frame == "PING").map(|heard| heard.at).collect();
        (pings.len() >= 4).then_some(pings)
    });
    let pings = pings.await?;
    for pair in pings.windows(2).skip(1) {
        let gap = pair[1].duration_since(pair[0]);
        that("5 s between pings", (3.5..7.5).contains(&gap.as_secs_f64()), &gap)?;
    }
    bench.relay.set(|settings| settings.answers_pings = false);
    bench.relay.registered_on(1, Duration::from_secs(30)).await?;
    Ok(())
}

async fn no_lists(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.set(|settings| settings.sends_lists = false);
    bench.relay.registered_on(1, Duration::from_secs(45)).await?;
    Ok(())
}

async fn reconnects(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.close(None);
    bench.relay.registered_on(1, Duration::from_secs(10)).await?;
    bench.run(t.sh("true")).await?.good()?;
    Ok(())
}

async fn reconnects_at_once(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    bench.relay.close(None);
    bench.relay.registered_on(1, Duration::from_secs(2)).await?;
    bench.relay.close(None);
    bench.relay.registered_on(2, Duration::from_secs(3)).await?;
    Ok(())
}

async fn fields(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let begin = now();
    bench.relay.say(&json!({ "type": "Novelty", "payload": { "x": 1 } }))?;
    bench.relay.say(&json!("WHAT"))?;
    bench.relay.say(&json!("{\"type\":"))?;
    bench.relay.say(&json!({ "type": "JobStates" }))?;
    bench.relay.say(
        &json!({ "type": "JobStatusPayload", "payload": { "jobId": "x", "step": "Running", "logs": [] } }),
    )?;
    let mut definition = t.sh("echo hi; echo x > /outputs/x");
    definition["unknown"] = json!({ "field": true });
    let ended = bench.run(definition).await?.good()?;
    let id = json!(bench.worker.id);
    let running = &bench.relay.changes(&ended.job, "Running")[0];
    same_json("tag", &running["tag"], &id)?;
    same_json("value.worker", &running["value"]["worker"], &id)?;
    same_json("value.type", &running["value"]["type"], &json!("Running"))?;
    that("a time in ms", running["value"]["time"].as_u64().is_some_and(|time| time >= begin), running)?;
    let finished = &bench.relay.changes(&ended.job, "Finished")[0];
    same_json("tag", &finished["tag"], &id)?;
    same_json("value.type", &finished["value"]["type"], &json!("Finished"))?;
    same_json("value.worker", &finished["value"]["worker"], &id)?;
    that("a later time", finished["value"]["time"].as_u64() >= running["value"]["time"].as_u64(), finished)?;
    let result = ended.result();
    same_json("isTimedOut", &result["isTimedOut"], &json!(false))?;
    same_json("StatusCode", &result["StatusCode"], &json!(0))?;
    that("a duration in ms", result["duration"].as_f64().is_some_and(|ms| ms < 30_000.0), result)?;
    same_json("output", &result["outputs"]["x"], &json!({ "value": "eAo=", "type": "base64" }))?;
    let line = &result["logs"][0];
    that(
        "a tuple of text and time",
        line[0] == "hi\n" && line[1].as_u64().is_some_and(|time| time >= begin),
        line,
    )?;
    let streamed = bench.relay.logs(&ended.job);
    that(
        "the line in the stream, of step Running",
        streamed.iter().any(|logs| logs.step == "Running"),
        &streamed,
    )
}

async fn asked(bench: &crate::worker::bench::Bench) -> anyhow::Result<Value> {
    bench.relay.say(&json!({ "type": "StatusRequest" }))?;
    let answer = bench.relay.message("WorkerStatusResponse", Duration::from_secs(2), |_| true).await?;
    Ok(answer.frame["payload"].clone())
}

async fn status(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let answer = asked(&bench).await?;
    same_json("id", &answer["id"], &json!(bench.worker.id))?;
    same_json("cpus", &json!(answer["cpus"].as_f64()), &json!(2.0))?;
    same_json("gpus", &json!(answer["gpus"].as_f64()), &json!(0.0))?;
    that("a time", answer["time"].is_u64(), &answer)?;
    same_json("jobId", &answer["queue"][&job]["jobId"], &json!(job))?;
    that("finished is a boolean", answer["queue"][&job]["finished"].is_boolean(), &answer)
}

async fn status_tells_little(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--max-job-duration=17m"]).await?;
    let mut definition = t.sh("echo up; sleep 600");
    definition["env"] = json!({ "SECRET": "hush-hush" });
    let job = bench.submit(definition)?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let answer = asked(&bench).await?;
    that("no definition", !answer.to_string().contains("hush-hush"), &answer)?;
    same_json("finished of a running job", &answer["queue"][&job]["finished"], &json!(false))?;
    same_json("maxJobDuration", &answer["maxJobDuration"], &json!("17m"))
}

async fn definitions(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("true")).await?.good()?;
    let asks = bench.relay.payloads("RequestJobDefinitions");
    let is_asked = |ask: &Value| ask["jobIds"].as_array().is_some_and(|ids| ids.contains(&json!(ended.job)));
    that("a question for the definition", asks.iter().any(is_asked), &asks)
}

async fn missing_definition(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.put("nobody-knows", queued(1));
    let begin = Instant::now();
    bench.run(t.sh("true")).await?.good()?;
    // The existing worker waits for 11 s.
    that("no wait for the missing one", begin.elapsed() < Duration::from_secs(9), &begin.elapsed())
}

async fn large_definition(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let content = "0123456789abcdef".repeat(1 << 16);
    let mut definition = t.sh("wc -c < /inputs/large");
    definition["inputs"] = json!({ "large": { "type": "utf8", "value": content } });
    let ended = bench.run(definition).await?.good()?;
    same("size of the input", &ended.stdout().trim(), &"1048576")
}

async fn batches(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    bench.relay.set(|settings| settings.defines = false);
    let jobs: Vec<String> = (0..20).map(|n| format!("batch-{}-{n}", t.nonce())).collect();
    let mut table = serde_json::Map::new();
    for (n, job) in jobs.iter().enumerate() {
        table.insert(job.clone(), queued(n as u64 + 1));
    }
    let done = json!({ "queuedTime": 1, "state": "Finished", "time": 2, "worker": "w", "finishedReason": "Success" });
    table.insert("done".to_owned(), done);
    let list = json!({ "type": "JobStates", "payload": { "isSubset": false, "state": { "jobs": table } } });
    bench.relay.set(|settings| settings.sends_lists = false);
    bench.relay.say(&list)?;
    bench.relay.message("RequestJobDefinitions", PATIENT, |_| true).await?;
    for _ in 0..5 {
        bench.relay.say(&list)?;
    }
    // Its answer shows that all lists were read.
    asked(&bench).await?;
    let asks = bench.relay.payloads("RequestJobDefinitions");
    that("few questions for twenty jobs in six lists", asks.len() <= 3, &asks)?;
    that("no question for a finished job", !json!(asks).to_string().contains("\"done\""), &asks)
}

async fn taken_meanwhile(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.set(|settings| settings.defines = false);
    let job = bench.submit(t.sh("true"))?;
    bench.relay.message("RequestJobDefinitions", PATIENT, |_| true).await?;
    let taken = json!({ "queuedTime": 1, "state": "Running", "time": 2, "worker": "00000000-other" });
    bench.relay.put(&job, taken);
    let definitions = json!({ "definitions": { &job: t.sh("true") } });
    bench.relay.say(&json!({ "type": "BroadcastJobDefinitions", "payload": definitions }))?;
    bench
        .relay
        .never("claim of a taken job", Duration::from_secs(3), |relay| {
            relay.changes(&job, "Running").into_iter().next()
        })
        .await
}
