//! Queues are trust domains (`jobs-and-states` 3.8).

use serde_json::{Value, json};

use crate::support::*;

async fn run(relay: &TestRelay, queue: &str, body: &Value, text: &str) -> String {
    let id = relay.submit(queue, body.clone()).await;
    let mut worker = relay.worker(queue, &text[..1]).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &[text])).await;
    worker.send(&finish(&lease, text)).await;
    assert_eq!(worker.expect("LeaseFinished").await["recorded"], true);
    id
}

async fn first_line(relay: &TestRelay, path: &str) -> Value {
    relay.get_json(path).await["data"]["finished"]["result"]["logs"][0][0].clone()
}

#[tokio::test]
async fn a_result_of_one_queue_answers_another_and_says_so() {
    let relay = TestRelay::start().await;
    let body = json!({"definition": {"image": "a"}});
    let id = run(&relay, "q1", &body, "ours").await;
    relay.submit("q2", body).await;
    let told = &relay.get_json("/q/q2").await["data"][&id];
    assert_eq!((&told["state"], &told["shared"]), (&json!("Finished"), &json!(true)));
    assert_eq!(relay.get_json("/q/q1").await["data"][&id].get("shared"), None);
    for path in [format!("/q/q2/j/{id}/result.json"), format!("/j/{id}/result.json")] {
        assert_eq!(first_line(&relay, &path).await, "ours");
    }
    let logs = relay.get_json(&format!("/q/q2/j/{id}/run-logs.json")).await;
    assert_eq!(logs["data"], json!([["ours", 3]]));
}

#[tokio::test]
async fn an_answer_outlives_the_job_that_it_is_of() {
    // One is kept in the store, the other in a file.
    for text in ["short".to_owned(), "long ".repeat(10_000)] {
        let relay = TestRelay::start().await;
        let body = json!({"definition": {"image": "a"}});
        let id = run(&relay, "q1", &body, &text).await;
        relay.submit("q2", body.clone()).await;
        let all = async || {
            let mut found = vec![relay.get_json(&format!("/q/q2/j/{id}/result.json")).await];
            found.push(relay.get_json(&format!("/q/q2/j/{id}/run-logs.json")).await);
            found.push(json!(relay.get(&format!("/q/q2/j/{id}/outputs/o.txt")).await.text().await.unwrap()));
            found
        };
        let before = all().await;
        assert_eq!(before[0]["data"]["finished"]["result"]["logs"][0][0], text);
        assert_eq!(before[1]["data"], json!([[text, 3]]));
        assert_eq!(before[2], text);

        let mut maker = relay.client("q1").await;
        maker.send(&ended(&id, "Deleted", Some("*"))).await;
        maker.expect("Done").await;
        run(&relay, "q1", &body, "another").await;
        relay.submit("q1", json!({"definition": {"image": "a"}, "control": {"rerun": true}})).await;
        run(&relay, "q1", &body, "a third").await;
        assert_eq!(all().await, before);

        let mut client = relay.client("q2").await;
        client.send(&ended(&id, "Deleted", Some("*"))).await;
        client.expect("Done").await;
        assert_eq!(relay.get_json(&format!("/q/q2/j/{id}/result.json")).await, json!({"data": null}));
        assert_eq!(first_line(&relay, &format!("/q/q1/j/{id}/result.json")).await, "a third");
    }
}

#[tokio::test]
async fn a_watcher_is_told_of_a_shared_result_until_the_job_is_deleted_here() {
    let relay = TestRelay::start().await;
    let id = run(&relay, "q1", &json!({"definition": {"image": "a"}}), "theirs").await;
    let mut client = relay.client("q2").await;
    client.send(&watch(&[&id])).await;
    let told = client.expect_state(&id, "Finished").await;
    assert_eq!((&told["shared"], &told["finishedReason"]), (&json!(true), &json!("Success")));
    assert_eq!(client.expect("JobStatusPayload").await["logs"], json!([["theirs", 3]]));
    client.send(&ended(&id, "Deleted", Some("*"))).await;
    assert_eq!(client.expect_state(&id, "Finished").await["finishedReason"], "Deleted");
}

#[tokio::test]
async fn with_shared_results_off_every_queue_runs_it_itself() {
    let relay = TestRelay::start_with(|config| config.shared_results = false).await;
    let body = json!({"definition": {"image": "a"}});
    let id = run(&relay, "q1", &body, "ours").await;
    relay.submit("q2", body).await;
    assert_eq!(relay.get_json("/q/q2").await["data"][&id]["state"], "Queued");
    assert_eq!(relay.get_json(&format!("/q/q3/j/{id}/result.json")).await, json!({"data": null}));
}

