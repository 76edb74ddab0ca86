//! Our page keeps the promises of metaframes in a real host and a real browser, but for a list of known failures that
//! only shrinks.

use std::time::Duration;

use dockframe_tests::relay::Relay;
use dockframe_tests::{checkout, scenario};
use tokio::process::Command;

/// About a minute on an idle machine; several promises wait for clocks of half a minute.
const LIMIT: Duration = Duration::from_secs(390);

#[test]
fn a_page_keeps_its_promises_to_hosts_and_old_relays() {
    run("a_page_keeps_its_promises_to_hosts_and_old_relays", "compat");
}

#[test]
fn a_page_goes_beyond_the_existing_one() {
    run("a_page_goes_beyond_the_existing_one", "dockframe");
}

fn run(name: &'static str, mark: &'static str) {
    scenario::run_within(name, LIMIT + Duration::from_secs(10), async |scenario| {
        // It serves the page; the suite brings the relay that the page speaks with.
        let relay = Relay::start(&scenario).await?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockframe-conformance"));
        command.args(["page", &relay.url(), "--only", mark, "--known"]);
        command.arg(checkout("tests/conformance/known-failures-page.txt"));
        let suite = scenario.start("conformance", command)?;
        let status = suite.end(LIMIT).await?;
        super::conformance::judge(&suite.output(), status)
    });
}
