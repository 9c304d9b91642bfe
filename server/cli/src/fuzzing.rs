//! What `tests/fuzz` reaches of the command line, and nobody else.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser as _;

use crate::args::{self, Args};
use crate::{config, screen};

/// The profile that a file of profiles names: its name and address, or what is said.
///
/// # Errors
/// It names none, or cannot be read.
pub fn profile(
    text: &str,
    wanted: Option<&str>,
) -> Result<Option<(String, Option<String>)>, String> {
    config::parse(text, Path::new("/c/config.toml"), 0o600, wanted)
        .map(|found| found.map(|profile| (profile.name, profile.base_url)))
        .map_err(|failure| failure.to_string())
}

/// Reads a command line; what it is taken for, or what is said.
///
/// # Errors
/// It is none.
pub fn arguments(all: Vec<OsString>) -> Result<String, String> {
    Args::try_parse_from(args::of_editors(all.into_iter()))
        .map(|args| format!("{:?}", args.command))
        .map_err(|error| error.to_string())
}

/// A text as it is shown, in one line and in several.
#[must_use]
pub fn shown(text: &str) -> (String, String) {
    (screen::plain(text).into_owned(), screen::plain_lines(text))
}

/// A table of cells.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    screen::columns(rows)
}

/// The beginning of a text.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    screen::cut(text, width)
}
