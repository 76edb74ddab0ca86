//! Points in time as the wire has them: whole milliseconds since 1970, UTC. Never read from a clock here.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time moved by `millis`, stopping at the ends of the range.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this, negative if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// Any JSON number; fractions, which some clocks give, are dropped.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        #[expect(clippy::cast_possible_truncation, reason = "float to int saturates, which is wanted")]
        let millis = number.as_i64().or_else(|| number.as_f64().map(|float| float as i64));
        millis.map(Self).ok_or_else(|| serde::de::Error::custom("a time must be a number of milliseconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_any_number() {
        let read = |text: &str| serde_json::from_str::<Timestamp>(text).map(Timestamp::as_millis);
        assert_eq!(read("1795461439920").ok(), Some(1_795_461_439_920));
        assert_eq!(read("1795461439920.7").ok(), Some(1_795_461_439_920));
        assert_eq!(read("1e300").ok(), Some(i64::MAX));
        assert!(read("\"1\"").is_err());
    }
}
