//! What the kernel asks: the requests of its FUSE protocol, as far as a mount of ours
//! answers them. The layouts are those of the kernel's `include/uapi/linux/fuse.h`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use s0_tree::Time;

/// A node as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ino(pub(crate) u64);

impl Ino {
    /// The root of the mount.
    pub(crate) const ROOT: Self = Self(1);
}

/// An open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Handle(pub(crate) u64);

/// Whose lock it is, as the kernel numbers owners of one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LockOwner(pub(crate) u64);

/// Who asks, and about what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// The request's number; the answer bears it. Zero in none that is answered.
    pub(crate) unique: u64,
    /// The node that it is about; for names their directory.
    pub(crate) node: Ino,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The thread that asks; zero when the kernel itself does, or when it is not seen from here.
    pub(crate) pid: u32,
}

/// A time that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetTime {
    Now,
    To(Time),
}

/// Which attributes change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SetAttr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<SetTime>,
    pub(crate) mtime: Option<SetTime>,
    /// It is of an open file, which is closed later.
    pub(crate) by_handle: bool,
    /// The set-user-id bit goes, and the set-group-id bit of what a group may run.
    pub(crate) kill_ids: bool,
}

impl SetAttr {
    /// Whether it changes nothing but the size, of an open file.
    pub(crate) fn is_cut(&self) -> bool {
        let Self { mode, uid, gid, size, atime, mtime, by_handle, kill_ids: _ } = self;
        let ids = mode.is_some() || uid.is_some() || gid.is_some();
        let set = matches!((atime, mtime), (Some(SetTime::To(_)), _) | (_, Some(SetTime::To(_))));
        *by_handle && size.is_some() && !ids && !set
    }
}

/// A range of bytes that is to be locked, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) owner: LockOwner,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: LockKind,
    pub(crate) pid: u32,
    /// It is of `flock`, which knows nothing of `fcntl`'s.
    pub(crate) whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    Read,
    Write,
    Free,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Init {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u64,
    },
    Destroy,
    Forget {
        lookups: u64,
    },
    ForgetMany(Vec<(Ino, u64)>),
    Interrupt {
        unique: u64,
    },
    Lookup {
        name: &'a OsStr,
    },
    GetAttr,
    SetAttr(SetAttr),
    ReadLink,
    SymLink {
        name: &'a OsStr,
        target: &'a OsStr,
    },
    MkNod {
        name: &'a OsStr,
        mode: u32,
    },
    MkDir {
        name: &'a OsStr,
        mode: u32,
    },
    Unlink {
        name: &'a OsStr,
    },
    RmDir {
        name: &'a OsStr,
    },
    Rename {
        name: &'a OsStr,
        to: Ino,
        new: &'a OsStr,
        flags: u32,
    },
    Link {
        node: Ino,
        name: &'a OsStr,
    },
    Open {
        flags: u32,
    },
    Create {
        name: &'a OsStr,
        mode: u32,
        flags: u32,
    },
    Read {
        handle: Handle,
        offset: u64,
        size: u32,
    },
    Write {
        handle: Handle,
        offset: u64,
        data: &'a [u8],
        kill_ids: bool,
    },
    Flush {
        owner: LockOwner,
    },
    Release {
        handle: Handle,
        owner: LockOwner,
        unlock: bool,
    },
    FSync,
    StatFs,
    SetXattr {
        name: &'a OsStr,
        value: &'a [u8],
        flags: u32,
    },
    GetXattr {
        name: &'a OsStr,
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a OsStr,
    },
    OpenDir,
    ReadDir {
        handle: Handle,
        offset: u64,
        size: u32,
        plus: bool,
    },
    ReleaseDir {
        handle: Handle,
    },
    FSyncDir,
    GetLock(Lock),
    SetLock {
        lock: Lock,
        wait: bool,
    },
    FAllocate {
        handle: Handle,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Seek {
        handle: Handle,
        offset: u64,
        whence: u32,
    },
    CopyRange {
        from: Handle,
        offset: u64,
        to_node: Ino,
        to: Handle,
        to_offset: u64,
        length: u64,
    },
    SyncFs,
    Access,
    /// Something that this mount does not do.
    Other(u32),
}

