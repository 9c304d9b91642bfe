//! Guarded paths: what editors, shells and tools run when they find it.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use s0_tree::{TreePath, comparison_key};

/// What is guarded when a user says nothing else. A pattern without a slash is
/// about a name anywhere; one with a slash is about the workspace's own.
pub const GUARDED: &[&str] = &[
    ".vscode",
    ".idea",
    ".fleet",
    ".zed",
    ".devcontainer",
    "*.code-workspace",
    ".envrc",
    ".husky",
    ".githooks",
    ".exrc",
    ".nvimrc",
    ".nvim.lua",
    ".lvimrc",
    ".dir-locals.el",
];

/// The guarded paths of one workspace. Names are compared as a file system
/// compares them that folds: a spelling that only some systems take for the
/// guarded name is guarded on all.
#[derive(Debug, Clone, Default)]
pub struct Guarded(GlobSet);

impl Guarded {
    /// Paths that match one of the patterns, or lie below one that does.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn new(patterns: &[impl AsRef<str>]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let folded = comparison_key(pattern.as_ref().trim_end_matches('/'));
            let whole = match folded.strip_prefix('/') {
                Some(tied) => tied.to_owned(),
                None if folded.contains('/') => folded,
                None => format!("**/{folded}"),
            };
            for glob in [format!("{whole}/**"), whole] {
                set.add(GlobBuilder::new(&glob).literal_separator(true).build()?);
            }
        }
        Ok(Self(set.build()?))
    }

    /// Whether `path` is guarded.
    #[must_use]
    pub fn contains(&self, path: &TreePath) -> bool {
        !self.0.is_empty() && self.0.is_match(comparison_key(path.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_run_is_guarded_under_every_spelling_and_nothing_else() {
        let usual = Guarded::new(GUARDED).unwrap();
        let own = Guarded::new(&["scripts/hooks/", "/Makefile", "*.mk"]).unwrap();
        for (guarded, path, expected) in [
            (&usual, ".vscode/tasks.json", true),
            (&usual, "web/.VSCode/settings.json", true),
            (&usual, ".envrc", true),
            (&usual, "deep/er/.EnvRC", true),
            (&usual, "my.code-workspace", true),
            (&usual, ".envrc.example", false),
            (&usual, "vscode/tasks.json", false),
            (&usual, "src/main.rs", false),
            (&own, "scripts/hooks/pre", true),
            (&own, "other/scripts/hooks/pre", false),
            (&own, "Makefile", true),
            (&own, "src/Makefile", false),
            (&own, "src/rules.mk", true),
            (&own, ".envrc", false),
        ] {
            assert_eq!(guarded.contains(&TreePath::new(path).unwrap()), expected, "{path}");
        }
        assert!(Guarded::new(&["[z-a]"]).is_err());
        assert!(!Guarded::default().contains(&TreePath::new(".envrc").unwrap()));
    }
}
