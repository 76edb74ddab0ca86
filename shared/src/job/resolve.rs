//! Which of two states of a job wins, where peers without leases meet (`jobs-and-states` 3.1).
//!
//! [`reference()`] is the table as existing relays have it; [`ours`] is the same with the changes that no correct
//! old peer can see. With leases neither is needed: the lease decides. Whether the sender may make the change at
//! all, and whether namespaces keep the job, is judged before.

use std::cmp::Ordering;

use super::state::FinishReason;
use crate::time::Timestamp;

/// A state as the table sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub standing: Standing<'a>,
    /// The time that the change carries.
    pub time: Timestamp,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    Queued,
    /// Claimed by this worker.
    Running(&'a str),
    /// None is a reason that is not known here.
    Finished(Option<FinishReason>),
    Removed,
    /// A state that is not known here.
    Unknown,
}

/// Which side wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    Held,
    Arriving,
}

/// One entry of the table.
#[derive(Clone, Copy)]
enum Cell {
    /// The held side wins always.
    A,
    /// The arriving side wins always.
    B,
    /// The earlier time, the arriving side on a tie.
    Earlier,
    /// The later time, the arriving side on a tie.
    Later,
    /// The later time, the held side on a tie.
    LaterHeld,
    /// Two claims: the worker whose id sorts first, the held side if it is the same.
    Claims,
}

use Cell::{A, B, Claims, Earlier, Later, LaterHeld};

/// Rows are the held state, columns the arriving one, both in the order of [`place`].
#[rustfmt::skip]
const TABLE: [[Cell; 10]; 10] = [
    //                Queued     Running Success  Error    TimedOut Cancel. Replac. Lost Deleted Removed
    /* Queued     */ [Earlier,   B,      B,       B,       B,       Later,  B,      A,   A,      A],
    /* Running    */ [A,         Claims, B,       B,       B,       B,      B,      B,   B,      A],
    /* Success    */ [A,         A,      Earlier, A,       A,       B,      A,      A,   B,      B],
    /* Error      */ [A,         A,      B,       Earlier, A,       A,      A,      A,   B,      B],
    /* TimedOut   */ [A,         A,      B,       B,       Earlier, A,      A,      B,   B,      B],
    /* Cancelled  */ [LaterHeld, A,      A,       B,       B,       A,      A,      A,   B,      B],
    /* Replaced   */ [A,         A,      B,       B,       B,       A,      A,      A,   B,      B],
    /* WorkerLost */ [B,         A,      B,       B,       B,       B,      B,      B,   B,      B],
    /* Deleted    */ [B,         A,      A,       A,       A,       A,      A,      A,   A,      B],
    /* Removed    */ [B,         B,      A,       A,       A,       A,      A,      A,   A,      Earlier],
];

/// Row or column of a state; none for what is not known here.
fn place(standing: Standing<'_>) -> Option<usize> {
    Some(match standing {
        Standing::Queued => 0,
        Standing::Running(_) => 1,
        Standing::Finished(reason) => match reason? {
            FinishReason::Success => 2,
            FinishReason::Error => 3,
            FinishReason::TimedOut => 4,
            FinishReason::Cancelled => 5,
            FinishReason::JobReplacedByClient => 6,
            FinishReason::WorkerLost => 7,
            FinishReason::Deleted => 8,
        },
        Standing::Removed => 9,
        Standing::Unknown => return None,
    })
}

/// The winner by the table of existing relays.
#[must_use]
pub fn reference(held: &Candidate<'_>, arriving: &Candidate<'_>) -> Winner {
    let (Some(row), Some(column)) = (place(held.standing), place(arriving.standing)) else {
        return with_unknown(held.standing, arriving.standing);
    };
    let arriving_if = |wins: bool| if wins { Winner::Arriving } else { Winner::Held };
    let times = arriving.time.cmp(&held.time);
    match TABLE[row][column] {
        Cell::A => Winner::Held,
        Cell::B => Winner::Arriving,
        Cell::Earlier => arriving_if(times.is_le()),
        Cell::Later => arriving_if(times.is_ge()),
        Cell::LaterHeld => arriving_if(times.is_gt()),
        Cell::Claims => match (held.standing, arriving.standing) {
            (Standing::Running(a), Standing::Running(b)) => arriving_if(compare_worker_ids(b, a).is_lt()),
            _ => Winner::Held,
        },
    }
}

/// The winner by our rules: a result stands, a let-go job stays let go, and a new submission always counts.
#[must_use]
pub fn ours(held: &Candidate<'_>, arriving: &Candidate<'_>) -> Winner {
    let reason = |standing| match standing {
        Standing::Finished(reason) => reason,
        _ => None,
    };
    let is_result = |standing| reason(standing).is_some_and(|reason| reason.as_result().is_some());
    let held_reason = reason(held.standing);
    let let_go = matches!(held_reason, Some(FinishReason::Cancelled | FinishReason::JobReplacedByClient));
    match (held.standing, arriving.standing) {
        // Rule 1: nothing but deleting takes a result away, not even another result of the same run.
        (a, b) if is_result(a) && is_result(b) => Winner::Held,
        (
            a,
            Standing::Finished(Some(
                FinishReason::Cancelled | FinishReason::JobReplacedByClient | FinishReason::WorkerLost,
            )),
        ) if is_result(a) => Winner::Held,
        // Rule 2: what decides is when the relay got it, and it came later.
        (_, Standing::Queued) if let_go || held_reason == Some(FinishReason::WorkerLost) => Winner::Arriving,
        // Rule 5: a result that comes too late is dropped.
        (_, b) if let_go && is_result(b) => Winner::Held,
        _ => reference(held, arriving),
    }
}

