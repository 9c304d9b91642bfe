"""The figures, each with what it measures and what is asked of it. `ALL` has them in order.

Ours and the peers take turns within each round. Ours is durable in all of them: a change is across when it is in the
Volume's journal, on the disk, and at its path on the other side.
"""
import json
import os
import random
import struct
import subprocess
import threading
import time

import harness
import peers
import slowline
from lab import LONG_GLANCE, OURS, Figure, Ours

DELAY = 40
IDLE = 30
LARGE = 100_000_000
ALL = {}


def measure(key):
    def note(function):
        ALL[key] = function
        return function
    return note


def whole(lab):
    return f"{len(lab.paths):,} files ({lab.bytes / 1e6:.0f} MB)"


def rsync_of(lab):
    return next((kind for kind in lab.here if kind is peers.Rsync), None)


@measure("initial")
def initial(lab):
    """Seeding and bootstrapping."""
    seed = Figure("seeding", "s", f"`s0 sync attach` of {whole(lab)} to an empty Volume, until it says that all is "
                  "across and durable; others: the first copy from one directory to another, then `sync`",
                  goal=2, beside="rsync")
    boot = Figure("bootstrapping a second replica", "s", "`s0 sync attach` of an empty directory to that Volume, "
                  "until all is on its disk and durable", goal=2, beside="rsync")
    for _ in range(lab.rounds):
        ours = Ours(lab)
        for figure, root in ((seed, ours.one), (boot, ours.other)):
            figure.add(OURS, ours.attach(root)[1])
            if rsync_of(lab):
                there = lab.fresh("rsync")
                figure.add("rsync", peers.timed(lambda: (
                    peers.run(["rsync", "-a", f"{lab.template}/", f"{there}/"]), peers.sync())))
        harness.check_equal(harness.disk_tree(ours.one), harness.disk_tree(ours.other), "the two directories")
        ours.close()
    for kind in list(lab.here):
        if kind is not peers.Rsync:
            with lab.perhaps(kind):
                seed.add(kind.name, lab.peer(kind).first)
    seed.notes.append("peers other than rsync: once")
    return [seed, boot]


@measure("distance")
def distance(lab):
    """The same over a long line."""
    measured, much = slowline.round_trip(DELAY)
    line = (f"through a TCP proxy that adds {DELAY} ms of round trip and takes no bandwidth away "
            f"(measured through it: {measured:.1f} ms for a byte, {much:.0f} ms for 16 MiB there and back)")
    goal = 15 if lab.files <= 20_000 else None
    seed = Figure(f"seeding over {DELAY} ms", "s", f"seeding {line}; rsync: its daemon behind the proxy, then `sync`",
                  goal=goal)
    boot = Figure(f"bootstrapping over {DELAY} ms", "s", f"bootstrapping {line}", goal=goal)
    for _ in range(min(lab.rounds, 3)):
        ours = Ours(lab)
        with slowline.Proxy(ours.service.port, DELAY) as line:
            url = f"http://127.0.0.1:{line.port}"
            seed.add(OURS, ours.attach(ours.one, url)[1])
            if rsync_of(lab):
                push, pull = rsync_over_a_line(lab)
                seed.add("rsync", push)
                boot.add("rsync", pull)
            boot.add(OURS, ours.attach(ours.other, url)[1])
            ours.close()
    seed.notes.append(f"{min(lab.rounds, 3)} rounds")
    return [seed, boot]


def rsync_over_a_line(lab):
    """Pushing a tree to rsync's daemon through the proxy, and pulling it from there."""
    state, there, back = lab.fresh("rsyncd"), lab.fresh("rsync"), lab.fresh("rsync")
    port = peers.free_port()
    (state / "conf").write_text(f"use chroot = no\n[tree]\npath = {there}\nread only = no\n"
                                f"uid = {os.getuid()}\ngid = {os.getgid()}\n")
    daemon = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", f"--config={state / 'conf'}", f"--port={port}", "--address=127.0.0.1"],
        stdin=subprocess.DEVNULL, env=lab.bench.environment())
    try:
        time.sleep(0.5)
        with slowline.Proxy(port, DELAY) as line:
            module = f"rsync://127.0.0.1:{line.port}/tree/"
            push = peers.timed(lambda: (peers.run(["rsync", "-a", f"{lab.template}/", module]), peers.sync()))
            pull = peers.timed(lambda: (peers.run(["rsync", "-a", module, f"{back}/"]), peers.sync()))
    finally:
        daemon.terminate()
        daemon.wait()
    return push, pull


