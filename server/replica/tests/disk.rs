//! The promises of `Disk`, on a real directory.

mod mount;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mount::Mount;
use s0_replica::disk::{
    Description, Disk, DiskError, DiskResult, IntentId, Seen, Spot, StagedName,
};
use s0_replica::shell::disk::{Marker, RootDisk};
use s0_tree::{Content, INLINE_LIMIT, TreePath};

struct Room {
    dir: tempfile::TempDir,
    disk: RootDisk,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let disk = RootDisk::open(&dir.path().join("root"), Marker::Create).unwrap();
        Self { dir, disk }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn stage(&mut self, slot: u64, text: &str) -> IntentId {
        let slot = IntentId(slot);
        self.disk.stage_file(slot, text.as_bytes(), 0o640).unwrap();
        self.disk.sync_staged(&[slot]).unwrap();
        slot
    }

    fn staged(&mut self) -> Vec<StagedName> {
        let mut names = self.disk.staged().unwrap();
        names.sort_by_key(|name| format!("{name:?}"));
        names
    }
}

/// Ends a thread that runs beside a test, also when the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn spot(text: &str) -> Spot {
    Spot::Path(path(text))
}

fn whole(slot: u64) -> StagedName {
    StagedName::Whole(IntentId(slot))
}

fn describe(disk: &mut RootDisk, text: &str) -> DiskResult<Description> {
    disk.describe(&[spot(text)]).remove(0)
}

#[test]
fn a_staged_file_is_placed_where_nothing_is() {
    let mut room = Room::new();
    room.write("d/taken", "mine");
    let slot = room.stage(2, "theirs");
    assert!(matches!(room.disk.place(slot, &path("d/taken")), Err(DiskError::Exists)));
    assert_eq!(room.read("d/taken"), "mine");
    assert_eq!(room.staged(), [whole(2)]);
    room.disk.place(slot, &path("d/free")).unwrap();
    room.disk.sync_directories(&[path("d"), path("d"), path("gone")]).unwrap();
    assert_eq!(room.read("d/free"), "theirs");
    assert_eq!(room.at("d/free").metadata().unwrap().mode() & 0o777, 0o640);
    assert_eq!(room.staged(), []);
    assert!(matches!(room.disk.place(slot, &path("d/more")), Err(DiskError::NotFound)));
    let slot = room.stage(4, "x");
    assert!(matches!(room.disk.place(slot, &path("none/x")), Err(DiskError::NotFound)));
    assert!(matches!(room.disk.place(slot, &path("d/free/x")), Err(DiskError::NotADirectory)));
    room.disk.discard(&whole(4)).unwrap();
    assert!(matches!(room.disk.discard(&whole(4)), Err(DiskError::NotFound)));
}

#[test]
fn exchange_and_take_lose_nothing() {
    let mut room = Room::new();
    room.write("f", "old");
    let inode = room.at("f").metadata().unwrap().ino();
    let slot = room.stage(2, "new");
    room.disk.exchange(slot, &path("f")).unwrap();
    assert_eq!(room.read("f"), "new");
    let out = room.disk.stat(&Spot::Staged(slot)).unwrap().unwrap();
    assert_eq!((out.inode, out.size), (inode, 3));
    assert!(matches!(room.disk.exchange(slot, &path("none")), Err(DiskError::NotFound)));
    assert!(matches!(room.disk.take(&path("f"), slot), Err(DiskError::Exists)));
    assert_eq!(room.read("f"), "new");
    room.disk.take(&path("f"), slot.aside()).unwrap();
    assert!(!room.at("f").exists());
    assert!(matches!(room.disk.take(&path("f"), IntentId(8)), Err(DiskError::NotFound)));
    assert_eq!(room.staged(), [whole(2), whole(3)]);
}

#[test]
fn renames_replace_nothing() {
    let mut room = Room::new();
    room.write("a/f", "a");
    room.write("b/f", "b");
    let rename = |room: &mut Room, from: &str, to: &str| room.disk.rename(&path(from), &path(to));
    assert!(matches!(rename(&mut room, "a/f", "b/f"), Err(DiskError::Exists)));
    assert!(matches!(rename(&mut room, "a", "b"), Err(DiskError::Exists)));
    assert!(matches!(rename(&mut room, "a/none", "b/g"), Err(DiskError::NotFound)));
    rename(&mut room, "a/f", "b/g").unwrap();
    rename(&mut room, "b", "a/b").unwrap();
    assert_eq!((room.read("a/b/f"), room.read("a/b/g")), ("b".into(), "a".into()));
    assert!(rename(&mut room, "a", "a/b/a").is_err());
}

