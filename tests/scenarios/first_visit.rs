//! Somebody who has never seen the page comes to a result: an example, a queue of their own, the command that the page
//! shows. Clicks are counted, seconds are printed.

use std::time::Instant;

use anyhow::Context as _;
use dockframe_tests::docker::{self, Kind};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{hash, scenario, wait};

/// The image of the start page's shell example.
const ALPINE: &str = "alpine:3.20";
/// Its button.
const OPEN_SHELL: &str = ".card:nth-of-type(3) button";

#[test]
fn an_example_is_one_click_from_a_result_where_there_is_a_queue() {
    scenario::run("an_example_is_one_click_from_a_result_where_there_is_a_queue", async |scenario| {
        docker::image(Kind::Busybox, ALPINE).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let browser = scenario.browser().await?;
        let begin = Instant::now();
        browser.open(&format!("{}/{}", relay.url(), hash::hash(&[("queue", scenario.queue())]))).await?;
        let page = JobPage::new(browser.page());
        page.frame().click(OPEN_SHELL).await?;
        page.shows("Finished").await?;
        page.shows("n.txt").await?;
        println!("from an empty page to a result: 1 click, {:.1} s", begin.elapsed().as_secs_f32());

        let address = browser.address().await?;
        let parameters = address.fragment().context("no address")?;
        assert!(parameters.contains("autostart=true"), "a job made here runs by itself: {parameters}");
        Ok(())
    });
}

#[test]
fn without_a_queue_the_page_makes_one_and_says_how_to_serve_it() {
    scenario::run("without_a_queue_the_page_makes_one_and_says_how_to_serve_it", async |scenario| {
        docker::image(Kind::Busybox, ALPINE).await?;
        let relay = Relay::start(&scenario).await?;
        let browser = scenario.browser().await?;
        let begin = Instant::now();
        browser.open(&format!("{}/", relay.url())).await?;
        let page = JobPage::new(browser.page());
        page.frame().click(OPEN_SHELL).await?;
        page.press("Make a new queue").await?;
        let command = wait::until("the command for a worker", wait::SOON, async || {
            match page.frame().text(".command code").await {
                Ok(Some(command)) if command.starts_with("dockframe run ") => Ok(command),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        // The command is run as it stands.
        let words: Vec<&str> = command.split_whitespace().skip(2).collect();
        let queue = words.last().context("no queue in the command")?;
        assert!(queue.len() >= 32, "an unguessable name: {queue}");
        let own = format!("--api-address={}", relay.url());
        assert!(words.contains(&&*own), "{command}");
        let words: Vec<&str> = words.into_iter().filter(|word| *word != own).collect();
        let _worker = Worker::start_with(&scenario, &relay.url(), &words).await?;
        page.shows("Finished").await?;
        let seconds = begin.elapsed().as_secs_f32();
        println!("from an empty page and no worker to a result: 2 clicks and a command, {seconds:.1} s");
        Ok(())
    });
}
