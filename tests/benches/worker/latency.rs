//! One short job after the other, in turn by `docker run`, by the Engine's API, and by us.
//!
//! The API is asked twice: for the barest container, and for the very container that the worker asks for (confined, on
//! the jobs' network, with its mounts), which takes the Engine longer. What a job takes beyond the latter is our own.

use std::time::{Duration, Instant};

use dockframe_tests::docker::BUSYBOX;
use serde_json::json;

use crate::Side;
use crate::engine::{Network, STEPS, api_run, as_the_worker_does, bare, docker_run};
use crate::support::socket::Socket;
use crate::support::table::{Aim, note, row, title};
use crate::support::times::Times;

const ROUNDS: usize = 50;
/// Of a job, as its result tells them. The first two go side by side.
const PHASES: [&str; 5] = ["inputs", "image", "start", "run", "outputs"];

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    for network in [Network::Nat, Network::None] {
        let (bare, same) = (bare(network), as_the_worker_does(side, network).await?);
        side.settled().await?;
        let (mut docker, mut least, mut api, mut ours) =
            (Times::default(), Times::default(), Times::default(), Times::default());
        let mut steps = STEPS.map(|_| Times::default());
        let mut phases = PHASES.map(|_| Times::default());
        for round in 0..ROUNDS {
            let begin = Instant::now();
            docker_run(network).await?;
            docker.add(begin.elapsed());
            let begin = Instant::now();
            api_run(&bare).await?;
            least.add(begin.elapsed());
            let begin = Instant::now();
            for (times, step) in steps.iter_mut().zip(api_run(&same).await?) {
                times.add(step);
            }
            api.add(begin.elapsed());
            let mut job =
                json!({"image": BUSYBOX, "command": "true", "env": {"N": format!("{network:?}{round}")}});
            network.ask(&mut job);
            let begin = Instant::now();
            let id = side.run(&mut client, &job).await?;
            ours.add(begin.elapsed());
            let told = side.phases(&id).await?;
            for (times, phase) in phases.iter_mut().zip(PHASES) {
                times.add(Duration::from_secs_f64(told[phase].as_f64().unwrap_or_default() / 1000.0));
            }
            // The worker removes the container when the result is out: not in somebody else's time.
            side.settled().await?;
        }
        title(&format!("A short job, network {}, {ROUNDS} of each in turn", network.name()));
        row("docker run --rm: p50", docker.p50(), "ms", Aim::None);
        row("docker run --rm: p95", docker.p95(), "ms", Aim::None);
        row("the Engine's API, barest container: p50", least.p50(), "ms", Aim::None);
        row("the Engine's API, barest container: p95", least.p95(), "ms", Aim::None);
        row("the Engine's API, our container: p50", api.p50(), "ms", Aim::None);
        row("the Engine's API, our container: p95", api.p95(), "ms", Aim::None);
        row("submission to Finished seen: p50", ours.p50(), "ms", Aim::None);
        row("submission to Finished seen: p95", ours.p95(), "ms", Aim::None);
        row("over the Engine's API, our container: p50", ours.p50() - api.p50(), "ms", Aim::AtMost(15.0));
        row("over the Engine's API, our container: p95", ours.p95() - api.p95(), "ms", Aim::AtMost(40.0));
        row("over the Engine's API, barest container: p50", ours.p50() - least.p50(), "ms", Aim::None);
        row("ours ÷ docker run: p50", ours.p50() / docker.p50(), "", Aim::AtMost(0.9));
        let medians = |names: &[&str], times: &[Times]| {
            let one = |(name, times): (&&str, &Times)| format!("{name} {:.0}", times.p50());
            names.iter().zip(times).map(one).collect::<Vec<_>>().join(", ")
        };
        note(&format!("medians, ms: the Engine's API: {}", medians(&STEPS, &steps)));
        note(&format!("medians, ms: ours, as the result tells: {}", medians(&PHASES, &phases)));
    }
    Ok(())
}
