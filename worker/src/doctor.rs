//! Whether this computer can run jobs, and what to do where it cannot (`worker` 22.3, B34).
//!
//! Looks at everything that a worker of the same flags would need, and changes nothing but for one small file in the
//! relay's store. Each finding is one sentence for the owner; the queue's name is in none.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use crate::args::RunArgs;
use crate::config::{Config, ConfigError, Mode, Network};
use crate::disk::Disk;
use crate::executor::docker::{Examined, examine};
use crate::files::fetch::Http;
use crate::{clock, install_crypto, worker};

/// Clocks that differ by more make limits and lists look wrong.
const MAX_SKEW: Duration = Duration::from_secs(5);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Always the same: the relay's store has it once.
const PROBE: &[u8] = b"dockframe doctor was here\n";

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Jobs run, with something that the owner should know.
    Note,
    /// No job would run, or not as asked for.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub verdict: Verdict,
    pub text: String,
}

/// Everything that was looked at.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { what, verdict: Verdict::Good, text: text.into() });
    }

    fn note(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { what, verdict: Verdict::Note, text: text.into() });
    }

    fn bad(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { what, verdict: Verdict::Bad, text: text.into() });
    }
}

/// Looks at all that a worker with these flags would need.
pub async fn doctor(mut args: RunArgs, env: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    install_crypto();
    let mut findings = Findings::default();
    let config = match Config::resolve(args.clone(), &env) {
        Err(ConfigError::NoQueue) => {
            findings.note("configuration", "no queue is given: a worker needs one");
            args.queues = vec!["none".to_owned()];
            Config::resolve(args, &env)
        }
        other => other,
    };
    let mut config = match config {
        Ok(config) => config,
        Err(error) => {
            findings.bad("configuration", error.to_string());
            return findings.0;
        }
    };
    for warning in &config.warnings {
        findings.note("configuration", warning.as_str());
    }
    // Somebody waits for the answer.
    config.engine_patience = Duration::ZERO;
    let http = Http::new(
        &config.api_address,
        config.allow_private_fetch,
        config.ignore_certificate_errors,
        config.max_input_bytes,
    );
    match http {
        Ok(http) => {
            look_at_files(&config, &mut findings);
            look_at_engine(&config, http.clone(), &mut findings).await;
            if config.mode == Mode::Remote {
                look_at_relay(&config, &http, &mut findings).await;
            }
        }
        Err(error) => findings.bad("relay", error.to_string()),
    }
    findings.0
}

fn look_at_files(config: &Config, findings: &mut Findings) {
    let directory = &config.data_directory;
    let probe = directory.join(format!(".doctor-{}", Uuid::new_v4().simple()));
    let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&probe, PROBE));
    // It may not be there.
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(()) => {
            findings.good("data directory", format!("{} can be written", directory.display()));
            look_at_disk("disk", directory, &Disk::new(directory, config.disk_rules), findings);
        }
        Err(error) => {
            findings.bad("data directory", format!("{} cannot be written: {error}", directory.display()));
        }
    }
}

fn look_at_disk(what: &'static str, place: &Path, disk: &Disk, findings: &mut Findings) {
    match (disk.refusal(), disk.space()) {
        (Some(why), _) => findings.bad(what, format!("{why}: make room at {}", place.display())),
        (None, Some(space)) => findings.good(
            what,
            format!("{} of {} MiB are free at {}", space.free >> 20, space.total >> 20, place.display()),
        ),
        (None, None) => findings.note(what, format!("{} does not say how full it is", place.display())),
    }
}

