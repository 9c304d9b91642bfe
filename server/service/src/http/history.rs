//! The history of paths: what was there, and bringing it back.

use s0_api::history::{
    PathAt, PathHistory, PathVersion, PathVersionId, RestorePath, RestoredPath, asked_path,
};
use s0_api::times::rfc3339;
use s0_api::volumes::Restoring;
use s0_tree::{
    Action, AttributeChange, Change, Expected, New, NodeId, PathKind, PathState, Seq, Trail, Tree,
    TreePath,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::State;
use super::answers::{Told, ok};
use super::asked::{Json, Params, ReadVolume, Volume, WriteVolume, limited, number};
use super::changes::entries;
use super::files::restorer;
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::{Committed, Hot, Needs, PAGE, unpack};

const NEVER: Problem =
    Problem::NotFound("nothing was at this path, as far as the journal is retained");

/// A reason for which there is nothing to bring back, or to say.
fn no(reason: &str, why: impl Into<String>) -> Problem {
    Problem::Conflict(why.into(), Some(json!({"reason": reason})))
}

fn not_retained(retained_after: Seq, at: Seq) -> Problem {
    let why = format!("entry {at} is gone: the journal is retained after entry {retained_after}");
    let details = json!({"reason": "not_retained", "retained_after_seq": retained_after});
    Problem::Conflict(why, Some(details))
}

/// Which path, and how much of its history.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    /// As it is now, or was last.
    #[schemars(required)]
    path: Option<String>,
    /// Whether its file is followed over renames; unless this is `false`.
    follow: Option<String>,
    /// Only versions before this seq.
    #[serde(default, deserialize_with = "number")]
    before: Option<i64>,
    /// At most how many versions: 256 when absent, at most 2048.
    #[serde(default, deserialize_with = "number")]
    limit: Option<i64>,
}

/// Which path, and when.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Moment {
    /// As it is now, or was last.
    #[schemars(required)]
    path: Option<String>,
    /// Whether its file is followed over renames; unless this is `false`.
    follow: Option<String>,
    /// After this entry.
    #[serde(default, deserialize_with = "number")]
    #[schemars(required)]
    at: Option<i64>,
}

/// The path of a query, and whether it is followed over renames.
fn asked(path: Option<&str>, follow: Option<&str>) -> Result<(TreePath, bool), Problem> {
    let text = path.ok_or_else(|| Problem::bad("path is required"))?;
    let path = asked_path(text).map_err(|why| Problem::bad(format!("invalid path: {why}")))?;
    Ok((not_root(path)?, follow != Some("false")))
}

fn not_root(path: TreePath) -> Result<TreePath, Problem> {
    if path.is_root() { Err(Problem::bad("the root has no history")) } else { Ok(path) }
}

fn seq_of(number: Option<i64>, name: &str) -> Result<Option<Seq>, Problem> {
    let seq = |number: i64| {
        u64::try_from(number).map(Seq).map_err(|_| Problem::bad(format!("{name} is no seq")))
    };
    number.map(seq).transpose()
}

/// A path on its way back through the journal.
struct Walk<'a> {
    service: &'a Service,
    hot: &'a Hot,
    trail: Trail,
    /// Entries up to this one are gone.
    floor: Seq,
}

impl<'a> Walk<'a> {
    fn new(
        service: &'a Service,
        hot: &'a Hot,
        Committed { ledger, retained_after }: &Committed,
        (path, follow): (TreePath, bool),
        (before, limit): (Seq, usize),
    ) -> Self {
        let trail = Trail::new(ledger.tree().clone(), path, follow, before, limit);
        Self { service, hot, trail, floor: *retained_after }
    }

    /// Goes back, page by page, until it is enough or the retained journal begins.
    async fn back(&mut self, is_enough: impl Fn(&Trail) -> bool) -> Result<(), Problem> {
        while self.trail.seq() > self.floor && !is_enough(&self.trail) {
            let at = self.trail.seq();
            let after = Seq(at.0.saturating_sub(PAGE as u64)).max(self.floor);
            let page = entries(self.service, self.hot, after, PAGE, at).await?;
            // What was let go meanwhile is gone from the front.
            self.floor = match page.first() {
                Some(first) if first.seq == after.next() => self.floor,
                Some(first) => Seq(first.seq.0 - 1),
                None => at,
            };
            for entry in page.iter().rev() {
                if is_enough(&self.trail) {
                    break;
                }
                self.trail
                    .take_back(entry)
                    .map_err(|misfit| Problem::Internal(misfit.to_string()))?;
            }
        }
        Ok(())
    }

