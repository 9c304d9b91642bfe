//! The [`Disk`] on a real directory.
//!
//! Each call finds the parent directory anew, beneath the root and without
//! following a link, and then works on one name in it. What is moved out of the
//! way goes to the staging directory, which only this replica writes to.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use s0_tree::{
    Content, ContentBuilder, Cutter, Hash, INLINE_LIMIT, Recipe, TreePath, comparison_key, describe,
};

use super::access::{Located, RootAccess, part_name, slot_name};
use super::listing::{Ahead, Lister};
use super::place::{place, rename_directory_to_free};
use super::watch::Watcher;
use super::{probe, root};
use crate::disk::{
    Abilities, Description, Disk, DiskError, DiskResult, IntentId, Listing, RootIdentity, Seen,
    Spot, StagedName, Stat,
};
use crate::platform::{self, Directory, Renamed};

pub use super::access::STATE_DIR_NAME;

/// How often a file is read before it is said to be changing.
const READ_TRIES: u32 = 3;
/// More than this many are synced with the whole file system at once.
const SYNC_EACH: usize = 8;
/// Files from this size on are cut and hashed by two threads.
const LARGE: u64 = 8 << 20;
/// Chunks that are cut and wait to be hashed.
const CUT_AHEAD: usize = 8;
/// How many threads read files. To find that out takes longer than to read one.
static READERS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// What to do about the marker of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The root was never attached: make the state directory and a marker,
    /// unless they are there.
    Create,
    /// The root was attached before: without its marker it is another one.
    Expect,
}

/// A real directory.
#[derive(Debug)]
pub struct RootDisk {
    access: RootAccess,
    watcher: Option<Arc<Watcher>>,
    ahead: Option<Ahead>,
}

impl RootDisk {
    /// Opens a root and finds out what it can do.
    ///
    /// # Errors
    /// `RootGone` when there is no such directory, or its marker was expected
    /// and is not there.
    pub fn open(path: &Path, marker: Marker) -> DiskResult<Self> {
        let path =
            std::fs::canonicalize(path).map_err(|error| match platform::io_error(error) {
                DiskError::NotFound | DiskError::NotADirectory => DiskError::RootGone,
                other => other,
            })?;
        let directory = platform::open_root(&path)?;
        match marker {
            Marker::Create => root::create(&directory)?,
            Marker::Expect => {
                if root::marker(&directory)?.is_none() {
                    return Err(DiskError::RootGone);
                }
                root::complete(&directory)?;
            }
        }
        let abilities = probe::abilities(&platform::beneath(&directory, STATE_DIR_NAME)?)?;
        let access = RootAccess::new(directory, path, abilities);
        Ok(Self { access, watcher: None, ahead: None })
    }

    /// Lets `watcher` watch the directories that the engine asks for.
    pub fn set_watcher(&mut self, watcher: Arc<Watcher>) {
        self.watcher = Some(watcher);
    }

    /// Access to the same root for other threads.
    #[must_use]
    pub fn access(&self) -> RootAccess {
        self.access.clone()
    }

    /// Returns when all that was written to the root's file system, by whomever,
    /// would survive a power cut.
    pub(super) fn sync_all(&self) -> DiskResult<()> {
        platform::sync_all(self.access.root())
    }

    fn lister(&self) -> Lister {
        Lister { access: self.access.clone(), watcher: self.watcher.clone() }
    }

    fn path(&self, path: &TreePath) -> DiskResult<Located> {
        self.access.locate(&Spot::Path(path.clone()))
    }

    fn slot(&self, slot: IntentId) -> DiskResult<Located> {
        self.access.locate(&Spot::Staged(slot))
    }

    fn part(&self, slot: IntentId) -> DiskResult<Located> {
        Ok(Located { directory: self.access.staging()?, name: part_name(slot) })
    }

    /// Makes the part of a slot. What was there is unlinked, not emptied: it might
    /// have a second name.
    fn new_part<T>(
        &self,
        slot: IntentId,
        make: impl Fn(&Located) -> DiskResult<T>,
    ) -> DiskResult<T> {
        let part = self.part(slot)?;
        match make(&part) {
            Err(DiskError::Exists) => {
                platform::unlink(&part.directory, &part.name)?;
                make(&part)
            }
            done => done,
        }
    }

    fn set_mode_of_new(&self, file: &std::fs::File, mode: u32) -> DiskResult<()> {
        if self.access.abilities().modes { platform::set_mode_of(file, mode) } else { Ok(()) }
    }

