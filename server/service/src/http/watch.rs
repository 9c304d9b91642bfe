//! Changes of files, told over a WebSocket as they are committed.
//!
//! A watcher keeps nothing but its place in the journal and its subscriptions: what it has
//! not told yet lies in the Volume's ring. One who falls behind that is told to look again.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::request::Parts;
use s0_api::documented::{EventType, journal_entry, slashed};
use s0_tree::{Entry, Seq, Tree, TreePath};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::State;
use super::answers::Answered;
use super::asked::{ReadFile, Volume};
use super::document::failures;
use super::files::clean;
use crate::caller::Caller;
use crate::metrics::Open;
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::{Committed, Hot, new_id};

/// The largest message that is heard: a path of 4096 bytes, escaped.
const MAX_MESSAGE: usize = 64 * 1024;
/// How many subscriptions a connection may have.
const MAX_WATCHES: usize = 256;
/// How many entries are told before the client is heard again.
const AT_ONCE: usize = 256;
/// How often a silent connection is tried, and the token looked at.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a client may take to read one message.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that asks for a WebSocket.
pub(super) struct Upgrade(pub(super) WebSocketUpgrade);

impl FromRequestParts<Arc<Service>> for Upgrade {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<Service>) -> Result<Self, Problem> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        let bad = |why| Problem::BadRequest(format!("this is a WebSocket: {why}"));
        upgrade.map(Self).map_err(|rejection| bad(rejection.body_text()))
    }
}

impl OperationInput for Upgrade {
    fn inferred_early_responses(
        ctx: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        failures(ctx, &[400])
    }
}

/// What a client says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    action: String,
    path: String,
    recursive: bool,
    watch_id: String,
}

/// What a client is told.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    Subscribed { watch_id: String, path: String },
    Unsubscribed { watch_id: String },
    Event { watch_id: String, event: EventType, path: String, old_path: String },
    Error { error: String },
}

/// One subscription.
#[derive(Debug)]
struct Watch {
    id: String,
    path: TreePath,
    recursive: bool,
    /// Entries up to this one were there before it.
    since: Seq,
}

impl Watch {
    fn sees(&self, path: &TreePath) -> bool {
        let below = self.recursive && path.is_at_or_below(&self.path);
        self.path.is_root() || *path == self.path || below
    }

    fn event(&self, event: EventType, path: &TreePath, old_path: Option<&TreePath>) -> Told {
        let (path, old_path) = (slashed(path), old_path.map(slashed).unwrap_or_default());
        Told::Event { watch_id: self.id.clone(), event, path, old_path }
    }

    /// What an entry is to this subscription.
    fn told_of(&self, entry: &Entry, tree: &Tree) -> Vec<Told> {
        if entry.seq <= self.since {
            return Vec::new();
        }
        let event = journal_entry(entry, ("", ""), tree, &|_| None).event_type;
        let (path, old) = (&entry.path, entry.old_path.as_ref());
        if event == EventType::Rename {
            let sees = self.sees(path) || old.is_some_and(|old| self.sees(old));
            return sees.then(|| self.event(event, path, old)).into_iter().collect();
        }
        // Of an exchange both paths are to be looked at again.
        let all = std::iter::once(path).chain(old);
        all.filter(|path| self.sees(path)).map(|path| self.event(event, path, None)).collect()
    }
}

pub(super) async fn watch(
    service: State,
    volume: Volume<ReadFile>,
    Upgrade(upgrade): Upgrade,
) -> Answered {
    let Volume { caller, hot, .. } = volume;
    let committed = hot.subscribe();
    let at = committed.borrow().head();
    let closing = service.closing.clone();
    let open = service.metrics.stream();
    let watcher = Watcher { _open: open, service: service.0, caller, hot, at, watches: Vec::new() };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(|socket| watcher.run(Socket(socket), committed, closing)))
}

/// A connection whose client may be slow, but not for ever.
struct Socket(WebSocket);

/// The connection is of no use any more.
struct Ended;

impl Socket {
    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        let sent = timeout(PATIENCE, self.0.send(message)).await;
        sent.map_err(|_| Ended)?.map_err(|_| Ended)
    }

    async fn tell(&mut self, told: &Told) -> Result<(), Ended> {
        let text = serde_json::to_string(told).map_err(|_| Ended)?;
        self.send(Message::Text(text.into())).await
    }

    async fn close(&mut self, code: u16, why: &'static str) {
        // Whoever has hung up already need not be told.
        let _ = self.send(Message::Close(Some(CloseFrame { code, reason: why.into() }))).await;
    }
}

