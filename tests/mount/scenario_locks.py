"""Locks hold between processes of one mount and between mounts, and whoever waits for one can be ended."""
import errno
import fcntl
import os
import signal
import struct
import time

from harness import PATIENCE, Failed, check, wait_until
from rig import Child, Flag, error_of, mounts, together, within

PROCESSES = 8


def add_one(file):
    data = os.pread(file, 100, 0)
    os.pwrite(file, str(int(data) + 1).encode(), 0)


def under_flock(path, times):
    file = os.open(path, os.O_RDWR)
    for _ in range(times):
        fcntl.flock(file, fcntl.LOCK_EX)
        add_one(file)
        fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def under_fcntl(path, times):
    file = os.open(path, os.O_RDWR)
    for _ in range(times):
        fcntl.lockf(file, fcntl.LOCK_EX)
        add_one(file)
        fcntl.lockf(file, fcntl.LOCK_UN)
    os.close(file)


def under_flock_of_another_file(path, times):
    """As Git, npm and dpkg do: what is locked and what is changed are two files, and each is opened anew."""
    for _ in range(times):
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = os.open(path, os.O_RDWR)
        add_one(file)
        os.close(file)
        os.close(lock)


def under_a_lock_file(path, times):
    for _ in range(times):
        while True:
            try:
                os.close(os.open(path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                break
            except FileExistsError:
                time.sleep(0.001)
        file = os.open(path, os.O_RDWR)
        add_one(file)
        os.close(file)
        os.unlink(path + ".lock")


def count(bench, way, short, long):
    a, b = mounts(bench, "a", "b")
    times = long if bench.long else short
    (a / "counter").write_text("0")
    started = time.monotonic()
    together(3 * 3600 if bench.long else 240,
             *((way, str((a, b)[i % 2] / "counter"), times) for i in range(PROCESSES)))
    took = time.monotonic() - started
    for mount in (a, b):
        said = within(20, (mount / "counter").read_text)
        check(int(said) == times * PROCESSES, lambda: f"{mount}: {said} of {times * PROCESSES}")
    bench.note(f"{PROCESSES} processes, {times} each, {took / times / PROCESSES * 1000:.1f} ms a turn")


def test_counting_under_flock_is_exact(bench):
    count(bench, under_flock, 100, 10_000)


def test_counting_under_fcntl_is_exact(bench):
    count(bench, under_fcntl, 100, 10_000)


def test_counting_under_the_flock_of_another_file_is_exact(bench):
    count(bench, under_flock_of_another_file, 50, 5_000)


def test_counting_under_a_lock_file_is_exact(bench):
    count(bench, under_a_lock_file, 50, 10_000)


# ---- ranges ------------------------------------------------------------------------------------------------


def try_lock(path, how, start=0, length=0):
    """Whether a lock is to be had at once; it is given back by the end of the process."""
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.lockf(file, how | fcntl.LOCK_NB, length, start)
        return True
    except OSError as error:
        check(error.errno in (errno.EAGAIN, errno.EACCES), lambda: f"lockf: {error}")
        return False


def who_has(path, start, length):
    file = os.open(path, os.O_RDWR)
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return kind, start, length, pid


def test_ranges_are_locked_one_by_one(bench):
    a, b = mounts(bench, "a", "b")
    (a / "file").write_bytes(bytes(1000))
    mine = os.open(a / "file", os.O_RDWR)
    fcntl.lockf(mine, fcntl.LOCK_EX, 100, 100)
    fcntl.lockf(mine, fcntl.LOCK_SH, 100, 300)
    for mount in (a, b):
        path = str(mount / "file")
        for how, start, length, free in [
                (fcntl.LOCK_EX, 0, 100, True), (fcntl.LOCK_EX, 0, 101, False), (fcntl.LOCK_EX, 199, 1, False),
                (fcntl.LOCK_EX, 200, 100, True), (fcntl.LOCK_SH, 150, 10, False), (fcntl.LOCK_SH, 300, 100, True),
                (fcntl.LOCK_EX, 350, 1, False), (fcntl.LOCK_EX, 400, 0, True), (fcntl.LOCK_EX, 0, 0, False)]:
            got = within(20, try_lock, path, how, start, length)
            check(got == free, lambda: f"{mount}: {start}+{length} ({how}) is {'free' if got else 'taken'}")
    check(within(20, who_has, str(a / "file"), 0, 0) == (fcntl.F_WRLCK, 100, 100, os.getpid()),
          lambda: f"F_GETLK in the same mount: {within(20, who_has, str(a / 'file'), 0, 0)}")
    kind, start, length, _ = within(20, who_has, str(b / "file"), 0, 0)
    check((kind, start, length) == (fcntl.F_WRLCK, 100, 100), lambda: f"F_GETLK in the other: {kind, start, length}")
    fcntl.lockf(mine, fcntl.LOCK_UN, 50, 100)
    check(within(20, try_lock, str(b / "file"), fcntl.LOCK_EX, 100, 50), "the first half was given back")
    check(not within(20, try_lock, str(b / "file"), fcntl.LOCK_EX, 150, 1), "the second half was not")
    # POSIX: a close of any file of the process gives all back.
    os.close(os.open(a / "file", os.O_RDONLY))
    check(within(20, try_lock, str(b / "file"), fcntl.LOCK_EX), "a close gives all locks back")
    os.close(mine)


def test_flock_and_fcntl_do_not_know_of_each_other(bench):
    a, b = mounts(bench, "a", "b")
    (a / "file").write_bytes(b"x")
    mine = os.open(a / "file", os.O_RDWR)
    fcntl.flock(mine, fcntl.LOCK_EX)
    check(within(20, try_lock, str(b / "file"), fcntl.LOCK_EX), "fcntl's lock is free while flock's is taken")

    def flock(path, how):
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False

    check(not within(20, flock, str(b / "file"), fcntl.LOCK_EX), "flock's lock is taken")
    fcntl.flock(mine, fcntl.LOCK_SH)
    check(within(20, flock, str(b / "file"), fcntl.LOCK_SH), "two may share")
    check(not within(20, flock, str(b / "file"), fcntl.LOCK_EX), "a shared lock keeps out who wants it alone")
    # A copy of the file keeps the lock, until the last is closed.
    copy = os.dup(mine)
    os.close(mine)
    check(not within(20, flock, str(b / "file"), fcntl.LOCK_EX), "a copy of the file keeps the lock")
    os.close(copy)
    wait_until("flock's lock is free after the last close", lambda: within(20, flock, str(b / "file"), fcntl.LOCK_EX), 5)


def test_two_that_wait_for_each_other_are_told(bench):
    a, b = mounts(bench, "a", "b")
    (a / "file").write_bytes(bytes(10))
    has = [Flag(), Flag()]

    def take_both(path, which):
        file = os.open(path, os.O_RDWR)
        fcntl.lockf(file, fcntl.LOCK_EX, 1, which)
        has[which].raise_()
        has[1 - which].wait()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, 1 - which)
        except OSError as error:
            return error.errno
        return "had both"

    results = together(30, (take_both, str(a / "file"), 0), (take_both, str(b / "file"), 1))
    check(sorted(map(str, results)) == sorted([str(errno.EDEADLK), "had both"]), lambda: f"they say {results}")


# ---- whoever waits can be ended ----------------------------------------------------------------------------


def waits_in_kernel(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in "SD"


def end_a_waiter(bench, how):
    a, b = mounts(bench, "a", "b")
    (a / "file").write_bytes(b"x")
    took = []
    for take, lock in (("flock", lambda f: fcntl.flock(f, fcntl.LOCK_EX)), ("fcntl", lambda f: fcntl.lockf(f, fcntl.LOCK_EX))):
        mine = os.open(a / "file", os.O_RDWR)
        lock(mine)
        for mount in (a, b):
            there = Flag()

            def wait(path, lock=lock, there=there):
                file = os.open(path, os.O_RDWR)
                there.raise_()
                lock(file)
                return "got it"

            child = Child(wait, str(mount / "file"))
            try:
                there.wait()
                time.sleep(0.2)  # it is in the kernel by then; if not, the test proves less
                check(waits_in_kernel(child.pid), f"it does not wait for {take}'s lock")
                started = time.monotonic()
                os.kill(child.pid, how)
                while not os.waitpid(child.pid, os.WNOHANG)[0]:
                    check(time.monotonic() - started < 1.5 * PATIENCE,
                          f"{signal.Signals(how).name} does not end a process that waits for {take}'s lock in {mount}")
                    time.sleep(0.002)
                took.append(time.monotonic() - started)
            finally:
                os.close(child.pipe)
                child.pipe = None
        os.close(mine)
        # What was waited for in vain is nobody's.
        for mount in (a, b):
            check(within(10, try_lock, str(mount / "file"), fcntl.LOCK_EX), f"{take}: the lock of the ended is still there")
    bench.note(f"at most {max(took) * 1000:.0f} ms")


def test_sigkill_ends_whoever_waits_for_a_lock(bench):
    end_a_waiter(bench, signal.SIGKILL)


def test_sigint_ends_whoever_waits_for_a_lock(bench):
    end_a_waiter(bench, signal.SIGINT)


def test_the_locks_of_the_dead_are_free(bench):
    a, b = mounts(bench, "a", "b")
    (a / "file").write_bytes(b"x")
    for what in ("process", "mount"):
        for lock in (lambda f: fcntl.flock(f, fcntl.LOCK_EX), lambda f: fcntl.lockf(f, fcntl.LOCK_EX)):
            there = Flag()

            def hold(path, lock=lock, there=there):
                file = os.open(path, os.O_RDWR)
                lock(file)
                there.raise_()
                time.sleep(600)

            def take(path, lock=lock):
                file = os.open(path, os.O_RDWR)
                lock(file)

            child = Child(hold, str(a / "file"))
            try:
                there.wait()
                if what == "process":
                    child.end()
                else:
                    a.kill()
                started = time.monotonic()
                within(15, take, str(b / "file"))
                took = time.monotonic() - started
                bench.note(f"{what}: {took:.2f} s")
            finally:
                child.end()
            if what == "mount":
                a.again()


def test_a_lock_outlives_the_service_that_gave_it(bench):
    """A mount that comes back sooner than the one with the lock does not get it."""
    a, b = mounts(bench, "a", "b")
    service = a.service
    (a / "file").write_bytes(b"x")
    there, connected = Flag(), Flag()

    def hold(path):
        file = os.open(path, os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_EX)
        os.close(os.open(path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        there.raise_()
        time.sleep(600)

    def take(path):
        file = os.open(path, os.O_RDWR)
        # The service is not there at first. When the file can be looked at again, it is.
        while error_of(os.chmod, path, 0o600):
            time.sleep(0.01)
        connected.raise_()
        return error_of(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    child = Child(hold, str(a / "file"))
    try:
        there.wait()
        for _ in range(20 if bench.long else 3):
            with a.frozen():
                service.kill()
                service.start()
                taking = Child(take, str(b / "file"))
                connected.wait()
            got = taking.result(30)
            check(got == errno.EAGAIN, f"another took the lock, or {got}")
            wait_until("a is current again", lambda: error_of(os.stat, a / "file") == 0, 15)
    finally:
        child.end()