#[test]
fn directories_are_made_and_removed_empty_only() {
    let mut room = Room::new();
    room.disk.make_directory(&path("d"), 0o775).unwrap();
    assert_eq!(room.at("d").metadata().unwrap().mode() & 0o777, 0o775);
    assert!(matches!(room.disk.make_directory(&path("d"), 0o755), Err(DiskError::Exists)));
    room.write("d/f", "");
    assert!(matches!(room.disk.remove_directory(&path("d")), Err(DiskError::NotEmpty)));
    assert!(matches!(room.disk.remove_directory(&path("d/f")), Err(DiskError::NotADirectory)));
    room.disk.set_mode(&path("d/f"), 0o000).unwrap();
    room.disk.set_mode(&path("d/f"), 0o755).unwrap();
    assert_eq!(room.at("d/f").metadata().unwrap().mode() & 0o777, 0o755);
    assert!(matches!(room.disk.set_mode(&path("d/g"), 0o644), Err(DiskError::NotFound)));
    fs::remove_file(room.at("d/f")).unwrap();
    room.disk.remove_directory(&path("d")).unwrap();
    assert!(matches!(room.disk.remove_directory(&path("d")), Err(DiskError::NotFound)));
}

#[test]
fn parts_become_whole_when_they_are_synced() {
    let mut room = Room::new();
    let (a, b, link) = (IntentId(2), IntentId(4), IntentId(6));
    room.disk.stage_file(a, b"torn", 0o600).unwrap();
    room.disk.stage_file(a, b"again", 0o755).unwrap();
    let mut part = room.disk.access().part(b).unwrap();
    std::thread::spawn(move || {
        part.write(b"down").unwrap();
        part.write(b"load").unwrap();
        part.finish().unwrap();
    })
    .join()
    .unwrap();
    room.disk.stage_part(b, 0o644).unwrap();
    room.disk.stage_link(link, "../any/where").unwrap();
    assert!(matches!(room.disk.stage_part(IntentId(8), 0o644), Err(DiskError::NotFound)));
    let parts = [a, b, link].map(StagedName::Part);
    assert_eq!(room.staged(), parts);
    room.disk.sync_staged(&[a, b, link]).unwrap();
    assert_eq!(room.staged(), [whole(2), whole(4), whole(6)]);
    assert_eq!(room.read(".s0/staging/2"), "again");
    assert_eq!(room.at(".s0/staging/2").metadata().unwrap().mode() & 0o777, 0o755);
    assert_eq!(room.read(".s0/staging/4"), "download");
    room.disk.place(link, &path("link")).unwrap();
    assert_eq!(room.disk.read_link(&spot("link")).unwrap(), "../any/where");

    room.disk.stage_file(a, b"other", 0o600).unwrap();
    assert!(matches!(room.disk.sync_staged(&[a]), Err(DiskError::Exists)));
    assert_eq!(room.read(".s0/staging/2"), "again");
    room.disk.discard(&StagedName::Part(a)).unwrap();

    let many: Vec<_> = (100..120).map(IntentId).collect();
    many.iter().for_each(|slot| room.disk.stage_file(*slot, b"x", 0o600).unwrap());
    room.disk.sync_staged(&many).unwrap();
    assert_eq!(room.staged().len(), 22);
    for name in ["007", "x", "5.part.part", "-1", "99999999999999999999"] {
        room.write(&format!(".s0/staging/{name}"), "");
    }
    let foreign = room.staged().into_iter().filter(|name| matches!(name, StagedName::Foreign(_)));
    let foreign: Vec<_> = foreign.collect();
    assert_eq!(foreign.len(), 5);
    assert!(matches!(room.disk.discard(&foreign[0]), Err(DiskError::Denied)));
}