#[tokio::test]
async fn nothing_in_one_queue_touches_another() {
    let relay = TestRelay::start().await;
    let body = json!({"definition": {"image": "a"}});
    // It waits in the victim's queue while a stranger finishes, deletes and plants it in their own.
    let id = relay.submit("victim", body.clone()).await;
    run(&relay, "stranger", &body, "forged").await;
    assert_eq!(relay.get_json("/q/victim").await["data"][&id]["state"], "Queued");
    assert_eq!(relay.get_json(&format!("/q/victim/j/{id}/result.json")).await, json!({"data": null}));
    run(&relay, "victim", &body, "true").await;
    assert_eq!(first_line(&relay, &format!("/q/victim/j/{id}/result.json")).await, "true");
    assert_eq!(first_line(&relay, &format!("/q/stranger/j/{id}/result.json")).await, "forged");

    let mut stranger = relay.client("stranger").await;
    stranger.send(&ended(&id, "Deleted", Some("*"))).await;
    stranger.expect("Done").await;
    assert_eq!(first_line(&relay, &format!("/q/victim/j/{id}/result.json")).await, "true");
    let lines = relay.get_json(&format!("/q/victim/j/{id}/run-logs.json")).await;
    assert_eq!(lines["data"], json!([["true", 3]]));
    assert_eq!(relay.get_json("/q/victim").await["data"][&id]["state"], "Finished");
}

#[tokio::test]
async fn a_deletion_makes_the_next_submission_run_here_though_others_have_a_result() {
    let relay = TestRelay::start().await;
    let body = json!({"definition": {"image": "a"}});
    let id = run(&relay, "q1", &body, "theirs").await;
    relay.submit("q2", body.clone()).await;
    let mut client = relay.client("q2").await;
    client.send(&ended(&id, "Deleted", Some("*"))).await;
    client.expect("Done").await;
    assert_eq!(relay.get_json(&format!("/q/q2/j/{id}/result.json")).await, json!({"data": null}));
    relay.submit("q2", body).await;
    assert_eq!(relay.get_json("/q/q2").await["data"][&id]["state"], "Queued");
    assert_eq!(first_line(&relay, &format!("/q/q1/j/{id}/result.json")).await, "theirs");
}

#[tokio::test]
async fn an_id_of_the_clients_own_answers_no_other_queue() {
    let relay = TestRelay::start().await;
    let body = json!({"id": "mine", "definition": {"image": "a"}});
    run(&relay, "q1", &body, "first").await;
    relay.submit("q2", json!({"id": "mine", "definition": {"image": "another"}})).await;
    assert_eq!(relay.get_json("/q/q2").await["data"]["mine"]["state"], "Queued");
    let of_q2 = relay.get_json("/q/q2/j/mine/definition.json").await;
    assert_eq!(of_q2["data"]["image"], "another");
    assert_eq!(relay.get_json("/j/mine/definition.json").await["data"]["image"], "a", "the first");
}

#[tokio::test]
async fn a_copy_is_a_submission_of_the_known_definition() {
    let relay = TestRelay::start().await;
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let copied =
        relay.post(&format!("/j/{id}/copy"), &json!({"queue": "q2", "control": {"namespace": "c"}})).await;
    assert_eq!(copied.json::<Value>().await.unwrap(), json!({"success": true}));
    let copy = &relay.get_json("/q/q2").await["data"][&id];
    assert_eq!((&copy["namespaces"], &copy["debug"]), (&json!(["c"]), &json!(false)));
    relay.post(&format!("/q/q2/j/{id}/cancel?namespace=*"), &Value::Null).await;
    assert_eq!(relay.get_json("/q/q1").await["data"][&id]["state"], "Queued");
    let unknown = relay.post("/j/none/copy", &json!({"queue": "q2"})).await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(relay.post(&format!("/j/{id}/copy"), &json!({})).await.status(), 400);
}

#[tokio::test]
async fn a_rerun_replaces_the_result_that_its_sender_saw() {
    let relay = TestRelay::start().await;
    let body = json!({"definition": {"image": "a"}});
    let id = run(&relay, "q1", &body, "one").await;
    let again = json!({"definition": {"image": "a"}, "control": {"rerun": true}});
    relay.submit("q1", again.clone()).await;
    assert_eq!(relay.get_json("/q/q1").await["data"][&id]["state"], "Queued");
    assert_eq!(first_line(&relay, &format!("/q/q1/j/{id}/result.json")).await, "one", "readable meanwhile");
    assert_eq!(relay.get_json(&format!("/q/q1/j/{id}/run-logs.json")).await["isFinal"], false);
    run(&relay, "q1", &body, "two").await;
    assert_eq!(first_line(&relay, &format!("/q/q1/j/{id}/result.json")).await, "two");
    assert_eq!(first_line(&relay, &format!("/j/{id}/result.json")).await, "two");
}
