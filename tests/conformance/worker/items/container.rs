//! 29 to 39 and 84: what a container is, and what its program sees.

use std::time::Duration;

use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::{item, unseen};
use crate::worker::bench::{Bench, PATIENT};
use crate::worker::engine;
use crate::worker::relay::Way;
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("29", Compat, "Commands become arguments as recorded, one of every kind.", command_vectors)
            .long(),
        item!(
            "30",
            Dockframe,
            "A command that cannot be parsed is an Error, and the worker lives.",
            bad_substitution
        ),
        item!(
            "31a",
            Compat,
            "A program that is not there is an Error with the Engine's own message and status.",
            no_program
        ),
        item!(
            "31b",
            Dockframe,
            "It has exit code 127, and a line that explains a pattern in the command.",
            no_program_hint
        ),
        item!("32a", Compat, "The job's variables are set, and the user cannot override them.", environment),
        item!(
            "32b",
            Dockframe,
            "Attempt and room are told, unless the user set them; an object as value is an Error.",
            more_environment
        ),
        item!("33a", Compat, "shmSize in MB and GB is the size of /dev/shm.", shm),
        item!("33b", Dockframe, "So are m, g and plain numbers; what is no size is an Error.", more_shm),
        item!(
            "34a",
            Compat,
            "The program is the worker's user, in a working directory that is made for it.",
            user
        ),
        item!("34b", Compat, "A relative working directory is an Error.", relative_workdir),
        item!("35", Compat, "Containers carry their labels.", labels),
        item!("36a", Compat, "The program is process 1.", process_one),
        item!(
            "36b",
            Dockframe,
            "By default privileges, processes and the Engine's log are bounded.",
            compat_profile
        ),
        item!(
            "36c",
            Dockframe,
            "A strict worker drops all rights, and 127 of its init is a failed start.",
            strict_profile
        ),
        item!("37a", Compat, "A job cannot reach another job.", jobs_apart),
        item!("37b", Dockframe, "A job without network has the loopback device alone.", no_network),
        unseen!(
            "37c",
            Dockframe,
            "With a firewall gateway, LAN and metadata are out of reach.",
            "changes the machine's firewall"
        ),
        item!("38", Compat, "What a job leaves in /job-cache is there for the next.", job_cache),
        item!(
            "39a",
            Dockframe,
            "A job without GPU sees none, whatever its image or its user says.",
            no_gpu_seen
        ),
        unseen!(
            "39b",
            Dockframe,
            "The body for GPUs is as documented.",
            "needs GPUs: the worker's own tests hold the body"
        ),
        item!(
            "84",
            Compat,
            "At / there are the image's entries, inputs, outputs, job-cache and .dockerenv.",
            root_entries
        ),
    ]
}

/// One vector of each group: all of them are held by the tests of the parser.
async fn command_vectors(t: Test) -> anyhow::Result<()> {
    let all: Value =
        serde_json::from_str(include_str!("../../../../shared/tests/vectors/command-argv.json"))?;
    let mut groups = std::collections::BTreeMap::<&str, Vec<&Value>>::new();
    for vector in all["vectors"].as_array().into_iter().flatten() {
        let is_runnable = vector["command"].is_string()
            && vector["argv"].as_array().is_some_and(|argv| !argv.is_empty())
            && !vector.to_string().contains("\\u0000");
        if is_runnable {
            groups.entry(vector["group"].as_str().unwrap_or_default()).or_default().push(vector);
        }
    }
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let mut jobs = Vec::new();
    for vectors in groups.values() {
        for vector in [vectors.first(), vectors.last()].into_iter().flatten().take(vectors.len()) {
            let env = match vector["env"].as_str() {
                Some(name) => all["environments"][name].clone(),
                None => vector["env"].clone(),
            };
            let print =
                "for word in \"$@\"; do printf '%s' \"$word\" | od -An -tx1 | tr -d ' \\n'; echo; done";
            let job = bench.submit(t.job(json!({
                "entrypoint": ["sh", "-c", print, "sh"], "command": vector["command"],
                "env": if env.is_object() { env } else { json!({}) },
            })))?;
            jobs.push((vector, job));
        }
    }
    for (vector, job) in jobs {
        let ended = bench.ended(&job).await?.good()?;
        let argv = vector["argv"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let wanted: Vec<String> =
            argv.map(|word| word.bytes().map(|byte| format!("{byte:02x}")).collect()).collect();
        let came: Vec<String> = ended.stdout().lines().map(str::to_owned).collect();
        same(&format!("words of {}", vector["command"]), &came, &wanted)?;
    }
    Ok(())
}

async fn bad_substitution(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.job(json!({ "command": "echo ${" }))).await?.failed()?;
    that("Bad substitution", ended.error().contains("Bad substitution"), &ended.value)?;
    bench.run(t.sh("true")).await?.good()?;
    Ok(())
}

