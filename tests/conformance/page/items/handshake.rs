//! Messages: the handshake (`metaframe` 1.2, 1.4; items 1 to 6, 13).

use serde_json::json;

use crate::check::{same, same_json, that};
use crate::page::host::NAME;
use crate::page::relay::Way;
use crate::page::setup::{Hash, Test};

pub(crate) async fn answers_and_acknowledges(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job());
    let hosted = test.hosted(Way::Old, &hash).await?;
    hosted.host.says(NAME, "OutputsUpdate").await?;
    let said = hosted.host.said_by(NAME).await?;
    let requests = said.iter().take_while(|said| said["method"] == "SetupIframeClientRequest").count();
    that("requests first", requests >= 1, &said)?;
    same_json("the request's params", &said[0]["params"], &json!({ "version": "2" }))?;
    same("the method after the requests", &said[requests]["method"], &json!("SetupIframeServerResponseAck"))?;
    same("the method after the acknowledgement", &said[requests + 1]["method"], &json!("OutputsUpdate"))?;
    same_json("what was set before", &said[requests + 1]["params"], &json!({}))
}
