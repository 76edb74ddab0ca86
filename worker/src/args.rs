//! The command line of `dockframe run` (`worker` 2.2 to 2.4, 2.9): which words are accepted. What they mean, and the
//! environment behind them, is [`crate::config`].
//!
//! Every option takes a text here, and an empty or missing value counts as not given, so that `--gpus=` in a
//! deployment's template is no error. Wrong use of the command line (an unknown or repeated option) is clap's to
//! refuse, with exit code 2; a wrong value is a run-time configuration error.

use clap::{ArgAction, Args};

/// Everything after `dockframe run`.
#[derive(Debug, Clone, Default, Args)]
#[command(args_override_self = false)]
pub struct RunArgs {
    /// Queue to take jobs from; its name is a secret. Several queues share this machine.
    #[arg(value_name = "QUEUE")]
    pub queues: Vec<String>,

    /// How many jobs to run at once [default: 1].
    #[arg(short, long, value_name = "N", num_args = 0..=1, default_missing_value = "")]
    pub cpus: Option<String>,

    /// GPUs to lend: a count, `all`, `device=0,2`, `device=GPU-<uuid>`, or `none` [default: 0].
    #[arg(short, long, value_name = "GPUS", num_args = 0..=1, default_missing_value = "")]
    pub gpus: Option<String>,

    /// Base address of the relay [default: http://localhost:8000].
    #[arg(short, long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub api_address: Option<String>,

    /// Base address of the relay for those who read outputs, where it is another than this worker's [default: the same].
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub external_address: Option<String>,

    /// `remote` takes jobs from a relay; `local` is this machine's own relay and worker [default: remote].
    #[arg(short, long, value_name = "MODE", num_args = 0..=1, default_missing_value = "")]
    pub mode: Option<String>,

    /// Port of local mode [default: 8000].
    #[arg(short, long, value_name = "PORT", num_args = 0..=1, default_missing_value = "")]
    pub port: Option<String>,

    /// Where jobs' files are kept; the mode is appended. Same path on the host when the worker is in a container.
    #[arg(short, long, value_name = "DIR", num_args = 0..=1, default_missing_value = "")]
    pub data_directory: Option<String>,

    /// What the host calls the data directory, if a containerised worker cannot find out.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "")]
    pub host_data_directory: Option<String>,

    /// Worker id [default: made once and kept in the data directory].
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    pub id: Option<String>,

    /// Longest time that any job may run, such as `20m` [default: 5m].
    #[arg(short = 't', long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub max_job_duration: Option<String>,

