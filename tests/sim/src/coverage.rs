//! What the runs have reached. A zero is a failure: a simulation that never
//! gets somewhere says nothing about it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use s0_replica::state::Record;

/// Counters by name.
#[derive(Debug, Default, Clone)]
pub struct Coverage(pub BTreeMap<String, u64>);

/// Shared within one run.
pub type Shared = Rc<RefCell<Coverage>>;

/// What every long enough run must reach.
pub const REQUIRED: &[&str] = &[
    "conflict concurrent_update",
    "conflict casefold_collision",
    "conflict case_only_rename_conflict",
    "conflict windows_reserved_name",
    "conflict windows_trailing_dot_space",
    "conflict windows_forbidden_character",
    "conflict windows_control_character",
    "conflict parent_changed",
    "conflict directory_not_empty",
    "crash stat",
    "crash list",
    "crash read_link",
    "crash describe",
    "crash stage_file",
    "crash stage_part",
    "crash stage_link",
    "crash sync_staged",
    "crash sync_directories",
    "crash place",
    "crash exchange",
    "crash take",
    "crash rename",
    "crash make_directory",
    "crash remove_directory",
    "crash set_mode",
    "crash discard",
    "crash commit",
    "crash commit durable",
    "crash service",
    "power cut",
    "reseed",
    "epoch",
    "rename uploaded file",
    "rename uploaded directory",
    "rename applied",
    "open writer",
    "late write",
    "kept beside",
    "answer lost",
    "submission repeated",
    "applied",
    "uploaded",
    "watch overflow",
    "settled marked",
    "settled merged",
    "merge refused",
    "settled took_theirs",
    "settled kept_both",
    "settled vanished",
    "unsaved",
    "held taken",
    "held discarded",
    "written for the user",
    "write for the user refused",
    "reviewed",
    "worlds with mounts",
    "mount killed",
    "mount cut off",
    "mount sends again",
    "mount waits for another",
    "mount gave back a name that it asked for",
    "mount reserved a name",
    "mount behind",
    "mount asks again",
    "mount's close taken",
    "mount's commit stale",
    "mount's commit a conflict",
    "mount's commit given up",
    "mount's file removed under a draft",
    "mount's program done",
    "unmounted",
];

impl Coverage {
    pub fn count(shared: &Shared, what: &str) {
        *shared.borrow_mut().0.entry(what.to_owned()).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    /// What was required and not reached.
    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.iter().copied().filter(|what| !self.0.contains_key(*what)).collect()
    }

    pub fn record(shared: &Shared, record: &Record) {
        if let Record::Conflict(_, Some(conflict)) = record {
            let reason = serde_json::to_string(&conflict.reason).unwrap_or_default();
            Self::count(shared, &format!("conflict {}", reason.trim_matches('"')));
        }
    }
}
