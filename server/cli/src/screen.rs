//! The only place that prints.
//!
//! Names, and what others wrote, may hold what a terminal takes for commands, or
//! what makes a text look like another one. Here it becomes visible ([`plain`]).

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::failure::Failure;
use crate::platform;

mod text;

use text::painted;
pub(crate) use text::{Tint, columns, count, plain, quoted, shown, tinted, titled};
pub(crate) use text::{cut, plain_lines};

/// What the output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs, and for people who like it.
    Yaml,
}

/// Standard output and standard error. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Screen {
    format: Format,
    terminal: bool,
    /// Whether standard output shows colours, and standard error.
    colour: bool,
    colour_beside: bool,
    /// The line at the bottom that is written over, on a terminal.
    bottom: Arc<Mutex<String>>,
    /// The first failure to write what was asked for.
    failed: Arc<Mutex<Option<io::Error>>>,
}

/// Takes the line at the bottom away.
const CLEAR: &str = "\r\x1b[2K";

impl Screen {
    pub(crate) fn new(format: Format) -> Self {
        let for_people = format == Format::Table;
        let terminal = io::stdout().is_terminal() && for_people;
        let colours = for_people && platform::wants_colours();
        Self {
            format,
            terminal,
            colour: terminal && colours,
            colour_beside: io::stderr().is_terminal() && colours,
            bottom: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// Whether the output is read by a program.
    pub(crate) fn is_for_programs(&self) -> bool {
        self.format != Format::Table
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a line, for people.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.is_for_programs() {
            self.print(text.as_ref());
        }
    }

    /// Prints one document, for programs.
    pub(crate) fn document(&self, value: &impl Serialize) {
        match self.encoded(value) {
            Ok(text) => self.print(text.trim_end()),
            Err(error) => self.warn(format!("this cannot be shown in that format: {error}")),
        }
    }

    /// A document as programs read it: a line of JSON, or a YAML document that begins
    /// with its mark, since another one may follow.
    pub(crate) fn encoded(&self, value: &impl Serialize) -> Result<String, Failure> {
        if self.format != Format::Yaml {
            return Ok(serde_json::to_string(value)? + "\n");
        }
        // By way of JSON, so that both formats have the same shape.
        let value = serde_json::to_value(value)?;
        let text = serde_saphyr::to_string(&value)
            .map_err(|error| Failure::other(format!("no YAML can be made of this: {error}")))?;
        Ok(format!("---\n{}\n", text.trim_end()))
    }

    /// Prints the document for programs, or the text for people.
    pub(crate) fn show(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.is_for_programs() {
            self.document(value);
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
        self.say_beside(Tint::Warn, text.as_ref(), |text| serde_json::json!({ "warning": text }));
    }

    /// Says why the program fails.
    pub(crate) fn complain(&self, failure: &Failure) {
        self.bottom("");
        let code = failure.number();
        self.say_beside(
            Tint::Bad,
            &failure.to_string(),
            |text| serde_json::json!({ "error": text, "exit_code": code }),
        );
    }

    fn say_beside(&self, tint: Tint, text: &str, document: impl FnOnce(&str) -> serde_json::Value) {
        let line = if self.is_for_programs() {
            self.encoded(&document(text)).unwrap_or_default()
        } else {
            let line = format!("{} {text}", tinted(tint, "s0:"));
            painted(&plain_lines(&line), self.colour_beside)
        };
        self.above(|| {
            // There is nobody else to tell.
            let _ = writeln!(io::stderr().lock(), "{}", line.trim_end());
        });
    }

    fn print(&self, text: &str) {
        let text = if self.is_for_programs() {
            text.to_owned()
        } else {
            painted(&plain_lines(text), self.colour)
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_shape_in_both_formats() {
        let value = serde_json::json!({
            "path": "a: \u{1b}[2J\n- b", "no": "no", "number": "17", "size": 3, "none": null,
            "list": [], "map": {}, "deep": [{ "x": true }],
        });
        let yaml = Screen::new(Format::Yaml).encoded(&value).unwrap();
        assert!(yaml.starts_with("---\n") && yaml.ends_with('\n'), "{yaml}");
        assert!(!yaml.contains('\u{1b}'), "{yaml:?}");
        for line in ["number: \"17\"", "size: 3", "none: null", "list: []", "map: {}"] {
            assert!(yaml.lines().any(|it| it == line), "{line} is not in\n{yaml}");
        }
        assert!(yaml.contains("no: \"no\"") || yaml.contains("\"no\": \"no\""), "{yaml}");
        let json = Screen::new(Format::Json).encoded(&value).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}
