//! What a directory's file system, and the system's watching of it, can do.

use std::path::Path;

use s0_host::host::HeldRoot;
use s0_replica::disk::{Abilities, Disk as _};
use s0_replica::shell::disk::{Marker, RootDisk};

use super::Finding;
use crate::platform;

/// More directories than this are not counted: it takes too long.
const MOST_COUNTED: u64 = 200_000;
/// Less free space than this soon ends syncing.
const LITTLE: u64 = 256 << 20;

pub(super) fn check(root: &Path, is_attached: bool) -> Vec<Finding> {
    let place = root.display();
    if let Err(error) = platform::may_write(root) {
        return vec![Finding::failure(
            "disk",
            format!("{place}: {error}"),
            format!(
                "this user must be able to read and write it (`ls -ld` says who can); if it has \
                 moved, `s0 sync detach {}` and attach it anew",
                crate::screen::quoted(root)
            ),
        )];
    }
    let mut findings = match abilities(root, is_attached) {
        Ok(abilities) => of_abilities(root, &abilities),
        Err(why) => vec![Finding::failure(
            "disk",
            format!("{place} cannot be tried: {why}"),
            "a workspace needs a directory in which this user can make files",
        )],
    };
    findings.push(watching(root));
    findings.extend(space(root));
    findings
}

/// Tried by doing. A directory that is not attached is left as it was.
fn abilities(root: &Path, is_attached: bool) -> Result<Abilities, String> {
    let tried = |marker| RootDisk::open(root, marker).map(|disk| disk.abilities());
    if is_attached {
        return tried(Marker::Expect).map_err(|error| error.to_string());
    }
    let held = HeldRoot::take(root).map_err(|error| error.to_string())?;
    let abilities = tried(Marker::Create).map_err(|error| error.to_string());
    if held.is_new {
        held.clear().map_err(|error| error.to_string())?;
    }
    abilities
}

fn of_abilities(root: &Path, abilities: &Abilities) -> Vec<Finding> {
    let lacks = [
        (
            abilities.case_sensitive,
            "`Foo` and `foo` are one name",
            "names of the Volume that differ only in case become conflicts here",
        ),
        (
            !abilities.unicode_insensitive,
            "two spellings of `é` are one name",
            "names of the Volume that differ only in that become conflicts here",
        ),
        (
            !abilities.windows_names,
            "names that Windows refuses are refused",
            "such names of the Volume become conflicts here",
        ),
        (
            abilities.modes,
            "permission bits get lost",
            "what is executable in the Volume is not here, and stays so there",
        ),
        (
            abilities.symlinks,
            "symbolic links cannot be made",
            "those of the Volume are problems of their paths here (`s0 sync status`)",
        ),
        (
            abilities.exchange,
            "files cannot be exchanged in one step",
            "a program may see a file missing for an instant while a new version comes",
        ),
    ];
    let place = root.display();
    let mut findings: Vec<Finding> = lacks
        .into_iter()
        .filter(|(has, ..)| !has)
        .map(|(_, what, then)| {
            let next = format!("{then}; a directory on another disk would have it otherwise");
            Finding::warning("disk", format!("{place}: {what}"), next)
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("disk", format!("{place} can do all that syncing uses")));
    }
    findings
}

/// Whether changes are told at once.
fn watching(root: &Path) -> Finding {
    let check = "watching";
    if let Err((error, setting)) = platform::can_watch(root) {
        return Finding::warning(
            check,
            format!("no further watch can be had: {error}"),
            format!(
                "without one, a workspace is looked through every ten seconds; `sudo sysctl \
                 {setting}=524288` allows more, a line `{setting}=524288` in /etc/sysctl.d keeps \
                 it so"
            ),
        );
    }
    let Some(limit) = platform::watch_limit() else {
        return Finding::ok(check, "changes are told at once");
    };
    allowed(limit, directories(root))
}

fn allowed(limit: u64, directories: u64) -> Finding {
    let check = "watching";
    let found = format!(
        "{directories}{} directories, and the system allows {limit} watches",
        if directories >= MOST_COUNTED { " or more" } else { "" }
    );
    // Editors and build tools take from the same number.
    if directories.saturating_mul(2) <= limit {
        return Finding::ok(check, found);
    }
    Finding::warning(
        check,
        found,
        format!(
            "this may not be enough for all programs; ignore what need not be synced, or allow \
             more: `sudo sysctl fs.inotify.max_user_watches={}`",
            directories.saturating_mul(4).max(524_288)
        ),
    )
}

fn directories(root: &Path) -> u64 {
    let (mut number, mut waiting) = (0, vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        number += 1;
        if number >= MOST_COUNTED {
            break;
        }
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let below = entries.flatten().filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != ".git"
        });
        waiting.extend(below.map(|entry| entry.path()));
    }
    number
}

fn space(root: &Path) -> Option<Finding> {
    let free = platform::free_bytes(root).ok()?;
    let found = format!("{} MiB free at {}", free >> 20, root.display());
    Some(if free >= LITTLE {
        Finding::ok("space", found)
    } else {
        Finding::warning("space", found, "make room: syncing halts when the disk is full")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn many_directories_need_many_watches() {
        assert_eq!(allowed(8192, 4096).verdict, Verdict::Ok);
        let few = allowed(8192, 4097);
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(few.do_next.unwrap().contains("fs.inotify.max_user_watches=524288"));
    }

    #[test]
    fn each_ability_that_is_lacking_is_said() {
        let mut abilities = Abilities {
            case_sensitive: true,
            case_preserving: true,
            unicode_insensitive: false,
            windows_names: false,
            modes: true,
            symlinks: true,
            exchange: true,
            grain: 0,
        };
        let root = Path::new("/w");
        let said = of_abilities(root, &abilities);
        assert_eq!((said.len(), said[0].verdict), (1, Verdict::Ok));
        (abilities.case_sensitive, abilities.symlinks) = (false, false);
        let said = of_abilities(root, &abilities);
        assert_eq!(said.len(), 2);
        assert!(said.iter().all(|it| it.verdict == Verdict::Warning && it.do_next.is_some()));
    }

    #[test]
    fn a_directory_that_is_not_attached_is_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let before = root.path().metadata().unwrap().permissions();
        let tried = abilities(root.path(), false).unwrap();
        assert!(tried.symlinks);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(root.path().metadata().unwrap().permissions(), before);
    }
}
