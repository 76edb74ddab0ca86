//! Files up and down, beside what the machine's own tools take for the same bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::Scenario;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::support::http::Connection;
use crate::support::process::{most_resident_kb, processor_time};
use crate::support::table::{Aim, note, row, title};

const PIECE: usize = 1 << 20;
const PIECES: usize = 256;
/// Each way is tried so often, in turn; the best counts, since others disturb and nobody helps.
const TRIES: usize = 3;

pub(crate) async fn measure(scenario: &Arc<Scenario>) -> anyhow::Result<()> {
    title(&format!("A file of {PIECES} MiB, best of {TRIES}"));
    let relay = Relay::start_with(scenario, "blobs", &Store::Embedded).await?;
    let mut connection = Connection::open(relay.address()).await?;
    let file = scenario.folder().join("original");
    let (mut openssl, mut copy, mut up, mut down) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    let before = processor_time(relay.process().pid())?;
    for n in 0..TRIES {
        // Other bytes each time: what is there already would not be written.
        let piece: Vec<u8> = (0..PIECE).map(|at| (at * 31 + n).to_le_bytes()[at % 3]).collect();
        std::fs::write(&file, piece.repeat(PIECES))?;
        let mut digest = Sha256::new();
        (0..PIECES).for_each(|_| digest.update(&piece));
        let digest = digest.finalize();
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("/f/{name}");

        let mut command = Command::new("openssl");
        command.args(["dgst", "-sha256"]).arg(&file);
        openssl = openssl.max(speed(run(command).await?));
        let mut command = Command::new("cp");
        command.arg(&file).arg(scenario.folder().join("copy"));
        copy = copy.max(speed(run(command).await?));
        let begin = Instant::now();
        connection.put(&path, &piece, PIECES).await?;
        up = up.max(speed(begin.elapsed()));
        let begin = Instant::now();
        let got = connection.drain(&path).await?;
        anyhow::ensure!(got == PIECE * PIECES, "{got} bytes came back");
        down = down.max(speed(begin.elapsed()));
    }
    let used = (processor_time(relay.process().pid())? - before).as_secs_f64();
    row("openssl dgst -sha256", openssl, "MiB/s", Aim::None);
    row("cp", copy, "MiB/s", Aim::None);
    row("upload under its digest, synced", up, "MiB/s", Aim::None);
    row("upload ÷ openssl", up / openssl, "", Aim::AtLeast(0.5));
    row("download", down, "MiB/s", Aim::None);
    row("download ÷ cp", down / copy, "", Aim::AtLeast(0.7));
    row(
        "most resident memory meanwhile",
        most_resident_kb(relay.process().pid())? / 1024.0,
        "MiB",
        Aim::None,
    );
    note(&format!("relay's processor time, all of it: {used:.1} s"));
    relay.stop().await
}

async fn run(mut command: Command) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "{:?} failed", command.as_std());
    Ok(begin.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn speed(time: Duration) -> f64 {
    PIECES as f64 / time.as_secs_f64()
}
