//! What the files of a sandbox look like: bubblewrap's arguments.
//!
//! The host's files are there, read-only, but for those places that hold what is not for
//! an agent. Since nothing can be made in a directory that is read-only, the root is a new
//! one, with each entry of the host's root in it; and so is any directory in which a place is
//! needed that the host does not have.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Where this program is, inside.
pub(crate) const PROGRAM: &str = "/run/s0/s0";
/// Directories that are the sandbox's own and begin empty: homes, and what programs leave for
/// others to find. `/run` has the sockets of the host's services.
const OWN: [&str; 5] = ["/home", "/root", "/run", "/tmp", "/var/tmp"];
/// What the system makes.
const MADE: [&str; 2] = ["/proc", "/dev"];
/// Where nothing is mounted, nor below.
const NOT_FOR_MOUNTS: [&str; 4] = ["/proc", "/dev", "/sys", "/run/s0"];
/// How many entries a directory may have that is made anew.
const LARGE: usize = 1000;

/// Why a path is no place for a mount.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be a directory of the sandbox: {why}", .path.display())]
pub struct PathError {
    path: PathBuf,
    why: String,
}

/// The path as it is inside, if something can be mounted there.
///
/// # Errors
/// It is none for that.
pub fn mount_point(path: &Path) -> Result<PathBuf, PathError> {
    let no = |why: &str| Err(PathError { path: path.into(), why: why.into() });
    if !path.is_absolute() {
        return no("it must begin with a slash");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return no("name it without `..`");
    }
    let clean: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    if clean == Path::new("/") {
        return no("it is all of it; name a directory, such as /workspace");
    }
    let is_apart = |place: &&&str| clean.starts_with(place) || Path::new(place).starts_with(&clean);
    if let Some(place) = NOT_FOR_MOUNTS.iter().find(is_apart) {
        return no(&format!("{place} is the system's; choose another, such as /workspace"));
    }
    Ok(clean)
}

/// What a sandbox sees.
pub(crate) struct View<'a> {
    /// This program, on the host.
    pub(crate) program: &'a Path,
    pub(crate) home: &'a Path,
    /// Directories of the host that look empty.
    pub(crate) hidden: &'a [PathBuf],
    /// Directories that are the sandbox's own, wherever they are.
    pub(crate) paths: &'a [PathBuf],
}

