//! Reads which paths a Git repository tracks: the entries of its index.
//!
//! Git documents the format in `gitformat-index(5)`. Only names and modes are
//! wanted here, of versions 2 to 4. A split index is read as the union of its
//! two files: too many tracked paths ignore too little, which loses nothing.

use std::path::Path;

use s0_tree::MAX_PATH_BYTES;

/// The mode of a directory that stands for all that is in it (sparse index).
const DIRECTORY_MODE: u32 = 0o040_000;
/// What an entry has before its object id: times, device, inode, mode, owner, size.
const STAT_BYTES: usize = 40;
const MODE_AT: usize = 24;
const EXTENDED_FLAG: u16 = 0x4000;
const NAME_LENGTH_MASK: u16 = 0x0fff;

/// The tracked paths, relative to the work tree, in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tracked {
    /// Those that are not UTF-8, or too long, are left out: no Volume has them.
    paths: Vec<Box<str>>,
    /// Directories that are tracked as a whole, with a slash at the end.
    whole: Vec<Box<str>>,
}

impl Tracked {
    /// Reads the index in `git_dir`; no index tracks nothing, and one that
    /// cannot be read is as good as none.
    pub(super) fn read(git_dir: &Path) -> Self {
        let path = git_dir.join("index");
        let Ok(bytes) = std::fs::read(&path) else { return Self::default() };
        let Some(parsed) = parse(&bytes) else {
            tracing::warn!(index = %path.display(), "git's index cannot be read");
            return Self::default();
        };
        let mut tracked = parsed.tracked;
        if let Some(shared) = parsed.shared {
            let shared = std::fs::read(git_dir.join(format!("sharedindex.{shared}")));
            if let Some(shared) = shared.ok().and_then(|bytes| parse(&bytes)) {
                tracked.paths.extend(shared.tracked.paths);
                tracked.whole.extend(shared.tracked.whole);
            }
        }
        tracked.paths.sort_unstable();
        tracked.paths.dedup();
        tracked
    }

    /// Whether `path` is tracked, or something below it is.
    pub(super) fn covers(&self, path: &str) -> bool {
        let below = |found: &str| {
            found.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // In byte order, `a-b` stands between `a` and `a/b`.
        let at = self.paths.partition_point(|found| &**found < path);
        let slash = format!("{path}/");
        let inside = self.paths.partition_point(|found| **found < *slash);
        self.paths.get(at).is_some_and(|found| below(found))
            || self.paths.get(inside).is_some_and(|found| below(found))
            || self
                .whole
                .iter()
                .any(|whole| slash.starts_with(&**whole) || whole.starts_with(&slash))
    }

    /// All names, as they were read.
    #[cfg(fuzzing)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().chain(&self.whole).map(|name| &**name)
    }

    /// The paths that only one of the two tracks.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let only = |a: &'a Self, b: &'a Self| {
            let missing =
                |path: &&str| b.paths.binary_search_by(|other| (**other).cmp(path)).is_err();
            a.paths.iter().map(|path| &**path).filter(missing)
        };
        let whole = self.whole.iter().chain(&other.whole).map(|path| path.trim_end_matches('/'));
        let whole = whole.filter(|_| self.whole != other.whole);
        only(self, other).chain(only(other, self)).chain(whole).collect()
    }
}

pub(super) struct Parsed {
    pub(super) tracked: Tracked,
    /// The name of the shared index, of which this one holds the changes.
    shared: Option<String>,
}

/// The file does not say how long its object ids are, but with the wrong length
/// nothing in it fits.
pub(super) fn parse(bytes: &[u8]) -> Option<Parsed> {
    parse_with(bytes, 20).or_else(|| parse_with(bytes, 32))
}

