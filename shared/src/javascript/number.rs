//! Numbers as `String(number)` gives them.

/// Shortest digits that read back as the same number, in JavaScript's layout: `1e+21`, `1e-7`, `0` for −0, `NaN`.
#[must_use]
pub fn to_text(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_javascripts() {
        let texts =
            [1e21, 1e20, 1e-7, 1e-6, -0.0, 0.1, 1.0, f64::NAN, f64::NEG_INFINITY, 5e-324].map(to_text);
        assert_eq!(
            texts,
            [
                "1e+21",
                "100000000000000000000",
                "1e-7",
                "0.000001",
                "0",
                "0.1",
                "1",
                "NaN",
                "-Infinity",
                "5e-324"
            ]
        );
    }
}
