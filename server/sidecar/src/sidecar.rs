//! The sidecar's one actor: everything that happens comes to it as an event, in
//! order, and nothing in it waits.

mod hunks;
mod progress;
mod slips;
mod trouble;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use s0_host::protocol::FileView;
use s0_tree::TreePath;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tower_lsp::Client;
use tower_lsp::ls_types::{
    CodeActionOrCommand, CodeLens, Diagnostic, MessageType, Range, TextDocumentContentChangeEvent,
};

use crate::asks::{Asked, Place};
use crate::document::{Document, Encoding, Fingerprint};
use crate::folder::{self, Order, Told, View};
use crate::messages::{Ask, Conflict, ConflictStatus, FileHunks, FolderCondition, FolderState};
use crate::outbox::{Outgoing, outbox};
use crate::program::Program;
use crate::settings::Settings;
use crate::show;
use crate::uri::{Text, Version, below, file_of};
use hunks::Shown;

/// Larger files are not compared with their document, in bytes.
const LARGEST: u64 = 16 << 20;

/// An answer on its way.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// Everything that can happen.
pub(crate) enum Event {
    Started(Started),
    Folders {
        added: Vec<String>,
        removed: Vec<String>,
    },
    Settings(Value),
    Opened {
        uri: String,
        version: i32,
        text: String,
    },
    Changed {
        uri: String,
        version: i32,
        changes: Vec<TextDocumentContentChangeEvent>,
    },
    Saved(String),
    Closed(String),
    Dirty {
        uri: String,
        dirty: bool,
    },
    Ask(Ask, Reply<Result<Value, String>>),
    Actions {
        uri: String,
        range: Range,
        about: Vec<Diagnostic>,
        reply: Reply<Vec<CodeActionOrCommand>>,
    },
    Lenses(String, Reply<Vec<CodeLens>>),
    /// A folder's task tells.
    Told(String, Told),
    /// The file of a document was read.
    Disk(String, Option<Fingerprint>),
    /// What slipped under a document was decided.
    SlipSettled(String),
    /// The review of a document's file was asked for.
    File(String, Box<FileView>),
    /// An attach or a start has failed.
    NotBegun(String),
    /// Hunks are to be placed anew after typing.
    Place(String),
    /// Conflicts of a file were compared.
    Diagnosed {
        uri: String,
        of: String,
        diagnostics: Vec<Diagnostic>,
    },
}

/// What a client says at the beginning.
pub(crate) struct Started {
    pub(crate) folders: Vec<String>,
    /// It knows the messages beyond LSP.
    pub(crate) ours: bool,
    pub(crate) encoding: Encoding,
    pub(crate) refreshes_lenses: bool,
    pub(crate) shows_progress: bool,
    pub(crate) settings: Value,
}

/// A workspace folder.
struct Folder {
    path: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    view: View,
    told: Option<FolderState>,
    /// It was looked at, so that what is attached is known.
    is_known: bool,
    unsaved: BTreeSet<TreePath>,
    /// Files with diagnostics, and what they were made of.
    diagnosed: BTreeMap<String, String>,
    /// What is shown of an attach or a start that goes on: a token, and how far it is.
    progress: Option<(String, u32)>,
    /// The user was asked about what is in the way now.
    asked: Option<FolderCondition>,
}

pub(crate) struct Sidecar {
    client: Client,
    outbox: mpsc::UnboundedSender<Outgoing>,
    program: Program,
    me: mpsc::UnboundedSender<Event>,
    ours: bool,
    encoding: Encoding,
    refreshes_lenses: bool,
    shows_progress: bool,
    settings: Settings,
    folders: BTreeMap<String, Folder>,
    documents: HashMap<String, Document>,
    shown: HashMap<String, Shown>,
    /// How many times progress was shown.
    progresses: u64,
    /// What was asked before all folders were looked at.
    early: Vec<(Ask, Reply<Result<Value, String>>)>,
}

