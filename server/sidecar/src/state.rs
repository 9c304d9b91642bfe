//! The state of a folder, in the words of the protocol.

use std::path::Path;

use s0_host::protocol::{ConflictView, ItemView, Thing};
use s0_replica::engine::{Condition, HoldReason};
use s0_replica::state::ConflictStatus;
use s0_review::Change;
use s0_tree::{Name, Policy, Reason, Time, TreePath, portable_issues};

use crate::folder::View;
use crate::messages::{
    self, Actor, Conflict, FolderCondition, FolderState, Held, HeldKind, HeldWay, HeldWhy, Item,
    ItemKind, Pending, Problem, Reviewed, Way,
};
use crate::uri::uri_of;

/// The state of a folder.
pub(crate) fn folder_state(folder: &str, view: &View) -> FolderState {
    let mut state = FolderState {
        folder: folder.into(),
        condition: FolderCondition::Detached,
        message: None,
        root: None,
        volume: None,
        replica: None,
        sandbox: None,
        server: None,
        pending: None,
        conflicts: Vec::new(),
        held: Vec::new(),
        incoming: Vec::new(),
        reviewed: Vec::new(),
        problems: Vec::new(),
    };
    let Some((directory, attachment)) = &view.attached else { return state };
    let root = attachment.root.as_path();
    let uri = |path: &TreePath| uri_at(root, path);
    state.root = Some(uri_of(root));
    state.volume = Some(attachment.volume_id.clone());
    state.replica = Some(attachment.replica_id.clone());
    state.sandbox.clone_from(&attachment.sandbox_id);
    state.message.clone_from(&view.trouble);
    let Some(status) = &view.status else {
        let stopped = view.trouble.is_some() || directory.was_stopped();
        state.condition =
            if stopped { FolderCondition::Stopped } else { FolderCondition::Starting };
        return state;
    };
    let report = &status.report;
    state.server.clone_from(&status.server);
    state.condition = match report.status.condition {
        Condition::Halted => FolderCondition::Halted,
        Condition::Offline => FolderCondition::Offline,
        Condition::Syncing => FolderCondition::Syncing,
        Condition::Blocked => FolderCondition::Blocked,
        Condition::InSync => FolderCondition::InSync,
    };
    let halt = report.status.halt.as_ref().map(ToString::to_string);
    state.message = halt.or_else(|| report.trouble.clone());
    state.pending = Some(Pending {
        uploads: report.status.pending.uploads,
        downloads: report.status.pending.downloads,
    });
    state.conflicts = view.conflicts.iter().map(|it| conflict(root, it)).collect();
    state.held = report
        .status
        .held
        .iter()
        .map(|(path, held)| Held {
            path: path.to_string(),
            uri: uri(path),
            why: match held.why {
                HoldReason::Unsaved => HeldWhy::Unsaved,
                HoldReason::Guarded => HeldWhy::Guarded,
            },
            written: false,
            actor: held.actor.as_ref().map(ToString::to_string),
            kind: if held.removed { HeldKind::Remove } else { HeldKind::Write },
            ways: if held.removed {
                vec![HeldWay::Take, HeldWay::Discard]
            } else {
                vec![HeldWay::Take, HeldWay::Discard, HeldWay::KeepBoth]
            },
        })
        .collect();
    state.incoming = view.review.items.iter().map(|it| item(root, it)).collect();
    state.reviewed = view
        .review
        .reviewed
        .iter()
        .map(|it| Reviewed {
            path: it.path.to_string(),
            uri: uri(&it.path),
            actors: vec![actor(&it.write.actor)],
            time: milliseconds(it.write.time),
        })
        .collect();
    state.problems = report
        .status
        .problems
        .iter()
        .map(|(path, why)| Problem { path: path.to_string(), uri: uri(path), why: why.clone() })
        .collect();
    state
}

/// The URI of the file at a path.
pub(crate) fn uri_at(root: &Path, path: &TreePath) -> String {
    if path.is_root() { uri_of(root) } else { uri_of(&root.join(path.as_str())) }
}

/// A time of the journal, in milliseconds.
pub(crate) fn milliseconds(time: Time) -> i64 {
    time.0 / 1_000_000
}

/// An agent, for people and for choices: its process is not looked at.
pub(crate) fn actor(actor: &s0_tree::Actor) -> Actor {
    let whole = s0_tree::Actor { process: None, ..actor.clone() };
    let id = serde_json::to_string(&whole).unwrap_or_default();
    Actor { id, label: whole.to_string() }
}

/// The agent of an id.
pub(crate) fn actor_of(id: &str) -> Option<s0_tree::Actor> {
    serde_json::from_str(id).ok()
}

fn actors(writes: &[s0_review::Write]) -> Vec<Actor> {
    let mut found: Vec<Actor> = Vec::new();
    for write in writes {
        let actor = actor(&write.actor);
        if !found.contains(&actor) {
            found.push(actor);
        }
    }
    found
}

