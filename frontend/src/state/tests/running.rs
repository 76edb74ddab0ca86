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
