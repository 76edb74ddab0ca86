//! Our relay keeps the promises of the protocol, but for a list that only shrinks.

use std::time::Duration;

use dockframe_tests::checkout;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use tokio::process::Command;

/// The slowest promises are about a minute; the frame of the scenario allows little more.
const LIMIT: Duration = Duration::from_secs(140);

#[test]
fn a_relay_keeps_the_promises_of_the_protocol() {
    scenario::run("a_relay_keeps_the_promises_of_the_protocol", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockframe-conformance"));
        command.args(["relay", &relay.url(), "--known"]);
        command.arg(checkout("tests/conformance/known-failures.txt"));
        let suite = scenario.start("conformance", command)?;
        let status = suite.end(LIMIT).await?;
        let output = suite.output();
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
    });
}
