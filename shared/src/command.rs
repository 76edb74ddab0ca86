//! How the text of a `command` or `entrypoint` becomes arguments (`worker` 9).
//!
//! It looks like a shell's way and is not: jobs rely on every detail, mistakes included, so this follows the
//! recorded behaviour exactly. There is no shell: an operator, a glob or a comment makes the whole text one
//! argument, which starts only where an entrypoint such as `["sh", "-c"]` waits for it.

use serde_json::{Map, Value};

use crate::javascript::json;
use crate::javascript::text::is_white_space;

/// The arguments of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argv {
    /// None at all for a blank text; the Engine then takes the image's own command.
    pub args: Vec<String>,
    /// Why the whole text became one argument, if it did: worth a hint when the container cannot be started.
    pub taken_whole: Option<TakenWhole>,
}

/// What in a text needs a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenWhole {
    /// Such as `&&`, `|`, `>`, `;`.
    Operator(&'static str),
    /// `*` or `?` outside quotes, even after a backslash.
    Glob,
    /// `#` outside quotes, even inside a word.
    Comment,
}

/// A variable that is not written to its end: `${}`, or `${` without `}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Bad substitution: {0}")]
pub struct BadSubstitution(String);

/// Splits the text. Variables come from the job's `env` alone, as texts, without a second look at their value.
///
/// # Errors
/// [`BadSubstitution`].
pub fn parse(text: &str, env: &Map<String, Value>) -> Result<Argv, BadSubstitution> {
    let characters: Vec<char> = text.chars().collect();
    let mut args = Vec::new();
    let mut whole = None;
    for token in tokens(&characters) {
        match token {
            Token::Operator(operator) => {
                whole.get_or_insert(TakenWhole::Operator(operator));
            }
            Token::Word(word) => match Word::read(word, env)? {
                Word::Text(text) => args.push(text),
                Word::NeedsShell(because) => {
                    whole.get_or_insert(because);
                    // After a comment nothing is looked at, not even for errors.
                    if because == TakenWhole::Comment {
                        break;
                    }
                }
            },
        }
    }
    Ok(match whole {
        Some(because) => Argv { args: vec![text.to_owned()], taken_whole: Some(because) },
        None => Argv { args, taken_whole: None },
    })
}

/// Longer ones first.
const OPERATORS: [&str; 16] =
    ["||", "&&", ";;", "|&", "<(", "<<<", ">>", ">&", "<&", "&", ";", "(", ")", "|", "<", ">"];

/// One of `& ; ( ) | < >`.
fn operator_named(character: char) -> Option<&'static str> {
    OPERATORS.into_iter().find(|operator| operator.len() == 1 && operator.starts_with(character))
}

fn is_meta(character: char) -> bool {
    matches!(character, ' ' | '\t') || operator_named(character).is_some()
}

enum Token<'a> {
    Operator(&'static str),
    Word(&'a [char]),
}

/// Stage 1: operators and words, quotes still on.
fn tokens(text: &[char]) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            if let Some(operator) = operator_at(&text[at..]) {
                at += operator.len();
                return Some(Token::Operator(operator));
            }
            let end = word_end(text, at);
            if end > at {
                let word = &text[at..end];
                at = end;
                return Some(Token::Word(word));
            }
            // White space, or a quote that is never closed: it vanishes.
            at += 1;
        }
        None
    })
}

fn operator_at(text: &[char]) -> Option<&'static str> {
    let begins = |operator: &&str| operator.chars().enumerate().all(|(at, c)| text.get(at) == Some(&c));
    OPERATORS.into_iter().find(begins)
}

fn word_end(text: &[char], start: usize) -> usize {
    let mut at = start;
    while let Some(&character) = text.get(at) {
        at = match character {
            '\'' | '"' => match closing_quote(text, at) {
                Some(end) => end + 1,
                None => return at,
            },
            '\\' if text.get(at + 1).is_some_and(|&next| matches!(next, '\'' | '"') || is_meta(next)) => {
                at + 2
            }
            other if is_white_space(other) || is_meta(other) => return at,
            _ => at + 1,
        };
    }
    at
}

/// The quote that closes the one at `start`. A backslash before a quote skips it, for both kinds and without
/// regard to a doubled backslash; if no other is left, the last skipped one closes.
fn closing_quote(text: &[char], start: usize) -> Option<usize> {
    let quote = text[start];
    let mut skipped = None;
    let mut at = start + 1;
    while let Some(&character) = text.get(at) {
        if character == '\\' && text.get(at + 1) == Some(&quote) {
            skipped = Some(at + 1);
            at += 2;
        } else if character == quote {
            return Some(at);
        } else {
            at += 1;
        }
    }
    skipped
}

