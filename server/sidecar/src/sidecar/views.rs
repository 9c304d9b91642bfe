//! How a folder is, as its host says, and what of that the client is told.

use std::collections::{BTreeMap, BTreeSet};

use s0_tree::TreePath;

use super::{Sidecar, same_file};
use crate::folder::View;
use crate::messages::{AppliedItem, DidApply};
use crate::outbox::Outgoing;
use crate::state::uri_at;
use crate::uri::{Text, Version};

impl Sidecar {
    pub(super) fn take_view(&mut self, name: &str, view: View) {
        let Some(folder) = self.folders.get_mut(name) else { return };
        let before = std::mem::replace(&mut folder.view, view);
        if !std::mem::replace(&mut folder.is_known, true) {
            self.answer_early();
        }
        if !self.show_state(name) {
            return;
        }
        // What is under review in open documents, or was.
        let versions = |view: &View| -> BTreeMap<TreePath, u64> {
            view.review.items.iter().map(|item| (item.path.clone(), item.version.0)).collect()
        };
        let Some(folder) = self.folders.get(name) else { return };
        let (old, new) = (versions(&before), versions(&folder.view));
        let first = before.attached.is_none() && folder.view.attached.is_some();
        let uris: Vec<String> = self.documents.keys().cloned().collect();
        for uri in uris {
            let Some((_, _, path)) = self.locate(&uri) else { continue };
            if first || old.get(&path) != new.get(&path) {
                self.ask_for_hunks(&uri);
            }
        }
        if first {
            self.tell_unsaved();
        }
        if self.ours {
            let contents = changed_contents(name, &old, &new);
            if !contents.is_empty() {
                self.say(Outgoing::Contents(contents));
            }
        }
    }

    /// Shows how a folder is, if that is another way than was shown.
    pub(super) fn show_state(&mut self, name: &str) -> bool {
        let Some(state) = self.state_of(name) else { return false };
        let Some(folder) = self.folders.get_mut(name) else { return false };
        if folder.told.as_ref() == Some(&state) {
            return false;
        }
        folder.told = Some(state.clone());
        self.diagnose(name, &state);
        self.mention(name, &state);
        self.go_on(name, &state);
        if self.ours {
            self.say(Outgoing::State(Box::new(state)));
        }
        true
    }

    pub(super) fn applied(&mut self, name: &str, items: Vec<(TreePath, bool, Option<String>)>) {
        let Some(folder) = self.folders.get(name) else { return };
        let Some((_, attachment)) = &folder.view.attached else { return };
        let root = attachment.root.clone();
        let items: Vec<AppliedItem> = items
            .into_iter()
            .map(|(path, removed, actor)| AppliedItem { uri: uri_at(&root, &path), removed, actor })
            .collect();
        let mut open = Vec::new();
        for (uri, document) in &mut self.documents {
            let Some(item) = items.iter().rev().find(|it| same_file(&it.uri, uri)) else {
                continue;
            };
            open.push(uri.clone());
            if let (false, Some(actor)) = (item.removed, &item.actor) {
                document.written_by(actor.clone());
            }
        }
        open.iter().for_each(|uri| self.read_file(uri));
        if self.ours {
            self.say(Outgoing::Applied(DidApply { folder: name.to_owned(), items }));
        }
    }
}

/// Documents of the review that are other texts now.
fn changed_contents(
    folder: &str,
    old: &BTreeMap<TreePath, u64>,
    new: &BTreeMap<TreePath, u64>,
) -> Vec<String> {
    let changed = old.keys().chain(new.keys()).filter(|path| old.get(path) != new.get(path));
    let paths: BTreeSet<&TreePath> = changed.collect();
    let text =
        |path: &TreePath, version| Text { folder: folder.into(), path: path.clone(), version };
    paths
        .into_iter()
        .flat_map(|path| [text(path, Version::Reviewed).uri(), text(path, Version::Current).uri()])
        .collect()
}
