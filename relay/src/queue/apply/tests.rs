use dockframe_shared::Timestamp;
use dockframe_shared::job::{Rerun, ResultReason};
use dockframe_shared::protocol::RevokeWhy;

use super::testing::*;
use crate::queue::command::{Command, Effect, Ending, Reply, SharedAnswer};
use crate::queue::record::{EndReason, Outcome, Phase, Source};
use crate::queue::timing::{ACCEPT, KEPT, LEASE_TTL, LISTED, MAX_LOSSES, WORKER_KEPT};
use crate::queue::view::Key;

const SECOND: i64 = 1_000;

fn ended(queue: &Queue, job: &str) -> Option<EndReason> {
    match &queue.of(job)?.phase {
        Phase::LetGo(let_go) => Some(let_go.why),
        _ => None,
    }
}

fn is_done(queue: &Queue, job: &str) -> bool {
    queue.of(job).is_some_and(|record| matches!(record.phase, Phase::Done(_)))
}

#[test]
fn a_job_is_queued_granted_held_and_done() {
    let mut queue = Queue::new();
    let decision = queue.submit("a", "");
    assert!(decision.effects.contains(&Effect::Wake));
    let lease = queue.run("a", "w");
    assert!(queue.finish(&lease, "w"));
    assert!(queue.finish(&lease, "w"), "said twice, recorded once, acknowledged twice");
    assert!(is_done(&queue, "a"));
}

#[test]
fn a_repeated_submission_writes_nothing() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    queue.submit("b", "");
    assert!(queue.submit("a", "n").writes.is_empty());
    assert!(queue.submit("b", "").writes.is_empty());
}

#[test]
fn the_default_namespace_replaces_nothing() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    queue.submit("b", "_");
    assert!(queue.is_waiting("a") && queue.is_waiting("b"));
}

#[test]
fn the_newest_submission_of_a_namespace_replaces_the_older_at_once() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    queue.submit("b", "n");
    assert_eq!(ended(&queue, "a"), Some(EndReason::Replaced));
    assert!(queue.is_waiting("b"));
}

#[test]
fn changed_there_and_back_ends_with_the_first() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    queue.submit("b", "n");
    queue.submit("a", "n");
    assert!(queue.is_waiting("a"));
    assert_eq!(ended(&queue, "b"), Some(EndReason::Replaced));
}

#[test]
fn a_replacement_is_delayed_by_the_older_jobs_age() {
    for (age, delay) in [(20_000, 0), (20_001, 4_000), (60_000, 4_000), (60_001, 8_000)] {
        let mut queue = Queue::new();
        queue.submit("a", "n");
        queue.pass(age);
        queue.submit("b", "n");
        if delay > 0 {
            queue.pass(delay - 1);
            assert!(queue.is_waiting("a"), "at age {age}, before {delay}");
            queue.pass(1);
        }
        assert_eq!(ended(&queue, "a"), Some(EndReason::Replaced), "at age {age}");
    }
}

#[test]
fn a_superseded_job_stays_when_the_newer_one_is_gone_in_time() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    queue.pass(30 * SECOND);
    queue.submit("b", "n");
    queue.let_go("b", EndReason::Cancelled, "n");
    queue.pass(10 * SECOND);
    assert!(queue.is_waiting("a"));
    queue.submit("c", "n");
    queue.pass(4 * SECOND);
    assert_eq!(ended(&queue, "a"), Some(EndReason::Replaced), "and is replaced by the next one");
}

#[test]
fn a_replaced_job_goes_on_for_others() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    queue.submit("a", "m");
    queue.submit("b", "n");
    assert!(queue.is_waiting("a"));
    assert_eq!(queue.of("a").unwrap().holders.len(), 1);
}

#[test]
fn a_job_with_a_result_replaces_and_is_not_replaced() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    let lease = queue.run("a", "w");
    queue.finish(&lease, "w");
    queue.submit("b", "n");
    assert!(is_done(&queue, "a"));
    queue.submit("a", "n");
    assert_eq!(ended(&queue, "b"), Some(EndReason::Replaced), "by an answer from the cache");
}

#[test]
fn a_job_ends_with_its_last_namespace_and_not_before() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    queue.submit("a", "m");
    let lease = queue.run("a", "w");
    assert_eq!(queue.let_go("a", EndReason::Cancelled, "other").writes, []);
    queue.let_go("a", EndReason::Cancelled, "n");
    assert!(queue.of("a").unwrap().is_going());
    let decision = queue.let_go("a", EndReason::Cancelled, "m");
    let revoke = Effect::Revoke { worker: worker("w"), lease: lease.clone(), why: RevokeWhy::Cancelled };
    assert!(decision.effects.contains(&revoke), "{:?}", decision.effects);
    assert!(!queue.finish(&lease, "w"), "a result after the end counts for nothing");
    assert_eq!(ended(&queue, "a"), Some(EndReason::Cancelled));
}