struct Watcher {
    _open: Open,
    service: Arc<Service>,
    caller: Caller,
    hot: Arc<Hot>,
    /// What was told, or came before anybody asked.
    at: Seq,
    watches: Vec<Watch>,
}

impl Watcher {
    async fn run(
        mut self,
        mut socket: Socket,
        mut committed: watch::Receiver<Arc<Committed>>,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut alive = interval(KEEPALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.hot.is_gone() {
                return socket.close(close_code::NORMAL, "the Volume was deleted").await;
            }
            if *closing.borrow_and_update() {
                return socket.close(close_code::AWAY, "the service shuts down").await;
            }
            let now = committed.borrow_and_update().clone();
            let done = tokio::select! {
                heard = socket.0.recv() => match heard {
                    Some(Ok(message)) => self.hear(&mut socket, message, now.head()).await,
                    _ => Err(Ended),
                },
                () = ready(()), if self.at < now.head() => self.news(&mut socket, &now).await,
                changed = committed.changed() => changed.map_err(|_| Ended),
                changed = closing.changed() => changed.map_err(|_| Ended),
                _ = alive.tick() => {
                    if self.service.is_good(&self.caller).await {
                        socket.send(Message::Ping(Vec::new().into())).await
                    } else {
                        return socket.close(close_code::POLICY, "the token has ended").await;
                    }
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn hear(
        &mut self,
        socket: &mut Socket,
        message: Message,
        head: Seq,
    ) -> Result<(), Ended> {
        match message {
            Message::Text(text) => match self.answer(&text, head) {
                Some(told) => socket.tell(&told).await,
                None => Ok(()),
            },
            Message::Binary(_) => socket.tell(&error("messages are text")).await,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => Err(Ended),
        }
    }

    fn answer(&mut self, text: &str, head: Seq) -> Option<Told> {
        let asked: Asked = match super::asked::object(text.as_bytes(), "message") {
            Ok(asked) => asked,
            Err(Problem::BadRequest(why)) => return Some(error(why)),
            Err(_) => return Some(error("the message cannot be read")),
        };
        match asked.action.as_str() {
            "subscribe" => Some(self.subscribe(&asked, head)),
            "unsubscribe" => {
                let at = self.watches.iter().position(|watch| watch.id == asked.watch_id)?;
                Some(Told::Unsubscribed { watch_id: self.watches.swap_remove(at).id })
            }
            _ => Some(error("unsupported action")),
        }
    }

    fn subscribe(&mut self, asked: &Asked, head: Seq) -> Told {
        if self.watches.len() >= MAX_WATCHES {
            return error(format!("a connection has at most {MAX_WATCHES} subscriptions"));
        }
        let Ok(path) = clean(&asked.path) else { return error("invalid path") };
        let (id, since) = (new_id(), head.max(self.at));
        let told = Told::Subscribed { watch_id: id.clone(), path: slashed(&path) };
        self.watches.push(Watch { id, path, recursive: asked.recursive, since });
        told
    }

    /// Tells what came next.
    async fn news(&mut self, socket: &mut Socket, now: &Committed) -> Result<(), Ended> {
        let recent = self.hot.shared.recent(self.at, AT_ONCE);
        for told in self.next(recent, now) {
            socket.tell(&told).await?;
        }
        Ok(())
    }

    /// What the entries that come next are to all subscriptions; none where they are not
    /// in memory any more, and then everything watched is to be looked at again.
    fn next(
        &mut self,
        recent: Option<Vec<Arc<crate::volume::Published>>>,
        now: &Committed,
    ) -> Vec<Told> {
        let Some(recent) = recent.filter(|recent| !recent.is_empty()) else {
            self.at = now.head();
            let all = self.watches.iter().filter(|watch| watch.since < now.head());
            return all
                .map(|watch| watch.event(EventType::Invalidate, &watch.path, None))
                .collect();
        };
        let tree = now.ledger.tree();
        let mut all = Vec::new();
        for published in recent {
            self.at = published.entry.seq;
            all.extend(self.watches.iter().flat_map(|it| it.told_of(&published.entry, tree)));
        }
        all
    }
}

fn error(why: impl Into<String>) -> Told {
    Told::Error { error: why.into() }
}
