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

/// A time as HTTP servers write it, such as `Tue, 24 Nov 2026 08:30:15 GMT`.
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    parse_rfc3339(&format!("{year}-{month:02}-{day:0>2}T{time}Z"))
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

    #[test]
    fn the_times_of_servers_are_read() {
        let time = parse_http_date("Tue, 24 Nov 2026 08:30:15 GMT");
        assert_eq!(time, Some(Timestamp::from_millis(1_795_509_015_000)));
        for text in ["", "yesterday", "Tue, 24 Nov 2026 08:30:15 CET", "Tue, 24 Foo 2026 08:30:15 GMT"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }
}
