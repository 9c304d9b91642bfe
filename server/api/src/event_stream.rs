//! Server-sent events, read as they arrive.

use crate::sync::StreamEvent;

/// The longest event that is read. The largest entry that admission lets in stays
/// below it, with its text and with every character escaped.
const MAX_EVENT: usize = 4 * 1024 * 1024;

/// A stream that is not made of our events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// An event does not end.
    #[error("an event is longer than {MAX_EVENT} bytes")]
    TooLong,
    /// An event cannot be read.
    #[error("an event cannot be read: {0}")]
    Syntax(String),
}

/// Reads events from a body that arrives in pieces. Holds one event at most.
#[derive(Debug, Default)]
pub struct EventReader {
    buffer: Vec<u8>,
    /// Up to here no line ends.
    searched: usize,
    data: Vec<u8>,
}

impl EventReader {
    /// Adds the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole event, if it has arrived. Comments are passed over.
    ///
    /// # Errors
    /// What arrived is no event of ours.
    pub fn next_event(&mut self) -> Result<Option<StreamEvent>, BadEvent> {
        let mut read = 0;
        let found = loop {
            let from = read.max(self.searched);
            let Some(end) = self.buffer[from..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                break None;
            };
            let end = from + end;
            let line = &self.buffer[read..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() && !self.data.is_empty() {
                read = end + 1;
                self.searched = read;
                break Some(std::mem::take(&mut self.data));
            }
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            read = end + 1;
        };
        self.buffer.drain(..read);
        self.searched = self.searched.saturating_sub(read);
        if found.is_none() && self.buffer.len() + self.data.len() > MAX_EVENT {
            return Err(BadEvent::TooLong);
        }
        found
            .map(|data| {
                serde_json::from_slice(&data).map_err(|error| BadEvent::Syntax(error.to_string()))
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use s0_tree::Seq;

    fn head(head: u64) -> StreamEvent {
        StreamEvent::Head {
            head: Seq(head),
            epoch: "e".into(),
            policy: s0_tree::Policy::default(),
            quota: s0_tree::Quota::default(),
        }
    }

    #[test]
    fn events_survive_any_cut() {
        let mut body = String::from(": hello\n\n");
        for at in 1..4 {
            let data = serde_json::to_string(&head(at)).unwrap();
            body.push_str(&format!("id: {at}\ndata: {data}\n\n:\n\n"));
        }
        for text in [body.clone(), body.replace('\n', "\r\n")] {
            for size in [1, 2, 3, 7, 50, text.len()] {
                let (mut reader, mut found) = (EventReader::default(), Vec::new());
                for piece in text.as_bytes().chunks(size) {
                    reader.push(piece);
                    while let Some(event) = reader.next_event().unwrap() {
                        found.push(event);
                    }
                }
                assert_eq!(found, [head(1), head(2), head(3)], "pieces of {size}");
            }
        }
    }

    #[test]
    fn hostile_streams_are_refused() {
        let mut reader = EventReader::default();
        reader.push(b"data: {}\n\n");
        assert!(matches!(reader.next_event(), Err(BadEvent::Syntax(_))));
        let mut reader = EventReader::default();
        reader.push(&vec![b'x'; MAX_EVENT + 1]);
        assert_eq!(reader.next_event(), Err(BadEvent::TooLong));
    }

    #[test]
    fn the_largest_entry_is_read() {
        use s0_tree::{Actor, Content, Entry, FORMAT, NodeId, Op, Source, Time, TreePath};
        // What JSON needs the most bytes for: six for each of these.
        let worst = |length: usize| "\u{1}".repeat(length);
        let part = format!("{}/", worst(255));
        let path = TreePath::new(part.repeat(16).trim_end_matches('/')).unwrap();
        let xattrs = (0..s0_tree::MAX_XATTR_BYTES / 4).map(|at| {
            let name: String =
                (0..4).map(|digit| char::from((at >> (5 * digit)) as u8 % 32)).collect();
            (name, None)
        });
        let set = s0_tree::AttributeChange { xattrs: xattrs.collect(), ..Default::default() };
        let text = worst(s0_tree::INLINE_LIMIT as usize);
        let id: std::sync::Arc<str> = worst(256).into();
        let entry = Box::new(Entry {
            format: FORMAT,
            seq: Seq(u64::MAX),
            time: Time(i64::MIN),
            source: Source::Replica,
            actor: Actor { replica: Some(id.clone()), sandbox: Some(id.clone()), process: None },
            request: Some(s0_tree::RequestId(id)),
            op: Op::Write { node: NodeId(1), content: Content::of(text.as_bytes()), set },
            path: path.clone(),
            old_path: Some(path),
        });
        let event = StreamEvent::Entry { entry, text: Some(text) };
        let mut reader = EventReader::default();
        let json = serde_json::to_string(&event).unwrap();
        for piece in format!("id: 1\ndata: {json}\n\n").as_bytes().chunks(10_000) {
            assert!(!matches!(reader.next_event(), Err(BadEvent::TooLong)));
            reader.push(piece);
        }
        assert_eq!(reader.next_event(), Ok(Some(event)));
    }
}
