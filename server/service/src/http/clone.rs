//! Files of one Volume in another. Contents are shared within a team and never change,
//! so that nothing is copied.

use std::collections::BTreeSet;
use std::sync::Arc;

use s0_api::tokens::Permission;
use s0_api::volumes::{CloneFile, CloneFiles, CloneMode, ClonedFile, ClonedFiles};
use s0_tree::{AttributeChange, Content, TreePath};

use super::State;
use super::answers::{Told, ok};
use super::asked::{Json, Volume, WriteFile};
use super::files::{apply, clean, not_root, readable, write_of};
use super::posix::Identity;
use crate::caller::Caller;
use crate::problem::Problem;
use crate::service::{Service, now};
use crate::volume::{Draft, Needs};

/// How many files one request may name.
const MAX_FILES: usize = 1000;

/// One file on its way.
struct Cloned {
    asked: CloneFile,
    target: TreePath,
    content: Content,
    mode: u32,
}

pub(super) async fn files(
    service: State,
    volume: Volume<WriteFile>,
    Json(asked): Json<CloneFiles>,
) -> Told<ClonedFiles> {
    volume.caller.may(Permission::ReadFile)?;
    if asked.atomic == Some(false) {
        return Err(Problem::bad("only atomic clones are made"));
    }
    if asked.entries.is_empty() || asked.entries.len() > MAX_FILES {
        return Err(Problem::BadRequest(format!("entries are 1 to {MAX_FILES} files")));
    }
    let mut files = Vec::with_capacity(asked.entries.len());
    for file in asked.entries {
        files.push(find(&service, &volume.caller, file).await?);
    }
    let targets: BTreeSet<&TreePath> = files.iter().map(|file| &file.target).collect();
    if targets.len() < files.len() {
        return Err(Problem::bad("two files have the same target_path"));
    }
    let contents = files.iter().map(|file| file.content.id).collect();
    service.holdings.lease(volume.team(), contents, now()).await?;
    let mode = if asked.mode == CloneMode::Copy { "copy" } else { "cow" };
    let files = Arc::new(files);
    let wanted = files.clone();
    let clone = move |draft: &mut Draft| {
        let changes =
            wanted.iter().map(|file| change(draft, file)).collect::<Result<Vec<_>, _>>()?;
        apply(draft, &changes)
    };
    volume.hot.commit(Needs::default(), clone).await??;
    let told = |file: &Cloned| ClonedFile {
        source_volume_id: file.asked.source_volume_id.clone(),
        source_path: file.asked.source_path.clone(),
        target_path: file.asked.target_path.clone(),
        mode: mode.into(),
        size_bytes: file.content.size,
    };
    ok(ClonedFiles { entries: files.iter().map(told).collect() })
}

async fn find(service: &Service, caller: &Caller, asked: CloneFile) -> Result<Cloned, Problem> {
    let target = not_root(clean(&asked.target_path)?)?;
    let source = not_root(clean(&asked.source_path)?)?;
    let hot = service.volume(caller, &asked.source_volume_id).await;
    let hot = hot.map_err(|problem| problem.not_found_as("source volume not found"))?;
    let (content, mode) = readable(&hot, &source)?;
    Ok(Cloned { asked, target, content, mode })
}

fn change(draft: &Draft, file: &Cloned) -> Result<s0_tree::Change, Problem> {
    let Cloned { asked, target, content, mode } = file;
    let tree = draft.ledger.tree();
    let there = Identity::of(draft).find(tree, target)?.is_some();
    if there && !asked.overwrite {
        return Err(Problem::conflict("path already exists"));
    }
    let parent = target.parent().and_then(|parent| tree.lookup(&parent));
    if parent.is_none() && !asked.create_parents {
        return Err(Problem::NotFound("directory not found"));
    }
    let set = if there { AttributeChange::default() } else { AttributeChange::mode(*mode) };
    write_of(draft, target, *content, (set, asked.create_parents))
}
