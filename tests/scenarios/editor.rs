//! The code editor: there under the page's strict policy, with the draft's *Save+Run*; a plain field where it cannot
//! be had; and the page itself without a network.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{hash, scenario, wait};
use serde_json::{Value, json};

/// A page with a script in its address, which does not run by itself.
fn address(relay: &Relay, queue: &str) -> String {
    let job = json!({ "image": BUSYBOX, "command": "sh /inputs/run.sh" });
    let files = json!({ "run.sh": "if true; then echo before; fi\n" });
    let parameters = [("job", &*hash::json(&job)), ("inputs", &hash::json(&files)), ("queue", queue)];
    format!("{}/{}", relay.url(), hash::hash(&parameters))
}

/// The editor's content, inside its shadow root; the first `.cm-content` that holds the argument.
const CONTENT: &str = "
    const found = [...document.querySelectorAll('*')].map((e) => e.shadowRoot?.querySelector('.cm-content'));
    const content = found.find((e) => e?.textContent.includes(arguments[0]));
";

#[test]
fn a_script_is_edited_with_syntax_and_runs_as_it_stands() {
    scenario::run("a_script_is_edited_with_syntax_and_runs_as_it_stands", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let browser = scenario.browser().await?;
        browser.open(&address(&relay, scenario.queue())).await?;
        let page = JobPage::new(browser.page());

        // Coloured words are the sign that the editor's own styles are allowed.
        let colours = format!(
            "{CONTENT} return content ? [...content.querySelectorAll('span')].map((e) => getComputedStyle(e).color) : []"
        );
        wait::until("a coloured script", wait::SOON, async || {
            let colours = page.frame().run(&colours, &[json!("echo before")]).await;
            match colours {
                Ok(Value::Array(colours)) if !colours.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        // On the empty last line: over coloured text the browser itself would write a style.
        let typing = format!(
            "{CONTENT} content.focus(); document.getSelection().collapse(content.lastElementChild, 0);
             return document.execCommand('insertText', false, 'echo after')"
        );
        page.frame().run(&typing, &[json!("echo before")]).await?;
        page.press("Save+Run").await?;
        page.logs("after").await?;
        page.shows("Finished").await?;
        let console = browser.console().await?;
        assert!(!console.iter().any(|line| line.contains("Security Policy")), "{console:#?}");
        Ok(())
    });
}

#[test]
fn without_the_editors_file_there_is_a_plain_field() {
    scenario::run("without_the_editors_file_there_is_a_plain_field", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let browser = scenario.browser().await?;
        browser.chromium("Network.enable", &json!({})).await?;
        browser.chromium("Network.setBlockedURLs", &json!({ "urls": ["*/editor-*"] })).await?;
        browser.open(&address(&relay, scenario.queue())).await?;
        let page = JobPage::new(browser.page());
        page.frame().fill("textarea[aria-label='Content of run.sh']", "echo typed").await?;
        page.press("Save").await?;
        let saved = hash::json(&json!({ "run.sh": "echo typed" }));
        wait::until("the text in the address", wait::SOON, async || {
            let address = browser.address().await.map_err(|error| error.to_string())?;
            if address.fragment().is_some_and(|hash| hash.contains(&saved)) {
                Ok(())
            } else {
                Err(address.to_string())
            }
        })
        .await
    });
}

#[test]
fn a_page_that_was_open_once_starts_without_a_network() {
    scenario::run("a_page_that_was_open_once_starts_without_a_network", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let browser = scenario.browser().await?;
        let address = address(&relay, scenario.queue());
        browser.open(&address).await?;
        let page = JobPage::new(browser.page());
        page.shows("Ready").await?;
        let kept = "return navigator.serviceWorker.ready.then(async () => {
            const cache = await caches.open('dockframe-page');
            return (await cache.keys()).map((request) => new URL(request.url).pathname);
        })";
        wait::until("the page's files in the cache", wait::SOON, async || {
            match page.frame().run(kept, &[]).await {
                Ok(Value::Array(paths))
                    if paths.iter().any(|path| path.as_str().is_some_and(|path| path.ends_with(".wasm"))) =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        relay.stop().await?;
        browser.open("about:blank").await?;
        browser.open(&address).await?;
        page.shows("Connecting").await?;
        page.shows("run.sh").await
    });
}
