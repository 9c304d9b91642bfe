//! Between the six documented event types and our operations. Total in both
//! directions: what has no word of its own is `invalidate`, never dropped.

use s0_tree::{
    Action, AttributeChange, Content, ContentId, Entry, Hash, InvalidPath, New, Op, RenameHow,
    Source, Tree, TreePath, comparison_key,
};
use serde_json::{Map, Value, json};

use super::{ChangeRequest, EventType, SyncJournalEntry};
use crate::times::rfc3339;

/// Why a documented change is wrong in any tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// Not one of the six.
    #[error("unknown event type {0:?}")]
    EventType(String),
    /// The path is missing or hostile.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// Something that the event type needs is missing.
    #[error("{0}")]
    Lacks(&'static str),
}

impl ChangeRequest {
    /// What the change asks for, with the content that the service made of its
    /// bytes. `None` for `invalidate`, which changes no tree.
    ///
    /// # Errors
    /// It would be wrong in any tree.
    pub fn action(&self, content: Option<Content>) -> Result<Option<Action>, BadChange> {
        let kind = EventType::parse(&self.event_type)
            .ok_or_else(|| BadChange::EventType(self.event_type.clone()))?;
        if kind == EventType::Invalidate {
            return Ok(None);
        }
        let path = change_path(&self.path)?;
        let mode = match self.mode {
            None | Some(0) => None,
            Some(mode) => Some(
                u32::try_from(mode).map_err(|_| BadChange::Lacks("the mode is no mode"))? & 0o7777,
            ),
        };
        let set = AttributeChange { mode, ..AttributeChange::default() };
        let what = self.entry_kind.as_deref().map(str::trim).unwrap_or_default();
        Ok(Some(match kind {
            EventType::Create => {
                let what = match what {
                    "directory" => New::Directory,
                    "symlink" => New::Symlink {
                        target: self
                            .link_target
                            .as_deref()
                            .ok_or(BadChange::Lacks("a symlink needs its link_target"))?
                            .into(),
                    },
                    "" | "file" => New::File { content: content.unwrap_or_else(Content::empty) },
                    _ => return Err(BadChange::Lacks("the entry kind is unknown")),
                };
                Action::Create { path, what, set }
            }
            EventType::Write => {
                let content = content.ok_or(BadChange::Lacks("a write needs its content"))?;
                if !matches!(what, "" | "file") {
                    return Err(BadChange::Lacks("only a file can be written"));
                }
                Action::Write { path, content, set }
            }
            EventType::Remove => Action::Remove { path },
            EventType::Rename => {
                let from = self.old_path.as_deref().unwrap_or_default();
                if from.is_empty() {
                    return Err(BadChange::Lacks("a rename needs its old path"));
                }
                let from = change_path(from)?;
                Action::Rename { from, to: path, how: RenameHow::Replace }
            }
            EventType::Chmod => {
                if mode.is_none() {
                    return Err(BadChange::Lacks("a chmod needs its mode"));
                }
                Action::Attributes { path, set }
            }
            EventType::Invalidate => return Ok(None),
        }))
    }
}

impl SyncJournalEntry {
    /// The entry for those who know files and directories only, as all did for whom the
    /// API was documented: a symbolic link has no word then.
    #[must_use]
    pub fn without_links(mut self) -> Self {
        if self.entry_kind.as_deref() == Some("symlink") {
            self.entry_kind = None;
            self.event_type = EventType::Invalidate;
        }
        self
    }

    /// The entry with what its client noted, beside what the service knows of it.
    #[must_use]
    pub fn noted(mut self, note: Option<Value>) -> Self {
        let Some(Value::Object(mut all)) = note else { return self };
        if let Some(Value::Object(known)) = self.metadata {
            all.extend(known);
        }
        self.metadata = Some(Value::Object(all));
        self
    }
}

/// A path of a change: the documented leading slash is taken away, and nothing
/// else is cleaned.
fn change_path(text: &str) -> Result<TreePath, BadChange> {
    let text = text.strip_prefix('/').unwrap_or(text);
    if text.is_empty() {
        return Err(BadChange::Lacks("a change needs its path"));
    }
    Ok(TreePath::of_request(text)?)
}

/// A path as the documented API writes it.
#[must_use]
pub fn slashed(path: &TreePath) -> String {
    format!("/{path}")
}

/// The documented comparison key of a path.
#[must_use]
pub fn normalized(path: &TreePath) -> String {
    format!("/{}", comparison_key(path.as_str()))
}