    /// Finds out what entries did not say of what was found: in older entries, and
    /// where the retained journal begins, in its oldest checkpoint.
    async fn finish(&mut self) -> Result<(), Problem> {
        self.back(Trail::is_known).await?;
        if self.trail.is_known() {
            return Ok(());
        }
        let (journal, volume) = (&self.service.journal, &self.hot.record.id);
        let checkpoints = journal.checkpoints(volume).await?;
        let oldest = checkpoints.into_iter().find(|seq| *seq >= self.trail.seq());
        let Some(oldest) = oldest.filter(|seq| self.trail.could_learn_at(*seq)) else {
            return Ok(());
        };
        if let Some(checkpoint) = journal.checkpoint(volume, oldest).await? {
            self.trail.learn_from(&unpack(checkpoint.packed).await?);
        }
        Ok(())
    }

    /// Goes back to `at`, and finds what was there then, as the last that it finds.
    async fn stop_at(&mut self, at: Seq) -> Result<(), Problem> {
        self.back(|trail| trail.seq() <= at).await?;
        if self.trail.seq() > at || at < self.floor {
            return Err(not_retained(self.floor, at));
        }
        self.trail.mark();
        self.finish().await
    }
}

async fn turn(service: &Service) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
    service.trails.acquire().await.map_err(|closed| Problem::Internal(closed.to_string()))
}

pub(super) async fn list(
    service: State,
    Volume { hot, .. }: Volume<ReadVolume>,
    Params(which): Params<Which>,
) -> Told<PathHistory> {
    let path = asked(which.path.as_deref(), which.follow.as_deref())?;
    let before = seq_of(which.before, "before")?.unwrap_or(Seq(u64::MAX));
    let wanted = (before, limited(which.limit));
    let _turn = turn(&service).await?;
    let committed = hot.committed();
    let mut walk = Walk::new(&service, &hot, &committed, path, wanted);
    walk.back(Trail::is_complete).await?;
    if walk.trail.seq() == walk.floor {
        walk.trail.end();
        if walk.trail.newest().is_none() {
            return Err(NEVER);
        }
    }
    walk.finish().await?;
    let versions = walk.trail.into_versions().into_iter().map(as_told).collect();
    ok(PathHistory { head: committed.head(), retained_after: walk.floor, versions })
}

fn as_told(version: s0_tree::PathVersion) -> PathVersion {
    let s0_tree::PathVersion { seq, made, change, path, state, .. } = version;
    let (time, (source, actor)) = match made {
        Some(made) => (Some(rfc3339(made.time)), (Some(made.source), Some(made.actor))),
        None => (None, (None, None)),
    };
    PathVersion { seq, time, source, actor, change, path, state }
}

pub(super) async fn version(
    service: State,
    Volume { hot, .. }: Volume<ReadVolume>,
    Params(moment): Params<Moment>,
) -> Told<PathAt> {
    let path = asked(moment.path.as_deref(), moment.follow.as_deref())?;
    let at = seq_of(moment.at, "at")?.ok_or_else(|| Problem::bad("at is required"))?;
    let _turn = turn(&service).await?;
    let committed = hot.committed();
    let (walk, path, state) = what_was(&service, &hot, &committed, path, at).await?;
    ok(PathAt { head: committed.head(), retained_after: walk.floor, path, state })
}

/// What a path was after an entry.
async fn what_was<'a>(
    service: &'a Service,
    hot: &'a Hot,
    committed: &Committed,
    path: (TreePath, bool),
    at: Seq,
) -> Result<(Walk<'a>, TreePath, PathState), Problem> {
    if at > committed.head() {
        let head = committed.head();
        return Err(Problem::bad(format!("there is no entry {at} yet; the last one is {head}")));
    }
    let mut walk = Walk::new(service, hot, committed, path, (Seq(0), 0));
    walk.stop_at(at).await?;
    let found = walk.trail.versions().last().map(|it| (it.path.clone(), it.state.clone()));
    let (path, state) = found.ok_or_else(|| Problem::Internal("a trail found nothing".into()))?;
    Ok((walk, path, state))
}