/// At least one side is not known here.
fn with_unknown(held: Standing<'_>, arriving: Standing<'_>) -> Winner {
    match (held, arriving) {
        (_, Standing::Unknown) => Winner::Held,
        (Standing::Unknown, _) => Winner::Arriving,
        (Standing::Finished(None), Standing::Running(_)) => Winner::Held,
        (Standing::Finished(None), _) => Winner::Arriving,
        (Standing::Running(_), _) => Winner::Arriving,
        (Standing::Finished(Some(reason)), _) if reason.as_result().is_none() => Winner::Arriving,
        (Standing::Queued | Standing::Removed | Standing::Finished(_), _) => Winner::Held,
    }
}

/// Characters in front of digits and letters, in the order of the locale comparison.
const PUNCTUATION: &str = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";

/// Order of worker ids by locale comparison: punctuation, digits, letters; case decides only between ids that are
/// otherwise equal, lower first. Letters outside ASCII come last, by code point.
#[must_use]
pub fn compare_worker_ids(a: &str, b: &str) -> Ordering {
    fn weight(character: char) -> (u8, u32) {
        match character {
            '0'..='9' => (1, character.into()),
            'a'..='z' | 'A'..='Z' => (2, character.to_ascii_lowercase().into()),
            other => match PUNCTUATION.chars().zip(0..).find(|(known, _)| *known == other) {
                Some((_, place)) => (0, place),
                None => (3, other.into()),
            },
        }
    }
    let by_weight = a.chars().map(weight).cmp(b.chars().map(weight));
    // Lower case sorts first, so bytes are compared the other way round.
    by_weight.then_with(|| b.cmp(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(standing: Standing<'_>, millis: i64) -> Candidate<'_> {
        Candidate { standing, time: Timestamp::from_millis(millis) }
    }

    const REASONS: [FinishReason; 7] = [
        FinishReason::Success,
        FinishReason::Error,
        FinishReason::TimedOut,
        FinishReason::Cancelled,
        FinishReason::JobReplacedByClient,
        FinishReason::Deleted,
        FinishReason::WorkerLost,
    ];

    #[test]
    fn nothing_but_deleting_takes_a_result_away() {
        for held in REASONS.into_iter().filter(|reason| reason.as_result().is_some()) {
            let held = at(Standing::Finished(Some(held)), 5);
            for reason in REASONS {
                for time in [1, 5, 9] {
                    let winner = ours(&held, &at(Standing::Finished(Some(reason)), time));
                    let expected =
                        if reason == FinishReason::Deleted { Winner::Arriving } else { Winner::Held };
                    assert_eq!(winner, expected, "{held:?} {reason:?}");
                }
            }
            assert_eq!(ours(&held, &at(Standing::Queued, 9)), Winner::Held);
            assert_eq!(ours(&held, &at(Standing::Running("w"), 9)), Winner::Held);
        }
    }

    #[test]
    fn a_new_submission_counts_whatever_the_clocks_say() {
        for reason in [FinishReason::Cancelled, FinishReason::JobReplacedByClient, FinishReason::WorkerLost] {
            let held = at(Standing::Finished(Some(reason)), 9);
            assert_eq!(ours(&held, &at(Standing::Queued, 1)), Winner::Arriving);
        }
    }

    #[test]
    fn what_is_not_known_wins_only_where_it_must() {
        let unknown = at(Standing::Finished(None), 5);
        for standing in [Standing::Queued, Standing::Finished(Some(FinishReason::Success)), Standing::Removed]
        {
            assert_eq!(reference(&at(standing, 1), &unknown), Winner::Held);
            assert_eq!(reference(&unknown, &at(standing, 1)), Winner::Arriving);
        }
        for standing in [Standing::Running("w"), Standing::Finished(Some(FinishReason::Cancelled))] {
            assert_eq!(reference(&at(standing, 1), &unknown), Winner::Arriving);
        }
        assert_eq!(reference(&unknown, &at(Standing::Running("w"), 1)), Winner::Held);
        assert_eq!(reference(&at(Standing::Removed, 1), &at(Standing::Unknown, 1)), Winner::Held);
        assert_eq!(reference(&at(Standing::Unknown, 1), &at(Standing::Queued, 1)), Winner::Arriving);
    }

    #[test]
    fn worker_ids_sort_as_by_locale() {
        for (first, second) in [
            ("a", "A"),
            ("A", "b"),
            ("-", "1"),
            ("1", "a"),
            ("_", "-"),
            ("a", "aa"),
            ("z", "é"),
            ("aB", "Ac"),
        ] {
            assert_eq!(compare_worker_ids(first, second), Ordering::Less, "{first} {second}");
            assert_eq!(compare_worker_ids(second, first), Ordering::Greater, "{second} {first}");
        }
        assert_eq!(compare_worker_ids("w-1", "w-1"), Ordering::Equal);
    }
}