#[test]
fn the_state_directory_is_out_of_reach() {
    let mut room = Room::new();
    room.write("f", "");
    let slot = room.stage(2, "x");
    for inner in [".s0/x", ".S0/x", ".s0"] {
        assert!(matches!(room.disk.place(slot, &path(inner)), Err(DiskError::Denied)), "{inner}");
    }
    assert!(matches!(room.disk.take(&path(".s0/id"), IntentId(4)), Err(DiskError::Denied)));
    let listing = room.disk.list(&TreePath::root()).unwrap();
    assert_eq!(listing.entries.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["f"]);
    assert_eq!(room.at(".s0/staging").metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn listing_and_stat() {
    use std::os::unix::ffi::OsStrExt;
    let mut room = Room::new();
    room.write("d/f", "four");
    symlink("f", room.at("d/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, room.at("d/fifo"), rustix::fs::Mode::RUSR).unwrap();
    fs::write(room.at("d").join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    let listing = room.disk.list(&path("d")).unwrap();
    let kinds: BTreeSet<_> = listing
        .entries
        .iter()
        .map(|(name, stat)| (name.to_string(), format!("{:?}", stat.kind)))
        .collect();
    let expected = [("f", "File"), ("fifo", "Other"), ("link", "Symlink")];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.into(), kind.into())).into());
    assert_eq!(listing.unnameable, ["bad\u{fffd}"]);
    for nothing in ["none", "none/x", "d/f/x", "d/link/x"] {
        assert_eq!(room.disk.stat(&spot(nothing)).unwrap(), None, "{nothing}");
    }
    let stat = room.disk.stat(&spot("d/f")).unwrap().unwrap();
    let real = room.at("d/f").metadata().unwrap();
    assert_eq!((stat.size, stat.inode, stat.mode), (4, real.ino(), real.mode() & 0o777));
    assert_eq!(stat.mtime, real.mtime() * 1_000_000_000 + real.mtime_nsec());
    assert_eq!(room.disk.stat(&spot("")).unwrap().unwrap().kind, Seen::Directory);
    assert!(matches!(room.disk.list(&path("d/f")), Err(DiskError::NotADirectory)));
    assert!(matches!(room.disk.list(&path("d/link")), Err(DiskError::NotADirectory)));
    assert!(matches!(describe(&mut room.disk, "d/link"), Err(DiskError::Other(_))));
    assert!(matches!(describe(&mut room.disk, "d/fifo"), Err(DiskError::Other(_))));
    assert!(matches!(describe(&mut room.disk, "d/none"), Err(DiskError::NotFound)));
    let now = room.disk.now();
    assert!(now >= stat.mtime && now - stat.mtime < 60_000_000_000);
}

#[test]
fn files_are_described_in_order() {
    let mut room = Room::new();
    let limit = usize::try_from(INLINE_LIMIT).unwrap();
    let sizes = [0, 1, limit - 1, limit, limit + 1, 3_000_000];
    let spots: Vec<_> = sizes.iter().map(|size| spot(&size.to_string())).collect();
    for size in sizes {
        room.write(&size.to_string(), &"0123456789".repeat(size / 10 + 1)[..size]);
    }
    for (size, described) in sizes.iter().zip(room.disk.describe(&spots)) {
        let Description::Stable { stat, content, bytes, .. } = described.unwrap() else { panic!() };
        let real = fs::read(room.at(&size.to_string())).unwrap();
        assert_eq!((stat.size, content), (*size as u64, Content::of(&real)));
        assert_eq!(bytes.is_some(), *size <= limit);
        assert!(bytes.is_none_or(|bytes| bytes == real));
    }
    let mut reader = room.disk.access().open(&spot("3000000")).unwrap();
    assert_eq!(reader.read_range(1_000_000, 5).unwrap(), b"01234");
    assert_eq!(reader.read_range(2_999_998, 5).unwrap(), b"89");
    reader.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(all.len() == 3_000_000 && reader.is_unchanged().unwrap());
    fs::OpenOptions::new().append(true).open(room.at("3000000")).unwrap().write_all(b"x").unwrap();
    assert!(!reader.is_unchanged().unwrap());
}

#[test]
fn a_file_that_never_rests_is_changing_and_never_torn() {
    let mut room = Room::new();
    let size = 1_000_000;
    room.write("f", &"a".repeat(size));
    let known = room.disk.has_writer(&spot("f"));
    let file = room.at("f");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().write(true).open(&file).unwrap();
            for byte in (b'a'..=b'z').cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                file.seek(SeekFrom::Start(0)).unwrap();
                file.write_all(&vec![byte; size]).unwrap();
            }
        });
        let pure: Vec<_> = (b'a'..=b'z').map(|byte| Content::of(&vec![byte; size])).collect();
        let mut changing = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        // On a busy machine the writer may come late.
        for round in 0.. {
            let enough = round >= 200 && (changing > 0 || known.is_none());
            if enough || Instant::now() > deadline {
                break;
            }
            match describe(&mut room.disk, "f").unwrap() {
                Description::Changing => changing += 1,
                // Where leases are not known, nothing can be promised.
                Description::Stable { content, .. } => {
                    assert!(known.is_none() || pure.contains(&content));
                }
            }
        }
        assert!(changing > 0 || known.is_none());
    });
    assert!(matches!(describe(&mut room.disk, "f").unwrap(), Description::Stable { .. }));
    // Who has written long ago is not waited for.
    let _writer = fs::OpenOptions::new().append(true).open(room.at("f")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while matches!(describe(&mut room.disk, "f").unwrap(), Description::Changing) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn open_writers_are_seen() {
    let mut room = Room::new();
    room.write("f", "x");
    let known = room.disk.has_writer(&spot("f"));
    if known.is_none() {
        return; // A file system without leases.
    }
    assert_eq!(known, Some(false));
    let reader = fs::File::open(room.at("f")).unwrap();
    assert_eq!(room.disk.has_writer(&spot("f")), Some(false));
    let writer = fs::OpenOptions::new().append(true).open(room.at("f")).unwrap();
    assert_eq!(room.disk.has_writer(&spot("f")), Some(true));
    let slot = room.stage(2, "new");
    room.disk.exchange(slot, &path("f")).unwrap();
    assert_eq!(room.disk.has_writer(&Spot::Staged(slot)), Some(true));
    assert_eq!(room.disk.has_writer(&spot("f")), Some(false));
    drop(writer);
    assert_eq!(room.disk.has_writer(&Spot::Staged(slot)), Some(false));
    drop(reader);
    assert_eq!(room.disk.has_writer(&spot("none")), None);
    assert_eq!(room.disk.has_writer(&spot("")), None);
}

#[test]
fn a_lease_that_is_broken_ends_nobody() {
    let mut room = Room::new();
    room.write("f", "x");
    let file = room.at("f");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(fs::OpenOptions::new().append(true).open(&file).unwrap());
            }
        });
        for _ in 0..5_000 {
            room.disk.has_writer(&spot("f"));
        }
    });
}