/// Brings a version back by an ordinary entry. What the one who asks has not seen is
/// not written over.
pub(super) async fn restore(
    service: State,
    Volume { hot, .. }: Volume<WriteVolume>,
    Params(by): Params<Restoring>,
    Json(RestorePath { version, seen }): Json<RestorePath>,
) -> Told<RestoredPath> {
    let PathVersionId { path, at, follow } = version;
    let path = not_root(path)?;
    let committed = hot.committed();
    let (state, newest) = {
        let _turn = turn(&service).await?;
        let asked = (path.clone(), follow);
        let (walk, _, state) = what_was(&service, &hot, &committed, asked, at).await?;
        (state, walk.trail.newest())
    };
    // All that came after `at` was looked at, and that is seen at least.
    if let (Some(newest), Some(seen)) = (newest, seen)
        && newest > seen.max(at)
    {
        return Err(changed(newest));
    }
    let tree = committed.ledger.tree();
    let changes = changes(tree, &path, &state)?;
    let expected = version_at(tree, &path);
    let answer = hot
        .commit(Needs::default(), move |draft| {
            let found = version_at(draft.ledger.tree(), &path);
            if found != expected {
                let head = draft.ledger.head();
                return Err(changed(found.map_or(head, |(_, version)| version)));
            }
            let before = draft.ledger.head();
            let origin = restorer(draft, &by)?;
            let applied = draft.admit_whole(&origin, &changes)?;
            let seq = Some(draft.ledger.head()).filter(|head| *head > before);
            let (path, state) = (path.clone(), state.clone());
            Ok(applied.map(|()| RestoredPath { seq, path, state }))
        })
        .await??;
    ok(answer)
}

fn version_at(tree: &Tree, path: &TreePath) -> Option<(NodeId, Seq)> {
    tree.at(path).map(|(id, node)| (id, node.version))
}

fn changed(by: Seq) -> Problem {
    let details = json!({"reason": "concurrent_update", "seq": by});
    Problem::Conflict(format!("the path was changed meanwhile, by entry {by}"), Some(details))
}

/// The changes that make `path` what it was.
fn changes(now: &Tree, path: &TreePath, then: &PathState) -> Result<Vec<Change>, Problem> {
    let gone = || no("not_retained", "what was there then is not retained any more");
    let what = match then.kind {
        PathKind::Absent => return Err(no("absent", "nothing was at the path then")),
        PathKind::Directory => {
            let why = "it was a directory then; a snapshot brings back directories";
            return Err(no("directory", why));
        }
        PathKind::Unknown => return Err(gone()),
        PathKind::File => New::File { content: then.content.ok_or_else(gone)? },
        PathKind::Symlink => New::Symlink { target: then.target.clone().ok_or_else(gone)? },
        PathKind::Fifo => New::Fifo,
    };
    let (path, mode) = (path.clone(), then.mode.filter(|_| then.kind != PathKind::Symlink));
    let set = AttributeChange { mode, ..AttributeChange::default() };
    let Some((id, node)) = now.at(&path) else {
        let create = Change::new(Action::Create { path, what, set }, Expected::Absent);
        return Ok(vec![Change { make_parents: true, ..create }]);
    };
    if node.directory().is_some() {
        return Err(no("in_the_way", "a directory is at the path now; move it away first"));
    }
    let expect = Expected::Node { id, version: node.version };
    match (what, node.content()) {
        (New::File { content }, Some(_)) => {
            Ok(vec![Change::new(Action::Write { path, content, set }, expect)])
        }
        (what, _) if node.kind_value() == what => Ok(Vec::new()),
        // What it is never changes, nor where a link leads: another one takes its place.
        (what, _) => Ok(vec![
            Change::new(Action::Remove { path: path.clone() }, expect),
            Change::new(Action::Create { path, what, set }, Expected::Absent),
        ]),
    }
}
