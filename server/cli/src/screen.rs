//! The only place that prints.
//!
//! Names, and what others wrote, may hold what a terminal takes for commands, or
//! what makes a text look like another one. Here it becomes visible ([`plain`]).

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::failure::Failure;
use crate::platform;

/// What the output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Standard output and standard error. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Screen {
    format: Format,
    terminal: bool,
    /// The line at the bottom that is written over, on a terminal.
    bottom: Arc<Mutex<String>>,
    /// The first failure to write what was asked for.
    failed: Arc<Mutex<Option<io::Error>>>,
}

/// Takes the line at the bottom away.
const CLEAR: &str = "\r\x1b[2K";

impl Screen {
    pub(crate) fn new(format: Format) -> Self {
        let terminal = std::io::stdout().is_terminal() && format == Format::Table;
        Self { format, terminal, bottom: Arc::default(), failed: Arc::default() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a line, for people.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.is_json() {
            self.print(text.as_ref());
        }
    }

    /// Prints one document, for programs.
    pub(crate) fn json(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.print(&text),
            Err(error) => self.warn(format!("this cannot be shown as JSON: {error}")),
        }
    }

    /// Prints the document for programs, or the text for people.
    pub(crate) fn show(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.is_json() {
            self.json(value);
        } else {
            let text = text();
            if !text.is_empty() {
                self.print(text.trim_end_matches('\n'));
            }
        }
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        io::stdout().lock().write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// Whether all that was printed has arrived.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let flushed = io::stdout().lock().flush();
        failed.map_or(flushed, Err).map_err(|error| Failure::output(&error))
    }

    /// Sets the line at the bottom. Without a terminal, nothing.
    pub(crate) fn bottom(&self, text: impl Into<String>) {
        if !self.terminal {
            return;
        }
        let mut bottom = self.bottom.lock().unwrap_or_else(PoisonError::into_inner);
        // One that wraps could not be taken away again.
        let width = platform::terminal_width().unwrap_or(80);
        *bottom = cut(&plain(&text.into()), width.saturating_sub(1));
        let mut out = io::stdout().lock();
        // Whoever read it has gone, which is no reason to fail.
        let _ = write!(out, "{CLEAR}{bottom}").and_then(|()| out.flush());
    }

    /// A word for people beside the output.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if self.is_json() {
            self.beside(&serde_json::json!({ "warning": text }).to_string());
        } else {
            self.beside(&format!("s0: {}", plain_lines(text)));
        }
    }

    /// Says why the program fails.
    pub(crate) fn complain(&self, failure: &Failure) {
        self.bottom("");
        let text = failure.to_string();
        if self.is_json() {
            let document = serde_json::json!({ "error": text, "exit_code": failure.number() });
            self.beside(&document.to_string());
        } else {
            self.warn(text);
        }
    }

    fn beside(&self, text: &str) {
        self.above(|| {
            // There is nobody else to tell.
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }

    fn print(&self, text: &str) {
        let text = if self.is_json() { Cow::from(text) } else { plain_lines(text).into() };
        self.above(|| {
            let mut out = io::stdout().lock();
            if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        });
    }

    fn above(&self, print: impl FnOnce()) {
        let bottom = self.bottom.lock().unwrap_or_else(PoisonError::into_inner);
        if bottom.is_empty() {
            return print();
        }
        let clear = |text: &str| {
            let mut out = io::stdout().lock();
            let _ = write!(out, "{CLEAR}{text}").and_then(|()| out.flush());
        };
        clear("");
        print();
        clear(&bottom);
    }
}

/// A text in one line in which nothing is a command to a terminal and nothing
/// changes the order of what is read: such characters are written as escapes.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

/// The same for a text of several lines.
fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// The beginning of a text that has room in so many columns.
fn cut(text: &str, width: usize) -> String {
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

/// Columns that line up.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let plain = |cell: &String| plain(cell).into_owned();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(plain).collect()).collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..width)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                let pad = widths[at].saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A path for people. The workspace itself has no name of its own.
pub(crate) fn shown(path: &s0_tree::TreePath) -> &str {
    if path.is_root() { "." } else { path.as_str() }
}

/// `1 path`, `2 paths`.
pub(crate) fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
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
        ] {
            assert_eq!(plain(text), shown);
        }
        assert_eq!(plain_lines("a\x07\nb"), "a\\u{7}\nb");
        assert_eq!(columns(&[vec!["a\nb".into(), "c".into()]]), "a\\nb  c\n");
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
