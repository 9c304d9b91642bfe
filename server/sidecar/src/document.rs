//! Open documents: their texts as the editor has them.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use tower_lsp::ls_types::{Position, TextDocumentContentChangeEvent};

/// How a client counts in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16,
}

/// How many texts are remembered of a document, and of its file.
const REMEMBERED: usize = 8;

/// A document.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) version: i32,
    pub(crate) text: String,
    /// What the client says of unsaved text, if it does.
    told_dirty: Option<bool>,
    /// The file's texts, newest first, as far as they are known.
    disk: VecDeque<Fingerprint>,
    /// The document's, newest first; not those that the client called unsaved.
    texts: VecDeque<Fingerprint>,
    /// Who else wrote the file as it is to be read next.
    coming: Option<String>,
    /// Who else wrote the file's newest text.
    author: Option<String>,
    /// The document had the file's newest text.
    has_seen: bool,
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
        let texts = VecDeque::from([Fingerprint::of(&text)]);
        Self {
            version,
            text,
            told_dirty: None,
            disk: VecDeque::new(),
            texts,
            coming: None,
            author: None,
            has_seen: false,
        }
    }

    /// Whether the editor has text that the file has not, and had not a moment ago: a
    /// document that only was not read again holds nobody's work.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.told_dirty.unwrap_or_else(|| {
            let text = self.texts.front();
            !self.disk.is_empty() && text.is_some_and(|text| !self.disk.contains(text))
        })
    }

    /// Who wrote the file under unsaved text that never was that text: saving would
    /// write over what nobody here has seen.
    pub(crate) fn slipped(&self) -> Option<&str> {
        self.author.as_deref().filter(|_| !self.has_seen && self.is_unsaved())
    }

    /// The user has decided about that.
    pub(crate) fn settle(&mut self) {
        self.author = None;
    }

    /// The client says whether there is unsaved text.
    pub(crate) fn tell(&mut self, dirty: bool) {
        self.told_dirty = Some(dirty);
        if !dirty {
            self.remember_text();
        }
    }

    /// Somebody else's write to the file was applied.
    pub(crate) fn written_by(&mut self, actor: String) {
        self.coming = Some(actor);
    }

    /// The file was read.
    pub(crate) fn saw_disk(&mut self, disk: Option<Fingerprint>) {
        let coming = self.coming.take();
        if coming.is_some() || disk.as_ref() != self.disk.front() {
            self.author = coming;
        }
        match disk {
            Some(disk) => remember(&mut self.disk, disk),
            None => self.disk.clear(),
        }
        self.has_seen = disk.is_some_and(|disk| self.texts.contains(&disk));
    }

    fn remember_text(&mut self) {
        let print = Fingerprint::of(&self.text);
        remember(&mut self.texts, print);
        self.has_seen |= self.disk.front() == Some(&print);
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
        if self.told_dirty != Some(true) {
            self.remember_text();
        }
    }
}

fn remember(prints: &mut VecDeque<Fingerprint>, print: Fingerprint) {
    prints.retain(|old| *old != print);
    prints.push_front(print);
    prints.truncate(REMEMBERED);
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
        document.saw_disk(print("\u{feff}a\r\nb\r\n"));
        assert!(!document.is_unsaved());
        let mut other = Document::new(1, "a\nb\n".into());
        other.saw_disk(print("a\nb"));
        assert!(other.is_unsaved());
        other.tell(false);
        assert!(!other.is_unsaved());
    }

    fn print(text: &str) -> Option<Fingerprint> {
        Some(Fingerprint::of(text))
    }

    fn typed(document: &mut Document, text: &str) {
        let change =
            TextDocumentContentChangeEvent { range: None, range_length: None, text: text.into() };
        document.change(document.version + 1, vec![change], Encoding::Utf16);
    }

    #[test]
    fn a_document_that_was_not_read_again_holds_nobodys_work() {
        let mut document = Document::new(1, "first".into());
        document.saw_disk(print("first"));
        for text in ["second", "third"] {
            document.written_by("sb".into());
            document.saw_disk(print(text));
            assert!(!document.is_unsaved() && document.slipped().is_none(), "{text}");
        }
        typed(&mut document, "third, mine");
        assert!(document.is_unsaved());
    }

    #[test]
    fn a_write_under_unsaved_text_is_told_until_one_text_is_left() {
        for says in [true, false] {
            let mut document = Document::new(1, "first".into());
            document.saw_disk(print("first"));
            typed(&mut document, "mine");
            if says {
                document.tell(true);
            }
            document.written_by("sb".into());
            document.saw_disk(print("second"));
            assert_eq!(document.slipped(), Some("sb"));
            typed(&mut document, "mine too");
            assert_eq!(document.slipped(), Some("sb"));
            typed(&mut document, "second");
            if says {
                document.tell(false);
            }
            assert_eq!(document.slipped(), None);
        }
    }

    #[test]
    fn typing_into_what_was_not_read_again_is_told_too() {
        let mut document = Document::new(1, "first".into());
        document.saw_disk(print("first"));
        document.tell(false);
        document.written_by("sb".into());
        document.saw_disk(print("second"));
        assert_eq!(document.slipped(), None);
        document.tell(true);
        typed(&mut document, "first, mine");
        assert_eq!(document.slipped(), Some("sb"));
        document.settle();
        assert_eq!(document.slipped(), None);
        document.written_by("sb".into());
        document.saw_disk(print("third"));
        assert_eq!(document.slipped(), Some("sb"), "another one");
        // The user saves over it.
        document.tell(false);
        document.saw_disk(print("first, mine"));
        typed(&mut document, "first, mine again");
        document.tell(true);
        assert_eq!(document.slipped(), None);
    }

    #[test]
    fn typing_into_what_was_read_again_is_no_writing_under() {
        for says in [true, false] {
            let mut document = Document::new(1, "first".into());
            document.saw_disk(print("first"));
            // The editor was faster than the news.
            typed(&mut document, "second");
            let mut texts = vec!["second, mine".to_owned()];
            texts.extend((0..2 * REMEMBERED).map(|n| format!("second, mine {n}")));
            for (n, text) in texts.iter().enumerate() {
                typed(&mut document, text);
                if says {
                    document.tell(true);
                }
                if n == 1 {
                    document.written_by("sb".into());
                    document.saw_disk(print("second"));
                }
                assert_eq!(document.slipped(), None);
            }
            assert!(document.is_unsaved());
            // The user's own save.
            document.tell(false);
            document.saw_disk(print(&texts[REMEMBERED]));
            assert_eq!(document.slipped(), None);
        }
    }
}
