//! `s0 sync conflicts`.

use std::path::Path;
use std::process::ExitCode;

use s0_host::protocol::{self, Answer, ConflictView, Request, ResolvedPath, Thing, Way};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::args::{Conflicts, Side};
use crate::context::{Context, Workspace};
use crate::failure::{Done, Failure, code};
use crate::live::reason;
use crate::screen::{columns, count, plain, quoted, shown, titled};
use crate::sync::{tree_paths, unexpected};

impl From<Side> for protocol::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Mine => Self::Mine,
            Side::Theirs => Self::Theirs,
            Side::Base => Self::Base,
        }
    }
}

/// `s0 sync conflicts …`.
pub(crate) async fn conflicts(context: &Context, near: Option<&Path>, command: Conflicts) -> Done {
    let workspace = context.workspace(near)?;
    match command {
        Conflicts::List => {
            let conflicts = all(&workspace).await?;
            context.screen.show(&conflicts, || table(&conflicts));
            Ok(ExitCode::SUCCESS)
        }
        Conflicts::Show { path, side } => show(context, &workspace, &path, side).await,
        Conflicts::Mark { paths, all: _, ignore } => {
            let way = if ignore { Way::Ignore } else { Way::Mark };
            resolve(context, &workspace, &paths, way).await
        }
        Conflicts::Resolve { paths, all: _, keep_mine: _, take_theirs, keep_both, merge } => {
            let way = match (take_theirs, keep_both, merge) {
                (true, ..) => Way::TakeTheirs,
                (_, true, _) => Way::KeepBoth,
                (.., true) => Way::Merge,
                _ => Way::KeepMine,
            };
            resolve(context, &workspace, &paths, way).await
        }
    }
}

async fn all(workspace: &Workspace) -> Result<Vec<ConflictView>, Failure> {
    match workspace.control().await?.ask(&Request::Conflicts).await? {
        Answer::Conflicts { conflicts } => Ok(conflicts),
        other => Err(unexpected(&other)),
    }
}

fn table(conflicts: &[ConflictView]) -> String {
    if conflicts.is_empty() {
        return "no conflicts".into();
    }
    let head = ["PATH", "STATUS", "MINE", "THEIRS", "WHY"];
    let rows = conflicts.iter().map(|conflict| {
        vec![
            shown(&conflict.path).to_owned(),
            format!("{:?}", conflict.status).to_lowercase(),
            thing(conflict.mine.as_ref()),
            thing(conflict.theirs.as_ref()),
            reason(conflict.reason).to_owned(),
        ]
    });
    titled(&head, rows)
}

fn thing(thing: Option<&Thing>) -> String {
    match thing {
        None => "nothing".into(),
        Some(Thing::File { size, .. }) => format!("file, {}", count_bytes(*size)),
        Some(Thing::Directory) => "directory".into(),
        Some(Thing::Symlink { target }) => format!("link to {target}"),
    }
}

pub(crate) fn count_bytes(size: u64) -> String {
    if size == 1 { "1 byte".into() } else { format!("{size} bytes") }
}

async fn show(
    context: &Context,
    workspace: &Workspace,
    path: &std::path::PathBuf,
    side: Option<Side>,
) -> Done {
    let path = tree_paths(workspace, std::slice::from_ref(path))?.remove(0);
    if let Some(side) = side {
        let mut content = workspace.control().await?.content(path, side.into()).await?;
        let (mut piece, mut left) = (vec![0; 64 * 1024], content.size);
        loop {
            let read = content.bytes.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read as u64);
            context.screen.bytes(&piece[..read])?;
        }
        if left > 0 {
            return Err(Failure::other(format!("{} are missing at the end", count_bytes(left))));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let found = all(workspace).await?.into_iter().find(|conflict| conflict.path == path);
    let Some(conflict) = found else {
        return Err(Failure::other(format!(
            "there is no conflict at {}; `s0 sync conflicts list` shows those that are",
            plain(shown(&path))
        )));
    };
    context.screen.show(&conflict, || {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rows = columns(&[
            row("path", shown(&conflict.path).to_owned()),
            row("why", reason(conflict.reason).to_owned()),
            row("in the way", shown(&conflict.other).to_owned()),
            row("base", thing(conflict.base.as_ref())),
            row("mine", thing(conflict.mine.as_ref())),
            row("theirs", thing(conflict.theirs.as_ref())),
        ]);
        let path = quoted(Path::new(shown(&path)));
        format!(
            "{rows}\n  s0 sync conflicts show {path} --side theirs      to read a side\n  \
             s0 sync conflicts mark {path}                   to keep the file as it is now\n  \
             s0 sync conflicts resolve {path} --merge        to have what each side changed\n  \
             s0 sync conflicts resolve {path} --take-theirs  to take the Volume's\n  \
             s0 sync conflicts resolve {path} --keep-both    to have both",
        )
    });
    Ok(ExitCode::SUCCESS)
}

async fn resolve(
    context: &Context,
    workspace: &Workspace,
    paths: &[std::path::PathBuf],
    way: Way,
) -> Done {
    let paths = tree_paths(workspace, paths)?;
    let answer = workspace.control().await?.ask(&Request::Resolve { paths, way }).await?;
    let Answer::Resolved { paths } = answer else { return Err(unexpected(&answer)) };
    let failed = paths.iter().filter(|path| path.error.is_some()).count();
    let marked = paths.iter().filter(|path| path.overlaps > 0).count();
    context.screen.show(&json!({ "paths": paths }), || {
        let settled = paths.len() - failed - marked;
        let mut text = format!("{} settled", count(settled, "conflict"));
        for ResolvedPath { path, overlaps, error } in &paths {
            if let Some(error) = error {
                text.push_str(&format!("\nnot settled: {}", plain(error)));
            }
            if *overlaps > 0 {
                text.push_str(&format!(
                    "\n{}: both sides changed {}, marked in the file; edit it, then \
                     `s0 sync conflicts mark {}`",
                    plain(shown(path)),
                    count(*overlaps, "place"),
                    quoted(Path::new(&*plain(shown(path))))
                ));
            }
        }
        text
    });
    Ok(match (failed, marked) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(code::BLOCKED),
        _ => ExitCode::from(code::FAILED),
    })
}
