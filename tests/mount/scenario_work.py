"""Real work on a mount; what comes of it is the same in another mount, in the Volume, and on a developer's disk."""
import contextlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import tarfile
import time

import harness
from harness import PATIENCE, Skip, check, check_equal, disk_tree, wait_until
from rig import Mount, have, mounts, service_and_volume, together, within


def everything(root):
    """All that a directory holds, version control and links between files too."""
    left_out, harness.LEFT_OUT = harness.LEFT_OUT, {".s0"}
    try:
        found = disk_tree(root)
    finally:
        harness.LEFT_OUT = left_out
    return found


def run(*command, cwd, seconds=300, bench):
    """Runs a program on a mount; it must succeed. Gives what it said."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True,
                          timeout=seconds * PATIENCE, stdin=subprocess.DEVNULL,
                          env=bench.environment(HOME=str(bench.dir), GIT_AUTHOR_NAME="A", GIT_AUTHOR_EMAIL="a@example.com",
                                                GIT_COMMITTER_NAME="A", GIT_COMMITTER_EMAIL="a@example.com"))
    check(done.returncode == 0, lambda: f"{' '.join(map(str, command))} ended with {done.returncode}:\n"
                                        f"{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def workplace(bench):
    """Two mounts, and a developer's disk, of one Volume."""
    service, volume = service_and_volume(bench)
    a, b = Mount(bench, volume, "a"), Mount(bench, volume, "b")
    replica = bench.machine("developer", service).attach(volume, guard=[])
    return volume, a, b, replica


def the_same_everywhere(volume, a, b, replica):
    """Both mounts, the Volume and the disk hold the same."""
    here = within(300, everything, a.path)
    check_equal(here, within(300, everything, b.path), "the two mounts")
    synced = {path: what for path, what in here.items() if not set(path.split("/")) & harness.LEFT_OUT}
    replica.flush()
    replica.flush()
    check_equal(synced, replica.tree(), "the mount and the developer's disk")
    there = {path: what for path, what in volume.tree().items() if not set(path.split("/")) & harness.LEFT_OUT}
    check_equal(synced, there, "the mount and the Volume")
    return here


def test_git_works_on_a_mount(bench):
    if not have("git"):
        raise Skip("git")
    volume, a, b, replica = workplace(bench)
    git = a / "project"
    started = time.monotonic()
    run("git", "clone", "--no-hardlinks", "--quiet", f"file://{harness.ROOT}", git, cwd=a.path, bench=bench)
    bench.note(f"clone {time.monotonic() - started:.1f} s")

    def clean(at):
        said = run("git", "status", "--porcelain", cwd=at, bench=bench)
        check(said == "", lambda: f"git status says of a fresh clone:\n{said[:1000]}")

    clean(git)
    run("git", "-c", "gc.autoDetach=false", "gc", "--quiet", "--prune=now", cwd=git, bench=bench)
    run("git", "fsck", "--full", "--strict", "--no-dangling", cwd=git, bench=bench)
    run("git", "checkout", "--quiet", "-b", "work", "HEAD~3", cwd=git, bench=bench)
    clean(git)
    (git / "new file").write_text("new\n")
    run("git", "add", "--all", cwd=git, bench=bench)
    run("git", "commit", "--quiet", "-m", "new", cwd=git, bench=bench)
    # The other mount goes on with it: its status knows the same files by the same index.
    clean(b / "project")
    (b / "project/new file").write_text("newer\n")
    run("git", "commit", "--quiet", "-am", "newer", cwd=b / "project", bench=bench)
    run("git", "stash", "list", cwd=git, bench=bench)
    run("git", "merge", "--quiet", "--no-edit", run("git", "rev-parse", "HEAD@{1}", cwd=b / "project", bench=bench).strip(),
        cwd=git, bench=bench)
    run("git", "fsck", "--full", "--no-dangling", cwd=b / "project", bench=bench)
    clean(git)
    the_same_everywhere(volume, a, b, replica)


def test_an_archive_is_unpacked_as_it_was(bench):
    volume, a, b, replica = workplace(bench)
    chance = random.Random(bench.seed)
    source = bench.dir / "source"
    files = 10_000 if bench.long else 1000
    for number in range(files):
        path = source / f"d{number % 40}/e{number % 7}/file {number}.txt"
        harness.write(path, chance.randbytes(chance.choice([0, 10, 500, chance.randrange(9000)])))
        path.chmod(chance.choice([0o644, 0o600, 0o755, 0o444]))
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
        if number % 50 == 0:
            os.symlink(f"file {number}.txt", path.with_suffix(".link"))
    harness.write(source / "large", chance.randbytes(5_000_000))
    with tarfile.open(bench.dir / "a.tar", "w") as archive:
        archive.add(source, "tree")
    started = time.monotonic()
    run("tar", "xpf", bench.dir / "a.tar", cwd=a.path, bench=bench, seconds=600)
    took = time.monotonic() - started
    bench.note(f"{files} files in {took:.1f} s, {files / took:.0f} a second")
    check_equal(disk_tree(source), within(300, disk_tree, a / "tree"), "what was packed and what was unpacked")
    the_same_everywhere(volume, a, b, replica)
    # Times are what the archive says, in both.
    def times(root):
        return {str(path.relative_to(root)): int(path.stat().st_mtime) for path in root.rglob("*.txt")}
    want = times(source)
    for mount in (a, b):
        got = within(300, times, mount / "tree")
        wrong = [path for path in want if got.get(path) != want[path]]
        check(not wrong, lambda: f"{mount}: {len(wrong)} files have another time, {wrong[:3]}")
    run("rm", "-rf", a / "tree", cwd=a.path, bench=bench, seconds=600)
    check(the_same_everywhere(volume, a, b, replica) == {}, "something is left")


