//! The user's file of profiles: services by name.
//!
//! ```toml
//! profile = "work"                  # the one that is used when none is named
//!
//! [profiles.work]
//! base_url = "https://s0.example.com"
//! token = "s0_…"                    # or token_file = "/path/to/it"
//! ```

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use s0_host::{Secret, Token};
use serde::Deserialize;

use crate::failure::Failure;
use crate::platform;
use crate::screen::{plain, quoted};

/// The profile that is taken when the file names none.
const USUAL: &str = "default";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    base_url: Option<String>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
}

/// Where profiles are looked for, and which one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The file, if there is a place for one.
    pub(crate) file: Option<PathBuf>,
    /// The file was named, and so must be there.
    pub(crate) file_is_named: bool,
    /// The profile, if one was named.
    pub(crate) profile: Option<String>,
}

/// A service, as the file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) name: String,
    /// The file that it is in.
    pub(crate) file: PathBuf,
    pub(crate) base_url: Option<String>,
    pub(crate) token: Option<Token>,
}

impl Wanted {
    /// The profile that is meant; `None` when no profiles are used.
    pub(crate) fn find(&self) -> Result<Option<Profile>, Failure> {
        let Some(path) = &self.file else { return Ok(None) };
        let failed = |error: &std::io::Error| Failure::file(path, error);
        let mut file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return if self.file_is_named || self.profile.is_some() {
                    Err(self.missing(path))
                } else {
                    Ok(None)
                };
            }
            Err(error) => return Err(failed(&error)),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| failed(&error))?;
        let mode = platform::mode(&file.metadata().map_err(|error| failed(&error))?);
        parse(&text, path, mode, self.profile.as_deref())
    }

    fn missing(&self, path: &Path) -> Failure {
        let name = self.profile.as_deref().unwrap_or(USUAL);
        Failure::other(format!(
            "there is no file of profiles at {}; make one, for yourself alone (`chmod 600`), such \
             as\n\n[profiles.{}]\nbase_url = \"http://127.0.0.1:7070\"\ntoken_file = \
             \"/path/to/a/token\"",
            path.display(),
            plain(name)
        ))
    }
}

pub(crate) fn parse(
    text: &str,
    path: &Path,
    mode: u32,
    wanted: Option<&str>,
) -> Result<Option<Profile>, Failure> {
    let place = path.display();
    let File { profile, mut profiles } = toml::from_str(text).map_err(|error| {
        // What the error shows of the file may be a token.
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::other(format!(
            "{place}, line {line}: {}; repair it, or name another file with --config",
            plain(error.message())
        ))
    })?;
    if mode & 0o077 != 0 && profiles.values().any(|entry| entry.token.is_some()) {
        return Err(Failure::other(format!(
            "{place} holds a token and others may read it; `chmod 600 {}` closes it",
            quoted(path)
        )));
    }
    let name = match (wanted, profile) {
        (Some(wanted), _) => wanted.to_owned(),
        (None, Some(name)) => name,
        (None, None) if profiles.contains_key(USUAL) => USUAL.into(),
        (None, None) => return Ok(None),
    };
    let Some(Entry { base_url, token, token_file }) = profiles.remove(&name) else {
        let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(Failure::other(format!(
            "{place} has no profile {}; it has: {}. Name one of these with --profile, or add it",
            plain(&name),
            plain(&known)
        )));
    };
    let token = match (token, token_file) {
        (Some(_), Some(_)) => {
            return Err(Failure::other(format!(
                "the profile {} in {place} has both `token` and `token_file`; leave one of them",
                plain(&name)
            )));
        }
        (Some(text), None) => Some(Token::Text(text)),
        // What is not absolute is beside the file that names it.
        (None, Some(file)) => Some(Token::File(path.parent().unwrap_or(Path::new("/")).join(file))),
        (None, None) => None,
    };
    if base_url.is_some() && token.is_none() {
        return Err(Failure::other(format!(
            "the profile {} in {place} has a service and no token; add `token` or `token_file`",
            plain(&name)
        )));
    }
    Ok(Some(Profile { name, file: path.into(), base_url, token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        profile = "work"
        [profiles.work]
        base_url = "https://work.example"
        token = "secret"
        [profiles.home]
        base_url = "http://home.example"
        token_file = "home-token"
    "#;

    fn said(text: &str, mode: u32, wanted: Option<&str>) -> String {
        parse(text, Path::new("/c/config.toml"), mode, wanted).unwrap_err().to_string()
    }

    fn found(text: &str, wanted: Option<&str>) -> Option<Profile> {
        parse(text, Path::new("/c/config.toml"), 0o600, wanted).unwrap()
    }

    #[test]
    fn the_named_profile_is_taken_or_the_usual_one() {
        let work = found(TEXT, None).unwrap();
        assert_eq!(work.base_url.as_deref(), Some("https://work.example"));
        assert_eq!(work.token, Some(Token::Text(Secret("secret".into()))));
        let home = found(TEXT, Some("home")).unwrap();
        assert_eq!(home.token, Some(Token::File("/c/home-token".into())));
        assert_eq!(found("", None), None);
        assert_eq!(found("[profiles.x]\ntoken = \"t\"", None), None);
        let usual = found("[profiles.default]\ntoken = \"t\"", None).unwrap();
        assert_eq!((&usual.name[..], usual.base_url), ("default", None));
    }

    #[test]
    fn a_token_is_used_only_from_a_file_that_nobody_else_reads() {
        for mode in [0o644, 0o640, 0o602, 0o601] {
            let said = said(TEXT, mode, Some("home"));
            assert!(said.contains("chmod 600 /c/config.toml"), "{said}");
        }
        // Without a token there is nothing to hide.
        let open = "[profiles.a]\nbase_url = \"http://a\"\ntoken_file = \"t\"";
        assert!(parse(open, Path::new("/c"), 0o644, Some("a")).is_ok());
    }

    #[test]
    fn mistakes_say_where_they_are_and_never_a_token() {
        for (text, wanted, says) in [
            (TEXT, Some("wrok"), "no profile wrok; it has: home, work"),
            ("[profiles.a]\nbase_ulr = \"x\"", None, "line 2: unknown field `base_ulr`"),
            ("[profiles.a]\ntoken = \"hush", None, "line 2"),
            ("[profiles.a]\ntoken = [\"hush\"]", None, "line 2"),
            ("[profiles.a]\ntoken = \"hush\"\ntoken_file = \"f\"", Some("a"), "leave one"),
            ("[profiles.a]\nbase_url = \"http://a\"", Some("a"), "no token"),
        ] {
            let said = said(text, 0o600, wanted);
            assert!(said.contains(says) && said.contains("/c/config.toml"), "{text}: {said}");
            assert!(!said.contains("hush") && !said.contains("secret"), "{said}");
        }
    }
}
