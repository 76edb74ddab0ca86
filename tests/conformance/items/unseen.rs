//! What cannot be shown from outside, or only by a restart, a clock or the insides: each says why. One that can be
//! shown after all is here too, because it belongs to a row of its own.

use serde_json::json;

use crate::check::that;
use crate::peers::client::Client;
use crate::peers::lease_worker::LeaseWorker;
use crate::registry::{Item, item, unseen};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        unseen!(
            "10.2a",
            Dockframe,
            "Which of two states wins is as recorded.",
            "the table is a pure function: its vectors are tested beside it"
        ),
        unseen!(
            "10.14j",
            Dockframe,
            "Leases live a full ttl after a restart, a pause or an outage of the store.",
            "needs restarts of the relay and its store"
        ),
        unseen!(
            "10.15",
            Dockframe,
            "The invariants hold under simulation.",
            "the simulation drives the relay's core, not the wire"
        ),
        unseen!(
            "R-26",
            Dockframe,
            "A queue that nobody uses is closed.",
            "memory and timers are not on the wire"
        ),
        unseen!(
            "R-29",
            Dockframe,
            "A result whose document is missing reads as null.",
            "needs a damaged store"
        ),
        unseen!(
            "R-33",
            Dockframe,
            "Workers of a crashed instance are forgotten.",
            "needs to kill an instance"
        ),
        unseen!("R-43", Dockframe, "A submission's body is not logged.", "needs the relay's log"),
        unseen!("R-46", Dockframe, "A restart keeps all namespaces.", "needs a restart of the relay"),
        unseen!(
            "J-12",
            Dockframe,
            "An error of the infrastructure may be forgotten.",
            "a permission, not a promise"
        ),
        unseen!("J-13", Dockframe, "A live job never loses its definition.", "needs four weeks"),
        unseen!(
            "J-21",
            Dockframe,
            "A job known to another instance alone is not hidden.",
            "needs a store that has lost an entry"
        ),
        item!("J-22", Dockframe, "Secrets of a submission are never shown.", secrets),
        unseen!(
            "J-23",
            Dockframe,
            "A record and its documents are written in order.",
            "needs a relay killed between two writes"
        ),
    ]
}

async fn secrets(t: Test) -> anyhow::Result<()> {
    let (http, queue, secret) = (t.http(), t.queue(), Test::nonce());
    let (client, worker) = (Client::join(&t, &queue).await?, LeaseWorker::join(&t, &queue, 1).await?);
    let control = json!({ "namespace": "n", "callbacks": { "finished": { "url": format!("https://{secret}.invalid/"), "payload": secret } },
        "outputs": { "nhost": { "PAT": secret, "path": "p" } } });
    let id = http.submit_body(&queue, &json!({ "definition": Test::job(), "control": control })).await?;
    let grant = worker.take().await?;
    client.state(&id, "Running").await?;
    worker.succeed(&grant.lease, "out").await?;
    client.state(&id, "Finished").await?;
    let mut texts = vec![format!("{:?}", client.frames(0)), format!("{:?}", worker.frames(0))];
    for path in ["", "/status", "/metrics"].map(|rest| format!("/q/{queue}{rest}")) {
        texts.push(http.get(&path).await?.text());
    }
    for path in ["", "/result.json", "/definition.json", "/history.json"]
        .map(|rest| format!("/q/{queue}/j/{id}{rest}"))
    {
        texts.push(http.get(&path).await?.text());
    }
    for text in texts {
        that("no secret", !text.contains(&secret), &text)?;
    }
    Ok(())
}
