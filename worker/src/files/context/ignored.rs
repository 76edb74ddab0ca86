//! What a context leaves out.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

use super::ContextError;

/// A pattern is kept compiled, in a hundred times its size.
pub(super) const MAX_PATTERNS: usize = 2_000;

/// The patterns of a `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    patterns: Vec<(GlobMatcher, bool)>,
    pub(super) has_exceptions: bool,
}

impl Ignored {
    pub(super) fn read(text: &str) -> Result<Self, ContextError> {
        let mut ignored = Self::default();
        for line in text.trim_start_matches('\u{feff}').lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (is_exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let segments: Vec<&str> =
                pattern.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
            if segments.is_empty() {
                continue;
            }
            let glob = GlobBuilder::new(&segments.join("/"))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|_| ContextError::Pattern(pattern.chars().take(200).collect()))?;
            if ignored.patterns.len() == MAX_PATTERNS {
                return Err(ContextError::TooManyPatterns);
            }
            ignored.has_exceptions |= is_exception;
            ignored.patterns.push((glob.compile_matcher(), is_exception));
        }
        Ok(ignored)
    }

    /// The last pattern that fits the path, or a directory above it, decides.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let mut is_covered = false;
        for (pattern, is_exception) in &self.patterns {
            let mut ancestors = path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty());
            if ancestors.any(|ancestor| pattern.is_match(ancestor)) {
                is_covered = !is_exception;
            }
        }
        is_covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_counted_at_the_edge_and_one_past_it() {
        assert!(Ignored::read(&"a\n".repeat(MAX_PATTERNS)).is_ok());
        let more = Ignored::read(&"a\n".repeat(MAX_PATTERNS + 1));
        assert!(matches!(more, Err(ContextError::TooManyPatterns)));
    }
}
