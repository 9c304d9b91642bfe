//! What the kernel is answered, and told.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use s0_tree::Time;

use super::request::{Handle, Ino, Lock, LockKind};

/// An error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

macro_rules! errnos {
    ($($name:ident),*) => {
        #[allow(missing_docs, reason = "they are those of errno(3)")]
        impl Errno {
            $(pub(crate) const $name: Self = Self(rustix::io::Errno::$name.raw_os_error());)*
        }
    };
}
errnos!(
    AGAIN,
    BADF,
    DEADLK,
    NOLCK,
    DQUOT,
    EXIST,
    FBIG,
    ILSEQ,
    INTR,
    INVAL,
    IO,
    ISDIR,
    NAMETOOLONG,
    NODATA,
    NOENT,
    NOSPC,
    NOSYS,
    NOTDIR,
    NOTEMPTY,
    NOTSUP,
    NXIO,
    PERM,
    RANGE,
    STALE,
    TIMEDOUT
);

/// What a node is, for `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
}

impl FileKind {
    /// The bits of a mode that say it.
    fn bits(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
        }
    }
}

/// A node's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) ino: Ino,
    pub(crate) kind: FileKind,
    /// The low twelve permission bits.
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
}

/// How much there is, and how much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// In blocks of [`BLOCK`] bytes.
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) inodes: u64,
    pub(crate) free_inodes: u64,
}

/// The unit of [`Space`], in bytes.
pub(crate) const BLOCK: u64 = 4096;

/// An answer that is being written: an [`out header`](https://docs.kernel.org/filesystems/fuse.html)
/// and what follows it.
#[derive(Debug)]
pub(crate) struct Answer(Vec<u8>);

/// The size of an answer's head, in bytes.
const HEAD: usize = 16;

impl Answer {
    fn with(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + capacity);
        bytes.resize(HEAD, 0);
        Self(bytes)
    }

    /// That it is done.
    pub(crate) fn done() -> Self {
        Self::with(0)
    }

    /// A name's node. Where there is none the kernel may remember that, too.
    pub(crate) fn entry(found: Option<&Attr>, valid: Duration) -> Self {
        let mut answer = Self::with(128);
        answer.put_entry(found, valid);
        answer
    }

    pub(crate) fn attr(attr: &Attr, valid: Duration) -> Self {
        let mut answer = Self::with(104);
        answer.u64(valid.as_secs());
        answer.u32(valid.subsec_nanos());
        answer.u32(0);
        answer.put_attr(attr);
        answer
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        let mut answer = Self::with(bytes.len());
        answer.0.extend_from_slice(bytes);
        answer
    }

    /// Room for bytes that are read in place; see [`Self::room`].
    pub(crate) fn for_bytes(length: usize) -> Self {
        Self(vec![0; HEAD + length])
    }

    /// The bytes after the head.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.0[HEAD..]
    }

    pub(crate) fn opened(handle: Handle, flags: u32) -> Self {
        let mut answer = Self::with(16);
        answer.put_opened(handle, flags);
        answer
    }

    pub(crate) fn created(attr: &Attr, valid: Duration, handle: Handle, flags: u32) -> Self {
        let mut answer = Self::with(144);
        answer.put_entry(Some(attr), valid);
        answer.put_opened(handle, flags);
        answer
    }

    pub(crate) fn written(size: u32) -> Self {
        let mut answer = Self::with(8);
        answer.u32(size);
        answer.u32(0);
        answer
    }

    pub(crate) fn xattr_size(size: u32) -> Self {
        Self::written(size)
    }

    pub(crate) fn offset(offset: u64) -> Self {
        let mut answer = Self::with(8);
        answer.u64(offset);
        answer
    }

    pub(crate) fn space(space: &Space) -> Self {
        let mut answer = Self::with(80);
        for field in [space.blocks, space.free, space.free, space.inodes, space.free_inodes] {
            answer.u64(field);
        }
        let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
        for field in [block, 255, block, 0, 0, 0, 0, 0, 0, 0] {
            answer.u32(field);
        }
        answer
    }

    /// A lock that is in the way; none where nothing is.
    pub(crate) fn lock(lock: Option<&Lock>) -> Self {
        let mut answer = Self::with(24);
        let (start, end, pid) = lock.map_or((0, 0, 0), |it| (it.start, it.end, it.pid));
        answer.u64(start);
        answer.u64(end);
        answer.u32(match lock.map(|lock| lock.kind) {
            Some(LockKind::Read) => 0,
            Some(LockKind::Write) => 1,
            Some(LockKind::Free) | None => 2,
        });
        answer.u32(pid);
        answer
    }

    /// What this mount agrees to: see [`super::session`].
    pub(crate) fn init(max_readahead: u32, flags: u64, max_write: u32, max_pages: u16) -> Self {
        let mut answer = Self::with(64);
        let [low, high] = [flags & u64::from(u32::MAX), flags >> 32];
        let part = |bits: u64| u32::try_from(bits).unwrap_or(0);
        for field in [7, super::MINOR, max_readahead, part(low)] {
            answer.u32(field);
        }
        answer.u16(super::MAX_BACKGROUND);
        answer.u16(super::MAX_BACKGROUND / 4 * 3);
        answer.u32(max_write);
        answer.u32(1);
        answer.u16(max_pages);
        answer.u16(0);
        answer.u32(part(high));
        answer.0.resize(HEAD + 64, 0);
        answer
    }

    /// The whole, as the answer to a request.
    pub(crate) fn to(mut self, unique: u64) -> Vec<u8> {
        head(&mut self.0, 0, unique);
        self.0
    }

    fn put_entry(&mut self, found: Option<&Attr>, valid: Duration) {
        self.u64(found.map_or(0, |attr| attr.ino.0));
        self.u64(0);
        self.u64(valid.as_secs());
        self.u64(valid.as_secs());
        self.u32(valid.subsec_nanos());
        self.u32(valid.subsec_nanos());
        match found {
            Some(attr) => self.put_attr(attr),
            None => self.0.resize(self.0.len() + 88, 0),
        }
    }

    fn put_attr(&mut self, attr: &Attr) {
        let times = [attr.atime, attr.mtime, attr.ctime].map(|time| time.0);
        self.u64(attr.ino.0);
        self.u64(attr.size);
        self.u64(attr.size.div_ceil(512));
        for time in times {
            self.u64(time.div_euclid(1_000_000_000).cast_unsigned());
        }
        for time in times {
            self.u32(u32::try_from(time.rem_euclid(1_000_000_000)).unwrap_or(0));
        }
        let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
        for field in [attr.kind.bits() | attr.mode, attr.links, attr.uid, attr.gid, 0, block, 0] {
            self.u32(field);
        }
    }

    fn put_opened(&mut self, handle: Handle, flags: u32) {
        self.u64(handle.0);
        self.u32(flags);
        self.u32(0);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }
}

