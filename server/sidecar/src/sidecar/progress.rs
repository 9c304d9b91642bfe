//! Progress of what takes longer than a moment: seeding, and bringing a Volume down.

use tower_lsp::ls_types::{
    WorkDoneProgress, WorkDoneProgressBegin, WorkDoneProgressEnd, WorkDoneProgressReport,
};

use super::Sidecar;
use crate::messages::{FolderCondition, FolderState};
use crate::outbox::Outgoing;

impl Sidecar {
    /// An attach or a start begins.
    pub(super) fn begin_progress(&mut self, name: &str) {
        let Some(folder) = self.folders.get_mut(name).filter(|_| self.shows_progress) else {
            return;
        };
        if folder.progress.is_some() {
            return;
        }
        self.progresses += 1;
        let token = format!("s0-sync-{}", self.progresses);
        folder.progress = Some((token.clone(), 0));
        let title = format!("s0 sync: {}", folder.path.display());
        self.say(Outgoing::Progress(
            token,
            WorkDoneProgress::Begin(WorkDoneProgressBegin {
                title,
                cancellable: Some(false),
                message: None,
                percentage: Some(0),
            }),
        ));
    }

    /// Says how far it has come, when that is further than before, and when it ends.
    pub(super) fn go_on(&mut self, name: &str, state: &FolderState) {
        let Some(folder) = self.folders.get_mut(name) else { return };
        let Some((token, said)) = folder.progress.clone() else { return };
        let status = folder.view.status.as_ref().map(|status| &status.report.status);
        let progress = status.map(|status| status.progress).unwrap_or_default();
        let message = format!("{} of {} paths", progress.synced, progress.total);
        let goes_on = match state.condition {
            FolderCondition::Starting | FolderCondition::Detached => true,
            FolderCondition::Syncing => status.is_some(),
            _ => false,
        };
        if !goes_on {
            folder.progress = None;
            let end = WorkDoneProgressEnd { message: Some(message) };
            return self.say(Outgoing::Progress(token, WorkDoneProgress::End(end)));
        }
        let percent = progress.synced * 100 / progress.total.max(1);
        let percent = u32::try_from(percent).unwrap_or(100).min(100);
        if percent > said {
            folder.progress = Some((token.clone(), percent));
            let report = WorkDoneProgressReport {
                cancellable: Some(false),
                message: Some(message),
                percentage: Some(percent),
            };
            self.say(Outgoing::Progress(token, WorkDoneProgress::Report(report)));
        }
    }

    /// It failed before it could begin.
    pub(super) fn end_progress(&mut self, name: &str) {
        let ended = self.folders.get_mut(name).and_then(|folder| folder.progress.take());
        if let Some((token, _)) = ended {
            let end = WorkDoneProgressEnd { message: None };
            self.say(Outgoing::Progress(token, WorkDoneProgress::End(end)));
        }
    }
}
