//! Bounded waits for a wanted value.
//!
//! Level-triggered: the probe looks at the state, not at events, so nothing is missed by looking late. A wait that
//! runs out says what it last saw.

use std::time::{Duration, Instant};

/// How long anything that needs no container and no browser may take, on a busy machine of two cores.
pub const SOON: Duration = Duration::from_secs(15);
/// How long a job, a page or an image may take.
pub const PATIENT: Duration = Duration::from_secs(45);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Looks again and again until the probe gives a value, or the limit has passed.
///
/// The probe answers `Err` with what it sees while the wanted thing is not there yet.
///
/// # Errors
/// After the limit: what was awaited and what was last seen.
pub async fn until<T, P>(what: &str, limit: Duration, mut probe: P) -> anyhow::Result<T>
where
    P: AsyncFnMut() -> Result<T, String>,
{
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut seen = "nothing".to_owned();
    loop {
        // The probe itself is bounded too: a peer that never answers must not outlive the limit.
        let left = limit.saturating_sub(begin.elapsed()).max(FIRST_PAUSE);
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(now)) => seen = now,
            Err(_) => {}
        }
        if begin.elapsed() >= limit {
            anyhow::bail!("{what} did not happen within {limit:?}; last seen: {seen}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks at something for a while, and fails as soon as the probe says that it is no longer as it should be.
///
/// For promises that something does *not* happen; the time is the strength of the check.
///
/// # Errors
/// What the probe said.
pub async fn stays<P>(what: &str, how_long: Duration, mut probe: P) -> anyhow::Result<()>
where
    P: AsyncFnMut() -> Result<(), String>,
{
    let begin = Instant::now();
    while begin.elapsed() < how_long {
        if let Err(now) = probe().await {
            anyhow::bail!("{what} did not stay so: {now}");
        }
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_gives_the_value_as_soon_as_it_is_there() {
        let mut looks = 0;
        let value = until("three looks", SOON, async || {
            looks += 1;
            if looks == 3 { Ok("there") } else { Err(format!("look {looks}")) }
        })
        .await
        .unwrap();
        assert_eq!((value, looks), ("there", 3));
    }

    #[tokio::test]
    async fn a_wait_that_runs_out_says_what_it_saw() {
        let limit = Duration::from_millis(50);
        let error = until::<(), _>("the moon", limit, async || Err("clouds".to_owned())).await.unwrap_err();
        assert_eq!(error.to_string(), "the moon did not happen within 50ms; last seen: clouds");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_does_not_outlive_the_limit() {
        let limit = Duration::from_millis(50);
        let hang = until::<(), _>("an answer", limit, async || std::future::pending().await);
        assert!(tokio::time::timeout(SOON, hang).await.unwrap().is_err());
    }
}