fn parse_with(bytes: &[u8], id_bytes: usize) -> Option<Parsed> {
    let end = bytes.len().checked_sub(id_bytes)?;
    let mut reader = Reader { bytes: bytes.get(..end)?, at: 0 };
    if reader.take(4)? != b"DIRC" {
        return None;
    }
    let version = reader.number()?;
    if !(2..=4).contains(&version) {
        return None;
    }
    let count = reader.number()?;
    let mut tracked = Tracked::default();
    let mut name = Vec::new();
    for _ in 0..count {
        let mode = reader.entry(version, id_bytes, &mut name)?;
        // No Volume has longer ones, and each may cost no more than two bytes here.
        if name.len() > MAX_PATH_BYTES {
            continue;
        }
        // The replaced entries of a split index have no name.
        let Ok(path) = str::from_utf8(&name) else { continue };
        match path.strip_suffix('/') {
            Some(_) if mode == DIRECTORY_MODE => tracked.whole.push(path.into()),
            _ if !path.is_empty() => tracked.paths.push(path.into()),
            _ => {}
        }
    }
    let mut shared = None;
    while reader.at < end {
        let signature = reader.take(4)?;
        let length = reader.number()? as usize;
        let data = reader.take(length)?;
        if signature == b"link" {
            let id = data.get(..id_bytes)?;
            shared = Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    Some(Parsed { tracked, shared })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// What comes before the next NUL; steps over that, too.
    fn text(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let text = self.take(rest.iter().position(|byte| *byte == 0)?)?;
        self.at += 1;
        Some(text)
    }

    /// The variable-length number of version 4, as in packs: each byte but the
    /// first adds one to what came before.
    fn offset(&mut self) -> Option<usize> {
        let mut byte = *self.take(1)?.first()?;
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = *self.take(1)?.first()?;
            value = value.checked_add(1)?.checked_mul(128)? | usize::from(byte & 0x7f);
        }
        Some(value)
    }

    /// Reads one entry: its name into `name`, which holds the one before, and
    /// its mode.
    fn entry(&mut self, version: u32, id_bytes: usize, name: &mut Vec<u8>) -> Option<u32> {
        let start = self.at;
        let stat = self.take(STAT_BYTES)?;
        let mode = u32::from_be_bytes(stat.get(MODE_AT..MODE_AT + 4)?.try_into().ok()?);
        self.take(id_bytes)?;
        let flags = self.short()?;
        if version >= 3 && flags & EXTENDED_FLAG != 0 {
            self.short()?;
        }
        if version == 4 {
            let kept = name.len().checked_sub(self.offset()?)?;
            name.truncate(kept);
        } else {
            name.clear();
        }
        name.extend_from_slice(self.text()?);
        if version < 4 {
            // Filled up with one to eight NULs to a multiple of eight bytes.
            let length = self.at - start;
            let padding = self.take(length.next_multiple_of(8) - length)?;
            if padding.iter().any(|byte| *byte != 0) {
                return None;
            }
        }
        let length = usize::from(flags & NAME_LENGTH_MASK);
        let fits = length == name.len() || length == usize::from(NAME_LENGTH_MASK);
        (fits && name.len() >= length).then_some(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn git(at: &Path, arguments: &[&str]) {
        let done = Command::new("git")
            .current_dir(at)
            .args(["-c", "user.name=n", "-c", "user.email=e"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn read(at: &Path) -> Vec<String> {
        Tracked::read(&at.join(".git")).paths.iter().map(|path| path.to_string()).collect()
    }

    #[test]
    fn what_git_writes_is_read() {
        let long = format!("d/{}", "x".repeat(250));
        let names = vec!["a", "a-b", "a b/c", "d/e/f", "d/e/g", "é", &long];
        for format in ["sha1", "sha256"] {
            for (version, split) in [("2", false), ("3", false), ("4", false), ("4", true)] {
                let dir = tempfile::tempdir().unwrap();
                let at = dir.path();
                git(at, &["init", "-q", &format!("--object-format={format}")]);
                assert_eq!(read(at), Vec::<String>::new());
                for name in &names {
                    let path = at.join(name);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, name).unwrap();
                }
                // Version 3 is what git writes for entries that need it.
                git(at, &["add", "-N", "a"]);
                git(at, &["add", "."]);
                if version == "3" {
                    std::fs::write(at.join("late"), "").unwrap();
                    git(at, &["add", "-N", "late"]);
                } else {
                    git(at, &["update-index", "--index-version", version]);
                }
                if split {
                    git(at, &["update-index", "--split-index"]);
                    std::fs::write(at.join("late"), "").unwrap();
                    git(at, &["add", "late"]);
                }
                let mut expected: Vec<_> = names.iter().map(ToString::to_string).collect();
                if version == "3" || split {
                    expected.push("late".into());
                }
                expected.sort();
                assert_eq!(read(at), expected, "{format} {version} {split}");
            }
        }
    }

    #[test]
    fn damage_is_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q"]);
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        git(dir.path(), &["add", "."]);
        let index = std::fs::read(dir.path().join(".git/index")).unwrap();
        for at in 0..index.len() {
            let mut damaged = index.clone();
            damaged[at] ^= 0xff;
            let _ = parse(&damaged);
            let _ = parse(&index[..at]);
        }
    }

    #[test]
    fn names_that_no_path_has_are_not_multiplied() {
        // Version 4 says how much of the name before is kept: a long one costs each
        // entry after it two bytes.
        let mut index = b"DIRC".to_vec();
        let count = 1000_u32;
        index.extend([4, count].map(u32::to_be_bytes).concat());
        for number in 0..count {
            let first = number == 0;
            index.extend([0; STAT_BYTES + 20]);
            index.extend(NAME_LENGTH_MASK.to_be_bytes());
            index.push(0);
            index.extend(if first { vec![b'x'; 100_000] } else { vec![b'y'] });
            index.push(0);
        }
        index.extend([0; 20]);
        let parsed = parse(&index).unwrap();
        let bytes: usize = parsed.tracked.paths.iter().map(|path| path.len()).sum();
        assert!(bytes < index.len(), "{bytes} bytes of names in an index of {}", index.len());
    }

    #[test]
    fn covers_directories_of_tracked_paths() {
        let paths = ["a-b", "a/b/c", "ab", "z"].map(Box::from).to_vec();
        let tracked = Tracked { paths, whole: vec!["sparse/part/".into()] };
        for path in
            ["a", "a/b", "a/b/c", "a-b", "ab", "z", "sparse", "sparse/part", "sparse/part/x"]
        {
            assert!(tracked.covers(path), "{path}");
        }
        for path in ["b", "a/b/c/d", "a/c", "z/y", "sparse/other", "aa", "sparse/party"] {
            assert!(!tracked.covers(path), "{path}");
        }
    }
}
