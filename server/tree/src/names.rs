//! Portable names: what macOS and Windows cannot hold, and which names are one
//! name there.
//!
//! Sources: Microsoft, "Naming Files, Paths, and Namespaces"; Unicode Standard
//! 3.13 (default caseless matching) for the comparison key.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// What the strictest of a Volume's registered replicas can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// `Foo` and `foo` are one name for some replica.
    pub case_insensitive: bool,
    /// Two spellings of `é` are one name for some replica.
    pub unicode_insensitive: bool,
    /// Some replica refuses the names that Windows refuses.
    pub windows_names: bool,
}

impl Policy {
    /// The policy that satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            case_insensitive: self.case_insensitive || other.case_insensitive,
            unicode_insensitive: self.unicode_insensitive || other.unicode_insensitive,
            windows_names: self.windows_names || other.windows_names,
        }
    }

    /// Whether `a` and `b` are one name under this policy.
    #[must_use]
    pub fn same_name(self, a: &str, b: &str) -> bool {
        a == b || (self.is_folding() && self.key(a) == self.key(b))
    }

    /// Whether different spellings can be one name.
    #[must_use]
    pub fn is_folding(self) -> bool {
        self.case_insensitive || self.unicode_insensitive
    }

    fn key(self, name: &str) -> String {
        match (self.case_insensitive, self.unicode_insensitive) {
            (true, _) => comparison_key(name),
            (false, true) => name.nfd().collect(),
            (false, false) => name.into(),
        }
    }
}

/// The strongest comparison key: full case folding over canonical decomposition.
/// Names with different keys are different names on every file system.
#[must_use]
pub fn comparison_key(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return name.into();
    }
    // Folding can undo normal form and normalising can undo folding, so the
    // standard's definition D145 applies both twice.
    let folded: String = caseless::default_case_fold_str(&name.nfd().collect::<String>());
    caseless::default_case_fold_str(&folded.nfd().collect::<String>()).nfd().collect()
}

/// What is wrong with a name on some platform. The wire names are the
/// documented ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueCode {
    /// Another live name is the same under case or Unicode folding.
    CasefoldCollision,
    /// `CON`, `PRN`, `AUX`, `NUL`, `COM1`–`COM9`, `LPT1`–`LPT9`, with any extension.
    WindowsReservedName,
    /// The name ends in a dot or a space.
    WindowsTrailingDotSpace,
    /// The name has one of `< > : " | ? * \`.
    WindowsForbiddenCharacter,
    /// The name has a character below U+0020.
    WindowsControlCharacter,
}

/// One reason why a name cannot be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The kind of trouble.
    pub code: IssueCode,
    /// The part of the path that is the trouble.
    pub segment: String,
}

/// What keeps `name` from existing under `policy`, by itself: collisions with
/// other names are the tree's to find.
#[must_use]
pub fn portable_issues(name: &str, policy: Policy) -> Vec<Issue> {
    if !policy.windows_names {
        return Vec::new();
    }
    let issue = |code| Issue { code, segment: name.into() };
    let mut issues = Vec::new();
    if is_reserved(name) {
        issues.push(issue(IssueCode::WindowsReservedName));
    }
    if name.ends_with(['.', ' ']) {
        issues.push(issue(IssueCode::WindowsTrailingDotSpace));
    }
    if name.contains(['<', '>', ':', '"', '|', '?', '*', '\\']) {
        issues.push(issue(IssueCode::WindowsForbiddenCharacter));
    }
    if name.chars().any(|c| c < '\u{20}') {
        issues.push(issue(IssueCode::WindowsControlCharacter));
    }
    issues
}

fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let stem = stem.to_ascii_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" => true,
        _ => ["COM", "LPT"].iter().any(|device| {
            stem.strip_prefix(device).is_some_and(|digit| {
                // Windows takes the superscript digits for digits here.
                matches!(
                    digit,
                    "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"
                )
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Policy =
        Policy { case_insensitive: true, unicode_insensitive: true, windows_names: true };

    #[test]
    fn windows_names() {
        use IssueCode::*;
        let table: &[(&str, &[IssueCode])] = &[
            ("CON", &[WindowsReservedName]),
            ("con.txt", &[WindowsReservedName]),
            ("Lpt9.tar.gz", &[WindowsReservedName]),
            ("com¹", &[WindowsReservedName]),
            ("nul ", &[WindowsReservedName, WindowsTrailingDotSpace]),
            ("COM0", &[]),
            ("CONSOLE", &[]),
            ("a.", &[WindowsTrailingDotSpace]),
            ("a ", &[WindowsTrailingDotSpace]),
            ("a:b", &[WindowsForbiddenCharacter]),
            ("a\\b", &[WindowsForbiddenCharacter]),
            ("a\tb", &[WindowsControlCharacter]),
            ("ok.txt", &[]),
        ];
        for (name, expected) in table {
            let found: Vec<_> = portable_issues(name, WINDOWS).iter().map(|i| i.code).collect();
            assert_eq!(&found, expected, "{name:?}");
            assert_eq!(portable_issues(name, Policy::default()), []);
        }
    }

    #[test]
    fn one_name_or_two() {
        let case =
            Policy { case_insensitive: true, unicode_insensitive: true, ..Policy::default() };
        let unicode = Policy { unicode_insensitive: true, ..Policy::default() };
        for (a, b, under_case, under_unicode) in [
            ("Foo", "foo", true, false),
            ("straße", "STRASSE", true, false),
            ("e\u{301}", "\u{e9}", true, true),
            ("E\u{301}", "\u{e9}", true, false),
            ("ΣΑΣ", "σας", true, false),
            ("\u{1f88}", "\u{1f00}\u{3b9}", true, false),
            ("a", "b", false, false),
        ] {
            assert_eq!(case.same_name(a, b), under_case, "{a} {b}");
            assert_eq!(unicode.same_name(a, b), under_unicode, "{a} {b}");
            assert!(!Policy::default().same_name(a, b));
        }
    }
}
