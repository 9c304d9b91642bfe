//! The [`Rules`]: what Git ignores, and what the user does not want synced.
//!
//! For one path the settings' globs are asked first, then the `.s0ignore` and
//! the `.gitignore` of each directory above it, the nearest first, then the
//! `info/exclude` of the repositories that it is in. The first pattern that
//! matches decides; in each file the last one does. Nothing in an ignored
//! directory can be let in again, but what a repository tracks is never ignored.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::Gitignore;
use s0_tree::{TreePath, comparison_key};

use super::access::{RootAccess, STATE_DIR_NAME};
use super::git_index::Tracked;
use super::guarded::Guarded;
use super::pattern;
use crate::disk::{Rules, Spot};

const GIT: &str = ".git";
const GITIGNORE: &str = ".gitignore";
const S0IGNORE: &str = ".s0ignore";
/// Larger rule files are not rules.
const MAX_RULES: u64 = 4 << 20;

/// The rules of one workspace, read when they are needed.
#[derive(Debug)]
pub struct GitRules {
    access: RootAccess,
    guarded: Guarded,
    settings: Source,
    directories: HashMap<TreePath, Arc<Level>>,
    repositories: HashMap<TreePath, Repository>,
}

/// Patterns and the text that they were read from.
#[derive(Debug, Clone)]
struct Source {
    text: String,
    /// None without a pattern, which is so in most directories: one that says
    /// nothing takes some kilobytes all the same.
    patterns: Option<Box<Gitignore>>,
}

/// What is known of a directory.
#[derive(Debug)]
struct Level {
    at: TreePath,
    above: Option<Arc<Level>>,
    /// It is ignored, or lies in a directory that is. Its own files are not read then.
    ignored: bool,
    /// `.s0ignore`, then `.gitignore`.
    sources: [Source; 2],
    /// Whether it is the work tree of a repository.
    is_repository: bool,
}

#[derive(Debug)]
struct Repository {
    exclude: Source,
    tracked: Tracked,
}

impl GitRules {
    /// The rules of a root. `settings` are further patterns in the syntax of
    /// `.gitignore`, relative to the root.
    #[must_use]
    pub fn new(access: RootAccess, settings: &[String]) -> Self {
        let fold = !access.abilities().case_sensitive;
        Self {
            settings: Source::new(settings.join("\n"), fold),
            guarded: Guarded::default(),
            access,
            directories: HashMap::new(),
            repositories: HashMap::new(),
        }
    }

    /// The same, and these paths are guarded.
    #[must_use]
    pub fn guarding(self, guarded: Guarded) -> Self {
        Self { guarded, ..self }
    }

    /// Whether the rules alone ignore `path`, tracked or not.
    fn is_ruled_out(&mut self, path: &TreePath, is_directory: bool) -> bool {
        let Some(parent) = path.parent() else { return false };
        let level = self.level(&parent);
        level.ignored || self.matches(&level, path, is_directory)
    }

    fn matches(&self, level: &Arc<Level>, path: &TreePath, is_directory: bool) -> bool {
        let levels = || std::iter::successors(Some(level), |level| level.above.as_ref());
        let sources = levels().flat_map(|level| level.sources.iter().map(|from| (&level.at, from)));
        let excludes = levels()
            .filter(|level| level.is_repository)
            .filter_map(|level| Some((&level.at, &self.repositories.get(&level.at)?.exclude)));
        let root = TreePath::root();
        std::iter::once((&root, &self.settings))
            .chain(sources)
            .chain(excludes)
            .find_map(|(at, source)| source.decision(below(path, at)?, is_directory))
            .unwrap_or(false)
    }

    fn level(&mut self, at: &TreePath) -> Arc<Level> {
        if let Some(level) = self.directories.get(at) {
            return level.clone();
        }
        let above = at.parent().map(|parent| self.level(&parent));
        let ignored = is_always_ignored(at)
            || above.as_ref().is_some_and(|level| level.ignored || self.matches(level, at, true));
        let mut level = Level {
            at: at.clone(),
            above,
            ignored,
            sources: [const { "" }; 2].map(|text| Source::new(text.into(), false)),
            is_repository: false,
        };
        if !ignored {
            level.sources = [S0IGNORE, GITIGNORE].map(|name| self.source(&level.at, name));
            if let Some(repository) = self.repository(at) {
                self.repositories.insert(at.clone(), repository);
                level.is_repository = true;
            }
        }
        let level = Arc::new(level);
        self.directories.insert(at.clone(), level.clone());
        level
    }

    fn source(&self, directory: &TreePath, name: &str) -> Source {
        let fold = !self.access.abilities().case_sensitive;
        let Ok(name) = s0_tree::Name::new(name) else { return Source::new(String::new(), fold) };
        let path = directory.join(&name);
        let mut bytes = Vec::new();
        // As for git, a link is no rule file, and one that cannot be read has no rules.
        if let Ok(file) = self.access.open(&Spot::Path(path.clone())) {
            if file.stat().size > MAX_RULES {
                tracing::warn!(%path, "too large to be a file of ignore rules");
            } else if let Err(error) = file.take(MAX_RULES).read_to_end(&mut bytes) {
                tracing::warn!(%path, %error, "the ignore rules cannot be read");
            }
        }
        Source::new(String::from_utf8_lossy(&bytes).into_owned(), fold)
    }

