"""Hosts, service and line die, stand still, or are full; what was confirmed is there, and nothing hangs."""
import contextlib
import errno
import fcntl
import os
import random
import time

import harness
from harness import PATIENCE, check, check_equal, disk_tree, small_disk, wait_until
from rig import Child, Flag, Line, Mount, error_of, mounts, service_and_volume, within

# What any call may take while the service is not there: the mount waits half a minute for it at most.
BOUND = 45


def content(who, name, number):
    chance = random.Random(f"{who} {name} {number}")
    size = chance.choice([0, 30, 1000, chance.randrange(20_000), chance.randrange(20_000)])
    if chance.random() < 0.05:
        size = chance.randrange(600_000)
    return f"{who} {name} {number}\n".encode() + chance.randbytes(size)


def number_of(who, name, data):
    """Which number's content this is; fails when it is none's."""
    head = data.split(b"\n", 1)[0].decode(errors="replace").split(" ")
    check(len(head) == 3 and head[:2] == [who, name] and head[2].isdigit(), lambda: f"{name} begins with {data[:60]!r}")
    number = int(head[2])
    check(data == content(who, name, number), lambda: f"{name} is torn: {len(data)} bytes of number {number}")
    return number


# ---- writers -----------------------------------------------------------------------------------------------


def write_on(root, who, log, seed, until):
    """Writes files over and over, each content numbered, and logs what was confirmed. Errors are met by trying on."""
    chance = random.Random(seed)
    numbers = {}
    log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    number = int(time.monotonic() * 1000)
    # The directory is only in the Volume: while nothing is mounted there is none to write into.
    root = f"{root}/files"
    while time.monotonic() < until:
        number += 1
        name = f"{who}-{chance.randrange(12)}"
        path = f"{root}/{name}"
        data = content(who, name, number)
        fsync = chance.random() < 0.4
        numbers[name] = number
        os.write(log, f"try {name} {number}\n".encode())
        try:
            if chance.random() < 0.5:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                to = path
            else:
                to = f"{path}.tmp"
                file = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                done = 0
                while done < len(data):
                    done += os.write(file, data[done:])
                if fsync:
                    os.fsync(file)
                    if to == path:
                        os.write(log, f"fsync {name} {number}\n".encode())
            finally:
                os.close(file)
            if to != path:
                os.rename(to, path)
                # What a rename brings is confirmed by it, as it is by a close.
            os.write(log, f"close {name} {number}\n".encode())
        except OSError as error:
            os.write(log, f"error {name} {number} {errno.errorcode.get(error.errno)}\n".encode())
            time.sleep(0.02)


def confirmed(log, kinds):
    """What was confirmed last, of each name; what was tried last; and whose last try did not end well."""
    found, tried, broken = {}, {}, set()
    for line in log.read_text().splitlines():
        kind, name, number, *_ = line.split()
        if kind in kinds:
            found[name] = int(number)
        if kind == "try":
            tried[name] = int(number)
            broken.add(name)
        elif kind == "close":
            broken.discard(name)
    return found, tried, broken


def check_confirmed(volume, who, log, kinds, said):
    found, tried, broken = confirmed(log, kinds)
    for name, number in found.items():
        data = volume.read(f"files/{name}")
        how = f"{said}: {name} was confirmed ({'/'.join(kinds)}) at {number}"
        check(data is not None, lambda: f"{how}, and is not in the Volume")
        if name in broken and content(who, name, tried[name]).startswith(data):
            # Whoever truncated it and wrote it anew was ended in the middle of that.
            continue
        there = number_of(who, name, data)
        check(there >= number, lambda: f"{how}, and the Volume has {there}")
        check(there <= tried[name], lambda: f"{how}, and the Volume has {there}, which nobody wrote")
    return len(found)


def answers_again(mount, seconds=30):
    """Waits until a mount works by itself; each look has a child of its own."""
    def look():
        return within(BOUND, error_of, os.listdir, str(mount)) == 0
    wait_until(f"{mount} answers again", look, seconds)


