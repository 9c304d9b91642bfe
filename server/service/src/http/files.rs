//! Files, by path.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use s0_api::documented::slashed;
use s0_api::times::rfc3339;
use s0_api::volumes::{
    Created, Deleted, FileContent, FileInfo, FileList, FileType, Move, Moved, Restoring, Written,
};
use s0_tree::{
    Action, Actor, AttributeChange, Change, Content, Kind, New, Node, Origin, RenameHow, Source,
    TreePath,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::State;
use super::answers::{Data, Made, Told, ok};
use super::asked::{Incoming, Json, Params, ReadFile, Volume, WriteFile};
use super::posix::{Identity, READ, WRITE};
use super::ranges::{self, Ranged};
use crate::problem::Problem;
use crate::service::now;
use crate::volume::{Draft, Hot, Needs};

/// The largest file that is written by one request, as documented.
const MAX_FILE: u64 = 104_857_600;

/// A path as the file API takes it: trimmed, cleaned lexically, never above the
/// root.
pub(super) fn clean(text: &str) -> Result<TreePath, Problem> {
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

pub(super) fn not_root(path: TreePath) -> Result<TreePath, Problem> {
    if path.is_root() { Err(Problem::bad("invalid path")) } else { Ok(path) }
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

/// Who brings back what was: the user of a replica, or nobody in particular. A sandbox
/// is no user.
pub(super) fn restorer(draft: &Draft, by: &Restoring) -> Result<Origin, Problem> {
    let Some(id) = &by.replica_id else { return Ok(origin(draft)) };
    let replica = draft.ledger.replica(id).ok_or(Problem::NotFound("replica not found"))?;
    if replica.registration.sandbox_id.is_some() {
        return Err(Problem::bad("a sandbox's replica has no user who could restore"));
    }
    let actor = Actor { replica: Some(replica.id.clone()), ..Actor::default() };
    Ok(Origin { source: Source::Replica, actor, ..origin(draft) })
}

/// Which path.
#[derive(Deserialize, JsonSchema)]
pub(super) struct At {
    /// It is cleaned: `.`, `..` and `//` are resolved, never above the root.
    #[schemars(required)]
    path: Option<String>,
}

impl At {
    fn path(&self) -> Result<TreePath, Problem> {
        match self.path.as_deref() {
            None | Some("") => Err(Problem::bad("path is required")),
            Some(text) => clean(text),
        }
    }
}

/// A file as bytes, or in JSON for those who ask for that.
pub(super) enum FileAnswer {
    Bytes(Ranged),
    Json(Data<FileContent>),
}

impl IntoResponse for FileAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Bytes(bytes) => bytes.into_response(),
            Self::Json(data) => data.into_response(),
        }
    }
}

impl OperationOutput for FileAnswer {
    type Inner = FileContent;
    fn inferred_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        let json = Data::<FileContent>::inferred_responses(ctx, operation);
        let mut all = Ranged::inferred_responses(ctx, operation);
        for (status, answer) in json {
            if let Some((_, bytes)) = all.iter_mut().find(|(other, _)| *other == status) {
                bytes.content.extend(answer.content);
            }
        }
        all
    }
}

pub(super) async fn read(
    service: State,
    volume: Volume<ReadFile>,
    Params(at): Params<At>,
    headers: HeaderMap,
) -> Result<FileAnswer, Problem> {
    let path = not_root(at.path()?)?;
    let (content, _) = readable(&volume.hot, &path)?;
    let (holdings, team) = (&service.holdings, volume.team());
    let json = [header::ACCEPT, header::CONTENT_TYPE].iter().any(|name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.contains("application/json"))
    });
    if !json {
        return Ok(FileAnswer::Bytes(ranges::answer(holdings, team, content, &headers).await?));
    }
    if content.size > MAX_FILE {
        return Err(Problem::TooLarge("file too large for JSON; ask for its bytes"));
    }
    let body = holdings.stream(team, content, 0..content.size).await?;
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    let (content, encoding) = (STANDARD.encode(bytes), "base64".into());
    Ok(FileAnswer::Json(Data(FileContent { content, encoding })))
}

