//! What the client is told, in the order in which it was said.

use tokio::sync::mpsc;
use tower_lsp::Client;
use tower_lsp::ls_types::{Diagnostic, MessageType, Uri};

use crate::messages::{
    DidApply, DidApplyNotice, DidChangeContent, DidChangeContentNotice, DidChangeHunks,
    DidChangeState, FileHunks, FolderState,
};

/// One message.
pub(crate) enum Outgoing {
    State(Box<FolderState>),
    Applied(DidApply),
    Contents(Vec<String>),
    Hunks(FileHunks),
    Diagnostics(String, Vec<Diagnostic>),
    Lenses,
    Message(MessageType, String),
}

/// The way to the client. It never waits: a client that reads slowly keeps only what
/// is said to it waiting.
pub(crate) fn outbox(client: Client) -> mpsc::UnboundedSender<Outgoing> {
    let (outbox, mut waiting) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(outgoing) = waiting.recv().await {
            send(&client, outgoing).await;
        }
    });
    outbox
}

async fn send(client: &Client, outgoing: Outgoing) {
    match outgoing {
        Outgoing::State(state) => client.send_notification::<DidChangeState>(*state).await,
        Outgoing::Applied(applied) => client.send_notification::<DidApplyNotice>(applied).await,
        Outgoing::Contents(uris) => {
            let changed = DidChangeContent { uris };
            client.send_notification::<DidChangeContentNotice>(changed).await;
        }
        Outgoing::Hunks(hunks) => client.send_notification::<DidChangeHunks>(hunks).await,
        Outgoing::Diagnostics(uri, diagnostics) => {
            if let Ok(uri) = uri.parse::<Uri>() {
                client.publish_diagnostics(uri, diagnostics, None).await;
            }
        }
        Outgoing::Lenses => {
            // A request, whose answer says nothing; what follows does not wait for it.
            let client = client.clone();
            tokio::spawn(async move { client.code_lens_refresh().await });
        }
        Outgoing::Message(kind, text) => client.show_message(kind, text).await,
    }
}
