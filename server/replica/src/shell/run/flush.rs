//! Flush: a barrier. When it is done, all that was written here before it is in
//! the Volume, and all that was in the Volume before it is here.

use std::time::{Duration, Instant};

use s0_tree::{Seq, TreePath};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Command, Event, RunLoop};
use crate::engine::{Condition, Pending};

/// How long the watcher may take to report a cookie.
const COOKIE: Duration = Duration::from_secs(10);
/// How long nothing may move, with conflicts open, before it is said that the
/// rest waits for them.
const STILL: Duration = Duration::from_millis(500);
/// When the head could not be asked for, it is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How many unfinished paths are named.
const NAMED: usize = 1000;

/// A path that is not across, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The path; the root when it is about the workspace as a whole.
    pub path: TreePath,
    /// Why.
    pub why: String,
}

/// How a flush ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Everything is across.
    pub done: bool,
    /// What is not.
    pub unfinished: Vec<Unfinished>,
}

/// The flushes that are waited for.
#[derive(Default)]
pub(super) struct Flushes {
    last: u64,
    waiting: Vec<Flush>,
}

struct Flush {
    number: u64,
    deadline: Instant,
    stage: Stage,
    moved: (Pending, Instant),
    answer: oneshot::Sender<Flushed>,
}

enum Stage {
    /// Until the watcher has reported all that happened before this cookie.
    Cookie(String, Instant),
    /// Until the service has said where the journal ends; it is asked at that time.
    Ask(Instant),
    /// It has been asked.
    Asked,
    /// Until all up to this is here, and all from here is there.
    Across(Seq),
}

impl Flushes {
    /// When something must be looked at even if nothing happens.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let next = |flush: &Flush| match &flush.stage {
            Stage::Cookie(_, until) => flush.deadline.min(*until),
            Stage::Ask(at) => flush.deadline.min(*at),
            Stage::Asked => flush.deadline,
            Stage::Across(_) => flush.deadline.min(Instant::now() + STILL / 4),
        };
        self.waiting.iter().map(next).min()
    }

    pub(super) fn heard_cookie(&mut self, name: &str) {
        for flush in &mut self.waiting {
            if matches!(&flush.stage, Stage::Cookie(cookie, _) if cookie == name) {
                flush.stage = Stage::Ask(Instant::now());
            }
        }
    }

    /// Everything is about to be looked at, which says more than any cookie.
    pub(super) fn will_look(&mut self) {
        for flush in &mut self.waiting {
            if matches!(flush.stage, Stage::Cookie(..)) {
                flush.stage = Stage::Ask(Instant::now());
            }
        }
    }

    pub(super) fn heard_head(&mut self, number: u64, head: Option<Seq>) {
        for flush in self.waiting.iter_mut().filter(|flush| flush.number == number) {
            flush.stage = match head {
                Some(head) => Stage::Across(head),
                None => Stage::Ask(Instant::now() + ASK_AGAIN),
            };
        }
    }
}

impl RunLoop {
    pub(super) fn begin_flush(&mut self, patience: Duration, answer: oneshot::Sender<Flushed>) {
        let now = Instant::now();
        if let Err(stop) = self.look_at_root() {
            self.reload(&stop);
        }
        let watcher = self.watcher.as_ref().filter(|watcher| watcher.is_complete());
        let cookie = watcher.and_then(|watcher| watcher.cookie().ok());
        let stage = match cookie {
            Some(name) => Stage::Cookie(name, now + COOKIE),
            // Nothing proves that the watcher has caught up; a look does.
            None => {
                let _ = self.handle(Event::Rescan(TreePath::root()));
                Stage::Ask(now)
            }
        };
        self.flushes.last += 1;
        self.flushes.waiting.push(Flush {
            number: self.flushes.last,
            deadline: now + patience,
            stage,
            moved: (Pending::default(), now),
            answer,
        });
    }

    /// Moves flushes on, and answers those that are at their end.
    pub(super) fn check_flushes(&mut self) {
        let mut waiting = std::mem::take(&mut self.flushes.waiting);
        waiting.retain(|flush| !flush.answer.is_closed());
        let mut still = Vec::with_capacity(waiting.len());
        for mut flush in waiting {
            match self.check_flush(&mut flush) {
                None => still.push(flush),
                Some(answer) => {
                    let _ = flush.answer.send(answer);
                }
            }
        }
        self.flushes.waiting = still;
    }

    fn check_flush(&mut self, flush: &mut Flush) -> Option<Flushed> {
        let now = Instant::now();
        let Ok(engine) = &self.engine else { return Some(self.unfinished(None)) };
        if engine.status().halt.is_some() {
            return Some(self.unfinished(None));
        }
        if now >= flush.deadline {
            return Some(self.unfinished(Some("not done in the time that was given")));
        }
        match &flush.stage {
            Stage::Cookie(_, until) if now >= *until => {
                tracing::warn!("the watcher did not report a cookie; everything is looked at");
                flush.stage = Stage::Ask(now);
                let _ = self.handle(Event::Rescan(TreePath::root()));
                None
            }
            Stage::Ask(at) if now >= *at => {
                flush.stage = Stage::Asked;
                let _ = self.network.send(Command::Head(flush.number));
                None
            }
            Stage::Across(head) => {
                if engine.remote().is_none_or(|tree| tree.head() < *head) {
                    return None;
                }
                let pending = engine.pending();
                if pending == Pending::default() {
                    return Some(self.unfinished(None));
                }
                if pending != flush.moved.0 {
                    flush.moved = (pending, now);
                }
                let quiet = pending.looks == 0 && now >= flush.moved.1 + STILL;
                (quiet && engine.status().condition == Condition::Blocked)
                    .then(|| self.unfinished(None))
            }
            _ => None,
        }
    }

    /// What is not across now. When `late`, there is something even if no path
    /// can be named.
    fn unfinished(&self, late: Option<&str>) -> Flushed {
        let whole = |why: String| Unfinished { path: TreePath::root(), why };
        let report = self.status();
        let mut unfinished: Vec<Unfinished> = match &self.engine {
            Ok(engine) => engine
                .unfinished(NAMED)
                .into_iter()
                .map(|it| Unfinished { path: it.path, why: it.why })
                .collect(),
            Err(asleep) => vec![whole(asleep.why.clone())],
        };
        if let Some(halt) = &report.status.halt {
            unfinished.insert(0, whole(halt.to_string()));
        }
        if let Some(late) = late {
            if !report.status.connected {
                let why = report.trouble.unwrap_or_else(|| "it is not connected".into());
                unfinished.insert(0, whole(why));
            }
            let awaited = self.engine.as_ref().map(|engine| engine.awaited(NAMED));
            unfinished.extend(awaited.unwrap_or_default().into_iter().map(|path| Unfinished {
                path,
                why: "the Volume's version is not here yet".into(),
            }));
            if unfinished.is_empty() {
                unfinished.push(whole(late.into()));
            }
        }
        Flushed { done: unfinished.is_empty(), unfinished }
    }
}
