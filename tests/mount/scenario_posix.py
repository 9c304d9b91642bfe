"""A mount behaves as POSIX wants it: pjdfstest, fsx, and what those leave out."""
import errno
import grp
import os
import pathlib
import re
import shutil
import subprocess
import time

from harness import PATIENCE, Failed, check
from rig import Mount, mounts, needs_fuse, service_and_volume, tool, within

HERE = pathlib.Path(__file__).resolve().parent
EXCLUSIONS = HERE / "pjdfstest.exclusions"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

CONFIGURATION = """\
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}
secondary_fs = "{other}"

[settings]
naptime = 0.01
allow_remount = {remounts}
expected_failures = [{expected}]

[dummy_auth]
entries = [["nobody", "{group}"], ["daemon", "daemon"]]
"""


def exclusions():
    """Test -> reason, for what fails; the same for what is skipped."""
    failing, skipped = {}, {}
    for number, line in enumerate(EXCLUSIONS.read_text().splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        kind, name, *reason = line.split(None, 2)
        check(kind in ("fails", "skipped") and reason, f"{EXCLUSIONS.name}:{number}: it needs a name and a reason")
        (failing if kind == "fails" else skipped)[name] = reason[0]
    return failing, skipped


def pjdfstest(bench, path, expected, remounts, *patterns):
    """Runs it; test -> how it ended, and what it said of it."""
    program = tool("pjdfstest", "pjdfstest", "0.2.2")
    other = bench.dir / "other"
    other.mkdir(exist_ok=True)
    settings = bench.dir / "pjdfstest.toml"
    settings.write_text(CONFIGURATION.format(
        other=other, group=grp.getgrgid(65534).gr_name, remounts="true" if remounts else "false",
        expected=", ".join(f'"{name}"' for name in sorted(expected))))
    os.chmod(bench.dir, 0o755)
    # It remounts with mount(8), which would look for a helper of "fuse.s0".
    programs = bench.dir / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "mount").write_text(f'#!/bin/sh\nexec {shutil.which("mount")} -i "$@"\n')
    (programs / "mount").chmod(0o755)
    environment = bench.environment(RUST_BACKTRACE="0")
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    done = subprocess.run([program, "-c", settings, "-p", path, *patterns], capture_output=True, text=True,
                          timeout=300 * PATIENCE, env=environment)
    said = COLOURS.sub("", done.stdout)
    results = re.findall(r"^(\S+::\S+)\s+(ok|FAILED|skipped|PASSED UNEXPECTEDLY|failed as expected)\n(\t.*)?",
                         said, re.M)
    check(results, lambda: f"it said no result:\n{said[-2000:]}{done.stderr[-2000:]}")
    return {name: (result, why.strip()) for name, result, why in results}


def test_pjdfstest_passes(bench):
    needs_fuse()
    failing, skipped = exclusions()
    [a] = mounts(bench, "a")
    results = pjdfstest(bench, a.path, failing, False)
    # The others leave files open, and nothing can be remounted then.
    results |= pjdfstest(bench, a.path, failing, True, "erofs")
    wrong = [f"{name}: excluded, and not among the tests" for name in sorted({*failing, *skipped} - set(results))]
    for name, (result, why) in sorted(results.items()):
        if result in ("FAILED", "PASSED UNEXPECTEDLY") or result == "skipped" and name not in skipped:
            wrong.append(f"{name}: {result}; {why}")
    count = [result for result, _ in results.values()].count
    bench.note(f"{count('ok')} passed, {count('failed as expected')} excluded, {count('skipped')} not run")
    check(len(results) > 390, f"only {len(results)} tests were run")
    check(not wrong, lambda: "\n".join(wrong))


