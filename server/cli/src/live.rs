//! What happens, told as it happens.

use std::time::{Duration, Instant};

use s0_host::protocol::{HostStatus, News};
use s0_host::{Control, ControlError, Feed};
use s0_replica::engine::Condition;
use s0_tree::Reason;

use crate::context::{Context, Workspace};
use crate::failure::Failure;
use crate::screen::{Screen, Tint, count, plain, shown, tinted};

/// How long the service may be out of reach before nobody waits for it.
const OFFLINE: Duration = Duration::from_secs(10);
/// How often it is looked whether waiting still helps.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often progress is told where it cannot be written over.
const PLAIN_PROGRESS: Duration = Duration::from_secs(2);
/// How long a host in this process may take until it can be asked.
const HOST: Duration = Duration::from_secs(20);

/// A conflict's reason in words.
pub(crate) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::ConcurrentUpdate => "both sides changed it unseen",
        Reason::CasefoldCollision => "the name is one with another on some machine",
        Reason::CaseOnlyRenameConflict => "the two names are one on some machine",
        Reason::WindowsReservedName => "Windows reserves the name",
        Reason::WindowsTrailingDotSpace => "Windows cuts off what the name ends in",
        Reason::WindowsForbiddenCharacter => "Windows forbids a character in the name",
        Reason::WindowsControlCharacter => "Windows forbids control characters in names",
        Reason::ParentChanged => "the directory above was moved or removed",
        Reason::DirectoryNotEmpty => "the directory has files that you have not seen",
        Reason::PathTooLong => "the path of something in it would be too long",
    }
}

/// Whether the service was not reached yet, and nothing has failed either. The
/// replica says why it is not connected as soon as it knows of a reason.
fn is_connecting(status: &HostStatus) -> bool {
    status.report.status.condition == Condition::Offline && status.report.trouble.is_none()
}

/// The colour of a state.
pub(crate) fn tint(condition: Condition) -> Tint {
    match condition {
        Condition::InSync | Condition::Syncing => Tint::Good,
        Condition::Offline | Condition::Blocked => Tint::Warn,
        Condition::Halted => Tint::Bad,
    }
}

/// A line of what happens, with its sign in a colour.
fn signed(line: &str) -> String {
    let Some((sign, rest)) = line.split_once(' ') else { return plain(line).into_owned() };
    let tint = if sign == "!" { Tint::Warn } else { Tint::Good };
    format!("{} {}", tinted(tint, sign), plain(rest))
}

/// The state in one line.
pub(crate) fn state_line(status: &HostStatus) -> String {
    let it = &status.report.status;
    let open = it
        .conflicts
        .values()
        .filter(|conflict| conflict.status == s0_replica::state::ConflictStatus::Open)
        .count();
    let mut line = match it.condition {
        Condition::InSync => "in sync".to_owned(),
        Condition::Syncing => "syncing".into(),
        Condition::Offline if is_connecting(status) => "connecting".into(),
        Condition::Offline => "offline; local changes are kept for later".into(),
        Condition::Halted => "halted".into(),
        Condition::Blocked => {
            format!("blocked by {}; see `s0 sync conflicts list`", count(open, "conflict"))
        }
    };
    let pending = &it.pending;
    let mut left = Vec::new();
    if pending.looks > 0 {
        left.push(format!("{} to look at", pending.looks));
    }
    if pending.uploads > 0 {
        left.push(format!("{} to upload", pending.uploads));
    }
    if pending.downloads > 0 {
        left.push(format!("{} to download", pending.downloads));
    }
    if it.condition != Condition::InSync && !left.is_empty() {
        line.push_str(&format!(" ({})", left.join(", ")));
    }
    if it.condition == Condition::Syncing && it.progress.total > it.progress.synced {
        line.push_str(&format!(", {} of {} paths agree", it.progress.synced, it.progress.total));
    }
    line
}

