//! Amounts as people write them: time spans ([`duration`]), sizes ([`bytes`]), GPUs ([`gpus`]).

pub mod bytes;
pub mod duration;
pub mod gpus;

/// The value of digits with or without a fraction, read by the reader of JSON: it is in the page already, and the
/// standard library's would bring its own tables of 10 kB.
fn decimal(number: &str) -> Option<f64> {
    let digits = number.trim_start_matches('0');
    let zero = if digits.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
    serde_json::from_str(&format!("{zero}{digits}")).ok()
}