def test_what_was_confirmed_survives_kills(bench):
    service, volume = service_and_volume(bench)
    a, b = Mount(bench, volume, "a"), Mount(bench, volume, "b")
    within(30, (a / "files").mkdir)
    chance = random.Random(bench.seed)
    rounds = 50 if bench.long else 6
    counts, checked, slowest = {}, 0, (0, "")
    for number in range(rounds):
        what = ["mount", "service", "both"][number % 3] if not bench.long else chance.choice(["mount", "service", "both"])
        counts[what] = counts.get(what, 0) + 1
        said = f"round {number}: {what} killed"
        writers, logs = [], []
        until = time.monotonic() + 600
        for i, mount in enumerate((a, a, b)):
            who = f"r{number}w{i}"
            logs.append((who, bench.dir / f"{who}.log"))
            writers.append(Child(write_on, str(mount), *logs[-1], chance.randrange(2**32), until))
        try:
            wait_until("the writers write", lambda: all(log.exists() and b"close" in log.read_bytes() for _, log in logs), 30)
            time.sleep(chance.uniform(0, 0.7))  # the moment is chance
            if what in ("mount", "both"):
                a.process.kill()
            if what in ("service", "both"):
                service.kill()
            if what in ("mount", "both"):
                a.kill()
                errors = within(20, lambda: [error_of(os.listdir, str(a)), error_of(os.stat, str(a / "x")),
                                             error_of(os.open, str(a / "y"), os.O_WRONLY | os.O_CREAT)])
                check(errors == [errno.ENOTCONN] * 3, lambda: f"{said}: the dead mount answers {[errno.errorcode.get(e, e) for e in errors]}")
            if what in ("service", "both"):
                time.sleep(chance.uniform(0, 1.5))
                service.start()
            if what in ("mount", "both"):
                a.again()
            started = time.monotonic()
            answers_again(b)
            answers_again(a)
            # The writers of what was not killed go on by themselves.
            for (_, log), mount in zip(logs, "aab"):
                if mount == "b" or what == "service":
                    size = log.read_bytes().count(b"close")
                    wait_until(f"{said}: the writer in {mount} goes on", lambda: log.read_bytes().count(b"close") > size, 60)
            slowest = max(slowest, (time.monotonic() - started, said))
            check(slowest[0] < 15 * PATIENCE, lambda: f"{said}: the writers stood still for {slowest[0]:.1f} s")
        finally:
            for writer in writers:
                writer.end()
        for (who, log), mount in zip(logs, "aab"):
            # Only where its mount and the service died at once may a close that was not synced be lost.
            kinds = ("fsync",) if what == "both" and mount == "a" else ("fsync", "close")
            checked += check_confirmed(volume, who, log, kinds, f"{said}, written in {mount}")
        here, there = within(60, disk_tree, a.path), within(60, disk_tree, b.path)
        check_equal(here, there, f"{said}: the two mounts")
        check_equal(here, volume.tree(), f"{said}: the mount and the Volume")
    bench.note(f"{counts}, {checked} files, writers went on within {slowest[0]:.1f} s")


def test_a_killed_service_is_not_seen_but_as_a_pause(bench):
    """No call fails when the service is away for a moment, and what is done meanwhile is done."""
    service, volume = service_and_volume(bench)
    a = Mount(bench, volume, "a")
    within(30, (a / "files").mkdir)
    log = bench.dir / "w.log"
    writer = Child(write_on, str(a), "w", log, bench.seed, time.monotonic() + 600)
    try:
        wait_until("the writer writes", lambda: log.exists() and b"close" in log.read_bytes(), 30)
        for _ in range(10 if bench.long else 2):
            service.kill()
            service.start()
            count = log.read_bytes().count(b"close")
            wait_until("the writer goes on", lambda: log.read_bytes().count(b"close") > count + 5, 60)
    finally:
        writer.end()
    errors = [line for line in log.read_text().splitlines() if line.startswith("error")]
    bench.note(f"{len(errors)} errors {sorted({line.split()[-1] for line in errors})}")
    check_confirmed(volume, "w", log, ("fsync", "close"), "after kills of the service")


