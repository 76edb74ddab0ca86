//! A large file in and out, and many small ones, beside the machine's own tools.

use std::time::Instant;

use dockframe_tests::docker::BUSYBOX;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::Side;
use crate::support::http::Connection;
use crate::support::process::most_resident_kb;
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};
use crate::support::times::per_second;

const PIECE: usize = 1 << 20;
const PIECES: usize = 1024;
const SMALL: usize = 10_000;

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    title(&format!("A file of {PIECES} MiB in and out"));
    let piece: Vec<u8> = (0..PIECE).map(|at| (at * 31).to_le_bytes()[at % 3]).collect();
    let mut digest = Sha256::new();
    (0..PIECES).for_each(|_| digest.update(&piece));
    let name: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Connection::open(side.relay.address()).await?.put(&format!("/f/{name}"), &piece, PIECES).await?;

    let file = side.scenario.folder().join("large");
    {
        use std::io::Write as _;
        let mut out = std::fs::File::create(&file)?;
        (0..PIECES).try_for_each(|_| out.write_all(&piece))?;
    }
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256"]).arg(&file);
    let openssl = speed(time(command).await?);
    let mut command = Command::new("cp");
    command.arg(&file).arg(side.scenario.folder().join("copy"));
    let copy = speed(time(command).await?);
    std::fs::remove_file(&file)?;
    std::fs::remove_file(side.scenario.folder().join("copy"))?;

    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    let address = format!("{}/f/{name}", side.relay.url());
    let job = json!({
        "image": BUSYBOX,
        "command": "sh -c 'mv /inputs/large /outputs/large || cp /inputs/large /outputs/large'",
        "inputs": {"large": {"type": "url", "value": address, "hash": name}},
    });
    let id = side.run(&mut client, &job).await?;
    let phases = side.phases(&id).await?;
    let phase = |name: &str| phases[name].as_f64().map_or(f64::NAN, |millis| PIECES as f64 * 1000.0 / millis);
    row("openssl dgst -sha256", openssl, "MiB/s", Aim::None);
    row("cp", copy, "MiB/s", Aim::None);
    row("inputs, all that happens before the container", phase("inputs"), "MiB/s", Aim::None);
    row("outputs, from the container's end", phase("outputs"), "MiB/s", Aim::None);
    let most = most_resident_kb(side.worker.process().pid())?;
    row("most resident memory of the worker", most / 1024.0, "MiB", Aim::AtMost(40.0));

    title(&format!("{SMALL} small outputs"));
    let script = format!("cd /outputs; seq {SMALL} | while read i; do echo $i > $i; done");
    let job = json!({"image": BUSYBOX, "command": format!("sh -c '{script}'")});
    let begin = Instant::now();
    let id = side.run(&mut client, &job).await?;
    row("the whole job", begin.elapsed().as_secs_f64() * 1000.0, "ms", Aim::None);
    let millis = side.phases(&id).await?["outputs"].as_f64().unwrap_or(f64::NAN);
    row("outputs", per_second(SMALL, std::time::Duration::from_secs_f64(millis / 1000.0)), "/s", Aim::None);
    Ok(())
}

async fn time(mut command: Command) -> anyhow::Result<std::time::Duration> {
    let begin = Instant::now();
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "{:?} failed", command.as_std());
    Ok(begin.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "a thousand")]
fn speed(time: std::time::Duration) -> f64 {
    PIECES as f64 / time.as_secs_f64()
}
