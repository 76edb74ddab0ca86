//! When a job runs, and how it is ended (`metaframe` 5.4, 5.6; items 26 to 28, 41, 43, 45 to 47, 53).

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use super::screen::{COMPLETE, QUEUED, RUN, RUNNING, STOP};
use crate::check::{same, same_json, that};
use crate::page::host::NAME;
use crate::page::relay::{Relay, SOON, Style, Way, What, entry, finished, id_of, with_outputs};
use crate::page::setup::{Hash, Scripted, Test};
use crate::registry::{Item, item};
use crate::test::now;

/// As long as a submission may still come from something that happened before.
const AFTERWARDS: Duration = Duration::from_millis(2500);

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!("26", Compat, "Without autostart nothing runs by itself; a known finished job is shown and its outputs are sent.", waits_without_autostart),
        item!("27", Compat, "With autostart a job runs on start and on each new id.", autostart),
        item!("28", Compat, "Stop cancels and nothing starts after it; Delete deletes, and runs again only with autostart.", stop_and_delete).long(),
        item!("41", Dockframe, "Each way in which relays tell of a submission and of an ending is understood.", ways_of_telling).long(),
        item!("43", Dockframe, "A job that ended elsewhere is said to have, and is not started again; one that left the lists stays shown.", ended_elsewhere),
        item!("45", Dockframe, "Stop and Delete carry type and namespace; stopping is shown until it is confirmed.", names_its_namespace).long(),
        item!("46", Dockframe, "A stopped job is not started by a reconnect or a reload by the host, but by Run Job and a page opened anew.", stays_stopped).long(),
        item!("47", Dockframe, "A result of another queue is said to be one and is run here on demand, also by a relay that knows no rerun.", run_again).long(),
        item!("53", Dockframe, "Before the first list only PING is sent; a click while disconnected is sent later; a dead socket is replaced.", waits_for_the_socket).long(),
    ]
}

async fn bench(test: &Test, way: Way, hash: &Hash) -> anyhow::Result<Scripted> {
    test.scripted(test.relay(way).await?, &hash.text(), &no_inputs()).await
}

/// The id that the page has for a job, found by letting another page submit it.
async fn id_for(test: &Test, hash: &Hash) -> anyhow::Result<String> {
    let relay = test.relay(Way::Old).await?;
    test.alone(&relay, &hash.clone().with("autostart", "true").text()).await?;
    id_of(&relay.submission(0).await?)
}

async fn waits_without_autostart(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job());
    let id = id_for(&test, &hash).await?;
    for way in [Way::Old, Way::Watch] {
        let relay = test.relay(way).await?;
        let outputs = json!({ "small.txt": { "type": "base64", "value": "aGk=" } });
        relay.put(&id, finished("Success", now() - 5000), Some(with_outputs(&outputs)));
        let hosted = test.hosted_with(relay, &hash.text(), &json!({})).await?;
        hosted.host.output_is(NAME, "small.txt", &outputs["small.txt"]).await?;
        hosted.page.shows_one(COMPLETE).await?;
        // A job that nobody knows waits for the button.
        let unknown = hash.clone().with("N", "unknown");
        let bench = bench(&test, way, &unknown).await?;
        bench.page.has_one(RUN, Some(true)).await?;
        bench.relay.stays_quiet(0, AFTERWARDS).await?;
        bench.page.press_one(RUN).await?;
        bench.relay.submission(0).await?;
        that(
            "nothing of the known one",
            hosted.relay.submissions(0).is_empty(),
            &hosted.relay.submissions(0),
        )?;
    }
    Ok(())
}

async fn autostart(test: Test) -> anyhow::Result<()> {
    for way in [Way::Old, Way::Watch] {
        let bench = bench(&test, way, &Hash::auto(&test.queue(), &test.job())).await?;
        let mut id = id_of(&bench.relay.submission(0).await?)?;
        for n in 0..2 {
            let mark = bench.relay.mark();
            bench.host.inputs(json!({ "n": n })).await?;
            id = id_of(&bench.relay.submission_of_another(&id, mark).await?)?;
        }
        // Submitted again at most as a repetition, which the queue ignores.
        let mut ids: Vec<_> = bench.relay.submissions(0).iter().filter_map(|all| id_of(all).ok()).collect();
        ids.dedup();
        same("jobs", &ids.len(), &3)?;
    }
    Ok(())
}

async fn stop_and_delete(test: Test) -> anyhow::Result<()> {
    for way in [Way::Old, Way::Watch] {
        let auto = Hash::auto(&test.queue(), &test.job());
        let stopped = bench(&test, way, &auto).await?;
        let id = id_of(&stopped.relay.submission(0).await?)?;
        stopped.relay.runs(&id);
        stopped.page.press_one(STOP).await?;
        stopped.relay.ending("Cancelled", 0).await?;
        let mark = stopped.relay.mark();
        stopped.relay.list();
        stopped.relay.stays_quiet(mark, AFTERWARDS).await?;

        for with_autostart in [false, true] {
            let hash = if with_autostart { auto.clone() } else { auto.clone().without("autostart") };
            let bench = bench(&test, way, &hash.with("D", "1")).await?;
            if !with_autostart {
                bench.page.press_one(RUN).await?;
            }
            bench.relay.runs_to_the_end(0, with_outputs(&json!({}))).await?;
            bench.page.shows_one(COMPLETE).await?;
            let mark = bench.relay.mark();
            bench.page.press("Delete").await?;
            bench.relay.ending("Deleted", mark).await?;
            if with_autostart {
                bench.relay.submission(mark).await?;
            } else {
                bench.relay.list();
                bench.page.has_one(RUN, Some(true)).await?;
                bench.relay.stays_quiet(mark, AFTERWARDS).await?;
            }
        }
    }
    Ok(())
}