    /// Whether `from` and `to` are two spellings of one name here.
    fn is_respelling(&self, from: &TreePath, to: &TreePath) -> DiskResult<bool> {
        let abilities = self.access.abilities();
        if from == to || (abilities.case_sensitive && !abilities.unicode_insensitive) {
            return Ok(false);
        }
        let (Some(old), Some(new)) = (from.split(), to.split()) else { return Ok(false) };
        if old.0 != new.0 || comparison_key(old.1.as_str()) != comparison_key(new.1.as_str()) {
            return Ok(false);
        }
        let inode = |path| -> DiskResult<Option<u64>> {
            Ok(self.path(path)?.stat()?.map(|stat| stat.inode))
        };
        let (old, new) = (inode(from)?, inode(to)?);
        Ok(old.is_some() && old == new)
    }

    /// Moves something from one path to a free one where the file system has no
    /// call for it: by way of the staging directory, where nobody else takes a
    /// name, so that neither step can replace anything.
    fn rename_by_way_of_staging(&self, from: &Located, to: &Located) -> DiskResult<()> {
        let stat = from.stat()?.ok_or(DiskError::NotFound)?;
        if to.stat()?.is_some() {
            return Err(DiskError::Exists);
        }
        if stat.kind == Seen::Directory {
            return rename_directory_to_free(from.at(), to.at());
        }
        let name = format!("moving-{}", uuid::Uuid::new_v4());
        let aside = Located { directory: self.access.staging()?, name };
        platform::rename_over(from.at(), aside.at())?;
        place(aside.at(), to.at()).inspect_err(|_| {
            // Back to where it was. If that name was taken too, it stays in the
            // staging directory, where nothing deletes it.
            if let Err(error) = place(aside.at(), from.at()) {
                tracing::error!(%error, file = aside.name, "a file stays in the staging directory");
            }
        })
    }

    fn describe_one(&self, at: &Spot) -> DiskResult<Description> {
        self.read(at).map_err(|error| self.meaning(at, error))
    }

    fn read(&self, at: &Spot) -> DiskResult<Description> {
        for _ in 0..READ_TRIES {
            let mut reader = self.access.open(at)?;
            let stat = reader.stat();
            let open = reader.is_open_for_writing();
            if open && reader.has_just_changed() {
                return Ok(Description::Changing);
            }
            let (content, bytes, recipe) = if stat.size <= INLINE_LIMIT {
                let mut bytes = Vec::with_capacity(usize::try_from(stat.size).unwrap_or(0) + 1);
                // One byte too many shows that it grew.
                let mut limited = (&mut reader).take(INLINE_LIMIT + 1);
                limited.read_to_end(&mut bytes).map_err(platform::io_error)?;
                (Content::of(&bytes), Some(bytes), None)
            } else {
                let described = if stat.size >= LARGE {
                    describe_large(&mut reader)
                } else {
                    describe(&mut reader)
                };
                let (content, recipe) = described.map_err(platform::io_error)?;
                (content, None, Some(recipe))
            };
            if content.size == stat.size && reader.is_unchanged()? {
                let open = open || reader.is_open_for_writing();
                return Ok(Description::Stable { stat, content, bytes, recipe, open });
            }
        }
        Ok(Description::Changing)
    }

