//! Frames: many chunks in one body. Each is a kind byte (0 chunk, 1 recipe), the
//! hash, the length as four bytes big-endian, and the bytes. No base64, no
//! nesting, readable as a stream.

use s0_tree::{ContentId, Hash, MAX_CHUNK};

/// The head of a frame, in bytes.
pub const FRAME_HEAD: usize = 1 + 32 + 4;
/// The longest recipe that travels, in bytes: a file of about two tebibytes.
pub const MAX_RECIPE: usize = 512 * 1024 * 1024;

/// A body that is not made of frames, or whose bytes are not what they say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Neither chunk nor recipe.
    #[error("a frame has the unknown kind {0}")]
    Kind(u8),
    /// Over the limit of its kind.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The bytes do not have the hash.
    #[error("the bytes of {0} are not what its name says")]
    Hash(ContentId),
    /// The body ends within a frame.
    #[error("the body ends within a frame")]
    Truncated,
}

/// Appends a frame to `body`.
pub fn write_frame(body: &mut Vec<u8>, id: ContentId, bytes: &[u8]) {
    body.push(u8::from(matches!(id, ContentId::Recipe(_))));
    body.extend_from_slice(&id.hash().0);
    #[expect(clippy::cast_possible_truncation, reason = "chunks and recipes are under 4 GiB")]
    body.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    body.extend_from_slice(bytes);
}

/// Reads frames from a body that arrives in pieces. Holds one frame at most.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    max_recipe: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { buffer: Vec::new(), max_recipe: MAX_RECIPE }
    }
}

impl FrameReader {
    /// A reader that refuses recipes of more than `max_recipe` bytes, for those
    /// who hold frames of many senders at once.
    #[must_use]
    pub fn with_max_recipe(max_recipe: usize) -> Self {
        Self { max_recipe: max_recipe.min(MAX_RECIPE), ..Self::default() }
    }

    /// Adds the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame, if it has arrived; its bytes have its hash.
    ///
    /// # Errors
    /// What arrived is no frame, or its bytes are others than it says.
    pub fn next_frame(&mut self) -> Result<Option<(ContentId, Vec<u8>)>, BadFrame> {
        let Some((head, rest)) = self.buffer.split_at_checked(FRAME_HEAD) else {
            return Ok(None);
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(&head[1..33]);
        let (id, limit) = match head[0] {
            0 => (ContentId::Chunk(Hash(hash)), MAX_CHUNK),
            1 => (ContentId::Recipe(Hash(hash)), self.max_recipe),
            other => return Err(BadFrame::Kind(other)),
        };
        let length = u32::from_be_bytes([head[33], head[34], head[35], head[36]]) as usize;
        if length > limit {
            return Err(BadFrame::TooLong(length));
        }
        let Some(bytes) = rest.get(..length) else {
            return Ok(None);
        };
        if Hash::of(bytes) != id.hash() {
            return Err(BadFrame::Hash(id));
        }
        let bytes = bytes.to_vec();
        self.buffer.drain(..FRAME_HEAD + length);
        Ok(Some((id, bytes)))
    }

    /// Says whether the body ended where a frame did.
    ///
    /// # Errors
    /// It ended within one.
    pub fn finish(&self) -> Result<(), BadFrame> {
        if self.buffer.is_empty() { Ok(()) } else { Err(BadFrame::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s0_tree::Content;

    #[test]
    fn frames_survive_any_cut() {
        let contents: [&[u8]; 3] = [b"", b"one", &[7; 1000]];
        let mut body = Vec::new();
        for bytes in contents {
            write_frame(&mut body, Content::of(bytes).id, bytes);
        }
        for size in [1, 2, 36, 37, 38, 1000, body.len()] {
            let (mut reader, mut found) = (FrameReader::default(), Vec::new());
            for piece in body.chunks(size) {
                reader.push(piece);
                while let Some((_, bytes)) = reader.next_frame().unwrap() {
                    found.push(bytes);
                }
            }
            assert_eq!(found, contents);
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn hostile_frames_are_refused() {
        let mut body = Vec::new();
        write_frame(&mut body, Content::of(b"x").id, b"y");
        let mut reader = FrameReader::default();
        reader.push(&body);
        assert!(matches!(reader.next_frame(), Err(BadFrame::Hash(_))));
        let mut reader = FrameReader::default();
        reader.push(&[&[0; 33][..], &[0xff; 4]].concat());
        assert!(matches!(reader.next_frame(), Err(BadFrame::TooLong(_))));
        let mut reader = FrameReader::default();
        reader.push(&[9; 37]);
        assert_eq!(reader.next_frame(), Err(BadFrame::Kind(9)));
        reader.push(&[9]);
        assert_eq!(reader.finish(), Err(BadFrame::Truncated));
    }
}
