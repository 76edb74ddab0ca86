//! The list of tests that are known to fail.
//!
//! A line is `ID MARK reason`; `#` begins a comment. It can only shrink: a listed test that passes is an error, and
//! so is a line that names no test.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::registry::{About, Mark};

/// Reasons by test.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<(String, &'static str), String>);

impl Known {
    pub(crate) fn reason(&self, about: &About) -> Option<&str> {
        self.0.get(&(about.id.to_owned(), word(about.mark))).map(String::as_str)
    }

    /// Reads a list of some of these tests, in addition to those read before.
    ///
    /// # Errors
    /// A line that cannot be read, or names no test.
    pub(crate) fn read(&mut self, text: &str, all: &[About]) -> anyhow::Result<()> {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (id, rest) =
                line.split_once(char::is_whitespace).with_context(|| format!("no mark in {line:?}"))?;
            let (mark, reason) = rest
                .trim_start()
                .split_once(char::is_whitespace)
                .with_context(|| format!("no reason in {line:?}"))?;
            let mark = match mark {
                "compat" => Mark::Compat,
                "dockframe" => Mark::Dockframe,
                other => anyhow::bail!("{other:?} is no mark in {line:?}"),
            };
            anyhow::ensure!(
                all.iter().any(|about| about.id == id && about.mark == mark),
                "no test is {id} {mark}: take the line out of the list"
            );
            self.0.insert((id.to_owned(), word(mark)), reason.trim().to_owned());
        }
        Ok(())
    }
}

fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Compat => "compat",
        Mark::Dockframe => "dockframe",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{items, page, worker};

    fn read(text: &str) -> anyhow::Result<Known> {
        let mut known = Known::default();
        let all: Vec<_> = items::all().iter().map(|item| item.about).collect();
        known.read(text, &all)?;
        Ok(known)
    }

    #[test]
    fn a_list_names_tests_and_reasons() {
        let known = read("# a list\n\n7.3  compat   not yet\n").unwrap();
        let item = items::all().into_iter().find(|item| item.about.id == "7.3").unwrap();
        assert_eq!(known.reason(&item.about), Some("not yet"));
    }

    #[test]
    fn the_lists_of_our_relay_can_be_read() {
        read(include_str!("known-failures.txt")).unwrap();
        read(include_str!("known-failures-two-relays.txt")).unwrap();
    }

    #[test]
    fn the_list_of_our_worker_can_be_read() {
        let all: Vec<_> = worker::items::all().iter().map(|item| item.about).collect();
        Known::default().read(include_str!("known-failures-worker.txt"), &all).unwrap();
    }

    #[test]
    fn the_list_of_our_page_can_be_read() {
        let all: Vec<_> = page::items::all().iter().map(|item| item.about).collect();
        Known::default().read(include_str!("known-failures-page.txt"), &all).unwrap();
    }

    #[test]
    fn a_line_that_names_no_test_is_refused() {
        assert!(read("7.999 compat gone").is_err());
        assert!(read("7.3 compat").is_err());
        assert!(read("7.3 maybe why").is_err());
    }
}
