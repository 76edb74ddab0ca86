//! From nothing to the first answer, and what it costs to wait for work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_tests::ports;
use dockframe_tests::scenario::Scenario;

use crate::support::http::Connection;
use crate::support::process::resident_kb;
use crate::support::table::{Aim, row, title};
use crate::support::times::Times;

const TRIES: usize = 7;

pub(crate) async fn measure(scenario: &Arc<Scenario>) -> anyhow::Result<()> {
    let mut times = Times::default();
    let mut memory = 0.0;
    for n in 0..TRIES {
        let address = ports::free()?;
        // The first one makes its store; the others find it.
        let store = format!("embedded:{}", scenario.folder().join("start/store").display());
        let blobs = format!("file:{}", scenario.folder().join("start/blobs").display());
        let listen = address.to_string();
        let command =
            scenario.dockframe(&["relay", "--store", &store, "--blobs", &blobs, "--listen", &listen])?;
        let begin = Instant::now();
        let process = scenario.start(&format!("start-{n}"), command)?;
        loop {
            if let Ok(mut connection) = Connection::open(address).await {
                connection.ask("GET", "/healthz", "").await?;
                break;
            }
            anyhow::ensure!(
                begin.elapsed() < Duration::from_secs(15),
                "it does not start: {}",
                process.output()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.add(begin.elapsed());
        memory = resident_kb(process.pid())?;
        process.stop(Duration::from_secs(15)).await?;
    }
    title("The relay alone");
    row("start to the first answer: p50", times.p50(), "ms", Aim::AtMost(100.0));
    row("resident memory, idle", memory / 1024.0, "MiB", Aim::AtMost(15.0));
    Ok(())
}
