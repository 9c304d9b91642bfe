//! Texts: what can be reviewed line by line.

/// The largest text, in bytes, that is reviewed line by line. A larger file is
/// reviewed as a whole.
pub const MAX_TEXT_BYTES: usize = 2 << 20;
/// The most lines of a text that is reviewed line by line.
pub const MAX_TEXT_LINES: usize = 100_000;

/// The bytes as a text, if they are one that can be reviewed line by line: UTF-8
/// without NUL, and not too long.
pub(crate) fn text_of(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_TEXT_BYTES || bytes.contains(&0) {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    (count_lines(text) <= MAX_TEXT_LINES).then_some(text)
}

/// The lines of a text, each with its end. They end in `\n` and nothing else, so
/// that their bytes put together are the text.
pub(crate) fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

pub(crate) fn count_lines(text: &str) -> usize {
    let ends = text.bytes().filter(|byte| *byte == b'\n').count();
    ends + usize::from(!text.is_empty() && !text.ends_with('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_text() {
        assert_eq!(text_of(b""), Some(""));
        assert_eq!(text_of(b"\xef\xbb\xbfa\r\nb"), Some("\u{feff}a\r\nb"));
        assert_eq!(text_of(b"a\0b"), None);
        assert_eq!(text_of(b"\xff\xfe"), None);
        assert!(text_of(&vec![b'a'; MAX_TEXT_BYTES]).is_some());
        assert!(text_of(&vec![b'a'; MAX_TEXT_BYTES + 1]).is_none());
        assert!(text_of(&vec![b'\n'; MAX_TEXT_LINES]).is_some());
        assert!(text_of(&vec![b'\n'; MAX_TEXT_LINES + 1]).is_none());
    }

    #[test]
    fn lines_are_counted_as_they_are_split() {
        for text in ["", "a", "a\n", "\n", "\n\n", "a\nb", "a\r\nb\r\n", "a\rb"] {
            assert_eq!(count_lines(text), lines_of(text).count(), "{text:?}");
            assert_eq!(lines_of(text).collect::<String>(), text);
        }
    }
}
