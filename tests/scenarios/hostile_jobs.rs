//! Jobs that break whatever they can, among honest ones: each ends as it should, the honest ones do not notice, and
//! nothing is left behind.
//!
//! A few rounds here; `DOCKFRAME_FAULT_ROUNDS=20` for a real trial, best with an optimised `DOCKFRAME_BIN`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::client::Client;
use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::load::{self, Load};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::wait;
use dockframe_tests::worker::Worker;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

/// For one round: the longest is the job that prints.
const ROUND: Duration = Duration::from_secs(180);
const DISK_MIB: u64 = 256;

#[derive(Debug, Clone, Copy)]
enum Hostile {
    ForkBomb,
    EatsMemory,
    FillsTheDisk,
    PrintsWithoutEnd,
    IgnoresSigterm,
    LeavesTraps,
}

impl Hostile {
    /// All that share nothing with the honest ones but processors. A disk is shared: whoever fills it takes it from
    /// all, so that job comes alone.
    const BESIDE: [Self; 5] =
        [Self::ForkBomb, Self::EatsMemory, Self::PrintsWithoutEnd, Self::IgnoresSigterm, Self::LeavesTraps];

    /// `round` makes each a job of its own.
    fn definition(self, round: usize) -> Value {
        let mut definition = json!({ "image": BUSYBOX, "env": { "ROUND": round.to_string() } });
        let script = match self {
            Self::ForkBomb => {
                definition["maxDuration"] = "2s".into();
                "b() { b | b & }; b; while :; do b; sleep 0.2; done".to_owned()
            }
            Self::EatsMemory => {
                definition["requirements"] = json!({ "memory": "32m" });
                "x=x; while :; do x=$x$x; done".to_owned()
            }
            Self::FillsTheDisk => format!("head -c {DISK_MIB}M /dev/zero > /outputs/big; echo code $?; rm /outputs/big"),
            Self::PrintsWithoutEnd => {
                let bytes = if load::is_full() { 1_000_000_000 } else { 20_000_000 };
                format!("yes 0123456789abcdef0123456789abcdef | head -c {bytes}; echo; echo the end")
            }
            Self::IgnoresSigterm => {
                definition["maxDuration"] = "1s".into();
                "trap 'echo no' TERM; while :; do sleep 0.05; done".to_owned()
            }
            Self::LeavesTraps => "cd /outputs && mkfifo pipe && ln -s /etc/shadow shadow && \
                                  ln -s ../../../../../../etc/shadow up && ln -s loop loop && echo content > real"
                .to_owned(),
        };
        definition["command"] = json!(["sh", "-c", script]);
        definition
    }

    /// That it ended as such a job has to.
    fn judge(self, result: &Value) -> anyhow::Result<()> {
        let finished = &result["finished"];
        let (reason, ending) = (finished["reason"].as_str().unwrap_or_default(), &finished["result"]);
        let text: String =
            ending["logs"].as_array().into_iter().flatten().filter_map(|line| line[0].as_str()).collect();
        let is_right = match self {
            // A shell that may make no more processes may also give up by itself.
            Self::ForkBomb => matches!(reason, "TimedOut" | "Success"),
            // On a busy machine the Engine may not have heard yet that it was for want of memory.
            Self::EatsMemory => ending["StatusCode"] == 137,
            Self::FillsTheDisk => reason == "Success" && text.contains("code 1"),
            Self::PrintsWithoutEnd => {
                reason == "Success" && text.starts_with("0123456789abcdef") && text.ends_with("the end\n")
            }
            Self::IgnoresSigterm => reason == "TimedOut" && ending["StatusCode"] == 137,
            Self::LeavesTraps => {
                let outputs = ending["outputs"].as_object();
                reason == "Success" && outputs.is_some_and(|outputs| outputs.keys().eq(["real"]))
            }
        };
        let mut shown = result.to_string();
        shown.truncate(shown.floor_char_boundary(2_000));
        anyhow::ensure!(is_right, "{self:?} ended wrongly: {shown}");
        Ok(())
    }
}

