//! What runs when, and what the user's buttons do.

use super::*;

#[test]
fn with_autostart_a_job_runs_once_on_start_and_once_for_each_new_id() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(3_000);
    assert_eq!(page.kinds(), ["Queued"]);
    page.relay_says(&queued());
    page.input("a.txt", json!("1"));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
    // An equal value is sent again, as after every handshake.
    page.input("a.txt", json!("1"));
    page.pass(1_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn without_autostart_nothing_runs_by_itself() {
    let mut page = Page::embedded(&hash(""), &[("a", json!(1))]);
    page.input("b", json!(2));
    page.relay_says(&Value::Null);
    page.pass(30_000);
    assert!(page.kinds().is_empty());
    assert_eq!(job_button(&page.state), JobButton::Run);
    page.user(Intent::Run);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn stop_and_delete_carry_type_and_the_own_namespace() {
    let control = encode_json(&json!({"namespace":"n7"}));
    let mut page = Page::watching(&hash(&format!("&control={control}")));
    page.user(Intent::Run);
    page.user(Intent::Stop);
    page.user(Intent::Delete);
    let changes = page.changes();
    let values: Vec<Value> =
        changes.iter().skip(1).map(|change| serde_json::to_value(change).unwrap()["value"].clone()).collect();
    assert_eq!(values[0]["type"], "Finished");
    assert_eq!(values[0]["namespace"], "n7");
    assert_eq!(values[0]["message"], "Job cancelled by client");
    assert_eq!(values[1]["reason"], "Deleted");
    assert_eq!(values[1]["namespace"], "n7");
    assert!(values[1].get("message").is_none());
}

#[test]
fn a_stop_that_nobody_confirms_is_said_after_fifteen_seconds() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    page.user(Intent::Stop);
    page.pass(16_000);
    assert!(page.state.job.pending.is_some_and(|pending| pending.is_late));
}

#[test]
fn delete_runs_again_only_with_autostart_and_in_that_order() {
    for (hash, expected) in [(auto(), vec!["Deleted", "Queued"]), (hash(""), vec!["Deleted"])] {
        let mut page = Page::watching(&hash);
        page.pass(100);
        page.relay_says(&finished(3));
        page.result_comes(3, &one_output());
        page.kinds();
        page.user(Intent::Delete);
        assert_eq!(page.kinds(), expected);
    }
}

#[test]
fn a_late_result_of_an_earlier_job_is_neither_shown_nor_sent() {
    let mut page = Page::embedded(&auto(), &[]);
    page.pass(100);
    let first = page.id();
    page.relay_says(&finished(3));
    page.input("a", json!("new"));
    page.outputs();
    let text = json!({"data":{"finished":{"reason":"Success","time":3,"result":one_output()}}}).to_string();
    let outcome = read_result(&text).map(Box::new);
    page.send(Message::ResultLoaded { job: first, time: Timestamp::from_millis(3), text, outcome });
    assert!(page.state.job.finish().is_none());
    assert!(page.outputs().is_empty());
}

#[test]
fn a_result_that_cannot_be_loaded_is_asked_for_again() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&finished(3));
    let fetches = |page: &mut Page| {
        let effects = std::mem::take(&mut page.effects);
        effects.iter().filter(|effect| matches!(effect, Effect::FetchResult { .. })).count()
    };
    assert_eq!(fetches(&mut page), 1);
    for pause in [200, 400, 800] {
        let failed = Message::ResultLoaded {
            job: page.id(),
            time: Timestamp::from_millis(3),
            text: String::new(),
            outcome: Err("the server answered 500".into()),
        };
        page.send(failed);
        page.pass(pause - 1);
        assert_eq!(fetches(&mut page), 0);
        page.pass(1);
        assert_eq!(fetches(&mut page), 1);
    }
    page.result_comes(3, &one_output());
    assert!(page.state.job.finish().is_some());
}

