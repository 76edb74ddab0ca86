//! The list of tests: which item of the specification each belongs to, who must pass it, and what it promises.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::test::Test;

/// Who must pass a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mark {
    /// Any relay of this protocol.
    Compat,
    /// What goes beyond it.
    Dockframe,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Compat => "compat",
            Self::Dockframe => "dockframe",
        })
    }
}

/// A running test. Not `Send`: all run on one thread, side by side.
pub(crate) type Running = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// What a test works with. One is made for each test, and ended with it.
pub(crate) trait Context: Clone {
    /// The longest that one test may take: a replacement of the oldest kind of job takes 70 s.
    const LIMIT: Duration = Duration::from_secs(110);

    /// Ends what the test began, also when it has failed.
    fn end(self) -> impl Future<Output = anyhow::Result<()>>;
}

/// What a test is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// Of relays `7.18`, `10.14c`, `R-3`, `J-12`: number of the item in `relay-protocol` 7, `jobs-and-states` 10, or of
    /// the row. Of workers `22`, `22b`, `W-41`: number in `worker` 25, or of the row in `worker` 20.
    pub(crate) id: &'static str,
    pub(crate) mark: Mark,
    /// What holds when the test passes, in one sentence.
    pub(crate) promise: &'static str,
    /// It waits for clocks, so it is begun before the others.
    pub(crate) is_long: bool,
    /// It can be seen from outside; else it says why not.
    pub(crate) is_shown: bool,
}

/// One test, of a relay or of a worker.
#[derive(Debug)]
pub(crate) struct Item<T = Test> {
    pub(crate) about: About,
    pub(crate) run: fn(T) -> Running,
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<T> {}

/// Makes an [`Item`] of an async function from [`Test`].
macro_rules! item {
    ($id:literal, $mark:ident, $promise:literal, $run:expr) => {
        $crate::registry::Item {
            about: $crate::registry::About {
                id: $id,
                mark: $crate::registry::Mark::$mark,
                promise: $promise,
                is_long: false,
                is_shown: true,
            },
            run: |test| Box::pin($run(test)),
        }
    };
}
/// Makes an [`Item`] that cannot be shown from outside, and says why.
macro_rules! unseen {
    ($id:literal, $mark:ident, $promise:literal, $why:literal) => {
        $crate::registry::Item {
            about: $crate::registry::About {
                id: $id,
                mark: $crate::registry::Mark::$mark,
                promise: $promise,
                is_long: false,
                is_shown: false,
            },
            run: |_| Box::pin(async { $crate::test::skip($why) }),
        }
    };
}
pub(crate) use {item, unseen};

impl<T> Item<T> {
    /// Begins it before the others.
    pub(crate) const fn long(mut self) -> Self {
        self.about.is_long = true;
        self
    }
}

impl About {
    /// `14c` names `10.14c`, `18` names `7.18` and `10.18`, `3` no `10.3a`; `r-3` names `R-3`.
    fn is_named(&self, name: &str) -> bool {
        self.id.eq_ignore_ascii_case(name) || self.id.split_once('.').is_some_and(|(_, rest)| rest == name)
    }
}

/// What the options choose of all tests, in the order of the report.
pub(crate) fn selected<T>(mut all: Vec<Item<T>>, only: Option<Mark>, names: &[String]) -> Vec<Item<T>> {
    all.retain(|item| only.is_none_or(|mark| item.about.mark == mark));
    all.retain(|item| names.is_empty() || names.iter().any(|name| item.about.is_named(name)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::items;

    fn ids() -> Vec<&'static str> {
        items::all().iter().map(|item| item.about.id).collect()
    }

    #[test]
    fn every_item_of_both_checklists_and_every_row_has_a_test() {
        let ids = ids();
        let mut wanted: Vec<String> = (1..=62).map(|n| format!("7.{n}")).collect();
        // do not exist.
        wanted.extend((1..=46).filter(|n| ![32, 35].contains(n)).map(|n| format!("R-{n}")));
        wanted.extend((1..=25).map(|n| format!("J-{n}")));
        let letters =
            [(1, "abcde"), (2, "abcde"), (3, "abcdefg"), (4, "abc"), (8, "abcdef"), (14, "abcdefghijklm")];
        for (n, letters) in letters {
            wanted.extend(letters.chars().map(|letter| format!("10.{n}{letter}")));
        }
        wanted.extend([5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17].map(|n| format!("10.{n}")));
        let missing: Vec<_> = wanted.iter().filter(|id| !ids.contains(&id.as_str())).collect();
        assert!(missing.is_empty(), "no test of {missing:?}");
    }

    #[test]
    fn every_item_of_the_workers_checklist_has_a_test() {
        let all = crate::worker::items::all();
        let numbers: Vec<&str> =
            all.iter().map(|item| item.about.id.trim_end_matches(|c: char| c.is_ascii_lowercase())).collect();
        let missing: Vec<_> =
            (1..=84).map(|n| n.to_string()).filter(|n| !numbers.contains(&n.as_str())).collect();
        assert!(missing.is_empty(), "no test of {missing:?}");
    }

    #[test]
    fn no_two_tests_of_one_mark_have_one_number() {
        let all = crate::worker::items::all();
        let mut ids: Vec<_> = all.iter().map(|item| item.about.id).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    }

    #[test]
    fn a_promise_is_one_sentence() {
        let relay = items::all().into_iter().map(|item| item.about);
        let worker = crate::worker::items::all().into_iter().map(|item| item.about);
        for about in relay.chain(worker) {
            assert!(about.promise.ends_with('.'), "{}: {}", about.id, about.promise);
        }
    }

    #[test]
    fn an_item_is_named_by_its_whole_number_or_the_part_behind_the_section() {
        let names = |name: &str| {
            let chosen = selected(items::all(), None, &[name.to_owned()]);
            chosen.iter().map(|item| item.about.id).collect::<Vec<_>>()
        };
        assert!(names("14c").iter().all(|id| *id == "10.14c") && !names("14c").is_empty());
        assert!(names("r-3").iter().all(|id| *id == "R-3") && !names("r-3").is_empty());
        assert!(names("no").is_empty());
    }
}
