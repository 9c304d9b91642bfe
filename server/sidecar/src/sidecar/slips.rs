//! Writes that came under unsaved text before the host knew of that text. They are on
//! the disk already; the document is not, so they are shown as what is held is.

use s0_host::protocol::{Answer, Request};
use s0_tree::TreePath;
use serde_json::{Value, json};

use super::{Event, Reply, Sidecar, same_file};
use crate::asks::unexpected;
use crate::messages::{AppliedItem, DidApply, FolderState, Held, HeldKind, HeldWay, HeldWhy};
use crate::outbox::Outgoing;
use crate::state::folder_state;

impl Sidecar {
    /// The state of a folder, as clients see it.
    pub(super) fn state_of(&self, name: &str) -> Option<FolderState> {
        let folder = self.folders.get(name)?;
        let mut state = folder_state(name, &folder.view);
        let slipped = self.documents.iter().filter_map(|(uri, document)| {
            let actor = document.slipped()?.to_owned();
            let (within, _, path) = self.locate(uri)?;
            (within == name && !state.held.iter().any(|it| it.path == *path.to_string())).then(
                || Held {
                    path: path.to_string(),
                    uri: uri.clone(),
                    why: HeldWhy::Unsaved,
                    written: true,
                    actor: Some(actor),
                    kind: HeldKind::Write,
                    ways: vec![HeldWay::Take, HeldWay::Discard, HeldWay::KeepBoth],
                },
            )
        });
        let slipped: Vec<Held> = slipped.collect();
        state.held.extend(slipped);
        state.held.sort_by(|a, b| a.path.cmp(&b.path));
        Some(state)
    }

    /// Something changed of a document, which may have ended a slip or made one.
    pub(super) fn look_at_slips(&mut self, uri: &str) {
        let Some((name, folder, _)) = self.locate(uri) else { return };
        let here = |held: &&Held| held.written && same_file(&held.uri, uri);
        let told = folder.told.as_ref().and_then(|state| state.held.iter().find(here));
        let slipped = self.documents.get(uri).and_then(|document| document.slipped());
        if told.and_then(|held| held.actor.as_deref()) != slipped {
            let name = name.clone();
            self.show_state(&name);
        }
    }

    /// Decides about a write that slipped in. What is none is left to the host.
    pub(super) fn settle_slip(
        &mut self,
        folder: &str,
        path: &str,
        way: HeldWay,
        reply: Reply<Result<Value, String>>,
    ) -> Option<Reply<Result<Value, String>>> {
        let state = self.folders.get(folder).and_then(|it| it.told.as_ref());
        let held = state.and_then(|state| state.held.iter().find(|it| it.path == path));
        let Some(uri) = held.filter(|it| it.written).map(|it| it.uri.clone()) else {
            return Some(reply);
        };
        if way == HeldWay::KeepBoth {
            let place = self.asked().place(folder).cloned();
            let (me, path) = (self.me.clone(), path.to_owned());
            tokio::spawn(async move {
                let beside = async {
                    let path = TreePath::new(&path).map_err(|error| error.to_string())?;
                    match place?.ask(Request::CopyBeside { path }).await? {
                        Answer::HoldSettled { beside } => Ok(json!({ "beside": beside })),
                        other => Err(unexpected(&other)),
                    }
                };
                let beside = beside.await;
                if beside.is_ok() {
                    let _ = me.send(Event::SlipSettled(uri));
                }
                let _ = reply.send(beside);
            });
            return None;
        }
        if way == HeldWay::Take && self.ours {
            // The client reads the file again, as it does for a write that comes now.
            let items = vec![AppliedItem { uri: uri.clone(), removed: false, actor: None }];
            self.say(Outgoing::Applied(DidApply { folder: folder.to_owned(), items }));
        }
        self.forget_slip(&uri);
        let _ = reply.send(Ok(json!({ "beside": null })));
        None
    }

    /// It was decided.
    pub(super) fn forget_slip(&mut self, uri: &str) {
        if let Some(document) = self.documents.get_mut(uri) {
            document.settle();
        }
        self.look_at_slips(uri);
    }
}