async fn ways_of_telling(test: Test) -> anyhow::Result<()> {
    for style in [Style::Lists, Style::ListsAtOnce, Style::Updates] {
        let relay = test.relay(Way::Old).await?;
        relay.set(|settings| settings.style = style);
        let bench =
            test.scripted(relay, &Hash::auto(&test.queue(), &test.job()).text(), &no_inputs()).await?;
        let id = id_of(&bench.relay.submission(0).await?)?;
        bench.page.shows_one(QUEUED).await?;
        bench.relay.runs(&id);
        bench.page.shows_one(RUNNING).await?;
        bench.page.press_one(STOP).await?;
        bench.relay.ending("Cancelled", 0).await?;
        // An empty update tells nothing; the next full list lacks the job.
        bench.relay.list();
        bench.page.has_one(RUN, Some(true)).await?;
        bench.page.shows("Stopped").await?;
        // And a question for a job that is not there has an empty answer.
        let mark = bench.relay.mark();
        bench.host.inputs(json!({ "n": 1 })).await?;
        let next = id_of(&bench.relay.submission_of_another(&id, mark).await?)?;
        bench.relay.runs(&next);
        bench.page.shows_one(RUNNING).await?;
    }
    Ok(())
}

async fn ended_elsewhere(test: Test) -> anyhow::Result<()> {
    for (way, reason) in
        [(Way::Old, "Cancelled"), (Way::Watch, "Deleted"), (Way::Watch, "JobReplacedByClient")]
    {
        let bench = bench(&test, way, &Hash::auto(&test.queue(), &test.job())).await?;
        let id = id_of(&bench.relay.submission(0).await?)?;
        bench.relay.runs(&id);
        bench.page.shows_one(RUNNING).await?;
        let mark = bench.relay.mark();
        bench.relay.ends_elsewhere(&id, reason);
        bench.relay.list();
        bench.page.shows_one(&["elsewhere", "somebody else", "newer job", "eplaced"]).await?;
        bench.relay.stays_quiet(mark, AFTERWARDS).await?;
        bench.page.has_one(RUN, Some(true)).await?;
    }
    // What left the lists 60 s after its end still answers, and stays shown.
    let bench = bench(&test, Way::Old, &Hash::auto(&test.queue(), &test.job()).with("L", "1")).await?;
    bench.relay.runs_to_the_end(0, with_outputs(&json!({}))).await?;
    bench.page.shows_one(COMPLETE).await?;
    let mark = bench.relay.mark();
    bench
        .relay
        .say(&json!({ "type": "JobStates", "payload": { "state": { "jobs": {} }, "isSubset": false } }));
    bench
        .relay
        .awaits("a question for the job", mark, SOON, |what| what.payload("QueryJob").cloned())
        .await?;
    bench.relay.stays_quiet(mark, Duration::from_secs(1)).await?;
    bench.page.shows_one(COMPLETE).await
}

async fn names_its_namespace(test: Test) -> anyhow::Result<()> {
    for way in [Way::Old, Way::Watch] {
        let control = json!({ "namespace": "mine" });
        let hash = Hash::auto(&test.queue(), &test.job()).with_json("control", &control);
        let bench = bench(&test, way, &hash).await?;
        let id = id_of(&bench.relay.submission(0).await?)?;
        bench.relay.runs(&id);
        bench.relay.set(|settings| settings.records = false);
        bench.page.press_one(STOP).await?;
        let cancel = bench.relay.ending("Cancelled", 0).await?;
        same("type", &cancel["type"], &json!("Finished"))?;
        same("namespace", &cancel["namespace"], &json!("mine"))?;
        bench.page.shows("Stopping").await?;
        // Others hold it: their run goes on, and is shown.
        let others = entry("Running", now(), json!({ "namespaces": ["other"] }));
        bench.relay.becomes(&id, &others, None);
        bench.page.shows("others").await?;
        bench.page.shows_one(RUNNING).await?;
        bench.relay.set(|settings| settings.records = true);
        bench.relay.finishes(&id, "Success", with_outputs(&json!({})));
        bench.page.shows_one(COMPLETE).await?;
        bench.page.press("Delete").await?;
        let delete = bench.relay.ending("Deleted", 0).await?;
        same("type", &delete["type"], &json!("Finished"))?;
        same("namespace", &delete["namespace"], &json!("mine"))?;
        that("no message", delete["message"].is_null(), &delete)?;
    }
    Ok(())
}