/// The content and the mode of a regular file that the Volume's identity may read.
pub(super) fn readable(hot: &Hot, path: &TreePath) -> Result<(Content, u32), Problem> {
    let committed = hot.committed();
    let (uid, gid) = committed.ledger.owner();
    let who = Identity(uid, gid);
    let found = who.find(committed.ledger.tree(), path)?;
    let found = found.ok_or(Problem::NotFound("file not found"))?;
    match &found.1.kind {
        Kind::File(content) => {
            who.may(found, READ)?;
            Ok((*content, found.1.attributes.mode))
        }
        Kind::Directory(_) => Err(Problem::conflict("path is a directory")),
        _ => Err(Problem::conflict("path is not a regular file")),
    }
}

/// What is to be written: a file, or a directory to be made.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Target {
    /// It is cleaned: `.`, `..` and `//` are resolved, never above the root.
    #[schemars(required)]
    path: Option<String>,
    /// Makes a directory, if this is `true`.
    mkdir: Option<String>,
    /// Makes those above it too and takes one that is there, if this is `true`.
    recursive: Option<String>,
}

/// What was done.
pub(super) enum WriteAnswer {
    Written(Data<Written>),
    Created(Made<Created>),
}

impl IntoResponse for WriteAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Written(data) => data.into_response(),
            Self::Created(made) => made.into_response(),
        }
    }
}

impl OperationOutput for WriteAnswer {
    type Inner = Written;
    fn inferred_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<u16>, Described)> {
        let mut all = Data::<Written>::inferred_responses(ctx, operation);
        all.extend(Made::<Created>::inferred_responses(ctx, operation));
        all
    }
}

pub(super) async fn write(
    service: State,
    volume: Volume<WriteFile>,
    Params(Target { path, mkdir, recursive }): Params<Target>,
    Incoming { body, length }: Incoming,
) -> Result<WriteAnswer, Problem> {
    let path = not_root(At { path }.path()?)?;
    let is_true = |text: Option<String>| text.as_deref() == Some("true");
    if is_true(mkdir) {
        let recursive = is_true(recursive);
        let make = move |draft: &mut Draft| make_directory(draft, &path, recursive);
        volume.hot.commit(Needs::default(), make).await??;
        return Ok(WriteAnswer::Created(Made(Created { created: true })));
    }
    if let Some(length) = length {
        check_room(&volume.hot, &path, length)?;
    }
    let taken = service.holdings.take_in(volume.team(), body, MAX_FILE, now()).await?;
    let write = move |draft: &mut Draft| {
        let change = write_of(draft, &path, taken.content, (AttributeChange::default(), true))?;
        draft.append.inline.extend(taken.inline.clone().map(|bytes| (taken.content.id, bytes)));
        apply(draft, &[change])
    };
    volume.hot.commit(Needs::default(), write).await??;
    Ok(WriteAnswer::Written(Data(Written { written: true })))
}

/// Refuses before its bytes are taken in what would be refused after.
fn check_room(hot: &Hot, path: &TreePath, length: u64) -> Result<(), Problem> {
    let committed = hot.committed();
    let (tree, quota) = (committed.ledger.tree(), committed.ledger.quota());
    let replaced = tree.at(path).and_then(|(_, node)| node.content());
    let used = tree.usage();
    let after = used.rewritten(replaced.map_or(0, |content| content.size), length);
    if quota.allows(used, after) { Ok(()) } else { Err(Problem::NoRoom(quota, used)) }
}

/// The change that writes a file, when the Volume's identity may write it.
pub(super) fn write_of(
    draft: &Draft,
    path: &TreePath,
    content: Content,
    (set, make_parents): (AttributeChange, bool),
) -> Result<Change, Problem> {
    let (who, tree) = (Identity::of(draft), draft.ledger.tree());
    match who.find(tree, path)? {
        Some((_, node)) if node.directory().is_some() => {
            return Err(Problem::conflict("path is a directory"));
        }
        Some(found) => who.may(found, WRITE)?,
        None => who.make(tree, path)?,
    }
    let action = Action::Write { path: path.clone(), content, set };
    Ok(Change { make_parents, ..Change::unstated(action) })
}

