//! The hash of the page's address (`metaframe` 1.8, 3, 5.1; items 11, 12, 17 to 20, 22, 23, 44).

use std::time::Duration;

use dockframe_tests::hash as codec;
use dockframe_tests::wait;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use super::inputs_of;
use super::screen::{RUN, STOP};
use crate::check::{same, same_json, that};
use crate::page::host::{NAME, Said};
use crate::page::relay::{Relay, SOON, Way, id_of};
use crate::page::setup::{Hash, Test};
use crate::registry::{Item, item};

/// The hash of the example in the existing service's documentation (`metaframe` 3.6).
const README: &str = "#/queue/1?command=cHl0aG9uIC1jICdwcmludCgiaGVscCIpJw%253D%253D&image=python%253A3.8.8-alpine3.13\
&job=JTdCJTIyY29tbWFuZCUyMiUzQSUyMnB5dGhvbiUyMC1jJTIwJ3ByaW50KCU1QyUyMmhlbHAlNUMlMjIpJyUyMiUyQyUyMmltYWdlJTIyJTNBJTIy\
cHl0aG9uJTNBMy4xMi4xLWFscGluZTMuMTklMjIlN0Q=&queue=public1";
const README_ID: &str = "0e43af301efde5067c447c76b6d62220324da99d61f8e7ede84efe16c36e6996";

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!(
            "11",
            Compat,
            "An own change of the hash is reported, one before the handshake after it.",
            reports_changes
        ),
        item!(
            "12",
            Compat,
            "The host's change of the hash is followed without reload and without endless messages.",
            follows_the_host
        ),
        item!("17", Compat, "JSON parameters are read in every encoding that is in use.", encodings),
        item!(
            "18",
            Compat,
            "Prefix and unknown parameters survive an edit, which sorts the keys.",
            edits_keep_the_rest
        ),
        item!("19", Compat, "A malformed parameter gives a message, not a blank page.", malformed_parameters),
        item!("20", Compat, "The search has no effect.", search_has_no_effect),
        item!("22", Compat, "The documented example has its queue and its id.", documented_example),
        item!("23", Compat, "What embedding pages add is left out of env and id.", added_by_embedders),
        item!(
            "44",
            Dockframe,
            "Every parameter is followed live, and a submission carries control and debug of the moment.",
            followed_live
        ),
    ]
}

async fn reports_changes(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &Value::Null).await?;
    bench.host.says("SetupIframeClientRequest", 1).await?;
    let change = "location.hash = location.hash + arguments[0]";
    bench.page.frame().run(change, &[json!("&first=1")]).await?;
    bench.host.answers(&no_inputs()).await?;
    let early = bench.host.says("HashParamsUpdate", 0).await?;
    same_json(
        "the change before",
        &early["params"],
        &json!({ "hash": format!("{hash}&first=1"), "metaframe": NAME }),
    )?;
    let said = bench.host.said().await?;
    let place = |method: &str| said.iter().position(|said| said.is(method));
    that(
        "the report after the acknowledgement",
        place("HashParamsUpdate") > place("SetupIframeServerResponseAck"),
        &crate::page::host::methods(&said),
    )?;
    bench.page.frame().run(change, &[json!("&second=1")]).await?;
    let later = bench.host.says("HashParamsUpdate", 1).await?;
    same_json(
        "the change after",
        &later["params"],
        &json!({ "hash": format!("{hash}&first=1&second=1"), "metaframe": NAME }),
    )
}