async fn stays_stopped(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job());
    let bench = bench(&test, Way::Watch, &hash).await?;
    let id = id_of(&bench.relay.submission(0).await?)?;
    bench.relay.runs(&id);
    bench.page.press_one(STOP).await?;
    bench.relay.ending("Cancelled", 0).await?;
    bench.page.has_one(RUN, Some(true)).await?;
    let mark = bench.relay.mark();
    bench.relay.cut();
    bench.relay.awaits("a new socket", mark, SOON, opened).await?;
    bench.relay.stays_quiet(mark, AFTERWARDS).await?;
    bench.host.goto(&format!("{}/?reload=1{}", bench.relay.url(), hash.text())).await?;
    bench.host.says("SetupIframeServerResponseAck", 1).await?;
    bench.relay.stays_quiet(mark, AFTERWARDS).await?;
    bench.page.press_one(RUN).await?;
    bench.relay.submission(mark).await?;
    // Opened anew, in another host.
    let anew = test.relay(Way::Watch).await?;
    test.hosted_with(anew.clone(), &hash.text(), &json!({})).await?;
    anew.submission(0).await?;
    Ok(())
}

fn opened(what: &What) -> Option<String> {
    match what {
        What::Opened { path, .. } => Some(path.clone()),
        _ => None,
    }
}

/// The `control` of the next submission with `rerun`.
async fn rerun(relay: &Relay, from: usize) -> anyhow::Result<Value> {
    relay
        .awaits("a submission with rerun", from, SOON, |what| {
            let (_, value) = what.change("Queued")?;
            let rerun = &value["enqueued"]["control"]["rerun"];
            (!rerun.is_null()).then(|| rerun.clone())
        })
        .await
}

async fn run_again(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job());
    let id = id_for(&test, &hash).await?;
    let (time, result) = (now() - 9000, with_outputs(&json!({})));
    let mut shared = finished("Success", time);
    shared["shared"] = json!(true);

    let relay = test.relay(Way::Watch).await?;
    relay.put(&id, shared, Some(result.clone()));
    let bench = test.scripted(relay, &hash.text(), &no_inputs()).await?;
    bench.page.shows("another queue").await?;
    bench.page.press("Run here").await?;
    same_json("control.rerun", &rerun(&bench.relay, 0).await?, &json!(time))?;

    let relay = test.relay(Way::Watch).await?;
    relay.put(&id, finished("Success", time), Some(result.clone()));
    let bench = test.scripted(relay, &hash.text(), &no_inputs()).await?;
    bench.page.press("Run again").await?;
    same_json("control.rerun", &rerun(&bench.relay, 0).await?, &json!(time))?;

    // A relay that knows no rerun: deleted and queued, in this order.
    let relay = test.relay(Way::Old).await?;
    relay.set(|settings| settings.knows_rerun = false);
    relay.put(&id, finished("Success", time), Some(result));
    let bench = test.scripted(relay, &hash.text(), &no_inputs()).await?;
    bench.page.press("Run again").await?;
    rerun(&bench.relay, 0).await?;
    bench.relay.ending("Deleted", 0).await?;
    let deleted = bench
        .relay
        .since(0)
        .iter()
        .position(|what| what.change("Finished").is_some_and(|(_, value)| value["reason"] == "Deleted"));
    bench.relay.submission(deleted.unwrap_or_default()).await?;
    Ok(())
}

async fn waits_for_the_socket(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Old).await?;
    relay.set(|settings| settings.greets = false);
    let bench = test.scripted(relay, &Hash::manual(&test.queue(), &test.job()).text(), &no_inputs()).await?;
    bench.relay.awaits("a socket", 0, SOON, opened).await?;
    wait::stays("nothing but PING before the first list", Duration::from_secs(2), async || {
        let other = bench.relay.since(0).into_iter().find(|what| match what {
            What::Frame { frame, .. } => frame != "PING",
            _ => false,
        });
        other.map_or(Ok(()), |what| Err(format!("{what:?}")))
    })
    .await?;
    bench.relay.say(&json!({ "type": "Workers", "payload": { "workers": [] } }));
    bench.relay.list();
    // Clicked while disconnected.
    bench.relay.awaits("a question for the job", 0, SOON, |what| what.payload("QueryJob").cloned()).await?;
    bench.relay.set(|settings| (settings.greets, settings.takes_connections) = (true, false));
    let mark = bench.relay.mark();
    bench.relay.cut();
    bench
        .relay
        .awaits("the close", mark, SOON, |what| matches!(what, What::Closed { .. }).then_some(()))
        .await?;
    bench.page.press_one(RUN).await?;
    bench.relay.set(|settings| settings.takes_connections = true);
    let id = id_of(&bench.relay.submission(mark).await?)?;
    bench.relay.runs(&id);
    bench.relay.logs(&id, "Running", &[json!(["a line to keep\n", 1])]);
    bench.page.logs("a line to keep").await?;
    // Nothing is cleared on close, and a socket without PONG is replaced.
    bench.relay.set(|settings| settings.answers_pings = false);
    let mark = bench.relay.mark();
    bench.relay.awaits("another socket", mark, Duration::from_secs(40), opened).await?;
    bench.page.logs("a line to keep").await
}
