//! Texts as JavaScript sees them: a row of UTF-16 code units.

use std::cmp::Ordering;

/// Order of `<` between strings: by UTF-16 code units. It differs from Rust's order, which is that of UTF-8, for
/// characters above U+FFFF against U+E000 to U+FFFF.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// `text.length`: UTF-16 code units.
#[must_use]
pub fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// `\s`, which is also what `trim` removes: white space and line ends of ECMAScript.
///
/// Unlike [`char::is_whitespace`] it holds U+FEFF and not U+0085.
#[must_use]
pub fn is_white_space(character: char) -> bool {
    matches!(
        character,
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{feff}'
    )
}

/// `text.trimEnd()`.
#[must_use]
pub fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_white_space)
}

/// The number of a property name that is an array index: digits without a leading zero, below 2³² − 1.
///
/// Objects list such names first, ascending, whatever the order in which they were set.
#[must_use]
pub fn array_index(name: &str) -> Option<u32> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = name == "0" || !name.starts_with('0');
    if !digits || !canonical {
        return None;
    }
    name.parse().ok().filter(|index| *index != u32::MAX)
}

/// Orders that names can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOrder {
    /// By UTF-16 code units.
    Utf16,
    /// As a JavaScript object lists its properties: array indices ascending, then the others as they were.
    Properties,
}

/// Sorts entries by name. Entries of one name stay as they were.
pub fn sort_by_name<T>(entries: &mut Vec<T>, order: NameOrder, name: impl Fn(&T) -> &str) {
    let places = sorted_places(&entries.iter().map(name).collect::<Vec<_>>(), order);
    let mut unsorted: Vec<Option<T>> = entries.drain(..).map(Some).collect();
    entries.extend(places.into_iter().filter_map(|place| unsorted.get_mut(place)?.take()));
}

/// The one sort for entries of all types: each further one would add some kilobytes to the page.
fn sorted_places(names: &[&str], order: NameOrder) -> Vec<usize> {
    let index = |name: &str| array_index(name).map_or(u64::MAX, u64::from);
    let mut places: Vec<usize> = (0..names.len()).collect();
    places.sort_unstable_by(|&a, &b| {
        let by_name = match order {
            NameOrder::Utf16 => compare(names[a], names[b]),
            NameOrder::Properties => index(names[a]).cmp(&index(names[b])),
        };
        by_name.then(a.cmp(&b))
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_outside_the_bmp_sort_by_their_surrogates() {
        assert_eq!(compare("\u{1f600}", "\u{ff5e}"), Ordering::Less);
        assert_eq!("\u{1f600}".cmp("\u{ff5e}"), Ordering::Greater);
        assert_eq!(compare("B", "a"), Ordering::Less);
        assert_eq!(compare("a", "ä"), Ordering::Less);
        assert_eq!(compare("", "a"), Ordering::Less);
    }

    #[test]
    fn length_counts_utf16_units() {
        assert_eq!((length("é"), length("😀"), length("")), (1, 2, 0));
    }

    #[test]
    fn array_indices_come_first_and_ascending() {
        let mut names = vec!["b", "10", "01", "9", "4294967295", "0", ""];
        sort_by_name(&mut names, NameOrder::Properties, |name| name);
        assert_eq!(names, ["0", "9", "10", "b", "01", "4294967295", ""]);
    }

    #[test]
    fn white_space_is_that_of_ecmascript() {
        assert!(is_white_space('\u{feff}') && !is_white_space('\u{85}') && !is_white_space('\u{200b}'));
        assert_eq!(trim_end("a \u{feff}\n"), "a");
    }
}