    fn repository(&self, at: &TreePath) -> Option<Repository> {
        let work_tree = self.access.path().join(at.as_str());
        let git = git_dir(&work_tree)?;
        let exclude = git.common.join("info/exclude");
        let text = read_text(&exclude).unwrap_or_default();
        Some(Repository {
            exclude: Source::new(text, !self.access.abilities().case_sensitive),
            tracked: Tracked::read(&git.own),
        })
    }

    /// Whether a repository tracks `path` or something below it.
    fn covers(&mut self, path: &TreePath) -> bool {
        let Some(parent) = path.parent() else { return true };
        let level = self.level(&parent);
        std::iter::successors(Some(&level), |level| level.above.as_ref())
            .filter(|level| level.is_repository)
            .filter_map(|level| Some((self.repositories.get(&level.at)?, below(path, &level.at)?)))
            .any(|(repository, inner)| repository.tracked.covers(inner))
    }

    /// Forgets what was read at and below a directory.
    fn forget(&mut self, at: &TreePath) {
        self.directories.retain(|path, _| !path.is_at_or_below(at));
        self.repositories.retain(|path, _| !path.is_at_or_below(at));
    }

    fn rules_changed(&mut self, directory: &TreePath, name: &str) -> bool {
        // What was never read decided nothing, and what is in an ignored
        // directory decides nothing.
        let Some(level) = self.directories.get(directory).cloned() else { return false };
        if level.ignored {
            return false;
        }
        let known = &level.sources[usize::from(name == GITIGNORE)];
        if self.source(directory, name).text == known.text {
            return false;
        }
        self.forget(directory);
        true
    }

    fn repository_changed(&mut self, at: &TreePath) -> bool {
        let Some(level) = self.directories.get(at).cloned() else { return false };
        if level.ignored {
            return false;
        }
        match (self.repositories.remove(at), self.repository(at)) {
            (None, None) => false,
            (Some(old), Some(new)) if old.exclude.text == new.exclude.text => {
                let differences = old.tracked.differences(&new.tracked);
                let paths: Vec<_> = differences.iter().filter_map(|path| join(at, path)).collect();
                self.repositories.insert(at.clone(), new);
                paths.iter().any(|path| self.is_ruled_out(path, false))
            }
            _ => {
                self.forget(at);
                true
            }
        }
    }
}

impl Rules for GitRules {
    fn is_ignored(&mut self, path: &TreePath, is_directory: bool) -> bool {
        if is_always_ignored(path) {
            return true;
        }
        self.is_ruled_out(path, is_directory) && !self.covers(path)
    }

    fn changed(&mut self, path: &TreePath) -> bool {
        let Some((directory, name)) = path.split() else { return false };
        let git = path.ancestors().chain([path.clone()]).find(|path| is_named(path, GIT));
        if let Some((work_tree, git)) = git.and_then(|git| Some((git.parent()?, git))) {
            // Git writes its files anew and renames them into place.
            return matches!(below(path, &git), Some("" | "index" | "info" | "info/exclude"))
                && self.repository_changed(&work_tree);
        }
        match name.as_str() {
            name @ (GITIGNORE | S0IGNORE) => self.rules_changed(&directory, name),
            _ => false,
        }
    }

    fn is_guarded(&self, path: &TreePath) -> bool {
        self.guarded.contains(path)
    }

    fn is_tracked(&mut self, path: &TreePath) -> bool {
        self.covers(path)
    }

    fn read_again(&mut self) {
        self.forget(&TreePath::root());
    }
}

impl Source {
    fn new(text: String, fold_case: bool) -> Self {
        let patterns = (!text.is_empty()).then(|| pattern::compile(&text, fold_case).into());
        Self { text, patterns }
    }

    fn decision(&self, path: &str, is_directory: bool) -> Option<bool> {
        match self.patterns.as_ref()?.matched(path, is_directory) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    }
}

/// What no rule lets in: repositories, and what replicas keep for themselves.
fn is_always_ignored(path: &TreePath) -> bool {
    path.names().any(|name| {
        let key = comparison_key(name.as_str());
        key == GIT || key == STATE_DIR_NAME
    })
}

fn is_named(path: &TreePath, name: &str) -> bool {
    path.as_str().rsplit('/').next() == Some(name)
}

/// `path` relative to `at`; `None` when it is not there or below.
fn below<'a>(path: &'a TreePath, at: &TreePath) -> Option<&'a str> {
    let rest = path.as_str().strip_prefix(at.as_str())?;
    match rest.strip_prefix('/') {
        Some(inner) => Some(inner),
        None => (rest.is_empty() || at.is_root()).then_some(rest),
    }
}

fn join(at: &TreePath, inner: &str) -> Option<TreePath> {
    if at.is_root() {
        return TreePath::new(inner).ok();
    }
    TreePath::new(&format!("{at}/{inner}")).ok()
}

/// Where a repository keeps its things.
struct GitDir {
    /// The index.
    own: PathBuf,
    /// What all work trees of the repository share.
    common: PathBuf,
}

/// Finds the repository of a work tree, which may lie elsewhere: linked work
/// trees and submodules have a file that says where.
fn git_dir(work_tree: &Path) -> Option<GitDir> {
    let entry = work_tree.join(GIT);
    let own = if entry.is_dir() {
        entry
    } else {
        work_tree.join(read_text(&entry)?.strip_prefix("gitdir:")?.trim())
    };
    let common = match read_text(&own.join("commondir")) {
        Some(common) => own.join(common.trim()),
        None => own.clone(),
    };
    own.is_dir().then_some(GitDir { own, common })
}

/// The beginning of a file, as far as it can be one of ours.
fn read_text(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_RULES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
