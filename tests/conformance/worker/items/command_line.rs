//! 1 to 9: how a worker is started, and what it refuses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_tests::process::Process;
use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::{item, unseen};
use crate::worker::bench::PATIENT;
use crate::worker::relay::{Relay, Way};
use crate::worker::setup::{Line, START, Test};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "1a",
            Compat,
            "The published command line and its variants say what they say.",
            published_lines
        ),
        item!("1b", Dockframe, "Environment variables alone are enough.", environment_alone),
        item!("2a", Compat, "The environment names queue, relay and duration; a flag beats it.", flag_beats),
        item!(
            "2b",
            Dockframe,
            "Flag beats environment beats default, for cpus and the relay's address too.",
            precedence
        ),
        item!("3", Dockframe, "Each old name is understood, and told about once.", old_names),
        item!("4a", Compat, "Without a queue the worker ends with an error.", no_queue),
        item!(
            "4b",
            Dockframe,
            "A configuration that cannot work is explained, and ends no sooner than after 5 s.",
            bad_configuration
        ),
        item!("4c", Dockframe, "Wrong use of the command line ends at once with code 2.", wrong_use),
        item!("4d", Dockframe, "Without an Engine the worker says so and ends.", no_engine).long(),
        item!(
            "5a",
            Compat,
            "A list of devices offers as many GPUs, unless there are none and it is said.",
            device_list
        ),
        item!("5b", Dockframe, "A GPU text that means nothing is refused.", bad_gpus),
        item!(
            "6",
            Dockframe,
            "A job's unreadable, zero or negative duration is an Error; an empty one is none.",
            durations
        ),
        item!("7a", Compat, "The id is kept in the data directory.", id_is_kept),
        item!(
            "7b",
            Compat,
            "--id beats the kept one, and the generate variable makes a new one.",
            id_is_given
        ),
        item!(
            "7c",
            Dockframe,
            "A second process with the same data directory has another id.",
            second_process
        ),
        item!("8", Compat, "SIGTERM and SIGINT end an idle worker with code 0.", signals),
        unseen!(
            "9",
            Dockframe,
            "A data directory at another path of the host is translated, or copied.",
            "needs a worker in a container: the scenario deploy shows it"
        ),
    ]
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|&word| word.to_owned()).collect()
}