async fn no_program(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.job(json!({ "command": "ls *.txt" }))).await?.failed()?;
    let error = &ended.result()["error"];
    that("a status of the Engine", error["statusCode"].as_u64().is_some_and(|code| code >= 400), error)?;
    let said = error["json"]["message"].as_str().unwrap_or_default();
    that(
        "the Engine's message",
        said.contains("ls *.txt") && said.contains("executable file not found"),
        error,
    )?;
    let text = ended.text();
    that("it in the log", text.contains("Job Error") && text.contains("HTTP code"), &text)
}

async fn no_program_hint(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.job(json!({ "command": "ls *.txt" }))).await?.failed()?;
    same("exit code", &ended.code(), &Some(127))?;
    that("a hint with sh -c", ended.text().contains("sh -c 'ls *.txt'"), &ended.text())
}

async fn environment(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    // Not by a shell, which drops names that are none of its own.
    let mut definition = t.job(json!({ "command": ["env"] }));
    definition["env"] = json!({
        "b": "two", "10": "ten", "2": "nine", "number": 5, "yes": true, "nothing": null, "PATH": "/bin:/mine",
        "JOB_ID": "mine", "JOB_INPUTS": "mine", "JOB_OUTPUTS": "mine", "JOB_CACHE": "mine", "JOB_URL_PREFIX": "mine",
        "JOB_OUTPUTS_URL_PREFIX": "mine", "JOB_INPUTS_URL_PREFIX": "mine",
    });
    let job = bench.submit(definition)?;
    let ended = bench.ended(&job).await?.good()?;
    let (text, relay) = (ended.stdout(), bench.relay.url());
    let wanted = [
        "b=two".to_owned(),
        "10=ten".to_owned(),
        "2=nine".to_owned(),
        "number=5".to_owned(),
        "yes=true".to_owned(),
        "nothing=null".to_owned(),
        "PATH=/bin:/mine".to_owned(),
        format!("JOB_ID={job}"),
        "JOB_INPUTS=/inputs".to_owned(),
        "JOB_OUTPUTS=/outputs".to_owned(),
        "JOB_CACHE=/job-cache".to_owned(),
        format!("JOB_URL_PREFIX={relay}/j/{job}"),
        format!("JOB_OUTPUTS_URL_PREFIX={relay}/j/{job}/outputs/"),
        format!("JOB_INPUTS_URL_PREFIX={relay}/j/{job}/inputs/"),
    ];
    for line in &wanted {
        that(line, text.lines().filter(|came| came == line).count() == 1, &text)?;
    }
    that("no CUDA device", !text.contains("CUDA_VISIBLE_DEVICES"), &text)
}