/// An entry in the documented words. `tree` is any later tree of the Volume; it
/// says what the entry itself does not, of nodes that still live. `sha256` is
/// the hash of the whole of a content.
#[must_use]
pub fn journal_entry(
    entry: &Entry,
    (volume, team): (&str, &str),
    tree: &Tree,
    sha256: &dyn Fn(Content) -> Option<Hash>,
) -> SyncJournalEntry {
    let node = tree.node(entry.node());
    let mut mode = None;
    let mut content = entry.content();
    let mut link_target = None;
    let (event_type, kind) = match &entry.op {
        Op::Create { what, attributes, .. } => {
            mode = Some(attributes.mode);
            let kind = match what {
                New::File { .. } => "file",
                New::Directory => "directory",
                New::Symlink { target } => {
                    link_target = Some(target.to_string());
                    "symlink"
                }
                New::Fifo => "fifo",
            };
            if *what == New::Fifo {
                (EventType::Invalidate, None)
            } else {
                (EventType::Create, Some(kind))
            }
        }
        // One more name of a file is, to those who know no links, one more file.
        Op::Link { .. } => {
            content = node.and_then(s0_tree::Node::content);
            mode = node.map(|node| node.attributes.mode);
            (EventType::Create, Some("file"))
        }
        Op::Write { set, .. } | Op::Append { set, .. } | Op::Truncate { set, .. } => {
            mode = set.mode;
            (EventType::Write, Some("file"))
        }
        Op::Attributes { set, .. } => {
            mode = set.mode.or_else(|| node.map(|node| node.attributes.mode));
            let kind = if mode.is_some() { EventType::Chmod } else { EventType::Invalidate };
            (kind, None)
        }
        Op::Rename { how: RenameHow::Exchange, .. } => (EventType::Invalidate, None),
        Op::Rename { .. } => (EventType::Rename, None),
        Op::Remove { .. } => (EventType::Remove, None),
    };
    let hash = content.and_then(sha256);
    let mut metadata = Map::new();
    if let Some(sandbox) = &entry.actor.sandbox {
        metadata.insert("sandbox_id".into(), json!(sandbox));
    }
    if let Some(process) = &entry.actor.process {
        metadata.insert("process".into(), json!(process));
    }
    SyncJournalEntry {
        seq: entry.seq.0,
        volume_id: volume.into(),
        team_id: team.into(),
        source: entry.source,
        replica_id: match entry.source {
            Source::Replica => entry.actor.replica.as_deref().map(String::from),
            Source::Sandbox => None,
        },
        event_type,
        path: slashed(&entry.path),
        normalized_path: normalized(&entry.path),
        old_path: entry.old_path.as_ref().map(slashed),
        normalized_old_path: entry.old_path.as_ref().map(normalized),
        tombstone: event_type == EventType::Remove,
        entry_kind: kind.map(String::from),
        link_target,
        mode: mode.map(i64::from),
        content_ref: hash.map(|hash| ContentId::Chunk(hash).to_string()),
        content_sha256: hash.map(|hash| hash.to_string()),
        size_bytes: content.and_then(|content| i64::try_from(content.size).ok()),
        metadata: (!metadata.is_empty()).then_some(Value::Object(metadata)),
        created_at: rfc3339(entry.time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, path: &str) -> ChangeRequest {
        ChangeRequest { event_type: kind.into(), path: path.into(), ..ChangeRequest::default() }
    }

    #[test]
    fn hostile_changes_are_refused() {
        for path in ["", "/", "../x", "/../x", "//x", "a//b", "C:/x", "a/./b", "a\0"] {
            assert!(request("remove", path).action(None).is_err(), "{path:?}");
        }
        assert!(matches!(request("explode", "/x").action(None), Err(BadChange::EventType(_))));
        assert!(request("write", "/x").action(None).is_err());
        assert!(request("rename", "/x").action(None).is_err());
        assert!(request("chmod", "/x").action(None).is_err());
    }

    #[test]
    fn the_event_types_are_read_as_documented() {
        let removed = request(" REMOVE ", "/a/b").action(None).unwrap().unwrap();
        assert_eq!(removed, Action::Remove { path: TreePath::new("a/b").unwrap() });
        assert_eq!(request("invalidate", "").action(None), Ok(None));
        let Action::Create { what, .. } = request("create", "x").action(None).unwrap().unwrap()
        else {
            panic!("not a create");
        };
        assert_eq!(what, New::File { content: Content::empty() });
    }
}