/// Starts exactly this line, with a data directory and an id at its end.
fn start(t: &Test, line: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Arc<Process>> {
    let data = t.folder()?.join("data");
    let id = t.worker_id("0");
    t.owns_worker(&id);
    let mut all = words(line);
    all.extend([format!("--data-directory={}", data.display()), format!("--id={id}")]);
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    t.launch_with(&all, &env)
}

async fn registration(relay: &Relay, process: &Process) -> anyhow::Result<Value> {
    let came = relay.registration(START).await;
    came.map_err(|error| error.context(format!("the worker says: {}", process.output())))
}

async fn published_lines(t: Test) -> anyhow::Result<()> {
    for line in [&["--cpus=4", "--gpus=0", "public1"][..], &["public1", "--cpus", "4"], &["-c4", "public1"]] {
        let relay = Relay::start(Way::Old).await?;
        let address = format!("--api-address={}/", relay.url());
        let process = start(&t, &[line, &[&address]].concat(), &[])?;
        let came = registration(&relay, &process).await?;
        same_json("cpus", &json!(came["cpus"].as_f64()), &json!(4.0))?;
        same_json("gpus", &json!(came["gpus"].as_f64()), &json!(0.0))?;
        same_json("maxJobDuration", &came["maxJobDuration"], &json!("5m"))?;
        same_json("id", &came["id"], &json!(t.worker_id("0")))?;
        same("path", &relay.paths()[0].as_str(), &"/q/public1/worker")?;
        process.kill().await?;
    }
    Ok(())
}

async fn environment_alone(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let env = [
        ("METAPAGE_IO_WORKER_QUEUE", "public1"),
        ("METAPAGE_IO_WORKER_CPUS", "4"),
        ("METAPAGE_IO_WORKER_GPUS", "0"),
        ("METAPAGE_IO_WORKER_MODE", "remote"),
        ("METAPAGE_IO_WORKER_API_ADDRESS", &relay.url()),
    ];
    let process = start(&t, &[], &env)?;
    let came = registration(&relay, &process).await?;
    same_json("cpus", &json!(came["cpus"].as_f64()), &json!(4.0))?;
    same("path", &relay.paths()[0].as_str(), &"/q/public1/worker")
}

async fn flag_beats(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let env = [
        ("METAPAGE_IO_WORKER_QUEUE", "from-env"),
        ("METAPAGE_IO_WORKER_API_ADDRESS", &relay.url()),
        ("METAPAGE_IO_WORKER_JOB_MAX_DURATION", "20m"),
    ];
    let process = start(&t, &[], &env)?;
    let came = registration(&relay, &process).await?;
    same_json("maxJobDuration", &came["maxJobDuration"], &json!("20m"))?;
    same("path", &relay.paths()[0].as_str(), &"/q/from-env/worker")?;
    process.kill().await?;
    let process = start(&t, &["--max-job-duration=7m", "from-flag"], &env)?;
    let came = relay.registered_on(relay.n_links(), START).await;
    let came = came.map_err(|error| error.context(process.output()))?;
    same_json("maxJobDuration", &came.frame["payload"]["maxJobDuration"], &json!("7m"))?;
    same("path", &relay.paths()[came.link].as_str(), &"/q/from-flag/worker")
}

async fn precedence(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let address = relay.url();
    // Nothing listens at the addresses that must not win.
    let nobody = "http://127.0.0.1:9";
    for (line, env, cpus) in [
        (
            vec!["q"],
            vec![("DOCKFRAME_API_ADDRESS", &*address), ("METAPAGE_IO_WORKER_API_ADDRESS", nobody)],
            1.0,
        ),
        (
            vec!["q", "--cpus=3"],
            vec![("DOCKFRAME_API_ADDRESS", &*address), ("METAPAGE_IO_WORKER_CPUS", "2")],
            3.0,
        ),
        (
            vec!["q", "--cpus="],
            vec![("DOCKFRAME_API_ADDRESS", &*address), ("METAPAGE_IO_WORKER_CPUS", "2")],
            2.0,
        ),
    ] {
        let links = relay.n_links();
        let process = start(&t, &line, &env)?;
        let came = relay.registered_on(links, START).await;
        let came = came.map_err(|error| error.context(process.output()))?;
        same_json("cpus", &json!(came.frame["payload"]["cpus"].as_f64()), &json!(cpus))?;
        process.kill().await?;
    }
    let flag = format!("--api-address={address}");
    let process = start(&t, &["q", &flag], &[("DOCKFRAME_API_ADDRESS", nobody)])?;
    let came = relay.registered_on(relay.n_links(), START).await;
    came.map(drop).map_err(|error| error.context(process.output()))
}

/// Words, environment, the old names among them, and the cpus that come of it.
type OldLine<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str], f64);

