//! Every phrase of the page, as functions with typed arguments: a translation could replace this file alone.

/// A duration as people say it: `0.4 s`, `12 s`, `3 min 12 s`, `2 h 5 min`.
#[must_use]
pub fn duration(millis: i64) -> String {
    let millis = millis.max(0);
    match millis {
        0..10_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        10_000..60_000 => format!("{} s", millis / 1_000),
        60_000..3_600_000 => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
        3_600_000..172_800_000 => format!("{} h {} min", millis / 3_600_000, millis % 3_600_000 / 60_000),
        _ => format!("{} days", millis / 86_400_000),
    }
}

/// A duration that is still growing: whole seconds, so that it does not flicker.
#[must_use]
pub fn running_duration(millis: i64) -> String {
    let millis = millis.max(0);
    if millis < 60_000 { format!("{} s", millis / 1_000) } else { duration(millis) }
}

/// How long ago something was.
#[must_use]
pub fn ago(millis: i64) -> String {
    match millis.max(0) {
        0..5_000 => "just now".to_owned(),
        millis @ 5_000..60_000 => format!("{} s ago", millis / 1_000),
        millis @ 60_000..3_600_000 => format!("{} min ago", millis / 60_000),
        millis @ 3_600_000..86_400_000 => format!("{} h ago", millis / 3_600_000),
        millis @ 86_400_000..172_800_000 => {
            let _ = millis;
            "yesterday".to_owned()
        }
        millis => format!("{} days ago", millis / 86_400_000),
    }
}

/// A size in powers of ten: `96 B`, `48 kB`, `1.2 GB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1_000.0;
        unit += 1;
    }
    if amount < 9.95 {
        format!("{amount:.1} {}", UNITS[unit])
    } else {
        format!("{amount:.0} {}", UNITS[unit])
    }
}

/// A count with separators: `12,345`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 worker`, `2 workers`.
#[must_use]
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// When a line came, relative to the first: `+0.41`.
#[must_use]
pub fn line_time(millis: i64) -> String {
    let millis = millis.max(0);
    if millis < 100_000 {
        format!("+{}.{:02}", millis / 1_000, millis % 1_000 / 10)
    } else {
        format!("+{}", millis / 1_000)
    }
}

/// A queue's name with its middle masked: it is a secret.
#[must_use]
pub fn masked(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= 12 {
        return name.to_owned();
    }
    let head: String = characters[..8].iter().collect();
    let tail: String = characters[characters.len() - 4..].iter().collect();
    format!("{head}···{tail}")
}

/// The command that starts a worker for a queue.
#[must_use]
pub fn worker_command(api_origin: &str, queue: &str) -> String {
    format!("dockframe run --cpus=4 --api-address={} {}", shell_word(api_origin), shell_word(queue))
}

/// A word as a POSIX shell reads it back.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

// --- log ---

#[must_use]
pub fn lines_skipped(number: u64) -> String {
    format!("… {} not received …", plural(number, "line was", "lines were"))
}

#[must_use]
pub fn next_attempt(attempt: u32) -> String {
    format!("— the worker was lost; attempt {attempt} begins —")
}

#[must_use]
pub fn rows_dropped(number: usize) -> String {
    format!("… {} before this are not shown …", plural(number as u64, "line", "lines"))
}

/// What stands in a log without lines.
#[must_use]
pub fn empty_log(is_busy: bool) -> &'static str {
    if is_busy { "No lines yet." } else { "What the job prints appears here." }
}

// --- address ---

#[must_use]
pub fn not_an_object() -> &'static str {
    "it must be a JSON object"
}

#[must_use]
pub fn short_unknown() -> &'static str {
    "this server does not know the job; it may have been forgotten after some weeks"
}

// --- results ---

#[must_use]
pub fn result_missing() -> String {
    "the queue server says that the job is finished, but has no result of it yet".to_owned()
}

#[must_use]
pub fn result_unreadable(why: &str) -> String {
    format!("the queue server's answer cannot be read: {why}")
}

/// In small letters, for comparing: Latin, Greek and Cyrillic ones. All of Unicode's would be tables of 11 kB.
#[must_use]
pub fn folded(text: &str) -> String {
    let small = |letter: char| {
        let code = u32::from(letter);
        let distance = match letter {
            'A'..='Z' | 'À'..='Ö' | 'Ø'..='Þ' | 'Α'..='Ρ' | 'Σ'..='Ϋ' | 'А'..='Я' => 32,
            'Ѐ'..='Џ' => 80,
            // Pairs, the great letter first.
            'Ā'..='ķ' | 'Ŋ'..='ŷ' => u32::from(code.is_multiple_of(2)),
            'Ĺ'..='ň' | 'Ź'..='ž' => u32::from(!code.is_multiple_of(2)),
            _ => 0,
        };
        char::from_u32(code + distance).unwrap_or(letter)
    };
    text.chars().map(small).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_folded_as_unicode_folds_them() {
        for text in ["Error: EÄÖÜ ẞ Ñandú", "ΑΒΓ ΣΩΫ αβγ", "ЁЖИК Джон", "ĀāŁłŃńŠšŽžŒœ", "×÷ 1,2 §"]
        {
            // Sharp s and others of a later block stay.
            assert_eq!(folded(text), text.replace('ẞ', "ß").to_lowercase().replace('ß', "ẞ"), "{text}");
        }
    }

    #[test]
    fn durations_sizes_and_counts_read_well() {
        assert_eq!(duration(400), "0.4 s");
        assert_eq!(duration(192_000), "3 min 12 s");
        assert_eq!(running_duration(12_900), "12 s");
        assert_eq!([size(96), size(48_000), size(1_234_000_000)], ["96 B", "48 kB", "1.2 GB"]);
        assert_eq!(size(999_900), "1.0 MB");
        assert_eq!([count(7), count(1_024), count(1_000_000)], ["7", "1,024", "1,000,000"]);
        assert_eq!(line_time(410), "+0.41");
        assert_eq!(ago(90_000_000), "yesterday");
    }

    #[test]
    fn a_long_queue_name_is_masked_in_the_middle() {
        assert_eq!(masked("local"), "local");
        assert_eq!(masked("lab-7f3a0000-1111-c1d9"), "lab-7f3a···c1d9");
    }

    #[test]
    fn a_hostile_queue_name_stays_one_word_of_the_shell() {
        assert_eq!(
            worker_command("http://h:1", "a'; rm -rf /"),
            r"dockframe run --cpus=4 --api-address=http://h:1 'a'\''; rm -rf /'"
        );
        assert_eq!(shell_word("public1"), "public1");
        assert_eq!(shell_word("-x"), "'-x'");
    }
}
