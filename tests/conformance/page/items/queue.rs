//! Queues, connections and addresses of the page (`metaframe` 5.2, 5.10 to 5.12; items 33 to 35, 56, 59).

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use super::screen::{COMPLETE, RUN, RUNNING};
use crate::check::{same, that};
use crate::page::relay::{SOON, Way, What, id_of, with_outputs};
use crate::page::setup::{Hash, Test};
use crate::registry::{Item, item};

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!(
            "33",
            Compat,
            "The page reconnects, has the job's state again, and sends nothing but JSON and PING.",
            reconnects
        ),
        item!("34", Compat, "Each form of a queue leads to its address.", queue_addresses),
        item!(
            "35",
            Compat,
            "The page works alone, in a frame, with all storage denied, and as a strip.",
            everywhere
        ),
        item!(
            "56",
            Dockframe,
            "No name of a queue blanks the page, and each leads to its socket; the field is locked only by an override.",
            queue_names
        ),
        item!(
            "59",
            Dockframe,
            "A short address has its definition from the page's origin; an unknown one is said; an edit of the job leaves it.",
            short_address
        ),
    ]
}

/// Runs in a document before the page: remembers the addresses of sockets.
const SOCKETS: &str = "window.__sockets = []; const Real = WebSocket; window.WebSocket = class extends Real { \
    constructor(...all) { window.__sockets.push(String(all[0])); super(...all); } };";

/// Runs in a document before the page: storage of every kind throws.
const NO_STORAGE: &str = "for (const [place, name] of [[window, 'localStorage'], [window, 'sessionStorage'], \
    [window, 'indexedDB'], [window, 'caches'], [Document.prototype, 'cookie'], [Navigator.prototype, 'serviceWorker']]) \
    Object.defineProperty(place, name, { configurable: true, get() { throw new DOMException('denied', 'SecurityError'); } });";

async fn reconnects(test: Test) -> anyhow::Result<()> {
    for way in [Way::Old, Way::Watch] {
        let hash = Hash::auto(&test.queue(), &test.job()).text();
        let bench = test.scripted(test.relay(way).await?, &hash, &no_inputs()).await?;
        let id = id_of(&bench.relay.submission(0).await?)?;
        bench.relay.runs(&id);
        bench.page.shows_one(RUNNING).await?;
        let mark = bench.relay.mark();
        bench.relay.cut();
        // While it is away the job ends.
        bench.relay.put(
            &id,
            crate::page::relay::finished("Success", crate::test::now()),
            Some(with_outputs(&json!({}))),
        );
        bench
            .relay
            .awaits("a new socket", mark, SOON, |what| matches!(what, What::Opened { .. }).then_some(()))
            .await?;
        bench.page.shows_one(COMPLETE).await?;
        let strange = bench.relay.since(0).into_iter().find(|what| match what {
            What::Frame { frame, .. } => !frame.is_object() && frame != "PING",
            _ => false,
        });
        that("JSON and PING alone", strange.is_none(), &strange)?;
    }
    Ok(())
}

