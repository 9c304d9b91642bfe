//! `s0 sync`, beside attaching and conflicts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use s0_host::protocol::{Answer, Apart, HostStatus, Request};
use s0_host::{AttachmentDir, Control, ControlError};
use s0_replica::engine::Condition;
use s0_tree::{Seq, TreePath};
use serde_json::json;

use crate::args::{Role, Sync};
use crate::attach::{self, Attached, Wanted};
use crate::conflicts;
use crate::context::{ANSWER, Context, Workspace};
use crate::failure::{Done, Failure, code};
use crate::held;
use crate::history;
use crate::live;
use crate::platform;
use crate::screen::{Tint, columns, count, plain, shown, tinted, titled};

/// `s0 sync …`.
pub(crate) async fn sync(context: &Context, near: Option<PathBuf>, command: Sync) -> Done {
    let here = near.as_deref();
    match command {
        Sync::Attach {
            volume,
            directory,
            init_from,
            foreground,
            role,
            sandbox_id,
            pause,
            ignore,
            guard,
            no_guard,
            no_wait,
        } => {
            let directory = directory.or(near).unwrap_or_else(|| PathBuf::from("."));
            let sandbox = role.and(sandbox_id).filter(|_| role == Some(Role::Sandbox));
            let (init, pause) = (init_from.map(Into::into), pause.map(Into::into));
            let volume = Some(volume);
            let guarded = (no_guard || !guard.is_empty()).then_some(guard);
            let wanted = Wanted { volume, directory, init, sandbox, pause, ignore, guarded };
            let attached = attach::make(context, wanted).await?;
            if foreground {
                attach::in_foreground(context, attached).await
            } else {
                attach::in_background(context, attached, !no_wait).await
            }
        }
        Sync::Detach { target, force, purge_state: _ } => {
            attach::detach(context, here, target.as_deref(), force).await
        }
        Sync::List => list(context).await,
        Sync::Status => status(context, here).await,
        Sync::Logs { follow, lines } => logs(context, here, follow, lines).await,
        Sync::Flush { timeout } => flush(context, here, timeout).await,
        Sync::Verify => verify(context, here).await,
        Sync::Held { command } => held::held(context, here, command).await,
        Sync::Conflicts { command } => conflicts::conflicts(context, here, command).await,
        Sync::History { path, limit, no_follow } => {
            history::list(context, here, path, limit, !no_follow).await
        }
        Sync::Show { version, no_follow } => {
            history::show(context, here, version, !no_follow).await
        }
        Sync::Restore { version, seen, no_follow } => {
            history::restore(context, here, version, seen.map(Seq), !no_follow).await
        }
        Sync::Resume { confirm_deletions } => {
            let request = Request::Resume { confirm_deletions };
            let workspace = context.workspace(here)?;
            workspace.control().await?.ask(&request).await?;
            let control = workspace.control().await?;
            let status = live::until_settled(&context.screen, control).await?;
            if context.screen.is_for_programs() {
                context.screen.document(&status);
            }
            Ok(exit_code(&status))
        }
        Sync::Include { paths, all } => include(context, here, &paths, all).await,
        Sync::Forget { paths } => forget(context, here, &paths).await,
        Sync::Start { no_wait } => {
            let attached = Attached::found(context.workspace(here)?);
            attach::in_background(context, attached, !no_wait).await
        }
        Sync::Stop => {
            let workspace = context.workspace(here)?;
            stop_host(&workspace).await?;
            context.screen.show(&json!({ "stopped": true }), || {
                "the host has ended; the workspace stays attached".into()
            });
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a host, for whoever started this process.
pub(crate) async fn host(context: &Context, replica: &str, take_over: bool) -> Done {
    let directory = context.state.attachment(replica);
    s0_host::run(&directory, take_over, platform::asked_to_end()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(context: &Context, near: Option<&Path>, request: &Request) -> Result<Answer, Failure> {
    Ok(context.workspace(near)?.control().await?.ask(request).await?)
}

pub(crate) fn unexpected(answer: &Answer) -> Failure {
    Failure::other(format!("the host answered something else than was asked: {answer:?}"))
}

pub(crate) fn status_of(answer: Answer) -> Result<HostStatus, Failure> {
    match answer {
        Answer::Status(status) => Ok(*status),
        other => Err(unexpected(&other)),
    }
}

/// The exit code that a status stands for.
pub(crate) fn exit_code(status: &HostStatus) -> ExitCode {
    match status.report.status.condition {
        Condition::InSync | Condition::Syncing => ExitCode::SUCCESS,
        Condition::Blocked => ExitCode::from(code::BLOCKED),
        Condition::Halted => ExitCode::from(code::HALTED),
        Condition::Offline => ExitCode::from(code::OFFLINE),
    }
}

async fn status(context: &Context, near: Option<&Path>) -> Done {
    let workspace = context.workspace(near)?;
    let mut control = match Control::connect(&workspace.directory).await {
        Ok(control) => control,
        Err(ControlError::NotRunning) => {
            let attachment = &workspace.attachment;
            let stopped = json!({
                "root": attachment.root,
                "volume_id": attachment.volume_id,
                "replica_id": attachment.replica_id,
                "condition": "stopped",
            });
            context.screen.show(&stopped, || {
                format!(
                    "workspace  {}\nvolume     {}\nstate      no host runs; `s0 sync start` \
                     starts one",
                    attachment.root.display(),
                    attachment.volume_id
                )
            });
            return Ok(ExitCode::from(code::FAILED));
        }
        Err(error) => return Err(error.into()),
    };
    let status = status_of(control.ask(&Request::Status).await?)?;
    show_status(context, &status);
    Ok(exit_code(&status))
}

fn show_status(context: &Context, status: &HostStatus) {
    context.screen.show(status, || {
        let it = &status.report.status;
        let server = status.server.as_deref().unwrap_or("an unknown address");
        let mut rows = vec![
            vec!["workspace".into(), status.root.display().to_string()],
            vec!["volume".into(), format!("{} at {server}", status.volume_id)],
            vec!["state".into(), tinted(live::tint(it.condition), &live::state_line(status))],
            vec!["synced".into(), count(it.progress.synced, "path")],
        ];
        if let Some(sandbox) = &status.sandbox_id {
            rows.insert(2, vec!["stands for".into(), format!("sandbox {sandbox}")]);
        }
        if let Some(halt) = &it.halt {
            rows.push(vec!["halt".into(), halt.to_string()]);
        }
        if let Some(trouble) = &status.report.trouble {
            rows.push(vec!["trouble".into(), trouble.clone()]);
        }
        for (path, conflict) in it.conflicts.iter().take(20) {
            let why = live::reason(conflict.reason);
            rows.push(vec!["conflict".into(), format!("{path}: {why}")]);
        }
        for (path, held) in it.held.iter().take(20) {
            rows.push(vec!["held".into(), format!("{}: {}", shown(path), held::why(held))]);
        }
        for (path, why) in it.problems.iter().take(20) {
            rows.push(vec!["problem".into(), format!("{}: {why}", shown(path))]);
        }
        if !it.withheld.is_empty() {
            let waiting = count(it.withheld.len(), "local path");
            let say = "not uploaded until `s0 sync include`";
            rows.push(vec!["waiting".into(), format!("{waiting} {say}")]);
        }
        if it.ignored_incoming > 0 {
            let ignored = count(it.ignored_incoming, "path");
            rows.push(vec!["ignored".into(), format!("{ignored} of the Volume, by ignore rules")]);
        }
        columns(&rows)
    });
}

async fn list(context: &Context) -> Done {
    let attached = context.state.list()?;
    // All at once: each one that does not answer takes its time.
    let asked = attached.iter().map(|(directory, _)| word_of(directory));
    let words = futures_util::future::join_all(asked).await;
    let mut found = Vec::new();
    for ((_, attachment), word) in attached.iter().zip(words) {
        found.push(json!({
            "root": attachment.root,
            "volume_id": attachment.volume_id,
            "replica_id": attachment.replica_id,
            "running": word.condition != "stopped",
            "pid": word.pid,
            "condition": word.condition,
            "trouble": word.trouble,
        }));
    }
    for (directory, damage) in context.state.damaged()? {
        found.push(json!({
            "root": null,
            "volume_id": null,
            "replica_id": directory.replica(),
            "running": false,
            "pid": null,
            "condition": "damaged",
            "trouble": damage.to_string(),
        }));
    }
    context.screen.show(&found, || {
        if found.is_empty() {
            return "nothing is attached on this machine; `s0 up` attaches the directory you are in"
                .into();
        }
        let head = ["WORKSPACE", "VOLUME", "STATE"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let rows = found.iter().map(|it| {
            let mut state = text(&it["condition"]).replace('_', " ");
            let tint = match &state[..] {
                "in sync" | "syncing" => Tint::Good,
                "halted" | "damaged" | "no answer" => Tint::Bad,
                _ => Tint::Warn,
            };
            if let Some(trouble) = it["trouble"].as_str() {
                state.push_str(&format!(": {trouble}"));
            }
            let state = tinted(tint, &state);
            let root = if it["root"].is_null() { &it["replica_id"] } else { &it["root"] };
            vec![text(root), text(&it["volume_id"]), state]
        });
        titled(&head, rows)
    });
    Ok(ExitCode::SUCCESS)
}

/// How a replica is, in a word.
pub(crate) struct Word {
    pub(crate) condition: String,
    pub(crate) pid: Option<u32>,
    pub(crate) trouble: Option<String>,
}

pub(crate) async fn word_of(directory: &AttachmentDir) -> Word {
    let silent = |pid| Word { condition: "no_answer".into(), pid, trouble: None };
    let mut control = match Control::connect(directory).await {
        Ok(control) => control,
        Err(ControlError::NotRunning) => {
            return Word { condition: "stopped".into(), pid: None, trouble: None };
        }
        Err(ControlError::NoAnswer { pid }) => return silent(pid),
        Err(_) => return silent(None),
    };
    match tokio::time::timeout(ANSWER, control.ask(&Request::Status)).await {
        Ok(Ok(Answer::Status(status))) => Word {
            condition: attach::word(&status.report.status.condition),
            pid: Some(status.pid),
            trouble: status.report.trouble,
        },
        _ => silent(None),
    }
}

async fn logs(context: &Context, near: Option<&Path>, follow: bool, lines: usize) -> Done {
    let workspace = context.workspace(near)?;
    let path = workspace.directory.log();
    let text = s0_host::tail(&path, 0, 4 << 20);
    let all: Vec<&str> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        log_line(context, line)?;
    }
    let mut at = std::fs::metadata(&path).map_or(0, |log| log.len());
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    let end = platform::asked_to_end();
    tokio::pin!(end);
    let mut unfinished = String::new();
    loop {
        tokio::select! {
            () = &mut end => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let len = std::fs::metadata(&path).map_or(0, |log| log.len());
        if len < at {
            // A new log was begun.
            at = 0;
        }
        unfinished.push_str(&s0_host::tail(&path, at, 1 << 20));
        at = len.max(at);
        while let Some((line, rest)) = unfinished.split_once('\n') {
            log_line(context, line)?;
            unfinished = rest.to_owned();
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log_line(context: &Context, line: &str) -> Result<(), Failure> {
    let screen = &context.screen;
    let shown = if screen.is_for_programs() {
        screen.encoded(&json!({ "line": line }))?
    } else {
        format!("{}\n", plain(line))
    };
    screen.bytes(shown.as_bytes())
}

async fn flush(context: &Context, near: Option<&Path>, timeout: f64) -> Done {
    let timeout = Duration::try_from_secs_f64(timeout)
        .map_err(|_| Failure::other("the timeout is not a number of seconds"))?;
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).min(86_400_000);
    let answer = ask(context, near, &Request::Flush { timeout_ms }).await?;
    let Answer::Flushed { done, unfinished, ms } = answer else { return Err(unexpected(&answer)) };
    let unfinished: Vec<_> = unfinished.iter().map(|it| Said::new(&it.path, &it.why)).collect();
    let document = json!({ "done": done, "unfinished": unfinished, "ms": ms });
    context.screen.show(&document, || {
        if done {
            return format!("everything is across ({ms} ms)");
        }
        format!("not everything is across:\n{}", table(&unfinished))
    });
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::from(code::BLOCKED) })
}

/// What is said of a path.
#[derive(serde::Serialize)]
struct Said<'a> {
    path: &'a str,
    why: &'a str,
}

impl<'a> Said<'a> {
    fn new(path: &'a TreePath, why: &'a str) -> Self {
        Self { path: shown(path), why }
    }
}

fn table(said: &[Said<'_>]) -> String {
    let row = |it: &Said<'_>| vec![it.path.to_owned(), it.why.to_owned()];
    columns(&said.iter().map(row).collect::<Vec<_>>())
}

async fn verify(context: &Context, near: Option<&Path>) -> Done {
    context.screen.bottom("reading every file …");
    let answer = ask(context, near, &Request::Verify).await;
    context.screen.bottom("");
    let answer = answer?;
    let Answer::Verified { differences, apart } = answer else { return Err(unexpected(&answer)) };
    let equal = differences.is_empty() && apart.conflicts.is_empty();
    let said: Vec<_> = differences.iter().map(|it| Said::new(&it.path, &it.why)).collect();
    let document = json!({ "equal": equal, "differences": said, "apart": apart });
    context.screen.show(&document, || {
        let mut rows = table(&said);
        let open = apart.conflicts.iter();
        rows.push_str(&table(&open.map(|path| Said::new(path, "in conflict")).collect::<Vec<_>>()));
        let aside = set_apart(&apart);
        match (equal, aside.is_empty()) {
            (true, true) => "this workspace and the Volume are equal".into(),
            (true, false) => format!("this workspace and the Volume are equal, but for {aside}"),
            (false, true) => rows,
            (false, false) => format!("{rows}not compared: {aside}"),
        }
    });
    Ok(match (apart.conflicts.is_empty(), equal) {
        (false, _) => ExitCode::from(code::BLOCKED),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(code::FAILED),
    })
}

/// What a comparison left out because it is meant to differ.
fn set_apart(apart: &Apart) -> String {
    let each = [
        (apart.left.len(), "conflict", "left as it is"),
        (apart.withheld, "local path", "waiting for `s0 sync include`"),
        (apart.ignored, "path", "of the Volume that ignore rules keep away"),
    ];
    let said = each.into_iter().filter(|(number, ..)| *number > 0);
    said.map(|(number, word, why)| format!("{} {why}", count(number, word)))
        .collect::<Vec<_>>()
        .join(", ")
}

async fn include(context: &Context, near: Option<&Path>, paths: &[PathBuf], all: bool) -> Done {
    let workspace = context.workspace(near)?;
    let paths = tree_paths(&workspace, paths)?;
    let answer = workspace.control().await?.ask(&Request::Release { paths }).await?;
    let Answer::Released { count: released } = answer else { return Err(unexpected(&answer)) };
    if released == 0 && !all {
        return Err(Failure::other(
            "no local file waits for your word there; `s0 sync status` says whether any does",
        ));
    }
    context.screen.show(&json!({ "included": released }), || {
        format!("{} on the way to the Volume", count(released, "path"))
    });
    Ok(ExitCode::SUCCESS)
}

async fn forget(context: &Context, near: Option<&Path>, paths: &[PathBuf]) -> Done {
    let workspace = context.workspace(near)?;
    let paths = tree_paths(&workspace, paths)?;
    let answer = workspace.control().await?.ask(&Request::Forget { paths }).await?;
    let Answer::Forgotten { count: forgotten } = answer else { return Err(unexpected(&answer)) };
    context.screen.show(&json!({ "forgotten": forgotten }), || {
        let word = if forgotten == 1 { "is" } else { "are" };
        format!(
            "{} {word} not synced any more; the files here and in the Volume stay",
            count(forgotten, "path")
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// What users call paths, as paths of the Volume. A relative path is looked for
/// below the current directory, if that is in the workspace, else below the root.
pub(crate) fn tree_paths(
    workspace: &Workspace,
    given: &[PathBuf],
) -> Result<Vec<TreePath>, Failure> {
    let root = &workspace.attachment.root;
    let here = std::env::current_dir().and_then(std::fs::canonicalize).unwrap_or_default();
    let base = if here.starts_with(root) { &here } else { root };
    let each = |path: &PathBuf| {
        let inside = below(root, &base.join(path)).ok_or_else(|| {
            Failure::other(format!("{} is not in {}", path.display(), root.display()))
        })?;
        // Nothing is not a path here: it would be the whole workspace.
        let text = inside.to_str().ok_or_else(|| {
            Failure::other(format!("{} is not UTF-8, and so in no Volume", path.display()))
        })?;
        TreePath::new(text).map_err(|error| Failure::other(format!("{}: {error}", path.display())))
    };
    given.iter().map(each).collect()
}

/// The part of a path that is below the root, as it is written or, when a link
/// leads to the root, as it is.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut whole = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                whole.pop();
            }
            std::path::Component::Normal(name) => whole.push(name),
            _ => {}
        }
    }
    if let Ok(inside) = whole.strip_prefix(root) {
        return Some(inside.to_owned());
    }
    // The last name may be a link that is synced itself, or lead to the root.
    let above = s0_host::canonical(whole.parent()?).join(whole.file_name()?);
    let inside = above.strip_prefix(root).map(Path::to_owned);
    inside.or_else(|_| s0_host::canonical(&whole).strip_prefix(root).map(Path::to_owned)).ok()
}

/// Ends the host of a workspace, and waits until it has.
pub(crate) async fn stop_host(workspace: &Workspace) -> Result<(), Failure> {
    Ok(s0_host::host::claim(&workspace.directory).await.map(drop)?)
}
