//! `s0 sync held`: writes that are not let onto the disk yet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use s0_host::protocol::{Answer, HoldWay, Request};
use s0_replica::engine::{Held as HeldWrite, HoldReason};
use s0_tree::TreePath;
use serde_json::json;

use crate::args::Held;
use crate::context::{Context, Workspace};
use crate::failure::{Done, Failure, code};
use crate::screen::{count, plain, shown, titled};
use crate::sync::{status_of, tree_paths, unexpected};

/// `s0 sync held …`.
pub(crate) async fn held(context: &Context, near: Option<&Path>, command: Held) -> Done {
    let workspace = context.workspace(near)?;
    let (paths, way, done) = match command {
        Held::List => return list(context, &workspace).await,
        Held::Allow { paths } => (paths, HoldWay::Take, "let in"),
        Held::Discard { paths } => (paths, HoldWay::Discard, "discarded"),
        Held::KeepBoth { paths } => (paths, HoldWay::KeepBoth, "put beside what is here"),
    };
    settle(context, &workspace, &paths, way, done).await
}

async fn all(workspace: &Workspace) -> Result<Vec<(TreePath, HeldWrite)>, Failure> {
    let status = status_of(workspace.control().await?.ask(&Request::Status).await?)?;
    Ok(status.report.status.held.into_iter().collect())
}

async fn list(context: &Context, workspace: &Workspace) -> Done {
    let held = all(workspace).await?;
    let as_json: Vec<_> = held
        .iter()
        .map(|(path, held)| {
            let actor = held.actor.as_ref().map(ToString::to_string);
            json!({ "path": path, "why": held.why, "actor": actor, "removed": held.removed })
        })
        .collect();
    context.screen.show(&as_json, || {
        if held.is_empty() {
            return "nothing is held".into();
        }
        let head = ["PATH", "WRITTEN BY", "WHY"];
        let rows = held.iter().map(|(path, held)| {
            let actor = held.actor.as_ref().map_or("not known".into(), ToString::to_string);
            vec![shown(path).to_owned(), actor, why(held).to_owned()]
        });
        titled(&head, rows)
    });
    Ok(ExitCode::SUCCESS)
}

/// Why a write is held, in a few words.
pub(crate) fn why(held: &HeldWrite) -> &'static str {
    match held.why {
        HoldReason::Unsaved => "an editor has unsaved text of it",
        HoldReason::Guarded => "it would run on this machine",
    }
}

async fn settle(
    context: &Context,
    workspace: &Workspace,
    paths: &[PathBuf],
    end: HoldWay,
    done: &str,
) -> Done {
    let paths = tree_paths(workspace, paths)?;
    let chosen: Vec<TreePath> = all(workspace)
        .await?
        .into_iter()
        .map(|(held, _)| held)
        .filter(|held| paths.iter().any(|path| held.is_at_or_below(path)))
        .collect();
    if chosen.is_empty() {
        return Err(Failure::other(
            "nothing is held there; `s0 sync held list` shows what is, and where",
        ));
    }
    let (mut settled, mut text, mut failed) = (Vec::new(), String::new(), false);
    let mut control = workspace.control().await?;
    for path in chosen {
        match control.ask(&Request::SettleHeld { path: path.clone(), end }).await {
            Ok(Answer::HoldSettled { beside }) => {
                if let Some(beside) = &beside {
                    text.push_str(&format!("\n{} holds it", plain(shown(beside))));
                }
                settled.push(json!({ "path": path, "beside": beside }));
            }
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => {
                failed = true;
                text.push_str(&format!("\nstill held: {error}"));
                settled.push(json!({ "path": path, "error": error.to_string() }));
            }
        }
    }
    let number = settled.iter().filter(|it| it.get("error").is_none()).count();
    context
        .screen
        .show(&json!({ "paths": settled }), || format!("{} {done}{text}", count(number, "write")));
    Ok(if failed { ExitCode::from(code::FAILED) } else { ExitCode::SUCCESS })
}
