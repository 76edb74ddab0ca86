//! How soon a job of a worker that is gone is granted to another: measured over a link that breaks or falls silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_tests::player::Player;
use dockframe_tests::proxy::Proxy;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use serde_json::json;

/// What a busy machine may add to each of the times.
const BUSY: Duration = Duration::from_millis(1_000);

/// One worker behind a link has the job for a while, another is idle; then the link changes. How long until the other
/// one is granted the job.
async fn granted_anew(
    scenario: &Arc<Scenario>,
    held_for: Duration,
    change: impl FnOnce(&Proxy),
) -> anyhow::Result<Duration> {
    let relay = Relay::start(scenario).await?;
    let link = Proxy::start(relay.address()).await?;
    let client = relay.client()?;
    let queue = scenario.queue();
    let id = client.submit(queue, &json!({ "image": "a", "command": "x" })).await?;
    let mut first = Player::join(&link.url(), queue, "first", 1, &[]).await?;
    let (_, job) = first.take().await?;
    anyhow::ensure!(job == id, "another job was granted");
    client.reaches(queue, &id, "Running").await?;
    let mut second = Player::join(&relay.url(), queue, "second", 1, &[]).await?;
    tokio::time::sleep(held_for).await;
    change(&link);
    let begun = Instant::now();
    let grant = second.next("LeaseGrant").await?;
    let took = begun.elapsed();
    anyhow::ensure!(grant["jobId"] == id.as_str() && grant["attempt"] == 2, "{grant}");
    scenario.tell(&format!("held for {held_for:?}, granted anew after {took:?}"));
    Ok(took)
}

#[test]
fn a_short_job_of_a_closed_socket_is_granted_anew_within_two_seconds() {
    let name = "a_short_job_of_a_closed_socket_is_granted_anew_within_two_seconds";
    scenario::run(name, async |scenario| {
        let took = granted_anew(&scenario, Duration::from_millis(200), Proxy::cut).await?;
        anyhow::ensure!(took >= Duration::from_secs(1), "before its grace: {took:?}");
        anyhow::ensure!(took <= Duration::from_secs(2) + BUSY, "{took:?}");
        Ok(())
    });
}

#[test]
fn a_long_job_of_a_closed_socket_is_granted_anew_after_its_grace() {
    scenario::run("a_long_job_of_a_closed_socket_is_granted_anew_after_its_grace", async |scenario| {
        let held_for = Duration::from_secs(20);
        let grace = Duration::from_secs(1) + held_for / 10;
        let took = granted_anew(&scenario, held_for, Proxy::cut).await?;
        anyhow::ensure!(took >= grace, "before its grace: {took:?}");
        anyhow::ensure!(took <= grace + Duration::from_secs(1) + BUSY, "{took:?}");
        Ok(())
    });
}

#[test]
fn a_job_of_a_worker_that_fell_silent_is_granted_anew_within_35_seconds() {
    scenario::run("a_job_of_a_worker_that_fell_silent_is_granted_anew_within_35_seconds", async |scenario| {
        let took = granted_anew(&scenario, Duration::from_millis(200), Proxy::silence).await?;
        anyhow::ensure!(took <= Duration::from_secs(35), "{took:?}");
        Ok(())
    });
}
