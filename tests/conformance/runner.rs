//! Runs tests side by side, a bounded number at once, and hands each outcome to the report in the list's order.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::known::Known;
use crate::registry::{About, Context, Item};
use crate::report;
use crate::test::Skipped;

/// How a test came out.
#[derive(Debug)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
    /// Failed as the list of known failures says.
    Known(String),
    /// Passed although it is listed as a known failure.
    Outgrown,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) about: About,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

/// Runs them all, each with a context of its own.
///
/// # Errors
/// The report cannot be written.
pub(crate) async fn run<T: Context>(
    items: &[Item<T>],
    context: impl Fn() -> T,
    parallel: usize,
    known: &Known,
) -> anyhow::Result<Vec<Outcome>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|place| !items[*place].about.is_long);
    let context = &context;
    let tests =
        order.into_iter().map(|place| async move { (place, run_one(items[place], context(), known).await) });
    let mut running = stream::iter(tests).buffer_unordered(parallel);
    let mut early = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(items.len());
    while let Some((place, outcome)) = running.next().await {
        early.insert(place, outcome);
        // A line is printed when all before it are.
        while let Some(next) = early.remove(&outcomes.len()) {
            report::line(&next)?;
            outcomes.push(next);
        }
    }
    Ok(outcomes)
}

async fn run_one<T: Context>(item: Item<T>, context: T, known: &Known) -> Outcome {
    let begin = Instant::now();
    let run = AssertUnwindSafe(async { (item.run)(context.clone()).await }).catch_unwind();
    let ended = tokio::time::timeout(T::LIMIT, run).await;
    let left = context.end().await;
    let verdict = match ended {
        Ok(Ok(Ok(()))) => match left {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        },
        Ok(Ok(Err(error))) => match error.downcast_ref::<Skipped>() {
            Some(Skipped(why)) => Verdict::Skipped(why.clone()),
            None => Verdict::Failed(format!("{error:#}")),
        },
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Verdict::Failed(format!("the test itself failed: {}", text.unwrap_or_default()))
        }
        Err(_) => Verdict::Failed(format!("expected an end within {:?}; it still runs", T::LIMIT)),
    };
    let verdict = match (verdict, known.reason(&item.about)) {
        (Verdict::Failed(_), Some(reason)) => Verdict::Known(reason.to_owned()),
        (Verdict::Passed, Some(_)) => Verdict::Outgrown,
        (verdict, _) => verdict,
    };
    Outcome { about: item.about, verdict, took: begin.elapsed() }
}