async fn follows_the_host(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job());
    let bench = test.scripted(test.relay(Way::Old).await?, &hash.text(), &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    bench.page.frame().run("window.notReloaded = true", &[]).await?;
    let command = json!(format!("echo other {}", test.queue()));
    let other = hash.with_json("job", &json!({ "image": "alpine:3.18.5", "command": command }));
    bench.host.goto(&format!("{}/{}", bench.relay.url(), other.text())).await?;
    let next = bench.relay.submission_of_another(&first, 0).await?;
    same("the other command", &next["definition"]["command"], &command)?;
    same("no reload", &bench.page.frame().run("return window.notReloaded", &[]).await?, &json!(true))?;
    let reports = |said: &[Said]| said.iter().filter(|said| said.is("HashParamsUpdate")).count();
    wait::stays("few messages", Duration::from_secs(1), async || {
        let n = reports(&bench.host.said().await.map_err(|error| error.to_string())?);
        if n <= 2 { Ok(()) } else { Err(format!("{n} reports of one change")) }
    })
    .await
}

async fn encodings(test: Test) -> anyhow::Result<()> {
    use base64::Engine as _;
    let job = json!({ "command": format!("echo é {}", test.queue()), "image": "alpine:3.18.5" });
    let plain = json!({ "command": format!("echo {}", test.queue()), "image": "alpine:3.18.5" });
    let usual = codec::json(&job);
    let forms = [
        (usual.clone(), &job),
        (usual.replace('=', "%3D"), &job),
        (usual.trim_end_matches('=').to_owned(), &job),
        (base64::engine::general_purpose::STANDARD.encode(plain.to_string()), &plain),
    ];
    let bench = test.scripted(test.relay(Way::Old).await?, "", &no_inputs()).await?;
    for (n, (form, wanted)) in forms.iter().enumerate() {
        let mark = bench.relay.mark();
        // Another parameter each time, so that each form gives a job of its own.
        let hash = format!("#?autostart=true&N={n}&job={form}&queue={}", test.queue());
        bench.host.goto(&format!("{}/?n={n}{hash}", bench.relay.url())).await?;
        let came = bench.relay.submission_numbered(&n.to_string(), mark).await?;
        same(&format!("the command by {form}"), &came["definition"]["command"], &wanted["command"])?;
    }
    Ok(())
}

async fn edits_keep_the_rest(test: Test) -> anyhow::Result<()> {
    let job = codec::json(&test.job());
    let hash = format!(
        "#/queue/1?zeta=1&unknown=%C3%A9&queue={}&job={job}&allowsetjob=true&Beta=x&zeta=2&flag",
        test.queue()
    );
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    bench.host.says("OutputsUpdate", 0).await?;
    let given = json!({ "command": "echo given", "image": "alpine:3.19" });
    bench.host.inputs(json!({ "job": given })).await?;
    let told = bench.host.says("HashParamsUpdate", 0).await?;
    let expected = format!(
        "#/queue/1?Beta=x&allowsetjob=true&flag=&job={}&queue={}&unknown=%C3%A9&zeta=2",
        codec::json(&given),
        test.queue()
    );
    same("the hash after the edit", &told["params"]["hash"], &json!(expected))
}

async fn malformed_parameters(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Old).await?;
    for name in ["job", "inputs", "definition", "control"] {
        let hash = Hash::manual(&test.queue(), &test.job()).with(name, "%%%not-base64");
        let page = test.alone(&relay, &hash.text()).await?;
        page.shows(name).await?;
    }
    Ok(())
}

async fn search_has_no_effect(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let relay = test.relay(Way::Old).await?;
    test.alone(&relay, &hash).await?;
    let without = relay.submission(0).await?;
    let mark = relay.mark();
    let window = test.window().await?;
    window.open(&format!("{}/?command=ls&image=python3&FOO=1&autostart=false{hash}", relay.url())).await?;
    let with = relay.submission(mark).await?;
    same_json("the definition", &with["definition"], &without["definition"])?;
    same("the id", &with["id"], &without["id"])
}

/// The id that the page asks for, whichever way it speaks.
async fn asked_for(relay: &Relay) -> anyhow::Result<String> {
    relay
        .awaits("a question for a job", 0, SOON, |what| {
            let asked = what.payload("QueryJob").and_then(|payload| payload["jobId"].as_str());
            let watched = || what.payload("Watch")?["jobs"].as_object()?.keys().next().map(String::as_str);
            asked.or_else(watched).map(str::to_owned)
        })
        .await
}

