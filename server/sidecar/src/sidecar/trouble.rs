//! What is in the way of syncing: conflicts and held writes as diagnostics, and one
//! question to the user in each episode.

use std::collections::BTreeMap;

use s0_host::protocol::Side;
use s0_tree::TreePath;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower_lsp::ls_types::{Diagnostic, MessageActionItem, MessageType};

use super::{Event, Sidecar};
use crate::asks::Place;
use crate::messages::{Ask, ConflictStatus, FolderCondition, FolderState};
use crate::outbox::Outgoing;
use crate::show;
use crate::uri::{Text, Version, file_of};

impl Sidecar {
    /// The user is asked once about what is in the way.
    pub(super) fn mention(&mut self, name: &str, state: &FolderState) {
        let (ours, wanted) = (self.ours, self.settings.notifications.blocked);
        let Some(folder) = self.folders.get_mut(name) else { return };
        let in_the_way =
            matches!(state.condition, FolderCondition::Blocked | FolderCondition::Halted);
        if !in_the_way {
            if !matches!(state.condition, FolderCondition::Syncing | FolderCondition::Starting) {
                folder.asked = None;
            }
            return;
        }
        if folder.asked == Some(state.condition) || ours {
            return;
        }
        folder.asked = Some(state.condition);
        let (text, ways): (String, &[(&str, Value)]) = match state.condition {
            FolderCondition::Halted => (
                state.message.clone().unwrap_or_default(),
                &[("Resume", json!({ "method": "resume", "params": { "folder": name } }))],
            ),
            _ if wanted => {
                let open = |c: &&crate::messages::Conflict| c.status == ConflictStatus::Open;
                let count = state.conflicts.iter().filter(open).count();
                let all = |way: &str| json!({ "method": "resolve", "params": { "folder": name, "paths": [], "way": way } });
                (
                    format!("s0 sync: uploads wait for {count} conflict(s); see the diagnostics"),
                    &[("Keep mine everywhere", all("keep_mine")), ("Later", Value::Null)],
                )
            }
            _ => return,
        };
        let (client, me) = (self.client.clone(), self.me.clone());
        let ways = ways.to_vec();
        tokio::spawn(async move {
            let titles = ways.iter().map(|(title, _)| MessageActionItem {
                title: (*title).into(),
                properties: Default::default(),
            });
            let kind = MessageType::WARNING;
            let chosen = client.show_message_request(kind, text, Some(titles.collect())).await;
            let Ok(Some(chosen)) = chosen else { return };
            let way = ways.into_iter().find(|(title, _)| *title == chosen.title);
            if let Some((_, ask)) = way
                && let Ok(ask) = serde_json::from_value::<Ask>(ask)
            {
                let (reply, answered) = oneshot::channel();
                let _ = me.send(Event::Ask(ask, reply));
                if let Ok(Err(error)) = answered.await {
                    client.show_message(MessageType::ERROR, error).await;
                }
            }
        });
    }

    /// Publishes what has changed of conflicts and held writes.
    pub(super) fn diagnose(&mut self, name: &str, state: &FolderState) {
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        for conflict in state.conflicts.iter().filter(|it| it.status == ConflictStatus::Open) {
            wanted.insert(conflict.uri.clone(), format!("{conflict:?}"));
        }
        for held in &state.held {
            wanted.entry(held.uri.clone()).or_default().push_str(&format!("{held:?}"));
        }
        let Some(folder) = self.folders.get_mut(name) else { return };
        let before = std::mem::replace(&mut folder.diagnosed, wanted.clone());
        let gone: Vec<String> =
            before.keys().filter(|uri| !wanted.contains_key(*uri)).cloned().collect();
        for uri in gone {
            self.publish(&uri, Vec::new());
        }
        for (uri, of) in wanted {
            if before.get(&uri) == Some(&of) {
                continue;
            }
            self.compare_conflict(name, state, uri, of);
        }
    }

    fn compare_conflict(&self, name: &str, state: &FolderState, uri: String, of: String) {
        let Some(folder) = self.folders.get(name) else { return };
        let conflict = state
            .conflicts
            .iter()
            .find(|it| it.uri == uri && it.status == ConflictStatus::Open)
            .cloned();
        let held = state.held.iter().find(|it| it.uri == uri).cloned();
        let place = Place {
            folder: name.into(),
            path: folder.path.clone(),
            attached: folder.view.attached.clone(),
        };
        let mine = self.documents.get(&uri).map(|document| document.text.clone());
        let (me, name) = (self.me.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut diagnostics: Vec<_> = held.iter().map(|held| show::held(&name, held)).collect();
            if let Some(conflict) = conflict {
                let texts = both_texts(&place, &uri, &conflict.path, mine).await;
                let texts = texts.as_ref().map(|(mine, theirs)| (mine.as_str(), theirs.as_str()));
                let theirs = TreePath::new(&conflict.path).map(|path| {
                    Text { folder: name.clone(), path, version: Version::Theirs }.uri()
                });
                let theirs = theirs.unwrap_or_default();
                diagnostics.extend(show::conflict(&name, &conflict, texts, &theirs));
            }
            let _ = me.send(Event::Diagnosed { uri, of, diagnostics });
        });
    }

    pub(super) fn publish(&self, uri: &str, diagnostics: Vec<Diagnostic>) {
        self.say(Outgoing::Diagnostics(uri.to_owned(), diagnostics));
    }
}

/// The local text and the Volume's, if both are texts.
async fn both_texts(
    place: &Place,
    uri: &str,
    path: &str,
    mine: Option<String>,
) -> Option<(String, String)> {
    let mine = match mine {
        Some(mine) => mine,
        None => tokio::fs::read_to_string(file_of(uri)?).await.ok()?,
    };
    let theirs = place.side(TreePath::new(path).ok()?, Side::Theirs).await.ok()?;
    Some((mine, theirs))
}
