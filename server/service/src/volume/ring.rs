//! The recent entries of a hot Volume, ready to be streamed.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use s0_api::sync::StreamEvent;
use s0_tree::{ContentId, Entry, Seq};

const MAX_ENTRIES: usize = 2048;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An entry, and its event as the stream sends it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) entry: Arc<Entry>,
    pub(crate) event: Bytes,
}

impl Published {
    /// The event without what server-sent events put around it.
    pub(crate) fn json(&self) -> Bytes {
        let begins = self.event.iter().position(|byte| *byte == b'{').unwrap_or(0);
        self.event.slice(begins..self.event.len() - END.len())
    }
}

/// Where an event ends.
const END: &str = "\n\n";

/// An entry with what is to be streamed of its content.
pub(crate) fn publish(entry: Entry, inline: &HashMap<ContentId, Bytes>) -> Published {
    let bytes = entry.content().and_then(|content| inline.get(&content.id));
    let text = bytes
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .filter(|text| !text.contains('\0'))
        .map(String::from);
    let id = entry.seq;
    let event = StreamEvent::Entry { entry: Box::new(entry.clone()), text };
    Published { entry: Arc::new(entry), event: event_bytes(Some(id), &event) }
}

/// An event as server-sent events spell it. JSON has no line breaks.
pub(crate) fn event_bytes(id: Option<Seq>, event: &StreamEvent) -> Bytes {
    let json = serde_json::to_string(event).unwrap_or_default();
    let mut text = String::with_capacity(json.len() + 32);
    if let Some(id) = id {
        // Writing to memory does not fail.
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "data: {json}{END}");
    text.into()
}

/// The newest entries, bounded by number and size.
#[derive(Debug)]
pub(crate) struct Ring {
    head: Seq,
    bytes: usize,
    entries: VecDeque<Arc<Published>>,
}

impl Ring {
    pub(crate) fn new(head: Seq) -> Self {
        Self { head, bytes: 0, entries: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, published: Published) {
        self.head = published.entry.seq;
        self.bytes += published.event.len();
        self.entries.push_back(Arc::new(published));
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.event.len();
        }
    }

    /// At most `limit` entries after `after`; none when older ones are needed
    /// than there are.
    pub(crate) fn after(&self, after: Seq, limit: usize) -> Option<Vec<Arc<Published>>> {
        let behind = usize::try_from(self.head.0.checked_sub(after.0)?).ok()?;
        let skip = self.entries.len().checked_sub(behind)?;
        Some(self.entries.iter().skip(skip).take(limit).cloned().collect())
    }
}
