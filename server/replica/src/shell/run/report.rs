//! What the run loop says: to those who ask, to listeners, and to the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s0_tree::Seq;

use super::RunLoop;
use crate::engine::{Condition, Notice, Pending, Progress, Status};

/// The shortest time between two reports of the status to those who listen.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The status, with what only the run loop knows.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The engine's.
    #[serde(flatten)]
    pub status: Status,
    /// What keeps the replica from working as it should, for people: why the
    /// service is not reached, why the state cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What listeners hear.
#[derive(Debug, Clone)]
pub enum News {
    /// Something happened.
    Notice(Notice),
    /// The status is another one.
    Status(Arc<Report>),
}

impl RunLoop {
    /// What is to be said to those who ask.
    pub(super) fn status(&self) -> Report {
        let unwatched = self.is_unwatched().then(|| {
            "the system allows no more watches (on Linux: fs.inotify.max_user_watches and \
             max_user_instances); the workspace is looked through every 10 seconds instead"
                .to_owned()
        });
        match &self.engine {
            Ok(engine) => {
                let status = engine.status();
                let unreachable = self.unreachable.clone().filter(|_| !status.connected);
                Report { status, trouble: unreachable.or(unwatched) }
            }
            Err(asleep) => Report {
                status: Status {
                    condition: Condition::Halted,
                    halt: asleep.halt.clone(),
                    connected: false,
                    cursor: Seq(0),
                    pending: Pending::default(),
                    progress: Progress::default(),
                    conflicts: BTreeMap::new(),
                    problems: BTreeMap::new(),
                    held: BTreeMap::new(),
                    withheld: Vec::new(),
                    ignored_incoming: 0,
                },
                trouble: Some(asleep.why.clone()),
            },
        }
    }

    pub(super) fn report_is_due(&self) -> bool {
        self.reported.is_none() || self.report_at > Instant::now()
    }

    /// Whether what was said last is that something is to be done, and nothing is.
    fn came_to_rest(&self) -> bool {
        let last = self.reported.as_ref().map(|report| report.status.condition);
        last.is_some_and(|last| last != Condition::InSync)
            && self.engine.as_ref().is_ok_and(|engine| engine.is_at_rest())
    }

    /// Tells listeners of a new status, not too often: it costs time to find out. That
    /// all is done is what people wait for.
    pub(super) fn report(&mut self) {
        let begun = Instant::now();
        if self.news.receiver_count() == 0 {
            self.reported = None;
            return;
        }
        if begun < self.report_at && !self.came_to_rest() {
            return;
        }
        let report = self.status();
        if self.reported.as_deref() != Some(&report) {
            let report = Arc::new(report);
            self.reported = Some(report.clone());
            let _ = self.news.send(News::Status(report));
            self.report_at = Instant::now() + REPORT_EVERY.max(begun.elapsed() * 20);
        }
    }
}

/// Writes a notice to the log.
pub(super) fn log(notice: &Notice) {
    let action = |removed: bool| if removed { "removed" } else { "written" };
    match notice {
        Notice::Uploaded { path, removed } => {
            tracing::info!(%path, "uploaded: {}", action(*removed));
        }
        Notice::Applied { path, removed, actor, .. } => {
            let actor = actor.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::info!(%path, actor, "applied: {}", action(*removed));
        }
        Notice::Conflict { path, reason } => tracing::warn!(%path, ?reason, "conflict"),
        Notice::Settled { path, resolution } => tracing::info!(%path, resolution, "settled"),
        Notice::Kept { path, at } => tracing::warn!(%path, %at, "kept beside its path"),
        Notice::DirectoryKept(path) => tracing::warn!(%path, "directory kept"),
        Notice::Problem { path, why } => tracing::warn!(%path, why, "problem"),
        Notice::Halted(halt) => tracing::error!("halted: {halt}"),
        Notice::Connection(true) => tracing::info!("connected"),
        Notice::Connection(false) => tracing::info!("disconnected"),
    }
}
