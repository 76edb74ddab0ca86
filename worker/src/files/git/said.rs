//! What git says, for people: without credentials, and short. Pure.

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use url::Url;

/// Of complaints that are kept: the last ones tell most.
pub(super) const MAX_SAID_BYTES: usize = 16 << 10;
const MAX_SENTENCE_CHARS: usize = 600;
const MAX_SENTENCE_LINES: usize = 4;

/// User and password, as they are and as they are sent.
pub(super) fn credential(url: &Url) -> Option<(String, String)> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain = percent_decode_str(url.username()).collect::<Vec<u8>>();
    plain.push(b':');
    plain.extend(percent_decode_str(url.password().unwrap_or_default()));
    let encoded = base64::engine::general_purpose::STANDARD.encode(&plain);
    Some((String::from_utf8_lossy(&plain).into_owned(), encoded))
}

/// All that a server could say again of a credential.
pub(super) fn secrets(url: &Url, plain: String, encoded: String) -> Vec<String> {
    // A token alone is the user's name.
    let (user, password) = plain.split_once(':').unwrap_or((&plain, ""));
    let token = if password.is_empty() { user } else { password }.to_owned();
    let written = url.password().filter(|password| !password.is_empty()).unwrap_or(url.username());
    let mut secrets = vec![encoded, written.to_owned(), token, plain];
    // A secret that is a part of another one must not break it first.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.retain(|secret| !secret.is_empty());
    secrets
}

/// Git's last words, for people: short, in one line, without secrets.
pub(super) fn sentence(said: &[u8], secrets: &[String]) -> String {
    // A secret that was cut in two would not be found.
    let longest = secrets.iter().map(String::len).max().unwrap_or_default();
    let whole = if said.len() < MAX_SAID_BYTES { said } else { said.get(longest..).unwrap_or_default() };
    let mut text = String::from_utf8_lossy(whole).into_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    let lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .collect();
    let last = &lines[lines.len().saturating_sub(MAX_SENTENCE_LINES)..];
    last.join("; ").chars().take(MAX_SENTENCE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_short() {
        assert_eq!(sentence("a\n".repeat(9).as_bytes(), &[]), "a; a; a; a");
        assert_eq!(sentence("x".repeat(20_000).as_bytes(), &[]).len(), MAX_SENTENCE_CHARS);
        let cut = format!("cret{}", " x".repeat(MAX_SAID_BYTES / 2 - 2));
        assert!(!sentence(cut.as_bytes(), &["secret".to_owned()]).contains("cret"));
    }
}