enum Word {
    Text(String),
    NeedsShell(TakenWhole),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

impl Word {
    /// Stage 2: quotes, backslashes and variables of one word.
    fn read(word: &[char], env: &Map<String, Value>) -> Result<Self, BadSubstitution> {
        let mut text = String::new();
        let (mut quote, mut escaped, mut glob) = (Quote::None, false, false);
        let mut at = 0;
        while let Some(&character) = word.get(at) {
            at += 1;
            glob |= quote == Quote::None && matches!(character, '*' | '?');
            if std::mem::take(&mut escaped) {
                text.push(character);
                continue;
            }
            match (quote, character) {
                (Quote::Single, '\'') | (Quote::Double, '"') => quote = Quote::None,
                (Quote::Double, '\\') => {
                    let next = word.get(at).copied();
                    at += 1;
                    if !matches!(next, Some('"' | '\\' | '$')) {
                        text.push('\\');
                    }
                    text.extend(next);
                }
                (Quote::Double | Quote::None, '$') => at = variable(word, at, env, &mut text)?,
                (Quote::Single | Quote::Double, other) => text.push(other),
                (Quote::None, '\'') => quote = Quote::Single,
                (Quote::None, '"') => quote = Quote::Double,
                (Quote::None, '#') => return Ok(Self::NeedsShell(TakenWhole::Comment)),
                (Quote::None, '\\') => escaped = true,
                (Quote::None, other) => match operator_named(other) {
                    Some(operator) => return Ok(Self::NeedsShell(TakenWhole::Operator(operator))),
                    None => text.push(other),
                },
            }
        }
        Ok(if glob { Self::NeedsShell(TakenWhole::Glob) } else { Self::Text(text) })
    }
}

/// Appends the value of the variable whose `$` stands before `at`; where to go on.
fn variable(
    word: &[char],
    at: usize,
    env: &Map<String, Value>,
    text: &mut String,
) -> Result<usize, BadSubstitution> {
    let rest = word.get(at..).unwrap_or_default();
    let (name, next): (&[char], usize) = match rest {
        ['{', '}', ..] => return Err(BadSubstitution("${}".to_owned())),
        ['{', inside @ ..] => match inside.iter().position(|c| *c == '}') {
            Some(length) => (&inside[..length], at + length + 2),
            None => return Err(BadSubstitution(inside.iter().collect())),
        },
        // One character more than the name is lost.
        ['*' | '@' | '#' | '?' | '$' | '!' | '_' | '-', ..] => (&rest[..1], at + 2),
        _ => {
            let is_name = |c: &&char| c.is_ascii_alphanumeric() || **c == '_';
            let length = rest.iter().take_while(is_name).count();
            (&rest[..length], at + length)
        }
    };
    let name: String = name.iter().collect();
    match env.get(&name) {
        Some(value) => text.push_str(&json::to_text(value).unwrap_or_default()),
        None if name.is_empty() => text.push('$'),
        None => {}
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn env() -> Map<String, Value> {
        json!({"FOO": "bar", "N": 5, "ST": "* x"}).as_object().unwrap().clone()
    }

    fn args(text: &str) -> Vec<String> {
        parse(text, &env()).unwrap().args
    }

    #[test]
    fn what_needs_a_shell_is_told_apart() {
        let because = |text: &str| parse(text, &env()).unwrap().taken_whole;
        assert_eq!(because("cd /inputs && ls"), Some(TakenWhole::Operator("&&")));
        assert_eq!(because("cat <<< x"), Some(TakenWhole::Operator("<<<")));
        assert_eq!(because("ls \\*"), Some(TakenWhole::Glob));
        assert_eq!(because("a#b"), Some(TakenWhole::Comment));
        assert_eq!(because("sh -c 'cd /inputs && ls *'"), None);
        assert_eq!(args("cd /inputs && ls"), ["cd /inputs && ls"]);
    }

    #[test]
    fn a_value_is_taken_as_it_is() {
        assert_eq!(args("echo $ST $N${N}"), ["echo", "* x", "55"]);
    }

    #[test]
    fn a_variable_without_an_end_is_an_error_unless_a_comment_hides_it() {
        assert_eq!(parse("echo ${}", &env()).unwrap_err().to_string(), "Bad substitution: ${}");
        assert_eq!(parse("echo ${FOO", &env()).unwrap_err().to_string(), "Bad substitution: FOO");
        assert!(parse("echo # ${}", &env()).is_ok());
        assert!(parse("a && b ${}", &env()).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a\\\\'\"$ {}#*?&<>|\n😀]{0,24}|\\PC*") {
            let _ = parse(&text, &env());
        }

        #[test]
        fn single_quoted_words_come_back(words in prop::collection::vec("[^'\\\\]{0,8}", 0..5)) {
            let text = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(parse(&text, &env()).unwrap(), Argv { args: words, taken_whole: None });
        }
    }
}
