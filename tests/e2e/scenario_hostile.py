"""Hostile surroundings: full disks, mounts in the way, low limits, bad networks, wrong clocks, damaged files."""
import collections
import contextlib
import os
import pathlib
import random
import socket
import sqlite3
import subprocess
import threading
import time

from harness import (BIN, PATIENCE, Failed, HttpError, Skip, check, check_all_equal, check_equal, check_no_conflicts,
                     disk_tree, is_running, peak_memory, reset_peak_memory, settle, small_disk, wait_until, write)
from proxy import Proxy


def said_by(replica):
    """Everything that `s0 sync status` tells, in words."""
    done = replica.machine.run("sync", "status", "-C", replica.root, ok=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def pair(bench, service=None, files=20):
    service = service or bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for number in range(files):
        write(user / f"d{number % 4}/f{number}.txt", f"base {number}\n")
    settle(user, agent)
    return volume, user, agent


# ---- disks -------------------------------------------------------------------------------------------------


def test_a_full_disk_of_the_service_refuses_and_heals(bench):
    with small_disk(bench, "12m", at=bench.dir / "service0") as mount:
        service = bench.service()
        volume, user, agent = pair(bench, service)
        before = volume.tree()
        refused = None
        for number in range(30):
            try:
                volume.write(f"fill/{number}.bin", bench.random.randbytes(1 << 20))
            except HttpError as error:
                refused = error
                break
        check(refused is not None, "a full disk takes everything")
        check(refused.status >= 500, f"it is answered with {refused.status}")
        said = refused.error["message"].lower()
        check("full" in said or "space" in said, f"it does not say why: {said!r}")
        # What was there is there, and can be read.
        check(volume.read("d0/f0.txt") == b"base 0\n", "what was there cannot be read")
        write(user / "late.bin", bench.random.randbytes(3 << 20))
        write(user / "small.txt", "written while the service's disk was full\n")
        wait_until("the user is told", lambda: "full" in said_by(user).lower() or "space" in said_by(user).lower(), 40,
                   every=0.5)
        subprocess.run(["mount", "-o", "remount,size=200m", str(mount)], check=True)
        # It goes on by itself.
        wait_until("what waited is in the Volume", lambda: volume.read("small.txt") is not None, 90, every=0.5)
        settle(user, agent)
        there = check_all_equal(volume, user, agent)
        check(set(before) <= set(there), "something is missing")
        check_no_conflicts(volume, user, agent)
        service.kill()
        service.start()
        check_all_equal(volume, user, agent)
        service.kill()


def test_a_full_state_disk_loses_nothing(bench):
    # Where the replica keeps what it knows there is no room; the workspace has enough.
    bench_dir = bench.dir / "laptop"
    bench_dir.mkdir()
    with small_disk(bench, "6m", at=bench_dir / "state") as mount:
        service = bench.service()
        volume, user, agent = pair(bench, service)
        ballast = mount / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        for number in range(400):
            write(user / f"mine/{number}.txt", f"{number}\n" * 20)
            write(agent / f"theirs/{number}.txt", f"{number}\n" * 20)
        agent.flush()
        wait_until("the user is told", lambda: "full" in said_by(user).lower() or "space" in said_by(user).lower(), 40,
                   every=0.5)
        ballast.unlink()
        user.sync("resume", ok=False)
        settle(user, agent)
        check_all_equal(volume, user, agent)
        check_no_conflicts(volume, user, agent)
        user.stop()


def test_a_mount_over_the_workspace_halts_and_touches_nothing(bench):
    volume, user, agent = pair(bench, files=40)
    before = volume.tree()
    with small_disk(bench, "8m", at=user.root) as mount:
        halted = wait_until("the host halts", lambda: user.machine.json(
            "sync", "status", "-C", user.root, ok=False).get("condition") == "halted", 30)
        check(halted, "it goes on")
        said = said_by(user)
        check("s0 sync resume" in said and ("gone" in said or "another directory" in said), f"it does not say how: {said}")
        write(mount / "stranger.txt", "not the workspace's\n")
        volume.write("meanwhile.txt", "the agent's\n")
        agent.flush()
        check(os.listdir(mount) == ["stranger.txt"], f"something was written into the mount: {os.listdir(mount)}")
        check(set(volume.tree()) == set(before) | {"meanwhile.txt"}, "the Volume took what is in the mount, or lost")
    user.machine.run("sync", "resume", "-C", user.root, ok=False)
    settle(user, agent)
    check("meanwhile.txt" in check_all_equal(volume, user, agent), "the agent's write is missing")
    check_no_conflicts(volume, user, agent)


@contextlib.contextmanager
def immutable(*paths):
    """Nothing can be written there, not even by root."""
    done = subprocess.run(["chattr", "+i", *map(str, paths)], capture_output=True)
    if done.returncode != 0:
        raise Skip(f"root, and a file system that knows chattr +i: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *map(str, paths)], check=True)


def test_a_place_that_became_read_only_says_so_and_stops_nothing_else(bench):
    volume, user, agent = pair(bench)
    with immutable(user / "d0", user / "d0/f0.txt", user.root):
        write(agent / "d0/new.txt", "the agent's\n")
        write(agent / "d0/f0.txt", "the agent's\n")
        os.unlink(agent / "d0/f4.txt")
        write(agent / "top.txt", "the agent's\n")
        write(agent / "d1/f1.txt", "the agent's\n")
        agent.flush()
        wait_until("what can be written is", lambda: (user / "d1/f1.txt").read_text() == "the agent's\n", 20)
        problems = wait_until("each place is told", lambda: (found := user.status()["problems"])
                              and {"d0/new.txt", "d0/f0.txt", "d0/f4.txt", "top.txt"} <= set(found) and found, 20)
        check(all("denied" in str(why).lower() or "permission" in str(why).lower() or "read-only" in str(why).lower()
                  or "write" in str(why).lower() for why in problems.values()), f"it does not say why: {problems}")
        check((user / "d0/f0.txt").read_text() == "base 0\n" and (user / "d0/f4.txt").exists(), "it was changed")
    # It goes on by itself, or at the next look.
    user.sync("resume", ok=False)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_a_disk_that_is_read_only_at_the_start_is_told_and_heals(bench):
    with small_disk(bench, "16m") as mount:
        service = bench.service()
        volume = service.create_volume()
        user = bench.machine("laptop", service).attach(volume, mount / "workspace")
        write(user / "a.txt", "a\n")
        settle(user)
        user.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        volume.write("b.txt", "the agent's\n")
        started = user.machine.run("sync", "start", "--no-wait", "-C", user.root, ok=False)
        said = (started.stdout + started.stderr).decode() + said_by(user)
        check("read-only" in said.lower() or "read only" in said.lower(), f"it does not say why: {said}")
        subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
        user.sync("start", "--no-wait", ok=False)
        user.sync("resume", ok=False)
        settle(user)
        check_all_equal(volume, user)
        user.stop()


# ---- limits ------------------------------------------------------------------------------------------------


def test_ten_watches_are_enough_to_lose_nothing(bench):
    service = bench.service()
    volume = service.create_volume()
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    laptop = bench.machine("laptop", service)
    for number in range(60):
        write(laptop.dir / f"workspace/d{number}/f.txt", f"base {number}\n")
    user = laptop.attach(volume)
    settle(user, agent)
    user.stop()
    script = 'echo 10 > /proc/sys/user/max_inotify_watches || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", BIN, "sync", "start", "--no-wait"],
        cwd=user.root, env=laptop.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    if done.returncode == 77 or done.stderr.startswith(b"unshare:"):
        raise Skip("user namespaces")
    check(done.returncode in (0, 3), f"the host does not start: {done.stderr!r}")
    wait_until("the user is told", lambda: "max_user_watches" in said_by(user), 20, every=0.5)
    for number in range(60):
        write(user / f"d{number}/mine.txt", f"mine {number}\n")
        write(agent / f"d{number}/theirs.txt", f"theirs {number}\n")
    os.rename(user / "d7", user / "moved")
    # Nobody asks for a look: it is taken every ten seconds.
    wait_until("what was written is across", lambda: all(
        (agent / f"{'moved' if number == 7 else f'd{number}'}/mine.txt").exists() for number in range(60)), 60, every=0.5)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_a_queue_of_events_that_overflows_loses_nothing(bench):
    limit = pathlib.Path("/proc/sys/fs/inotify/max_queued_events")
    volume, user, agent = pair(bench)
    queued = int(limit.read_text())
    with contextlib.ExitStack() as after:
        if bench.long and os.access(limit, os.W_OK):
            # For the whole machine, and so for a moment only: a watcher asks when it is made.
            user.stop()
            limit.write_text("16")
            after.callback(limit.write_text, str(queued))
            user.start()
            wait_until("it watches", lambda: user.status()["condition"] == "in_sync", 30)
            after.close()
            queued = 16
        with user.frozen():
            # More than can wait, so that what comes last is not told of.
            for number in range(queued // 3 + 50):
                write(user / f"noise/{number % 97}.txt", f"{number}\n")
            for number in range(40):
                write(user / f"late{number % 5}/f{number}.txt", f"late {number}\n")
            os.rename(user / "d1", user / "renamed")
            os.unlink(user / "d2/f2.txt")
        wait_until("it is across", lambda: (agent / "late4/f39.txt").exists() and (agent / "renamed").exists()
                   and not (agent / "d2/f2.txt").exists(), 60)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


# ---- names and links ---------------------------------------------------------------------------------------


def test_names_that_no_volume_has_are_refused_or_told_of(bench):
    volume, user, agent = pair(bench)
    for name in ("x" * 300, "d/" + "é" * 200, "/".join(["d" * 200] * 25)):
        try:
            volume.write(name, "x\n")
            raise Failed(f"a name of {len(name.encode())} bytes was taken")
        except HttpError as error:
            check(error.status == 400 and "long" in error.error["message"], f"{error.status}: {error.body!r}")
    longest = "y" * 255
    volume.write(longest, "fits\n")
    odd = [b"odd-\xff.txt", b"d0/\xc3\x28", b"\xffdir/inside.txt", b"half-\xc3"]
    for name in odd:
        path = os.fsencode(user.root) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"odd\n")
    write(user / "plain.txt", "plain\n")
    settle_without(user, agent)
    check((agent / "plain.txt").exists() and (agent / longest).exists(), "what is plain did not cross")
    # JSON and the terminal can both show it.
    problems = user.status()["problems"]
    # One place for each directory: names that are no text have no path of their own.
    check(len(problems) >= 2 and all("utf-8" in str(why).lower() for why in problems.values()),
          f"it does not say why: {problems}")
    check("UTF-8" in said_by(user), said_by(user))
    for name in odd:
        path = os.fsencode(user.root) + b"/" + name
        with open(path, "rb") as file:
            check(file.read() == b"odd\n", f"{name!r} was changed")
    root = os.fsencode(user.root)
    for number, name in enumerate([b"odd-\xff.txt", b"d0/\xc3\x28", b"\xffdir", b"half-\xc3"]):
        os.rename(root + b"/" + name, root + f"/even{number}".encode())
    wait_until("they cross with other names", lambda: (agent / "even2/inside.txt").exists(), 20)
    settle(user, agent)
    check(not user.status()["problems"], "the problems stay")
    check_all_equal(volume, user, agent)


def settle_without(*replicas):
    """As `settle`, where problems may stay: a flush names them, and is done with the rest."""
    for replica in (*replicas, *replicas):
        replica.json("flush", "--timeout", "20", ok=False)


def test_a_link_that_takes_turns_with_a_directory_leads_nowhere(bench):
    volume, user, agent = pair(bench)
    outside = user.machine.dir / "outside"
    write(outside / "f.txt", "precious\n")
    write(outside / "deep/f.txt", "precious\n")
    before = disk_tree(outside)
    write(user / "t/f.txt", "base\n")
    write(user / "t/deep/f.txt", "base\n")
    settle(user, agent)
    aside, link = user.machine.dir / "aside", user.machine.dir / "link"
    os.symlink(outside, link)
    stop, swaps = threading.Event(), 0

    def swap():
        # Away and a link in its place, and back, as fast as it goes.
        nonlocal swaps
        while not stop.is_set():
            os.rename(user / "t", aside)
            os.rename(link, user / "t")
            time.sleep(0.0005)
            os.rename(user / "t", link)
            os.rename(aside, user / "t")
            swaps += 1
            time.sleep(0.0005)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for turn in range(bench.long and 600 or 120):
            for name in ("t/f.txt", "t/deep/f.txt", f"t/new{turn % 10}.txt"):
                with contextlib.suppress(HttpError):
                    volume.write(name, f"the agent's {turn}\n")
            if turn % 7 == 6:
                with contextlib.suppress(HttpError):
                    volume.remove(f"t/new{turn % 10}.txt")
            time.sleep(0.03)
    finally:
        stop.set()
        swapper.join()
    bench.note(f"{swaps} swaps")
    check_equal(before, disk_tree(outside), "what the link leads to, before and after")
    check(os.path.islink(link) and not os.path.islink(user / "t"), "somebody else's directory is in its place")

    def quiet():
        user.json("flush", "--timeout", "5", ok=False)
        for path in user.conflicts():
            user.sync("conflicts", "resolve", path, "--take-theirs", ok=False)
        return user.status()["condition"] == "in_sync"

    wait_until("all is settled", quiet, 60, every=0.2)
    settle(user, agent)
    check_equal(before, disk_tree(outside), "what the link leads to, before and after")
    check_all_equal(volume, user, agent)


# ---- the network -------------------------------------------------------------------------------------------


def test_answers_that_are_cut_delayed_and_repeated_lose_nothing(bench):
    service = bench.service()
    volume = service.create_volume()
    proxy = Proxy(bench, service)
    user = bench.machine("laptop", proxy).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for number in range(30):
        write(user / f"base/f{number}.txt", f"base {number}\n")
    settle(user, agent)
    written = collections.Counter()
    turns = 60 if bench.long else 12
    for mode, seconds in (("cut", 0), ("repeat", 0), ("delay", 0.3), ("mixed", 0.5)):
        proxy.mode, proxy.seconds = mode, seconds
        for turn in range(turns * 20):
            # Connections are kept, so it takes a while until enough of them are spoilt.
            if turn >= turns and (mode not in ("cut", "repeat") or proxy.counts.get(mode, 0) > 3):
                break
            for side, who in ((user, "user"), (agent, "agent")):
                name = f"{who}/{mode}{turn % 9}.txt"
                written[name] += 1
                write(side / name, f"{mode} {written[name]}\n" * 20)
            if turn % 6 == 5:
                write(user / f"user/large-{mode}{turn}.bin", bench.random.randbytes(400_000))
                write(agent / f"agent/large-{mode}{turn}.bin", bench.random.randbytes(400_000))
                os.rename(user / f"user/{mode}{turn % 9}.txt", user / f"user/moved-{mode}{turn}.txt")
                del written[f"user/{mode}{turn % 9}.txt"]
            time.sleep(0.1)
    check(proxy.counts.get("cut", 0) > 3 and proxy.counts.get("repeat", 0) > 3, f"nothing was spoilt: {proxy.counts}")
    proxy.mode = "good"
    settle(user, agent)
    bench.note(", ".join(f"{count} {mode}" for mode, count in sorted(proxy.counts.items())))
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    renames = collections.Counter(e["path"] for e in volume.changes() if e["event_type"] == "rename")
    check(all(count == 1 for count in renames.values()), f"renames were done twice: {renames}")


def test_a_service_that_answers_a_minute_late_is_waited_for_and_told(bench):
    service = bench.service()
    volume = service.create_volume()
    proxy = Proxy(bench, service)
    user = bench.machine("laptop", proxy).attach(volume)
    write(user / "a.txt", "a\n")
    settle(user)
    proxy.seconds, proxy.mode = (60.0 if bench.long else 12.0), "delay"
    write(user / "b.txt", "b\n")
    volume.write("c.txt", "the agent's\n")
    began = time.monotonic()
    slowest = 0.0
    while time.monotonic() - began < proxy.seconds * 1.2:
        # The host answers its guests meanwhile.
        asked = time.monotonic()
        status = user.status()
        slowest = max(slowest, time.monotonic() - asked)
        check(status["condition"] in ("syncing", "offline", "in_sync"), f"it is {status['condition']}")
        time.sleep(0.5)
    check(slowest < 5 * PATIENCE, f"a guest waited {slowest:.1f} s for its status")
    said = user.json("flush", "--timeout", "1", ok=False)
    bench.note(f"flush within a second: {said.get('done')}; slowest status {slowest:.2f} s")
    proxy.mode = "good"
    settle(user)
    check_all_equal(volume, user)
    check_no_conflicts(volume, user)


def test_ten_thousand_garbage_requests_disturb_nobody(bench):
    volume, user, agent = pair(bench)
    service = volume.service
    pid = service.process.pid
    write(user / "warm.txt", "x\n")
    settle(user, agent)
    reset_peak_memory(pid)
    before, handles = peak_memory(pid), len(os.listdir(f"/proc/{pid}/fd"))
    heads = [
        lambda r: r.randbytes(r.randrange(1, 2000)),
        lambda r: b"GET /" + r.randbytes(30).hex().encode() + b" HTTP/1.1\r\n\r\n",
        lambda r: b"POST /api/v1/sandboxvolumes HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{",
        lambda r: b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Y: " + b"z" * 200_000 + b"\r\n\r\n",
        lambda r: b"PUT /api/v1/sandboxvolumes/..%2f..%2f/files?path=%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda r: b"POST /api/v1/sandboxvolumes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
        lambda r: b"GET /healthz HTTP/9.9\r\nHost: \x00\r\n\r\n",
        lambda r: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + r.randbytes(100),
        lambda r: b"GET /api/v1/sandboxvolumes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + r.randbytes(20).hex().encode()
        + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: !\r\n\r\n",
    ]
    answers, wrong = collections.Counter(), []

    def bother(seed):
        r = random.Random(seed)
        for _ in range(1250):
            try:
                with socket.create_connection(("127.0.0.1", service.port), timeout=20) as one:
                    one.sendall(r.choice(heads)(r))
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_WR)
                    answers[one.recv(4096)[9:12].decode(errors="replace")] += 1
            except ConnectionError:
                # It hung up while we were talking.
                answers["hung up"] += 1
            except OSError as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=bother, args=(bench.random.randrange(2**32),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    turn = 0
    while any(thread.is_alive() for thread in threads):
        # Others work meanwhile.
        turn += 1
        write(user / f"work/{turn % 20}.txt", f"{turn}\n")
        user.flush(60)
    for thread in threads:
        thread.join()
    check(not wrong, f"{len(wrong)} were left without an answer: {wrong[:3]}")
    check(sum(answers.values()) == 10_000, f"{sum(answers.values())} requests were made")
    odd = {code for code in answers if not code.startswith("4") and code not in ("", "hung up", "505")
           # A frame of HTTP/2 that says no.
           and not code.startswith("\0")}
    check(not odd, f"garbage was answered with {odd}: {answers}")
    grown = peak_memory(pid) - before
    bench.note(f"{dict(answers.most_common(5))}; memory +{grown:.0f} MiB")
    check(grown < 100, f"the service took {grown:.0f} MiB more")
    wait_until("connections are closed", lambda: len(os.listdir(f"/proc/{pid}/fd")) <= handles + 8, 60, every=0.5)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


# ---- the clock ---------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_a_day_disturbs_nobody(bench):
    shim, clock = bench.dir / "clock.so", bench.dir / "clock"
    source = pathlib.Path(__file__).with_name("clock.c")
    built = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], capture_output=True)
    if built.returncode != 0:
        raise Skip(f"a C compiler: {built.stderr.decode()[:200]}")
    clock.write_text("0")
    bench.everywhere.update(LD_PRELOAD=str(shim), S0_TEST_CLOCK=str(clock))
    volume, user, agent = pair(bench)
    times = [entry["created_at"] for entry in volume.changes()]
    snapshot = user.machine.json("volume", "snapshot", "create", volume.id, "--name", "before")
    day = 86_400

    def work(name):
        for side, who in ((user, "user"), (agent, "agent")):
            for number in range(10):
                write(side / f"{who}/{name}{number}.txt", f"{name} {number}\n")
        # Files change whose time goes back, and whose size stays.
        for number in range(0, 20, 2):
            path = user / f"d{number % 4}/f{number}.txt"
            write(path, f"{name[:4]} {number}\n")
            then = time.time() + int(clock.read_text())
            os.utime(path, (then, then))
        settle(user, agent)
        check_all_equal(volume, user, agent)
        check_no_conflicts(volume, user, agent)

    clock.write_text(str(-day))
    work("back")
    last = volume.changes()[-1]["created_at"]
    check(last < times[-1], f"the shim does nothing: {times[-1]}, then {last}")
    # Everything starts anew with the wrong clock.
    user.stop()
    write(user / "offline.txt", "written while no host ran\n")
    volume.service.kill()
    volume.service.start()
    agent.kill()
    agent.start()
    user.start()
    work("anew")
    check((agent / "offline.txt").exists(), "what was written offline did not cross")
    # Two that did not see each other's are still told of.
    with volume.service.frozen():
        write(user / "clash.txt", "the user's\n")
        write(agent / "clash.txt", "the agent's\n")
        time.sleep(0.5)
    side = wait_until("the clash is a conflict", lambda: next(
        (it for it in (user, agent) if "clash.txt" in it.conflicts()), None), 30)
    side.sync("conflicts", "resolve", "clash.txt", "--take-theirs")
    settle(user, agent)
    seqs = [entry["seq"] for entry in volume.changes()]
    check(seqs == sorted(seqs), "the journal is out of order")
    user.sync("history", "d0/f0.txt")
    user.machine.run("volume", "snapshot", "restore", volume.id, snapshot["id"])
    settle(user, agent)
    check((agent / "d0/f0.txt").read_text() == "base 0\n", "the snapshot was not restored")
    clock.write_text("0")
    work("right")