#[test]
fn hostile_jobs_harm_nobody() {
    let rounds = u32::try_from(load::rounds() + 1).unwrap_or(u32::MAX);
    scenario::run_within("hostile_jobs_harm_nobody", ROUND * rounds, async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let disk = SmallDisk::mount(&scenario.folder().join("workers"));
        let relay = Relay::start(&scenario).await?;
        let arguments = ["--cpus", "4", "--kill-grace=1s", scenario.queue()];
        let worker = Worker::start_with(&scenario, &relay.url(), &arguments).await?;
        let outcome = trial(&scenario, &relay, &worker, disk.as_ref()).await;
        // Its files are on the disk that goes.
        worker.process().stop(wait::PATIENT).await?;
        outcome
    });
}

async fn trial(
    scenario: &Arc<Scenario>,
    relay: &Relay,
    worker: &Worker,
    disk: Option<&SmallDisk>,
) -> anyhow::Result<()> {
    let (client, queue) = (relay.client()?, scenario.queue());
    let mut honest = Load::new(relay.client()?, queue);
    let pid = worker.process().pid();
    for round in 0..load::rounds() {
        let mut kinds = Hostile::BESIDE;
        kinds.shuffle(&mut rand::rng());
        let mut ids = Vec::new();
        for kind in kinds {
            ids.push((kind, client.submit(queue, &kind.definition(round)).await?));
            honest.submit(1, Duration::from_millis(500)).await?;
        }
        for (kind, id) in ids {
            kind.judge(&whole_result(&client, queue, &id).await?)?;
        }
        honest.all_finish(ROUND).await?;
        if let Some(disk) = disk {
            let filler = Hostile::FillsTheDisk;
            let id = client.submit(queue, &filler.definition(round)).await?;
            filler.judge(&whole_result(&client, queue, &id).await?)?;
            let before = declines(worker);
            disk.fill()?;
            let id = client
                .submit(queue, &json!({ "image": BUSYBOX, "command": format!("echo {round}") }))
                .await?;
            wait::until("a decline for want of disk", wait::PATIENT, async || {
                if declines(worker) > before { Ok(()) } else { Err(worker.process().output()) }
            })
            .await?;
            client.reaches(queue, &id, "Queued").await?;
            disk.empty()?;
            whole_result(&client, queue, &id).await?;
        }
        load::nothing_left(worker, None).await?;
        anyhow::ensure!(
            worker.process().pid() == pid && worker.process().ended().await?.is_none(),
            "the worker ended"
        );
    }
    honest.none_changed().await?;
    let starts = honest.starts(None).await?;
    anyhow::ensure!(
        starts.iter().all(|starts| *starts == 1),
        "honest jobs were started so often: {starts:?}"
    );
    scenario.tell(&format!(
        "{} hostile jobs{}, {} honest ones beside them: lost 0, doubled 0, left behind 0",
        (Hostile::BESIDE.len() + usize::from(disk.is_some())) * load::rounds(),
        if disk.is_some() {
            " and as many full disks as rounds"
        } else {
            " (no disk could be mounted to be filled)"
        },
        honest.len(),
    ));
    Ok(())
}

fn declines(worker: &Worker) -> usize {
    worker.process().output().matches("declined: this worker's disk is nearly full").count()
}

async fn whole_result(client: &Client, queue: &str, id: &str) -> anyhow::Result<Value> {
    wait::until("the end of a job", ROUND, async || {
        client.result(queue, id).await.map_err(|error| error.to_string())?.ok_or_else(|| id.to_owned())
    })
    .await
}

/// A file system in a file, mounted over the loop device; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user or this machine cannot.
    fn mount(place: &Path) -> Option<Self> {
        std::fs::create_dir_all(place).ok()?;
        let image = place.with_extension("img");
        std::fs::File::create(&image).and_then(|file| file.set_len(DISK_MIB << 20)).ok()?;
        let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        (succeeds(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && succeeds(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(place)))
        .then(|| Self(place.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) -> anyhow::Result<()> {
        // Until no byte is left, which is an error of its own.
        let mut file = std::fs::File::create(self.ballast())?;
        let filled = std::io::copy(&mut std::io::repeat(0), &mut file);
        anyhow::ensure!(filled.is_err(), "a disk without end");
        Ok(())
    }

    fn empty(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
        let _ = std::fs::remove_file(self.0.with_extension("img"));
    }
}
