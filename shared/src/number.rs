//! Numbers as JavaScript prints them.

use serde::{Deserialize, Serialize, Serializer};

/// A number that is often whole, such as a count of CPUs: written without `.0` when it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Amount(pub f64);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Below 2^53 every whole number is exact in both forms.
        if self.0.fract() == 0.0 && self.0.abs() < 9_007_199_254_740_992.0 {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within the range of i64")]
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl From<f64> for Amount {
    fn from(number: f64) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction() {
        let write = |number| serde_json::to_string(&Amount(number)).unwrap();
        assert_eq!([write(4.0), write(2.5), write(-0.0), write(0.1)], ["4", "2.5", "0", "0.1"]);
    }
}
