//! `s0 sync history`, `show` and `restore`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures_util::StreamExt as _;
use s0_api::history::{PathHistory, PathVersion, PathVersionId, RestorePath};
use s0_api::volumes::Restoring;
use s0_api::{Client, Error, times};
use s0_tree::{PathChange, PathKind, PathState, Seq, TreePath};

use crate::args::PathAt;
use crate::conflicts::count_bytes;
use crate::context::{Context, Workspace, known_volume};
use crate::failure::{Done, Failure};
use crate::screen::{plain, quoted, titled};
use crate::sync::tree_paths;

/// How many versions are asked for at once.
const PAGE: usize = 256;

/// A path that somebody asks about.
struct Asked {
    workspace: Workspace,
    client: Client,
    /// As the user wrote it, which is how the next command takes it.
    given: PathBuf,
    path: TreePath,
}

impl Asked {
    fn new(context: &Context, near: Option<&Path>, given: PathBuf) -> Result<Self, Failure> {
        let workspace = context.workspace(near)?;
        let path = tree_paths(&workspace, std::slice::from_ref(&given))?.remove(0);
        if path.is_root() {
            return Err(Failure::other(
                "the workspace as a whole has no versions; name a path in it, or see \
                 `s0 volume snapshot --help`",
            ));
        }
        Ok(Self { client: workspace.client()?, workspace, given, path })
    }

    fn volume(&self) -> &str {
        &self.workspace.attachment.volume_id
    }

    fn version(&self, at: Seq, follow: bool) -> PathVersionId {
        PathVersionId { path: self.path.clone(), at, follow }
    }

    /// The path as the user calls it.
    fn name(&self) -> String {
        plain(&self.given.to_string_lossy()).into_owned()
    }

    /// What the service refused, and what to do.
    fn refused(&self, error: Error) -> Failure {
        let Error::Conflict { message, details } = &error else { return error.into() };
        let reason = details.as_ref().and_then(|all| all.get("reason")?.as_str());
        let (name, list) = (self.name(), self.list_command());
        let said = match reason {
            Some("concurrent_update") => {
                let seq = details.as_ref().and_then(|all| all.get("seq")?.as_u64()).unwrap_or(0);
                format!(
                    "{name} was changed by entry {seq}, which was not seen, and nothing was \
                     written; {list} shows by whom"
                )
            }
            Some("absent") => {
                format!(
                    "nothing was at {name} then, so nothing can be brought back; {list} shows when there was"
                )
            }
            Some("directory") => format!(
                "{name} was a directory then; restore the files in it one by one, or all of the \
                 Volume with `s0 volume snapshot restore`"
            ),
            Some("in_the_way") => {
                format!("a directory is at {name} now; move it away, then restore again")
            }
            Some("not_retained") => format!("{message}; {list} shows what there is"),
            _ => return error.into(),
        };
        Failure::from(error).saying(said)
    }

    fn list_command(&self) -> String {
        format!("`s0 sync history {}`", quoted(Path::new(&self.name())))
    }
}

/// `s0 sync history …`.
pub(crate) async fn list(
    context: &Context,
    near: Option<&Path>,
    path: PathBuf,
    limit: usize,
    follow: bool,
) -> Done {
    let asked = Asked::new(context, near, path)?;
    // One more says whether there are more.
    let mut history = match read(&asked, limit.saturating_add(1), follow).await {
        Err(Error::NotFound(_)) => {
            known_volume(&asked.client, asked.volume()).await?;
            return Err(Failure::other(format!(
                "nothing was ever at {} in the Volume, as far back as its journal is retained",
                asked.name()
            )));
        }
        read => read?,
    };
    let has_more = history.versions.len() > limit;
    history.versions.truncate(limit);
    context.screen.show(&history, || {
        let mut text = table(&history, &asked.workspace.attachment.replica_id);
        if has_more {
            text.push_str(&format!("older ones: -n {}\n", limit.saturating_mul(2).max(20)));
        }
        text + &ways_on(&history, &asked)
    });
    Ok(ExitCode::SUCCESS)
}

/// The newest versions, page by page.
async fn read(asked: &Asked, limit: usize, follow: bool) -> Result<PathHistory, Error> {
    let Asked { client, path, .. } = asked;
    let mut all: Option<PathHistory> = None;
    loop {
        let known = all.as_ref().map_or(&[][..], |all| &all.versions);
        let (before, ask) = (known.last().map(|last| last.seq), PAGE.min(limit - known.len()));
        let page = client.path_history(asked.volume(), path, follow, before, ask).await?;
        let is_last = page.versions.len() < ask;
        let mut read = all.take().unwrap_or(PathHistory { versions: Vec::new(), ..page });
        read.versions.extend(page.versions);
        if is_last || read.versions.len() >= limit {
            return Ok(read);
        }
        all = Some(read);
    }
}