    /// Memory to lend, such as `16G` [default: the machine's].
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "")]
    pub memory: Option<String>,

    /// Hard memory limit of jobs that ask for none.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "")]
    pub default_memory: Option<String>,

    /// Limit each job to the cpus it asked for, instead of only weighing them.
    #[arg(long)]
    pub enforce_cpus: bool,

    /// Tag that jobs may ask for; repeatable.
    #[arg(long = "tag", value_name = "TAG", action = ArgAction::Append)]
    pub tags: Vec<String>,

    /// Image to pull at the start and to look after every hour, so that no job waits for it; repeatable.
    #[arg(long, value_name = "IMAGE", action = ArgAction::Append)]
    pub prepull: Vec<String>,

    /// When to pull images: `default`, `always`, `if-not-present` or `never`.
    #[arg(long, value_name = "POLICY", num_args = 0..=1, default_missing_value = "")]
    pub pull_policy: Option<String>,

    /// Network of jobs: `nat` leads to the internet, `internal` nowhere, `none` is no network [default: nat].
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "")]
    pub network: Option<String>,

    /// Let jobs reach private networks and this host, not only the internet.
    #[arg(long)]
    pub allow_private_network: bool,

    /// How jobs are confined: `compat`, `strict` or `off` [default: compat].
    #[arg(long, value_name = "PROFILE", num_args = 0..=1, default_missing_value = "")]
    pub sandbox: Option<String>,

    /// Container runtime of jobs, such as `runsc`; announced as the tag `runtime:NAME` [default: the Engine's own].
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    pub runtime: Option<String>,

    /// Run a command that only a shell understands by `/bin/sh -c`, where the image has no entrypoint.
    #[arg(long)]
    pub shell_fallback: bool,

    /// Image that jobs may use, as a pattern such as `registry.example/team/*`; repeatable [default: any].
    #[arg(long, value_name = "PATTERN", action = ArgAction::Append)]
    pub allow_image: Vec<String>,

    /// Image that jobs may not use; repeatable, and stronger than --allow-image.
    #[arg(long, value_name = "PATTERN", action = ArgAction::Append)]
    pub deny_image: Vec<String>,

    /// Take only images that are named by their digest.
    #[arg(long)]
    pub require_digest: bool,

    /// Whether jobs may build images: `yes` or `no` [default: yes].
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, default_missing_value = "")]
    pub allow_build: Option<String>,

    /// Secret that a job may ask for by name: `NAME=env:VARIABLE` or `NAME=file:/path`; repeatable.
    #[arg(long = "secret", value_name = "NAME=SOURCE", action = ArgAction::Append)]
    pub secrets: Vec<String>,

    /// User of the job's processes: `image`, or `UID:GID` [default: 0:0].
    #[arg(long, value_name = "USER", num_args = 0..=1, default_missing_value = "")]
    pub job_user: Option<String>,

    /// Mount `/inputs` read-only.
    #[arg(long)]
    pub inputs_readonly: bool,

    /// Longest time between SIGTERM and SIGKILL of a stopped job [default: 2s].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub kill_grace: Option<String>,

    /// How long a stopped worker waits for running jobs: a duration, or `job` for as long as they take [default: 0].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub drain_timeout: Option<String>,

    /// What a stopping worker does with jobs that still run: `requeue` gives them back, `leave` lets them go on for
    /// a restart that follows at once [default: requeue, but leave with a relay that knows no leases].
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "")]
    pub on_exit: Option<String>,

    /// Longest time to fetch a job's inputs [default: 30m].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub max_input_duration: Option<String>,

    /// Longest time to pull an image [default: 30m].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub max_pull_duration: Option<String>,

    /// Longest time to build an image [default: 30m].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub max_build_duration: Option<String>,

    /// Longest time to upload a job's outputs [default: 60m].
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "")]
    pub upload_deadline: Option<String>,

    /// Largest input file [default: 20G].
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "")]
    pub max_input_bytes: Option<String>,

    /// How much of fetched inputs to keep for later jobs [default: a fifth of the disk].
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "")]
    pub input_cache_max: Option<String>,

    /// Who shares `/job-cache`: all jobs of the `engine`, those of a `queue`, or nobody (`off`) [default: engine, but
    /// queue on a worker of several].
    #[arg(long, value_name = "SCOPE", num_args = 0..=1, default_missing_value = "")]
    pub job_cache_scope: Option<String>,

    /// How much a job may have on disk [default: 20G].
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "")]
    pub job_disk: Option<String>,

    /// How much of a job's text its result keeps [default: 3M].
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "")]
    pub max_log_bytes: Option<String>,

    /// Let jobs' input addresses lead to private networks (allowed anyway when the relay is on one).
    #[arg(long)]
    pub allow_private_fetch: bool,

    /// Serve metrics, /healthz and /readyz here, such as `127.0.0.1:9464` [default: off].
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, default_missing_value = "")]
    pub metrics_listen: Option<String>,

    /// Label containers with the queue's digest instead of its name.
    #[arg(long)]
    pub hide_queue: bool,

    /// Say more in the log.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          value_parser = ["true", "false", "1", "0", ""])]
    pub debug: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    pub cores: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub gpu: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    pub api_server_address: Option<String>,

    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub test_mode: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn read(line: &str) -> Result<RunArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.run)
    }

    #[test]
    fn the_published_line_parses_in_every_order() {
        for line in [
            "run --cpus=4 --gpus=0 public1",
            "run public1 --cpus 4 --gpus 0",
            "run -c4 -g0 public1",
            "run -c 4 -g=0 -- public1",
        ] {
            let args = read(line).unwrap();
            assert_eq!(
                (args.queues, args.cpus.as_deref(), args.gpus.as_deref()),
                (vec!["public1".to_owned()], Some("4"), Some("0")),
                "{line}"
            );
        }
    }

    #[test]
    fn an_optional_value_is_the_next_word_unless_that_is_an_option() {
        let args = read("run --gpus public1").unwrap();
        assert_eq!((args.queues.len(), args.gpus.as_deref()), (0, Some("public1")));
        let args = read("run --gpus --cpus=2 public1").unwrap();
        assert_eq!((args.gpus.as_deref(), args.cpus.as_deref()), (Some(""), Some("2")));
        assert_eq!(read("run --gpus= public1").unwrap().gpus.as_deref(), Some(""));
    }

    #[test]
    fn wrong_use_is_refused_with_code_2() {
        for line in ["run --cpus=1 --cpus=2 q", "run --cpsu=1 q", "run --debug q"] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
        let hint = read("run --cpsu=1 q").unwrap_err().to_string();
        assert!(hint.contains("--cpus"), "{hint}");
    }

    #[test]
    fn old_spellings_still_parse() {
        let args = read("run --cores 3 --gpu --api-server-address http://x --test-mode q").unwrap();
        assert_eq!(
            (args.cores.as_deref(), args.gpu.as_deref(), args.api_server_address.as_deref()),
            (Some("3"), Some("true"), Some("http://x"))
        );
    }
}
