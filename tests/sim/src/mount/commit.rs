//! What was written to a file becomes an entry, and names change: as `commit.rs` and `names.rs`
//! of `server/mount` do it, step by step, with everything else in between.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use s0_api::sync::Outcome;
use s0_mount::simulated::{
    AGAIN, Ask, Asked, Commit, Failure, IO, NO_ROOM, NOT_FOUND, Piece, STALE, Slot, TIMED_OUT,
    failure_of,
};
use s0_tree::{Action, Change, Content, ContentId, NodeId, Seq};

use super::{Done, Handle, Order, Wanted, pause, within};

/// How often an operation is tried that others were faster than.
const TRIES: usize = 32;

type Taken = Rc<Cell<Option<u64>>>;

/// How a file was closed.
pub(super) enum Closed {
    /// The service has it, and nobody else could look.
    Taken(u64),
    /// It is in the journal, and seen; or there was nothing to commit.
    Committed,
}

/// Has a change committed.
async fn submit(
    mount: &Handle,
    change: Change,
    inline: Option<(ContentId, Arc<[u8]>)>,
    taken: Option<Taken>,
    keeps: bool,
) -> Result<Done, Failure> {
    let done = Rc::new(RefCell::new(None));
    let wanted = Wanted { change, inline, taken, done: done.clone(), keeps };
    mount.borrow_mut().orders.push_back(Order::Change(Box::new(wanted)));
    within(mount, |_| done.borrow_mut().take()).await?
}

async fn settle(mount: &Handle, seq: Seq) -> Result<(), Failure> {
    within(mount, |mount| (mount.settled >= seq).then_some(())).await
}