/// Everything below the outer directory, to see that nothing came or went.
fn snapshot(at: &Path) -> BTreeSet<(PathBuf, u64)> {
    fs::read_dir(at)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect()
}

#[test]
fn nothing_is_followed_even_in_a_race() {
    let mut room = Room::new();
    let outside = room.dir.path().join("outside");
    fs::create_dir_all(outside.join("inner")).unwrap();
    fs::write(outside.join("f"), "not yours").unwrap();
    fs::write(outside.join("inner/f"), "not yours").unwrap();
    let before = (snapshot(&outside), snapshot(&outside.join("inner")));
    for at in ["d", "swap"] {
        fs::create_dir_all(room.at(at).join("inner")).unwrap();
    }
    symlink(&outside, room.at("link")).unwrap();
    symlink(outside.join("f"), room.at("file")).unwrap();
    for (directory, file) in [("link", "link/f"), ("link/inner", "link/inner/f")] {
        let slot = room.stage(2, "x");
        assert!(room.disk.list(&path(directory)).is_err());
        assert_eq!(room.disk.stat(&spot(file)).unwrap(), None);
        assert!(describe(&mut room.disk, file).is_err());
        assert!(room.disk.place(slot, &path(&format!("{directory}/new"))).is_err());
        assert!(room.disk.exchange(slot, &path(file)).is_err());
        assert!(room.disk.take(&path(file), IntentId(4)).is_err());
        assert!(room.disk.rename(&path(file), &path("stolen")).is_err());
        assert!(room.disk.make_directory(&path(&format!("{directory}/new")), 0o755).is_err());
        assert!(room.disk.remove_directory(&path("link/inner")).is_err());
        assert!(room.disk.set_mode(&path(file), 0o777).is_err());
        assert!(room.disk.read_link(&spot(file)).is_err());
        room.disk.discard(&whole(2)).unwrap();
    }
    assert!(describe(&mut room.disk, "file").is_err());
    assert!(room.disk.set_mode(&path("file"), 0o777).is_err());

    // Now `d` is a directory and a link to the outside by turns.
    symlink(&outside, room.at("evil")).unwrap();
    let (d, evil) = (room.at("d"), room.at("evil"));
    let stop = AtomicBool::new(false);
    let (mut placed, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &d, cwd, &evil, flags).unwrap();
            }
        });
        for round in 0..2_000_u64 {
            let slot = IntentId(10 + 2 * round);
            room.disk.stage_file(slot, b"x", 0o644).unwrap();
            // Not synced for each: that is not what is tested here.
            fs::rename(
                room.at(&format!(".s0/staging/{}.part", slot.0)),
                room.at(&format!(".s0/staging/{}", slot.0)),
            )
            .unwrap();
            match room.disk.place(slot, &path(&format!("d/inner/n{round}"))) {
                Ok(()) => placed += 1,
                Err(_) => refused += 1,
            }
            let _ = room.disk.take(&path("d/f"), slot.aside());
            let _ = room.disk.make_directory(&path(&format!("d/m{round}")), 0o755);
            let _ = room.disk.remove_directory(&path(&format!("d/m{round}")));
            if let Ok(Description::Stable { bytes, .. }) = describe(&mut room.disk, "d/f") {
                panic!("read {bytes:?}");
            }
        }
    });
    assert!(placed > 0 && refused > 0, "{placed} {refused}");
    assert_eq!((snapshot(&outside), snapshot(&outside.join("inner"))), before);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "not yours");
}