impl Sidecar {
    pub(crate) fn new(client: Client, program: Program, me: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            outbox: outbox(client.clone()),
            client,
            program,
            me,
            ours: false,
            encoding: Encoding::Utf16,
            refreshes_lenses: false,
            shows_progress: false,
            settings: Settings::default(),
            folders: BTreeMap::new(),
            documents: HashMap::new(),
            shown: HashMap::new(),
            progresses: 0,
            early: Vec::new(),
        }
    }

    /// Takes in events until nobody can send any.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Started(started) => {
                self.ours = started.ours;
                self.encoding = started.encoding;
                self.refreshes_lenses = started.refreshes_lenses;
                self.shows_progress = started.shows_progress;
                self.take_settings(started.settings);
                started.folders.into_iter().for_each(|folder| self.add_folder(folder));
            }
            Event::Folders { added, removed } => {
                for folder in removed {
                    self.folders.remove(&folder);
                }
                added.into_iter().for_each(|folder| self.add_folder(folder));
                self.answer_early();
            }
            Event::Settings(settings) => self.take_settings(settings),
            Event::Opened { uri, version, text } => {
                self.documents.insert(uri.clone(), Document::new(version, text));
                self.read_file(&uri);
                self.ask_for_hunks(&uri);
            }
            Event::Changed { uri, version, changes } => {
                if let Some(document) = self.documents.get_mut(&uri) {
                    document.change(version, changes, self.encoding);
                    self.tell_unsaved();
                    self.look_at_slips(&uri);
                    self.place_soon(&uri);
                }
            }
            Event::Saved(uri) => self.read_file(&uri),
            Event::Closed(uri) => {
                self.documents.remove(&uri);
                self.shown.remove(&uri);
                self.tell_unsaved();
                self.look_at_slips(&uri);
            }
            Event::Dirty { uri, dirty } => {
                if let Some(document) = self.documents.get_mut(&uri) {
                    document.tell(dirty);
                    self.tell_unsaved();
                    self.look_at_slips(&uri);
                }
            }
            Event::Disk(uri, fingerprint) => {
                if let Some(document) = self.documents.get_mut(&uri) {
                    document.saw_disk(fingerprint);
                    self.tell_unsaved();
                    self.look_at_slips(&uri);
                }
            }
            Event::SlipSettled(uri) => self.forget_slip(&uri),
            Event::Ask(ask, reply) => self.ask(ask, reply),
            Event::Actions { uri, range, about, reply } => {
                let _ = reply.send(self.actions(&uri, range, &about));
            }
            Event::Lenses(uri, reply) => {
                let shown =
                    self.shown.get(&uri).filter(|_| !self.ours && self.settings.review.code_lens);
                let _ =
                    reply.send(shown.map(|shown| show::lenses(&shown.hunks)).unwrap_or_default());
            }
            Event::Told(folder, Told::View(view)) => self.take_view(&folder, *view),
            Event::Told(folder, Told::Applied(items)) => self.applied(&folder, items),
            Event::File(uri, file) => {
                self.shown.entry(uri.clone()).or_default().file = *file;
                self.place(&uri, true);
            }
            Event::NotBegun(folder) => self.end_progress(&folder),
            Event::Place(uri) => {
                if let Some(shown) = self.shown.get_mut(&uri) {
                    shown.placing = false;
                    self.place(&uri, false);
                }
            }
            Event::Diagnosed { uri, of, diagnostics } => {
                let fresh = self.folders.values().any(|it| it.diagnosed.get(&uri) == Some(&of));
                if fresh {
                    self.publish(&uri, diagnostics);
                }
            }
        }
    }

    fn take_settings(&mut self, settings: Value) {
        match Settings::parse(Some(settings)) {
            Ok(settings) => self.settings = settings,
            Err(error) => self.say(Outgoing::Message(MessageType::WARNING, error)),
        }
    }

    fn add_folder(&mut self, uri: String) {
        let Some(path) = file_of(&uri).filter(|_| !self.folders.contains_key(&uri)) else { return };
        let (orders, heed) = mpsc::unbounded_channel();
        let (tell, mut told) = mpsc::unbounded_channel();
        tokio::spawn(folder::follow(path.clone(), self.program.clone(), tell, heed));
        let (me, name) = (self.me.clone(), uri.clone());
        tokio::spawn(async move {
            while let Some(told) = told.recv().await {
                if me.send(Event::Told(name.clone(), told)).is_err() {
                    return;
                }
            }
        });
        let folder = Folder {
            path,
            orders,
            view: View::default(),
            told: None,
            is_known: false,
            unsaved: BTreeSet::new(),
            diagnosed: BTreeMap::new(),
            progress: None,
            asked: None,
        };
        self.folders.insert(uri, folder);
    }

    /// The attached folder of a file, and the file's path in it.
    fn locate(&self, uri: &str) -> Option<(&String, &Folder, TreePath)> {
        let file = file_of(uri)?;
        self.folders.iter().find_map(|(name, folder)| {
            let (_, attachment) = folder.view.attached.as_ref()?;
            Some((name, folder, below(&attachment.root, &file)?))
        })
    }

    fn asked(&self) -> Asked {
        let places = self.folders.iter().map(|(folder, it)| Place {
            folder: folder.clone(),
            path: it.path.clone(),
            attached: it.view.attached.clone(),
        });
        Asked {
            program: self.program.clone(),
            settings: self.settings.clone(),
            places: places.collect(),
        }
    }

    fn ask(&mut self, ask: Ask, mut reply: Reply<Result<Value, String>>) {
        if self.folders.values().any(|folder| !folder.is_known) {
            self.early.push((ask, reply));
            return;
        }
        match &ask {
            Ask::State {} => {
                let folders: Vec<_> =
                    self.folders.keys().filter_map(|name| self.state_of(name)).collect();
                let _ = reply.send(Ok(json!({ "folders": folders })));
                return;
            }
            Ask::Hunks { uri } => {
                let shown = self.shown.get(uri).map(|shown| shown.hunks.clone());
                let none = || FileHunks { uri: uri.clone(), ..FileHunks::default() };
                let _ = reply.send(
                    serde_json::to_value(shown.unwrap_or_else(none)).map_err(|e| e.to_string()),
                );
                return;
            }
            Ask::Compare { uri } => {
                let _ = reply.send(self.comparison(uri));
                return;
            }
            Ask::SettleHeld { folder, path, way } => {
                let Some(left) = self.settle_slip(folder, path, *way, reply) else { return };
                reply = left;
            }
            Ask::Stop { folder } => self.order(folder, Order::Rest),
            _ => {}
        }
        let looks = match &ask {
            Ask::Attach { folder, .. } | Ask::Detach { folder } | Ask::Start { folder } => {
                Some(folder.clone())
            }
            _ => None,
        };
        if let Some(folder) = &looks
            && !matches!(ask, Ask::Detach { .. })
        {
            self.begin_progress(folder);
        }
        let orders =
            looks.as_ref().and_then(|folder| self.folders.get(folder)).map(|it| it.orders.clone());
        let asked = self.asked();
        let me = self.me.clone();
        tokio::spawn(async move {
            let answer = asked.answer(ask).await;
            if let (Err(_), Some(folder)) = (&answer, looks) {
                let _ = me.send(Event::NotBegun(folder));
            }
            if let Some(orders) = orders {
                let _ = orders.send(Order::Look);
            }
            let _ = reply.send(answer);
        });
    }

    /// Asks once more what came too early.
    fn answer_early(&mut self) {
        let early = std::mem::take(&mut self.early);
        early.into_iter().for_each(|(ask, reply)| self.ask(ask, reply));
    }

    /// What a file is compared with: where a decision waits, the other side of it,
    /// else what was last reviewed. The right side can be edited.
    fn comparison(&self, uri: &str) -> Result<Value, String> {
        let elsewhere = || format!("{uri} is in no attached folder");
        let (name, _, path) = self.locate(uri).ok_or_else(elsewhere)?;
        let state = self.state_of(name).ok_or_else(elsewhere)?;
        let open = |it: &Conflict| it.uri == uri && it.status == ConflictStatus::Open;
        let (version, words) = if state.conflicts.iter().any(open) {
            (Version::Theirs, "theirs ⟷ mine")
        } else if state.held.iter().any(|it| it.uri == uri) {
            (Version::Incoming, "incoming ⟷ here")
        } else {
            (Version::Reviewed, "reviewed ⟷ now")
        };
        let file = path.name().map(|name| name.to_string()).unwrap_or_default();
        let left = Text { folder: name.clone(), path, version }.uri();
        Ok(json!({ "left": left, "right": uri, "title": format!("{file}: {words}") }))
    }

    fn order(&self, folder: &str, order: Order) {
        if let Some(folder) = self.folders.get(folder) {
            let _ = folder.orders.send(order);
        }
    }

    /// Says something to the client, after all that was said before.
    fn say(&self, outgoing: Outgoing) {
        let _ = self.outbox.send(outgoing);
    }

    /// Reads the file of a document, to know whether that has unsaved text.
    fn read_file(&self, uri: &str) {
        let Some(file) = file_of(uri).filter(|_| self.documents.contains_key(uri)) else { return };
        let (me, uri) = (self.me.clone(), uri.to_owned());
        tokio::task::spawn_blocking(move || {
            let small =
                std::fs::metadata(&file).is_ok_and(|it| it.is_file() && it.len() <= LARGEST);
            let text = small.then(|| std::fs::read_to_string(&file).ok()).flatten();
            let _ = me.send(Event::Disk(uri, text.map(|text| Fingerprint::of(&text))));
        });
    }

    /// Tells each folder which of its documents have unsaved text.
    fn tell_unsaved(&mut self) {
        let mut by_folder: BTreeMap<String, BTreeSet<TreePath>> = BTreeMap::new();
        for (uri, document) in &self.documents {
            if document.is_unsaved()
                && let Some((folder, _, path)) = self.locate(uri)
            {
                by_folder.entry(folder.clone()).or_default().insert(path);
            }
        }
        for (name, folder) in &mut self.folders {
            let unsaved = by_folder.remove(name).unwrap_or_default();
            if folder.unsaved != unsaved {
                folder.unsaved.clone_from(&unsaved);
                let _ = folder.orders.send(Order::Unsaved(unsaved));
            }
        }
    }

    fn actions(&self, uri: &str, range: Range, about: &[Diagnostic]) -> Vec<CodeActionOrCommand> {
        let mut actions = Vec::new();
        for (name, folder) in &self.folders {
            let Some(state) = &folder.told else { continue };
            let here = |other: &str| same_file(other, uri);
            let open = |it: &&crate::messages::Conflict| it.status == ConflictStatus::Open;
            for conflict in state.conflicts.iter().filter(open).filter(|it| here(&it.uri)) {
                actions.extend(show::conflict_actions(name, conflict, about));
            }
            for held in state.held.iter().filter(|it| here(&it.uri)) {
                actions.extend(show::held_actions(name, held, about));
            }
        }
        if let Some(shown) = self.shown.get(uri) {
            actions.extend(show::hunk_actions(&shown.hunks, range));
        }
        actions
    }
}

/// Whether two URIs name one file, however they are escaped.
fn same_file(a: &str, b: &str) -> bool {
    a == b || file_of(a).is_some_and(|a| file_of(b) == Some(a))
}
