//! How the attached workspaces are.

use std::path::PathBuf;

use futures_util::future::join_all;

use super::Finding;
use crate::context::Context;
use crate::screen::quoted;
use crate::sync::word_of;

/// What was found, and where they are.
#[derive(Default)]
pub(super) struct Attached {
    pub(super) findings: Vec<Finding>,
    pub(super) roots: Vec<PathBuf>,
}

pub(super) async fn check(context: &Context) -> Attached {
    let mut attached = Attached::default();
    let (all, damaged) = match (context.state.list(), context.state.damaged()) {
        (Ok(all), Ok(damaged)) => (all, damaged),
        (Err(error), _) | (_, Err(error)) => {
            let next = "repair that, or name another place with --state-dir";
            attached.findings.push(Finding::failure("workspace", error.to_string(), next));
            return attached;
        }
    };
    for (directory, damage) in damaged {
        let next =
            format!("`s0 sync detach {}` forgets it; attach again then", directory.replica());
        attached.findings.push(Finding::failure("workspace", damage.to_string(), next));
    }
    let words = join_all(all.iter().map(|(directory, _)| word_of(directory))).await;
    for ((_, attachment), word) in all.into_iter().zip(words) {
        let root = attachment.root;
        let place = quoted(&root);
        let why = word.trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        let found = format!("{}: {}{why}", root.display(), word.condition.replace('_', " "));
        attached.findings.push(match &word.condition[..] {
            "in_sync" | "syncing" => Finding::ok("workspace", found),
            "stopped" => Finding::warning(
                "workspace",
                found,
                format!("`s0 sync start -C {place}` starts it"),
            ),
            "blocked" => Finding::warning(
                "workspace",
                found,
                format!("settle what `s0 sync conflicts list -C {place}` lists"),
            ),
            "halted" => Finding::failure(
                "workspace",
                found,
                format!("`s0 sync status -C {place}` says why, and what to do"),
            ),
            "no_answer" => Finding::failure(
                "workspace",
                found,
                match word.pid {
                    Some(pid) => format!(
                        "`kill -CONT {pid}` lets its host go on if it was stopped; `kill -9 {pid}` \
                     ends it if it hangs, which loses nothing"
                    ),
                    None => format!("its log (`s0 sync logs -C {place}`) may say why"),
                },
            ),
            _ => Finding::failure(
                "workspace",
                found,
                "its service cannot be reached; what is above about the service may say why",
            ),
        });
        attached.roots.push(root);
    }
    attached
}