async fn old_names(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let address = relay.url();
    let server = format!("--api-server-address={address}");
    let cases: [OldLine<'_>; 4] = [
        (&["--cores", "3", "q", &server], &[], &["--cores", "--api-server-address"], 3.0),
        (
            &["q", "--test-mode"],
            &[("API_SERVER_ADDRESS", &address)],
            &["API_SERVER_ADDRESS", "--test-mode"],
            1.0,
        ),
        (
            &[],
            &[
                ("METAPAGE_IO_QUEUE", "q"),
                ("METAPAGE_IO_CPUS", "2"),
                ("METAPAGE_IO_API_ADDRESS", &address),
                ("METAPAGE_IO_JOB_MAX_DURATION", "9m"),
            ],
            &[
                "METAPAGE_IO_QUEUE",
                "METAPAGE_IO_CPUS",
                "METAPAGE_IO_API_ADDRESS",
                "METAPAGE_IO_JOB_MAX_DURATION",
            ],
            2.0,
        ),
        (
            &[],
            &[("METAPAGE_IO_WORKER_QUEUE_ID", "q"), ("METAPAGE_IO_WORKER_API_ADDRESS", &address)],
            &["METAPAGE_IO_WORKER_QUEUE_ID"],
            1.0,
        ),
    ];
    for (line, env, old, cpus) in cases {
        let links = relay.n_links();
        let process = start(&t, line, env)?;
        let came = relay.registered_on(links, START).await;
        let came = came.map_err(|error| error.context(process.output()))?;
        same_json("cpus", &json!(came.frame["payload"]["cpus"].as_f64()), &json!(cpus))?;
        let said = process.output();
        for name in old {
            let lines = said.lines().filter(|line| {
                line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
                    .any(|word| word == *name)
            });
            same(&format!("lines that name {name} in {said}"), &lines.count(), &1)?;
        }
        process.kill().await?;
    }
    Ok(())
}

/// Code and time of a worker that must end by itself.
async fn ends(process: &Process, limit: Duration) -> anyhow::Result<(Option<i32>, Duration, String)> {
    let begin = Instant::now();
    let status = process.end(limit).await?;
    Ok((status.code(), begin.elapsed(), process.output()))
}

async fn no_queue(t: Test) -> anyhow::Result<()> {
    let process = start(&t, &["--cpus=1"], &[])?;
    let (code, _, said) = ends(&process, START).await?;
    that("an exit code other than 0", code.is_some_and(|code| code != 0), &(code, said))
}

async fn bad_configuration(t: Test) -> anyhow::Result<()> {
    for (line, word) in [
        (&["--cpus=1"][..], "queue"),
        (&["q", "--gpus=many"], "gpus"),
        (&["q", "--max-job-duration=soon"], "max-job-duration"),
        (&["q", "--max-job-duration=0"], "max-job-duration"),
        (&["q", "--cpus=-1"], "cpus"),
    ] {
        let process = start(&t, line, &[])?;
        let (code, took, said) = ends(&process, START).await?;
        that("exit code 1", code == Some(1), &(line, code, &said))?;
        that("at least 5 s", took >= Duration::from_millis(4800), &(line, took))?;
        that(&format!("{word:?} in what it says"), said.contains(word), &said)?;
    }
    Ok(())
}

async fn wrong_use(t: Test) -> anyhow::Result<()> {
    for (line, hint) in [
        (&["q", "--cpsu=1"][..], "--cpus"),
        (&["q", "--cpus=1", "--cpus=2"], "cpus"),
        (&["--debug", "q"], "debug"),
    ] {
        let process = start(&t, line, &[])?;
        let (code, took, said) = ends(&process, START).await?;
        that("exit code 2", code == Some(2), &(line, code, &said))?;
        that("at once", took < Duration::from_secs(4), &took)?;
        that(&format!("{hint:?} in what it says"), said.contains(hint), &said)?;
    }
    Ok(())
}

async fn no_engine(t: Test) -> anyhow::Result<()> {
    let nowhere = format!("unix://{}/no.sock", t.folder()?.display());
    let process = start(&t, &["q"], &[("DOCKER_HOST", &nowhere)])?;
    let (code, took, said) = ends(&process, Duration::from_secs(90)).await?;
    that("an exit code other than 0", code.is_some_and(|code| code != 0), &(code, &said))?;
    that("at least 5 s", took >= Duration::from_millis(4800), &took)?;
    that("a word about Docker", said.contains("Docker"), &said)
}

