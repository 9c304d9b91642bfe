//! Texts for a terminal: harmless, lined up, and coloured where it shows colours.

use std::borrow::Cow;
use std::path::Path;

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// It failed.
    Bad,
    /// A heading.
    Strong,
}

/// Where a tint begins and ends in a text that is not printed yet. Unicode keeps these
/// for programs; what others wrote has none, since [`plain`] shows them as escapes.
const TINTS: [(char, Tint, &str); 4] = [
    ('\u{fdd0}', Tint::Good, "\x1b[32m"),
    ('\u{fdd1}', Tint::Warn, "\x1b[33m"),
    ('\u{fdd2}', Tint::Bad, "\x1b[31m"),
    ('\u{fdd3}', Tint::Strong, "\x1b[1m"),
];
const END: char = '\u{fddf}';

fn is_mark(c: char) -> bool {
    c == END || TINTS.iter().any(|(mark, ..)| *mark == c)
}

/// A text in a colour, where there are colours.
pub(crate) fn tinted(tint: Tint, text: &str) -> String {
    let mark = TINTS.iter().find(|(_, it, _)| *it == tint).map_or(END, |(mark, ..)| *mark);
    format!("{mark}{}{END}", plain(text))
}

/// The same text as it is printed.
pub(super) fn painted(text: &str, colour: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match TINTS.iter().find(|(mark, ..)| *mark == c) {
            _ if !is_mark(c) => shown.push(c),
            _ if !colour => {}
            Some((_, _, begin)) => shown.push_str(begin),
            None => shown.push_str("\x1b[0m"),
        }
    }
    shown
}

/// A text in one line in which nothing is a command to a terminal and nothing
/// changes the order of what is read: such characters are written as escapes.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || is_mark(c)
    };
    if !text.contains(is_odd) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_odd(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown.into()
}

/// The same for a text of several lines. Tints stay.
pub(crate) fn plain_lines(text: &str) -> String {
    let kept = |c: char| c == '\n' || is_mark(c);
    let pieces = text.split_inclusive(kept).map(|piece| match piece.chars().next_back() {
        Some(last) if kept(last) => {
            format!("{}{last}", plain(&piece[..piece.len() - last.len_utf8()]))
        }
        _ => plain(piece).into_owned(),
    });
    pieces.collect()
}

/// The beginning of a text that has room in so many columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    // What is not sure to be narrow counts as wide.
    let columns = |c: char| if c < '\u{1100}' { 1 } else { 2 };
    if text.chars().map(columns).sum::<usize>() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let room = left.checked_sub(columns(*c));
        left = room.unwrap_or(0);
        room.is_some()
    };
    let mut start: String = text.chars().take_while(fits).collect();
    start.push('…');
    start
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_safe = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A table with a head.
pub(crate) fn titled(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|name| tinted(Tint::Strong, name)).collect();
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Columns that line up.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|it| cell(it)).collect()).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |cell: &String| cell.chars().filter(|c| !is_mark(*c)).count();
    let widths: Vec<usize> = (0..width)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(length).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                let pad = widths[at].saturating_sub(length(cell)) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell in one line. A tint of the whole of it stays.
fn cell(text: &str) -> String {
    let begin = text.chars().next().filter(|c| is_mark(*c));
    let inner = begin.and_then(|mark| text.strip_prefix(mark)?.strip_suffix(END));
    match (begin, inner) {
        (Some(mark), Some(inner)) => format!("{mark}{}{END}", plain(inner)),
        _ => plain(text).into_owned(),
    }
}

/// A path for people. The workspace itself has no name of its own.
pub(crate) fn shown(path: &s0_tree::TreePath) -> &str {
    if path.is_root() { "." } else { path.as_str() }
}

/// `1 path`, `2 paths`; `1 entry`, `2 entries`.
pub(crate) fn count(number: usize, word: &str) -> String {
    match (number, word.strip_suffix('y')) {
        (1, _) => format!("{number} {word}"),
        (_, Some(word)) => format!("{number} {word}ies"),
        (_, None) => format!("{number} {word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_becomes_visible() {
        for (text, shown) in [
            ("plain, ümläut, 日本", "plain, ümläut, 日本"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("a\u{9b}2Jb\u{7f}", "a\\u{9b}2Jb\\u{7f}"),
            ("evil\u{202e}txt.exe\u{2069}", "evil\\u{202e}txt.exe\\u{2069}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("a\u{fdd0}b\u{fddf}", "a\\u{fdd0}b\\u{fddf}"),
        ] {
            assert_eq!(plain(text), shown);
        }
        assert_eq!(plain_lines("a\x07\nb"), "a\\u{7}\nb");
        assert_eq!(columns(&[vec!["a\nb".into(), "c".into()]]), "a\\nb  c\n");
    }

    #[test]
    fn colours_are_no_part_of_a_width_and_end_where_they_should() {
        let rows = titled(&["A", "B"], [vec![tinted(Tint::Bad, "no\x1b"), "x".into()]]);
        assert_eq!(painted(&rows, false), "A         B\nno\\u{1b}  x\n");
        let line = "\x1b[1mA\x1b[0m         \x1b[1mB\x1b[0m\n\x1b[31mno\\u{1b}\x1b[0m  x\n";
        assert_eq!(painted(&plain_lines(&rows), true), line);
        assert_eq!(plain_lines(&tinted(Tint::Good, "a\nb")), "\u{fdd0}a\\nb\u{fddf}");
    }

    #[test]
    fn the_line_at_the_bottom_has_room() {
        assert_eq!(cut("in sync", 7), "in sync");
        assert_eq!(cut("in sync", 6), "in sy…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("abc", 0), "…");
    }

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        for (path, shown) in [
            ("/home/me/my-work_1.2", "/home/me/my-work_1.2"),
            ("/home/me/my work", "'/home/me/my work'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), shown);
        }
    }
}
