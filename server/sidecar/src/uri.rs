//! URIs of files, and of texts that are not on the disk.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use s0_tree::TreePath;
use tower_lsp::ls_types::Uri;

/// The scheme of texts that are not on the disk.
pub(crate) const SCHEME: &str = "s0-sync";

/// The file that a URI names.
pub(crate) fn file_of(uri: &str) -> Option<PathBuf> {
    let parsed = Uri::from_str(uri).ok()?;
    if parsed.scheme().as_str() != "file" {
        return None;
    }
    let file = parsed.to_file_path()?.into_owned();
    // A path that is not absolute is one in the directory where this program runs.
    file.is_absolute().then_some(file)
}

/// The URI of a file.
pub(crate) fn uri_of(file: &Path) -> String {
    Uri::from_file_path(file).map(|uri| uri.as_str().to_owned()).unwrap_or_default()
}

/// A path below a root; the root itself is the empty one.
pub(crate) fn below(root: &Path, file: &Path) -> Option<TreePath> {
    let inner = file.strip_prefix(root).ok()?.to_str()?;
    if inner.is_empty() { Some(TreePath::root()) } else { TreePath::new(inner).ok() }
}

/// Which text of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    Base,
    Mine,
    Theirs,
    Reviewed,
    Current,
    Incoming,
    At(u64),
}

/// A text that is not on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) folder: String,
    pub(crate) path: TreePath,
    pub(crate) version: Version,
}

impl Text {
    pub(crate) fn uri(&self) -> String {
        let version = match &self.version {
            Version::Base => "base".into(),
            Version::Mine => "mine".into(),
            Version::Theirs => "theirs".into(),
            Version::Reviewed => "reviewed".into(),
            Version::Current => "current".into(),
            Version::Incoming => "incoming".into(),
            Version::At(seq) => format!("at:{seq}"),
        };
        let path = escape(self.path.as_str(), true);
        format!("{SCHEME}:/{path}?folder={}&version={version}", escape(&self.folder, false))
    }

    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(SCHEME)?.strip_prefix(':')?;
        // Clients write an empty authority or none.
        let rest = rest.strip_prefix("//").filter(|it| it.starts_with('/')).unwrap_or(rest);
        let (path, query) = rest.split_once('?')?;
        let path = TreePath::new(unescape(path)?.trim_start_matches('/')).ok()?;
        let (mut folder, mut version) = (None, None);
        // Some editors escape a query as a whole.
        let query = if query.contains('=') { query.to_owned() } else { unescape(query)? };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            let value = unescape(value)?;
            match name {
                "folder" => folder = Some(value),
                "version" => version = Some(value),
                _ => {}
            }
        }
        let version = match version?.as_str() {
            "base" => Version::Base,
            "mine" => Version::Mine,
            "theirs" => Version::Theirs,
            "reviewed" => Version::Reviewed,
            "current" => Version::Current,
            "incoming" => Version::Incoming,
            other => Version::At(other.strip_prefix("at:")?.parse().ok()?),
        };
        Some(Self { folder: folder?, path, version })
    }
}

fn escape(text: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_uris_that_lead_back() {
        for (path, version) in [
            ("src/a b.rs", Version::Theirs),
            ("é/100%?#.md", Version::At(17)),
            ("x", Version::Reviewed),
        ] {
            let path = TreePath::new(path).unwrap();
            let text = Text { folder: "file:///w/my%20dir".into(), path, version };
            let uri = text.uri();
            assert!(Uri::from_str(&uri).is_ok(), "{uri}");
            assert_eq!(Text::parse(&uri).as_ref(), Some(&text));
            // As an editor may write it again.
            let other = uri.replace("s0-sync:/", "s0-sync:///");
            assert_eq!(Text::parse(&other).as_ref(), Some(&text));
        }
        for wrong in [
            "file:///x",
            "s0-sync:/x",
            "s0-sync:/../x?folder=f&version=mine",
            "s0-sync:/x?folder=f&version=at:y",
        ] {
            assert_eq!(Text::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_files_below_a_root_have_a_path() {
        let file = file_of("file:///w/a%20b/c").unwrap();
        assert_eq!(file, Path::new("/w/a b/c"));
        assert_eq!(uri_of(&file), "file:///w/a%20b/c");
        assert_eq!(below(Path::new("/w/a b"), &file), TreePath::new("c").ok());
        assert_eq!(below(Path::new("/other"), &file), None);
        // What is relative would be looked for wherever this program runs.
        for none in ["untitled:Untitled-1", "file:.", "file:a/b", "file:"] {
            assert_eq!(file_of(none), None, "{none}");
        }
    }
}