@measure("flush")
def flush(lab):
    """A barrier with nothing to do."""
    figure = Figure("flush with nothing to do", "ms", "`s0 sync flush`, the whole command from start to end; others: "
                    "a run, or `mutagen sync flush`, with nothing to do", goal=20)
    for pair in lab.all_pairs():
        if pair is not lab.ours() and pair.across is None:
            continue
        for _ in range(25 if pair is lab.ours() else lab.rounds):
            work = lab.ours().replicas[0].sync if pair is lab.ours() else None
            took = peers.timed(lambda: work("flush")) if work else peers.timed(pair.across)
            figure.add(pair.name, took * 1000)
    figure.notes.append("25 times ours")
    return [figure]


@measure("restart")
def restart(lab):
    """A host's start on a tree that is as it was."""
    figure = Figure("restart on the unchanged tree", "ms", "`s0 sync start`, until it says that all is in sync; beside "
                    "it `git status` in a copy of the tree that is committed, the second of two", goal=2,
                    beside="git status")
    repository = lab.copy("repository")
    for command in (["init", "-q"], ["add", "-A"],
                    ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "tree"], ["status"]):
        peers.run(["git", *command], cwd=repository, env=lab.bench.environment())
    replica = lab.ours().replicas[0]
    with lab.turn(lab.ours()):
        for _ in range(lab.rounds):
            replica.stop()
            figure.add(OURS, peers.timed(lambda: replica.sync("start")) * 1000)
            harness.check(replica.status()["condition"] == "in_sync", "not in sync after the start")
            for _ in range(2):
                took = peers.timed(lambda: peers.run(["git", "status"], cwd=repository, env=lab.bench.environment()))
            figure.add("git status", took * 1000)
    return [figure]


@measure("burst")
def burst(lab):
    """Many new files at once."""
    figure = Figure("1,000 new files across", "s", "from before the first of 1,000 files of 2 KB in 20 new directories "
                    "is written, until the last is on the other side", goal=0.5)
    rng = random.Random(2)
    for number in range(lab.rounds):
        contents = [rng.randbytes(1500) + b"%d" % at for at in range(1000)]
        names = [f"burst{number}/d{at % 20}/f{at}" for at in range(1000)]

        def change(root):
            for at in range(20):
                (root / f"burst{number}/d{at}").mkdir(parents=True)
            for name, content in zip(names, contents):
                (root / name).write_bytes(content)

        def arrived(root):
            top = root / f"burst{number}"
            try:
                # Most of the waiting is cheap: the directories first, then their numbers, then the bytes.
                return (sum(len(os.listdir(top / f"d{at}")) for at in range(20)) == 1000
                        and all((root / n).stat().st_size == len(c) for n, c in zip(names, contents)))
            except OSError:
                return False

        for pair in lab.all_pairs():
            figure.add(pair.name, lab.crossing(pair, change, arrived, LONG_GLANCE))
            harness.check(all((pair.other / n).read_bytes() == c for n, c in zip(names, contents)),
                          f"{pair.name}: not what was written")
    return [figure]


@measure("large")
def large(lab):
    """A small change in a large file."""
    figure = Figure("8 bytes changed in 100 MB, across", "s", "from before eight bytes in the middle of a file of "
                    "100 MB are written in place, until the other side has them", goal=0.4)
    rng = random.Random(3)
    content = rng.randbytes(LARGE)
    for pair in lab.all_pairs():
        lab.crossing(pair, lambda root: (root / "large.bin").write_bytes(content),
                     lambda root: is_size(root / "large.bin", LARGE))
    peers.sync()
    for number in range(lab.rounds):
        at, eight = LARGE // 2 + number * 4_000_000, rng.randbytes(8)

        def change(root):
            with open(root / "large.bin", "r+b") as file:
                file.seek(at)
                file.write(eight)

        def arrived(root):
            try:
                with open(root / "large.bin", "rb", buffering=0) as file:
                    return os.pread(file.fileno(), 8, at) == eight and is_size(root / "large.bin", LARGE)
            except OSError:
                return False

        for pair in lab.all_pairs():
            time.sleep(1)
            figure.add(pair.name, lab.crossing(pair, change, arrived))
    return [figure]


def is_size(path, size):
    try:
        return path.stat().st_size == size
    except OSError:
        return False


