//! A foreign site puts the page of the viewer's own computer into a frame: nothing runs there before the viewer says
//! so, once.

use std::time::Duration;

use dockframe_tests::browser::FOREIGN_HOST;
use dockframe_tests::metapage::Metapage;
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::{hash, scenario, wait};
use serde_json::{Value, json};

#[test]
fn a_foreign_page_starts_nothing_on_this_computer_before_the_viewer_says_so() {
    scenario::run(
        "a_foreign_page_starts_nothing_on_this_computer_before_the_viewer_says_so",
        async |scenario| {
            let relay = Relay::start(&scenario).await?;
            let metapage = Metapage::open(&scenario).await?;
            let foreign = metapage.origin().replace("127.0.0.1", FOREIGN_HOST);
            let open = async |n: &str| {
                metapage.open_again(&foreign).await?;
                let job = hash::json(&json!({ "image": "busybox", "command": "true" }));
                let queue = format!("{}/local", relay.url());
                let parameters = [("N", n), ("autostart", "true"), ("job", &*job), ("queue", &queue)];
                let url = format!("{}/{}", relay.url(), hash::hash(&parameters));
                metapage.load(&json!({ "ours": { "url": url } })).await
            };
            let client = relay.client()?;
            let jobs = async |wanted: usize| -> Result<(), String> {
                let list = client.get("/q/local").await.map_err(|error| error.to_string())?;
                let list: Value = list.json().await.map_err(|error| error.to_string())?;
                let count = list["data"].as_object().map_or(0, serde_json::Map::len);
                if count == wanted { Ok(()) } else { Err(format!("{count} jobs")) }
            };

            open("1").await?;
            let page = JobPage::new(metapage.frame("ours"));
            page.shows(&format!("Let {foreign} run jobs on this computer?")).await?;
            wait::stays("an empty queue", Duration::from_secs(1), async || jobs(0).await).await?;
            page.press("Let it run jobs").await?;
            wait::until("the job in its queue", wait::SOON, async || jobs(1).await).await?;
            // The site is remembered.
            open("2").await?;
            wait::until("the other job in its queue", wait::SOON, async || jobs(2).await).await
        },
    );
}
