//! Makes patterns for the crate `ignore` of the lines of a `.gitignore`.
//!
//! The crate writes its globs a little differently from Git's: braces are
//! alternatives there, classes such as `[[:digit:]]` are not known, a backslash
//! in brackets is itself, and an open bracket that is never closed is itself,
//! where Git says that such a pattern matches nothing.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The patterns of a rule file, relative to the directory of the paths that
/// they are asked about.
pub(super) fn compile(text: &str, fold_case: bool) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    if let Err(error) = builder.case_insensitive(fold_case) {
        tracing::warn!(%error, "patterns are matched by case");
    }
    for line in text.trim_start_matches('\u{feff}').lines() {
        let Some(line) = translate(line) else { continue };
        // As for Git, a line that is no pattern matches nothing.
        if let Err(error) = builder.add_line(None, &line) {
            tracing::debug!(%error, line, "not a pattern");
        }
    }
    builder.build().unwrap_or_else(|error| {
        tracing::warn!(%error, "the patterns of a file of ignore rules cannot be used");
        Gitignore::empty()
    })
}

/// A line in the crate's words; `None` when it matches nothing.
fn translate(line: &str) -> Option<String> {
    let line = trim_end(line);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (not, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", line),
    };
    // A slash in brackets counts here, though no bracket matches one.
    let is_tied = pattern.trim_end_matches('/').contains('/');
    let tie = if is_tied { "/" } else { "**/" };
    let mut out = format!("{not}{tie}");
    let mut rest = pattern.strip_prefix('/').unwrap_or(pattern);
    let mut after_slash = true;
    while let Some(character) = rest.chars().next() {
        let whole = rest;
        rest = &rest[character.len_utf8()..];
        match character {
            '{' | '}' => out.extend(['\\', character]),
            '[' => rest = bracket(rest, &mut out)?,
            '\\' => {
                // The slash at the end is taken away before, and leaves a
                // backslash that escapes nothing.
                let escaped = rest.chars().next().filter(|_| rest != "/")?;
                rest = &rest[escaped.len_utf8()..];
                out.extend(['\\', escaped]);
            }
            '*' => {
                rest = whole.trim_start_matches('*');
                let is_part = after_slash && (rest.is_empty() || rest.starts_with('/'));
                let is_double = whole.len() - rest.len() > 1;
                // Within a part, many stars are as good as one.
                out.push_str(if is_part && is_double { "**" } else { "*" });
            }
            _ => out.push(character),
        }
        after_slash = character == '/';
    }
    // The crate takes away all white space at the end, Git only spaces.
    if let Some(last) = out.chars().next_back()
        && last.is_whitespace()
        && !out.ends_with("\\ ")
    {
        out.pop();
        out.extend(['[', last, ']']);
    }
    Some(out)
}

/// Git drops spaces at the end of a line, but none that follows a backslash.
fn trim_end(line: &str) -> &str {
    let trimmed = line.trim_end_matches(' ');
    let backslashes = trimmed.len() - trimmed.trim_end_matches('\\').len();
    if trimmed.len() < line.len() && backslashes % 2 == 1 {
        return &line[..=trimmed.len()];
    }
    trimmed
}

/// Translates what stands between brackets, after the first one, and returns
/// what follows. `None` when they are never closed, or hold a class that Git
/// does not know.
fn bracket<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut rest = text.strip_prefix(['!', '^']).unwrap_or(text);
    let negated = rest.len() < text.len();
    let mut members = Vec::new();
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !first) {
            write_bracket(negated, &members, out);
            return Some(after);
        }
        first = false;
        if let Some((name, after)) = rest.strip_prefix("[:").and_then(|rest| rest.split_once(']'))
            && let Some(name) = name.strip_suffix(':')
        {
            members.extend_from_slice(named_class(name)?);
            rest = after;
            continue;
        }
        let (from, after) = member(rest)?;
        // A hyphen at the end is itself.
        let range = after.strip_prefix('-').filter(|after| !after.starts_with(']'));
        let (to, after) = match range {
            Some(after) => member(after)?,
            None => (from, after),
        };
        members.push((from, to));
        rest = after;
    }
}

fn member(text: &str) -> Option<(char, &str)> {
    let text = text.strip_prefix('\\').unwrap_or(text);
    let character = text.chars().next()?;
    Some((character, &text[character.len_utf8()..]))
}

/// What has a meaning of its own somewhere in the crate's brackets.
const SPECIAL: [u8; 5] = *b"!-/]^";

/// In the crate's brackets `]` must come first and `-` last, `^` and `!` must
/// not come first, and nothing is escaped. In Git no bracket matches a slash.
fn write_bracket(negated: bool, members: &[(char, char)], out: &mut String) {
    let mut plain = members.to_vec();
    let mut special = String::new();
    for byte in SPECIAL {
        let (before, this, after) = (char::from(byte - 1), char::from(byte), char::from(byte + 1));
        if plain.iter().any(|(from, to)| (*from..=*to).contains(&this)) {
            special.push(this);
        }
        plain = plain
            .into_iter()
            .flat_map(|(from, to)| match (from..=to).contains(&this) {
                true => [(from, before), (after, to)],
                // The second one is empty.
                false => [(from, to), ('1', '0')],
            })
            .filter(|(from, to)| from <= to)
            .collect();
    }
    out.push('[');
    if negated {
        out.push('!');
    }
    if special.contains(']') {
        out.push(']');
    }
    // No name has a NUL, so that it can stand where others cannot.
    out.push('\0');
    for (from, to) in plain {
        out.push(from);
        if from != to {
            out.extend(['-', to]);
        }
    }
    out.extend(special.chars().filter(|special| matches!(special, '!' | '^')));
    if negated {
        out.push('/');
    }
    if special.contains('-') {
        out.push('-');
    }
    out.push(']');
}

/// The classes of POSIX, for ASCII, as Git has them.
fn named_class(name: &str) -> Option<&'static [(char, char)]> {
    Some(match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "blank" => &[(' ', ' '), ('\t', '\t')],
        "cntrl" => &[('\u{1}', '\u{1f}'), ('\u{7f}', '\u{7f}')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[(' ', ' '), ('\t', '\r')],
        "upper" => &[('A', 'Z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_translated() {
        for (line, expected) in [
            ("a", Some("**/a")),
            ("/a", Some("/a")),
            ("!a/b", Some("!/a/b")),
            ("a**b/", Some("**/a*b/")),
            ("a/***/b", Some("/a/**/b")),
            ("{a}", Some("**/\\{a\\}")),
            ("a\\ ", Some("**/a\\ ")),
            ("a  ", Some("**/a")),
            ("[!a]", Some("**/[!\0a/]")),
            ("[]a-]", Some("**/[]\0a-]")),
            ("[--0]", Some("**/[\0.0-]")),
            ("# a", None),
            ("", None),
            ("[a", None),
            ("a\\", None),
            ("a\\/", None),
            ("[[:nope:]]", None),
        ] {
            assert_eq!(translate(line).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn no_line_breaks_the_others() {
        let patterns = compile("[\n\\\n[z-a]\n!\n/\n//\n**\\\nlast\n", false);
        assert!(patterns.matched("last", false).is_ignore());
        assert!(patterns.matched("other", false).is_none());
    }
}
