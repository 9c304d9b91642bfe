"""How programs write: editors, tools, logs, builds, and what is large or very busy."""
import collections
import hashlib
import json
import mmap
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time

from harness import (Skip, check, check_all_equal, check_no_conflicts, peak_memory, settle, wait_until, write)

SAVES = 40


def atomic(path, text):
    """Write beside, flush, rename over: most editors and tools."""
    beside = path.with_name(f".{path.name}.tmp{os.getpid()}")
    with open(beside, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def vim(path, text):
    """Move the old file aside, write a new one, delete the backup."""
    probe = path.with_name("4913")
    probe.write_text("")
    probe.unlink()
    backup = path.with_name(path.name + "~")
    os.rename(path, backup)
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(backup)


def code(path, text):
    """Truncate and write in place, in pieces: VS Code."""
    with open(path, "r+") as file:
        file.truncate(0)
        for start in range(0, len(text), 512):
            file.write(text[start:start + 512])
            file.flush()


def sed(path, text):
    """`sed -i`: a program that reads, writes beside and renames over."""
    path_was = path.read_text()
    if not path_was:
        path.write_text(text)
    subprocess.run(["sed", "-i", f"1s/.*/{text.splitlines()[0]}/", str(path)], check=True)


def emacs(path, text):
    """Copy to a backup, write in place, leave the backup."""
    path.with_name(path.name + "~").write_bytes(path.read_bytes())
    path.write_text(text)


STYLES = [atomic, vim, code, sed, emacs]


def pair(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    return volume, user, agent


def entries_by_path(volume, after=0):
    return collections.Counter(entry["path"].lstrip("/") for entry in volume.changes(after))


def check_save_styles(bench, writer, reader, volume):
    for style in STYLES:
        write(writer / f"saves/{style.__name__}.txt", "first version\n" + "line\n" * 300)
    settle(writer, reader)
    head = volume.head()
    for number in range(SAVES):
        for style in STYLES:
            style(writer / f"saves/{style.__name__}.txt", f"version {number}\n" + "line\n" * (300 + number))
        time.sleep(bench.random.random() * 0.06)
    settle(writer, reader)
    check_all_equal(volume, writer, reader)
    check_no_conflicts(volume, writer, reader)
    for style in STYLES:
        first = (reader / f"saves/{style.__name__}.txt").read_text().splitlines()[0]
        check(first == f"version {SAVES - 1}", f"{style.__name__}: the reader has {first!r}")
    counts = entries_by_path(volume, head)
    for style in STYLES:
        got = counts[f"saves/{style.__name__}.txt"]
        check(got <= 2 * SAVES, f"{style.__name__}: {SAVES} saves made {got} entries")
    strange = [path for path in counts if path not in {f"saves/{style.__name__}.txt" for style in STYLES}
               and not path.endswith("~")]
    bench.note(f"{sum(counts.values())} entries for {SAVES * len(STYLES)} saves, "
               f"{len(strange)} names in passing")


def test_save_styles_of_editors_in_the_workspace(bench):
    volume, user, agent = pair(bench)
    check_save_styles(bench, user, agent, volume)


def test_save_styles_of_programs_in_the_sandbox(bench):
    volume, user, agent = pair(bench)
    check_save_styles(bench, agent, user, volume)


def test_a_reader_never_sees_a_half_written_file(bench):
    volume, user, agent = pair(bench)

    def body(number):
        data = f"{number}\n".encode() * 20_000
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data

    write(user / "whole.bin", body(0))
    settle(user, agent)
    torn, reads, stop = [], [0], threading.Event()

    def read(path):
        while not stop.is_set():
            try:
                head, _, data = path.read_bytes().partition(b"\n")
            except FileNotFoundError:
                torn.append("the file was missing")
                continue
            reads[0] += 1
            if hashlib.sha256(data).hexdigest().encode() != head:
                torn.append(f"{len(data)} bytes that do not belong together")

    reader = threading.Thread(target=read, args=(agent / "whole.bin",))
    reader.start()
    try:
        for number in range(1, 60):
            atomic_bytes(user / "whole.bin", body(number))
            time.sleep(0.03)
        settle(user, agent)
    finally:
        stop.set()
        reader.join()
    check(not torn, f"{len(torn)} of {reads[0]} reads were wrong: {torn[:3]}")
    check((agent / "whole.bin").read_bytes() == body(59), "the last version did not arrive")
    check_no_conflicts(volume, user, agent)
    bench.note(f"{reads[0]} whole reads")


def atomic_bytes(path, data):
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(data)
    os.replace(beside, path)


def test_a_log_that_is_appended_to(bench):
    volume, user, agent = pair(bench)
    seconds = 60 if bench.long else 10
    write(agent / "run.log", "")
    settle(user, agent)
    head, lines = volume.head(), 0
    deadline = time.monotonic() + seconds
    with open(agent / "run.log", "a") as log:
        while time.monotonic() < deadline:
            log.write(f"line {lines}: all is well, and this is what a program says about it\n")
            log.flush()
            lines += 1
            time.sleep(0.01)
    settle(agent, user)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    said = (user / "run.log").read_text().splitlines()
    check(len(said) == lines and said[-1].startswith(f"line {lines - 1}:"), f"{len(said)} of {lines} lines arrived")
    entries = volume.head() - head
    bench.note(f"{lines} lines in {seconds} s: {entries} entries")
    check(entries <= 12 * seconds, f"{entries} entries in {seconds} s are a storm")


def test_a_log_arrives_while_its_program_still_runs(bench):
    volume, user, agent = pair(bench)
    settle(user, agent)
    with open(agent / "server.log", "a") as log:
        log.write("listening\n")
        log.flush()
        wait_until("the user sees the first line",
                   lambda: (user / "server.log").exists()
                   and (user / "server.log").read_text() == "listening\n", 15)
        log.write("a request\n")
        log.flush()
        wait_until("the user sees the next line",
                   lambda: (user / "server.log").read_text() == "listening\na request\n", 15)
    settle(agent, user)
    check_no_conflicts(volume, user, agent)


def test_a_write_through_a_memory_map_is_not_missed(bench):
    volume, user, agent = pair(bench)
    write(user / "table", "AAAA" * 1024)
    settle(user, agent)
    with open(user / "table", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        # The first write makes the page writable; only calls of the system raise events.
        view[0:4] = b"BBBB"
        os.pwrite(file.fileno(), b"B", 0)
        wait_until("the agent sees the first write", lambda: (agent / "table").read_bytes()[:4] == b"BBBB", 20)
        # The page is dirty: what is written to it now leaves no trace in the file's times.
        before = os.stat(user / "table")
        view[0:4] = b"CCCC"
        after = os.stat(user / "table")
        bench.note(f"the times {'did not change' if before.st_mtime_ns == after.st_mtime_ns else 'changed'}")
    wait_until("the agent sees the second write", lambda: (agent / "table").read_bytes()[:4] == b"CCCC", 20)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def check_that_no_package_crossed(volume, reader, head):
    check(not any("node_modules" in path.split("/") for path in entries_by_path(volume, head)),
          "node_modules is in the journal")
    check(reader.status()["problems"] == {}, f"problems: {str(reader.status()['problems'])[:300]}")


def test_a_node_modules_that_is_ignored(bench):
    volume, user, agent = pair(bench)
    write(user / ".gitignore", "node_modules/\n")
    write(user / "package.json", '{"name": "x", "private": true, "dependencies": {}}\n')
    settle(user, agent)
    head = volume.head()
    for number in range(3000):
        write(user / f"node_modules/package{number % 150}/lib/file{number}.js", f"module.exports = {number};\n" * 20)
    (user / "node_modules/.bin").mkdir()
    for number in range(50):
        os.symlink(f"../package{number}/lib/file{number}.js", user / f"node_modules/.bin/tool{number}")
    write(user / "index.js", "require('express');\n")
    settle(user, agent)
    check((agent / "index.js").exists(), "the file beside it did not cross")
    check(not (agent / "node_modules").exists(), "node_modules crossed")
    check_that_no_package_crossed(volume, user, head)
    check_no_conflicts(volume, user, agent)
    user.verify()


def npm(bench, replica, *arguments):
    """Runs npm in a workspace; what it keeps for itself is out of everyone's way."""
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--cache", str(bench.dir / "npm-cache")]
    done = subprocess.run(["npm", *arguments, *quiet], cwd=replica.root, env=bench.environment(),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    unanswered = re.search(r"\b(ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|E[45]\d\d)\b", done.stderr)
    if unanswered and not bench.long:
        raise Skip(f"a registry of npm packages (npm said {unanswered[0]})")
    check(done.returncode == 0, f"npm {arguments[0]} failed: {done.stderr[-1000:]}")


def test_a_real_npm_install_on_both_sides(bench):
    if not shutil.which("npm"):
        raise Skip("npm")
    volume, user, agent = pair(bench)
    write(user / ".gitignore", "node_modules/\n")
    write(user / "package.json", json.dumps({
        "name": "x", "private": True, "dependencies": {"express": "^4", "semver": "^7", "ms": "^2"}}))
    write(user / "index.js", "require('express')(); require('semver'); console.log(require('ms')('1h'));\n")
    settle(user, agent)
    head = volume.head()
    npm(bench, user, "install")
    settle(user, agent)
    lock = (user / "package-lock.json").read_bytes()
    check((agent / "package-lock.json").read_bytes() == lock, "package-lock.json did not cross")
    check(not (agent / "node_modules").exists(), "node_modules crossed")
    # The agent installs from the lock file that came, and its packages stay its own.
    npm(bench, agent, "ci")
    settle(agent, user)
    for replica in (user, agent):
        said = subprocess.run(["node", "index.js"], cwd=replica.root, check=True, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True).stdout
        check(said == "3600000\n", f"the program said {said!r}")
        check_that_no_package_crossed(volume, replica, head)
        replica.verify()
    made = entries_by_path(volume, head)
    packages = sum(1 for path in (user / "node_modules").rglob("package.json") if path.is_file())
    bench.note(f"{packages} packages on each side; entries: {dict(made)}")
    check(set(made) <= {"package.json", "package-lock.json"}, f"entries: {dict(made)}")
    check(sum(made.values()) <= 6, f"a storm of entries: {dict(made)}")
    check((user / "package-lock.json").read_bytes() == lock, "package-lock.json was changed")
    check_no_conflicts(volume, user, agent)


def test_a_large_file_passes_without_filling_memory(bench):
    volume, user, agent = pair(bench)
    settle(user, agent)
    size = 1024 if bench.long else 200
    hosts = {"user's host": user.pid, "agent's host": agent.pid}
    service = volume.service.process.pid
    digest = hashlib.sha256()
    started = time.monotonic()
    with open(user / "large.bin", "wb") as file:
        for _ in range(size):
            block = bench.random.randbytes(1 << 20)
            digest.update(block)
            file.write(block)
    user.flush(600)
    agent.flush(600)
    took = time.monotonic() - started
    peaks = {name: peak_memory(pid) for name, pid in hosts.items()}
    bench.note(f"{size} MiB in {took:.1f} s; peak memory " + ", ".join(
        f"{name} {peak:.0f} MiB" for name, peak in peaks.items()) + f", service {peak_memory(service):.0f} MiB")
    with open(agent / "large.bin", "rb") as file:
        check(hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest(), "it arrived changed")
    for name, peak in peaks.items():
        check(peak < 300, f"the {name} had {peak:.0f} MiB resident")
    # Eight bytes in the middle do not send all of it again.
    with open(agent / "large.bin", "r+b") as file:
        file.seek(size << 19)
        file.write(b"changed!")
    started = time.monotonic()
    agent.flush(600)
    user.flush(600)
    bench.note(f"8 bytes of it changed: {time.monotonic() - started:.1f} s")
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_a_file_rewritten_a_thousand_times_a_second(bench):
    volume, user, agent = pair(bench)
    write(user / "busy.txt", "start\n")
    settle(user, agent)
    head, writes = volume.head(), 3000
    started = time.monotonic()
    for number in range(writes):
        (user / "busy.txt").write_text(f"version {number}\n" * 3)
        time.sleep(max(0.0, started + number / 1000 - time.monotonic()))
    took = time.monotonic() - started
    settle(user, agent)
    check((agent / "busy.txt").read_text() == f"version {writes - 1}\n" * 3, "the last version did not arrive")
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    entries = entries_by_path(volume, head)["busy.txt"]
    bench.note(f"{writes} writes in {took:.1f} s: {entries} entries")
    check(entries < writes / 10, f"{entries} entries are a storm")


def test_a_build_that_makes_and_removes_thousands_of_files(bench):
    volume, user, agent = pair(bench)
    # More than the build makes: when most of a workspace goes at once, the host halts, and rightly.
    kept = {f"src/{number % 50}/file{number}.txt" for number in range(2500)}
    for name in kept:
        write(user / name, f"{name}\n")
    settle(user, agent)
    for turn in range(3):
        for number in range(1500):
            write(agent / f"out/{number % 40}/object{number}.o", f"{turn} {number}\n" * 5)
        subprocess.run(["rm", "-rf", str(agent / "out")], check=True)
    write(agent / "out/final.txt", "done\n")
    settle(agent, user)
    there = check_all_equal(volume, user, agent)
    files = {path for path, what in there.items() if what[0] != "directory"}
    check(files == kept | {"out/final.txt"}, f"left over: {sorted(files - kept)[:9]}")
    check_no_conflicts(volume, user, agent)


def test_two_sides_that_take_turns_on_one_file(bench):
    volume, user, agent = pair(bench)
    write(user / "turns.txt", "0\n")
    settle(user, agent)
    for turn in range(1, 41):
        writer, reader = (agent, user) if turn % 2 else (user, agent)
        atomic(pathlib.Path(writer / "turns.txt"), f"{turn}\n")
        wait_until(f"turn {turn} arrives", lambda: (reader / "turns.txt").read_text() == f"{turn}\n", 10,
                   every=0.002)
    settle(user, agent)
    check_no_conflicts(volume, user, agent)
    check_all_equal(volume, user, agent)