#[test]
fn another_root_is_noticed() {
    let mut room = Room::new();
    let identity = room.disk.identity().unwrap();
    assert!(identity.marker.is_some());
    assert_eq!(room.disk.identity().unwrap(), identity);
    let reopened = RootDisk::open(&room.root(), Marker::Expect).unwrap().identity().unwrap();
    assert_eq!(reopened, identity);
    assert_eq!(RootDisk::open(&room.root(), Marker::Create).unwrap().identity().unwrap(), identity);

    let moved = room.dir.path().join("moved");
    fs::rename(room.root(), &moved).unwrap();
    assert!(matches!(room.disk.identity(), Err(DiskError::RootGone)));
    fs::create_dir(room.root()).unwrap();
    let other = room.disk.identity().unwrap();
    assert!(other.marker.is_none() && other.inode != identity.inode);
    assert!(matches!(RootDisk::open(&room.root(), Marker::Expect), Err(DiskError::RootGone)));
    // The marker was copied, too: it is still another directory.
    fs::create_dir(room.at(".s0")).unwrap();
    fs::copy(moved.join(".s0/id"), room.at(".s0/id")).unwrap();
    assert_ne!(room.disk.identity().unwrap(), identity);
    RootDisk::open(&room.root(), Marker::Expect).unwrap();

    fs::remove_dir_all(&moved).unwrap();
    assert!(matches!(room.disk.list(&TreePath::root()), Err(DiskError::RootGone)));
    assert!(matches!(room.disk.stage_file(IntentId(2), b"", 0o644), Err(DiskError::RootGone)));
    assert!(RootDisk::open(&room.dir.path().join("none"), Marker::Create).is_err());
}

