//! `s0 service`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use s0_service::{Check, Copied, Kind, Report};
use serde_json::json;

use crate::args::Service;
use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::screen::{Screen, Tint, count, tinted};

/// How often progress is told.
const OFTEN: Duration = Duration::from_millis(200);

/// `s0 service …`.
pub(crate) async fn service(context: &Context, command: Service) -> Done {
    match command {
        Service::Fsck { quick, set_aside } => fsck(context, Check { quick, set_aside }).await,
        Service::Backup { directory } => {
            let mut progress = Progress::new(&context.screen);
            let data_dir = &context.data_dir;
            let mut told = |copied: &Copied| progress.tell(|| copying(copied));
            let (made, copied) = s0_service::backup(data_dir, &directory, &mut told).await?;
            let value = json!({ "backup": made, "copied": copied });
            let volumes = count(made.volumes.len(), "Volume");
            let said =
                format!("{volumes} backed up in {}: {}", directory.display(), copying(&copied));
            finish(context, &value, &said, &copied)
        }
        Service::Restore { directory } => {
            let mut progress = Progress::new(&context.screen);
            let data_dir = &context.data_dir;
            let mut told = |copied: &Copied| progress.tell(|| copying(copied));
            let (found, copied) = s0_service::restore(&directory, data_dir, &mut told).await?;
            let value = json!({ "backup": found, "copied": copied });
            let volumes = count(found.volumes.len(), "Volume");
            let said = format!(
                "{volumes} brought back into {}: {}\n`s0 serve` starts the service there; \
                 workspaces then compare what they have with it",
                data_dir.display(),
                copying(&copied)
            );
            finish(context, &value, &said, &copied)
        }
    }
}

fn copying(copied: &Copied) -> String {
    let Copied { contents, new, bytes, .. } = copied;
    let bytes = ByteSize(*bytes).display().si();
    format!("{} ({new} new, {bytes})", count(*contents, "large content"))
}

fn finish(context: &Context, value: &serde_json::Value, said: &str, copied: &Copied) -> Done {
    context.screen.show(value, || said.to_owned());
    if copied.damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for path in &copied.damaged {
        context.screen.warn(format!("{} is damaged, and was not copied", path.display()));
    }
    Err(Failure::other(
        "some contents are damaged; `s0 service fsck` says which files name them, and what to do"
            .to_owned(),
    ))
}

async fn fsck(context: &Context, check: Check) -> Done {
    let mut progress = Progress::new(&context.screen);
    let mut told = |report: &Report| progress.tell(|| looked_at(report));
    let report = s0_service::fsck(&context.data_dir, check, &mut told).await?;
    context.screen.show(&report, || shown(&report));
    if report.findings.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for (kind, way) in WAYS {
        if report.findings.iter().any(|finding| finding.kind == kind) {
            context.screen.warn(way);
        }
    }
    let found = count(report.findings.len(), "finding");
    Err(Failure::other(format!("{found} in {}", context.data_dir.display())))
}

/// What to do about each kind of finding.
const WAYS: [(Kind, &str); 5] = [
    (
        Kind::Store,
        "the database is damaged: stop the service, keep a copy of its directory, and bring a \
         backup back (`s0 service restore`)",
    ),
    (
        Kind::Journal,
        "a journal is damaged: bring a backup back (`s0 service restore`); what workspaces have \
         beyond it goes up again",
    ),
    (
        Kind::Checkpoint,
        "a damaged checkpoint does no harm while an older one is good, and new ones are made by \
         themselves; of a snapshot only a backup has the tree",
    ),
    (Kind::Usage, "the sum of a Volume is put right by the next write to it"),
    (
        Kind::Content,
        "a damaged or missing content comes back when a workspace that still has the file saves it \
         again, after `s0 service fsck --set-aside`; or bring a backup back",
    ),
];

fn looked_at(report: &Report) -> String {
    format!(
        "{}, {}, {}, {}, {} read",
        count(report.volumes, "Volume"),
        count(usize::try_from(report.entries).unwrap_or(usize::MAX), "journal entry"),
        count(report.checkpoints, "checkpoint"),
        count(report.contents, "content"),
        ByteSize(report.bytes).display().si()
    )
}

fn shown(report: &Report) -> String {
    let mut lines = vec![looked_at(report)];
    for finding in &report.findings {
        let at = match (&finding.volume, finding.place.as_str()) {
            (None, _) => "the database".to_owned(),
            (Some(volume), "") => volume.clone(),
            (Some(volume), place) => format!("{volume}: {place}"),
        };
        lines.push(format!("{} {at}: {}", tinted(Tint::Bad, "✗"), finding.why));
    }
    if report.findings.is_empty() {
        lines.push(tinted(Tint::Good, "all is well"));
    }
    lines.join("\n")
}

/// A line at the bottom of a terminal that says how far it is.
struct Progress {
    screen: Screen,
    last: Instant,
}

impl Progress {
    fn new(screen: &Screen) -> Self {
        Self { screen: screen.clone(), last: Instant::now() }
    }

    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.last.elapsed() >= OFTEN {
            self.last = Instant::now();
            self.screen.bottom(text());
        }
    }
}