fn make_directory(
    draft: &mut Draft,
    path: &TreePath,
    recursive: bool,
) -> Result<Result<(), Problem>, Problem> {
    let (who, tree) = (Identity::of(draft), draft.ledger.tree());
    match who.find(tree, path)? {
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
    who.make(tree, path)?;
    let set = AttributeChange::default();
    let action = Action::Create { path: path.clone(), what: New::Directory, set };
    apply(draft, &[Change { make_parents: true, ..Change::unstated(action) }])
}

pub(super) async fn remove(volume: Volume<WriteFile>, Params(at): Params<At>) -> Told<Deleted> {
    let path = not_root(at.path()?)?;
    let remove = move |draft: &mut Draft| {
        let (who, tree) = (Identity::of(draft), draft.ledger.tree());
        let Some(found) = who.find(tree, &path)? else { return Ok(Ok(())) };
        who.remove(tree, &path, found)?;
        let below = tree.walk_below(path.clone(), found.0).map(|(path, _, _)| path);
        // Parents come first, and must go last.
        let mut paths: Vec<TreePath> = std::iter::once(path.clone()).chain(below).collect();
        paths.reverse();
        let removed = |path| Change::unstated(Action::Remove { path });
        apply(draft, &paths.into_iter().map(removed).collect::<Vec<_>>())
    };
    volume.hot.commit(Needs::default(), remove).await??;
    ok(Deleted { deleted: true })
}

pub(super) async fn rename(
    volume: Volume<WriteFile>,
    Json(Move { source, destination }): Json<Move>,
) -> Told<Moved> {
    if source.is_empty() || destination.is_empty() {
        return Err(Problem::bad("source and destination are required"));
    }
    let (from, to) = (not_root(clean(&source)?)?, not_root(clean(&destination)?)?);
    let rename = move |draft: &mut Draft| {
        let (who, tree) = (Identity::of(draft), draft.ledger.tree());
        let found = who.find(tree, &from)?.ok_or(Problem::NotFound("file not found"))?;
        who.unlink(tree, &from, found)?;
        match who.find(tree, &to)? {
            Some(standing) if from != to => match (found.1.directory(), standing.1.directory()) {
                (Some(_), None) => return Err(Problem::conflict("path is not a directory")),
                (None, Some(_)) => return Err(Problem::conflict("path already exists")),
                _ => who.unlink(tree, &to, standing)?,
            },
            _ => who.make(tree, &to)?,
        }
        let action = Action::Rename { from: from.clone(), to: to.clone(), how: RenameHow::Replace };
        apply(draft, &[Change { make_parents: true, ..Change::unstated(action) }])
    };
    volume.hot.commit(Needs::default(), rename).await??;
    ok(Moved { moved: true })
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

pub(super) async fn stat(volume: Volume<ReadFile>, Params(at): Params<At>) -> Told<FileInfo> {
    let path = at.path()?;
    let committed = volume.hot.committed();
    let (uid, gid) = committed.ledger.owner();
    let found = Identity(uid, gid).find(committed.ledger.tree(), &path)?;
    let (_, node) = found.ok_or(Problem::NotFound("file not found"))?;
    ok(info(&path, node))
}

pub(super) async fn list(volume: Volume<ReadFile>, Params(at): Params<At>) -> Told<FileList> {
    let path = at.path()?;
    let committed = volume.hot.committed();
    let (uid, gid) = committed.ledger.owner();
    let (who, tree) = (Identity(uid, gid), committed.ledger.tree());
    let found = who.find(tree, &path)?.ok_or(Problem::NotFound("directory not found"))?;
    let directory = found.1.directory();
    let directory = directory.ok_or_else(|| Problem::conflict("path is not a directory"))?;
    who.may(found, READ)?;
    let entries = directory
        .iter()
        .filter_map(|(name, child)| Some(info(&path.join(name), tree.node(child)?)))
        .collect();
    ok(FileList { entries })
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
