//! What is printed: a line for each test, and a total.

use std::io::Write as _;
use std::time::Duration;

use crate::registry::{About, Mark};
use crate::runner::{Outcome, Verdict};

/// One line for a test that has ended; of a failure, what was expected and what came.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn line(outcome: &Outcome) -> std::io::Result<()> {
    let (word, more) = match &outcome.verdict {
        Verdict::Passed => ("ok", None),
        Verdict::Failed(why) => ("FAIL", Some(why.clone())),
        Verdict::Skipped(why) => ("skip", Some(why.clone())),
        Verdict::Known(reason) => ("known", Some(reason.clone())),
        Verdict::Outgrown => {
            ("FAIL", Some("it passes: take it out of the list of known failures".to_owned()))
        }
    };
    let About { id, mark, promise, .. } = outcome.about;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word:<5} {id:<6} {mark:<9} {promise} ({:.1} s)", outcome.took.as_secs_f32())?;
    if let Some(more) = more {
        for line in more.lines() {
            writeln!(out, "             {line}")?;
        }
    }
    out.flush()
}

/// The total; true when nothing failed.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn total(outcomes: &[Outcome], took: Duration) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    let mut good = true;
    for mark in [Mark::Compat, Mark::Dockframe] {
        let [mut passed, mut failed, mut skipped, mut known] = [0; 4];
        for outcome in outcomes.iter().filter(|outcome| outcome.about.mark == mark) {
            match outcome.verdict {
                Verdict::Passed => passed += 1,
                Verdict::Failed(_) | Verdict::Outgrown => failed += 1,
                Verdict::Skipped(_) => skipped += 1,
                Verdict::Known(_) => known += 1,
            }
        }
        good &= failed == 0;
        let all = passed + failed + skipped + known;
        write!(out, "{mark}: {all} tests, {passed} passed, {failed} failed, {skipped} skipped")?;
        if known > 0 {
            write!(out, ", {known} known to fail")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "in {:.0} s", took.as_secs_f32())?;
    Ok(good)
}

/// The tests themselves.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn list(tests: impl Iterator<Item = About>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for About { id, mark, promise, is_shown, .. } in tests {
        let note = if is_shown { "" } else { " (not to be seen from outside)" };
        writeln!(out, "{id:<6} {mark:<9} {promise}{note}")?;
    }
    Ok(())
}
