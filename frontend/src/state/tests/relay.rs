//! With the relay: sockets, words, log lines, the old way, kept results.

use super::*;

fn kept_text(time: i64) -> String {
    json!({"data":{"finished":{"reason":"Success","time":time,"result":one_output()}}}).to_string()
}

#[test]
fn nothing_but_ping_is_said_before_the_relay_speaks() {
    let mut page = Page::new(false, &auto());
    let socket = page.state.connection.socket;
    page.send(Message::SocketOpened { socket });
    page.pass(500);
    assert!(page.said().is_empty());
    page.frame(HELLO);
    let said = page.said();
    assert!(matches!(said[0], ClientMessage::Watch(_)), "{said:?}");
    assert!(matches!(said[1], ClientMessage::StateChange(_)), "{said:?}");
}

#[test]
fn a_submission_without_its_done_is_sent_again_on_the_next_socket_with_the_same_reference() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let first = page.changes();
    page.close();
    page.pass(5_000);
    page.open(HELLO);
    let second = page.changes();
    assert_eq!(first[0].reference, second[0].reference);
    let done = json!({"type":"Done","payload":{"ref":second[0].reference,"jobId":page.id(),"revision":1}});
    page.frame(&done.to_string());
    page.close();
    page.pass(5_000);
    page.open(HELLO);
    page.relay_says(&queued());
    page.pass(5_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn a_reconnect_submits_only_what_the_relay_lost() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let reference = page.changes()[0].reference.clone();
    page.frame(&json!({"type":"Done","payload":{"ref":reference}}).to_string());
    page.relay_says(&running(1));
    for (word, expected) in [
        (finished(3), vec![]),
        (running(1), vec![]),
        (ended("Cancelled"), vec![]),
        (Value::Null, vec!["Queued"]),
    ] {
        page.close();
        page.pass(6_000);
        page.open(HELLO);
        page.relay_says(&word);
        page.pass(1_000);
        assert_eq!(page.kinds(), expected, "{word}");
    }
}

#[test]
fn a_stopped_job_is_not_started_by_a_reconnect_but_by_the_user() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    page.user(Intent::Stop);
    assert_eq!(page.kinds(), ["Queued", "Cancelled"]);
    assert!(page.state.job.pending.is_some());
    page.relay_says(&ended("Cancelled"));
    assert_eq!(page.state.job.ending, Some(Ending::StoppedHere));
    assert!(page.state.job.pending.is_none());
    page.close();
    page.pass(6_000);
    page.open(HELLO);
    page.relay_says(&Value::Null);
    page.pass(2_000);
    // The stop had no `Done`, so it is said again; nothing is started.
    assert_eq!(page.kinds(), ["Cancelled"]);
    page.user(Intent::Run);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn stopping_ends_when_others_go_on_holding_the_job() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&json!({"queuedTime":1,"state":"Running","time":2,"worker":"w","namespaces":["_","b"]}));
    page.user(Intent::Stop);
    page.relay_says(&json!({"queuedTime":1,"state":"Running","time":2,"worker":"w","namespaces":["b"]}));
    assert!(page.state.job.pending.is_none() && page.state.job.held_by_others);
}

#[test]
fn an_ending_by_others_is_said_and_starts_nothing() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_is_done();
    page.relay_says(&running(1));
    page.relay_says(&ended("JobReplacedByClient"));
    page.pass(10_000);
    assert!(matches!(page.state.job.ending, Some(Ending::Elsewhere(Some(_)))));
    assert!(page.kinds().is_empty());
    assert_eq!(job_button(&page.state), JobButton::Run);
}

#[test]
fn a_relay_that_knows_no_rerun_gets_a_deletion_and_a_submission() {
    let mut page = Page::new(false, &hash(""));
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    let id = page.id();
    page.full_list(&json!({id.as_str(): finished(3)}));
    page.result_comes(3, &one_output());
    page.kinds();
    page.user(Intent::RunAgain);
    assert_eq!(page.kinds(), ["rerun"]);
    page.pass(5_000);
    assert_eq!(page.kinds(), ["Deleted", "Queued"]);
}

#[test]
fn a_result_of_another_queue_offers_to_run_here() {
    let mut page = Page::watching(&hash(""));
    let mut shared = finished(3);
    shared["shared"] = json!(true);
    page.relay_says(&shared);
    page.result_comes(3, &one_output());
    assert_eq!(job_button(&page.state), JobButton::RunHere);
}

