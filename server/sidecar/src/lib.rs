//! The sidecar: LSP over stdio, an editor's view of the hosts of its folders.
//!
//! It finds or starts the host of each attached workspace folder, and shows what the
//! host knows: what agents wrote and nobody reviewed, conflicts, writes that are
//! held. What a user decides goes to the host, which does it; so several editors
//! show the same.
//!
//! # Invariants
//!
//! - Messages become events of one actor, in the order in which they came. The actor
//!   never waits; whatever takes time is a task that sends an event.
//! - Standard output is the protocol's alone.
//! - LSP types are in here and nowhere else.
//! - The sidecar writes no file: what it is asked to write, the host writes.
//!
//! # What must never enter
//!
//! Decisions about syncing or reviewing, state that must outlive the editor, and a
//! second way to do what the command line does.

mod asks;
mod document;
mod folder;
#[cfg(fuzzing)]
pub mod fuzzing;
mod mapping;
mod messages;
mod outbox;
mod program;
mod server;
mod settings;
mod show;
mod sidecar;
mod state;
mod uri;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tower_lsp::{LspService, Server};

pub use program::Program;
pub use settings::config_schema;

/// Requests that may be under way at a time. None of them keeps the next message
/// from being read.
const UNDER_WAY: usize = 4096;

/// Speaks LSP on standard input and output until the client ends it. Says whether
/// it was ended in order, by `shutdown` before `exit`.
pub async fn serve(program: Program) -> bool {
    serve_on(program, tokio::io::stdin(), tokio::io::stdout()).await
}

async fn serve_on(
    program: Program,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite,
) -> bool {
    let shut_down = Arc::new(AtomicBool::new(false));
    let (events, inbox) = mpsc::unbounded_channel();
    let builder = LspService::build(|client| {
        let sidecar = sidecar::Sidecar::new(client.clone(), program, events.clone());
        tokio::spawn(sidecar.run(inbox));
        server::LspServer::new(client, events, shut_down.clone())
    })
    .custom_method("workspace/textDocumentContent", server::LspServer::content)
    .custom_method("s0-sync/didChangeDirty", server::LspServer::did_change_dirty);
    let (service, socket) = server::with_asks(builder).finish();
    let server = Server::new(input, output, socket);
    server.concurrency_level(UNDER_WAY).serve(service).await;
    shut_down.load(Ordering::SeqCst)
}