/// Bubblewrap's arguments.
pub(crate) fn arguments(view: &View<'_>) -> io::Result<Vec<OsString>> {
    // On some systems, one of them is a link to where it really is.
    let own = OWN.iter().filter_map(|place| std::fs::canonicalize(place).ok());
    let mode = |place: &Path| if place.ends_with("tmp") { "1777" } else { "755" };
    let mut empty: Vec<(PathBuf, &str)> = own.map(|place| (place.clone(), mode(&place))).collect();
    // What is in one of those is hidden by it, and need not be there at all.
    let is_there = |it: &&PathBuf| !empty.iter().any(|(place, _)| it.starts_with(place));
    let hidden: Vec<_> = view.hidden.iter().filter(is_there).collect();
    let (directories, files): (Vec<_>, Vec<_>) = hidden.into_iter().partition(|it| it.is_dir());
    empty.extend(directories.into_iter().map(|place| (place.clone(), "700")));

    let mut made = Arguments::default();
    made.list(Path::new("/"))?;
    made.add(["--proc", "/proc", "--dev", "/dev"]);
    // In order: what is made anew covers what was made anew below it.
    let mut anew = BTreeSet::new();
    for place in view.paths.iter().map(PathBuf::as_path).chain([view.home]) {
        if !empty.iter().any(|(it, _)| place.starts_with(it)) {
            anew.extend(without_room(place)?);
        }
    }
    for directory in anew {
        made.add([OsStr::new("--tmpfs"), directory.as_os_str()]);
        made.list(directory)?;
    }
    empty.push((view.home.into(), "700"));
    empty.extend(view.paths.iter().map(|place| (place.clone(), "755")));
    // What lies in another one comes after it.
    empty.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (place, mode) in empty {
        made.add(["--perms", mode, "--tmpfs"]);
        made.add([place]);
    }
    for file in files.into_iter().filter(|file| file.is_file()) {
        made.add([OsStr::new("--ro-bind"), OsStr::new("/dev/null"), file.as_os_str()]);
    }
    // Who enters from outside begins with this program. It has a mount of its own, which nobody
    // inside can move away or write to, also not by way of `/proc/PID/exe`.
    let place = Path::new(PROGRAM).parent().unwrap_or(Path::new("/"));
    made.add([OsStr::new("--perms"), OsStr::new("755"), OsStr::new("--tmpfs"), place.as_os_str()]);
    made.add([OsStr::new("--ro-bind"), view.program.as_os_str(), OsStr::new(PROGRAM)]);
    made.add([OsStr::new("--remount-ro"), place.as_os_str()]);
    // On many systems it is a link into /run.
    if let Ok(file) = std::fs::canonicalize("/etc/resolv.conf")
        && file.starts_with("/run")
    {
        made.add([OsStr::new("--ro-bind"), file.as_os_str(), file.as_os_str()]);
    }
    Ok(made.all)
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// The directory of the host in which one must be made for a place, if one must.
fn without_room(place: &Path) -> io::Result<Option<&Path>> {
    // What the host's path leads to by way of links is elsewhere inside.
    if let Some(link) = place.ancestors().find(|it| it.is_symlink()) {
        let (link, place) = (link.display(), place.display());
        return Err(io::Error::other(format!(
            "{place} cannot be a directory of the sandbox, since {link} is a symbolic link; \
             name the directory that it leads to"
        )));
    }
    if place.exists() && !is_directory(place) {
        let place = place.display();
        return Err(io::Error::other(format!(
            "{place} cannot be a directory of the sandbox, since it is a file; name another one"
        )));
    }
    let nearest = place.ancestors().find(|it| is_directory(it));
    Ok(nearest.filter(|it| *it != place && *it != Path::new("/")))
}

#[derive(Default)]
struct Arguments {
    all: Vec<OsString>,
}

impl Arguments {
    fn add<T: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = T>) {
        self.all.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
    }

    /// The entries of a directory of the host, each by itself.
    fn list(&mut self, directory: &Path) -> io::Result<()> {
        let read = std::fs::read_dir(directory).map_err(|error| {
            io::Error::other(format!(
                "{}: {error}; choose a place in another directory, such as /workspace",
                directory.display()
            ))
        })?;
        let mut entries: Vec<_> = read.collect::<Result<_, _>>()?;
        if entries.len() > LARGE {
            return Err(io::Error::other(format!(
                "{} has too many entries for a directory to be added to it; choose a place in \
                 another one, such as /workspace",
                directory.display()
            )));
        }
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let covered = |place: &&str| Path::new(*place) == path;
            if kind.is_symlink() || !MADE.iter().chain(&OWN).any(covered) {
                self.entry(&path, kind)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: FileType) -> io::Result<()> {
        if kind.is_symlink() {
            let target = std::fs::read_link(path)?;
            self.add([OsStr::new("--symlink"), target.as_os_str(), path.as_os_str()]);
        } else if kind.is_dir() || kind.is_file() {
            // It may vanish until bubblewrap looks.
            self.add([OsStr::new("--ro-bind-try"), path.as_os_str(), path.as_os_str()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(view: &View<'_>) -> String {
        let all = arguments(view).unwrap();
        all.iter().map(|word| word.to_string_lossy() + " ").collect()
    }

    fn view<'a>(paths: &'a [PathBuf], hidden: &'a [PathBuf]) -> View<'a> {
        View { program: Path::new("/opt/s0"), home: Path::new("/home/ann"), hidden, paths }
    }

    #[test]
    fn only_absolute_directories_below_the_root_are_mount_points() {
        for (path, expected) in [
            ("/workspace", Some("/workspace")),
            ("/workspace/", Some("/workspace")),
            ("//a/./b", Some("/a/b")),
            ("/run/app", Some("/run/app")),
            ("/", None),
            ("//", None),
            ("", None),
            ("workspace", None),
            ("/a/../b", None),
            ("/proc", None),
            ("/proc/self", None),
            ("/dev/shm/x", None),
            ("/sys/fs", None),
            ("/run", None),
            ("/run/s0/x", None),
        ] {
            let found = mount_point(Path::new(path)).ok();
            assert_eq!(found.as_deref(), expected.map(Path::new), "{path:?}");
        }
    }

    #[test]
    fn the_hosts_files_cannot_be_written_and_homes_not_be_seen() {
        let said = words(&view(&["/workspace".into()], &[]));
        assert!(said.contains("--ro-bind-try /usr /usr "), "{said}");
        for bound in ["/home", "/root", "/tmp", "/run", "/proc", "/dev"] {
            assert!(!said.contains(&format!("-bind-try {bound} ")), "{bound}: {said}");
        }
        assert!(said.contains("--perms 1777 --tmpfs /tmp "), "{said}");
        assert!(said.contains("--perms 700 --tmpfs /home/ann "), "{said}");
        assert!(said.contains("--perms 755 --tmpfs /workspace "), "{said}");
        assert!(!said.contains(" --bind"), "{said}");
    }

    #[test]
    fn a_place_that_the_host_does_not_have_is_made_wherever_it_is() {
        let host = tempfile::tempdir_in("/var").unwrap();
        let host = host.path();
        std::fs::write(host.join("file"), "").unwrap();
        std::fs::create_dir(host.join("directory")).unwrap();
        std::os::unix::fs::symlink("file", host.join("link")).unwrap();
        let (one, two) = (host.join("new/deep"), host.join("new/other"));
        let said = words(&view(&[one.clone(), two.clone()], &[]));
        let at = host.display();
        let made = format!(
            "--tmpfs {at} --ro-bind-try {at}/directory {at}/directory --ro-bind-try {at}/file {at}/file \
             --symlink file {at}/link "
        );
        assert_eq!(said.matches(&made).count(), 1, "{made}\nis not in\n{said}");
        for place in [one, two] {
            let made = format!("--perms 755 --tmpfs {} ", place.display());
            assert!(said.contains(&made), "{made}\nis not in\n{said}");
        }
    }

    #[test]
    fn room_in_one_directory_takes_none_away_in_another() {
        let host = tempfile::tempdir_in("/var").unwrap();
        let (inner, secret) = (host.path().join("inner"), host.path().join("secret"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::create_dir(&secret).unwrap();
        let mut paths = [inner.join("new"), host.path().join("new")];
        paths.sort();
        let said = words(&view(&paths, std::slice::from_ref(&secret)));
        let at =
            |text: String| said.find(&text).unwrap_or_else(|| panic!("{text}\nis not in\n{said}"));
        let outer = at(format!("--tmpfs {} ", host.path().display()));
        let inner = at(format!("--tmpfs {} ", inner.display()));
        let secret = at(format!("--perms 700 --tmpfs {} ", secret.display()));
        assert!(outer < inner && inner < secret, "{said}");
    }

    #[test]
    fn what_is_hidden_looks_empty_and_links_are_refused() {
        let host = tempfile::tempdir_in("/var").unwrap();
        let secret = host.path().join("secret");
        std::fs::create_dir(&secret).unwrap();
        let hidden = [secret.clone(), host.path().join("missing")];
        let said = words(&view(&[], &hidden));
        assert!(said.contains(&format!("--perms 700 --tmpfs {} ", secret.display())), "{said}");
        assert!(!said.contains("missing"), "{said}");
        let link = host.path().join("link");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let refused = arguments(&view(&[link.join("x")], &[])).unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
    }
}
