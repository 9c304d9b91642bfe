"""A real project: thousands of files that people wrote, under Git."""
import atexit
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time

from harness import (ROOT, check, check_all_equal, check_equal, check_no_conflicts, differences, disk_tree,
                     files_of, settle, wait_until, write)

FILES = 5000
TEMPLATE = []


def git(root, *arguments, input=None):
    done = subprocess.run(
        ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.autocrlf=false",
         "-c", "gc.auto=0", "-c", "advice.detachedHead=false", *arguments],
        cwd=root, input=input, capture_output=True, stdin=None if input is not None else subprocess.DEVNULL)
    check(done.returncode == 0, lambda: f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def crates():
    """The crates that this workspace depends on, as Cargo has them: (name, packed file, unpacked folder)."""
    compiler = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (\S+)$", compiler, re.MULTILINE).group(1)
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    for more in (["--offline"], []):
        done = subprocess.run(command + more, cwd=ROOT, capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            break
    check(done.returncode == 0, lambda: f"cargo metadata: {done.stderr.decode()}")
    for package in sorted(json.loads(done.stdout)["packages"], key=lambda package: package["id"]):
        if not (package["source"] or "").startswith(("registry+", "sparse+")):
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        packed = (folder.parents[2] / "cache" / folder.parent.name / f"{folder.name}.crate")
        yield folder.name, packed, folder


def make_project(root):
    """Unpacks crates into `root` until it has enough files, and makes it a Git repository."""
    count = 0
    for name, packed, folder in crates():
        if packed.exists():
            with tarfile.open(packed) as archive:
                archive.extractall(root, filter="data")
        else:
            shutil.copytree(folder, root / name, symlinks=True)
        count += sum(len(files) for _, _, files in os.walk(root / name))
        if count >= FILES * 11 // 10:
            break
    check(count >= FILES, f"Cargo has only {count} files in its registry; {FILES} are needed")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "as published")
    tracked = listed(root)
    check(len(tracked) >= FILES, f"only {len(tracked)} files are not ignored; {FILES} are needed")
    return tracked


def copy_of_project(root):
    """The project, unpacked once and copied for each test."""
    if not TEMPLATE:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="s0-project-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / "project").mkdir()
        TEMPLATE.append((folder / "project", make_project(folder / "project")))
    template, tracked = TEMPLATE[0]
    subprocess.run(["cp", "-a", f"{template}/.", str(root)], check=True)
    return tracked


def listed(root):
    """The files that Git does not ignore: they, and no others, are to be synced."""
    names = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    return sorted({name.decode() for name in names if name and os.path.lexists(root / name.decode())})


def plain_files(root, tracked):
    """The files whose change is nothing but one: no links, nothing that decides about ignoring, and nothing that
    begins with a dot, as the paths do that wait for the user when a sandbox writes them."""
    return [name for name in tracked if not name.endswith(("ignore", "attributes"))
            and not any(part.startswith(".") for part in name.split("/")) and not (root / name).is_symlink()]


def change_a_thousand(bench, root, tracked):
    """A second commit, which differs from the first in exactly 1,000 paths."""
    chosen = bench.random.sample(plain_files(root, tracked), 775)
    for name in chosen[:500]:
        with open(root / name, "ab") as file:
            file.write(b"// changed in the second commit\n")
    for name in chosen[500:550]:
        path = root / name
        path.chmod(path.stat().st_mode ^ 0o111)
    for name in chosen[550:750]:
        (root / name).unlink()
    for number, name in enumerate(chosen[750:775]):
        (root / name).rename((root / name).with_name(f"renamed_{number}.rs"))
    for number in range(200):
        write(root / f"second_commit/{number % 9}/new_{number}.rs", f"pub const N: u32 = {number};\n" * 9)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "the second")
    changed = git(root, "diff", "--no-renames", "--name-only", "-z", "main~1", "main").split(b"\0")
    changed = {name.decode() for name in changed if name}
    check(len(changed) == 1000, f"the commits differ in {len(changed)} paths")
    return changed


def start(bench, pause=None):
    """The project on a laptop, bootstrapped by a second machine and by an agent's sandbox."""
    service = bench.service()
    volume = service.create_volume()
    laptop, second, sandbox = (bench.machine(name, service) for name in ("laptop", "second", "sandbox"))
    root = laptop.dir / "project"
    root.mkdir()
    tracked = copy_of_project(root)
    started = time.monotonic()
    user = laptop.attach(volume, root)
    user.flush(300)
    seeded = time.monotonic()
    other = second.attach(volume, init_from="volume")
    other.flush(300)
    bench.note(f"{len(tracked)} files: seed {seeded - started:.1f} s, "
               f"bootstrap {time.monotonic() - seeded:.1f} s")
    agent = sandbox.attach(volume, init_from="volume", sandbox="sb_agent", pause=pause)
    agent.flush(300)
    return volume, user, other, agent, tracked


def check_user_equal(volume, user, *others):
    """The user's disk has ignored files too; Git says which, and all others must be everywhere."""
    there = check_all_equal(volume, *others)
    check_equal(files_of(there), disk_tree(user.root, listed(user.root)), "the Volume and the user's disk")
    user.verify()