# ---- the line ----------------------------------------------------------------------------------------------


def every_call(root, tag):
    """Calls of all kinds, as a program in a sandbox makes them; what each said, and how long it took."""
    said = {}

    def call(name, function):
        started = time.monotonic()
        code = error_of(function)
        said[name] = (errno.errorcode.get(code, code), round(time.monotonic() - started, 2))

    def lock():
        file = os.open(f"{root}/there", os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(file)

    def write(path, flags):
        file = os.open(path, flags, 0o644)
        try:
            os.write(file, b"x" * 100)
        finally:
            os.close(file)

    def sync():
        file = os.open(f"{root}/there", os.O_RDWR)
        try:
            os.write(file, b"y")
            os.fsync(file)
        finally:
            os.close(file)

    calls = {
        "stat": lambda: os.stat(f"{root}/there"), "stat of nothing": lambda: os.stat(f"{root}/nothing{tag}"),
        "list": lambda: os.listdir(root), "read": lambda: open(f"{root}/there", "rb").read(),
        "write": lambda: write(f"{root}/there", os.O_WRONLY), "create": lambda: write(f"{root}/new{tag}", os.O_WRONLY | os.O_CREAT),
        "create exclusively": lambda: write(f"{root}/excl{tag}", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        "mkdir": lambda: os.mkdir(f"{root}/dir{tag}"), "unlink": lambda: os.unlink(f"{root}/old{tag}"),
        "rename": lambda: os.rename(f"{root}/from{tag}", f"{root}/to{tag}"), "chmod": lambda: os.chmod(f"{root}/there", 0o600),
        "truncate": lambda: os.truncate(f"{root}/there", 3), "fsync": sync, "flock": lock,
        "statvfs": lambda: os.statvfs(root), "setxattr": lambda: os.setxattr(f"{root}/there", "user.a", b"b"),
    }
    for name, function in calls.items():
        call(name, function)
    return said


def cut(bench, state):
    service, volume = service_and_volume(bench)
    line = Line(bench, service)
    a, b = Mount(bench, volume, "a", service=line), Mount(bench, volume, "b")
    away = 60 if bench.long else 5
    chance = random.Random(bench.seed)
    within(30, lambda: (b / "there").write_bytes(b"version 0"))
    for number in range(20):
        for name in (f"old{number}", f"from{number}"):
            within(30, lambda: (b / name).write_bytes(b"z"))
    check(within(30, (a / "there").read_bytes) == b"version 0", "a does not see what b wrote")
    within(30, every_call, str(a), "first")
    within(30, lambda: (b / "there").write_bytes(b"version 0"))

    line.set(state)
    gone = time.monotonic()
    # Readers that look all the time, and calls of all kinds, each with its bound.
    calls = Child(every_call, str(a), "cut")
    version = [0]
    served = 0
    try:
        while time.monotonic() - gone < away:
            started = time.monotonic()
            version[0] += 1
            within(BOUND, lambda: (b / "there").write_bytes(f"version {version[0]}".encode()))
            waited = time.monotonic() - started
            check(waited < 8 * PATIENCE, lambda: f"b's close took {waited:.1f} s because a is cut off")

            def look():
                try:
                    return (a / "there").read_bytes()
                except OSError as error:
                    return error.errno
            got = within(BOUND, look)
            check(isinstance(got, int) or got == f"version {version[0]}".encode(),
                  lambda: f"{time.monotonic() - gone:.1f} s after the cut a read {got!r} as if it were current; b closed version {version[0]}")
            served += not isinstance(got, int)
            size = within(BOUND, lambda: error_of(os.stat, str(a / "there")))
            check(size in (0, errno.EIO, errno.ETIMEDOUT), lambda: f"stat says {errno.errorcode.get(size, size)}")
        line.set("good")
        back = time.monotonic()
        said = calls.result(16 * BOUND)
        slowest = max(said, key=lambda name: said[name][1])
        bench.note(f"slowest call: {slowest} {said[slowest]}")
        back = max(back, time.monotonic())
    finally:
        calls.end()
    slow = {name: (code, took) for name, (code, took) in said.items() if took > min(BOUND, away + 10) * PATIENCE}
    check(not slow, lambda: f"the line was back after {away} s, and calls took: {slow}")
    wait_until("a reads what is current", lambda: within(BOUND, lambda: error_of((a / "there").read_bytes)) == 0, 20)
    bench.note(f"current again after {time.monotonic() - back:.2f} s")
    within(30, lambda: (b / "there").write_bytes(b"version last"))
    check(within(30, (a / "there").read_bytes) == b"version last", "a is stale after the cut")
    after = within(60, every_call, str(a), str(chance.randrange(20)))
    wrong = {name: code for name, (code, _) in after.items() if code not in (0, "ENOENT" if name == "stat of nothing" else 0)}
    check(not wrong, lambda: f"after the cut: {wrong}")
    check_equal(within(30, disk_tree, a.path), within(30, disk_tree, b.path), "the two mounts after the cut")
    check_equal(within(30, disk_tree, a.path), volume.tree(), "the mount and the Volume after the cut")


def test_a_line_that_is_silent_for_a_while_brings_errors_and_nothing_stale(bench):
    cut(bench, "silent")


def test_a_line_that_is_closed_for_a_while_brings_errors_and_nothing_stale(bench):
    cut(bench, "closed")


def test_a_service_that_stands_still_hangs_nobody(bench):
    service, volume = service_and_volume(bench)
    a = Mount(bench, volume, "a")
    within(30, lambda: (a / "there").write_text("here"))
    within(30, every_call, str(a), "first")
    with service.frozen():
        calls = within(16 * BOUND, every_call, str(a), "frozen") if bench.long else within(60, lambda: {
            "stat": every_stat(str(a))})
        slow = {name: took for name, (_, took) in calls.items() if took > BOUND}
        check(not slow, lambda: f"calls took too long: {slow}")
    answers_again(a)
    said = within(60, every_call, str(a), "after")
    wrong = {name: code for name, (code, _) in said.items() if code != 0 and name in ("stat", "write", "create", "mkdir", "fsync", "flock")}
    check(not wrong, lambda: f"afterwards: {wrong}")


def every_stat(root):
    started = time.monotonic()
    while time.monotonic() - started < 4:
        error_of(os.stat, f"{root}/there")
        error_of(open, f"{root}/there", "rb")
    return 0, (time.monotonic() - started) - 4


# ---- hosts that stand still --------------------------------------------------------------------------------


def test_a_host_that_stood_still_serves_nothing_stale(bench):
    a, b = mounts(bench, "a", "b")
    took = []
    for number in range(20 if bench.long else 3):
        for name in ("one", "two", "large"):
            within(30, lambda: (b / name).write_bytes(f"{name} old {number} ".encode() * (40_000 if name == "large" else 1)))
            within(30, (a / name).read_bytes)
        with a.frozen():
            started = time.monotonic()
            within(30, lambda: (b / "one").write_bytes(b"one new"))
            took.append(time.monotonic() - started)
            within(30, lambda: (b / "large").write_bytes(b"large new"))
            within(30, os.unlink, b / "two")
            # Who opens now waits for the host; it must not be told the old.
            readers = [Child(lambda name=name: read_or_errno(a / name)) for name in ("one", "two", "large")]
        got = [reader.result(BOUND) for reader in readers]
        for name, said, want in zip(("one", "two", "large"), got, (b"one new", errno.ENOENT, b"large new")):
            check(said == want or isinstance(said, int), lambda: f"a stood still, and then {name} is {said[:40]!r}, not {want!r}")
        wait_until("a is current again", lambda: within(BOUND, lambda: read_or_errno(a / "one")) == b"one new", 15)
        check(within(30, lambda: read_or_errno(a / "two")) == errno.ENOENT, "a still has what b removed")
        check(within(30, lambda: read_or_errno(a / "large")) == b"large new", "a still has the old large file")
    check(max(took) < 6 * PATIENCE, lambda: f"b's close took {max(took):.1f} s because a's host stands still")
    bench.note(f"b's close took {max(took):.1f} s at most")


def read_or_errno(path):
    try:
        return path.read_bytes()
    except OSError as error:
        return error.errno


# ---- ends --------------------------------------------------------------------------------------------------


def test_sigterm_commits_what_was_written_and_unmounts(bench):
    service, volume = service_and_volume(bench)
    a = Mount(bench, volume, "a")
    wrote = Flag()

    def hold(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.write(file, b"written, not closed" * 1000)
        wrote.raise_()
        time.sleep(60)

    child = Child(hold, str(a / "open"))
    try:
        wrote.wait()
        a.stop()
        check(volume.read("open") == b"written, not closed" * 1000, lambda: f"the Volume has {volume.read('open') and len(volume.read('open'))} bytes")
    finally:
        child.end()
    a.start()
    check(len(within(30, (a / "open").read_bytes)) == 19_000, "it is not there after mounting again")
    check(a.stop() == 0, "it ended badly")


def test_a_mount_may_lie_in_a_path_with_spaces_and_is_made_if_missing(bench):
    service, volume = service_and_volume(bench)
    a = Mount(bench, volume, "a dir", start=False)
    a.path.rmdir()
    a.start()
    within(30, lambda: (a / "file").write_text("x"))
    # Alone in the Volume, `close` returns when the service has it.
    wait_until("it is in the Volume", lambda: volume.read("file") == b"x", 10)
    check(a.stop() == 0, "it ended badly")


# ---- restore -----------------------------------------------------------------------------------------------


def test_a_restore_while_files_are_open_is_seen_by_all(bench):
    service, volume = service_and_volume(bench)
    a, b = Mount(bench, volume, "a"), Mount(bench, volume, "b")
    with_files = {"kept": b"old " * 2000, "changed": b"old", "removed": b"old", "dir/deep": b"old"}

    def make():
        for name, data in with_files.items():
            harness.write(a / name, data)

    within(30, make)
    made = service.http.data("POST", f"{volume.base}/snapshots", value={"name": "before"})
    before = volume.tree()
    ready, go = Flag(), Flag()

    def hold(path):
        """Has files open, read and written, over the restore."""
        reading = os.open(f"{path}/changed", os.O_RDWR)
        gone = os.open(f"{path}/added-{os.path.basename(path)}", os.O_RDWR | os.O_CREAT, 0o644)
        os.write(gone, b"added")
        os.fsync(gone)
        ready.raise_()
        go.wait()
        said = {}
        for name, file in (("changed", reading), ("added", gone)):
            try:
                said[name] = os.pread(file, 100, 0)
            except OSError as error:
                said[name] = error.errno
        try:
            os.pwrite(gone, b"more", 0)
            os.fsync(gone)
        except OSError as error:
            said["write"] = error.errno
        with contextlib.suppress(OSError):
            os.close(gone)
        os.close(reading)
        return said

    def change():
        (b / "changed").write_bytes(b"new and longer")
        (b / "removed").unlink()
        os.rename(b / "dir", b / "moved")
        (b / "moved/more").write_bytes(b"more")

    within(30, change)
    holders = [Child(hold, str(mount)) for mount in (a, b)]
    try:
        for _ in holders:
            ready.wait()
        service.http.data("POST", f"{volume.base}/snapshots/{made['id']}/restore", value={})
        for mount in (a, b):
            wait_until(f"{mount} is as before", lambda: not harness.differences(within(30, disk_tree, mount.path), before), 15)
        go.raise_(2)
        for holder, mount in zip(holders, (a, b)):
            said = holder.result(BOUND)
            check(said["changed"] in (b"old", b"new and longer", errno.ESTALE, errno.EIO), lambda: f"{mount}: an open file reads {said}")
    finally:
        for holder in holders:
            holder.end()
    # What was written afterwards to a file that the restore removed is nowhere, and hurts nothing.
    for mount in (a, b):
        got = within(30, disk_tree, mount.path)
        check_equal(got, within(60, volume.tree), f"{mount} and the Volume after the restore")
        for name, what in before.items():
            check(got.get(name) == what, lambda: f"{mount}: {name} is {got.get(name)}, not {what}")
    within(30, lambda: (a / "changed").write_bytes(b"after"))
    check(within(30, (b / "changed").read_bytes) == b"after", "b does not see what a writes after the restore")


# ---- full --------------------------------------------------------------------------------------------------


def test_a_full_disk_for_the_cache_loses_nothing(bench):
    service, volume = service_and_volume(bench)
    chance = random.Random(bench.seed)
    large = chance.randbytes(40_000_000)
    volume.write("large", large)
    with small_disk(bench, "12m") as small:
        a = Mount(bench, volume, "a", TMPDIR=str(small))
        b = Mount(bench, volume, "b")
        try:
            check(within(120, (a / "large").read_bytes) == large, "a large file is not read as it is when the cache is full")
            within(60, lambda: (a / "small").write_bytes(b"small"))
            check(volume.read("small") == b"small", "a small file was not written")

            def fill():
                return error_of((a / "new").write_bytes, large)

            code = within(120, fill)
            if code == 0:
                check(within(120, (b / "new").read_bytes) == large, "it was written, and is not what was written")
            else:
                check(code in (errno.ENOSPC, errno.EIO), lambda: f"a full cache disk is {errno.errorcode.get(code, code)}")
            bench.note(f"writing 40 MB with a cache disk of 12 MB: {errno.errorcode.get(code, 'done')}")
            # Afterwards there is room again.
            within(60, lambda: (a / "small").write_bytes(b"small again"))
            check(within(60, (b / "small").read_bytes) == b"small again", "a small file was not written afterwards")
            with contextlib.suppress(FileNotFoundError):
                within(60, os.unlink, a / "new")
            check(within(120, (a / "large").read_bytes) == large, "the large file is not what it is afterwards")
            check_equal(within(120, disk_tree, a.path), volume.tree(), "the mount and the Volume")
        finally:
            a.close()


def test_a_quota_is_said_by_an_error_and_nothing_else_suffers(bench):
    service, volume = service_and_volume(bench)
    service.http.data("PATCH", volume.base, value={"quota_bytes": 1_000_000})
    a, b = Mount(bench, volume, "a"), Mount(bench, volume, "b")
    within(30, lambda: (a / "first").write_bytes(b"x" * 600_000))
    code = within(60, lambda: error_of((a / "second").write_bytes, b"y" * 600_000))
    check(code in (errno.EDQUOT, errno.ENOSPC), lambda: f"beyond the quota: {errno.errorcode.get(code, code)}")
    check(len(within(30, (b / "first").read_bytes)) == 600_000, "the first file suffered")
    with contextlib.suppress(FileNotFoundError):
        within(30, os.unlink, a / "second")
    within(30, os.unlink, a / "first")
    within(30, lambda: (a / "third").write_bytes(b"z" * 600_000))
    check(len(within(30, (b / "third").read_bytes)) == 600_000, "there is no room after something was removed")
    check_equal(within(30, disk_tree, a.path), volume.tree(), "the mount and the Volume")
