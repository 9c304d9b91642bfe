//! Finds out what a file system can do, by doing it.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::disk::{Abilities, DiskError, DiskResult};
use crate::platform::{self, Directory};

/// The distance that is assumed between two different times where changes in
/// quick succession have the same one: the slowest tick of a Linux kernel.
const COARSE_GRAIN: i64 = 10_000_000;
/// The distance where all times are whole seconds: FAT counts every other one.
const WHOLE_SECONDS_GRAIN: i64 = 2_000_000_000;
/// How many changes in quick succession must all have times of their own.
const CHANGES: usize = 64;
/// How long they may take to prove anything: a quarter of the shortest tick each.
const CHANGES_TAKE_AT_MOST: Duration = Duration::from_micros(64 * 250);

/// How long a file that was closed and removed may still be there.
const LINGERS: Duration = Duration::from_secs(5);

/// Probes in a directory of its own inside `state`, which is removed after.
pub(super) fn abilities(state: &Directory) -> DiskResult<Abilities> {
    let name = format!("probe-{}", uuid::Uuid::new_v4());
    platform::make_directory(state, &name, 0o700)?;
    let room = platform::beneath(state, &name)?;
    let probed = probe(&room);
    let deadline = Instant::now() + LINGERS;
    loop {
        match clear(state, &room, &name) {
            Ok(()) => return probed,
            // A FUSE file system hears of a close later than the one who closed, and
            // keeps what is removed meanwhile under another name.
            Err(DiskError::NotEmpty | DiskError::NotFound) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

fn clear(state: &Directory, room: &Directory, name: &str) -> DiskResult<()> {
    for child in platform::names(room)? {
        platform::unlink(room, &String::from_utf8_lossy(&child))?;
    }
    platform::remove_directory(state, name)
}

fn probe(room: &Directory) -> DiskResult<Abilities> {
    Ok(Abilities {
        case_sensitive: !is_found_as(room, "a", "A")?,
        case_preserving: keeps_spelling(room)?,
        unicode_insensitive: is_found_as(room, "\u{e9}", "e\u{301}")?,
        windows_names: refuses_windows_names(room)?,
        modes: keeps_modes(room)?,
        symlinks: has_symlinks(room)?,
        exchange: can_exchange(room)?,
        grain: grain(room)?,
    })
}

/// Nothing can be said of a disk that is full or gone; any other refusal is an
/// answer.
fn refused<T>(result: DiskResult<T>) -> DiskResult<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error @ (DiskError::Full | DiskError::RootGone)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether a file that is made under one name is found under another.
fn is_found_as(room: &Directory, made: &str, looked_for: &str) -> DiskResult<bool> {
    // A file system that refuses the name cannot mix it up.
    let made = refused(platform::create_new(room, made))?.is_some();
    Ok(made && matches!(platform::stat_at(room, looked_for), Ok(Some(_))))
}

/// Whether a listing shows a name as it was given.
fn keeps_spelling(room: &Directory) -> DiskResult<bool> {
    platform::create_new(room, "Spelling")?;
    Ok(platform::names(room)?.iter().any(|found| found == b"Spelling"))
}

/// Whether a name that Windows cannot hold is refused, or silently made into
/// another.
fn refuses_windows_names(room: &Directory) -> DiskResult<bool> {
    for name in ["x:y", "dot.", "CON"] {
        if refused(platform::create_new(room, name))?.is_none()
            || !platform::names(room)?.iter().any(|found| found == name.as_bytes())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn keeps_modes(room: &Directory) -> DiskResult<bool> {
    platform::create_new(room, "mode")?;
    for mode in [0o700, 0o644] {
        let set = refused(platform::set_mode(room, "mode", mode))?.is_some();
        if !set || platform::stat_at(room, "mode")?.is_none_or(|stat| stat.mode != mode) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_symlinks(room: &Directory) -> DiskResult<bool> {
    let target = "to/nothing";
    Ok(refused(platform::make_link(room, "link", target))?.is_some()
        && platform::read_link(room, "link").is_ok_and(|to| to == target))
}

fn can_exchange(room: &Directory) -> DiskResult<bool> {
    let (a, b) = ("exchange-a", "exchange-b");
    platform::create_new(room, a)?;
    platform::create_new(room, b)?.write_all(b"b").map_err(platform::io_error)?;
    if refused(platform::exchange((room, a), (room, b)))?.is_none() {
        return Ok(false);
    }
    let size = |name| DiskResult::Ok(platform::stat_at(room, name)?.map(|stat| stat.size));
    Ok(size(a)? == Some(1) && size(b)? == Some(0))
}

/// Writes and looks, again and again. Where the kernel keeps fine times, a
/// change after a look always has a time of its own; otherwise at least two of
/// so many changes fall into one tick.
fn grain(room: &Directory) -> DiskResult<i64> {
    let mut file = platform::create_new(room, "grain")?;
    let mut times = Vec::with_capacity(CHANGES);
    let start = Instant::now();
    for _ in 0..CHANGES {
        file.write_all(b"x").map_err(platform::io_error)?;
        let stat = platform::stat_at(room, "grain")?.ok_or(DiskError::NotFound)?;
        times.push((stat.mtime, stat.ctime));
    }
    // Slow changes lie more than a tick apart and prove nothing.
    let quick = start.elapsed() < CHANGES_TAKE_AT_MOST;
    let whole = |time: i64| time % 1_000_000_000 == 0;
    if times.iter().all(|(mtime, ctime)| whole(*mtime) && whole(*ctime)) {
        return Ok(WHOLE_SECONDS_GRAIN);
    }
    let all_differ = times.windows(2).all(|two| two[0].0 != two[1].0 && two[0].1 != two[1].1);
    Ok(if quick && all_differ { 0 } else { COARSE_GRAIN })
}
