//! Files, by path.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use s0_api::documented::slashed;
use s0_api::times::rfc3339;
use s0_api::volumes::{FileInfo, FileList, FileType, Move};
use s0_tree::{
    Action, AttributeChange, Change, Kind, New, Node, NodeId, Origin, RenameHow, Source, Tree,
    TreePath,
};
use serde_json::json;

use super::{Answered, At, Params, State, Whole, deleted, made, ok, ranges};
use crate::problem::Problem;
use crate::service::{Caller, now};
use crate::volume::{Draft, Needs};

/// The largest file that is written by one request, as documented.
const MAX_FILE: u64 = 104_857_600;

/// A path as the file API takes it: trimmed, cleaned lexically, never above the
/// root.
fn clean(text: &str) -> Result<TreePath, Problem> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.trim().split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    TreePath::of_request(&parts.join("/"))
        .map_err(|error| Problem::BadRequest(format!("invalid path: {error}")))
}

/// The `path` of the query.
fn path_of(params: &Params) -> Result<TreePath, Problem> {
    match params.text("path") {
        None | Some("") => Err(Problem::bad("path is required")),
        Some(text) => clean(text),
    }
}

fn not_root(path: TreePath) -> Result<TreePath, Problem> {
    if path.is_root() { Err(Problem::bad("invalid path")) } else { Ok(path) }
}

/// What is at the path, when all above it are directories.
fn find<'a>(tree: &'a Tree, path: &TreePath) -> Result<Option<(NodeId, &'a Node)>, Problem> {
    for above in path.ancestors() {
        match tree.at(&above) {
            None => return Ok(None),
            Some((_, node)) if node.directory().is_none() => {
                return Err(Problem::conflict("path is not a directory"));
            }
            Some(_) => {}
        }
    }
    Ok(tree.at(path))
}

/// Direct calls of the file API count as the sandbox's side.
fn origin(draft: &Draft) -> Origin {
    let (uid, gid) = draft.ledger.owner();
    Origin { source: Source::Sandbox, time: draft.time, uid, gid, ..Origin::default() }
}

pub(super) fn apply(draft: &mut Draft, changes: &[Change]) -> Result<Result<(), Problem>, Problem> {
    let origin = origin(draft);
    draft.admit_whole(&origin, changes)
}

pub(super) async fn read(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
    headers: HeaderMap,
) -> Answered {
    caller.may("sandboxvolumefile:read")?;
    let path = not_root(path_of(&params)?)?;
    let hot = service.volume(&caller, &id).await?;
    let committed = hot.committed();
    let tree = committed.ledger.tree();
    let (_, node) = find(tree, &path)?.ok_or(Problem::NotFound("file not found"))?;
    let content = match &node.kind {
        Kind::File(content) => *content,
        Kind::Directory(_) => return Err(Problem::conflict("path is a directory")),
        _ => return Err(Problem::conflict("path is not a regular file")),
    };
    let json = [header::ACCEPT, header::CONTENT_TYPE].iter().any(|name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.contains("application/json"))
    });
    if !json {
        return ranges::answer(&service.holdings, &caller.team, content, &headers).await;
    }
    if content.size > MAX_FILE {
        return Err(Problem::TooLarge("file too large for JSON; ask for its bytes"));
    }
    let body = service.holdings.stream(&caller.team, content, 0..content.size).await?;
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    ok(&json!({"content": STANDARD.encode(bytes), "encoding": "base64"}))
}

pub(super) async fn write(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
    body: Body,
) -> Answered {
    caller.may("sandboxvolumefile:write")?;
    let path = not_root(path_of(&params)?)?;
    let hot = service.volume(&caller, &id).await?;
    if params.is_true("mkdir") {
        let recursive = params.is_true("recursive");
        hot.commit(Needs::default(), move |draft| make_directory(draft, &path, recursive))
            .await??;
        return made(&json!({"created": true}));
    }
    let body = body.into_data_stream();
    let taken = service.holdings.take_in(&caller.team, body, MAX_FILE, now()).await?;
    hot.commit(Needs::default(), move |draft| {
        if find(draft.ledger.tree(), &path)?.is_some_and(|(_, node)| node.directory().is_some()) {
            return Err(Problem::conflict("path is a directory"));
        }
        let set = AttributeChange::default();
        let action = Action::Write { path: path.clone(), content: taken.content, set };
        let change = Change { make_parents: true, ..Change::unstated(action) };
        draft.append.inline.extend(taken.inline.clone().map(|bytes| (taken.content.id, bytes)));
        apply(draft, &[change])
    })
    .await??;
    ok(&json!({"written": true}))
}

