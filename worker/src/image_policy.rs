//! Which images the owner of the machine lets jobs use (`worker` 22.1, B11). Pure.

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::plan::ImageSource;

/// The owner's rules; the default allows everything.
#[derive(Debug, Clone, Default)]
pub struct ImagePolicy {
    /// `None`: any.
    allowed: Option<GlobSet>,
    denied: GlobSet,
    requires_digest: bool,
    forbids_builds: bool,
}

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--allow-image, --deny-image: `{0}` is no pattern such as registry.example/team/*")]
pub struct InvalidPattern(String);

impl ImagePolicy {
    /// # Errors
    /// [`InvalidPattern`].
    pub fn new(
        allow: &[String],
        deny: &[String],
        requires_digest: bool,
        allows_builds: bool,
    ) -> Result<Self, InvalidPattern> {
        Ok(Self {
            allowed: if allow.is_empty() { None } else { Some(patterns(allow)?) },
            denied: patterns(deny)?,
            requires_digest,
            forbids_builds: !allows_builds,
        })
    }

    /// Why a job's image is not allowed here, if it is not.
    pub(crate) fn refusal(&self, source: &ImageSource) -> Option<String> {
        let why = match source {
            ImageSource::Build(_) if self.forbids_builds => "images are not built here".to_owned(),
            ImageSource::Build(_) => return None,
            ImageSource::Reference(reference) => {
                let name: String = reference.chars().take(200).collect();
                // Both ways of writing: `python` is `docker.io/library/python`.
                let full = full_name(reference);
                let fits = |set: &GlobSet| set.is_match(reference) || set.is_match(&full);
                let is_allowed = self.allowed.as_ref().is_none_or(fits) && !fits(&self.denied);
                if !is_allowed {
                    name
                } else if self.requires_digest && !reference.contains("@sha256:") {
                    format!("{name} has no digest (name@sha256:…)")
                } else {
                    return None;
                }
            }
        };
        Some(format!("image not allowed on this worker: {why}"))
    }
}

fn patterns(texts: &[String]) -> Result<GlobSet, InvalidPattern> {
    let bad = |text: &String| InvalidPattern(text.chars().take(80).collect());
    let mut set = GlobSetBuilder::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        set.add(Glob::new(text).map_err(|_| bad(text))?);
        // A name without a tag means all of them.
        if !text.contains([':', '@', '*']) {
            set.add(Glob::new(&format!("{text}{{:,@}}*")).map_err(|_| bad(text))?);
        }
    }
    set.build().map_err(|error| InvalidPattern(error.to_string()))
}

/// The reference with the registry and directory that the Engine would add.
fn full_name(reference: &str) -> String {
    let first = reference.split('/').next().unwrap_or_default();
    let has_registry = reference.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_registry {
        reference.to_owned()
    } else if reference.contains('/') {
        format!("docker.io/{reference}")
    } else {
        format!("docker.io/library/{reference}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> ImagePolicy {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        ImagePolicy::new(&owned(allow), &owned(deny), false, true).unwrap()
    }

    fn allows(policy: &ImagePolicy, image: &str) -> bool {
        policy.refusal(&ImageSource::Reference(image.to_owned())).is_none()
    }

    #[test]
    fn only_what_is_allowed_and_not_denied_is_taken() {
        let any = ImagePolicy::default();
        assert!(allows(&any, "python:3.12"));
        let team = policy(&["registry.example/team/*", "python"], &["*:latest"]);
        for (image, expected) in [
            ("registry.example/team/x:1", true),
            ("registry.example/other/x:1", false),
            ("python", true),
            ("python:3.12", true),
            ("pythonic", false),
            ("registry.example/team/x:latest", false),
        ] {
            assert_eq!(allows(&team, image), expected, "{image}");
        }
        assert!(!allows(&policy(&[], &["docker.io/*"]), "alpine"), "the hub by its name");
    }

    #[test]
    fn digests_can_be_required_and_builds_forbidden() {
        let strict = ImagePolicy::new(&[], &[], true, false).unwrap();
        assert!(!allows(&strict, "python:3.12"));
        assert!(allows(&strict, &format!("python@sha256:{}", "0".repeat(64))));
        let refusal = strict.refusal(&ImageSource::Build(Box::new(Map::new()))).unwrap();
        assert!(refusal.starts_with("image not allowed on this worker: "), "{refusal}");
        assert!(ImagePolicy::new(&["[".to_owned()], &[], false, true).is_err());
    }
}