async fn look_at_engine(config: &Config, http: Http, findings: &mut Findings) {
    let settings = worker::settings(config, &config.data_directory, http);
    let found = match timeout(PATIENCE, examine(&settings)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return findings.bad("Docker Engine", error.to_string()),
        Err(_) => return findings.bad("Docker Engine", "it does not answer"),
    };
    let Examined { address, version, api, .. } = &found;
    findings.good("Docker Engine", format!("{version} at {address}, API {api}"));
    match &found.host_directory {
        Some(directory) => {
            findings.good("files", format!("the Engine's host sees them, at {}", directory.display()))
        }
        None => findings.note(
            "files",
            format!(
                "the Engine's host does not see {}: they are copied to and from each container, which is slower for \
                 large ones. Start the worker's container with -v {0}:{0}, or give --host-data-directory",
                config.data_directory.display()
            ),
        ),
    }
    match found.unlimited.as_slice() {
        [] => findings.good("limits", "memory, swap, processes and cpu time can be limited"),
        missing => findings.note(
            "limits",
            format!("the Engine's host cannot limit {}: jobs run without these limits", missing.join(", ")),
        ),
    }
    match config.gpu_devices() {
        Err(error) => findings.bad("GPUs", error.to_string()),
        Ok(gpus) if gpus.is_empty() => {}
        Ok(gpus) if found.gives_gpus => findings.good("GPUs", format!("{} to lend", gpus.len())),
        Ok(_) => findings.bad(
            "GPUs",
            "they are lent (--gpus), but the Engine cannot give them to containers: install the NVIDIA Container \
             Toolkit",
        ),
    }
    match &found.firewall {
        _ if config.network == Network::None => {
            findings.good("firewall", "none is needed: jobs have no network");
        }
        _ if config.allow_private_network => {
            findings.note("firewall", "jobs may reach private networks and this host, as asked for");
        }
        Ok(()) => findings.good("firewall", "jobs are kept out of private networks and this host"),
        Err(why) => findings.note(
            "firewall",
            format!(
                "jobs can reach private networks and this host, for the firewall cannot be set ({why}): run the \
                 worker as root on the host with iptables installed, or use --network=none"
            ),
        ),
    }
    look_at_disk("images", Path::new("the Engine's place"), &found.disk, findings);
}

async fn look_at_relay(config: &Config, http: &Http, findings: &mut Findings) {
    let address = &config.api_address;
    let clock = match timeout(PATIENCE, http.relay_clock()).await {
        Ok(Ok(clock)) => clock,
        Ok(Err(error)) => {
            return findings.bad("relay", format!("{address} cannot be reached: {error}"));
        }
        Err(_) => return findings.bad("relay", format!("{address} does not answer")),
    };
    findings.good("relay", format!("{address} is well"));
    match clock.map(|theirs| clock::now().since(theirs)) {
        None => findings.note("clock", "the relay does not tell its time"),
        Some(ahead) if u128::from(ahead.unsigned_abs()) > MAX_SKEW.as_millis() => {
            let (seconds, how) = (ahead.abs() / 1000, if ahead > 0 { "ahead of" } else { "behind" });
            findings.note("clock", format!("this computer is {seconds} s {how} the relay: set its clock"));
        }
        Some(_) => findings.good("clock", "as the relay's"),
    }
    match timeout(PATIENCE, round_trip(config, http)).await {
        Ok(Ok(())) => findings.good("files of the relay", "what is stored there comes back"),
        Ok(Err(why)) => findings.bad("files of the relay", format!("outputs cannot be stored: {why}")),
        Err(_) => findings.bad("files of the relay", "storing a small file takes too long"),
    }
}

/// Stores a small file at the relay, and fetches it again.
async fn round_trip(config: &Config, http: &Http) -> Result<(), String> {
    let path = config.data_directory.join(format!(".doctor-{}", Uuid::new_v4().simple()));
    let brought = async {
        std::fs::write(&path, PROBE).map_err(|error| error.to_string())?;
        let hash = dockframe_shared::ContentHash::of(PROBE);
        let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
        let key = hash.to_string();
        http.upload(&key, &file, PROBE.len() as u64).await.map_err(|error| error.to_string())?;
        let url = url::Url::parse(&http.key_address(&key)).map_err(|error| error.to_string())?;
        let fetched = http.fetch(&url, &path).await.map_err(|error| error.to_string())?;
        if fetched.hash == hash { Ok(()) } else { Err("it came back changed".to_owned()) }
    };
    let brought = brought.await;
    // Ours alone.
    let _ = std::fs::remove_file(&path);
    brought
}
