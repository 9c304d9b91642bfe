"""A disk on which `Foo` and `foo` are one name, and which refuses the names that Windows refuses: NTFS.

Mounted with `ignore_case`, it does not even keep the case of what is written: it lists every name in lower
case. So names on that disk are compared folded; on Linux and in the Volume they are compared as they are.
"""
import contextlib
import os
import pathlib
import shutil
import subprocess
import unicodedata

from harness import (Skip, check, check_all_equal, check_equal, check_no_conflicts, disk_tree, files_of, settle,
                     wait_until, write)

COMPOSED = unicodedata.normalize("NFC", "caf\u00e9.txt")
DECOMPOSED = unicodedata.normalize("NFD", "caf\u00e9.txt")


FOLDING = "ignore_case,windows_names"


class Image:
    """A disk image with NTFS, which can be mounted in one way and then in another."""

    def __init__(self, bench):
        if os.geteuid() != 0:
            raise Skip("root, to mount a disk image")
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        self.driver, maker = shutil.which("lowntfs-3g", path=path), shutil.which("mkntfs", path=path)
        if not self.driver or not maker or not os.path.exists("/dev/fuse"):
            raise Skip("lowntfs-3g, mkntfs (Debian: ntfs-3g) and /dev/fuse")
        self.file, self.log = bench.dir / "disk.img", bench.dir / "ntfs.log"
        with open(self.file, "wb") as file:
            file.truncate(96 << 20)
        subprocess.run([maker, "-F", "-Q", "-q", str(self.file)], check=True, capture_output=True,
                       stdin=subprocess.DEVNULL)

    @contextlib.contextmanager
    def mounted(self, at, options):
        """Mounts it; the driver is a child of this test, and the mount goes with it."""
        at.mkdir(exist_ok=True)
        with open(self.log, "ab") as log:
            driver = subprocess.Popen([self.driver, "-o", f"{options},no_detach", str(self.file), str(at)],
                                      stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_until("the image is mounted", lambda: driver.poll() is not None or os.path.ismount(at), 20)
            check(driver.poll() is None, lambda: f"mounting failed: {self.log.read_text()}")
            yield at
        finally:
            subprocess.run(["umount", str(at)], capture_output=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(10)
            if driver.poll() is None:
                subprocess.run(["umount", "-l", str(at)], capture_output=True)
                driver.kill()
                driver.wait()


def ntfs(bench):
    return Image(bench).mounted(bench.dir / "ntfs", FOLDING)


@contextlib.contextmanager
def pair(bench):
    """A Linux machine, and one whose workspace lies on NTFS."""
    with ntfs(bench) as mount:
        (mount / "Probe").write_text("")
        check((mount / "probe").exists(), "this disk tells cases apart; it cannot test anything")
        (mount / "Probe").unlink()
        service = bench.service()
        volume = service.create_volume()
        linux = bench.machine("linux", service).attach(volume)
        folding = bench.machine("windows", service).attach(volume, mount / "workspace")
        try:
            yield volume, linux, folding
        finally:
            for replica in (folding, linux):
                with contextlib.suppress(Exception):
                    replica.stop()


def all_conflicts(*replicas):
    """Every path that any side has recorded as a conflict, and what the Volume has."""
    found = set()
    for replica in replicas:
        found |= set(replica.conflicts())
    return found | {c["path"].lstrip("/") for c in replicas[0].volume.conflicts()}


def contents(tree):
    """Paths and contents, without modes: NTFS keeps none."""
    return {path: what[:2] for path, what in files_of(tree).items()}


def folded(tree):
    """The same with names in lower case, as the folding disk lists them."""
    found = {path.lower(): what for path, what in contents(tree).items()}
    check(len(found) == len(contents(tree)), f"names differ only in case: {sorted(contents(tree))}")
    return found


def check_linux_and_folding(volume, linux, folding):
    there = volume.tree()
    check_equal(contents(there), contents(linux.tree()), "the Volume and Linux")
    check_equal(folded(there), folded(folding.tree()), "the Volume and the folding disk")
    linux.verify()
    folding.verify()


def test_files_cross_to_and_from_a_case_insensitive_disk(bench):
    with pair(bench) as (volume, linux, folding):
        for number in range(60):
            write(linux / f"Src/Dir{number % 4}/File{number}.TXT", f"linux {number}\n")
        settle(linux, folding)
        for number in range(60):
            write(folding / f"Src/Dir{number % 4}/Other{number}.txt", f"windows {number}\n")
        write(folding / "Src/Dir0/File0.TXT", "edited on the folding disk\n")
        os.unlink(folding / "Src/Dir1/File1.TXT")
        os.rename(folding / "Src/Dir2/File2.TXT", folding / "Src/Dir2/Moved.TXT")
        settle(folding, linux)
        for name in ("Src/Dir0/File0.TXT", "Src/Dir3/File3.TXT"):
            path = linux / name
            path.with_name("saving").write_text("edited on Linux\n")
            os.replace(path.with_name("saving"), path)
        settle(linux, folding)
        check_linux_and_folding(volume, linux, folding)
        moved = [path for path in files_of(volume.tree()) if path.lower() == "src/dir2/moved.txt"]
        check(len(moved) == 1 and moved[0].startswith("Src/Dir2/"), f"the rename did not cross: {moved}")
        check(not all_conflicts(linux, folding), f"conflicts: {all_conflicts(linux, folding)}")
        check((folding / "Src/Dir3/File3.TXT").read_text() == "edited on Linux\n", "an edit did not arrive")
        names = set(files_of(volume.tree()))
        check({f"Src/Dir{n % 4}/File{n}.TXT" for n in range(3, 60)} <= names, "the folding disk's spelling "
              f"of names came back: {sorted(names)[:9]}")


def test_a_rename_of_case_only_does_not_swing_back(bench):
    with pair(bench) as (volume, linux, folding):
        write(linux / "readme.md", "text\n")
        write(linux / "Docs/a.txt", "a\n")
        settle(linux, folding)
        os.rename(linux / "readme.md", linux / "README.md")
        settle(linux, folding)
        write(folding / "readme.md", "edited on the folding disk\n")
        write(folding / "docs/b.txt", "b\n")
        settle(folding, linux)
        check_linux_and_folding(volume, linux, folding)
        check(set(contents(volume.tree())) == {"README.md", "Docs/a.txt", "Docs/b.txt"},
              f"the Volume has {sorted(volume.tree())}")
        check(volume.read("README.md") == b"edited on the folding disk\n", "the edit did not cross")
        check(not all_conflicts(linux, folding), f"conflicts: {all_conflicts(linux, folding)}")


def test_names_that_the_disk_cannot_hold_become_conflicts(bench):
    with pair(bench) as (volume, linux, folding):
        write(linux / "Foo", "the first\n")
        write(linux / COMPOSED, "composed\n")
        write(linux / "plain.txt", "plain\n")
        # A new directory would wait for the conflicts, and what is in it with it.
        write(linux / "sub/plain.txt", "plain\n")
        settle(linux, folding)
        before = folded(folding.tree())
        check(set(before) == {"foo", COMPOSED, "plain.txt", "sub/plain.txt"},
              f"the folding disk has {sorted(before)}")

        hostile = {"foo": "the second\n", DECOMPOSED: "decomposed\n", "CON.txt": "a device\n", "a.": "a dot\n",
                   "sub/aux": "a device below\n", "what?.txt": "a forbidden character\n"}
        for name, text in hostile.items():
            write(linux / name, text)
        wait_until("each is a recorded conflict",
                   lambda: set(hostile) <= all_conflicts(linux, folding), 30, every=0.2)
        extra = all_conflicts(linux, folding) - set(hostile)
        check(not extra, f"others are conflicts too: {sorted(extra)}")
        # Nothing is damaged: each side has what it had, and each text is where its writer put it.
        check_equal(before, {path: what for path, what in folded(folding.tree()).items() if path in before},
                    "the folding disk before and after")
        check((folding / "Foo").read_text() == "the first\n", "Foo was overwritten by foo")
        check(set(os.listdir(folding.root)) == {".s0", "sub", "foo", COMPOSED, "plain.txt"}, "strange names on the folding disk: "
              f"{sorted(os.listdir(folding.root))}")
        for name, text in {**hostile, "Foo": "the first\n", COMPOSED: "composed\n"}.items():
            check((linux / name).read_text() == text, f"{name} was damaged on Linux")
        there = volume.tree()
        check(not [name for name in hostile if name in there], "the Volume took what a replica cannot hold")
        reasons = {c["path"].lstrip("/"): c["reason"] for c in volume.conflicts()}
        bench.note("reasons: " + ", ".join(sorted(set(reasons.values()))))

        # The way out: give them names that all can hold.
        for number, name in enumerate(hostile):
            os.rename(linux / name, linux / f"portable{number}.txt")
        # A conflict that is about a name is over when nothing has the name any more.
        wait_until("no name is in conflict", lambda: not linux.conflicts(), 20)
        for name in sorted(folding.conflicts()):
            folding.mark(name)
        settle(linux, folding)
        for number, text in enumerate(hostile.values()):
            check((folding / f"portable{number}.txt").read_text() == text, f"portable{number}.txt did not arrive")
        check_linux_and_folding(volume, linux, folding)


def test_a_volume_with_such_names_comes_down_without_damage(bench):
    with ntfs(bench) as mount:
        service = bench.service()
        volume = service.create_volume()
        linux = bench.machine("linux", service).attach(volume)
        texts = {"Foo": "the first\n", "foo": "the second\n", COMPOSED: "composed\n",
                 DECOMPOSED: "decomposed\n", "CON.txt": "a device\n", "a.": "a dot\n",
                 "Dir/inside.txt": "1\n", "dir/inside.txt": "2\n", "plain/file.txt": "plain\n"}
        for name, text in texts.items():
            write(linux / name, text)
        settle(linux)
        folding = bench.machine("windows", service).attach(volume, mount / "workspace", init_from="volume")
        try:
            wait_until("what can be held is there", (folding / "plain/file.txt").exists, 30)

            def untold():
                """Names that are neither on the folding disk, with their own text, nor told as not held."""
                status = folding.status()
                told = set(status["conflicts"]) | set(status["problems"]) | {
                    c["path"].lstrip("/") for c in volume.conflicts()}
                held = {}
                for path in pathlib.Path(folding.root).rglob("*"):
                    name = str(path.relative_to(folding.root))
                    if path.is_file() and not name.startswith(".s0"):
                        held.setdefault(name.lower(), path.read_text())
                        meant = [text for other, text in texts.items() if other.lower() == name.lower()]
                        check(held[name.lower()] in meant, f"{name} is damaged")
                return [name for name, text in texts.items() if held.get(name.lower()) != text
                        and not {name, name.rpartition("/")[0]} & told]

            wait_until("each name is held or told", lambda: "nothing" if not untold() else None, 30, every=0.2)
            check(not untold(), lambda: f"neither held nor told: {untold()}")
            told = set(folding.status()["conflicts"]) | set(folding.status()["problems"])
            check({"CON.txt", "a."} <= told, f"only {sorted(told)} are told")
            check_equal({name: what for name, what in files_of(volume.tree()).items()},
                        files_of(disk_tree(linux.root)), "the Volume and Linux")
            check(set(files_of(volume.tree())) == set(texts), "the Volume lost files")
            # Open conflicts hold uploads back; leaving both sides as they are lets them go on.
            for path in sorted(folding.conflicts()):
                folding.sync("conflicts", "mark", "--ignore", path)
            write(folding / "from-windows.txt", "hello\n")
            wait_until("it still works", (linux / "from-windows.txt").exists, 30)
            check_all_equal(volume, linux)
            there = volume.tree()
            for name, text in texts.items():
                check(volume.read(name) == text.encode(), f"{name} is another one in the Volume")
            check(len(files_of(there)) == len(texts) + 1, f"the Volume has {sorted(files_of(there))}")
        finally:
            with contextlib.suppress(Exception):
                folding.stop()


def test_a_disk_that_changed_its_abilities_halts_and_changes_nothing(bench):
    image, at = Image(bench), bench.dir / "ntfs"
    service = bench.service()
    volume = service.create_volume()
    linux = bench.machine("linux", service).attach(volume)
    for number in range(20):
        write(linux / f"Src/File{number}.txt", f"{number}\n")
    linux.flush()
    before = volume.tree()
    with image.mounted(at, "windows_names"):
        other = bench.machine("other", service).attach(volume, at / "workspace")
        settle(linux, other)
        other.stop()
    # The same image, and names lose their case.
    with image.mounted(at, FOLDING):
        other.sync("start", ok=False)
        wait_until("it halts", lambda: other.status()["condition"] == "halted", 30)
        said = other.sync("status", ok=False).stdout.decode()
        check("abilities" in said and "are one name" in " ".join(said.split()), said)
        other.sync("resume", ok=False)
        check(other.status()["condition"] == "halted", "a resume goes on although nothing is as it was")
        other.stop()
    check_equal(before, volume.tree(), "the Volume before and after")
    # It is as it was, and goes on by itself.
    with image.mounted(at, "windows_names"):
        write(linux / "Src/Later.txt", "later\n")
        other.sync("start")
        settle(linux, other)
        check((other / "Src/Later.txt").exists(), "what came meanwhile is not there")
        check_no_conflicts(volume, linux, other)
        other.stop()
    after = volume.tree()
    check(after.pop("Src/Later.txt", None) is not None, "what came meanwhile is gone")
    check_equal(before, after, "the Volume before and after")