/// A request that ends early, or whose parts are not what they should be. The kernel
/// sends none; whatever does is not the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is cut short")]
pub(crate) struct Malformed;

type Read<T> = Result<T, Malformed>;

/// The size of a request's head, in bytes.
const HEAD: usize = 40;

/// Takes a request apart.
pub(crate) fn parse(bytes: &[u8]) -> Read<(Head, Operation<'_>)> {
    let length = bytes.first_chunk().map(|it| u32::from_ne_bytes(*it) as usize).ok_or(Malformed)?;
    if length != bytes.len() || length < HEAD {
        return Err(Malformed);
    }
    let mut fields = Fields(&bytes[4..]);
    let opcode = fields.u32()?;
    let unique = fields.u64()?;
    let node = Ino(fields.u64()?);
    let (uid, gid, pid) = (fields.u32()?, fields.u32()?, fields.u32()?);
    fields.skip(4)?;
    let head = Head { unique, node, uid, gid, pid };
    Ok((head, operation(opcode, &mut fields)?))
}

#[expect(clippy::too_many_lines, reason = "one arm for each request of the protocol")]
fn operation<'a>(opcode: u32, fields: &mut Fields<'a>) -> Read<Operation<'a>> {
    Ok(match opcode {
        1 => Operation::Lookup { name: fields.name()? },
        2 => Operation::Forget { lookups: fields.u64()? },
        3 => Operation::GetAttr,
        4 => Operation::SetAttr(fields.set_attr()?),
        5 => Operation::ReadLink,
        6 => Operation::SymLink { name: fields.name()?, target: fields.name()? },
        8 => {
            let mode = fields.u32()?;
            fields.skip(12)?;
            Operation::MkNod { mode, name: fields.name()? }
        }
        9 => {
            let mode = fields.u32()?;
            fields.skip(4)?;
            Operation::MkDir { mode, name: fields.name()? }
        }
        10 => Operation::Unlink { name: fields.name()? },
        11 => Operation::RmDir { name: fields.name()? },
        12 => {
            let to = Ino(fields.u64()?);
            Operation::Rename { to, flags: 0, name: fields.name()?, new: fields.name()? }
        }
        13 => Operation::Link { node: Ino(fields.u64()?), name: fields.name()? },
        14 => Operation::Open { flags: fields.u32()? },
        15 => {
            let handle = Handle(fields.u64()?);
            Operation::Read { handle, offset: fields.u64()?, size: fields.u32()? }
        }
        16 => {
            let (handle, offset) = (Handle(fields.u64()?), fields.u64()?);
            let (size, flags) = (fields.u32()?, fields.u32()?);
            fields.skip(16)?;
            let data = fields.bytes(size as usize)?;
            Operation::Write { handle, offset, data, kill_ids: flags & 4 != 0 }
        }
        17 => Operation::StatFs,
        18 => {
            let handle = Handle(fields.u64()?);
            fields.skip(4)?;
            let flags = fields.u32()?;
            let owner = LockOwner(fields.u64()?);
            Operation::Release { handle, owner, unlock: flags & 2 != 0 }
        }
        20 => Operation::FSync,
        21 => {
            let (size, flags) = (fields.u32()?, fields.u32()?);
            let name = fields.name()?;
            Operation::SetXattr { name, flags, value: fields.bytes(size as usize)? }
        }
        22 => {
            let size = fields.u32()?;
            fields.skip(4)?;
            Operation::GetXattr { size, name: fields.name()? }
        }
        23 => Operation::ListXattr { size: fields.u32()? },
        24 => Operation::RemoveXattr { name: fields.name()? },
        25 => {
            fields.skip(16)?;
            Operation::Flush { owner: LockOwner(fields.u64()?) }
        }
        26 => {
            let (major, minor) = (fields.u32()?, fields.u32()?);
            let (max_readahead, low) = (fields.u32()?, fields.u32()?);
            // Older kernels end here.
            let high = fields.u32().unwrap_or(0);
            let flags = u64::from(low) | u64::from(high) << 32;
            Operation::Init { major, minor, max_readahead, flags }
        }
        27 => Operation::OpenDir,
        28 | 44 => {
            let handle = Handle(fields.u64()?);
            let (offset, size) = (fields.u64()?, fields.u32()?);
            Operation::ReadDir { handle, offset, size, plus: opcode == 44 }
        }
        29 => Operation::ReleaseDir { handle: Handle(fields.u64()?) },
        30 => Operation::FSyncDir,
        31 => Operation::GetLock(fields.lock()?),
        32 | 33 => Operation::SetLock { lock: fields.lock()?, wait: opcode == 33 },
        34 => Operation::Access,
        35 => {
            let (flags, mode) = (fields.u32()?, fields.u32()?);
            fields.skip(8)?;
            Operation::Create { flags, mode, name: fields.name()? }
        }
        36 => Operation::Interrupt { unique: fields.u64()? },
        38 => Operation::Destroy,
        42 => {
            let count = fields.u32()?;
            fields.skip(4)?;
            let one = |_| Ok((Ino(fields.u64()?), fields.u64()?));
            Operation::ForgetMany((0..count).map(one).collect::<Read<_>>()?)
        }
        43 => {
            let (handle, offset) = (Handle(fields.u64()?), fields.u64()?);
            Operation::FAllocate { handle, offset, length: fields.u64()?, mode: fields.u32()? }
        }
        45 => {
            let (to, flags) = (Ino(fields.u64()?), fields.u32()?);
            fields.skip(4)?;
            Operation::Rename { to, flags, name: fields.name()?, new: fields.name()? }
        }
        46 => {
            let (handle, offset) = (Handle(fields.u64()?), fields.u64()?);
            Operation::Seek { handle, offset, whence: fields.u32()? }
        }
        47 => Operation::CopyRange {
            from: Handle(fields.u64()?),
            offset: fields.u64()?,
            to_node: Ino(fields.u64()?),
            to: Handle(fields.u64()?),
            to_offset: fields.u64()?,
            length: fields.u64()?,
        },
        50 => Operation::SyncFs,
        other => Operation::Other(other),
    })
}