# ---- SQLite ------------------------------------------------------------------------------------------------


def transfers(path, mode, seed, times):
    chance = random.Random(seed)
    base = sqlite3.connect(path, timeout=120, isolation_level=None)
    if mode != "wal":
        base.execute(f"PRAGMA journal_mode={mode}")
    for number in range(times):
        base.execute("BEGIN IMMEDIATE")
        (total,) = base.execute("SELECT sum(balance) FROM account").fetchone()
        check(total == 10_000, lambda: f"in between there is {total}")
        one, other = chance.sample(range(10), 2)
        amount = chance.randrange(100)
        base.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, one))
        base.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, other))
        base.execute("INSERT INTO done VALUES (?, ?, ?)", (seed, number, chance.randbytes(chance.randrange(2000))))
        base.execute("ROLLBACK" if chance.random() < 0.1 else "COMMIT")
    base.close()


def new_base(path, mode):
    base = sqlite3.connect(path)
    said = base.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    check(said == mode, lambda: f"journal_mode is {said}")
    base.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)")
    base.executemany("INSERT INTO account VALUES (?, 1000)", [(i,) for i in range(10)])
    base.execute("CREATE TABLE done (who INTEGER, number INTEGER, data BLOB)")
    base.commit()
    base.close()


def judge(path):
    base = sqlite3.connect(path, timeout=60)
    check(base.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "integrity_check finds something")
    (total,) = base.execute("SELECT sum(balance) FROM account").fetchone()
    check(total == 10_000, lambda: f"at the end there is {total}")
    (rows,) = base.execute("SELECT count(*) FROM done").fetchone()
    base.close()
    return rows


def sqlite(bench, mode, of_both):
    a, b = mounts(bench, "a", "b")
    within(30, new_base, a / "base", mode)
    times = 2000 if bench.long else 40
    homes = (a, b) if of_both else (a, a)
    started = time.monotonic()
    together(3600 if bench.long else 200,
             *((transfers, homes[i % 2] / "base", mode, i, times) for i in range(4)))
    took = time.monotonic() - started
    rows = within(60, judge, a / "base")
    check(within(60, judge, b / "base") == rows, "the other mount has other rows")
    check(rows > 3 * times, f"only {rows} transactions were kept")
    bench.note(f"4 processes, {times} transactions each, {took / times / 4 * 1000:.0f} ms a transaction")


def test_sqlite_with_a_rollback_journal_from_both_mounts(bench):
    sqlite(bench, "delete", of_both=True)


def test_sqlite_with_a_rollback_journal_from_one_mount(bench):
    sqlite(bench, "delete", of_both=False)


def test_sqlite_with_a_log_ahead_from_one_mount(bench):
    sqlite(bench, "wal", of_both=False)


# ---- editors -----------------------------------------------------------------------------------------------


def in_place(path, data):
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate()


def truncate_and_write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def truncate_and_sync(path, data):
    file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(file, data)
    os.fsync(file)
    os.close(file)


