//! Hunks of open documents: asked of the host, and placed in the text as it is.

use std::time::Duration;

use s0_host::protocol::FileView;

use super::{Event, Sidecar};
use crate::asks::Place;
use crate::messages::FileHunks;
use crate::outbox::Outgoing;
use crate::show;

/// How long an editor's typing is let go on before hunks are placed anew.
const TYPING: Duration = Duration::from_millis(60);

/// What is shown of a document under review.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) file: FileView,
    pub(super) hunks: FileHunks,
    pub(super) placing: bool,
}

impl Sidecar {
    /// Asks for the review of a document's file.
    pub(super) fn ask_for_hunks(&mut self, uri: &str) {
        let Some((_, folder, path)) = self.locate(uri) else { return };
        let reviewed =
            folder.view.review.items.iter().any(|it| it.path == path && it.hunks.is_some());
        if !reviewed {
            self.shown.entry(uri.to_owned()).or_default().file = FileView::default();
            self.place(uri, true);
            return;
        }
        let place = Place {
            folder: String::new(),
            path: folder.path.clone(),
            attached: folder.view.attached.clone(),
        };
        let (me, uri) = (self.me.clone(), uri.to_owned());
        tokio::spawn(async move {
            match place.file(path).await {
                Ok(file) => drop(me.send(Event::File(uri, Box::new(file)))),
                Err(error) => tracing::debug!(uri, error, "no hunks"),
            }
        });
    }

    pub(super) fn place_soon(&mut self, uri: &str) {
        let Some(document) = self.documents.get(uri) else { return };
        let Some(shown) = self.shown.get_mut(uri) else { return };
        if shown.file.hunks.is_empty() {
            return;
        }
        // Nobody types what an agent wrote: the editor has read the file.
        if shown.file.current.as_ref() == Some(&document.text) {
            return self.place(uri, false);
        }
        if shown.placing {
            return;
        }
        shown.placing = true;
        let (me, uri) = (self.me.clone(), uri.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(TYPING).await;
            let _ = me.send(Event::Place(uri));
        });
    }

    /// Places the hunks of a document in its text, and tells them if they are others.
    pub(super) fn place(&mut self, uri: &str, always: bool) {
        let Some(document) = self.documents.get(uri) else { return };
        let Some(shown) = self.shown.get_mut(uri) else { return };
        let hunks = show::hunks(uri, document.version, &shown.file, &document.text);
        if shown.hunks == hunks && !always {
            return;
        }
        shown.hunks = hunks.clone();
        if self.ours {
            self.say(Outgoing::Hunks(hunks));
        } else if self.refreshes_lenses {
            self.say(Outgoing::Lenses);
        }
    }
}
