//! With the host: handshake, inputs, uploads, outputs.

use super::*;

#[test]
fn in_a_frame_nothing_is_computed_before_the_host_answered() {
    let mut page = Page::new(true, &auto());
    page.open(HELLO);
    page.pass(3_000);
    page.user(Intent::Run);
    assert!(page.kinds().is_empty());
    page.host_answers(&[("x", json!("y"))]);
    page.pass(1_000);
    let changes = page.changes();
    assert_eq!(changes.len(), 1);
    let Change::Queued { enqueued, .. } = &changes[0].change else { panic!("a submission") };
    assert!(enqueued.definition.as_ref().unwrap().get("inputs").is_some());
}

#[test]
fn a_silent_host_holds_the_page_up_for_ten_seconds_and_may_still_answer() {
    let mut page = Page::new(true, &auto());
    page.open(HELLO);
    page.pass(9_900);
    assert!(page.kinds().is_empty());
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
    page.host_answers(&[("x", json!("y"))]);
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn outputs_go_to_the_host_once_per_result() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    assert_eq!(page.outputs(), [["a.txt"]]);
    page.relay_says(&finished(3));
    assert!(page.outputs().is_empty());
    // Somebody ran it again.
    page.relay_says(&finished(4));
    page.result_comes(4, &one_output());
    assert_eq!(page.outputs(), [["a.txt"]]);
}

#[test]
fn switching_allowsetjob_on_sends_the_result_file_alone() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    page.outputs();
    page.send(Message::HashChanged { hash: hash("&autostart=true&allowsetjob=true") });
    assert_eq!(page.outputs(), [["job/result.json"]]);
    page.send(Message::HashChanged { hash: hash("&autostart=true&allowsetjob=true&resolverefs=true") });
    assert_eq!(page.outputs(), [["a.txt"]]);
}

#[test]
fn an_upload_comes_before_the_submission_and_its_failure_holds_it_up() {
    let mut page = Page::embedded(&auto(), &[("big.txt", json!("x".repeat(500)))]);
    page.pass(1_000);
    let effects = std::mem::take(&mut page.effects);
    let url = effects.iter().find_map(|effect| match effect {
        Effect::Upload { url, .. } => Some(url.clone()),
        _ => None,
    });
    let url = url.expect("an upload");
    assert!(page.kinds().is_empty());
    assert!(matches!(job_button(&page.state), JobButton::Blocked(_)));
    page.send(Message::Uploaded { url: url.clone(), outcome: Err("the server answered 500".into()) });
    page.pass(1_000);
    assert!(page.kinds().is_empty());
    page.user(Intent::RetryUploads);
    let retried = page.effects.iter().any(|effect| matches!(effect, Effect::Upload { .. }));
    assert!(retried);
    page.send(Message::Uploaded { url, outcome: Ok(()) });
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_failed_upload_is_forgotten_with_its_input() {
    let mut page = Page::embedded(&auto(), &[("big.txt", json!("x".repeat(500)))]);
    page.pass(100);
    let url = page.state.current().unwrap().uploads[0].url.clone();
    page.send(Message::Uploaded { url, outcome: Err("no".into()) });
    page.kinds();
    page.send(Message::InputsUpdated(vec![("big.txt".into(), None)]));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn one_job_runs_for_a_burst_and_something_leaves_every_second_in_a_stream() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(1_000);
    page.kinds();
    for n in 0..30 {
        page.input("a", json!(n));
        page.pass(100);
    }
    let count = page.kinds().len();
    assert!((2..=5).contains(&count), "{count}");
}

#[test]
fn the_input_job_is_written_to_the_hash_once_and_is_no_file() {
    let mut page = Page::embedded("#?allowsetjob=true&autostart=true&queue=q1", &[]);
    page.input("job", json!({"image":"alpine:3.18.5","command":"ls -la"}));
    page.pass(500);
    assert!(page.hash.contains("job="));
    let changes = page.changes();
    assert_eq!(changes.len(), 1);
    let id = "52f48871aa9fa48b6793ae170415ec4e248ab2bf4243c5dc9f1fbc95dd49ecaa";
    assert_eq!(changes[0].job.as_str(), id);
    // The user edits; a later message without `job` does not undo it.
    page.user(Intent::EditDefinition(serde_json::from_value(json!({"image":"b"})).unwrap()));
    let edited = page.hash.clone();
    page.input("x", json!("1"));
    page.input("job", Value::Null);
    assert_eq!(page.hash, edited);
}

#[test]
fn without_allowsetjob_the_input_job_does_nothing() {
    let mut page = Page::embedded(&auto(), &[]);
    let before = page.id();
    page.input("job", json!({"image":"other"}));
    assert_eq!(page.id(), before);
}

#[test]
fn the_hosts_hash_changes_are_followed_live_and_never_answered_by_a_write() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(500);
    page.kinds();
    page.send(Message::HashChanged { hash: hash("&autostart=true&FOO=1") });
    let wrote = page.effects.iter().any(|effect| matches!(effect, Effect::WriteHash(_)));
    assert!(!wrote);
    page.pass(500);
    assert_eq!(page.kinds(), ["Queued"]);
    // Removing the job leaves nothing to run.
    page.send(Message::HashChanged { hash: "#?queue=q1".into() });
    assert!(matches!(page.state.wanted, Err(WantedError::NoJob)));
    assert_eq!(job_button(&page.state), JobButton::None);
}

