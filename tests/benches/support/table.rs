//! One line a figure, printed as soon as it is known: what, how much, what is aimed at, and whether that is met.

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// For comparison alone.
    None,
}

pub(crate) fn title(text: &str) {
    println!("\n{text}");
}

/// One figure with its unit.
pub(crate) fn row(what: &str, figure: f64, unit: &str, aim: Aim) {
    let (aim, verdict) = match aim {
        Aim::AtLeast(least) => {
            (format!("≥ {}", plain(least)), if figure >= least { "met" } else { "missed" })
        }
        Aim::AtMost(most) => (format!("≤ {}", plain(most)), if figure <= most { "met" } else { "missed" }),
        Aim::None => (String::new(), ""),
    };
    println!("  {what:<58} {:>10} {unit:<8} {aim:>9} {verdict}", plain(figure));
}

pub(crate) fn note(text: &str) {
    println!("  {text}");
}

fn plain(number: f64) -> String {
    let digits = match number.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
