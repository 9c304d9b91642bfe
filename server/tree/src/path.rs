//! Names and paths inside a Volume: valid by construction.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// The longest name, in bytes, that the common file systems hold.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest path, in bytes, that a Volume accepts (Linux `PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;

/// Why a text is not a name or a path of any Volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// The text has an empty part, as in `a//b`, `/a` or `a/`.
    #[error("the path {0:?} has an empty part")]
    EmptyPart(String),
    /// A part is `.` or `..`.
    #[error("the path {0:?} has a part that is {1:?}")]
    Dots(String, &'static str),
    /// The text contains a NUL character.
    #[error("the path {0:?} contains a NUL character")]
    Nul(String),
    /// A name contains a slash.
    #[error("the name {0:?} contains a slash")]
    Slash(String),
    /// The path of a request starts with a drive, as in `C:`.
    #[error("the path {0:?} starts with a drive letter")]
    Drive(String),
    /// A name is longer than [`MAX_NAME_BYTES`] or a path than [`MAX_PATH_BYTES`].
    #[error("the path {0:?}… is too long (names have at most 255 bytes, paths 4096)")]
    TooLong(String),
}

/// One part of a path: 1 to 255 bytes of UTF-8 without slash or NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, InvalidPath> {
        check_name(text, text)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(name: &str, path: &str) -> Result<(), InvalidPath> {
    let shown = || path.chars().take(200).collect::<String>();
    match name {
        "" => Err(InvalidPath::EmptyPart(shown())),
        "." => Err(InvalidPath::Dots(shown(), ".")),
        ".." => Err(InvalidPath::Dots(shown(), "..")),
        _ if name.contains('/') => Err(InvalidPath::Slash(shown())),
        _ if name.contains('\0') => Err(InvalidPath::Nul(shown())),
        _ if name.len() > MAX_NAME_BYTES => Err(InvalidPath::TooLong(shown())),
        _ => Ok(()),
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, Self::new)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A path inside a Volume: names joined by `/`, relative, already clean. The
/// root is the empty path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// Checks `text` and makes it a path. The empty text is the root.
    ///
    /// # Errors
    /// Says which rule the text breaks. Nothing is cleaned or guessed: `a//b`,
    /// `./a` and `/a` are errors.
    pub fn new(text: &str) -> Result<Self, InvalidPath> {
        if text.len() > MAX_PATH_BYTES {
            return Err(InvalidPath::TooLong(text.chars().take(200).collect()));
        }
        Self::of_any_length(text)
    }

    /// The same for a path that a client of the documented API wrote, on a system
    /// that we do not know: what may name a drive there is an error. To a
    /// replica, which names what is on its disk, `C:a` is a file like any other.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn of_request(text: &str) -> Result<Self, InvalidPath> {
        if let [letter, b':', ..] = text.as_bytes()
            && letter.is_ascii_alphabetic()
        {
            return Err(InvalidPath::Drive(text.chars().take(200).collect()));
        }
        Self::new(text)
    }

    /// Reads a path that a record of the past has: its parts are names, and it may
    /// be of any length. A Volume can hold paths that are longer than what it
    /// accepts today, and what was written must stay readable.
    ///
    /// # Errors
    /// The text is no path.
    pub fn recorded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, Self::of_any_length)
    }

    fn of_any_length(text: &str) -> Result<Self, InvalidPath> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        for part in text.split('/') {
            check_name(part, text)?;
        }
        Ok(Self(text.into()))
    }

    /// The path of names, outermost first.
    pub(crate) fn of_names<'a>(names: impl Iterator<Item = &'a Name>) -> Self {
        let mut text = String::new();
        for name in names {
            if !text.is_empty() {
                text.push('/');
            }
            text.push_str(&name.0);
        }
        Self(text.into())
    }

    /// The root of every Volume.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as text, without a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the directory that holds this path; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(self.0.rfind('/').map_or_else(Self::root, |at| Self(self.0[..at].into())))
    }

    /// The last part; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        self.0.rsplit('/').next().filter(|last| !last.is_empty()).map(|last| Name(last.into()))
    }

    /// Directory and name at once; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, Name)> {
        Some((self.parent()?, self.name()?))
    }

    /// The parts, outermost first.
    pub fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split('/').filter(|part| !part.is_empty()).map(|part| Name(part.into()))
    }

    /// This path with one more part. The length of the whole is not checked
    /// here: trees are made of names, and admission looks at what they come to.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        if self.is_root() {
            return Self(name.0.clone());
        }
        let mut text = String::with_capacity(self.0.len() + 1 + name.0.len());
        text.push_str(&self.0);
        text.push('/');
        text.push_str(&name.0);
        Self(text.into())
    }

    /// Whether this path is `other` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(other.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// This path with its leading `from` replaced by `to`; `None` when it is not
    /// at or below `from`.
    #[must_use]
    pub fn rebase(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_at_or_below(from) {
            return None;
        }
        let rest = self.0[from.0.len()..].trim_start_matches('/');
        Some(match (to.is_root(), rest.is_empty()) {
            (_, true) => to.clone(),
            (true, false) => Self(rest.into()),
            (false, false) => Self(format!("{}/{rest}", to.0).into()),
        })
    }

    /// The ancestors from the root's child down to the parent, outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.0.match_indices('/').map(|(at, _)| Self(self.0[..at].into()))
    }

    /// How many parts the path has.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { 1 + self.0.matches('/').count() }
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, Self::new)
    }
}

impl TryFrom<String> for TreePath {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::new(&text)
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.0.as_ref().into()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_invalid() {
        for bad in ["/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "/"] {
            assert!(TreePath::new(bad).is_err(), "{bad:?} must be invalid");
            assert!(TreePath::of_request(bad).is_err(), "{bad:?} must be invalid");
        }
        for drive in ["C:", "c:/x", "C:x"] {
            assert!(TreePath::of_request(drive).is_err(), "{drive:?} must be invalid");
        }
        assert!(TreePath::new(&"x".repeat(256)).is_err());
        assert!(TreePath::new(&vec!["abc"; 2000].join("/")).is_err());
        assert!(serde_json::from_str::<TreePath>("\"../x\"").is_err());
        assert!(serde_json::from_str::<Name>("\"a/b\"").is_err());
    }

    #[test]
    fn unusual_but_legal_paths() {
        for good in ["", "a", "a b/c", "...", "ab:c", "a/b:c", "é", "a\\b", " ", "CON"] {
            assert_eq!(TreePath::new(good).unwrap().as_str(), good);
            assert_eq!(TreePath::of_request(good).unwrap().as_str(), good);
        }
        assert_eq!(TreePath::new("C:x").unwrap().as_str(), "C:x");
    }

    #[test]
    fn parts() {
        let path = TreePath::new("a/b/c").unwrap();
        assert_eq!(path.parent().unwrap().as_str(), "a/b");
        assert_eq!(path.name().unwrap().as_str(), "c");
        assert_eq!(path.depth(), 3);
        let ancestors: Vec<_> = path.ancestors().map(String::from).collect();
        assert_eq!(ancestors, ["a", "a/b"]);
        let (a, x) = (TreePath::new("a").unwrap(), TreePath::new("x/y").unwrap());
        assert_eq!(path.rebase(&a, &x).unwrap().as_str(), "x/y/b/c");
        assert_eq!(path.rebase(&a, &TreePath::root()).unwrap().as_str(), "b/c");
        assert!(path.is_at_or_below(&a) && !TreePath::new("ab").unwrap().is_at_or_below(&a));
        assert_eq!(TreePath::root().parent(), None);
    }
}