@measure("save")
def save(lab):
    """One save, from one directory to the other."""
    figure = Figure("one save, from one directory to the other", "ms", "from before a file of 2 KB, chosen at random, "
                    "is written in place, until the other directory has it; all by themselves")
    rng = random.Random(4)
    chosen = rng.sample(lab.paths, 40)
    for number, name in enumerate(chosen):
        data = rng.randbytes(1000).hex().encode()
        for pair in lab.all_pairs():
            if pair is not lab.ours() and number >= lab.rounds:
                continue
            time.sleep(0.05 + rng.random() * 0.1)
            figure.add(pair.name, 1000 * lab.crossing(
                pair, lambda root: (root / name).write_bytes(data),
                lambda root: is_size(root / name, len(data)) and (root / name).read_bytes() == data))
    figure.notes.append("40 times ours")
    return [figure]


@measure("idle")
def idle(lab):
    """What it costs to wait."""
    size = Figure("memory at rest", "MiB", f"proportional set size of host and service together, with one workspace of "
                  f"{whole(lab)} in sync, after {IDLE} idle seconds; others: all their processes, both sides", goal=60)
    cpu = Figure(f"processor time in {IDLE} idle seconds", "s", "user and system time of the same processes", goal=0.1)
    ours = Ours(lab)
    replica, _ = ours.attach(ours.one)
    subjects = [(OURS, (replica.pid, ours.service.process.pid))]
    for kind in list(lab.here):
        with lab.perhaps(kind):
            subjects.append((kind.name, lab.peer(kind).processes))
    time.sleep(5)
    before = {name: peers.memory_and_cpu(pids) for name, pids in subjects if pids}
    time.sleep(IDLE)
    for name, pids in subjects:
        if pids:
            now = peers.memory_and_cpu(pids)
            size.add(name, now[0])
            cpu.add(name, now[1] - before[name][1])
    each = [peers.memory_and_cpu([pid])[0] for pid in subjects[0][1]]
    peak = [harness.peak_memory(pid) for pid in subjects[0][1]]
    size.notes.append(f"host {each[0]:.0f}, service {each[1]:.0f}; peaks while seeding {peak[0]:.0f} and {peak[1]:.0f}")
    ours.close()
    return [size, cpu]


@measure("journal")
def journal(lab):
    """How fast the service takes entries."""
    figure = Figure("journal entries", "entries/s", "submissions of 1,000 new empty files each over HTTP, from two "
                    "replicas of one Volume, one after the other from each; an entry counts when its submission is "
                    "answered, and so is in the journal on the disk", goal=30_000, least=True)
    carried = Figure("journal entries with contents", "entries/s", "the same with 100 bytes of content in each file")
    service = lab.bench.service()
    with lab.turn(None):
        for _ in range(lab.rounds):
            for kind, content in ((figure, False), (carried, True)):
                volume = service.create_volume()
                kind.add(OURS, append_rate(volume, 30, content))
    service.stop()
    return [figure, carried]


def append_rate(volume, submissions, content, replicas=2):
    bodies = {}
    for replica in range(replicas):
        said = volume.http.data("PUT", f"{volume.base}/sync/replicas/r{replica}", value={
            "display_name": "bench", "platform": "linux", "root_path": "/", "case_sensitive": True,
            "capabilities": {"case_sensitive": True, "unicode_normalization_insensitive": False,
                             "windows_compatible_paths": False}, "take_instance": True})
        bodies[replica] = said["instance"], [submission(replica, at, content) for at in range(1, submissions + 1)]
    failed = []

    def send(replica):
        instance, mine = bodies[replica]
        try:
            for body in mine:
                volume.http.call("POST", f"{volume.base}/sync/replicas/r{replica}/submit",
                                 {"instance": instance}, body, {"Content-Type": "application/octet-stream"})
        except (OSError, harness.HttpError) as error:
            failed.append(error)

    threads = [threading.Thread(target=send, args=(replica,)) for replica in range(replicas)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    entries = volume.head()
    harness.check(entries == replicas * submissions * 1000 + replicas * submissions, f"{entries} entries")
    return entries / took


def submission(replica, number, content):
    folder = f"r{replica}-{number}"
    changes = [{"action": "create", "path": folder, "what": {"kind": "directory"}, "expect": "absent"}]
    frames = []
    for at in range(1000):
        data = (b"%d %d %d " % (replica, number, at)).ljust(100, b".") if content else b""
        digest = harness.sha256(data)
        if content:
            frames.append(b"\0" + bytes.fromhex(digest) + struct.pack(">I", len(data)) + data)
        changes.append({"action": "create", "path": f"{folder}/f{at:04}", "expect": "absent",
                        "what": {"kind": "file", "id": f"sha256:{digest}", "size": len(data)}})
    told = json.dumps({"number": number, "changes": changes}).encode()
    return struct.pack(">I", len(told)) + told + b"".join(frames)