#[test]
fn the_old_way_waits_for_the_list_and_asks_for_what_is_missing() {
    let mut page = Page::new(false, &auto());
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    page.pass(300);
    assert!(page.said().is_empty());
    page.full_list(&json!({}));
    let said = page.said();
    assert!(said.iter().any(|message| matches!(message, ClientMessage::QueryJob { .. })), "{said:?}");
    let submissions = said.iter().filter(|message| matches!(message, ClientMessage::StateChange(_)));
    assert_eq!(submissions.count(), 1);
    // Unknown is the answer to the query; the submission's list follows, and nothing is submitted twice.
    page.frame(r#"{"type":"JobStateUpdates","payload":{"state":{"jobs":{}},"isSubset":true}}"#);
    page.pass(1_000);
    assert!(page.changes().is_empty());
    let id = page.id();
    page.full_list(&json!({id.as_str(): queued()}));
    assert_eq!(job_button(&page.state), JobButton::Stop);
}

#[test]
fn the_old_way_takes_an_empty_update_for_an_ending() {
    let mut page = Page::new(false, &auto());
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    let id = page.id();
    page.full_list(&json!({id.as_str(): running(1)}));
    page.pass(500);
    page.kinds();
    page.frame(r#"{"type":"JobStateUpdates","payload":{"state":{"jobs":{}},"isSubset":true}}"#);
    assert_eq!(page.state.job.ending, Some(Ending::Elsewhere(None)));
    page.pass(2_000);
    assert!(page.kinds().is_empty());
}

#[test]
fn the_old_way_keeps_a_finished_job_that_left_the_lists() {
    let mut page = Page::new(false, &hash(""));
    page.open(r#"{"type":"Workers","payload":{"workers":[]}}"#);
    let id = page.id();
    page.full_list(&json!({id.as_str(): finished(3)}));
    page.result_comes(3, &one_output());
    page.said();
    page.full_list(&json!({}));
    assert!(matches!(page.said().as_slice(), [ClientMessage::QueryJob { .. }]));
    assert!(page.state.job.finish().is_some());
    page.relay_says(&finished(3));
    assert!(page.state.job.finish().is_some());
}

#[test]
fn another_queue_is_connected_and_gets_the_same_job() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&finished(3));
    page.result_comes(3, &one_output());
    page.kinds();
    page.send(Message::HashChanged { hash: auto().replace("queue=q1", "queue=q2") });
    let urls: Vec<_> = page
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Connect { url, .. } => Some(url.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(urls, ["ws://h/q/q2/client?protocol=watch/1"]);
    assert!(page.state.job.finish().is_none());
    page.open(HELLO);
    page.pass(500);
    assert_eq!(page.kinds(), ["Queued"]);
}

#[test]
fn a_job_whose_worker_was_lost_keeps_its_lines_and_counts_anew() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    page.relay_says(&running(1));
    let id = page.id();
    let lines = |from: u64, text: &str| {
        json!({"type":"JobStatusPayload","payload":{"jobId":id,"step":"Running","logs":[[text,1]],"from":from}})
            .to_string()
    };
    page.frame(&lines(0, "first\n"));
    page.relay_says(&queued());
    assert!(page.state.job.was_lost);
    page.relay_says(&running(2));
    page.frame(&lines(0, "again\n"));
    let texts: Vec<_> = page.state.log.rows().iter().map(log::Row::text).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!((texts[0].as_str(), texts[2].as_str()), ("first", "again"));
}

#[test]
fn lines_before_running_and_after_stop_are_kept() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let id = page.id();
    page.frame(
        &json!({"type":"JobStatusPayload","payload":{"jobId":id,"step":"Running","logs":[["early\n",1]],"from":0}})
            .to_string(),
    );
    page.relay_says(&running(1));
    page.user(Intent::Stop);
    page.relay_says(&ended("Cancelled"));
    assert_eq!(page.state.log.rows().len(), 1);
}

#[test]
fn an_older_revision_changes_nothing() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let with = |mut job: Value, revision: u64| {
        job["revision"] = json!(revision);
        job
    };
    page.relay_says(&with(queued(), 1));
    page.relay_says(&with(running(1), 3));
    page.relay_says(&with(queued(), 2));
    assert!(page.state.job.object().is_some_and(|job| job.worker == "w"));
}

