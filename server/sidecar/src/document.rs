//! Open documents: their texts as the editor has them.

use std::hash::{DefaultHasher, Hash, Hasher};

use tower_lsp::ls_types::{Position, TextDocumentContentChangeEvent};

/// How a client counts in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16,
}

/// A document.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) version: i32,
    pub(crate) text: String,
    /// What the client says of unsaved text, if it does.
    pub(crate) told_dirty: Option<bool>,
    /// The file's text, as far as it is known.
    pub(crate) disk: Option<Fingerprint>,
}

/// A text apart from its line ends and byte order mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(usize, u64);

impl Fingerprint {
    pub(crate) fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut length = 0;
        for line in text.split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            length += line.len() + 1;
            line.hash(&mut hasher);
        }
        Self(length, hasher.finish())
    }
}

impl Document {
    pub(crate) fn new(version: i32, text: String) -> Self {
        Self { version, text, told_dirty: None, disk: None }
    }

    /// Whether the editor has text that the file has not.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.told_dirty
            .unwrap_or_else(|| self.disk.is_some_and(|disk| disk != Fingerprint::of(&self.text)))
    }

    pub(crate) fn change(
        &mut self,
        version: i32,
        changes: Vec<TextDocumentContentChangeEvent>,
        encoding: Encoding,
    ) {
        self.version = version;
        for change in changes {
            match change.range {
                None => self.text = change.text,
                Some(range) => {
                    let start = offset(&self.text, range.start, encoding);
                    let end = offset(&self.text, range.end, encoding).max(start);
                    self.text.replace_range(start..end, &change.text);
                }
            }
        }
    }
}

/// The byte at a position; one behind the end of its line is the end of the line.
pub(crate) fn offset(text: &str, position: Position, encoding: Encoding) -> usize {
    let mut start = 0;
    for _ in 0..position.line {
        match text[start..].find('\n') {
            Some(at) => start += at + 1,
            None => return text.len(),
        }
    }
    let line = &text[start..];
    let line = &line[..line.find('\n').unwrap_or(line.len())];
    let mut left = position.character as usize;
    for (at, character) in line.char_indices() {
        let width = match encoding {
            Encoding::Utf8 => character.len_utf8(),
            Encoding::Utf16 => character.len_utf16(),
        };
        if left < width {
            return start + at;
        }
        left -= width;
    }
    start + line.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower_lsp::ls_types::Range;

    fn edit(start: (u32, u32), end: (u32, u32), text: &str) -> TextDocumentContentChangeEvent {
        let at = |(line, character)| Position { line, character };
        let range = Some(Range { start: at(start), end: at(end) });
        TextDocumentContentChangeEvent { range, range_length: None, text: text.into() }
    }

    #[test]
    fn changes_are_applied_in_order_in_either_counting() {
        let mut document = Document::new(1, "aé𝄞b\nsecond\r\n".into());
        document.change(
            2,
            vec![edit((0, 4), (0, 5), "B"), edit((1, 0), (1, 6), "2")],
            Encoding::Utf16,
        );
        assert_eq!(document.text, "aé𝄞B\n2\r\n");
        document.change(3, vec![edit((0, 3), (0, 7), "x")], Encoding::Utf8);
        assert_eq!(document.text, "aéxB\n2\r\n");
        // Beyond the end of a line, or of the text.
        document.change(4, vec![edit((0, 99), (9, 9), "!")], Encoding::Utf16);
        assert_eq!(document.text, "aéxB!");
        document.change(
            5,
            vec![TextDocumentContentChangeEvent {
                range: None,
                range_length: None,
                text: "new".into(),
            }],
            Encoding::Utf16,
        );
        assert_eq!((document.text.as_str(), document.version), ("new", 5));
    }

    #[test]
    fn line_ends_and_marks_are_no_unsaved_text() {
        let mut document = Document::new(1, "a\nb\n".into());
        assert!(!document.is_unsaved(), "nothing is known of the file");
        document.disk = Some(Fingerprint::of("\u{feff}a\r\nb\r\n"));
        assert!(!document.is_unsaved());
        document.disk = Some(Fingerprint::of("a\nb"));
        assert!(document.is_unsaved());
        document.told_dirty = Some(false);
        assert!(!document.is_unsaved());
    }
}
