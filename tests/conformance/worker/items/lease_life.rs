//! 81 to 83: changes of way, a taken id, several queues.

use std::time::Duration;

use serde_json::json;

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::item;
use crate::worker::bench::{Bench, PATIENT};
use crate::worker::engine;
use crate::worker::relay::{Relay, Way, lease};
use crate::worker::setup::{Line, START, Test};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "81k",
            Dockframe,
            "A relay that learned leases: old claims are dropped, and nothing of them is sent.",
            old_to_leases
        ),
        item!(
            "81l",
            Dockframe,
            "A relay that forgot leases: the run goes on, and is reported when they are back.",
            leases_to_old
        ),
        item!("82a", Dockframe, "A worker whose id is taken goes on under another.", id_taken),
        item!("82b", Dockframe, "With runs to take up it tries for some time first.", id_taken_with_runs)
            .long(),
        item!(
            "83",
            Dockframe,
            "Two queues of one worker share its room and its files, and nothing else.",
            two_queues
        ),
    ]
}

async fn old_to_leases(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("trap 'exit 0' TERM; echo up; sleep 600 & wait"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    bench.relay.set(|settings| settings.way = Way::Leases);
    bench.relay.close(None);
    bench.relay.registered_on(1, PATIENT).await?;
    bench.no_container(&job, PATIENT).await?;
    bench.run(t.sh("true")).await?.good()?;
    that("no report", bench.relay.finish(&job).is_none(), &job)
}

async fn leases_to_old(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let job = bench.submit(t.sh("echo up; until [ -e /tmp/go ]; do sleep 0.05; done; echo down"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.relay.set(|settings| settings.way = Way::Old);
    bench.relay.close(None);
    bench.relay.registered_on(1, PATIENT).await?;
    engine::docker(&["exec", &container, "touch", "/tmp/go"]).await?;
    bench.none_runs(&job, PATIENT).await?;
    bench
        .relay
        .never("word of it", Duration::from_secs(3), |relay| {
            relay.finish(&job).or_else(|| relay.changes(&job, "Running").into_iter().next())
        })
        .await?;
    bench.relay.set(|settings| settings.way = Way::Leases);
    bench.relay.close(None);
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &"up\ndown\n")
}

async fn id_taken(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let first = bench.registered().await?;
    bench.relay.close(Some(4409));
    let second = bench.relay.registered_on(1, PATIENT).await?;
    that("another id", second.frame["payload"]["id"] != first["id"], &second.frame)?;
    let id = second.frame["payload"]["id"].as_str().unwrap_or_default().to_owned();
    t.owns_worker(&id);
    let ended = bench.run(t.sh("true")).await?.good()?;
    same_json("worker", &ended.value["worker"], &json!(id))?;
    bench
        .relay
        .never("flapping", Duration::from_secs(3), |relay| (relay.n_links() > 2).then_some(relay.n_links()))
        .await
}

async fn id_taken_with_runs(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Leases, &[]).await?;
    let job = bench.submit(t.sh("echo up; until [ -e /tmp/go ]; do sleep 0.05; done; echo down"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.kill().await?;
    let links = bench.relay.n_links();
    let line = Line {
        id: Some(bench.worker.id.clone()),
        queue: Some(bench.worker.queue.clone()),
        ..Line::default()
    };
    bench.worker = t.worker_by(&bench.relay, line)?;
    // The socket of its predecessor still looks alive: refused twice, then taken.
    for n in 0..2 {
        let again = bench.relay.registered_on(links + n, START).await?;
        same_json("its own id", &again.frame["payload"]["id"], &json!(bench.worker.id))?;
        bench.relay.close(Some(4409));
    }
    let third = bench.relay.registered_on(links + 2, START).await?;
    same_json("its own id", &third.frame["payload"]["id"], &json!(bench.worker.id))?;
    that("the lease", third.frame.to_string().contains(&lease(&job, 1)), &third.frame)?;
    engine::docker(&["exec", &container, "touch", "/tmp/go"]).await?;
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &"up\ndown\n")
}

async fn two_queues(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Leases).await?;
    let queues = ["one", "two"].map(|name| format!("{name}-{}", t.nonce()));
    // One of them is the word before the appended options.
    let line = Line {
        options: vec!["--cpus=2".to_owned(), queues[0].clone()],
        queue: Some(queues[1].clone()),
        ..Line::default()
    };
    let bench = Bench { t: t.clone(), worker: t.worker_by(&relay, line)?, relay };
    let link_of = |relay: &Relay, queue: &String| {
        relay.paths().iter().position(|path| *path == format!("/q/{queue}/worker"))
    };
    let mut links = Vec::new();
    for queue in &queues {
        let link = bench.relay.until("a connection of each queue", START, |relay| {
            let link = link_of(relay, queue)?;
            relay.heard().iter().any(|heard| heard.link == link).then_some(link)
        });
        links.push(link.await.map_err(|error| error.context(bench.worker.process.output()))?);
        // Several queues keep their caches apart.
        let digest = dockframe_shared::QueueKey::new(queue.clone())?.digest().to_hex();
        t.owns_volume(format!("metaframe-container-worker-cache-{}", &digest[..16]));
    }
    let content = vec![9; 100_000];
    let hash: String =
        <sha2::Sha256 as sha2::Digest>::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    bench.relay.put_blob(&hash, content);
    let job = format!("both-{}", t.nonce());
    for (n, link) in links.iter().enumerate() {
        let mut definition = t.sh("wc -c < /inputs/x; until [ -e /tmp/go ]; do sleep 0.05; done; echo done");
        definition["inputs"] =
            json!({ "x": { "type": "url", "value": format!("{}/f/{hash}", bench.relay.url()) } });
        let payload = json!({
            "leaseId": format!("lease-{job}-{n}"), "jobId": job, "attempt": 1, "definition": definition,
            "control": {}, "deadlineMs": 3_600_000,
        });
        bench.relay.say_on(*link, &json!({ "type": "LeaseGrant", "payload": payload }))?;
    }
    bench
        .relay
        .until("a line of both", PATIENT, |relay| {
            let logs = relay.logs(&job);
            links.iter().all(|link| logs.iter().any(|logs| logs.link == *link)).then_some(())
        })
        .await?;
    same("downloads", &bench.relay.n_requests("GET", &format!("/f/{hash}")), &1)?;
    let revoke = json!({ "leaseId": format!("lease-{job}-0"), "why": "cancelled", "graceMs": 0 });
    bench.relay.say_on(links[0], &json!({ "type": "LeaseRevoke", "payload": revoke }))?;
    dockframe_tests::wait::until("one container", PATIENT, async || {
        let running = engine::running("id", &job).await.map_err(|error| error.to_string())?;
        if running.len() == 1 { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await?;
    let container = bench.container(&job).await?;
    let labels = engine::inspect(&container).await?["Config"]["Labels"].clone();
    same_json("its queue", &labels["container.mtfm.io/queue"], &json!(queues[1]))?;
    engine::docker(&["exec", &container, "touch", "/tmp/go"]).await?;
    let finish = bench.relay.message("LeaseFinish", PATIENT, |_| true).await?;
    same("the connection of the second queue", &finish.link, &links[1])?;
    same("reports", &bench.relay.finishes(&job).len(), &1)
}
