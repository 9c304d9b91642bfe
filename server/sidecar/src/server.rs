//! The language server: each message becomes an event, and nothing here waits for
//! anything but its own answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tower_lsp::jsonrpc::{Error, ErrorCode, Result};
use tower_lsp::ls_types::{
    CodeActionKind, CodeActionOptions, CodeActionParams, CodeActionProviderCapability,
    CodeActionResponse, CodeLens, CodeLensOptions, CodeLensParams, DidChangeConfigurationParams,
    DidChangeTextDocumentParams, DidChangeWorkspaceFoldersParams, DidCloseTextDocumentParams,
    DidOpenTextDocumentParams, DidSaveTextDocumentParams, ExecuteCommandOptions,
    ExecuteCommandParams, InitializeParams, InitializeResult, InitializedParams, LSPAny,
    MessageType, OneOf, PositionEncodingKind, Registration, SaveOptions, ServerCapabilities,
    ServerInfo, TextDocumentSyncCapability, TextDocumentSyncKind, TextDocumentSyncOptions,
    TextDocumentSyncSaveOptions, WorkspaceFoldersServerCapabilities, WorkspaceServerCapabilities,
};
use tower_lsp::{Client, LanguageServer, LspServiceBuilder};

use crate::document::Encoding;
use crate::messages::{Ask, COMMANDS, DirtyParams, VERSION};
use crate::sidecar::{Event, Started};
use crate::uri::SCHEME;

pub(crate) struct LspServer {
    client: Client,
    events: mpsc::UnboundedSender<Event>,
    /// What to begin with when the client is ready.
    started: Mutex<Option<Started>>,
    /// The client knows the messages beyond LSP.
    ours: AtomicBool,
    /// The client has asked for the end.
    shut_down: Arc<AtomicBool>,
}

impl LspServer {
    pub(crate) fn new(
        client: Client,
        events: mpsc::UnboundedSender<Event>,
        shut_down: Arc<AtomicBool>,
    ) -> Self {
        Self { client, events, started: Mutex::default(), ours: false.into(), shut_down }
    }

    fn tell(&self, event: Event) {
        // The actor lives as long as this.
        let _ = self.events.send(event);
    }

    /// Asks the actor; the answer may take its time, and keeps nobody else waiting.
    async fn ask(&self, ask: Ask) -> Result<Value> {
        let (reply, answered) = oneshot::channel();
        self.tell(Event::Ask(ask, reply));
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err(failed(message)),
            Err(_) => Err(Error::internal_error()),
        }
    }

    async fn request(&self, name: &'static str, params: Value) -> Result<Value> {
        let ask = Ask::parse(name, params).map_err(Error::invalid_params)?;
        self.ask(ask).await
    }

    pub(crate) async fn did_change_dirty(&self, params: DirtyParams) {
        self.tell(Event::Dirty { uri: params.uri, dirty: params.dirty });
    }
}

/// One method of ours for each thing that can be asked.
macro_rules! asks {
    ($($method:ident $name:literal),* $(,)?) => {
        impl LspServer {
            $(pub(crate) async fn $method(&self, params: Value) -> Result<Value> {
                self.request($name, params).await
            })*
        }

        /// The names of what can be asked, without their prefix.
        #[cfg(test)]
        pub(crate) const ASKS: &[&str] = &[$($name),*];

        /// The service with all of them.
        pub(crate) fn with_asks(
            builder: LspServiceBuilder<LspServer>,
        ) -> LspServiceBuilder<LspServer> {
            builder$(.custom_method(concat!("s0-sync/", $name), LspServer::$method))*
        }
    };
}

asks! {
    state "state",
    attach "attach",
    detach "detach",
    start "start",
    stop "stop",
    resume "resume",
    flush "flush",
    volumes "volumes",
    snapshots "snapshots",
    snapshot "snapshot",
    restore "restore",
    fork "fork",
    agent "agent",
    log "log",
    hunks "hunks",
    keep "keep",
    revert "revert",
    resolve "resolve",
    settle_held "settleHeld",
    compare "compare",
    content "content",
}

fn failed(message: String) -> Error {
    Error { code: ErrorCode::ServerError(-32803), message: message.into(), data: None }
}