async fn more_environment(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let ended = bench.run(t.sh("env")).await?.good()?;
    for line in ["JOB_ATTEMPT=1", "JOB_CPUS=1", "NVIDIA_VISIBLE_DEVICES=void"] {
        that(line, ended.stdout().lines().any(|came| came == line), &ended.stdout())?;
    }
    that("JOB_MEMORY_BYTES", ended.stdout().contains("JOB_MEMORY_BYTES="), &ended.stdout())?;
    let mut definition = t.sh("env");
    definition["env"] = json!({ "JOB_ATTEMPT": "mine" });
    let ended = bench.run(definition).await?.good()?;
    that("the user's", ended.stdout().lines().any(|came| came == "JOB_ATTEMPT=mine"), &ended.stdout())?;
    for value in [json!({ "a": 1 }), json!([1])] {
        let mut definition = t.sh("env");
        definition["env"] = json!({ "ODD_ONE": value });
        let ended = bench.run(definition).await?.failed()?;
        that("an error with its name", ended.error().contains("ODD_ONE"), &ended.value)?;
    }
    Ok(())
}

async fn shm_sizes(bench: &Bench, sizes: &[(Value, &str)]) -> anyhow::Result<()> {
    for (size, kib) in sizes {
        let mut definition = bench.t.sh("df -k /dev/shm | tail -n 1 | awk '{ print $2 }'");
        definition["shmSize"] = size.clone();
        let ended = bench.run(definition).await?.good()?;
        same(&format!("KiB of {size}"), &ended.stdout().trim(), kib)?;
    }
    Ok(())
}

async fn shm(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    shm_sizes(&bench, &[(json!("32MB"), "32768"), (json!("1gb"), "1048576"), (json!(""), "65536")]).await
}

async fn more_shm(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let sizes = [(json!("32m"), "32768"), (json!("2g"), "2097152"), (json!(16 << 20), "16384")];
    shm_sizes(&bench, &sizes).await?;
    for size in [json!("0"), json!("-1m"), json!("much"), json!(0)] {
        let mut definition = t.sh("true");
        definition["shmSize"] = size;
        let ended = bench.run(definition).await?.failed()?;
        that("an error with the field", ended.error().contains("shmSize"), &ended.value)?;
    }
    Ok(())
}

async fn user(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("id -u; id -g; pwd; touch /new && touch /outputs/mine");
    definition["workdir"] = json!("/made/for/me");
    let ended = bench.run(definition).await?.good()?;
    same("user, group, directory", &ended.stdout().as_str(), &"0\n0\n/made/for/me\n")
}

async fn relative_workdir(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("pwd");
    definition["workdir"] = json!("not/absolute");
    bench.run(definition).await?.failed()?;
    Ok(())
}

async fn labels(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("sleep 600"))?;
    let container = bench.container(&job).await?;
    let labels = engine::inspect(&container).await?["Config"]["Labels"].clone();
    for (name, value) in [
        ("container.mtfm.io", "true"),
        ("container.mtfm.io/id", &job),
        ("container.mtfm.io/queue", &bench.worker.queue),
        ("container.mtfm.io/worker", &bench.worker.id),
    ] {
        same_json(name, &labels[name], &json!(value))?;
    }
    Ok(())
}

async fn process_one(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("echo $$")).await?.good()?;
    same("own process id", &ended.stdout().trim(), &"1")
}

async fn compat_profile(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("grep -E 'NoNewPrivs|CapEff' /proc/self/status; sleep 600"))?;
    bench.relay.prints(&job, "NoNewPrivs", PATIENT).await?;
    let text = bench.relay.text(&job);
    that("no new privileges", text.contains("NoNewPrivs:\t1"), &text)?;
    that("the default rights less NET_RAW and MKNOD", text.contains("00000000a00405fb"), &text)?;
    let container = bench.container(&job).await?;
    let host = engine::inspect(&container).await?["HostConfig"].clone();
    same_json("PidsLimit", &host["PidsLimit"], &json!(4096))?;
    same_json("LogConfig.Type", &host["LogConfig"]["Type"], &json!("local"))?;
    that("a bound for the log", host["LogConfig"]["Config"]["max-size"].is_string(), &host["LogConfig"])?;
    same_json("Privileged", &host["Privileged"], &json!(false))?;
    same_json("IpcMode", &host["IpcMode"], &json!("private"))?;
    that("no init", host["Init"] != true, &host["Init"])
}

