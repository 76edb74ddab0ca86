//! Our worker keeps the promises of workers on a real Docker Engine, but for a list of known failures that only
//! shrinks.

use std::time::Duration;

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::{binary, checkout, scenario};
use tokio::process::Command;

/// Two minutes on an idle machine; several of its promises wait for clocks of half a minute.
const LIMIT: Duration = Duration::from_secs(390);

#[test]
fn a_worker_keeps_its_promises_to_users_and_old_relays() {
    run("a_worker_keeps_its_promises_to_users_and_old_relays", "compat");
}

#[test]
fn a_worker_goes_beyond_the_existing_one() {
    run("a_worker_goes_beyond_the_existing_one", "dockframe");
}

fn run(name: &'static str, mark: &'static str) {
    scenario::run_within(name, LIMIT + Duration::from_secs(10), async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockframe-conformance"));
        command.args(["worker", "--image", BUSYBOX, "--only", mark, "--parallel", "6", "--known"]);
        command.arg(checkout("tests/conformance/known-failures-worker.txt"));
        command.arg("--").arg(binary::dockframe()?).arg("run");
        let suite = scenario.start("conformance", command)?;
        let status = suite.end(LIMIT).await?;
        super::conformance::judge(&suite.output(), status)
    });
}
