//! The handshake of our page with a real host, message by message (`metaframe` 1.4).

use dockframe_tests::metapage::Metapage;
use dockframe_tests::relay::Relay;
use dockframe_tests::{hash, scenario, wait};
use serde_json::{Value, json};

fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["method"].as_str().unwrap_or_default()).collect()
}

#[test]
fn the_page_shakes_hands_as_the_library_does() {
    scenario::run("the_page_shakes_hands_as_the_library_does", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let metapage = Metapage::open(&scenario).await?;
        let url = format!("{}/{}", relay.url(), hash::hash(&[("queue", scenario.queue())]));
        metapage.load(&json!({ "ours": { "url": url } })).await?;
        metapage.says("ours", "OutputsUpdate").await?;

        let said = metapage.said_by("ours").await?;
        let requests = said.iter().take_while(|m| m["method"] == "SetupIframeClientRequest").count();
        assert!(requests >= 1, "{said:#?}");
        assert_eq!(
            methods(&said[requests..requests + 2]),
            ["SetupIframeServerResponseAck", "OutputsUpdate"],
            "{said:#?}"
        );
        assert!(said[0]["params"]["version"] == "2" && said[0]["parentId"].is_null(), "{said:#?}");
        assert_eq!(said[requests]["params"]["version"], "2");
        assert_eq!(said[requests + 1]["params"], json!({}), "no outputs yet");

        let heard = metapage.heard_by("ours").await?;
        assert_eq!(heard[0]["method"], "SetupIframeServerResponse", "{heard:#?}");
        let parent = &heard[0]["params"]["parentId"];
        for (n, message) in said.iter().enumerate() {
            assert_eq!(message["jsonrpc"], "2.0");
            assert_eq!(message["id"], n + 1, "numbered from 1, no gap");
            assert_eq!(message["iframeId"], "ours");
            assert!(n < requests || message["parentId"] == *parent, "{message:#}");
        }

        // Equal inputs after the handshake, the host's own wish for a change of the hash: nothing is sent without end.
        wait::stays("silence", std::time::Duration::from_secs(1), async || {
            let now = metapage.said_by("ours").await.map_err(|error| error.to_string())?;
            if now.len() <= said.len() + 1 { Ok(()) } else { Err(format!("{now:#?}")) }
        })
        .await
    });
}