/// The list of a directory, as much of it as the kernel has room for.
#[derive(Debug)]
pub(crate) struct Listing {
    answer: Answer,
    room: usize,
}

impl Listing {
    pub(crate) fn new(room: u32) -> Self {
        let room = room as usize;
        Self { answer: Answer::with(room.min(128 * 1024)), room }
    }

    /// Adds a name; `next` is the offset behind it. With `known` the kernel looks the
    /// node up at the same time. False when there is no room left.
    #[must_use]
    pub(crate) fn add(
        &mut self,
        name: &OsStr,
        (ino, kind): (Ino, FileKind),
        next: u64,
        plus: Option<(Option<&Attr>, Duration)>,
    ) -> bool {
        let name = name.as_bytes();
        let entry = if plus.is_some() { 128 } else { 0 };
        let length = (entry + 24 + name.len()).next_multiple_of(8);
        if self.answer.0.len() - HEAD + length > self.room {
            return false;
        }
        let end = self.answer.0.len() + length;
        if let Some((attr, valid)) = plus {
            self.answer.put_entry(attr, valid);
        }
        self.answer.u64(ino.0);
        self.answer.u64(next);
        self.answer.u32(u32::try_from(name.len()).unwrap_or(0));
        self.answer.u32(kind.bits() >> 12);
        self.answer.0.extend_from_slice(name);
        self.answer.0.resize(end, 0);
        true
    }

    pub(crate) fn answer(self) -> Answer {
        self.answer
    }
}

/// The answer that it cannot be done.
pub(crate) fn error(unique: u64, errno: Errno) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    head(&mut bytes, -errno.0, unique);
    bytes
}

/// Tells the kernel to look again at a node: at its attributes, and with `contents` at
/// its bytes too.
pub(crate) fn stale_node(ino: Ino, contents: bool) -> Vec<u8> {
    let mut answer = Answer::with(24);
    answer.u64(ino.0);
    // A negative offset leaves the bytes alone; a length of zero is everything.
    answer.u64(if contents { 0 } else { (-1_i64).cast_unsigned() });
    answer.u64(0);
    head(&mut answer.0, 2, 0);
    answer.0
}

/// Tells the kernel to look every name up again when it is used next; since Linux 6.16.
pub(crate) fn stale_names() -> Vec<u8> {
    let mut answer = Answer::with(0);
    head(&mut answer.0, 8, 0);
    answer.0
}

/// Tells the kernel to forget what it knows of a name.
pub(crate) fn stale_name(parent: Ino, name: &OsStr) -> Vec<u8> {
    let mut answer = Answer::with(16 + name.len() + 1);
    answer.u64(parent.0);
    answer.u32(u32::try_from(name.len()).unwrap_or(0));
    answer.u32(0);
    answer.0.extend_from_slice(name.as_bytes());
    answer.0.push(0);
    head(&mut answer.0, 3, 0);
    answer.0
}

fn head(bytes: &mut [u8], error: i32, unique: u64) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..8].copy_from_slice(&error.to_ne_bytes());
    bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
}