async fn queue_addresses(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Old).await?;
    let elsewhere = test.relay(Way::Old).await?;
    let origin = relay.url().replace("http://", "ws://");
    let other = elsewhere.url().replace("http://", "ws://");
    let hash = Hash::manual("q1", &test.job());
    let cases = [
        (hash.clone(), format!("{origin}/q/q1/client")),
        (hash.clone().with("queue", "local"), "ws://localhost:8000/q/local/client".to_owned()),
        (
            hash.clone().with("queue", &format!("{}/my/q?search=1", elsewhere.url())),
            format!("{other}/q/my/q/client"),
        ),
        (hash.clone().with("queueOverride", "q2"), format!("{origin}/q/q2/client")),
        (hash.clone().with("queueOverride", ""), format!("{origin}/q/q1/client")),
        (
            hash.with("queueOverride", "q2").with("ignoreQueueOverride", "true"),
            format!("{origin}/q/q1/client"),
        ),
    ];
    for (hash, expected) in cases {
        let window = test.window().await?;
        window.chromium("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": SOCKETS })).await?;
        window.open(&format!("{}/{}", relay.url(), hash.text())).await?;
        let opened = wait::until("a socket", SOON, async || {
            match window.run("return window.__sockets?.[0] ?? null", &[]).await {
                Ok(Value::String(url)) => Ok(url),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        same(&format!("the socket of {}", hash.text()), &opened.split('?').next(), &Some(expected.as_str()))?;
    }
    // Blobs and results of a queue elsewhere are there too.
    let queue = format!("{}/{}", elsewhere.url(), test.queue());
    let hash =
        Hash::auto(&queue, &test.job()).with_json("inputs", &json!({ "large.txt": "large ".repeat(50) }));
    test.alone(&relay, &hash.text()).await?;
    elsewhere.runs_to_the_end(0, with_outputs(&json!({}))).await?;
    let at = elsewhere.clone();
    at.awaits("the result's request", 0, SOON, |what| {
        what.request("GET").filter(|path| path.ends_with("result.json")).map(str::to_owned)
    })
    .await?;
    let put = elsewhere.since(0).iter().any(|what| what.request("PUT").is_some());
    that("the upload at the queue's origin", put, &"")
}

async fn everywhere(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job());
    // Alone and in a frame, with all storage denied.
    let relay = test.relay(Way::Old).await?;
    let window = test.window().await?;
    window.chromium("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": NO_STORAGE })).await?;
    window.open(&format!("{}/{}", relay.url(), hash.text())).await?;
    relay.runs_to_the_end(0, with_outputs(&json!({ "a.txt": { "type": "utf8", "value": "1" } }))).await?;
    dockframe_tests::pages::JobPage::new(window.clone()).shows_one(COMPLETE).await?;
    let relay = test.relay(Way::Old).await?;
    let bench =
        Test::scripted_in(window, crate::page::host::NAME, relay, &hash.clone().text(), &no_inputs()).await?;
    let denied = "try { return String(localStorage) } catch (error) { return error.name }";
    same("storage in the frame", &bench.page.frame().run(denied, &[]).await?, &json!("SecurityError"))?;
    bench.relay.runs_to_the_end(0, with_outputs(&json!({}))).await?;
    bench.host.says("OutputsUpdate", 1).await?;
    // As a strip: status and job button, nothing else, and nothing to scroll to.
    let bench =
        test.scripted(test.relay(Way::Old).await?, &hash.without("autostart").text(), &no_inputs()).await?;
    bench.page.has_one(RUN, Some(true)).await?;
    bench.host.size(600, 100).await?;
    let log_is_hidden = "return ![...document.querySelectorAll('[role=log], footer')].some((e) => \
        e.getBoundingClientRect().height > 0 && e.getBoundingClientRect().top < innerHeight)";
    wait::until("the strip", SOON, async || match bench.page.frame().run(log_is_hidden, &[]).await {
        Ok(Value::Bool(true)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    bench.page.has_one(RUN, Some(true)).await?;
    bench.page.press_one(RUN).await?;
    bench.relay.submission(0).await?;
    Ok(())
}

async fn queue_names(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Watch).await?;
    let encoded = relay.url().replace(':', "%3A").replace('/', "%2F");
    let names = [
        (format!("{encoded}%2Fenc"), "/q/enc/client"),
        ("httpq".to_owned(), "/q/httpq/client"),
        ("http-is-a-name".to_owned(), "/q/http-is-a-name/client"),
        ("my%20queue".to_owned(), "/q/my%20queue/client"),
        ("a%2Fb".to_owned(), "/q/a%2Fb/client"),
    ];
    for (name, path) in names {
        let mark = relay.mark();
        let page = test.alone(&relay, &Hash::manual(&name, &test.job()).text()).await?;
        let opened = relay
            .awaits("a socket", mark, SOON, |what| match what {
                What::Opened { path, .. } => Some(path.split('?').next().unwrap_or_default().to_owned()),
                _ => None,
            })
            .await?;
        same(&format!("the path for {name}"), &opened.as_str(), &path)?;
        page.has_one(RUN, Some(true)).await?;
    }
    for (parameter, value, locked) in [("queueOverride", "q2", true), ("queueOverride", "", false)] {
        let hash = Hash::manual("q1", &test.job()).with(parameter, value);
        let bench = test.scripted(test.relay(Way::Watch).await?, &hash.text(), &no_inputs()).await?;
        bench.page.has_one(RUN, Some(true)).await?;
        bench.page.frame().click("footer .queue-button, footer button:last-of-type").await?;
        let field = "return [...document.querySelectorAll('label')].find((e) => e.innerText.trim().startsWith('Name'))\
            ?.querySelector('input')?.disabled ?? null";
        let is_locked =
            wait::until("the queue's field", SOON, async || match bench.page.frame().run(field, &[]).await {
                Ok(Value::Bool(locked)) => Ok(locked),
                other => Err(format!("{other:?}")),
            })
            .await?;
        same(&format!("locked with {parameter}={value}"), &is_locked, &locked)?;
    }
    Ok(())
}

async fn short_address(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Watch).await?;
    let id = "a".repeat(64);
    relay.define(&id, test.job());
    let window = test.window().await?;
    window.open(&format!("{}/j/{id}#?autostart=true&queue={}", relay.url(), test.queue())).await?;
    let page = dockframe_tests::pages::JobPage::new(window.clone());
    let first = relay.submission(0).await?;
    same("the command", &first["definition"]["command"], &test.job()["command"])?;
    // Another command of files stays at the short address; another job leaves it.
    let files = json!({ "a.txt": "text" });
    let script = "location.hash = arguments[0]";
    let hash =
        Hash::default().with("queue", &test.queue()).with("autostart", "true").with_json("inputs", &files);
    window.run(script, &[json!(hash.text())]).await?;
    let second = relay.submission_of_another(&id_of(&first)?, 0).await?;
    same("still the short address's command", &second["definition"]["command"], &test.job()["command"])?;
    page.open_panel("Settings").await?;
    page.press("Configure").await?;
    page.set_field("CPUs", "2").await?;
    wait::until("the long address", SOON, async || {
        let address =
            window.run("return location.pathname + location.hash", &[]).await.map_err(|e| e.to_string())?;
        let address = address.as_str().unwrap_or_default().to_owned();
        if address.starts_with("/#") && address.contains("job=") { Ok(()) } else { Err(address) }
    })
    .await?;
    let window = test.window().await?;
    window.open(&format!("{}/j/{}", relay.url(), "b".repeat(64))).await?;
    let unknown = dockframe_tests::pages::JobPage::new(window);
    unknown.shows_one(&["not found", "could not be loaded", "does not know"]).await?;
    wait::stays("what is said", Duration::from_millis(500), async || Ok(())).await
}
