//! Whether memory grows with the number of jobs. Takes ten minutes, so it is measured only when it is asked for.

use crate::Side;
use crate::engine::Network;
use crate::support::process::resident_kb;
use crate::support::table::{Aim, row, title};
use crate::throughput::together;

const JOBS: usize = 2_000;
/// At a time: what is watched together fits a frame.
const BATCH: usize = 100;
/// How often the growth on the way is told.
const ROWS: usize = 4;

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    title(&format!("Memory of the worker over {JOBS} jobs"));
    let pid = side.worker.process().pid();
    let idle = resident_kb(pid)?;
    row("resident, idle", idle / 1024.0, "MiB", Aim::AtMost(15.0));
    for batch in 1..=JOBS / BATCH {
        together(side, Network::None, &format!("batch {batch}"), BATCH).await?;
        if batch % (JOBS / BATCH / ROWS) == 0 {
            side.settled().await?;
            let aim = if batch == JOBS / BATCH { Aim::AtMost(3.0) } else { Aim::None };
            let growth = (resident_kb(pid)? - idle) / 1024.0;
            row(&format!("growth after {} jobs", batch * BATCH), growth, "MiB", aim);
        }
    }
    Ok(())
}
