//! What `tests/fuzz` reaches of the sidecar, and nobody else.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_lsp::ls_types::TextDocumentContentChangeEvent;

use crate::document::{Document, Encoding};
use crate::messages::Ask;
use crate::program::Program;
use crate::settings::Settings;
use crate::uri;

/// Speaks LSP on these streams, as [`crate::serve`] does on its own.
pub async fn serve(
    program: Program,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> bool {
    crate::serve_on(program, input, output).await
}

/// A document's text after changes; `None` when they are no changes.
#[must_use]
pub fn changed(text: &str, changes: Value, utf16: bool) -> Option<String> {
    let changes: Vec<TextDocumentContentChangeEvent> = serde_json::from_value(changes).ok()?;
    let encoding = if utf16 { Encoding::Utf16 } else { Encoding::Utf8 };
    let mut document = Document::new(1, text.to_owned());
    document.change(2, changes, encoding);
    Some(document.text)
}

/// A URI as it is understood, written again.
#[must_use]
pub fn text_uri(uri: &str) -> Option<String> {
    uri::Text::parse(uri).map(|text| text.uri())
}

/// The file that a URI names, and its URI.
#[must_use]
pub fn file_uri(uri: &str) -> Option<(std::path::PathBuf, String)> {
    let file = uri::file_of(uri)?;
    let again = uri::uri_of(&file);
    Some((file, again))
}

/// Reads settings, and a request of ours.
#[must_use]
pub fn understands(name: &str, value: Value) -> (bool, bool) {
    (Settings::parse(Some(value.clone())).is_ok(), Ask::parse(name, value).is_ok())
}
