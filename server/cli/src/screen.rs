//! The only place that prints.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::failure::Failure;

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
}

/// Takes the line at the bottom away.
const CLEAR: &str = "\r\x1b[2K";

impl Screen {
    pub(crate) fn new(format: Format) -> Self {
        let terminal = std::io::stdout().is_terminal() && format == Format::Table;
        Self { format, terminal, bottom: Arc::default() }
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
    pub(crate) fn bytes(&self, bytes: &[u8]) -> std::io::Result<()> {
        std::io::stdout().lock().write_all(bytes)
    }

    /// Sets the line at the bottom. Without a terminal, nothing.
    pub(crate) fn bottom(&self, text: impl Into<String>) {
        if !self.terminal {
            return;
        }
        let mut bottom = self.bottom.lock().unwrap_or_else(PoisonError::into_inner);
        *bottom = text.into();
        let mut out = std::io::stdout().lock();
        // Whoever read it has gone, which is no reason to fail.
        let _ = write!(out, "{CLEAR}{bottom}").and_then(|()| out.flush());
    }

    /// A word for people beside the output.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        self.above(|| {
            let _ = writeln!(std::io::stderr().lock(), "s0: {}", text.as_ref());
        });
    }

    /// Says why the program fails.
    pub(crate) fn complain(&self, failure: &Failure) {
        self.bottom("");
        self.warn(failure.to_string());
    }

    fn print(&self, text: &str) {
        self.above(|| {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        });
    }

    fn above(&self, print: impl FnOnce()) {
        let bottom = self.bottom.lock().unwrap_or_else(PoisonError::into_inner);
        if bottom.is_empty() {
            return print();
        }
        let clear = |text: &str| {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "{CLEAR}{text}").and_then(|()| out.flush());
        };
        clear("");
        print();
        clear(&bottom);
    }
}

/// Columns that line up.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
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