fn table(history: &PathHistory, replica: &str) -> String {
    let head = ["SEQ", "WHEN", "WHO", "WHAT", "HOLDS"];
    let rows = history.versions.iter().map(|version| {
        let time = version.time.as_deref().and_then(times::parse).map(times::fixed);
        let who = version.actor.as_ref().map(|actor| match &actor.replica {
            Some(own) if **own == *replica && actor.sandbox.is_none() => "this workspace".into(),
            _ => actor.to_string(),
        });
        let nobody = || "-".to_owned();
        vec![
            version.seq.to_string(),
            time.unwrap_or_else(nobody),
            who.unwrap_or_else(nobody),
            change(&version.change),
            holds(&version.state),
        ]
    });
    titled(&head, rows)
}

fn change(change: &PathChange) -> String {
    match change {
        PathChange::Created => "created".into(),
        PathChange::Linked => "linked".into(),
        PathChange::Written => "written".into(),
        PathChange::Attributes => "attributes".into(),
        PathChange::Renamed { from } => format!("renamed from {from}"),
        PathChange::RenamedAway { to } => format!("renamed to {to}"),
        PathChange::Removed => "removed".into(),
        PathChange::Earlier => "was so before all that is retained".into(),
    }
}

fn holds(state: &PathState) -> String {
    match (state.kind, state.content, &state.target) {
        (PathKind::Absent, ..) => "nothing".into(),
        (PathKind::File, Some(content), _) => count_bytes(content.size),
        (PathKind::File | PathKind::Unknown, ..) => "not retained".into(),
        (PathKind::Symlink, _, target) => {
            format!("link to {}", target.as_deref().unwrap_or_default())
        }
        (PathKind::Directory, ..) => "directory".into(),
        (PathKind::Fifo, ..) => "fifo".into(),
    }
}

/// The commands that go on from a list, for a version that is not the newest.
fn ways_on(history: &PathHistory, asked: &Asked) -> String {
    let can_be_shown = |version: &&PathVersion| {
        version.state.content.is_some() || version.state.kind == PathKind::Symlink
    };
    let Some(older) = history.versions.iter().skip(1).find(can_be_shown) else {
        return String::new();
    };
    let version = quoted(Path::new(&format!("{}@{}", asked.name(), older.seq)));
    format!(
        "\n  s0 sync show {version}     to read it\n  s0 sync restore {version}  to bring it back"
    )
}

/// `s0 sync show …`.
pub(crate) async fn show(
    context: &Context,
    near: Option<&Path>,
    PathAt { path, seq }: PathAt,
    follow: bool,
) -> Done {
    let asked = Asked::new(context, near, path)?;
    let found = asked.client.path_at(asked.volume(), &asked.version(seq, follow)).await;
    let found = found.map_err(|error| asked.refused(error))?;
    let (name, list) = (asked.name(), asked.list_command());
    let cannot = |why: String| Err(Failure::other(format!("{why}; {list} shows what there is")));
    match (found.state.kind, found.state.content, found.state.target) {
        (PathKind::File, Some(content), _) => {
            let mut bytes = asked.client.content(asked.volume(), content.id, None).await?;
            while let Some(piece) = bytes.next().await {
                context.screen.bytes(&piece?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        (PathKind::Symlink, _, Some(target)) => {
            context.screen.bytes(target.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        (PathKind::Absent, ..) => cannot(format!("nothing was at {name} after entry {seq}")),
        (PathKind::Directory, ..) => cannot(format!("{name} was a directory, not a file")),
        (PathKind::Fifo, ..) => cannot(format!("{name} was a fifo, not a file")),
        _ => cannot(format!("what {name} held after entry {seq} is not retained any more")),
    }
}

/// `s0 sync restore …`.
pub(crate) async fn restore(
    context: &Context,
    near: Option<&Path>,
    PathAt { path, seq }: PathAt,
    seen: Option<Seq>,
    follow: bool,
) -> Done {
    let asked = Asked::new(context, near, path)?;
    let restore = RestorePath { version: asked.version(seq, follow), seen };
    let restoring = Restoring { replica_id: context.replica_of(asked.volume())? };
    let done = asked.client.restore_path(asked.volume(), &restore, &restoring).await;
    let done = done.map_err(|error| asked.refused(error))?;
    context.screen.show(&done, || {
        let name = asked.name();
        match done.seq {
            Some(by) => format!(
                "{name} holds what it held after entry {seq} ({}), by entry {by}; attached \
                 workspaces follow",
                holds(&done.state)
            ),
            None => format!("{name} holds that already; nothing was written"),
        }
    });
    Ok(ExitCode::SUCCESS)
}