def test_git_checkouts_and_an_agent_at_work_end_equal(bench):
    volume, user, other, agent, tracked = start(bench)
    check_user_equal(volume, user, other, agent)

    changed = change_a_thousand(bench, user.root, tracked)
    settle(user, other, agent)
    check_user_equal(volume, user, other, agent)

    untouched = [name for name in plain_files(user.root, tracked) if name not in changed]
    edited = bench.random.sample(untouched, 250)
    made = [f"agent_output/{number % 12}/note_{number}.rs" for number in range(250)]
    failure = []

    def work():
        try:
            for number, name in enumerate(edited + made):
                write(agent / name, f"// the agent's version of {name}\n" * (1 + number % 40))
                time.sleep(0.01)
        except OSError as error:
            failure.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    checkouts = 0
    while worker.is_alive() or checkouts < 4 or checkouts % 2:
        git(user.root, "checkout", "-q", "main~1" if checkouts % 2 == 0 else "main")
        checkouts += 1
    worker.join()
    check(not failure, f"the agent could not write: {failure}")
    started = time.monotonic()
    settle(user, agent, other)
    bench.note(f"{checkouts} checkouts of 1000 paths beside 500 agent writes, "
               f"then settled in {time.monotonic() - started:.1f} s")
    check_user_equal(volume, user, other, agent)
    check_no_conflicts(volume, user, other, agent)
    for name in edited + made:
        check((user / name).read_text().startswith(f"// the agent's version of {name}\n"),
              f"the agent's {name} did not reach the user")
    # To Git, only the agent's work is a change.
    state = git(user.root, "status", "--porcelain", "-z", "-uall").split(b"\0")
    seen = {line[3:].decode() for line in state if line}
    check(seen == set(edited + made), lambda: f"git sees others: {sorted(seen ^ set(edited + made))[:9]}")


def test_twenty_files_edited_on_both_sides_are_twenty_conflicts(bench):
    # Whichever side comes second has the conflict; so both are to wait for their people.
    volume, user, other, agent, tracked = start(bench, pause="workspace")
    plain = [name for name in plain_files(user.root, tracked) if name.endswith((".rs", ".md", ".toml"))]
    chosen = bench.random.sample(plain, 120)
    both, waiting = chosen[:20], chosen[20:]

    # Nobody sees the other's edits before all are made, while the service stands still.
    started = time.monotonic()
    with volume.service.frozen():
        for name in both:
            write(user / name, f"the user's {name}\n")
            write(agent / name, f"the agent's {name}\n")
        bench.note(f"40 edits in {time.monotonic() - started:.2f} s")

    def recorded():
        return {str(side): side.conflicts() for side in (user, agent)}

    wait_until("20 conflicts", lambda: sum(map(len, recorded().values())) >= 20, 30, every=0.2)
    for side in (user, agent):
        side.json("flush", ok=False)  # Nothing more is on its way.
    found = recorded()
    check(sum(map(len, found.values())) == 20, f"not 20 conflicts: { {k: sorted(v) for k, v in found.items()} }")
    check(set(found["laptop"]) | set(found["sandbox"]) == set(both), "they are of other files")
    check(not other.conflicts(), "the third machine, which edited nothing, has conflicts")
    contents = 0
    for mine, theirs in ((user, "agent"), (agent, "user")):
        own = "user" if mine is user else "agent"
        for name in found[str(mine)]:
            check(mine.side(name, "mine") == f"the {own}'s {name}\n".encode(), f"{mine}: wrong side of {name}")
            check(mine.side(name, "theirs") == f"the {theirs}'s {name}\n".encode(),
                  f"{mine}: wrong other side of {name}")
            check((mine / name).read_text() == f"the {own}'s {name}\n", f"{mine}: {name} was touched")
            contents += 2
    check(contents == 40, f"{contents} contents instead of 40")

    side = user if found["laptop"] else agent
    rest = agent if side is user else user
    for name in waiting:
        write(side / name, f"later edit of {name}\n")
    wait_until("100 edits wait", lambda: side.status()["pending"]["uploads"] >= 100, 30)
    check(side.status()["condition"] == "blocked", f"it is {side.status()['condition']}, not blocked")

    def arrived():
        return [name for name in waiting if volume.read(name) == f"later edit of {name}\n".encode()]

    for name in list(found[str(rest)]):
        rest.mark(name)
    marks = sorted(found[str(side)])
    for name in marks[:-1]:
        side.mark(name)
    check(not arrived(), "edits went up while a conflict was open")
    check(side.status()["condition"] == "blocked", "it is no longer blocked while a conflict is open")
    side.mark(marks[-1])
    wait_until("the queue drains by itself", lambda: len(arrived()) == 100, 30, every=0.1)
    settle(user, other, agent)
    check_user_equal(volume, user, other, agent)
    check_no_conflicts(volume, user, other, agent)
    for name in both:
        keeper = "user" if name in found["laptop"] else "agent"
        check(volume.read(name) == f"the {keeper}'s {name}\n".encode(), f"{name} is not what was marked")


def test_a_lost_state_directory_is_learned_again(bench):
    volume, user, other, agent, tracked = start(bench)
    other.stop()
    write(other / "offline.txt", "written while nothing ran\n")
    with open(other / tracked[0], "ab") as file:
        file.write(b"edited while nothing ran\n")
    shutil.rmtree(other.machine.state)
    again = other.machine.attach(volume, other.root)
    wait_until("the edited file is uploaded or a conflict",
               lambda: tracked[0] in again.conflicts()
               or (volume.read(tracked[0]) or b"").endswith(b"edited while nothing ran\n"), 60)
    check((other / tracked[0]).read_bytes().endswith(b"edited while nothing ran\n"), "the edit is lost")
    check((other / "offline.txt").exists(), "a new file is lost")
    for path in list(again.conflicts()):
        again.mark(path)
    settle(again, user, agent)
    found = differences(files_of(volume.tree()), files_of(disk_tree(other.root)))
    check(not [line for line in found if "offline.txt" not in line], lambda: "\n".join(found))
