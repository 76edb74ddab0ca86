//! What `dockframe doctor` finds, on a real Engine.

use dockframe_worker::doctor::{Finding, Verdict, doctor};

use super::bench::{Bench, engine_of_the_tests};

async fn findings(bench: &Bench, flags: &[&str], env: &[(&str, &str)]) -> Vec<Finding> {
    doctor(bench.arguments(flags), |name| {
        let given = env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        given.or_else(|| engine_of_the_tests(name))
    })
    .await
}

fn of<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.what == what)
        .unwrap_or_else(|| panic!("no {what} in {findings:?}"))
}

#[tokio::test]
async fn the_doctor_finds_a_machine_that_can_run_jobs_and_leaves_it_as_it_was() {
    let bench = Bench::new().await;
    let found = findings(&bench, &["a-secret-queue"], &[]).await;
    for what in ["Docker Engine", "data directory", "disk", "files", "relay", "clock", "files of the relay"] {
        assert_eq!(of(&found, what).verdict, Verdict::Good, "{found:?}");
    }
    assert!(of(&found, "Docker Engine").text.contains("API 1."), "{found:?}");
    assert!(!format!("{found:?}").contains("a-secret-queue"));
    assert_eq!(std::fs::read_dir(bench.data.path().join("remote")).unwrap().count(), 0);
    assert!(bench.containers().is_empty());
}

#[tokio::test]
async fn the_doctor_says_what_is_missing() {
    let bench = Bench::new().await;
    bench.relay.set(|settings| settings.refuse_blobs = true);
    let no_engine = format!("unix://{}/none.sock", bench.data.path().display());
    let found = findings(&bench, &["--gpus=1"], &[("DOCKER_HOST", &no_engine)]).await;
    let engine = of(&found, "Docker Engine");
    assert_eq!(engine.verdict, Verdict::Bad);
    assert!(engine.text.contains("none.sock"), "{engine:?}");
    assert_eq!(of(&found, "files of the relay").verdict, Verdict::Bad);
    assert_eq!(of(&found, "relay").verdict, Verdict::Good);

    let found = findings(&bench, &["--gpus=some"], &[]).await;
    assert_eq!((found.len(), found[0].verdict), (1, Verdict::Bad), "{found:?}");

    // This machine has none to lend.
    let found = findings(&bench, &["--gpus=1"], &[]).await;
    assert_eq!(of(&found, "GPUs").verdict, Verdict::Bad, "{found:?}");

    let mut arguments = bench.arguments(&[]);
    arguments.data_directory = Some("/proc/nowhere".to_owned());
    let found = doctor(arguments, engine_of_the_tests).await;
    assert_eq!(of(&found, "data directory").verdict, Verdict::Bad, "{found:?}");
}

#[tokio::test]
async fn the_doctor_wants_a_queue_but_works_without_one() {
    let bench = Bench::new().await;
    let mut arguments = bench.arguments(&[]);
    arguments.queues.clear();
    let found = doctor(arguments, engine_of_the_tests).await;
    assert_eq!(of(&found, "configuration").verdict, Verdict::Note);
    assert_eq!(of(&found, "Docker Engine").verdict, Verdict::Good);
}
