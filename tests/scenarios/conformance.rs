//! Our relay keeps the promises of the protocol, but for lists of known failures that only shrink.

use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::checkout;
use dockframe_tests::redis::Redis;
use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::{self, Scenario};
use tokio::process::Command;

/// The slowest promises are about a minute; the frame of the scenario allows little more.
const LIMIT: Duration = Duration::from_secs(140);

#[test]
fn a_relay_keeps_the_promises_of_the_protocol() {
    scenario::run("a_relay_keeps_the_promises_of_the_protocol", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        keeps_promises(&scenario, &[&relay.url()], &["known-failures.txt"]).await
    });
}

#[test]
fn a_relay_on_redis_keeps_the_promises_of_the_protocol() {
    scenario::run("a_relay_on_redis_keeps_the_promises_of_the_protocol", async |scenario| {
        let redis = Redis::start(scenario.folder()).await?;
        let relay = Relay::start_with(&scenario, "relay", &Store::from(&redis)).await?;
        keeps_promises(&scenario, &[&relay.url()], &["known-failures.txt"]).await
    });
}

#[test]
fn two_relays_on_one_redis_keep_the_promises_of_the_protocol() {
    scenario::run("two_relays_on_one_redis_keep_the_promises_of_the_protocol", async |scenario| {
        let redis = Redis::start(scenario.folder()).await?;
        let store = Store::from(&redis);
        let first = Relay::start_with(&scenario, "first", &store).await?;
        let second = Relay::start_with(&scenario, "second", &store).await?;
        let known = ["known-failures.txt", "known-failures-two-relays.txt"];
        keeps_promises(&scenario, &[&first.url(), "--second", &second.url()], &known).await
    });
}

async fn keeps_promises(scenario: &Arc<Scenario>, relays: &[&str], known: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dockframe-conformance"));
    command.arg("relay").args(relays);
    for list in known {
        command.arg("--known").arg(checkout("tests/conformance").join(list));
    }
    let suite = scenario.start("conformance", command)?;
    let status = suite.end(LIMIT).await?;
    judge(&suite.output(), status)
}

/// What a conformance program that has ended printed, as an outcome.
pub(super) fn judge(output: &str, status: std::process::ExitStatus) -> anyhow::Result<()> {
    // A failed test's line, and what was expected and came below it.
    let mut failures = String::new();
    let mut failed = false;
    for line in output.lines() {
        failed = line.starts_with("FAIL") || (failed && line.starts_with(' '));
        if failed {
            failures.extend([line, "\n"]);
        }
    }
    let total: Vec<_> = output.lines().rev().take(3).collect();
    anyhow::ensure!(status.success(), "promises are broken:\n{failures}{total:#?}");
    Ok(())
}