#[test]
fn a_result_is_changed_by_a_deletion_alone() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    let lease = queue.run("a", "w");
    queue.finish(&lease, "w");
    let reply = queue.let_go("a", EndReason::Cancelled, "*").reply;
    assert!(matches!(reply, Reply::AlreadyEnded { .. }));
    assert!(is_done(&queue, "a"));
    let decision = queue.let_go("a", EndReason::Deleted, "n");
    assert!(decision.effects.contains(&Effect::DropRun(lease.clone())));
    assert!(decision.effects.contains(&Effect::Unshare { job: id("a"), run: lease }));
    queue.submit("a", "n");
    assert!(queue.is_waiting("a"), "and the next submission runs anew");
}

#[test]
fn a_shared_result_answers_unless_the_job_was_deleted_here() {
    let answer = SharedAnswer {
        outcome: Outcome {
            reason: ResultReason::Success,
            time: Timestamp::from_millis(7),
            worker: "elsewhere".to_owned(),
            source: Source::Shared(dockframe_shared::LeaseId::new("theirs").unwrap()),
        },
        queued_time: Timestamp::from_millis(5),
    };
    let with_answer = || {
        let mut submission = submission("a", "n");
        submission.shared = Some(answer.clone());
        Command::Submit(Box::new(submission))
    };
    let mut queue = Queue::new();
    queue.tell(&with_answer());
    assert!(is_done(&queue, "a"));
    assert!(queue.of("a").unwrap().outcome().unwrap().is_shared());
    let decision = queue.let_go("a", EndReason::Deleted, "*");
    assert!(
        !decision.effects.iter().any(|effect| matches!(effect, Effect::Unshare { .. } | Effect::DropRun(_))),
        "another queue's result is not ours to drop: {:?}",
        decision.effects
    );
    queue.tell(&with_answer());
    assert!(queue.is_waiting("a"));
}

#[test]
fn a_rerun_keeps_the_old_result_until_the_new_one_is_there() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    let first = queue.run("a", "w");
    queue.finish(&first, "w");
    let mut again = submission("a", "n");
    again.rerun = Some(Rerun::Any);
    let again = Command::Submit(Box::new(again));
    queue.tell(&again);
    assert!(queue.is_waiting("a"));
    assert_eq!(queue.of("a").unwrap().outcome().unwrap().run(), Some(&first), "still readable");
    let second = queue.run("a", "w");
    queue.finish(&second, "w");
    assert_eq!(queue.of("a").unwrap().outcome().unwrap().run(), Some(&second));

    queue.tell(&again);
    queue.let_go("a", EndReason::Cancelled, "*");
    assert!(is_done(&queue, "a"), "a cancelled rerun brings the old result back");
    assert_eq!(queue.of("a").unwrap().outcome().unwrap().run(), Some(&second));
}

#[test]
fn a_rerun_of_a_result_that_another_has_replaced_is_answered() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    let first = queue.run("a", "w");
    queue.finish(&first, "w");
    let mut again = submission("a", "n");
    again.rerun = Some(Rerun::Of(Timestamp::from_millis(1)));
    queue.tell(&Command::Submit(Box::new(again)));
    assert!(is_done(&queue, "a"));
}

#[test]
fn a_grant_that_is_not_accepted_ends_and_is_no_loss() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    queue.register("w", &[]);
    let lease = queue.grant("a", "w").unwrap();
    queue.pass(ACCEPT - 1);
    assert!(!queue.is_waiting("a"));
    queue.pass(1);
    assert!(queue.is_waiting("a"));
    assert_eq!(queue.accept(&lease, "w"), Reply::NotCurrent);
    let lease = queue.grant("a", "w").unwrap();
    assert!(queue.finish(&lease, "w"));
    assert_eq!(queue.of("a").unwrap().losses, 0);
}

#[test]
fn a_held_lease_lives_as_long_as_its_worker_registers() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    let lease = queue.run("a", "w");
    for _ in 0..10 {
        queue.pass(LEASE_TTL - 1);
        let renewal = Command::Register {
            worker: worker("w"),
            instance: instance("w"),
            first: false,
            leases: vec![lease.clone()],
        };
        let decision = queue.tell(&renewal);
        assert_eq!(decision.writes.len(), 1, "one write, however many leases there are");
    }
    queue.pass(LEASE_TTL);
    assert!(queue.is_waiting("a"));
    assert!(queue.finish(&lease, "w"), "nobody has taken it since");
}

#[test]
fn an_expired_lease_that_was_granted_anew_counts_no_more() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    let old = queue.run("a", "w");
    queue.pass(LEASE_TTL);
    let new = queue.run("a", "v");
    assert!(!queue.finish(&old, "w"));
    let decision = queue.register("w", &[&old]);
    assert_eq!(decision.reply, Reply::Registered { session: 2, revoked: vec![old] });
    assert!(queue.finish(&new, "v"));
}