/// Follows a host until both sides are equal, or waiting would not help.
pub(crate) async fn until_settled(
    screen: &Screen,
    control: Control,
) -> Result<HostStatus, Failure> {
    let begun = Instant::now();
    let (mut status, mut feed) = listen(control).await?;
    let mut told = Instant::now();
    loop {
        let it = &status.report.status;
        let line = state_line(&status);
        screen.bottom(format!("{line} …"));
        let still = it.pending.looks + it.pending.downloads > 0;
        let over = match it.condition {
            Condition::InSync | Condition::Halted => true,
            Condition::Blocked => !still,
            Condition::Offline => begun.elapsed() > OFFLINE,
            Condition::Syncing => false,
        };
        if over {
            screen.bottom("");
            let took = begun.elapsed().as_secs_f64();
            let paths = count(it.progress.synced, "path");
            screen.line(format!("{line}: {paths} after {took:.1} s"));
            let why = it.halt.as_ref().map(ToString::to_string).or(status.report.trouble.clone());
            if let Some(why) = why {
                screen.warn(why);
            }
            return Ok(status);
        }
        if !screen.is_terminal() && told.elapsed() > PLAIN_PROGRESS {
            told = Instant::now();
            screen.line(line);
        }
        // A host that waits for the service has no news.
        match tokio::time::timeout(LOOK_AGAIN, feed.next()).await {
            Ok(Ok(News::Status { status: new })) => status = *new,
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => return Err(error.into()),
        }
    }
}

/// Connects to the host of this process as soon as it can be.
pub(crate) async fn follow(workspace: &Workspace) -> Result<(HostStatus, Feed), Failure> {
    let deadline = Instant::now() + HOST;
    loop {
        match Control::connect(&workspace.directory).await {
            Ok(control) => return listen(control).await,
            Err(ControlError::NotRunning) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How it is, and what happens from then on.
async fn listen(control: Control) -> Result<(HostStatus, Feed), Failure> {
    let mut feed = control.subscribe().await?;
    loop {
        if let News::Status { status } = feed.next().await? {
            return Ok((*status, feed));
        }
    }
}

/// Tells what happens in a workspace until its host ends.
pub(crate) async fn tell(context: &Context, workspace: &Workspace) -> Result<(), Failure> {
    let screen = &context.screen;
    let (mut status, mut feed) = follow(workspace).await?;
    if screen.is_for_programs() {
        screen.document(&News::Status { status: Box::new(status.clone()) });
    }
    let (mut state, mut told) = (None, Instant::now());
    let mut trouble = None;
    loop {
        if status.report.trouble != trouble {
            trouble.clone_from(&status.report.trouble);
            if let Some(trouble) = &trouble {
                screen.line(signed(&format!("! {trouble}")));
            }
        }
        let now = (status.report.status.condition, is_connecting(&status));
        if screen.is_terminal() {
            screen.bottom(state_line(&status));
        } else if state != Some(now)
            || (told.elapsed() > PLAIN_PROGRESS
                && status.report.status.condition == Condition::Syncing)
        {
            state = Some(now);
            told = Instant::now();
            screen.line(signed(&format!("= {}", state_line(&status))));
        }
        match feed.next().await {
            Ok(News::Status { status: new }) => {
                if screen.is_for_programs() {
                    screen.document(&News::Status { status: new.clone() });
                }
                status = *new;
            }
            Ok(news) => {
                if screen.is_for_programs() {
                    screen.document(&news);
                } else if let Some(line) = line(&news) {
                    screen.line(signed(&line));
                }
            }
            Err(ControlError::Broken(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// News in one line.
pub(crate) fn line(news: &News) -> Option<String> {
    let gone = |removed: bool| if removed { " (removed)" } else { "" };
    Some(match news {
        News::Uploaded { path, removed } => format!("→ {path}{}", gone(*removed)),
        News::Applied { path, removed, actor } => {
            let by = actor.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
            format!("← {path}{}{by}", gone(*removed))
        }
        News::Conflict { path, reason: why } => format!("! {path}: {}", reason(*why)),
        News::Settled { path, resolution } => {
            format!("✓ {path}: {}", resolution.replace('_', " "))
        }
        News::Kept { path, at } => format!("! {path}: your version is now {at}"),
        News::DirectoryKept { path } => {
            format!("! {path}: removed in the Volume, kept here for what is in it")
        }
        News::Problem { path, why } => format!("! {}: {why}", shown(path)),
        News::Halted { why } => format!("! halted: {why}"),
        News::Connection { connected: true } => "= connected".into(),
        News::Connection { connected: false } => "= the service is out of reach".into(),
        News::Missed { count } => format!("… {count} more"),
        News::Review { .. } | News::Status { .. } => return None,
    })
}