fn make_directory(
    draft: &mut Draft,
    path: &TreePath,
    recursive: bool,
) -> Result<Result<(), Problem>, Problem> {
    let tree = draft.ledger.tree();
    match find(tree, path)? {
        Some((_, node)) if node.directory().is_none() || !recursive => {
            return Err(Problem::conflict("path already exists"));
        }
        Some(_) => return Ok(Ok(())),
        None => {}
    }
    let parent = path.parent().and_then(|parent| tree.lookup(&parent));
    if parent.is_none() && !recursive {
        return Err(Problem::NotFound("directory not found"));
    }
    let set = AttributeChange::default();
    let action = Action::Create { path: path.clone(), what: New::Directory, set };
    apply(draft, &[Change { make_parents: true, ..Change::unstated(action) }])
}

pub(super) async fn remove(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Answered {
    caller.may("sandboxvolumefile:write")?;
    let path = not_root(path_of(&params)?)?;
    let hot = service.volume(&caller, &id).await?;
    hot.commit(Needs::default(), move |draft| {
        let tree = draft.ledger.tree();
        let Some((node, _)) = find(tree, &path)? else { return Ok(Ok(())) };
        let below = tree.walk_below(path.clone(), node).map(|(path, _, _)| path);
        // Parents come first, and must go last.
        let mut paths: Vec<TreePath> = std::iter::once(path.clone()).chain(below).collect();
        paths.reverse();
        let removed = |path| Change::unstated(Action::Remove { path });
        apply(draft, &paths.into_iter().map(removed).collect::<Vec<_>>())
    })
    .await??;
    deleted()
}

pub(super) async fn rename(
    service: State,
    caller: Caller,
    At(id): At<String>,
    body: Whole,
) -> Answered {
    caller.may("sandboxvolumefile:write")?;
    let Move { source, destination } = body.json()?;
    if source.is_empty() || destination.is_empty() {
        return Err(Problem::bad("source and destination are required"));
    }
    let (from, to) = (not_root(clean(&source)?)?, not_root(clean(&destination)?)?);
    let hot = service.volume(&caller, &id).await?;
    hot.commit(Needs::default(), move |draft| {
        let tree = draft.ledger.tree();
        let (_, node) = find(tree, &from)?.ok_or(Problem::NotFound("file not found"))?;
        if let Some((_, standing)) = find(tree, &to)?
            && from != to
        {
            match (node.directory(), standing.directory()) {
                (Some(_), None) => return Err(Problem::conflict("path is not a directory")),
                (None, Some(_)) => return Err(Problem::conflict("path already exists")),
                _ => {}
            }
        }
        let action = Action::Rename { from: from.clone(), to: to.clone(), how: RenameHow::Replace };
        apply(draft, &[Change { make_parents: true, ..Change::unstated(action) }])
    })
    .await??;
    ok(&json!({"moved": true}))
}

fn info(path: &TreePath, node: &Node) -> FileInfo {
    let (kind, size, link_target) = match &node.kind {
        Kind::File(content) => (FileType::File, content.size, None),
        Kind::Directory(_) => (FileType::Dir, 0, None),
        Kind::Symlink(target) => (FileType::Symlink, target.len() as u64, Some(target.to_string())),
        Kind::Fifo => (FileType::File, 0, None),
    };
    FileInfo {
        name: path.name().map_or_else(|| "/".into(), |name| name.to_string()),
        path: slashed(path),
        kind,
        size,
        mode: format!("{:04o}", node.attributes.mode & 0o777),
        mod_time: rfc3339(node.attributes.mtime),
        is_link: kind == FileType::Symlink,
        link_target,
    }
}

pub(super) async fn stat(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Answered {
    caller.may("sandboxvolumefile:read")?;
    let path = path_of(&params)?;
    let committed = service.volume(&caller, &id).await?.committed();
    let found = find(committed.ledger.tree(), &path)?;
    let (_, node) = found.ok_or(Problem::NotFound("file not found"))?;
    ok(&info(&path, node))
}

pub(super) async fn list(
    service: State,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Answered {
    caller.may("sandboxvolumefile:read")?;
    let path = path_of(&params)?;
    let committed = service.volume(&caller, &id).await?.committed();
    let tree = committed.ledger.tree();
    let found = find(tree, &path)?;
    let (_, node) = found.ok_or(Problem::NotFound("directory not found"))?;
    let directory = node.directory().ok_or_else(|| Problem::conflict("path is not a directory"))?;
    let entries = directory
        .iter()
        .filter_map(|(name, child)| Some(info(&path.join(name), tree.node(child)?)))
        .collect();
    ok(&FileList { entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_never_climb() {
        for (text, cleaned) in [
            ("/a/b", "a/b"),
            (" a//b/ ", "a/b"),
            ("../../a", "a"),
            ("a/../../b", "b"),
            ("/./a/./b/..", "a"),
            ("/", ""),
            ("..", ""),
        ] {
            assert_eq!(clean(text).unwrap().as_str(), cleaned, "{text:?}");
        }
        for bad in ["a\0b", "C:/x", &"x".repeat(300)] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
    }
}
