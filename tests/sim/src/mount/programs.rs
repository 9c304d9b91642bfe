//! What programs do in a mount. Failures are theirs.

use s0_mount::simulated::{Ask, EXIST, Failure, Found, ROOT, STALE};
use s0_tree::RenameHow;

use super::commit::{self, Closed};
use super::{Handle, pause};

/// One program.
#[derive(Debug, Clone)]
pub enum Program {
    /// Opens a file, emptied, and writes it; `O_EXCL`, and whether it is synced.
    Save(Vec<String>, bool, bool),
    /// Appends lines to a file, so many times.
    Append(Vec<String>, u32, bool),
    /// Writes a new file and moves it over another.
    Replace(Vec<String>),
    /// Makes a file empty, by its name.
    Empty(Vec<String>),
    MakeDirectory(Vec<String>),
    MakeLink(Vec<String>),
    Remove(Vec<String>, bool),
    Rename(Vec<String>, Vec<String>, RenameHow),
    Link(Vec<String>, Vec<String>),
    Mode(Vec<String>, u32),
}

pub(super) async fn run(mount: Handle, program: Program) {
    let done = match program {
        Program::Save(path, exclusive, synced) => save(&mount, &path, exclusive, synced).await,
        Program::Append(path, times, synced) => append(&mount, &path, times, synced).await,
        Program::Replace(path) => replace(&mount, &path).await,
        Program::Empty(path) => empty(&mount, &path).await,
        Program::MakeDirectory(path) => at(&mount, &path, Ask::MakeDirectory).await,
        Program::MakeLink(path) => {
            at(&mount, &path, |parent, name| Ask::MakeLink(parent, name, "a".into())).await
        }
        Program::Remove(path, directory) => {
            at(&mount, &path, |parent, name| Ask::Remove(parent, name, directory)).await
        }
        Program::Rename(from, to, how) => rename(&mount, &from, &to, how).await,
        Program::Link(existing, path) => match find(&mount, &existing) {
            Ok((_, _, Some(found))) if !found.is_directory => {
                at(&mount, &path, |parent, name| Ask::Link(found.ino, (parent, name))).await
            }
            _ => Ok(()),
        },
        Program::Mode(path, mode) => match find(&mount, &path) {
            Ok((_, _, Some(found))) if found.is_file => {
                ask(&mount, Ask::Mode(found.ino, mode)).await
            }
            _ => Ok(()),
        },
    };
    let counted = if done.is_ok() { "mount's program done" } else { "mount's program failed" };
    mount.borrow_mut().counted.push(counted);
}

/// The directory of a path, the name, and what is there. A request for each part, as the
/// kernel makes it that has forgotten all.
fn find(mount: &Handle, path: &[String]) -> Result<(u64, String, Option<Found>), Failure> {
    let mount = &mut *mount.borrow_mut();
    mount.request()?;
    let (name, above) = path.split_last().ok_or(STALE)?;
    let mut parent = ROOT;
    for part in above {
        let found = mount.files.lookup(parent, part)?.filter(|found| found.is_directory);
        parent = found.ok_or(STALE)?.ino;
    }
    let found = mount.files.lookup(parent, name)?;
    Ok((parent, name.clone(), found))
}

async fn ask(mount: &Handle, ask: Ask) -> Result<(), Failure> {
    mount.borrow().request()?;
    commit::change(mount, &ask).await.map(drop)
}

async fn at(
    mount: &Handle,
    path: &[String],
    make: impl FnOnce(u64, String) -> Ask,
) -> Result<(), Failure> {
    let (parent, name, _) = find(mount, path)?;
    ask(mount, make(parent, name)).await
}

async fn rename(
    mount: &Handle,
    from: &[String],
    to: &[String],
    how: RenameHow,
) -> Result<(), Failure> {
    let (parent, name, _) = find(mount, from)?;
    let (to, new, _) = find(mount, to)?;
    ask(mount, Ask::Rename((parent, name), (to, new), how)).await
}

/// An open file.
struct File {
    ino: u64,
    handle: u64,
}

async fn open(
    mount: &Handle,
    path: &[String],
    (exclusive, cut, append): (bool, bool, bool),
) -> Result<File, Failure> {
    let (parent, name, found) = find(mount, path)?;
    let ino = match found {
        Some(_) if exclusive => return Err(EXIST),
        Some(found) if !found.is_file => return Err(EXIST),
        Some(found) => found.ino,
        None => commit::make(mount, (parent, &name), (exclusive, cut)).await?.ok_or(EXIST)?,
    };
    let mount = &mut *mount.borrow_mut();
    let handle = mount.files.open(ino, append)?;
    if cut && mount.files.stat(ino)?.size > 0 {
        mount.cut(ino)?;
    }
    Ok(File { ino, handle })
}

impl super::Mount {
    /// A program takes away what it sees.
    fn cut(&mut self, ino: u64) -> Result<(), Failure> {
        self.note_seen();
        let (shown, now) = (self.shown(ino), self.time());
        self.files.truncate(ino, 0, now)?;
        self.cuts.insert(ino);
        self.lines.borrow_mut().excuse(&shown);
        Ok(())
    }
}