async fn device_list(t: Test) -> anyhow::Result<()> {
    for (value, gpus) in [("device=1,3", 2.0), ("\"device=0,2,5\"", 3.0), ("0", 0.0)] {
        let relay = Relay::start(Way::Old).await?;
        let line = [&format!("--gpus={value}"), "q", &format!("--api-address={}", relay.url())];
        let process = start(&t, &line, &[])?;
        let came = registration(&relay, &process).await?["gpus"].as_f64();
        let is_told = came == Some(0.0) && process.output().to_lowercase().contains("gpu");
        that(&format!("{gpus} GPUs for {value}"), came == Some(gpus) || is_told, &(came, process.output()))?;
        process.kill().await?;
    }
    Ok(())
}

async fn bad_gpus(t: Test) -> anyhow::Result<()> {
    for value in ["banana", "device=1,,3", "device=", "-1"] {
        let process = start(&t, &["q", &format!("--gpus={value}")], &[])?;
        let (code, _, said) = ends(&process, START).await?;
        that("a refusal", code == Some(1) && said.contains("gpus"), &(value, code, said))?;
    }
    Ok(())
}

async fn durations(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=4"]).await?;
    for text in ["soon", "0", "-5s"] {
        let ended = bench.run(t.job(json!({ "command": "true", "maxDuration": text }))).await?.failed()?;
        let wanted = format!("invalid maxDuration \"{text}\"");
        that(&format!("an error with {wanted:?}"), ended.error().contains(&wanted), &ended.value)?;
    }
    bench.run(t.job(json!({ "command": "true", "maxDuration": "" }))).await?.good()?;
    Ok(())
}

async fn id_is_kept(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let data = format!("--data-directory={}", t.folder()?.join("kept").display());
    let line = words(&["q", &data, &format!("--api-address={}", relay.url())]);
    let first = t.launch_with(&line, &[])?;
    let id = registration(&relay, &first).await?["id"].clone();
    that("a UUID", id.as_str().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), &id)?;
    first.kill().await?;
    let links = relay.n_links();
    t.launch_with(&line, &[])?;
    let again = relay.registered_on(links, START).await?;
    same_json("id after a restart", &again.frame["payload"]["id"], &id)
}

async fn id_is_given(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let data = format!("--data-directory={}", t.folder()?.join("kept").display());
    let line = words(&["q", &data, &format!("--api-address={}", relay.url())]);
    let generate = [("METAPAGE_IO_WORKER_GENERATE_WORKER_ID".to_owned(), "1".to_owned())];
    let mut ids: Vec<Value> = Vec::new();
    for (more, env) in [(None, &generate[..]), (None, &generate[..]), (Some("--id=test-worker-given"), &[])] {
        let links = relay.n_links();
        let line = [&line[..], &more.map(str::to_owned).into_iter().collect::<Vec<_>>()].concat();
        let process = t.launch_with(&line, env)?;
        ids.push(relay.registered_on(links, START).await?.frame["payload"]["id"].clone());
        process.kill().await?;
    }
    that("two different ids", ids[0] != ids[1], &ids)?;
    same_json("given id", &ids[2], &json!("test-worker-given"))
}

async fn second_process(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let data = format!("--data-directory={}", t.folder()?.join("shared").display());
    let line = words(&["q", &data, &format!("--api-address={}", relay.url())]);
    t.launch_with(&line, &[])?;
    let first = relay.registration(START).await?["id"].clone();
    let links = relay.n_links();
    t.launch_with(&line, &[])?;
    let second = relay.registered_on(links, START).await?.frame["payload"]["id"].clone();
    that("two ids", first != second, &(first, second))
}

async fn signals(t: Test) -> anyhow::Result<()> {
    for signal in ["TERM", "INT"] {
        let relay = Relay::start(Way::Old).await?;
        let line = Line { id: Some(t.worker_id(signal)), ..Line::default() };
        let worker = t.worker_by(&relay, line)?;
        registration(&relay, &worker.process).await?;
        worker.process.signal(signal).await?;
        let (code, _, said) = ends(&worker.process, PATIENT).await?;
        that("exit code 0", code == Some(0), &(signal, code, said))?;
    }
    Ok(())
}
