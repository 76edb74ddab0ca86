//! Three metaframes of ours in a metapage, each fed by the one before; and the way of a newcomer from an empty page to a
//! result, with its clicks and seconds.

use std::time::{Duration, Instant};

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::metapage::{Metapage, Plain};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{hash, scenario};
use serde_json::json;

#[test]
fn a_change_at_the_first_of_three_metaframes_arrives_at_the_last() {
    scenario::run("a_change_at_the_first_of_three_metaframes_arrives_at_the_last", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let metapage = Metapage::open(&scenario).await?;
        let link = |script: &str, contents: bool| {
            let job = hash::json(&json!({ "image": BUSYBOX, "command": ["sh", "-c", script] }));
            let mut parameters = vec![("autostart", "true"), ("job", &*job), ("queue", scenario.queue())];
            if contents {
                parameters.push(("resolverefs", "true"));
            }
            format!("{}/{}", relay.url(), hash::hash(&parameters))
        };
        // A large file on the way travels as a reference, a small one inside the message.
        let first =
            link("cat /inputs/seed > /outputs/a.txt; head -c 100000 /dev/zero > /outputs/large.bin", false);
        let second = link(
            "tr a-z A-Z < /inputs/a.txt > /outputs/b.txt; wc -c < /inputs/large.bin >> /outputs/b.txt",
            false,
        );
        let third = link("tr '\\n' ' ' < /inputs/b.txt > /outputs/c.txt", true);
        metapage
            .load(&json!({
                "first": { "url": first, "inputs": [{ "metaframe": "plain", "source": "seed" }] },
                "second": { "url": second, "inputs": [{ "metaframe": "first", "source": "*" }] },
                "third": { "url": third, "inputs": [{ "metaframe": "second", "source": "b.txt" }] },
                "plain": { "url": metapage.plain_url(), "inputs": [{ "metaframe": "third", "source": "c.txt" }] },
            }))
            .await?;
        let plain = Plain::new(metapage.frame("plain"));
        for word in ["one", "two"] {
            let begin = Instant::now();
            plain.send("seed", word).await?;
            plain.gets("c.txt", &format!("{}100000 ", word.to_uppercase())).await?;
            println!("a change went through three metaframes in {:.2} s", begin.elapsed().as_secs_f32());
        }
        // Back to the first word: three stored results.
        let begin = Instant::now();
        plain.send("seed", "one").await?;
        plain.gets("c.txt", "ONE100000 ").await?;
        println!("and from stored results in {:.2} s", begin.elapsed().as_secs_f32());
        Ok(())
    });
}

/// What the aim is for somebody who has never seen the page, with the image present.
const CLICKS: usize = 2;

#[test]
fn a_newcomer_gets_from_an_empty_page_to_a_result_in_two_clicks() {
    scenario::run("a_newcomer_gets_from_an_empty_page_to_a_result_in_two_clicks", async |scenario| {
        // The example's own image, or a stand-in by its name.
        docker::image(Kind::Busybox, "alpine:3.20").await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let browser = scenario.browser().await?;
        let begin = Instant::now();
        browser.open(&format!("{}/#?queue={}", relay.url(), scenario.queue())).await?;
        let page = JobPage::new(browser.page());
        page.shows("Run a container").await?;
        let shown = begin.elapsed();
        let mut clicks = 0;
        let example = r"
            const card = [...document.querySelectorAll('article')].find((e) => e.innerText.includes('Shell'));
            return card?.querySelector('button') ?? null;
        ";
        page.frame().press("the shell example", example, &[]).await?;
        clicks += 1;
        page.shows("Finished in").await?;
        let finished = begin.elapsed();
        let seconds = |time: Duration| time.as_secs_f32();
        println!(
            "page after {:.2} s, result after {:.2} s and {clicks} clicks",
            seconds(shown),
            seconds(finished)
        );
        assert!(clicks <= CLICKS, "{clicks} clicks");
        page.open_panel("Outputs").await?;
        page.shows("n.txt").await?;
        Ok(())
    });
}
