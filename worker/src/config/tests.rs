//! What every way of telling a worker something comes to.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

fn resolve(line: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let args = Line::try_parse_from(line.split(' ')).unwrap().run;
    Config::resolve(args, |name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn flags_in_any_order_and_the_environment_alone_mean_the_same() {
    let env = [
        ("METAPAGE_IO_WORKER_CPUS", "4"),
        ("METAPAGE_IO_WORKER_GPUS", "0"),
        ("METAPAGE_IO_WORKER_QUEUE", "public1"),
    ];
    for (line, env) in [
        ("run --cpus=4 --gpus=0 public1", &[][..]),
        ("run public1 --cpus 4", &[]),
        ("run -c4 public1", &[]),
        ("run", &env),
    ] {
        let config = resolve(line, env).unwrap();
        assert_eq!((config.cpus, &config.gpus), (4.0, &GpuOffer::None), "{line}");
        assert_eq!(config.queues, [QueueKey::new("public1").unwrap()]);
        assert_eq!(config.mode, Mode::Remote);
        assert_eq!(config.max_job_duration_text, "5m");
        assert_eq!(config.max_job_duration, Duration::from_secs(300));
        assert_eq!(config.api_address, "http://localhost:8000");
        assert!(config.warnings.is_empty());
    }
}

#[test]
fn flag_beats_environment_beats_default() {
    type Read = fn(&Config) -> String;
    let cases: [(&str, &str, &str, &str, &str, Read); 5] = [
        ("--cpus=3", "METAPAGE_IO_WORKER_CPUS", "2", "3", "1", |c| c.cpus.to_string()),
        ("--gpus=3", "METAPAGE_IO_WORKER_GPUS", "2", "Count(3)", "None", |c| format!("{:?}", c.gpus)),
        ("--api-address=http://a/", "DOCKFRAME_API_ADDRESS", "http://b", "http://a", DEFAULT_ADDRESS, |c| {
            c.api_address.clone()
        }),
        ("--max-job-duration=3s", "METAPAGE_IO_WORKER_JOB_MAX_DURATION", "2s", "3s", "5m", |c| {
            c.max_job_duration_text.clone()
        }),
        ("--debug=1", "METAPAGE_IO_WORKER_DEBUG", "false", "true", "false", |c| c.debug.to_string()),
    ];
    for (flag, name, value, by_flag, by_default, read) in cases {
        let env = [(name, value)];
        assert_eq!(read(&resolve(&format!("run {flag} q"), &env).unwrap()), by_flag, "{flag}");
        let by_env = read(&resolve("run q", &env).unwrap());
        assert!(by_env.contains(value), "{name}: {by_env}");
        assert_eq!(read(&resolve("run q", &[]).unwrap()), by_default, "{name}");
    }
}

#[test]
fn the_relay_is_looked_for_in_the_documented_order() {
    let all = [
        ("DOCKFRAME_API_ADDRESS", "http://one"),
        ("METAPAGE_IO_WORKER_API_ADDRESS", "http://two"),
        ("METAPAGE_IO_API_ADDRESS", "http://three"),
        ("API_SERVER_ADDRESS", "http://four"),
    ];
    for skipped in 0..=all.len() {
        let config = resolve("run q", &all[skipped..]).unwrap();
        let expected = all.get(skipped).map_or(DEFAULT_ADDRESS, |(_, address)| address);
        assert_eq!(config.api_address, expected);
        assert_eq!(config.warnings.len(), usize::from(matches!(skipped, 2 | 3)));
    }
}

#[test]
fn old_names_work_with_one_warning_each() {
    let old = [
        ("METAPAGE_IO_CPUS", "2"),
        ("METAPAGE_IO_GPUS", "1"),
        ("METAPAGE_IO_QUEUE", "q"),
        ("METAPAGE_IO_JOB_MAX_DURATION", "9s"),
        ("METAPAGE_IO_GENERATE_WORKER_ID", "1"),
    ];
    let config = resolve("run", &old).unwrap();
    assert_eq!((config.cpus, config.gpus, config.id), (2.0, GpuOffer::Count(1), WorkerIdChoice::Fresh));
    assert_eq!((config.max_job_duration, config.warnings.len()), (Duration::from_secs(9), 5));

    let config = resolve("run --cores 3 --gpu --api-server-address http://x --test-mode q", &[]).unwrap();
    assert_eq!((config.cpus, config.gpus, config.warnings.len()), (3.0, GpuOffer::Count(1), 4));
    let recipe = [("METAPAGE_IO_WORKER_QUEUE_ID", "r")];
    assert_eq!(resolve("run", &recipe).unwrap().queues[0].reveal(), "r");
}

#[test]
fn empty_means_not_given() {
    let config = resolve("run --gpus= --cpus= --id= q", &[("METAPAGE_IO_WORKER_CPUS", "")]).unwrap();
    assert_eq!((config.cpus, config.gpus, config.id), (1.0, GpuOffer::None, WorkerIdChoice::Stored));
}

#[test]
fn what_cannot_work_is_refused_by_the_options_name() {
    for (line, part) in [
        ("run", "must supply the queue id"),
        ("run --cpus=many q", "--cpus"),
        ("run --cpus=0 q", "--cpus"),
        ("run --gpus=lots q", "--gpus"),
        ("run --max-job-duration=abc q", "--max-job-duration"),
        ("run --max-job-duration=-5m q", "--max-job-duration"),
        ("run --api-address=localhost:8000 q", "--api-address"),
        ("run --job-user=root q", "--job-user"),
        ("run --pull-policy=sometimes q", "--pull-policy"),
        ("run --memory=lots q", "--memory"),
        ("run --mode=local --port=70000 q", "--port"),
    ] {
        let error = resolve(line, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn a_queues_name_is_in_no_error_and_no_debug_text() {
    let long = "s3cret".repeat(1000);
    let error = resolve(&format!("run {long}"), &[]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
    assert!(!format!("{:?}", resolve("run s3cret", &[]).unwrap()).contains("s3cret"));
}

#[test]
fn local_mode_is_the_queue_local_on_its_own_port() {
    let config = resolve("run --mode=local -p8123", &[]).unwrap();
    assert_eq!(config.mode, Mode::Local { port: 8123 });
    assert_eq!((config.queues[0].reveal(), config.api_address.as_str()), ("local", "http://localhost:8123"));
    assert!(config.data_directory.ends_with("local"));
}

#[test]
fn a_fraction_of_a_job_is_a_whole_slot() {
    assert_eq!(resolve("run --cpus=2.5 q", &[]).unwrap().slots(), 3);
}

#[test]
fn docker_certificates_are_used_where_docker_itself_would() {
    let certificates = |env: &[(&str, &str)]| resolve("run q", env).unwrap().engine_certificates;
    assert_eq!(certificates(&[("DOCKER_CERT_PATH", "/certs")]), None, "not without DOCKER_TLS_VERIFY");
    let verify = ("DOCKER_TLS_VERIFY", "1");
    assert_eq!(certificates(&[verify, ("DOCKER_CERT_PATH", "/certs")]), Some(PathBuf::from("/certs")));
    assert_eq!(certificates(&[verify, ("HOME", "/root")]), Some(PathBuf::from("/root/.docker")));
}

#[test]
fn secrets_are_read_at_the_start_and_shown_nowhere() {
    let config = resolve("run --secret=TOKEN=env:HERE q", &[("HERE", "s3cret")]).unwrap();
    assert_eq!(config.secrets, [("TOKEN".to_owned(), SecretSource("s3cret".to_owned()))]);
    assert!(!format!("{config:?}").contains("s3cret"));
    for line in [
        "--secret=TOKEN=env:GONE",
        "--secret=TOKEN=s3cret",
        "--secret=1X=env:HERE",
        "--secret=TOKEN=file:/nowhere",
    ] {
        let error = resolve(&format!("run {line} q"), &[("HERE", "x")]).unwrap_err();
        assert!(
            error.to_string().starts_with("--secret: ") && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }
}

#[test]
fn metrics_are_off_and_a_port_alone_means_this_computer() {
    let listen = |line: &str| resolve(line, &[]).unwrap().metrics_listen.map(|address| address.to_string());
    assert_eq!(listen("run q"), None);
    assert_eq!(listen("run --metrics-listen=9464 q").as_deref(), Some("127.0.0.1:9464"));
    assert_eq!(listen("run --metrics-listen=0.0.0.0:1 q").as_deref(), Some("0.0.0.0:1"));
}

#[test]
fn several_queues_do_not_share_a_cache_unless_told_to() {
    let scope = |line: &str| resolve(line, &[]).unwrap().job_cache_scope;
    assert_eq!(scope("run q"), CacheScope::Engine);
    assert_eq!(scope("run q r"), CacheScope::Queue);
    assert_eq!(scope("run --job-cache-scope=engine q r"), CacheScope::Engine);
    assert_eq!(scope("run --job-cache-scope=off q"), CacheScope::Off);
}