pub(super) async fn commit_and_settle(mount: &Handle, ino: u64) -> Result<(), Failure> {
    match commit(mount, ino).await? {
        Some(seq) => {
            settle(mount, seq).await?;
            mount.borrow_mut().closed.push(seq);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Commits a file that is closed.
pub(super) async fn commit_for_close(mount: &Handle, ino: u64) -> Result<Closed, Failure> {
    let taken: Taken = Rc::default();
    let ended: Rc<RefCell<Option<Result<(), Failure>>>> = Rc::default();
    let (core, is_taken, end) = (mount.clone(), taken.clone(), ended.clone());
    mount.borrow_mut().spawned.push(Box::pin(async move {
        let done = match commit_telling(&core, ino, &mut Some(is_taken)).await {
            Ok(Some(seq)) => settle(&core, seq).await.inspect(|()| {
                core.borrow_mut().closed.push(seq);
            }),
            Ok(None) => Ok(()),
            Err(failure) => {
                core.borrow_mut().failures.insert(ino, failure);
                Err(failure)
            }
        };
        end.replace(Some(done));
    }));
    loop {
        if let Some(number) = taken.get() {
            return Ok(Closed::Taken(number));
        }
        if let Some(done) = ended.borrow_mut().take() {
            mount.borrow_mut().failures.remove(&ino);
            return done.map(|()| Closed::Committed);
        }
        pause().await;
    }
}

/// Commits what was written to a file.
pub(super) async fn commit(mount: &Handle, ino: u64) -> Result<Option<Seq>, Failure> {
    commit_telling(mount, ino, &mut None).await
}

async fn commit_telling(
    mount: &Handle,
    ino: u64,
    taken: &mut Option<Taken>,
) -> Result<Option<Seq>, Failure> {
    while !mount.borrow_mut().turns.insert(ino) {
        pause().await;
    }
    let done = commit_in_turn(mount, ino, taken).await;
    mount.borrow_mut().turns.remove(&ino);
    done
}

async fn commit_in_turn(
    mount: &Handle,
    ino: u64,
    taken: &mut Option<Taken>,
) -> Result<Option<Seq>, Failure> {
    let until = {
        let mount = mount.borrow();
        mount.now + mount.patience
    };
    while mount.borrow().now < until {
        let Some(commit) = mount.borrow_mut().files.begin_commit(ino) else { return Ok(None) };
        match try_commit(mount, ino, &commit, taken).await {
            Ok(Some(seq)) => return Ok(Some(seq)),
            Ok(None) => {
                mount.borrow_mut().counted.push("mount's commit stale");
                mount.borrow_mut().files.abandon_commit(ino);
            }
            Err(AGAIN) => {
                mount.borrow_mut().files.abandon_commit(ino);
                pause().await;
            }
            Err(TIMED_OUT) => {
                mount.borrow_mut().counted.push("mount's commit given up");
                mount.borrow_mut().files.give_up_commit(ino);
                return Err(TIMED_OUT);
            }
            Err(failure) => {
                mount.borrow_mut().note(&format!("cannot commit {ino}: {failure}"));
                if failure == NOT_FOUND {
                    mount.borrow_mut().lost_its_directory(ino);
                }
                mount.borrow_mut().files.abandon_commit(ino);
                return Err(failure);
            }
        }
    }
    Err(TIMED_OUT)
}

async fn try_commit(
    mount: &Handle,
    ino: u64,
    commit: &Commit,
    taken: &mut Option<Taken>,
) -> Result<Option<Seq>, Failure> {
    let keeps = !mount.borrow().cuts.contains(&ino);
    let bytes = describe(mount, ino, commit).await?;
    let content = Content::of(&bytes);
    mount.borrow_mut().contents.insert(content.id, Rc::from(&*bytes));
    let change = mount.borrow_mut().files.commit_change(ino, commit, content)?;
    let Some(change) = change else { return Ok(Some(Seq(0))) };
    let inline = Some((content.id, Arc::from(&*bytes)));
    let done = submit(mount, change, inline, taken.take(), keeps).await?;
    match done.outcome {
        Outcome::Accepted { node, .. } => {
            mount.borrow_mut().files.end_commit(ino, commit, content, Some(node));
            Ok(Some(done.head))
        }
        Outcome::Held { node: Some(node), .. } => {
            if !mount.borrow_mut().files.end_commit(ino, commit, content, Some(node)) {
                return Ok(None);
            }
            let time = mount.borrow().files.time_change(ino, commit);
            let Some(change) = time else { return Ok(Some(done.head)) };
            Ok(Some(submit(mount, change, None, None, false).await?.head))
        }
        Outcome::Conflict { reason, .. } => {
            let mount = &mut *mount.borrow_mut();
            mount.counted.push("mount's commit a conflict");
            mount.files.end_commit(ino, commit, content, None);
            if reason.is_about_names() {
                // Whoever closes it is told so.
                mount.lines.borrow_mut().give_up(&bytes);
            }
            Err(if reason.is_about_names() { failure_of(reason) } else { STALE })
        }
        Outcome::NoRoom => Err(NO_ROOM),
        Outcome::Held { node: None, .. } | Outcome::Stale { .. } | Outcome::Refused { .. } => {
            Ok(None)
        }
    }
}

/// The bytes of a draft, piece by piece: a part of the Volume's may have to be fetched first.
async fn describe(mount: &Handle, ino: u64, commit: &Commit) -> Result<Vec<u8>, Failure> {
    let pieces = mount.borrow().files.pieces(ino, commit.size())?;
    let mut all = Vec::new();
    for piece in pieces {
        let (Piece::Own(range) | Piece::Base(_, range) | Piece::Hole(range)) = &piece;
        let mut part = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        match &piece {
            Piece::Own(range) => mount.borrow().files.read_own(ino, range.start, &mut part)?,
            Piece::Base(content, range) => {
                if mount.borrow_mut().rng.u8(..) < 60 {
                    pause().await;
                }
                let from = usize::try_from(range.start).unwrap_or(0);
                part = mount.borrow().bytes(*content)[from..from + part.len()].to_vec();
            }
            Piece::Hole(_) => {}
        }
        all.extend(part);
    }
    Ok(all)
}

/// Has a change of names or attributes committed, and waits until it is seen. The node that it
/// made or changed.
pub(super) async fn change(mount: &Handle, ask: &Ask) -> Result<Option<NodeId>, Failure> {
    let directories = match ask {
        Ask::MakeDirectory(at, _) | Ask::MakeLink(at, ..) | Ask::Remove(at, ..) => vec![*at],
        Ask::Link(_, (at, _)) => vec![*at],
        Ask::Rename((at, _), (to, _), _) => vec![*at, *to],
        Ask::Mode(..) => Vec::new(),
    };
    hold(mount, &directories).await;
    let done = change_names(mount, ask).await;
    let_go(mount, &directories);
    done
}

/// The kernel holds a directory while names in it are changed.
async fn hold(mount: &Handle, directories: &[u64]) {
    while directories.iter().any(|it| mount.borrow().directories.contains(it)) {
        pause().await;
    }
    mount.borrow_mut().directories.extend(directories);
}

fn let_go(mount: &Handle, directories: &[u64]) {
    mount.borrow_mut().directories.retain(|it| !directories.contains(it));
}

async fn change_names(mount: &Handle, ask: &Ask) -> Result<Option<NodeId>, Failure> {
    for _ in 0..TRIES {
        let asked = mount.borrow_mut().ask(ask)?;
        let change = match asked {
            Asked::Change(change) => *change,
            Asked::Commit(ino) => {
                commit(mount, ino).await?;
                continue;
            }
            Asked::Done => return Ok(None),
        };
        match submit_change(mount, change).await {
            Ok(Some((node, head))) => {
                // Whoever is to be told of a name there is let go.
                if mount.borrow_mut().rng.u8(..) < 200 {
                    settle(mount, head).await?;
                }
                return Ok(node);
            }
            Ok(None) => mount.borrow_mut().counted.push("mount asks again"),
            Err(AGAIN) => pause().await,
            Err(failure) => return Err(failure),
        }
    }
    Err(IO)
}

async fn submit_change(
    mount: &Handle,
    change: Change,
) -> Result<Option<(Option<NodeId>, Seq)>, Failure> {
    let makes = matches!(change.action, Action::Create { .. });
    let done = submit(mount, change, None, None, false).await?;
    match done.outcome {
        Outcome::Accepted { node, .. } => Ok(Some((Some(node), done.head))),
        Outcome::Held { node, .. } if !makes => Ok(Some((node, done.head))),
        Outcome::Held { .. } | Outcome::Stale { .. } | Outcome::Refused { .. } => Ok(None),
        Outcome::Conflict { reason, .. } => Err(failure_of(reason)),
        Outcome::NoRoom => Err(NO_ROOM),
    }
}

/// Makes a file that is not there yet, by its name in a directory; none when another made it.
pub(super) async fn make(
    mount: &Handle,
    (directory, name): (u64, &str),
    how: (bool, bool),
) -> Result<Option<u64>, Failure> {
    hold(mount, &[directory]).await;
    let slot = mount.borrow().files.may_make(directory, name);
    let made = match slot {
        Ok(slot) => make_at(mount, slot, how).await,
        Err(failure) => Err(failure),
    };
    let_go(mount, &[directory]);
    made
}

async fn make_at(
    mount: &Handle,
    slot: Slot,
    (exclusive, cut): (bool, bool),
) -> Result<Option<u64>, Failure> {
    let is_refused = mount.borrow().files.is_refused(&slot);
    let path = {
        let mount = &mut *mount.borrow_mut();
        if !is_refused && (!exclusive || mount.alone) {
            let now = mount.time();
            let ino = mount.files.make(slot, exclusive || cut, now);
            if exclusive || cut {
                mount.cuts.insert(ino);
            }
            return Ok(Some(ino));
        }
        mount.files.path_of(&slot)?
    };
    if is_refused {
        let change = mount.borrow().files.ask_refused(&slot)?;
        submit_change(mount, change).await?;
    }
    let id = {
        let mount = &mut *mount.borrow_mut();
        let id = mount.ask_to_keep(path);
        mount.reserving.insert(id);
        id
    };
    let granted = within(mount, |mount| mount.reserved.remove(&id)).await;
    mount.borrow_mut().reserving.remove(&id);
    if !granted? {
        return Ok(None);
    }
    let mount = &mut *mount.borrow_mut();
    mount.counted.push("mount reserved a name");
    let now = mount.time();
    let ino = mount.files.make(slot, true, now);
    mount.cuts.insert(ino);
    Ok(Some(ino))
}

impl super::Mount {
    /// The directory of a new file is gone. Whoever closes it is told so.
    fn lost_its_directory(&mut self, ino: u64) {
        if self.homeless.insert(ino) {
            self.counted.push("mount's new file without a directory");
        }
        let shown = self.shown(ino);
        self.lines.borrow_mut().give_up(&shown);
    }

    /// What an operation comes to; what it takes away goes with it.
    fn ask(&mut self, ask: &Ask) -> Result<Asked, Failure> {
        let taken_away = match ask {
            Ask::Remove(parent, name, false) => self.files.lookup(*parent, name)?,
            _ => None,
        };
        let asked = self.files.ask(ask)?;
        if let Some(found) = taken_away {
            // Nobody ever knew a new file.
            if matches!(asked, Asked::Done) {
                let shown = self.shown(found.ino);
                self.lines.borrow_mut().excuse(&shown);
            }
            self.files.forget(found.ino, 1);
        }
        Ok(asked)
    }
}