#[test]
fn a_closed_socket_leaves_a_short_job_a_second_and_a_long_one_its_grace() {
    for (ran, grace) in [(0, 1_000), (100_000, 11_000), (10_000_000, LEASE_TTL)] {
        let mut queue = Queue::new();
        queue.submit("a", "");
        let lease = queue.run("a", "w");
        let mut left = ran;
        while left > 0 {
            let step = left.min(10_000);
            queue.pass(step);
            left -= step;
            let session = false;
            queue.tell(&Command::Register {
                worker: worker("w"),
                instance: instance("w"),
                first: session,
                leases: vec![lease.clone()],
            });
        }
        let session = queue.session("w");
        queue.tell(&Command::Closed { worker: worker("w"), session });
        queue.pass(grace - 1);
        assert!(!queue.is_waiting("a"), "ran {ran}");
        queue.pass(1_000);
        assert!(queue.is_waiting("a"), "ran {ran}");
    }
}

#[test]
fn a_closed_socket_costs_nothing_while_nobody_else_is_free_or_it_came_back() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    let lease = queue.run("a", "w");
    queue.tell(&Command::Closed { worker: worker("w"), session: 1 });
    queue.pass_with(20_000, false);
    assert!(!queue.is_waiting("a"));
    queue.register("w", &[&lease]);
    assert_eq!(queue.tell(&Command::Closed { worker: worker("w"), session: 1 }).reply, Reply::Stale);
    queue.pass(20_000);
    assert!(!queue.is_waiting("a"));
}

#[test]
fn five_losses_end_a_job_and_five_refusals_do_not() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    for _ in 0..10 {
        let lease = queue.run("a", "w");
        queue.tell(&Command::Decline { lease, worker: worker("w") });
        assert!(queue.is_waiting("a"));
    }
    for _ in 0..MAX_LOSSES {
        queue.run("a", "w");
        queue.pass(LEASE_TTL);
    }
    queue.register("w", &[]);
    assert_eq!(queue.grant("a", "w"), None);
    let outcome = queue.of("a").unwrap().outcome().unwrap();
    assert_eq!(outcome.reason, ResultReason::Error);
    assert!(matches!(&outcome.source, Source::Relay(why) if why.contains("5 workers were lost")));
}

#[test]
fn five_losses_of_old_workers_end_a_job_and_claims_made_again_do_not() {
    let claim = |queue: &mut Queue, name: &str, time: i64| {
        queue.tell(&Command::OldWorker { worker: worker(name), first: true });
        let time = Timestamp::from_millis(time);
        queue.tell(&Command::Claim { job: id("a"), worker: worker(name), time }).reply
    };
    let lose = |queue: &mut Queue, name: &str| {
        let session = queue.session(name);
        queue.tell(&Command::Closed { worker: worker(name), session });
        queue.pass(3_000);
        assert!(queue.is_waiting("a"));
    };
    for nobody_claims in [true, false] {
        let mut queue = Queue::new();
        queue.submit("a", "");
        for _ in 0..3 {
            assert!(matches!(claim(&mut queue, "w", 1), Reply::Done { .. }));
            lose(&mut queue, "w");
        }
        assert_eq!(queue.of("a").unwrap().losses, 0, "it came back each time");
        // The same worker, started again, takes it anew: what came before was a loss.
        for time in 2..=i64::from(MAX_LOSSES) {
            assert!(matches!(claim(&mut queue, "w", time), Reply::Done { .. }));
            lose(&mut queue, "w");
        }
        if nobody_claims {
            queue.pass(LEASE_TTL);
        } else {
            assert_eq!(claim(&mut queue, "v", 9), Reply::NotCurrent);
        }
        let outcome = queue.of("a").unwrap().outcome().unwrap();
        assert_eq!(outcome.reason, ResultReason::Error);
    }
}

#[test]
fn the_last_of_five_losses_may_come_back_in_time() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    for _ in 1..MAX_LOSSES {
        queue.run("a", "w");
        queue.pass(LEASE_TTL);
    }
    let lease = queue.run("a", "w");
    queue.pass(LEASE_TTL + LEASE_TTL - 1);
    assert!(queue.is_waiting("a"));
    queue.register("w", &[&lease]);
    queue.pass(5 * SECOND);
    assert!(queue.finish(&lease, "w"));
}