#[test]
fn malformed_frames_cost_only_themselves() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    for text in ["", "undefined", "{", "[]", r#"{"type":"JobStateUpdates","payload":{"state":7}}"#, "PONG x"]
    {
        page.frame(text);
    }
    page.relay_says(&running(1));
    assert_eq!(job_button(&page.state), JobButton::Stop);
}

#[test]
fn the_result_files_absent_fields_are_undefined() {
    let mut page = Page::embedded(&hash("&allowsetjob=true"), &[]);
    page.relay_says(&finished(3));
    page.result_comes(3, &json!({"error":"no","logs":[]}));
    let posts: Vec<_> = page
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::PostOutputs(outputs) => Some(outputs.clone()),
            _ => None,
        })
        .collect();
    let OutputValue::Object(fields) = &posts[0][0].1 else { panic!("an object") };
    assert!(fields.iter().any(|(name, value)| *name == "statusCode" && value.is_none()));
}

/// A job that starts by itself, on the queue of the viewer's own computer.
fn local(extra: &str) -> String {
    let job =
        dockframe_shared::metaframe::hash_params::encode_json(&json!({"image":"alpine","command":"ls"}));
    format!("#?job={job}&queue=local&autostart=true{extra}")
}

#[test]
fn a_foreign_site_runs_nothing_on_the_viewers_computer_before_it_is_let() {
    let mut page = Page::new(true, &local(""));
    page.open(HELLO);
    page.host_answers_from("https://site.example", &[]);
    page.relay_says(&Value::Null);
    page.pass(1_000);
    page.input("x", json!("1"));
    page.pass(1_000);
    page.close();
    page.pass(20_000);
    page.open(HELLO);
    page.relay_says(&Value::Null);
    page.send(Message::HashChanged { hash: local("&N=1") });
    page.pass(1_000);
    assert!(page.kinds().is_empty());
    assert_eq!(job_button(&page.state), JobButton::Run);
    page.user(Intent::Consent);
    let remembered = page
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::RememberConsent(sites) if *sites == ["https://site.example"]));
    assert!(remembered);
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
    page.input("x", json!("2"));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_click_needs_no_consent_and_gives_none() {
    let mut page = Page::new(true, &local(""));
    page.open(HELLO);
    page.host_answers_from("null", &[]);
    page.user(Intent::Run);
    assert_eq!(page.kinds(), ["Queued"]);
    page.input("x", json!("1"));
    page.pass(1_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn pages_of_this_computer_and_queues_with_a_secret_name_ask_nobody() {
    for (origin, hash) in [("http://localhost:3000", local("")), ("https://site.example", auto())] {
        let mut page = Page::new(true, &hash);
        page.open(HELLO);
        page.host_answers_from(origin, &[]);
        page.pass(1_000);
        assert_eq!(page.kinds(), ["Queued"], "{origin}");
    }
    // Alone nobody is around the page.
    let mut page = Page::watching(&local(""));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_silent_host_is_a_stranger() {
    let mut page = Page::new(true, &local(""));
    page.open(HELLO);
    page.pass(11_000);
    assert!(page.kinds().is_empty());
}