async fn strict_profile(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--sandbox=strict", "--cpus=2"]).await?;
    let script = "grep -E 'NoNewPrivs|CapEff' /proc/self/status; id -u; touch /new 2>/dev/null || echo read-only; touch /tmp/x /outputs/x";
    let ended = bench.run(t.sh(script)).await?.good()?;
    let text = ended.stdout();
    that("no rights", text.contains("0000000000000000"), &text)?;
    that("nobody's user", text.contains("65534"), &text)?;
    that("a read-only root", text.contains("read-only"), &text)?;
    let ended = bench.run(t.job(json!({ "command": ["no-such-program"] }))).await?.failed()?;
    same("exit code", &ended.code(), &Some(127))?;
    let message = ended.result()["error"]["json"]["message"].as_str().unwrap_or_default().to_owned();
    that("the program in the message", message.contains("no-such-program"), &ended.value)
}

async fn jobs_apart(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let serving =
        bench.submit(t.sh("echo hello > /tmp/index.html; httpd -f -p 9999 -h /tmp & echo up; wait"))?;
    bench.relay.prints(&serving, "up", PATIENT).await?;
    let container = bench.container(&serving).await?;
    let networks = engine::inspect(&container).await?["NetworkSettings"]["Networks"].clone();
    let address =
        networks.as_object().into_iter().flatten().find_map(|(_, network)| network["IPAddress"].as_str());
    let address = address.unwrap_or_default().to_owned();
    // The host reaches it: so it serves.
    dockframe_tests::wait::until("a serving job", Duration::from_secs(10), async || {
        let reached = tokio::net::TcpStream::connect(format!("{address}:9999")).await;
        reached.map(drop).map_err(|error| format!("{address}: {error}"))
    })
    .await?;
    let ended = bench.run(t.sh(&format!("wget -q -T 3 -O - http://{address}:9999/ && echo reached"))).await?;
    that(
        "no way to the other job",
        !ended.stdout().contains("reached") && ended.code() != Some(0),
        &ended.value,
    )
}

async fn no_network(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("ls /sys/class/net");
    definition["network"] = json!("none");
    let ended = bench.run(definition).await?.good()?;
    same("devices", &ended.stdout().trim(), &"lo")
}

async fn job_cache(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let path = format!("$JOB_CACHE/conformance-{}", t.nonce());
    bench.run(t.sh(&format!("echo kept > {path}"))).await?.good()?;
    let ended = bench.run(t.sh(&format!("cat {path}; rm {path}"))).await?.good()?;
    same("what was left", &ended.stdout().as_str(), &"kept\n")
}

async fn no_gpu_seen(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("echo $NVIDIA_VISIBLE_DEVICES");
    definition["env"] = json!({ "NVIDIA_VISIBLE_DEVICES": "all" });
    let ended = bench.run(definition).await?.good()?;
    same("devices", &ended.stdout().as_str(), &"void\n")
}

async fn root_entries(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("ls -a /")).await?.good()?;
    let mut came: Vec<String> = ended.stdout().lines().map(str::to_owned).collect();
    came.sort();
    let made = engine::docker(&["create", t.image(), "true"]).await?;
    let made = made.trim();
    let archive =
        engine::docker(&["export", "--output", &t.folder()?.join("root.tar").display().to_string(), made])
            .await;
    engine::docker(&["rm", made]).await?;
    archive?;
    let listed =
        tokio::process::Command::new("tar").arg("-tf").arg(t.folder()?.join("root.tar")).output().await?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut wanted: Vec<String> = listed
        .lines()
        .filter_map(|path| path.trim_start_matches("./").split('/').next())
        .filter(|name| !name.is_empty())
        .chain([".", "..", "inputs", "outputs", "job-cache", ".dockerenv", "dev", "proc", "sys", "etc"])
        .map(str::to_owned)
        .collect();
    wanted.sort();
    wanted.dedup();
    same("entries", &came, &wanted)
}