async fn documented_example(test: Test) -> anyhow::Result<()> {
    for way in [Way::Old, Way::Watch] {
        let relay = test.relay(way).await?;
        let window = test.window().await?;
        window.open(&format!("{}/?command=cHJp&image=python3{README}", relay.url())).await?;
        let path = relay
            .awaits("a socket", 0, SOON, |what| match what {
                crate::page::relay::What::Opened { path, .. } => Some(path.clone()),
                _ => None,
            })
            .await?;
        same("the socket's path", &path.split('?').next(), &Some("/q/public1/client"))?;
        same("the id", &asked_for(&relay).await?, &README_ID.to_owned())?;
    }
    Ok(())
}

async fn added_by_embedders(test: Test) -> anyhow::Result<()> {
    let added = "&mp-channel=1&mp_debug=true&channel=2&CHANNEL=3&readonly=true&edit=1&parent-metapage-id=4&fs-path=5\
        &debug=true&terminal=true&config=x&maxJobDuration=";
    let job = json!({ "image": "alpine:3.18.5", "command": test.job()["command"], "env": { "KEEP": "1", "channel": "of the job" } });
    let hash = Hash::auto(&test.queue(), &job).with("OWN", "1").text();
    let relay = test.relay(Way::Old).await?;
    test.alone(&relay, &hash).await?;
    let without = relay.submission(0).await?;
    let mark = relay.mark();
    test.alone(&relay, &format!("{hash}{added}")).await?;
    let with = relay.submission(mark).await?;
    same("the id", &with["id"], &without["id"])?;
    let env = &with["definition"]["env"];
    same("an own parameter", &env["OWN"], &json!("1"))?;
    that(
        "none of the added ones",
        env["edit"].is_null() && env["mp-channel"].is_null() && env["fs-path"].is_null(),
        env,
    )
}

async fn followed_live(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(
        &test.queue(),
        &json!({ "image": "alpine", "command": "echo ${N}", "inputs": { "own.txt": { "type": "utf8", "value": "own" } } }),
    );
    let bench = test
        .scripted(
            test.relay(Way::Watch).await?,
            &hash.clone().with("N", "1").text(),
            &json!({ "state": { "inputs": { "up.txt": "up" } } }),
        )
        .await?;
    let first = bench.relay.submission(0).await?;
    same("the first command", &first["definition"]["command"], &json!("echo 1"))?;
    let set = async |hash: &Hash| {
        bench.page.frame().run("location.hash = arguments[0]", &[json!(hash.text())]).await
    };
    // A parameter of env, with control and debug of the moment.
    let control =
        json!({ "namespace": "n1", "callbacks": { "finished": { "url": "https://example.org/done" } } });
    let next = hash.clone().with("N", "2").with("debug", "true").with_json("control", &control);
    set(&next).await?;
    let second = bench.relay.submission_of_another(&id_of(&first)?, 0).await?;
    same("the second command", &second["definition"]["command"], &json!("echo 2"))?;
    same_json("control", &second["control"], &control)?;
    same("debug", &second["debug"], &json!(true))?;
    // A removed input leaves the job's own.
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "up.txt": { "$undefined": true } })).await?;
    let third = bench.relay.submission_of_another(&id_of(&second)?, mark).await?;
    same_json("the inputs", &inputs_of(&third), &json!({ "own.txt": { "type": "utf8", "value": "own" } }))?;
    // Without image and build the former job is gone.
    let mark = bench.relay.mark();
    set(&next.with_json("job", &json!({ "command": "ls" }))).await?;
    bench.page.has_one(RUN, None).await?;
    bench.page.has_one(STOP, None).await?;
    bench.relay.stays_quiet(mark, Duration::from_millis(1200)).await
}