def temporary_and_rename(path, data):
    with open(f"{path}.tmp~", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(f"{path}.tmp~", os.stat(path).st_mode & 0o7777)
    os.rename(f"{path}.tmp~", path)


def backup_and_rename(path, data):
    """Vim with `backupcopy=no`: the old file becomes the backup, which goes at the end."""
    mode = os.stat(path).st_mode & 0o7777
    os.rename(path, f"{path}~")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    os.write(file, data)
    os.fsync(file)
    os.fchmod(file, mode)
    os.close(file)
    os.unlink(f"{path}~")


def backup_copy(path, data):
    """Vim with `backupcopy=yes`."""
    shutil.copy2(path, f"{path}~")
    truncate_and_sync(path, data)
    os.unlink(f"{path}~")


def link_and_rename(path, data):
    """Emacs with `backup-by-copying-when-linked`, more or less: the backup is another name of the old file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.old")
    os.link(path, f"{path}.old")
    temporary_and_rename(path, data)


def test_each_way_to_save_comes_across(bench):
    volume, a, b, replica = workplace(bench)
    ways = [in_place, truncate_and_write, truncate_and_sync, temporary_and_rename, backup_and_rename, backup_copy, link_and_rename]
    chance = random.Random(bench.seed)
    for way in ways:
        truncate = a / f"{way.__name__}.txt"
        truncate.write_bytes(b"first\n")
        truncate.chmod(0o640)
    for number in range(60 if bench.long else 6):
        for way in ways:
            data = f"{way.__name__} {number}\n".encode() * chance.choice([1, 10, 4000])
            mount, other = chance.sample([a, b], 2)
            within(60, way, mount / f"{way.__name__}.txt", data)
            got = within(60, (other / f"{way.__name__}.txt").read_bytes)
            check(got == data, lambda: f"{way.__name__} at {mount}: {other} has {len(got)} bytes, not {len(data)}: {got[:60]!r}")
            wait_until(f"the save {way.__name__} is on the developer's disk",
                       lambda: (replica / f"{way.__name__}.txt").exists()
                       and (replica / f"{way.__name__}.txt").read_bytes() == data, 20)
    tree = the_same_everywhere(volume, a, b, replica)
    for way in ways:
        check(tree[f"{way.__name__}.txt"][2] == "0o640", lambda: f"{way.__name__}: the mode is {tree[f'{way.__name__}.txt'][2]}")
    names = {f"{way.__name__}.txt" for way in ways} | {"link_and_rename.txt.old"}
    check(set(tree) == names, lambda: f"there is {sorted(set(tree) - names)} too")


def test_what_the_developer_saves_is_seen_in_the_mounts(bench):
    volume, a, b, replica = workplace(bench)
    for number in range(20):
        harness.write(replica / "dir/file.txt", f"version {number}\n")
        for mount in (a, b):
            def there(path=mount / "dir/file.txt"):
                try:
                    return path.read_text() == f"version {number}\n"
                except FileNotFoundError:
                    return False
            wait_until(f"version {number} is in {mount}", there, 20)
    os.rename(replica / "dir", replica / "moved")
    wait_until("the renamed directory is there", lambda: os.path.exists(a / "moved/file.txt") and not os.path.exists(a / "dir"), 20)
    shutil.rmtree(replica / "moved")
    wait_until("the removed directory is gone", lambda: not os.path.exists(b / "moved"), 20)
    the_same_everywhere(volume, a, b, replica)


# ---- builds ------------------------------------------------------------------------------------------------


def test_npm_installs_into_a_mount(bench):
    if not bench.long:
        raise Skip("the long form")
    if not have("npm"):
        raise Skip("npm")
    volume, a, b, replica = workplace(bench)
    project = a / "web"
    project.mkdir()
    (project / "package.json").write_text('{"name": "web", "version": "1.0.0", "private": true}')
    started = time.monotonic()
    run("npm", "install", "--no-audit", "--no-fund", "express@4", cwd=project, bench=bench, seconds=600)
    bench.note(f"{time.monotonic() - started:.1f} s")
    run("node", "-e", "require('express')()", cwd=project, bench=bench)
    run("node", "-e", "require('express')()", cwd=b / "web", bench=bench)
    run("npm", "ls", cwd=b / "web", bench=bench)
    the_same_everywhere(volume, a, b, replica)


def test_cargo_builds_in_a_mount(bench):
    if not bench.long:
        raise Skip("the long form")
    volume, a, b, replica = workplace(bench)
    crate = a / "crate"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "one"\nversion = "0.1.0"\nedition = "2021"\n\n'
                                      '[dependencies]\nitoa = "1"\n\n[workspace]\n')
    (crate / "src/main.rs").write_text('fn main() { print!("{}", itoa::Buffer::new().format(42)); }\n')
    cargo = {"CARGO_HOME": os.environ.get("CARGO_HOME", str(pathlib.Path.home() / ".cargo")),
             "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(pathlib.Path.home() / ".rustup"))}
    bench.everywhere.update(cargo)
    started = time.monotonic()
    environment_target = ["--target-dir", crate / "target"]
    run("cargo", "build", "--quiet", *environment_target, cwd=crate, bench=bench, seconds=600)
    bench.note(f"{time.monotonic() - started:.1f} s")
    check(run(crate / "target/debug/one", cwd=crate, bench=bench) == "42", "it does not say 42")
    check(run(b / "crate/target/debug/one", cwd=b.path, bench=bench) == "42", "it does not say 42 in the other mount")
    # Nothing is stale for Cargo, there and here.
    (b / "crate/src/main.rs").write_text('fn main() { print!("{}", itoa::Buffer::new().format(43)); }\n')
    run("cargo", "build", "--quiet", *environment_target, cwd=crate, bench=bench, seconds=600)
    check(run(crate / "target/debug/one", cwd=crate, bench=bench) == "43", "it was not built again")
    said = run("cargo", "build", "--message-format=json", *environment_target, cwd=crate, bench=bench, seconds=600)
    check('"fresh":false' not in said, "it is built though nothing changed")
    the_same_everywhere(volume, a, b, replica)