#[test]
fn a_planted_state_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, root.join(".s0")).unwrap();
    assert!(matches!(RootDisk::open(&root, Marker::Create), Err(DiskError::NotADirectory)));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn nothing_is_done_below_a_mount() {
    let mut room = Room::new();
    room.write("d/covered", "mine");
    room.write("same/f", "mine");
    room.write("file", "mine");
    let Some(mount) = Mount::tmpfs(&room.at("d")) else { return };
    fs::create_dir(room.at("elsewhere")).unwrap();
    let _same = Mount::bind(&room.at("elsewhere"), &room.at("same")).unwrap();
    let _file = Mount::bind(&room.at(".s0/id"), &room.at("file")).unwrap();
    fs::create_dir(room.at("d/deep")).unwrap();

    for mounted in ["d", "same", "file"] {
        let stat = room.disk.stat(&spot(mounted)).unwrap().unwrap();
        assert_eq!(stat.kind, Seen::Mount, "{mounted}");
    }
    let listing = room.disk.list(&TreePath::root()).unwrap();
    let mut kinds: Vec<_> =
        listing.entries.iter().map(|(name, stat)| (name.as_str(), stat.kind)).collect();
    kinds.sort_by_key(|(name, _)| *name);
    assert_eq!(
        kinds,
        [
            ("d", Seen::Mount),
            ("elsewhere", Seen::Directory),
            ("file", Seen::Mount),
            ("same", Seen::Mount)
        ]
    );
    // Not `None`: what is covered is not gone.
    for below in ["d/covered", "d/deep", "d/deep/f", "same/f"] {
        assert!(matches!(room.disk.stat(&spot(below)), Err(DiskError::OtherDevice)), "{below}");
    }
    assert!(matches!(room.disk.list(&path("d")), Err(DiskError::OtherDevice)));
    assert!(matches!(room.disk.list(&path("d/deep")), Err(DiskError::OtherDevice)));
    assert!(describe(&mut room.disk, "file").is_err());
    let slot = room.stage(2, "theirs");
    for at in ["d/new", "d/deep/new", "same/new", "d", "same", "file"] {
        assert!(room.disk.place(slot, &path(at)).is_err(), "{at}");
        assert!(room.disk.exchange(slot, &path(at)).is_err(), "{at}");
        assert!(room.disk.take(&path(at), IntentId(4)).is_err(), "{at}");
        assert!(room.disk.make_directory(&path(at), 0o755).is_err(), "{at}");
        assert!(room.disk.remove_directory(&path(at)).is_err(), "{at}");
    }
    room.disk.sync_directories(&[path("d"), path("d/deep"), TreePath::root()]).unwrap();
    assert_eq!(fs::read_dir(room.at("d")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(room.at("elsewhere")).unwrap().count(), 0);

    drop(mount);
    assert_eq!(room.disk.stat(&spot("d")).unwrap().unwrap().kind, Seen::Directory);
    assert_eq!(room.read("d/covered"), "mine");
}

#[test]
fn a_root_may_be_a_mount_itself() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let Some(_mount) = Mount::tmpfs(&root) else { return };
    let mut disk = RootDisk::open(&root, Marker::Create).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/f"), "x").unwrap();
    assert_eq!(disk.stat(&Spot::Path(TreePath::root())).unwrap().unwrap().kind, Seen::Directory);
    assert_eq!(disk.list(&TreePath::root()).unwrap().entries.len(), 1);
    assert_eq!(disk.stat(&spot("d/f")).unwrap().unwrap().kind, Seen::File);
}

#[test]
fn one_name_that_cannot_be_read_hides_no_other() {
    let mut room = Room::new();
    room.write("d/f", "mine");
    fs::create_dir(room.at("d/dead")).unwrap();
    let Some(_mount) = Mount::dead(&room.at("d/dead")) else { return };
    let listing = room.disk.list(&path("d")).unwrap();
    let kind = |name: &str| {
        let found = listing.entries.iter().find(|(other, _)| other.as_str() == name);
        found.map(|(_, stat)| stat.kind)
    };
    assert_eq!((kind("f"), kind("dead")), (Some(Seen::File), Some(Seen::Unknown)));
    // Which says why, and that it is not the root.
    let why = room.disk.stat(&spot("d/dead"));
    assert!(matches!(why, Err(DiskError::Other(_))), "{why:?}");
}

#[test]
fn abilities_are_those_of_a_linux_disk() {
    let room = Room::new();
    let abilities = room.disk.abilities();
    assert!(abilities.case_sensitive && !abilities.unicode_insensitive);
    assert!(!abilities.windows_names && abilities.modes && abilities.symlinks);
    assert!(abilities.exchange && abilities.grain >= 0);
    let left: BTreeSet<_> = snapshot(&room.at(".s0"))
        .into_iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left, [".gitignore", "cookies", "id", "staging"].map(String::from).into());
}

#[test]
fn unreadable_files_are_said_to_be() {
    if rustix::process::geteuid().is_root() {
        return; // Root reads everything.
    }
    let mut room = Room::new();
    room.write("f", "x");
    fs::set_permissions(room.at("f"), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(matches!(describe(&mut room.disk, "f"), Err(DiskError::Denied)));
}