/// Writes a line, which is there at once.
fn write(mount: &Handle, file: &File, append: bool) -> Result<(), Failure> {
    let mount = &mut *mount.borrow_mut();
    mount.request()?;
    mount.note_seen();
    let line = mount.lines.borrow_mut().fresh(&mount.session);
    let now = mount.time();
    let text = if append { format!("{line}\n") } else { format!("mount {line}") };
    if !append {
        // What another program wrote to the same place.
        let shown = mount.shown(file.ino);
        mount.lines.borrow_mut().excuse(&shown);
        mount.cuts.insert(file.ino);
    }
    let written = mount.files.write(file.handle, 0, text.as_bytes(), now);
    if written.is_err() {
        mount.lines.borrow_mut().excuse(line.as_bytes());
    } else {
        mount.note(&format!("wrote {line} to {}", file.ino));
        if !mount.files.stat(file.ino)?.is_named {
            mount.lines.borrow_mut().excuse(line.as_bytes());
        }
    }
    if written.is_ok() && !String::from_utf8_lossy(&mount.shown(file.ino)).contains(&line) {
        mount.violate(format!("{}: {line} was written and is not shown", mount.session));
    }
    written.map(drop)
}

async fn flush(mount: &Handle, file: &File, sync: bool) -> Result<(), Failure> {
    let lines = {
        let mount = &mut *mount.borrow_mut();
        mount.request()?;
        let shown = mount.shown(file.ino);
        if !mount.files.stat(file.ino).is_ok_and(|found| found.is_named) {
            // As anywhere else, it goes when it is closed.
            mount.lines.borrow_mut().excuse(&shown);
        }
        mount.lines.borrow().written(&mount.session, &shown)
    };
    if sync {
        commit::commit_and_settle(mount, file.ino).await?;
        mount.borrow_mut().note(&format!("synced {} with {lines:?}", file.ino));
        mount.borrow().lines.borrow_mut().confirm(&lines, None);
        let failed = mount.borrow_mut().failures.remove(&file.ino);
        return failed.map_or(Ok(()), Err);
    }
    {
        let mount = &mut *mount.borrow_mut();
        let waits = mount.alone && mount.files.is_only_empty(file.ino);
        if waits || !mount.files.is_dirty(file.ino) {
            let failed = mount.failures.remove(&file.ino);
            return failed.map_or(Ok(()), Err);
        }
    }
    let taken = match commit::commit_for_close(mount, file.ino).await? {
        Closed::Taken(number) => {
            mount.borrow_mut().counted.push("mount's close taken");
            Some(number)
        }
        Closed::Committed => None,
    };
    mount.borrow_mut().note(&format!("closed {} with {lines:?}, taken: {taken:?}", file.ino));
    mount.borrow().lines.borrow_mut().confirm(&lines, taken);
    Ok(())
}

/// A file is closed for good.
fn release(mount: &Handle, file: &File) {
    let core = mount.clone();
    let ino = file.ino;
    let mount = &mut *mount.borrow_mut();
    mount.files.close(file.handle);
    if mount.files.is_dirty(ino) {
        mount.spawned.push(Box::pin(async move {
            let _ = commit::commit(&core, ino).await;
        }));
    }
    if mount.rng.u8(..) < 30 {
        mount.files.forget(ino, 1);
    }
}

async fn linger(mount: &Handle) {
    let steps = mount.borrow_mut().rng.u32(..4);
    for _ in 0..steps {
        pause().await;
    }
}

async fn save(
    mount: &Handle,
    path: &[String],
    exclusive: bool,
    synced: bool,
) -> Result<(), Failure> {
    let file = open(mount, path, (exclusive, true, false)).await?;
    linger(mount).await;
    let mut done = write(mount, &file, false);
    linger(mount).await;
    if done.is_ok() {
        done = flush(mount, &file, synced).await;
    }
    release(mount, &file);
    done
}

async fn append(mount: &Handle, path: &[String], times: u32, synced: bool) -> Result<(), Failure> {
    let file = open(mount, path, (false, false, true)).await?;
    let mut done = Ok(());
    for _ in 0..times {
        linger(mount).await;
        done = write(mount, &file, true);
        if done.is_err() {
            break;
        }
        if synced {
            linger(mount).await;
            done = flush(mount, &file, true).await;
        }
    }
    if done.is_ok() {
        done = flush(mount, &file, false).await;
    }
    release(mount, &file);
    done
}

async fn replace(mount: &Handle, path: &[String]) -> Result<(), Failure> {
    let mut temporary = path.to_vec();
    if let Some(name) = temporary.last_mut() {
        name.push_str(".tmp");
    }
    save(mount, &temporary, true, false).await?;
    rename(mount, &temporary, path, RenameHow::Replace).await
}

async fn empty(mount: &Handle, path: &[String]) -> Result<(), Failure> {
    let (_, _, found) = find(mount, path)?;
    let Some(found) = found.filter(|found| found.is_file) else { return Ok(()) };
    mount.borrow_mut().cut(found.ino)?;
    commit::commit_and_settle(mount, found.ino).await
}