#[test]
fn a_run_that_is_held_beyond_its_deadline_is_timed_out() {
    let mut queue = Queue::new();
    let mut limited = submission("a", "");
    limited.needs.max_duration_ms = Some(60_000);
    queue.tell(&Command::Submit(Box::new(limited)));
    let lease = queue.run("a", "w");
    for _ in 0..366 {
        queue.pass(10_000);
        let leases = vec![lease.clone()];
        let (worker, instance) = (worker("w"), instance("w"));
        queue.tell(&Command::Register { worker, instance, first: false, leases });
    }
    assert_eq!(queue.of("a").unwrap().outcome().map(|outcome| outcome.reason), Some(ResultReason::TimedOut));
}

#[test]
fn an_ended_job_leaves_the_list_and_later_the_store() {
    let mut queue = Queue::new();
    queue.submit("a", "n");
    let lease = queue.run("a", "w");
    queue.finish(&lease, "w");
    assert!(queue.of("a").unwrap().is_live(queue.now));
    queue.pass(LISTED);
    assert!(!queue.of("a").unwrap().is_live(queue.now));
    queue.submit("a", "n");
    assert!(queue.of("a").unwrap().is_live(queue.now), "an answer lists it again");
    queue.pass(LISTED + KEPT);
    assert!(queue.of("a").is_none());
    let left: Vec<_> = queue.entries.keys().collect();
    assert_eq!(left.len(), 1, "only the worker: {left:?}");
}

#[test]
fn a_worker_is_forgotten_a_day_after_its_last_sign_if_it_holds_nothing() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    queue.run("a", "w");
    let forget = Command::ForgetWorker { worker: worker("w") };
    queue.now = queue.now.plus_millis(LEASE_TTL + WORKER_KEPT);
    assert!(queue.tell(&forget).writes.is_empty(), "it may come back for its job");
    queue.let_go("a", EndReason::Cancelled, "*");
    queue.now = queue.now.plus_millis(-1);
    assert!(queue.tell(&forget).writes.is_empty(), "a moment too early");
    queue.now = queue.now.plus_millis(1);
    assert_eq!(queue.tell(&forget).writes.len(), 1);
    assert!(!queue.entries.contains_key(&Key::Worker(worker("w"))));
    // Back again it is like any new one.
    queue.submit("b", "");
    let lease = queue.run("b", "w");
    assert!(queue.finish(&lease, "w"));
}

#[test]
fn what_cannot_be_read_gives_the_job_back() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    let lease = queue.run("a", "w");
    let ending = Ending::Unreadable("odd".to_owned());
    let reply = queue.tell(&Command::Finish { lease, worker: worker("w"), ending }).reply;
    assert_eq!(reply, Reply::Finished { recorded: false, why: Some("odd".to_owned()) });
    assert!(queue.is_waiting("a"));
}

#[test]
fn of_two_old_claims_the_one_that_sorts_first_is_it() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    let claim =
        |name: &str| Command::Claim { job: id("a"), worker: worker(name), time: Timestamp::default() };
    queue.tell(&claim("b"));
    assert_eq!(queue.tell(&claim("c")).reply, Reply::NotCurrent);
    queue.tell(&claim("A"));
    assert_eq!(queue.of("a").unwrap().active_lease().unwrap().worker, worker("A"));
}

#[test]
fn an_old_worker_that_was_lost_still_delivers_and_after_a_cancel_not() {
    let mut queue = Queue::new();
    let claim = Command::Claim { job: id("a"), worker: worker("w"), time: Timestamp::default() };
    let deliver = |queue: &mut Queue, run: &dockframe_shared::LeaseId| {
        let ending = Ending::Result { reason: ResultReason::Success, time: queue.now };
        queue
            .tell(&Command::ClaimFinish { job: id("a"), worker: worker("w"), run: run.clone(), ending })
            .reply
    };
    for cancelled in [false, true] {
        queue.submit("a", "");
        queue.tell(&Command::OldWorker { worker: worker("w"), first: true });
        queue.tell(&claim);
        let run = queue.of("a").unwrap().lease().unwrap().id.clone();
        let session = queue.session("w");
        queue.tell(&Command::Closed { worker: worker("w"), session });
        queue.pass(3_000);
        assert!(queue.is_waiting("a"));
        if cancelled {
            queue.let_go("a", EndReason::Cancelled, "*");
        }
        deliver(&mut queue, &run);
        assert_eq!(is_done(&queue, "a"), !cancelled);
        queue.let_go("a", EndReason::Deleted, "*");
    }
}

#[test]
fn an_old_workers_claim_on_a_leased_job_has_no_effect() {
    let mut queue = Queue::new();
    queue.submit("a", "");
    queue.register("w", &[]);
    let lease = queue.grant("a", "w").unwrap();
    let claim = Command::Claim { job: id("a"), worker: worker("old"), time: Timestamp::default() };
    assert_eq!(queue.tell(&claim).reply, Reply::NotCurrent);
    queue.accept(&lease, "w");
    assert_eq!(queue.tell(&claim).reply, Reply::NotCurrent);
    assert!(queue.finish(&lease, "w"));
}