fn folders(params: &InitializeParams) -> Vec<String> {
    let folders = params.workspace_folders.iter().flatten();
    let folders: Vec<String> = folders.map(|folder| folder.uri.as_str().to_owned()).collect();
    #[allow(deprecated, reason = "clients without folders say it in this way")]
    let root = params.root_uri.as_ref().map(|uri| uri.as_str().to_owned());
    if folders.is_empty() { root.into_iter().collect() } else { folders }
}

impl LanguageServer for LspServer {
    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult> {
        let ours = params
            .capabilities
            .experimental
            .as_ref()
            .is_some_and(|it| it["s0Sync"]["version"].as_u64().is_some_and(|it| it >= 1));
        self.ours.store(ours, Ordering::SeqCst);
        let encodings = params.capabilities.general.as_ref();
        let encodings = encodings.and_then(|general| general.position_encodings.as_ref());
        let utf8 = encodings.is_some_and(|all| all.contains(&PositionEncodingKind::UTF8));
        let workspace = params.capabilities.workspace.as_ref();
        let refreshes_lenses = workspace
            .and_then(|workspace| workspace.code_lens.as_ref())
            .and_then(|lens| lens.refresh_support)
            .unwrap_or(false);
        let window = params.capabilities.window.as_ref();
        let shows_progress = window.and_then(|window| window.work_done_progress).unwrap_or(false);
        let started = Started {
            folders: folders(&params),
            ours,
            encoding: if utf8 { Encoding::Utf8 } else { Encoding::Utf16 },
            refreshes_lenses,
            shows_progress,
            settings: params.initialization_options.unwrap_or_default(),
        };
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        let commands = COMMANDS.iter().map(ToString::to_string).collect();
        let sync = TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::INCREMENTAL),
            save: Some(TextDocumentSyncSaveOptions::SaveOptions(SaveOptions {
                include_text: Some(false),
            })),
            ..TextDocumentSyncOptions::default()
        };
        let actions = CodeActionOptions {
            code_action_kinds: Some(vec![CodeActionKind::QUICKFIX]),
            ..CodeActionOptions::default()
        };
        let capabilities = ServerCapabilities {
            position_encoding: utf8.then_some(PositionEncodingKind::UTF8),
            text_document_sync: Some(TextDocumentSyncCapability::Options(sync)),
            code_action_provider: Some(CodeActionProviderCapability::Options(actions)),
            code_lens_provider: (!ours).then_some(CodeLensOptions { resolve_provider: None }),
            execute_command_provider: (!ours)
                .then(|| ExecuteCommandOptions { commands, ..ExecuteCommandOptions::default() }),
            workspace: Some(WorkspaceServerCapabilities {
                workspace_folders: Some(WorkspaceFoldersServerCapabilities {
                    supported: Some(true),
                    change_notifications: Some(OneOf::Left(true)),
                }),
                file_operations: None,
            }),
            experimental: Some(json!({ "s0Sync": { "version": VERSION } })),
            ..ServerCapabilities::default()
        };
        Ok(InitializeResult {
            capabilities,
            server_info: Some(ServerInfo {
                name: "s0-sync-lsp".into(),
                version: Some(env!("CARGO_PKG_VERSION").into()),
            }),
            ..InitializeResult::default()
        })
    }

    async fn initialized(&self, _: InitializedParams) {
        // Not before: what a client is told until then never reaches it.
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(started) = started {
            self.tell(Event::Started(started));
        }
        if self.ours.load(Ordering::SeqCst) {
            return;
        }
        let client = self.client.clone();
        tokio::spawn(async move {
            let registration = Registration {
                id: "s0-sync-content".into(),
                method: "workspace/textDocumentContent".into(),
                register_options: Some(json!({ "schemes": [SCHEME] })),
            };
            // A client that does not know it has the texts by other ways.
            if let Err(error) = client.register_capability(vec![registration]).await {
                tracing::debug!(%error, "the client shows no texts of ours");
            }
        });
    }

    async fn shutdown(&self) -> Result<()> {
        self.shut_down.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn did_open(&self, params: DidOpenTextDocumentParams) {
        let document = params.text_document;
        self.tell(Event::Opened {
            uri: document.uri.as_str().to_owned(),
            version: document.version,
            text: document.text,
        });
    }

    async fn did_change(&self, params: DidChangeTextDocumentParams) {
        self.tell(Event::Changed {
            uri: params.text_document.uri.as_str().to_owned(),
            version: params.text_document.version,
            changes: params.content_changes,
        });
    }

    async fn did_save(&self, params: DidSaveTextDocumentParams) {
        self.tell(Event::Saved(params.text_document.uri.as_str().to_owned()));
    }

    async fn did_close(&self, params: DidCloseTextDocumentParams) {
        self.tell(Event::Closed(params.text_document.uri.as_str().to_owned()));
    }

    async fn did_change_configuration(&self, params: DidChangeConfigurationParams) {
        self.tell(Event::Settings(params.settings));
    }

    async fn did_change_workspace_folders(&self, params: DidChangeWorkspaceFoldersParams) {
        let uris = |folders: Vec<tower_lsp::ls_types::WorkspaceFolder>| {
            folders.into_iter().map(|folder| folder.uri.as_str().to_owned()).collect()
        };
        self.tell(Event::Folders {
            added: uris(params.event.added),
            removed: uris(params.event.removed),
        });
    }

    async fn code_action(&self, params: CodeActionParams) -> Result<Option<CodeActionResponse>> {
        let (reply, answered) = oneshot::channel();
        let ours = |it: &tower_lsp::ls_types::Diagnostic| it.source.as_deref() == Some("s0-sync");
        self.tell(Event::Actions {
            uri: params.text_document.uri.as_str().to_owned(),
            range: params.range,
            about: params.context.diagnostics.into_iter().filter(ours).collect(),
            reply,
        });
        Ok(answered.await.ok())
    }

    async fn code_lens(&self, params: CodeLensParams) -> Result<Option<Vec<CodeLens>>> {
        let (reply, answered) = oneshot::channel();
        self.tell(Event::Lenses(params.text_document.uri.as_str().to_owned(), reply));
        Ok(answered.await.ok())
    }

    async fn execute_command(&self, params: ExecuteCommandParams) -> Result<Option<LSPAny>> {
        let Some(name) = COMMANDS
            .iter()
            .find(|name| **name == params.command)
            .and_then(|name| name.strip_prefix("s0-sync."))
        else {
            return Err(Error::invalid_params(format!("there is no command {}", params.command)));
        };
        let argument = params.arguments.into_iter().next().unwrap_or_default();
        match self.request(name, argument).await {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                // Plain clients do not all show why a command failed.
                let (client, message) = (self.client.clone(), error.message.to_string());
                tokio::spawn(async move { client.show_message(MessageType::ERROR, message).await });
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PROTOCOL: &str = include_str!("../../../protocol.md");
    const MESSAGES: &str = include_str!("messages.rs");

    /// FNV-1a, so that the mark in the document does not depend on a library's version.
    fn mark(text: &str) -> String {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("<!-- messages.rs: {hash:016x} -->")
    }

    fn camel(name: &str) -> String {
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |name, part| {
            let (head, tail) = part.split_at(1);
            name + &head.to_uppercase() + tail
        })
    }

    #[tokio::test]
    async fn nothing_is_begun_before_the_client_can_be_told() {
        let (events, mut told) = mpsc::unbounded_channel();
        let (service, _socket) = tower_lsp::LspService::new(|client| {
            LspServer::new(client, events.clone(), Arc::default())
        });
        service.inner().initialize(InitializeParams::default()).await.unwrap();
        assert!(told.try_recv().is_err());
        service.inner().initialized(InitializedParams {}).await;
        assert!(matches!(told.try_recv(), Ok(Event::Started(_))));
    }

    #[test]
    fn the_document_knows_every_message() {
        let section = PROTOCOL.split("## JSON-RPC with the editors").nth(1).unwrap();
        for name in ASKS {
            assert!(
                section.contains(&format!("\"s0-sync/{name}\"")),
                "protocol.md lacks s0-sync/{name}"
            );
        }
        for command in COMMANDS {
            assert!(section.contains(command), "protocol.md lacks the command {command}");
        }
        let fields: BTreeSet<String> = MESSAGES
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub(crate) ")?.split_once(": "))
            .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            .map(|(name, _)| camel(name))
            .collect();
        assert!(fields.len() > 40, "the fields were not found: {fields:?}");
        for field in fields {
            let is_there =
                [":", "?:", ";", " }"].iter().any(|end| section.contains(&format!("{field}{end}")));
            assert!(is_there, "protocol.md lacks the field {field}");
        }
    }

    #[test]
    fn the_document_is_looked_at_when_a_message_changes() {
        let mark = mark(MESSAGES);
        assert!(
            PROTOCOL.contains(&mark),
            "messages.rs has changed: make protocol.md say so, and put this in it: {mark}"
        );
    }
}