#[test]
fn run_again_names_the_result_it_replaces() {
    let mut page = Page::watching(&hash(""));
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    assert_eq!(job_button(&page.state), JobButton::RunAgain);
    page.kinds();
    page.user(Intent::RunAgain);
    assert_eq!(page.kinds(), ["rerun"]);
    page.relay_says(&running(2));
    assert!(matches!(page.state.job.result, ResultState::None) && page.state.log.is_empty());
    page.pass(20_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn a_submission_carries_the_control_and_debug_of_the_moment() {
    let mut page = Page::watching(&hash(""));
    page.send(Message::HashChanged { hash: hash("&debug=true&maxJobDuration=7m") });
    page.user(Intent::Run);
    let changes = page.changes();
    let Change::Queued { enqueued, .. } = &changes[0].change else { panic!("a submission") };
    assert_eq!(enqueued.debug, Some(true));
    assert_eq!(enqueued.control.as_ref().and_then(|control| control.max_duration.as_deref()), Some("7m"));
}

/// The job's file `a.py` with this text, beside what the address needs.
fn with_file(text: &str, extra: &str) -> String {
    hash(&format!("&inputs={}{extra}", encode_json(&json!({ "a.py": text }))))
}

fn draft(text: &str) -> Intent {
    Intent::Draft { file: "a.py".into(), text: text.into() }
}

#[test]
fn save_and_run_is_offered_for_every_unsaved_text_and_runs_it_once() {
    for extra in ["", "&autostart=true"] {
        let mut page = Page::watching(&with_file("1", extra));
        page.pass(1_000);
        page.kinds();
        page.user(draft("2"));
        assert_eq!(job_button(&page.state), JobButton::SaveAndRun);
        let before = page.id();
        page.user(Intent::SaveAndRun);
        page.pass(2_000);
        assert_eq!(page.kinds(), ["Queued"], "{extra}");
        assert!(page.state.drafts.is_empty() && page.id() != before);
    }
}

#[test]
fn an_emptied_file_is_saved_as_it_is() {
    let mut page = Page::watching(&with_file("1", ""));
    page.user(draft(""));
    page.user(Intent::SaveAndRun);
    assert_eq!(page.state.saved_file("a.py"), Some(""));
    page.pass(1_000);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_text_that_was_typed_and_taken_back_is_no_draft() {
    let mut page = Page::watching(&with_file("1", ""));
    page.user(draft("12"));
    page.user(draft("1"));
    assert_eq!(job_button(&page.state), JobButton::Run);
}

#[test]
fn saving_an_unchanged_job_runs_it_again_and_leaves_nothing_behind() {
    let mut page = Page::watching(&with_file("1", ""));
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    page.user(draft("2"));
    page.user(draft("1"));
    page.kinds();
    page.user(Intent::SaveAndRun);
    assert_eq!(page.kinds(), ["rerun"]);
    page.relay_says(&finished(4));
    page.send(Message::HashChanged { hash: with_file("3", "") });
    page.pass(2_000);
    assert!(page.kinds().is_empty(), "a later change starts nothing");
}

#[test]
fn stop_stands_beside_save_and_run_while_a_job_runs() {
    let mut page = Page::watching(&with_file("1", ""));
    assert!(!super::super::actions::can_stop(&page.state));
    page.relay_says(&running(1));
    page.user(draft("2"));
    assert_eq!(job_button(&page.state), JobButton::SaveAndRun);
    assert!(super::super::actions::can_stop(&page.state));
}

#[test]
fn a_file_that_was_deleted_elsewhere_takes_its_draft_along() {
    let mut page = Page::watching(&with_file("1", ""));
    page.user(draft("2"));
    page.send(Message::HashChanged { hash: hash("") });
    assert!(page.state.drafts.is_empty());
}

#[test]
fn a_result_that_this_page_did_not_see_run_is_said_to_be_stored() {
    let mut page = Page::watching(&hash(""));
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    let header = crate::view::header::header(&page.state);
    assert_eq!(
        (header.title.as_str(), header.kept_since),
        ("Stored result", Some(Timestamp::from_millis(3)))
    );
    page.user(Intent::RunAgain);
    page.relay_says(&running(1));
    page.relay_says(&finished(9));
    page.result_comes(9, &one_output());
    assert_eq!(crate::view::header::header(&page.state).title, "Finished");
}

#[test]
fn a_run_too_short_to_be_seen_is_no_stored_result() {
    let mut page = Page::watching(&auto());
    page.relay_says(&Value::Null);
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    assert_eq!(crate::view::header::header(&page.state).title, "Finished");
}

#[test]
fn a_pull_says_how_far_it_is() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    let id = page.id();
    let line = "pulling python:3.12: 3/8 layers, 71 %, 88 MB/s";
    page.frame(
        &json!({"type":"JobStatusPayload","payload":{"jobId":id,"step":"docker image pull","logs":[[line,1]],"from":0}})
            .to_string(),
    );
    let header = crate::view::header::header(&page.state);
    assert_eq!(
        (header.title.as_str(), header.suffix.as_str(), header.percent),
        ("Pulling image", "71 %", Some(71))
    );
}

/// Title of the screen of trouble, if there is one.
fn trouble_of(page: &Page) -> Option<String> {
    crate::view::trouble::trouble(&page.state, Timestamp::from_millis(page.now)).map(|trouble| trouble.title)
}

#[test]
fn every_trouble_that_is_nobodys_fault_is_told_in_words() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    page.relay_says(&queued());
    assert_eq!(trouble_of(&page).as_deref(), Some("The worker that ran this job was lost"));
    page.relay_says(&ended("JobReplacedByClient"));
    page.relay_is_done();
    assert_eq!(trouble_of(&page).as_deref(), Some("A newer job took this one's place"));

    let page = Page::watching(&hash("&definition=%%%"));
    assert_eq!(trouble_of(&page).as_deref(), Some("“definition” in this link cannot be read"));
    assert_eq!(job_button(&page.state), JobButton::Run, "and the job can be run");
}

#[test]
fn what_the_embedding_page_adds_changes_no_job() {
    let plain = Page::watching(&hash("")).id();
    let added =
        "&mp_debug=true&mp-x=1&channel=c&CHANNEL=c&readonly=true&edit=1&parent-metapage-id=p&fs-path=f";
    assert_eq!(Page::watching(&hash(added)).id(), plain);
    assert_ne!(Page::watching(&hash("&OTHER=1")).id(), plain);
}

#[test]
fn a_short_addresss_files_are_edited_into_the_hash_all_together() {
    let definition = json!({"image":"alpine","configFiles":{
        "a.sh":{"type":"utf8","value":"echo a"},
        "b.sh":{"type":"url","value":"http://h/f/b"},
    }});
    let mut page = Page::short("52f4", "#?queue=q1");
    let definition = serde_json::from_value(definition).unwrap();
    page.send(Message::ShortLoaded(Ok(Some(definition))));
    let asked = page.effects.iter().any(|effect| matches!(effect, Effect::FetchShortFiles(_)));
    assert!(asked && page.state.files().is_none());
    let texts = json!({"a.sh":"echo a","b.sh":"echo b"});
    page.send(Message::ShortFilesLoaded(texts.as_object().unwrap().clone()));
    assert_eq!(page.state.file_names(), ["a.sh", "b.sh"]);
    let before = page.id();
    // Saving what nobody changed writes nothing.
    page.user(Intent::Save);
    assert_eq!(page.hash, "#?queue=q1");
    page.user(Intent::Draft { file: "b.sh".into(), text: "echo c".into() });
    page.user(Intent::Save);
    let edited = encode_json(&json!({"a.sh":"echo a","b.sh":"echo c"}));
    assert!(page.hash.contains(&edited), "{}", page.hash);
    assert_ne!(page.id(), before);
    assert!(page.state.drafts.is_empty());
}

#[test]
fn an_image_that_no_registry_has_is_not_pinned() {
    use crate::view::header::{Pin, pin};
    let mut page = Page::watching(&auto());
    page.pass(100);
    for (is_local, expected) in [(Value::Null, Pin::To("alpine@sha256:ab".into())), (json!(true), Pin::Local)]
    {
        let time = if is_local.is_null() { 3 } else { 4 };
        page.relay_says(&finished(time));
        let mut result = one_output();
        result["imageDigest"] = json!("sha256:ab");
        result["imageIsLocal"] = is_local;
        page.result_comes(time, &result);
        assert_eq!(pin(&page.state), expected);
    }
}
