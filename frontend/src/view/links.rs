//! Addresses in a line of the log: only `http` and `https`, only where a word begins.

/// A stretch of text, or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    Link(&'a str),
}

/// Takes a text apart.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut done = 0;
    while let Some(found) = next_link(&text[done..]) {
        let (start, end) = (done + found.0, done + found.1);
        let before = &text[text.len() - rest.len()..start];
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Link(&text[start..end]));
        done = end;
        rest = &text[end..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Where the first address of a text begins and ends.
fn next_link(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find("http")?;
        let tail = &text[start..];
        let scheme = ["https://", "http://"].into_iter().find(|scheme| tail.starts_with(scheme));
        let begins_word = text[..start].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        if let Some(scheme) = scheme.filter(|_| begins_word) {
            let end =
                tail.find(|c: char| c.is_whitespace() || "\"'<>`|\\^{}".contains(c)).unwrap_or(tail.len());
            let link = tail[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']']);
            if link.len() > scheme.len() {
                return Some((start, start + link.len()));
            }
        }
        from = start + "http".len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_and_sentences_keep_their_full_stops() {
        assert_eq!(
            pieces("see https://a.b/c?d=e, or (http://x)."),
            [
                Piece::Text("see "),
                Piece::Link("https://a.b/c?d=e"),
                Piece::Text(", or ("),
                Piece::Link("http://x"),
                Piece::Text(")."),
            ]
        );
    }

    #[test]
    fn scripts_and_half_addresses_stay_text() {
        for text in ["javascript:alert(1)", "http://", "xhttp://a", "https", "<http://>", ""] {
            assert!(pieces(text).iter().all(|piece| matches!(piece, Piece::Text(_))), "{text}");
        }
    }

    #[test]
    fn nothing_is_lost() {
        for text in ["a http://b c", "http://é/ü ö", "httphttps://x https://y"] {
            let whole: String = pieces(text)
                .iter()
                .map(|piece| match piece {
                    Piece::Text(t) | Piece::Link(t) => *t,
                })
                .collect();
            assert_eq!(whole, text);
        }
    }
}
