//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use dockframe_shared::Timestamp;

pub(crate) fn now() -> Timestamp {
    from_system(SystemTime::now())
}

/// A time as the Engine writes it, such as `2026-11-24T08:30:15.123456789Z`.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    humantime::parse_rfc3339(text).ok().map(from_system).filter(|time| time.as_millis() > 0)
}

fn from_system(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_times_are_read() {
        let time = parse_rfc3339("2026-11-24T08:30:15.123456789Z");
        assert_eq!(time, Some(Timestamp::from_millis(1_795_509_015_123)));
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z"), None, "never started");
        assert_eq!(parse_rfc3339("nonsense"), None);
    }
}