/// What is left of a request.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Read<()> {
        self.bytes(count).map(|_| ())
    }

    fn u32(&mut self) -> Read<u32> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*taken))
    }

    fn u64(&mut self) -> Read<u64> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*taken))
    }

    /// Bytes up to a zero.
    fn name(&mut self) -> Read<&'a OsStr> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let name = self.bytes(end)?;
        self.skip(1)?;
        Ok(OsStr::from_bytes(name))
    }

    fn set_attr(&mut self) -> Read<SetAttr> {
        let valid = self.u32()?;
        self.skip(12)?;
        let size = self.u64()?;
        self.skip(8)?;
        let (atime, mtime) = (self.u64()?, self.u64()?);
        self.skip(8)?;
        let (atime_nanos, mtime_nanos) = (self.u32()?, self.u32()?);
        self.skip(4)?;
        let mode = self.u32()?;
        self.skip(4)?;
        let (uid, gid) = (self.u32()?, self.u32()?);
        let has = |bit: u32| valid & (1 << bit) != 0;
        let time = |bit, now, seconds, nanos| {
            let to = || if has(now) { SetTime::Now } else { SetTime::To(time(seconds, nanos)) };
            has(bit).then(to)
        };
        Ok(SetAttr {
            mode: has(0).then_some(mode),
            uid: has(1).then_some(uid),
            gid: has(2).then_some(gid),
            size: has(3).then_some(size),
            atime: time(4, 7, atime, atime_nanos),
            mtime: time(5, 8, mtime, mtime_nanos),
            by_handle: has(6),
            kill_ids: has(11),
        })
    }

    fn lock(&mut self) -> Read<Lock> {
        self.skip(8)?;
        let owner = LockOwner(self.u64()?);
        let (start, end) = (self.u64()?, self.u64()?);
        let (kind, pid, flags) = (self.u32()?, self.u32()?, self.u32()?);
        let kind = match kind {
            0 => LockKind::Read,
            1 => LockKind::Write,
            _ => LockKind::Free,
        };
        Ok(Lock { owner, start, end, kind, pid, whole: flags & 1 != 0 })
    }
}

/// A time of the kernel's, whose seconds are signed though the field is not.
fn time(seconds: u64, nanos: u32) -> Time {
    let seconds = seconds.cast_signed();
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
}