fn item(root: &Path, it: &ItemView) -> Item {
    let kind = match it.change {
        Change::Created if it.hunks.is_some() => ItemKind::Created,
        Change::Removed => ItemKind::Deleted,
        Change::Attributes if it.renamed_from.is_some() => ItemKind::Renamed,
        Change::Attributes => ItemKind::Mode,
        Change::Content if it.hunks.is_some() => ItemKind::Changed,
        Change::Created | Change::Content => ItemKind::Whole,
    };
    Item {
        path: it.path.to_string(),
        uri: uri_at(root, &it.path),
        kind,
        from: it.renamed_from.as_ref().map(ToString::to_string),
        actors: actors(&it.writes),
        hunks: it.hunks.unwrap_or(0),
        added: it.lines.0,
        removed: it.lines.1,
        time: it.writes.iter().map(|write| milliseconds(write.time)).max().unwrap_or(0),
    }
}

fn thing(thing: &Thing) -> messages::Thing {
    match thing {
        Thing::File { size, .. } => messages::Thing::File { size: *size },
        Thing::Directory => messages::Thing::Directory,
        Thing::Symlink { target } => messages::Thing::Symlink { target: target.clone() },
    }
}

fn conflict(root: &Path, it: &ConflictView) -> Conflict {
    let suggestion = suggestion(root, it);
    Conflict {
        path: it.path.to_string(),
        uri: uri_at(root, &it.path),
        reason: word(it.reason),
        message: message(it),
        status: match it.status {
            ConflictStatus::Open => messages::ConflictStatus::Open,
            ConflictStatus::Ignored => messages::ConflictStatus::Ignored,
        },
        base: it.base.as_ref().map(thing),
        mine: it.mine.as_ref().map(thing),
        theirs: it.theirs.as_ref().map(thing),
        other: (it.other != it.path).then(|| it.other.to_string()),
        ways: ways(it, suggestion.is_some()),
        suggestion,
        time: it.time / 1_000_000,
    }
}

/// A reason as the HTTP API writes it.
pub(crate) fn word(reason: Reason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{reason:?}"),
    }
}

/// Whether a conflict is about a name that some machine cannot hold.
fn is_about_name(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::ConcurrentUpdate
            | Reason::ParentChanged
            | Reason::DirectoryNotEmpty
            | Reason::PathTooLong
    )
}

fn message(it: &ConflictView) -> String {
    match it.reason {
        Reason::ConcurrentUpdate => match (&it.mine, &it.theirs) {
            (None, _) => "you removed what was changed in the Volume meanwhile".into(),
            (_, None) => "you changed what was removed in the Volume meanwhile".into(),
            _ => "you and another side changed it without having seen each other's change".into(),
        },
        Reason::ParentChanged => "its directory was moved or removed in the Volume".into(),
        Reason::DirectoryNotEmpty => "there is something new in the directory".into(),
        Reason::PathTooLong => "the path is too long".into(),
        _ if it.other != it.path => {
            format!("some machine takes this name for that of {}", it.other)
        }
        _ => "some machine of this Volume cannot hold this name".into(),
    }
}

fn ways(it: &ConflictView, nameable: bool) -> Vec<Way> {
    let file = |thing: Option<&Thing>| matches!(thing, Some(Thing::File { .. }));
    let mut ways = Vec::new();
    if is_about_name(it.reason) {
        if nameable {
            ways.push(Way::Rename);
        }
        ways.extend([Way::TakeTheirs, Way::Ignore]);
        return ways;
    }
    ways.extend([Way::KeepMine, Way::TakeTheirs]);
    if it.mine.is_some() && it.theirs.is_some() {
        ways.push(Way::KeepBoth);
    }
    if file(it.mine.as_ref()) && file(it.theirs.as_ref()) {
        ways.push(Way::Merge);
    }
    ways.push(Way::Ignore);
    ways
}

/// What every machine can hold.
const EVERY_MACHINE: Policy =
    Policy { case_insensitive: true, unicode_insensitive: true, windows_names: true };

/// A name near the one that cannot be, which every machine can hold and nothing has.
fn suggestion(root: &Path, it: &ConflictView) -> Option<String> {
    if !is_about_name(it.reason) {
        return None;
    }
    let (above, name) = it.path.split()?;
    let legal: String = name
        .as_str()
        .chars()
        .map(|c| if c.is_control() || r#"<>:"/\|?*"#.contains(c) { '_' } else { c })
        .collect();
    let legal = legal.trim_end_matches(['.', ' ']);
    let (stem, extension) = match legal.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (legal, String::new()),
    };
    let stem = if stem.is_empty() { "unnamed" } else { stem };
    for number in 1..100 {
        let mark = match (number, legal == name.as_str()) {
            (1, false) => String::new(),
            (number, _) => format!("-{number}"),
        };
        let candidate = format!("{stem}{mark}{extension}");
        let taken = it.other.name().is_some_and(|other| {
            s0_tree::comparison_key(other.as_str()) == s0_tree::comparison_key(&candidate)
        });
        let Ok(candidate) = Name::new(&candidate) else { continue };
        let at = above.join(&candidate);
        let taken = taken || root.join(at.as_str()).symlink_metadata().is_ok();
        if !taken && portable_issues(candidate.as_str(), EVERY_MACHINE).is_empty() {
            return Some(at.to_string());
        }
    }
    None
}
