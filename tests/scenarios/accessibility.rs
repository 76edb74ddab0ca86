//! Everybody can use the page: an audit by axe-core of its main states, light and dark, finds nothing serious.

use dockframe_tests::browser::Frame;
use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{hash, scenario, tests_folder};
use serde_json::{Value, json};

/// Runs the audit; what is worse than moderate comes back, an element and a hint each.
const AUDIT: &str = r"
    const options = { resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] };
    return axe.run(document, options).then(({ violations, passes, testEngine }) => {
      const worse = violations.filter((found) => ['serious', 'critical'].includes(found.impact));
      return worse.flatMap(({ id, help, nodes }) => nodes.map((node) =>
        `${id}: ${help}: ${node.html.slice(0, 160)} (${node.any.concat(node.all).map((check) => check.message).join('; ').slice(0, 200)})`));
    });
";

async fn audit(state: &str, page: &Frame) -> anyhow::Result<Vec<String>> {
    let library = std::fs::read_to_string(tests_folder().join("node_modules/axe-core/axe.min.js"))
        .map_err(|error| anyhow::anyhow!("axe-core is not installed, run `scripts/setup --test`: {error}"))?;
    page.run(&library, &[]).await?;
    let mut found = Vec::new();
    for scheme in ["light", "dark"] {
        let feature = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            // Colours in the middle of a fade are no colours of the design.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]});
        page.chromium("Emulation.setEmulatedMedia", &feature).await?;
        let worse = page.run(AUDIT, &[]).await?;
        let worse: Vec<String> = serde_json::from_value(worse)?;
        found.extend(worse.into_iter().map(|line| format!("{state}, {scheme}: {line}")));
    }
    Ok(found)
}

#[test]
fn the_page_is_accessible_in_its_main_states() {
    scenario::run("the_page_is_accessible_in_its_main_states", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let browser = scenario.browser().await?;
        let page = JobPage::new(browser.page());
        let open = async |script: &str, more: &[(&str, &str)]| {
            let job = json!({ "image": BUSYBOX, "command": ["sh", "-c", script] });
            let encoded = hash::json(&job);
            let files = hash::json(&json!({ "script.sh": "echo hello" }));
            let mut parameters = vec![("queue", scenario.queue()), ("job", &*encoded), ("inputs", &*files)];
            parameters.extend(more);
            // Another document, not another hash of this one.
            browser.open("about:blank").await?;
            browser.open(&format!("{}/{}", relay.url(), hash::hash(&parameters))).await
        };
        let mut found = Vec::new();

        browser.open(&format!("{}/", relay.url())).await?;
        page.shows("Run a container").await?;
        found.extend(audit("start page", page.frame()).await?);

        open("echo edited", &[]).await?;
        page.shows("Run Job").await?;
        for panel in ["Job", "Inputs", "Settings"] {
            page.open_panel(panel).await?;
            found.extend(audit(&format!("editing, {panel}"), page.frame()).await?);
        }
        for tab in ["Image", "Definition", "Configure"] {
            page.press(tab).await?;
            found.extend(audit(&format!("settings, {tab}"), page.frame()).await?);
        }
        page.frame().click("footer .queue-button").await?;
        page.shows("The name is the key").await?;
        found.extend(audit("queue", page.frame()).await?);

        open(
            "echo out; echo err >&2; printf '\\033[31mred\\033[32m green\\033[0m\\n'; sleep 600",
            &[("autostart", "true")],
        )
        .await?;
        page.logs_containing("green").await?;
        found.extend(audit("running", page.frame()).await?);
        page.press("Stop Job").await?;
        page.shows("Stopped").await?;
        found.extend(audit("stopped", page.frame()).await?);

        open("echo done; echo a,b > /outputs/t.csv; echo text > /outputs/t.txt", &[("autostart", "true")])
            .await?;
        page.shows("Finished in").await?;
        page.open_panel("Outputs").await?;
        found.extend(audit("finished", page.frame()).await?);

        open("echo why >&2; exit 3", &[("autostart", "true")]).await?;
        page.shows("Exit 3").await?;
        found.extend(audit("failed", page.frame()).await?);

        browser.open("about:blank").await?;
        browser.open(&format!("{}/#?job=%25%25%25&queue=q", relay.url())).await?;
        page.shows("cannot be read").await?;
        found.extend(audit("trouble", page.frame()).await?);

        anyhow::ensure!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
        Ok(())
    });
}

#[test]
fn the_page_can_be_used_by_keys_alone() {
    scenario::run("the_page_can_be_used_by_keys_alone", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let browser = scenario.browser().await?;
        let page = JobPage::new(browser.page());
        let job = hash::json(&json!({ "image": BUSYBOX, "command": "true" }));
        let parameters = [("job", &*job), ("queue", scenario.queue())];
        browser.open(&format!("{}/{}", relay.url(), hash::hash(&parameters))).await?;
        page.shows("Run Job").await?;
        // Tab goes through everything that can be pressed, and each shows that it has the focus.
        let focus = r"
            let e = document.activeElement;
            while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
            // A text shows its caret.
            if (e === document.body || e.isContentEditable) return ['', true];
            const style = getComputedStyle(e);
            const name = (e.getAttribute('aria-label') ?? e.textContent ?? '').trim();
            const isSeen = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
            return [name || e.tagName, isSeen];
        ";
        let mut reached = Vec::new();
        for _ in 0..40 {
            page.frame().keys_to_page("\u{e004}").await?;
            let at = page.frame().run(focus, &[]).await?;
            let name = at[0].as_str().unwrap_or_default().to_owned();
            assert_eq!(at[1], Value::Bool(true), "the focus shows at {name:?}");
            reached.push(name);
        }
        for wanted in ["Job", "Inputs", "Outputs", "Settings"] {
            assert!(reached.iter().any(|name| name.starts_with(wanted)), "{wanted} is reached: {reached:?}");
        }
        assert!(reached.iter().any(|name| name.ends_with("Run Job")), "{reached:?}");
        Ok(())
    });
}
