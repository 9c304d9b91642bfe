//! The promises of `Disk` on a file system that is none of Linux's own: NTFS,
//! without case, with the names of Windows, and without a rename that replaces
//! nothing. Skipped where it cannot be mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use s0_replica::disk::{Description, Disk, DiskError, IntentId, Spot, StagedName};
use s0_replica::shell::disk::{Marker, RootDisk};
use s0_tree::TreePath;

struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mount = Self { dir: tempfile::tempdir().unwrap() };
        let image = mount.dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(mount.root()).unwrap();
        let run = |program: &str, arguments: &[&str], last: &[&Path]| {
            let mut command = Command::new(program);
            command.args(arguments).args(last).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let options = "ignore_case,windows_names,permissions";
        (run("mkfs.ntfs", &["-Q", "-F", "-q"], &[&image])
            && run("lowntfs-3g", &["-o", options], &[&image, &mount.root()]))
        .then_some(mount)
    }

    /// Takes it away and puts it back; the system gives it another number.
    fn again(&self) {
        let run = |command: &mut Command| assert!(command.status().unwrap().success());
        run(Command::new("umount").arg(self.root()));
        let other = self.dir.path().join("other");
        fs::create_dir(&other).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&other));
        let options = "ignore_case,windows_names,permissions";
        let image = self.dir.path().join("image");
        run(Command::new("lowntfs-3g").args(["-o", options]).arg(image).arg(self.root()));
        run(Command::new("umount").arg(&other));
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.root()).stderr(Stdio::null()).status();
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

#[test]
fn a_disk_without_case_keeps_its_promises() {
    let Some(mount) = Mount::new() else { return };
    let at = |inner: &str| mount.root().join(inner);
    let mut disk = RootDisk::open(&mount.root(), Marker::Create).unwrap();
    let abilities = disk.abilities();
    assert!(!abilities.case_sensitive && abilities.windows_names, "{abilities:?}");
    assert_eq!(disk.identity().unwrap(), disk.identity().unwrap());

    // This disk shows all names in lower case, so any spelling will do.
    assert!(!abilities.case_preserving);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/file"), "mine").unwrap();
    let spot = |inner: &str| Spot::Path(path(inner));
    assert!(disk.stat(&spot("dir/file")).unwrap().is_some());
    for other in ["dir/File", "Dir/file", "DIR/FILE"] {
        assert!(disk.stat(&spot(other)).unwrap().is_some(), "{other}");
    }

    // Nothing is replaced, however it is spelled.
    let stage = |disk: &mut RootDisk, slot: u64| {
        disk.stage_file(IntentId(slot), b"theirs", 0o644).unwrap();
        disk.sync_staged(&[IntentId(slot)]).unwrap();
        IntentId(slot)
    };
    let slot = stage(&mut disk, 2);
    for taken in ["dir/file", "Dir/FILE", "Dir"] {
        assert!(matches!(disk.place(slot, &path(taken)), Err(DiskError::Exists)), "{taken}");
    }
    assert_eq!(fs::read_to_string(at("dir/file")).unwrap(), "mine");
    assert!(matches!(disk.place(slot, &path("dir/a:b")), Err(DiskError::BadName)));
    disk.place(slot, &path("dir/new")).unwrap();
    assert!(matches!(disk.rename(&path("dir/new"), &path("dir/File")), Err(DiskError::Exists)));
    assert!(matches!(disk.rename(&path("dir/new"), &path("Dir")), Err(DiskError::Exists)));
    assert_eq!(fs::read_to_string(at("dir/file")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(at("dir/new")).unwrap(), "theirs");

    // A new spelling of a name is no other thing, and loses nothing.
    disk.rename(&path("dir/new"), &path("dir/NEW")).unwrap();
    disk.rename(&path("dir"), &path("dIR")).unwrap();
    assert_eq!(fs::read_to_string(at("dir/new")).unwrap(), "theirs");
    disk.rename(&path("dir/new"), &path("moved")).unwrap();
    disk.rename(&path("dir"), &path("there")).unwrap();
    let listing = disk.list(&TreePath::root()).unwrap();
    let mut names: Vec<_> = listing.entries.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["moved", "there"]);

    let slot = IntentId(4);
    disk.take(&path("moved"), slot).unwrap();
    assert!(matches!(disk.take(&path("there/file"), slot), Err(DiskError::Exists)));
    disk.sync_directories(&[TreePath::root(), path("there")]).unwrap();
    assert_eq!(disk.staged().unwrap(), [StagedName::Whole(slot)]);
    if abilities.symlinks {
        disk.stage_link(IntentId(6), "there/file").unwrap();
        disk.sync_staged(&[IntentId(6)]).unwrap();
        disk.place(IntentId(6), &path("link")).unwrap();
        assert_eq!(disk.read_link(&spot("link")).unwrap(), "there/file");
    }
    let described = disk.describe(&[spot("there/file")]).remove(0).unwrap();
    assert!(
        matches!(described, Description::Stable { bytes: Some(bytes), .. } if bytes == b"mine")
    );
    let writer = fs::OpenOptions::new().append(true).open(at("there/file")).unwrap();
    assert_ne!(disk.has_writer(&spot("there/file")), Some(false));
    drop(writer);
}

#[test]
fn a_disk_that_is_mounted_again_is_the_same() {
    let Some(mount) = Mount::new() else { return };
    for root in [mount.root(), mount.root().join("inner")] {
        fs::create_dir_all(&root).unwrap();
        let before = RootDisk::open(&root, Marker::Create).unwrap().identity().unwrap();
        mount.again();
        let after = RootDisk::open(&root, Marker::Expect).unwrap().identity().unwrap();
        assert_eq!(after, before);
        assert!(after.marker.is_some());
        fs::remove_dir(mount.dir.path().join("other")).unwrap();
    }
}