#[test]
fn a_refusal_is_shown_with_its_words() {
    let mut page = Page::watching(&auto());
    page.pass(100);
    let reference = page.changes()[0].reference.clone();
    let error = json!({"code":"full","title":"This queue is full","detail":"Wait."});
    page.frame(&json!({"type":"Done","payload":{"ref":reference,"error":error}}).to_string());
    assert!(page.state.job.refused.is_some());
    assert_eq!(crate::view::header::header(&page.state).detail, "This queue is full");
}

#[test]
fn a_socket_that_never_answers_ping_is_replaced() {
    let mut page = Page::watching(&auto());
    let before = page.state.connection.socket;
    page.pass(60_000);
    assert_eq!(page.state.connection.socket, before);
    page.is_mute = true;
    page.pass(30_000);
    assert!(page.state.connection.socket > before);
}

#[test]
fn a_kept_result_is_shown_until_the_relay_speaks_and_sends_nothing() {
    let keeps = |page: &mut Page| {
        let effects = std::mem::take(&mut page.effects);
        effects.iter().any(|effect| matches!(effect, Effect::Keep { text: None, .. }))
    };
    for (word, stays) in [
        (finished(3), true),
        (finished(4), false),
        (running(1), false),
        (queued(), false),
        (Value::Null, false),
    ] {
        let mut page = Page::embedded(&hash(""), &[]);
        page.send(Message::KeptLoaded { job: page.id(), text: kept_text(3) });
        assert!(page.state.job.kept.is_some());
        assert!(page.outputs().iter().all(Vec::is_empty));
        assert_eq!(crate::view::header::header(&page.state).title, "Kept result");
        page.relay_says(&word);
        assert!(page.state.job.kept.is_none());
        assert_eq!(page.state.job.finish().is_some(), stays, "{word}");
        if stays {
            let effects = &page.effects;
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::FetchResult { .. })));
            assert_eq!(page.outputs(), [["a.txt"]]);
        } else {
            assert!(keeps(&mut page), "{word}");
        }
    }
}

#[test]
fn cancelling_anothers_job_names_everybody_only_when_told() {
    let mut page = Page::watching(&hash(""));
    let other = JobId::new("other").unwrap();
    page.user(Intent::Cancel { job: other.clone(), everybody: false });
    page.user(Intent::Cancel { job: other, everybody: true });
    let namespaces: Vec<Value> = page
        .changes()
        .iter()
        .map(|change| serde_json::to_value(change).unwrap()["value"]["namespace"].clone())
        .collect();
    assert_eq!(namespaces, ["_", "*"]);
}

#[test]
fn a_malformed_parameter_is_said_and_the_page_stays() {
    let page = Page::watching("#?job=%%%&queue=q1");
    assert!(matches!(page.state.wanted, Err(WantedError::Malformed(_))));
    assert_eq!(crate::view::header::header(&page.state).title, "Link not readable");
    let trouble = crate::view::trouble::trouble(&page.state, Timestamp::from_millis(0)).expect("a screen");
    assert!(trouble.why.contains("job"));
}

#[test]
fn what_an_old_relay_listed_before_the_host_answered_is_not_asked_for_again() {
    let id = Page::watching(&auto()).id();
    let mut page = Page::new(true, &hash(""));
    let socket = page.state.connection.socket;
    page.send(Message::SocketOpened { socket });
    page.full_list(&json!({ id.as_str(): running(1) }));
    page.host_answers(&[]);
    assert_eq!(page.id(), id);
    assert_eq!(job_button(&page.state), JobButton::Stop);
}

#[test]
fn an_update_before_the_host_answered_counts_as_well() {
    let id = Page::watching(&auto()).id();
    let mut page = Page::new(true, &hash(""));
    let socket = page.state.connection.socket;
    page.send(Message::SocketOpened { socket });
    page.full_list(&json!({ id.as_str(): queued() }));
    let update = json!({"type":"JobStateUpdates","payload":{"state":{"jobs":{id.as_str():running(1)}},"isSubset":true}});
    page.frame(&update.to_string());
    page.host_answers(&[]);
    let job = page.state.job.object().expect("known");
    assert_eq!(job.state, dockframe_shared::job::StateName::Running);
}