    /// Whether the disk spells every part of a path that was found as `path` does.
    fn is_spelled(&self, path: &TreePath) -> DiskResult<bool> {
        let abilities = self.access.abilities();
        let folds = !abilities.case_sensitive || abilities.unicode_insensitive;
        if !folds || !abilities.case_preserving {
            return Ok(true);
        }
        for path in path.ancestors().chain([path.clone()]) {
            let Some((parent, name)) = path.split() else { continue };
            let parent = platform::beneath(self.access.root(), parent.as_str())?;
            if !platform::names(&parent)?.iter().any(|raw| raw == name.as_str().as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn find(&self, at: &Spot) -> DiskResult<Option<Stat>> {
        let stat = self.access.locate(at)?.stat()?;
        match at {
            Spot::Path(path) if stat.is_some() && !self.is_spelled(path)? => Ok(None),
            _ => Ok(stat),
        }
    }

    /// What an error at a place means. That nobody answers for a path any more
    /// concerns the whole root only if nobody answers for the root either:
    /// something may be mounted below it whose driver has died.
    fn meaning(&self, at: &Spot, error: DiskError) -> DiskError {
        match (at, error) {
            (Spot::Path(path), DiskError::RootGone)
                if !path.is_root() && platform::stat_of(self.access.root()).is_ok() =>
            {
                DiskError::Other("its file system is gone, or does not answer".into())
            }
            (_, other) => other,
        }
    }

    fn sync<'a>(
        &self,
        each: impl ExactSizeIterator<Item = (&'a Directory, &'a str)>,
    ) -> DiskResult<()> {
        let mut all = each.len() > SYNC_EACH;
        for (directory, name) in each {
            if all {
                break;
            }
            match platform::sync(directory, name) {
                Ok(done) => all = done.is_none(),
                Err(DiskError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if all { platform::sync_all(self.access.root()) } else { Ok(()) }
    }
}

impl Disk for RootDisk {
    fn abilities(&self) -> Abilities {
        self.access.abilities()
    }

    fn identity(&mut self) -> DiskResult<RootIdentity> {
        // By its path, not by what is held open: what counts is what the user
        // finds there.
        root::identity(&platform::open_root(self.access.path())?)
    }

    fn now(&mut self) -> i64 {
        // Where every change has a time of its own, nothing hangs on the disk's clock.
        let asked = self.access.abilities().grain > 0;
        asked.then(|| root::now(self.access.root()).ok()).flatten().unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
    }

    fn stat(&mut self, at: &Spot) -> DiskResult<Option<Stat>> {
        match self.find(at) {
            Ok(stat) => Ok(stat.map(|stat| self.access.shown(stat))),
            // Below a file, a link or nothing there is nothing.
            Err(DiskError::NotFound | DiskError::NotADirectory) => Ok(None),
            Err(error) => Err(self.meaning(at, error)),
        }
    }

    fn will_list(&mut self, directories: Vec<TreePath>) {
        // The thread before ends first.
        self.ahead = None;
        self.ahead = Ahead::begin(&self.lister(), directories);
    }

    fn list(&mut self, directory: &TreePath) -> DiskResult<Listing> {
        let ahead = self.ahead.as_ref().and_then(|ahead| ahead.take(directory));
        ahead.unwrap_or_else(|| self.lister().list(directory))
    }

    fn read_link(&mut self, at: &Spot) -> DiskResult<String> {
        let found = self.access.locate(at)?;
        platform::read_link(&found.directory, &found.name)
    }

    fn describe(&mut self, files: &[Spot]) -> Vec<DiskResult<Description>> {
        let workers = if files.len() > 1 { (*READERS).min(files.len()) } else { 1 };
        if workers <= 1 {
            return files.iter().map(|at| self.describe_one(at)).collect();
        }
        let this = &*self;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(at) = files.get(index) else { return done };
                done.push((index, this.describe_one(at)));
            }
        };
        let mut all = Vec::with_capacity(files.len());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                match worker.join() {
                    Ok(done) => all.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        all.sort_unstable_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, described)| described).collect()
    }

    fn has_writer(&mut self, at: &Spot) -> Option<bool> {
        let found = self.access.locate(at).ok()?;
        if found.stat().ok()??.kind != Seen::File {
            return None;
        }
        platform::has_writer(&platform::open_for_reading(&found.directory, &found.name).ok()?)
    }

    fn stage_file(&mut self, slot: IntentId, bytes: &[u8], mode: u32) -> DiskResult<()> {
        let mut file =
            self.new_part(slot, |part| platform::create_new(&part.directory, &part.name))?;
        file.write_all(bytes).map_err(platform::io_error)?;
        self.set_mode_of_new(&file, mode)
    }

    fn stage_part(&mut self, slot: IntentId, mode: u32) -> DiskResult<()> {
        let part = self.part(slot)?;
        let file = platform::open_for_reading(&part.directory, &part.name)?;
        self.set_mode_of_new(&file, mode)
    }

    fn stage_link(&mut self, slot: IntentId, target: &str) -> DiskResult<()> {
        let make = |part: &Located| platform::make_link(&part.directory, &part.name, target);
        self.new_part(slot, make).map_err(|error| match error {
            // Any file system holds the part's name, so that this is about the target.
            DiskError::BadName | DiskError::NotFound => {
                DiskError::Other("the file system cannot hold the target of this link".into())
            }
            other => other,
        })
    }

    fn sync_staged(&mut self, slots: &[IntentId]) -> DiskResult<()> {
        let staging = self.access.staging()?;
        let parts: Vec<_> = slots.iter().map(|slot| part_name(*slot)).collect();
        self.sync(parts.iter().map(|part| (&staging, part.as_str())))?;
        for (slot, part) in slots.iter().zip(&parts) {
            place((&staging, part), (&staging, &slot_name(*slot)))?;
        }
        self.sync([(&staging, ".")].into_iter())
    }

    fn sync_directories(&mut self, directories: &[TreePath]) -> DiskResult<()> {
        let distinct: BTreeSet<_> = directories.iter().collect();
        if distinct.len() > SYNC_EACH {
            return platform::sync_all(self.access.root());
        }
        let mut each = Vec::new();
        for path in distinct {
            match platform::beneath(self.access.root(), path.as_str()) {
                Ok(directory) => each.push(directory),
                Err(DiskError::NotFound | DiskError::NotADirectory) => {}
                // Something was mounted over it; its names are below that.
                Err(DiskError::OtherDevice) => return platform::sync_all(self.access.root()),
                Err(error) => return Err(error),
            }
        }
        self.sync(each.iter().map(|directory| (directory, ".")))
    }

    fn place(&mut self, slot: IntentId, path: &TreePath) -> DiskResult<()> {
        place(self.slot(slot)?.at(), self.path(path)?.at())
    }

    fn exchange(&mut self, slot: IntentId, path: &TreePath) -> DiskResult<()> {
        // The path comes first: Linux tells of the two moves in this order, and whoever watches
        // the directory then hears that the file went and came, not that it came and is gone.
        platform::exchange(self.path(path)?.at(), self.slot(slot)?.at())
    }

    fn take(&mut self, path: &TreePath, slot: IntentId) -> DiskResult<()> {
        let (from, to) = (self.path(path)?, self.slot(slot)?);
        if platform::rename_to_free(from.at(), to.at())? == Renamed::Done {
            return Ok(());
        }
        // Nobody else takes a slot, so that looking first is enough.
        if to.stat()?.is_some() {
            return Err(DiskError::Exists);
        }
        platform::rename_over(from.at(), to.at())
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath) -> DiskResult<()> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        match platform::rename_to_free(source.at(), target.at()) {
            Ok(Renamed::Done) => Ok(()),
            Ok(Renamed::Unsupported) | Err(DiskError::Exists)
                if self.is_respelling(from, to)? =>
            {
                platform::rename_over(source.at(), target.at())
            }
            Ok(Renamed::Unsupported) => self.rename_by_way_of_staging(&source, &target),
            Err(error) => Err(error),
        }
    }

    fn make_directory(&mut self, path: &TreePath, mode: u32) -> DiskResult<()> {
        let at = self.path(path)?;
        platform::make_directory(&at.directory, &at.name, mode)?;
        if self.access.abilities().modes {
            // The process's mask may have taken bits away.
            platform::set_mode(&at.directory, &at.name, mode)?;
        }
        Ok(())
    }

    fn remove_directory(&mut self, path: &TreePath) -> DiskResult<()> {
        let at = self.path(path)?;
        platform::remove_directory(&at.directory, &at.name)
    }

    fn set_mode(&mut self, path: &TreePath, mode: u32) -> DiskResult<()> {
        let at = self.path(path)?;
        if self.access.abilities().modes {
            return platform::set_mode(&at.directory, &at.name, mode);
        }
        at.stat()?.map(|_| ()).ok_or(DiskError::NotFound)
    }

    fn discard(&mut self, name: &StagedName) -> DiskResult<()> {
        let name = match name {
            StagedName::Whole(slot) => slot_name(*slot),
            StagedName::Part(slot) => part_name(*slot),
            // It is someone's data.
            StagedName::Foreign(_) => return Err(DiskError::Denied),
        };
        platform::unlink(&self.access.staging()?, &name)
    }

    fn staged(&mut self) -> DiskResult<Vec<StagedName>> {
        let names = platform::names(&self.access.staging()?)?;
        Ok(names.iter().map(|raw| staged_name(raw)).collect())
    }
}

/// Names what `reader` gives: while one thread cuts, another hashes.
fn describe_large(reader: impl Read) -> std::io::Result<(Content, Recipe)> {
    let (cut, chunks) = mpsc::sync_channel::<Vec<u8>>(CUT_AHEAD);
    thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut builder = ContentBuilder::default();
            for bytes in chunks {
                builder.push(Hash::of(&bytes), bytes.len());
            }
            builder.finish()
        });
        for bytes in Cutter::new(reader) {
            // It ends only after this.
            let _ = cut.send(bytes?);
        }
        drop(cut);
        hashing.join().map_err(|_| std::io::Error::other("hashing broke off"))
    })
}

/// What a name in the staging directory stands for. Only the spelling that is
/// written here counts: `007` is not slot 7.
fn staged_name(raw: &[u8]) -> StagedName {
    let text = String::from_utf8_lossy(raw);
    let slot = |digits: &str| {
        let slot = IntentId(digits.parse().ok()?);
        (slot_name(slot) == digits).then_some(slot)
    };
    let part = text.strip_suffix(".part").and_then(slot).map(StagedName::Part);
    part.or_else(|| slot(&text).map(StagedName::Whole))
        .unwrap_or_else(|| StagedName::Foreign(text.into_owned()))
}
