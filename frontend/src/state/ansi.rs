//! ANSI escapes of a log become styled spans of plain text; everything else that a terminal would do is dropped.
//!
//! A [`Painter`] lives as long as its voice, so that an escape that is cut over two pieces still counts.

use vte::{Params, Parser, Perform};

/// How a span looks. Colours are names; the style sheet gives them values in both themes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    pub color: Option<Color>,
    pub is_bold: bool,
    pub is_dim: bool,
    pub is_italic: bool,
    pub is_underlined: bool,
}

/// The eight colours of a terminal, in both strengths. Others are mapped to the nearest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    /// 0 black, 1 red, 2 green, 3 yellow, 4 blue, 5 magenta, 6 cyan, 7 white.
    pub hue: u8,
    pub is_bright: bool,
}

impl Style {
    /// Names for the style sheet, separated by blanks; empty for plain text.
    #[must_use]
    pub fn class(self) -> String {
        const HUES: [&str; 8] = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
        let mut names = Vec::new();
        if let Some(color) = self.color {
            names.push(HUES[usize::from(color.hue & 7)]);
            if color.is_bright {
                names.push("bright");
            }
        }
        let flags = [
            (self.is_bold, "bold"),
            (self.is_dim, "dim"),
            (self.is_italic, "italic"),
            (self.is_underlined, "underline"),
        ];
        names.extend(flags.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name));
        names.join(" ")
    }
}

/// A stretch of text in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub text: String,
    pub style: Style,
}

/// Reads one voice of a log.
#[derive(Default)]
pub struct Painter {
    parser: Parser,
    style: Style,
    /// A carriage return came: the next character starts the line anew.
    returns: bool,
    /// An escape came once, and may have been cut: from then on every byte is looked at.
    has_escaped: bool,
}

impl std::fmt::Debug for Painter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Painter").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Painter {
    /// Paints `text`, which has no newline, at the end of a row.
    pub fn paint(&mut self, text: &str, row: &mut Vec<Span>) {
        // Most text has neither escapes nor returns.
        if !self.returns
            && !self.has_escaped
            && !text.bytes().any(|byte| byte < 0x20 && byte != b'\t')
            && text.is_ascii()
        {
            push(row, text, self.style);
            return;
        }
        self.has_escaped = self.has_escaped || text.contains('\u{1b}');
        let mut brush = Brush { style: &mut self.style, returns: &mut self.returns, row };
        self.parser.advance(&mut brush, text.as_bytes());
    }

    /// The row is over: a return at its end rewrites nothing.
    pub fn end_row(&mut self) {
        self.returns = false;
    }
}

fn push(row: &mut Vec<Span>, text: &str, style: Style) {
    match row.last_mut() {
        Some(span) if span.style == style => span.text.push_str(text),
        _ if text.is_empty() => {}
        _ => row.push(Span { text: text.to_owned(), style }),
    }
}

struct Brush<'a> {
    style: &'a mut Style,
    returns: &'a mut bool,
    row: &'a mut Vec<Span>,
}

impl Perform for Brush<'_> {
    fn print(&mut self, character: char) {
        if std::mem::take(self.returns) {
            self.row.clear();
        }
        push(self.row, character.encode_utf8(&mut [0; 4]), *self.style);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => *self.returns = true,
            b'\t' => self.print('\t'),
            0x08 => {
                if let Some(span) = self.row.last_mut() {
                    span.text.pop();
                    if span.text.is_empty() {
                        self.row.pop();
                    }
                }
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, _intermediates: &[u8], _ignore: bool, action: char) {
        match action {
            'm' => {
                let codes: Vec<u16> = params.iter().flat_map(|param| param.iter().copied()).collect();
                apply(self.style, &codes);
            }
            // Erase the line: what progress bars do before they draw anew.
            'K' if params.iter().next().is_some_and(|param| param == [2]) || *self.returns => {
                self.row.clear()
            }
            _ => {}
        }
    }
}

fn apply(style: &mut Style, codes: &[u16]) {
    let mut codes = codes.iter().copied();
    while let Some(code) = codes.next() {
        match code {
            0 => *style = Style::default(),
            1 => style.is_bold = true,
            2 => style.is_dim = true,
            3 => style.is_italic = true,
            4 => style.is_underlined = true,
            22 => (style.is_bold, style.is_dim) = (false, false),
            23 => style.is_italic = false,
            24 => style.is_underlined = false,
            30..=37 => style.color = Some(named(code - 30, false)),
            39 => style.color = None,
            90..=97 => style.color = Some(named(code - 90, true)),
            38 => style.color = extended(&mut codes).or(style.color),
            48 => {
                extended(&mut codes);
            }
            _ => {}
        }
    }
}

fn named(hue: u16, is_bright: bool) -> Color {
    Color { hue: (hue & 7) as u8, is_bright }
}

/// `5;n` or `2;r;g;b`, to the nearest of the sixteen.
fn extended(codes: &mut impl Iterator<Item = u16>) -> Option<Color> {
    match codes.next()? {
        5 => match codes.next()? {
            index @ 0..=7 => Some(named(index, false)),
            index @ 8..=15 => Some(named(index - 8, true)),
            index @ 16..=231 => {
                let level = |part: u16| part % 6 * 51;
                let cube = index - 16;
                Some(nearest(level(cube / 36), level(cube / 6), level(cube)))
            }
            index => Some(named(7, index >= 244)),
        },
        2 => Some(nearest(codes.next()?, codes.next()?, codes.next()?)),
        _ => None,
    }
}

fn nearest(red: u16, green: u16, blue: u16) -> Color {
    let most = red.max(green).max(blue);
    let half = most / 2;
    let bit = |part: u16, value: u16| if part > half { value } else { 0 };
    named(bit(red, 1) | bit(green, 2) | bit(blue, 4), most > 192)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paint(pieces: &[&str]) -> Vec<(String, String)> {
        let mut painter = Painter::default();
        let mut row = Vec::new();
        for piece in pieces {
            painter.paint(piece, &mut row);
        }
        row.into_iter().map(|span| (span.text, span.style.class())).collect()
    }

    #[test]
    fn colours_become_names() {
        assert_eq!(
            paint(&["plain \u{1b}[1;31mred\u{1b}[0m \u{1b}[92mgreen"]),
            [
                ("plain ".into(), String::new()),
                ("red".into(), "red bold".into()),
                (" ".into(), String::new()),
                ("green".into(), "green bright".into()),
            ]
        );
    }

    #[test]
    fn an_escape_cut_in_two_still_counts() {
        assert_eq!(paint(&["a\u{1b}[3", "2mb"]), [("a".into(), String::new()), ("b".into(), "green".into())]);
    }

    #[test]
    fn other_escapes_vanish_and_markup_stays_text() {
        assert_eq!(
            paint(&["\u{1b}]0;title\u{7}\u{1b}[2J<script>alert(1)</script>\u{1b}[?25l"]),
            [("<script>alert(1)</script>".into(), String::new())]
        );
    }

    #[test]
    fn many_colours_are_mapped_to_the_nearest() {
        assert_eq!(paint(&["\u{1b}[38;5;196mx"])[0].1, "red bright");
        assert_eq!(paint(&["\u{1b}[38;2;10;120;20mx"])[0].1, "green");
        assert_eq!(paint(&["\u{1b}[48;5;1mx"])[0].1, "");
    }

    #[test]
    fn text_beyond_ascii_survives() {
        assert_eq!(paint(&["grüße 🚀"])[0].0, "grüße 🚀");
    }
}
