//! Secrets that the owner lends to jobs by name (`worker` 22.1, B26). Pure.
//!
//! A definition names a secret and never holds it, so it is neither in the job's address nor in its identity. What a
//! job writes is searched for the values of its own secrets before anybody sees it.

use std::collections::BTreeMap;

use base64::Engine as _;
use dockframe_shared::job::Definition;
use serde_json::Value;

use crate::config::SecretSource;

/// Shorter ones would mask half of a log.
const MIN_MASKED_BYTES: usize = 4;
const MASK: &str = "***";

/// The owner's secrets by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(BTreeMap<String, SecretSource>);

/// How a job gets a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretWish {
    pub(crate) name: String,
    pub(crate) form: SecretForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretForm {
    /// A variable of the secret's name.
    Variable,
    /// `/run/secrets/<name>`.
    File,
}

/// A `secrets` field that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("secrets must be a list of names, or an object of name to \"env\" or \"file\"")]
pub(crate) struct InvalidSecrets;

impl Secrets {
    pub(crate) fn new(given: &[(String, SecretSource)]) -> Self {
        Self(given.iter().cloned().collect())
    }

    /// The first wish that the owner has nothing for.
    pub(crate) fn missing<'a>(&self, wishes: &'a [SecretWish]) -> Option<&'a str> {
        wishes.iter().map(|wish| wish.name.as_str()).find(|name| !self.0.contains_key(*name))
    }

    /// Wishes with their values, as far as there are any.
    pub(crate) fn of<'a>(
        &'a self,
        wishes: &'a [SecretWish],
    ) -> impl Iterator<Item = (&'a SecretWish, &'a str)> {
        wishes.iter().filter_map(|wish| Some((wish, self.0.get(&wish.name)?.0.as_str())))
    }

    /// What hides the values of these wishes.
    pub(crate) fn mask(&self, wishes: &[SecretWish]) -> Mask {
        let mut needles = Vec::new();
        for (_, value) in self.of(wishes) {
            let coded = base64::engine::general_purpose::STANDARD.encode(value);
            // A longer text that holds it is coded without the padding.
            let bare = coded.trim_end_matches('=').to_owned();
            needles.extend([value.to_owned(), coded, bare]);
            needles.extend(value.lines().map(str::to_owned));
        }
        needles.retain(|needle| needle.len() >= MIN_MASKED_BYTES);
        // The longest first: the shorter ones are parts of it.
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Mask(needles)
    }
}

/// Hides values in what a job writes.
#[derive(Clone, Default)]
pub(crate) struct Mask(Vec<String>);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    pub(crate) fn apply(&self, text: &mut String) {
        for needle in &self.0 {
            if text.contains(needle) {
                *text = text.replace(needle, MASK);
            }
        }
    }
}

/// The wishes of a definition.
pub(crate) fn wishes(definition: &Definition) -> Result<Vec<SecretWish>, InvalidSecrets> {
    let wish = |name: &str, form| SecretWish { name: name.to_owned(), form };
    match definition.get("secrets") {
        None => Ok(Vec::new()),
        Some(Value::Array(names)) => {
            let names = names.iter().map(|name| Some(wish(name.as_str()?, SecretForm::Variable)));
            names.collect::<Option<_>>().ok_or(InvalidSecrets)
        }
        Some(Value::Object(fields)) => {
            let wishes = fields.iter().map(|(name, form)| match form.as_str() {
                Some("env") => Ok(wish(name, SecretForm::Variable)),
                Some("file") => Ok(wish(name, SecretForm::File)),
                _ => Err(InvalidSecrets),
            });
            wishes.collect()
        }
        Some(_) => Err(InvalidSecrets),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(secrets: &Value) -> Definition {
        let Value::Object(fields) = json!({"image": "a", "secrets": secrets}) else { unreachable!() };
        Definition(fields)
    }

    fn lent() -> Secrets {
        Secrets::new(&[("TOKEN".to_owned(), SecretSource("s3cr3t-value".to_owned()))])
    }

    #[test]
    fn a_job_names_secrets_and_gets_those_that_are_lent() {
        let list = wishes(&definition(&json!(["TOKEN"]))).unwrap();
        assert_eq!(lent().missing(&list), None);
        assert_eq!(lent().of(&list).map(|(_, value)| value).collect::<Vec<_>>(), ["s3cr3t-value"]);
        let file = wishes(&definition(&json!({"TOKEN": "file", "OTHER": "env"}))).unwrap();
        assert_eq!(file[0].form, SecretForm::File);
        assert_eq!(lent().missing(&file), Some("OTHER"));
        for wrong in [json!("TOKEN"), json!([5]), json!({"TOKEN": "both"}), json!({"TOKEN": 1})] {
            assert_eq!(wishes(&definition(&wrong)), Err(InvalidSecrets));
        }
    }

    #[test]
    fn values_are_hidden_also_in_base64_and_in_no_debug_text() {
        let list = wishes(&definition(&json!(["TOKEN"]))).unwrap();
        let mask = lent().mask(&list);
        let mut text = "say s3cr3t-value and czNjcjN0LXZhbHVl twice s3cr3t-value\n".to_owned();
        mask.apply(&mut text);
        assert_eq!(text, "say *** and *** twice ***\n");
        assert!(!format!("{:?} {mask:?}", lent()).contains("s3cr3t"));
    }
}