# ---- hosts -------------------------------------------------------------------------------------------------


def hosts_of(bench, replica):
    """The hosts of one workspace, by their command lines."""
    found = []
    for pid in bench.own_processes():
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"host" in words and is_running(pid) and str(replica.machine.state).encode() in b" ".join(
                    [*words, pathlib.Path(f"/proc/{pid}/environ").read_bytes()]):
                found.append(pid)
    return found


def test_hosts_that_are_started_at_once_are_one(bench):
    volume, user, agent = pair(bench)
    for turn in range(5 if bench.long else 2):
        user.kill()
        write(user / f"turn{turn}.txt", f"{turn}\n")
        starts = [subprocess.Popen([BIN, "sync", "start", "--no-wait"], cwd=user.root, env=user.machine.environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                  for _ in range(8)]
        for start in starts:
            _, said = start.communicate(timeout=120)
            check(start.returncode in (0, 3), f"a start ended with {start.returncode}: {said.decode()}")
        pid = user.pid
        wait_until("one host is left", lambda: hosts_of(bench, user) == [pid], 40)
        settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_guests_that_wait_hear_of_the_end_of_their_host(bench):
    volume, user, agent = pair(bench)
    with volume.service.frozen():
        write(user / "unsent.txt", "written before the host died\n")
        waiting = [subprocess.Popen([BIN, "sync", *command], cwd=user.root, env=user.machine.environment(),
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for command in (("flush", "--timeout", "300"), ("verify",), ("flush", "--timeout", "300"))]
        pid = user.pid
        wait_until("they wait", lambda: all(it.poll() is None for it in waiting), 5)
        time.sleep(1)
        os.kill(pid, 9)
        for guest in waiting:
            try:
                out, said = guest.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                guest.kill()
                raise Failed("a guest waits for ever for a host that is dead") from None
            said = (out + said).decode()
            check(guest.returncode != 0, f"it is told that all is well: {said}")
            check("s0 sync" in said and "host" in said, f"it does not say what happened: {said}")
    user.start()
    settle(user, agent)
    check((agent / "unsent.txt").exists(), "what was written is lost")
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


# ---- damaged files -----------------------------------------------------------------------------------------


def database_of(replica):
    found = [path for path in replica.machine.state.rglob("*.db")]
    check(len(found) == 1, f"the state has the databases {found}")
    return found[0]


def without(path):
    for end in ("", "-wal", "-shm"):
        pathlib.Path(f"{path}{end}").unlink(missing_ok=True)


def test_a_damaged_state_database_is_told_and_nothing_is_lost(bench):
    volume, user, agent = pair(bench)
    # Deleted, emptied: everything is compared anew. Cut, overwritten: the user is told the way out.
    for turn, damage in enumerate(("deleted", "emptied", "cut", "overwritten")):
        user.stop()
        path = database_of(user)
        write(user / "d0/f0.txt", f"edited before the state was {damage}\n")
        write(user / f"new-{damage}.txt", "new\n")
        write(agent / "d1/f1.txt", f"the agent's when the state was {damage}\n")
        agent.flush()
        pathlib.Path(f"{path}-wal").unlink(missing_ok=True)
        data = path.read_bytes()
        if damage == "deleted":
            without(path)
        elif damage == "emptied":
            path.write_bytes(b"")
        elif damage == "cut":
            path.write_bytes(data[:len(data) // 2 + 100])
        else:
            path.write_bytes(data[:4096] + bench.random.randbytes(len(data) - 4096))
        before = volume.tree()
        user.sync("start", "--no-wait", ok=False)
        if damage in ("cut", "overwritten"):
            wait_until("the user is told", lambda: "state database" in said_by(user), 20, every=0.5)
            said = said_by(user)
            check(str(path) in said, f"it does not say which file: {said}")
            check("s0 sync" in said, f"it does not say what to do: {said}")
            check_equal(before, volume.tree(), "the Volume before and after")
            # The way out that it names.
            user.sync("stop", ok=False)
            os.rename(path, path.with_suffix(".damaged"))
            without(path)
            user.sync("start", "--no-wait", ok=False)

        def settled():
            user.json("flush", "--timeout", "10", ok=False)
            for clash in user.conflicts():
                mine = clash in ("d0/f0.txt", f"new-{damage}.txt")
                user.sync("conflicts", "resolve", clash, "--keep-mine" if mine else "--take-theirs", ok=False)
            return user.status()["condition"] == "in_sync"

        wait_until(f"all is settled after it was {damage}", settled, 60, every=0.2)
        settle(user, agent)
        check_all_equal(volume, user, agent)
        check(volume.read("d0/f0.txt") == f"edited before the state was {damage}\n".encode(), "the edit is lost")
        check(volume.read(f"new-{damage}.txt") == b"new\n", "the new file is lost")
        check(volume.read("d1/f1.txt") == f"the agent's when the state was {damage}\n".encode(), "the agent's is lost")
        path.with_suffix(".damaged").unlink(missing_ok=True)


def test_a_damaged_journal_is_told_and_workspaces_keep_their_files(bench):
    volume, user, agent = pair(bench)
    kept = user.tree()
    service = volume.service
    check(service.stop() == 0, "the service does not end in order")
    path = service.data / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        # All of it in one file.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = path.read_bytes()

    def start_fails():
        done = subprocess.run(
            [BIN, "serve", "--listen", f"127.0.0.1:{service.port}", "--data-dir", service.data],
            env=bench.environment(S0_DATA_DIR=str(service.data)), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")

    for damaged in (data[:5000], b"not a database at all" * 500):
        without(path)
        path.write_bytes(damaged)
        code, said = start_fails()
        check(code not in (0, 101) and code > 0, f"it ended with {code}: {said}")
        check("journal" in said and "panicked" not in said, f"it does not say which file: {said}")
        check(path.read_bytes() == damaged, "a damaged journal was written to")
    # Without it there is no such Volume any more; what is on the disks stays there.
    without(path)
    service.start()
    for replica in (user, agent):
        wait_until(f"{replica} is told", lambda: "volume" in said_by(replica).lower()
                   and user.status()["condition"] in ("offline", "halted"), 60, every=0.5)
    check_equal(kept, user.tree(), "the workspace before and after")
    # The journal comes back.
    service.stop()
    without(path)
    path.write_bytes(data)
    service.start()
    write(user / "after.txt", "after\n")
    for replica in (user, agent):
        replica.sync("resume", ok=False)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