def fsx(bench, path, seconds, seed, flags=()):
    """Runs fsx for so long, one file after the other; each must pass."""
    program = tool("fsx", "fsx", "0.3.2")
    until = time.monotonic() + seconds
    operations = 0
    while time.monotonic() < until:
        made = path / f"fsx-{seed}"
        done = subprocess.run([program, *flags, "-N", "4000", "-S", str(seed % 2**31), "-P", bench.dir, made],
                              capture_output=True, text=True, timeout=600 * PATIENCE, env=bench.environment())
        if done.returncode != 0:
            raise Failed(f"fsx -N 4000 -S {seed % 2**31} {' '.join(map(str, flags))} ended with {done.returncode}:\n"
                         f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
        operations += 4000
        seed += 1
        os.unlink(made)
    return operations


def test_fsx_finds_nothing(bench):
    [a] = mounts(bench, "a")
    operations = fsx(bench, a.path, 600 if bench.long else 20, bench.seed)
    bench.note(f"{operations} operations")


FSX_ALL = """\
flen = 262144

[opsize]
min = 0
max = 65536

[weights]
read = 10
write = 10
mapread = 10
mapwrite = 10
truncate = 5
close_open = 3
invalidate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 5
punch_hole = 5
sendfile = 5
posix_fadvise = 2
copy_file_range = 5
"""


def test_fsx_finds_nothing_with_everything_it_can(bench):
    [a] = mounts(bench, "a")
    settings = bench.dir / "fsx.toml"
    settings.write_text(FSX_ALL)
    operations = fsx(bench, a.path, 600 if bench.long else 20, bench.seed, ["-f", settings])
    bench.note(f"{operations} operations")


def test_what_is_set_after_a_close_stays(bench):
    """Attributes that are set right after a file was made and closed, as tar, rsync and cp do it."""
    [a] = mounts(bench, "a")
    data = os.urandom(30_000)

    def look():
        lost = []
        for number in range(100):
            path = f"{a}/file{number}"
            with open(path, "wb") as file:
                file.write(data[:number * 300])
            os.chmod(path, 0o755)
            os.chown(path, 1, 1)
            os.utime(path, ns=(2_000_000_002, 1_000_000_001))
            os.setxattr(path, "user.one", b"two")
            for moment in range(30):
                is_ = os.stat(path)
                said = oct(is_.st_mode & 0o777), is_.st_uid, is_.st_mtime_ns, is_.st_size, os.getxattr(path, "user.one")
                want = "0o755", 1, 1_000_000_001, number * 300, b"two"
                if said != want:
                    lost.append(f"{number}, look {moment}: {said}")
                    break
                if moment > 20:
                    time.sleep(0.002)
        return lost

    lost = within(120, look)
    check(not lost, lambda: f"{len(lost)} of 100 are not as they were set: {lost[:4]}")


def test_a_file_that_was_made_keeps_its_time(bench):
    [a] = mounts(bench, "a")

    def look():
        wrong = []
        for number in range(100):
            before = os.stat(a.path).st_mtime_ns
            time.sleep(0.01)  # a file system's clock may be a coarse one
            path = f"{a}/file{number}"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
            if os.stat(a.path).st_mtime_ns <= before:
                wrong.append(f"{number}: its directory's time did not change")
            first = os.stat(path)
            until = time.monotonic() + 0.03
            while time.monotonic() < until:
                now = os.stat(path)
                if (now.st_mtime_ns, now.st_ctime_ns) != (first.st_mtime_ns, first.st_ctime_ns):
                    wrong.append(f"{number}: mtime moves by {now.st_mtime_ns - first.st_mtime_ns} ns, ctime by {now.st_ctime_ns - first.st_ctime_ns}")
                    break
        return wrong

    wrong = within(120, look)
    check(not wrong, lambda: f"{len(wrong)} times moved or did not: {wrong[:4]}")


def test_a_mount_that_is_only_read_takes_no_writes(bench):
    _, volume = service_and_volume(bench)
    volume.write("there/file", "text")
    a = Mount(bench, volume, "a", "--read-only")

    def all_refused():
        path = str(a / "there/file")
        calls = {
            "open to write": lambda: os.open(path, os.O_WRONLY),
            "open and truncate": lambda: os.open(path, os.O_RDONLY | os.O_TRUNC),
            "create": lambda: os.open(path + "2", os.O_WRONLY | os.O_CREAT, 0o644),
            "truncate": lambda: os.truncate(path, 0),
            "unlink": lambda: os.unlink(path),
            "rename": lambda: os.rename(path, path + "2"),
            "link": lambda: os.link(path, path + "2"),
            "symlink": lambda: os.symlink("x", path + "2"),
            "mkdir": lambda: os.mkdir(path + "2"),
            "mkfifo": lambda: os.mkfifo(path + "2"),
            "rmdir": lambda: os.rmdir(str(a / "there")),
            "chmod": lambda: os.chmod(path, 0o600),
            "chown": lambda: os.chown(path, 1, 1),
            "utime": lambda: os.utime(path, (1, 1)),
            "setxattr": lambda: os.setxattr(path, "user.x", b"y"),
        }
        for what, call in calls.items():
            try:
                call()
            except OSError as error:
                check(error.errno == errno.EROFS, f"{what}: {error}")
            else:
                raise Failed(f"{what} was done")
        check(open(path).read() == "text", "the file is not what it was")

    within(30, all_refused)
    check(volume.read("there/file") == b"text", "the file is not what it was")
    check(a.stop() == 0, "it ended badly")
