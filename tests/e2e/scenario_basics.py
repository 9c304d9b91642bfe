"""The daily life of one workspace, one Volume and one agent."""
import os
import subprocess
import threading
import time

from harness import (check, check_all_equal, check_equal, check_no_conflicts, disk_tree, is_running, settle,
                     wait_until, write)


def pair(bench, **attach):
    """A user's workspace and an agent's sandbox on one Volume."""
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume, **attach)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    return volume, user, agent


def test_edits_and_agent_writes_cross_in_both_directions(bench):
    volume, user, agent = pair(bench)
    write(user / "src/main.py", "print('hello')\n")
    wait_until("the agent has the user's file",
               lambda: (agent / "src/main.py").exists()
               and (agent / "src/main.py").read_text() == "print('hello')\n", 10)
    write(agent / "src/main.py", "print('hello, world')\n")
    write(agent / "docs/notes.md", "# Notes\n")
    wait_until("the user has the agent's writes",
               lambda: (user / "docs/notes.md").exists()
               and (user / "src/main.py").read_text() == "print('hello, world')\n", 10)
    volume.write("from/the/api.txt", "no replica wrote this\n")
    for replica in (user, agent):
        wait_until(f"{replica} has what came through the API", (replica / "from/the/api.txt").exists, 10)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    sources = {(entry["path"], entry["source"]) for entry in volume.changes()}
    check(("/src/main.py", "replica") in sources and ("/src/main.py", "sandbox") in sources,
          f"the journal does not tell user from agent: {sorted(sources)}")


def test_deletes_renames_modes_and_links_cross(bench):
    volume, user, agent = pair(bench)
    for number in range(30):
        write(user / f"tree/{number % 3}/file{number}.txt", f"{number}\n")
    write(user / "tool.sh", "#!/bin/sh\necho hi\n")
    os.symlink("tree/0/file0.txt", user / "link")
    (user / "empty").mkdir()
    settle(user, agent)
    check_all_equal(volume, user, agent)

    os.chmod(user / "tool.sh", 0o755)
    os.rename(user / "tree/0", user / "tree/zero")
    os.rename(user / "tree/1/file1.txt", user / "moved.txt")
    for name in os.listdir(user / "tree/2"):
        os.unlink(user / "tree/2" / name)
    os.rmdir(user / "tree/2")
    os.unlink(user / "link")
    os.symlink("moved.txt", user / "link")
    settle(user, agent)
    there = check_all_equal(volume, user, agent)
    check(there["tool.sh"][2] == "0o755", f"the mode did not cross: {there['tool.sh']}")
    check(there["link"] == ("link", "moved.txt"), f"the link did not cross: {there['link']}")
    check("tree/2" not in there and "tree/0" not in there, "what was removed or renamed is still there")

    # A file becomes a directory, and the other way round.
    os.unlink(agent / "moved.txt")
    write(agent / "moved.txt/inside.txt", "now a directory\n")
    for name in os.listdir(agent / "tree/1"):
        os.unlink(agent / "tree/1" / name)
    os.rmdir(agent / "tree/1")
    write(agent / "tree/1", "now a file\n")
    settle(agent, user)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_odd_names_cross(bench):
    volume, user, agent = pair(bench)
    for name in ("C:x", "c:", "a\\b", "CON", " ", "...", "-rf", "new\nline", "\u00e9", "e\u0301", "\U0001f600", "x" * 255):
        write(user / name, f"{name}\n")
        write(user / "below" / name, f"{name} below\n")
    settle(user, agent)
    os.rename(agent / "below/C:x", agent / "D:y")
    settle(agent, user)
    check("D:y" in check_all_equal(volume, user, agent), "the rename did not cross")
    check_no_conflicts(volume, user, agent)


def test_what_no_volume_can_hold_stops_nothing_else(bench):
    volume, user, agent = pair(bench)
    deep = os.open(user.root, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=deep)
        deep, above = os.open("d" * 200, os.O_RDONLY, dir_fd=deep), deep
        os.close(above)
    os.close(deep)
    write(user / "plain.txt", "plain\n")
    wait_until("the file beside it crosses", lambda: (agent / "plain.txt").exists(), 20)
    check(user.status()["problems"], "nobody is told of the path that is too long")


def test_only_what_stays_forgotten_is_forgotten(bench):
    volume, user, _ = pair(bench)
    subprocess.run(["git", "init", "-q", user.root], check=True, env=bench.environment())
    for name in ("kept.txt", "tracked.log", "logs/a.log", "logs/b.txt", "both.log"):
        write(user / name, "first\n")
    subprocess.run(["git", "add", "tracked.log"], cwd=user.root, check=True, env=bench.environment())
    settle(user)
    write(user / ".gitignore", "*.log\n")

    def refused(*paths):
        done = user.sync("forget", *paths, ok=False)
        check(done.returncode == 1, f"{paths} were forgotten")
        return done.stderr.decode()

    check(".s0ignore" in refused("kept.txt"), refused("kept.txt"))
    check("logs" in refused("logs") and ".s0ignore" in refused("logs"), refused("logs"))
    check("git rm --cached" in refused("tracked.log"), refused("tracked.log"))
    check("not synced" in refused("nothing.log"), refused("nothing.log"))
    check("detach" in refused("."), refused("."))
    # One that cannot be forgotten keeps the others.
    check("kept.txt" in refused("logs/a.log", "kept.txt"), refused("logs/a.log", "kept.txt"))
    write(user / "logs/a.log", "second\n")
    settle(user)
    check(volume.read("logs/a.log") == b"second\n", "it was forgotten with one that could not be")

    conflict(user, volume, "both.log", "mine\n", "theirs\n")
    check("in conflict" in refused("both.log"), refused("both.log"))
    user.mark("both.log")
    settle(user)
    # What is on its way would be agreed on again by the answer.
    with volume.service.frozen():
        write(user / "logs/a.log", "third\n")
        wait_until("it is on its way", lambda: user.status()["pending"]["uploads"] > 0, 20)
        check("on its way" in refused("logs/a.log"), refused("logs/a.log"))
    settle(user)
    check(user.json("forget", "logs/a.log", "both.log") == {"forgotten": 2}, "they cannot be forgotten")
    write(user / "both.log", "mine alone\n")
    settle(user)
    check(volume.read("both.log") == b"mine\n", "a forgotten file was uploaded")


def test_a_volume_comes_down_and_deletes_nothing(bench):
    service = bench.service()
    volume = service.create_volume()
    volume.write("same.txt", "equal\n")
    volume.write("other.txt", "the Volume's\n")
    volume.write("dir/new.txt", "only in the Volume\n")
    machine = bench.machine("second", service)
    root = machine.dir / "workspace"
    write(root / "same.txt", "equal\n")
    write(root / "other.txt", "the user's\n")
    write(root / "unknown.txt", "only on disk\n")
    replica = machine.attach(volume, root, init_from="volume")
    wait_until("the Volume's file is on disk", (root / "dir/new.txt").exists, 20)
    wait_until("the differing file is a conflict", lambda: "other.txt" in replica.conflicts(), 20)
    check((root / "other.txt").read_text() == "the user's\n", "the local file was overwritten")
    check(replica.side("other.txt", "theirs") == b"the Volume's\n", "the Volume's side is not shown")
    check(replica.side("other.txt", "mine") == b"the user's\n", "the local side is not shown")
    check((root / "unknown.txt").read_text() == "only on disk\n", "an unknown file went")
    check(volume.read("unknown.txt") is None, "an unknown file was uploaded without being asked for")
    check("unknown.txt" in str(replica.status()["withheld"]), "status does not say what waits")
    replica.sync("include", "unknown.txt")
    replica.mark("other.txt")
    wait_until("what was included is in the Volume", lambda: volume.read("unknown.txt") is not None, 20)
    wait_until("what was marked is in the Volume", lambda: volume.read("other.txt") == b"the user's\n", 20)
    settle(replica)
    check_all_equal(volume, replica)


def test_each_way_out_of_a_conflict_does_what_it_says(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    names = {name: f"{name}.txt" for name in ("mine", "theirs", "both", "mark", "ignore")}
    for file in names.values():
        write(user / file, "base\n")
    settle(user)
    user.stop()
    for file in names.values():
        write(user / file, f"mine {file}\n")
        volume.write(file, f"theirs {file}\n")
    user.start()
    wait_until("all are conflicts", lambda: set(names.values()) <= set(user.conflicts()), 30)
    for file in names.values():
        check(user.side(file, "base") == b"base\n", f"the base of {file} is not shown")
        check((user / file).read_text() == f"mine {file}\n", f"{file} was touched")
    flags = {"mine": "keep-mine", "theirs": "take-theirs", "both": "keep-both"}
    for how in flags:
        user.sync("conflicts", "resolve", names[how], f"--{flags[how]}")
    user.mark(names["mark"])
    user.sync("conflicts", "mark", "--ignore", names["ignore"])
    wait_until("none is open", lambda: not user.conflicts(), 20)
    user.flush()
    check(volume.read("mine.txt") == b"mine mine.txt\n", "mine was not kept")
    check((user / "theirs.txt").read_text() == "theirs theirs.txt\n", "theirs was not taken")
    check(volume.read("mark.txt") == b"mine mark.txt\n", "the marked file did not go up")
    check(volume.read("ignore.txt") == b"theirs ignore.txt\n", "ignoring changed the Volume")
    check((user / "ignore.txt").read_text() == "mine ignore.txt\n", "ignoring changed the file")
    both = [path.read_bytes() for path in user.root.iterdir() if path.name.startswith("both")]
    check(sorted(both) == [b"mine both.txt\n", b"theirs both.txt\n"], f"not both are there: {both}")


def text(**lines):
    """A text of 20 lines, some of them others."""
    return "".join(lines.get(f"line{number}", f"line {number}") + "\n" for number in range(20))


def conflict(user, volume, file, mine, theirs):
    """Both sides change a file that both have, unseen."""
    user.stop()
    write(user / file, mine)
    volume.write(file, theirs)
    user.start()
    wait_until(f"{file} is a conflict", lambda: file in user.conflicts(), 30)


def test_a_merge_has_what_each_side_changed(bench):
    volume, user, agent = pair(bench)
    write(user / "notes.txt", text())
    settle(user, agent)
    conflict(user, volume, "notes.txt", text(line2="mine"), text(line17="theirs"))
    os.chmod(user / "notes.txt", 0o755)
    # What is edited after the conflict was recorded is stored nowhere else, and is merged too.
    write(user / "notes.txt", text(line2="mine", line9="mine, later"))
    said = user.json("conflicts", "resolve", "notes.txt", "--merge")
    check(said["paths"] == [{"path": "notes.txt"}], f"it is not settled: {said}")
    merged = text(line2="mine", line9="mine, later", line17="theirs")
    check((user / "notes.txt").read_text() == merged, (user / "notes.txt").read_text())
    wait_until("the merge is in the Volume", lambda: volume.read("notes.txt") == merged.encode(), 20)
    settle(user, agent)
    there = check_all_equal(volume, user, agent)
    check(there["notes.txt"][2] == "0o755", "the merge has another mode than the file had")
    check_no_conflicts(volume, user, agent)
    ended = {found["path"]: found["metadata"].get("resolution") for found in volume.conflicts("resolved")}
    check(ended == {"/notes.txt": "merged"}, f"the service does not know how it ended: {ended}")
    check(not os.listdir(user / ".s0/staging"), "something is left in the staging directory")


def test_a_merge_with_overlaps_waits_for_the_user(bench):
    volume, user, agent = pair(bench)
    write(user / "notes.txt", text())
    write(user / "other.txt", "other\n")
    settle(user, agent)
    conflict(user, volume, "notes.txt", text(line2="mine", line9="my nine"), text(line9="their nine", line17="theirs"))
    done = user.sync("conflicts", "resolve", "--all", "--merge", ok=False)
    said = done.stdout.decode()
    check(done.returncode == 3 and "s0 sync conflicts mark notes.txt" in said, f"{done.returncode}: {said}")
    marked = (user / "notes.txt").read_text()
    overlap = "<<<<<<< mine\nmy nine\n||||||| base\nline 9\n=======\ntheir nine\n>>>>>>> theirs"
    check(marked == text(line2="mine", line9=overlap, line17="theirs"), marked)
    # It is not merged once more, and nothing with marks in it is spread.
    again = user.json("conflicts", "resolve", "--all", "--merge", ok=False)
    check("conflicts mark" in again["paths"][0]["error"], str(again))
    write(user / "other.txt", "waits\n")
    done = user.json("flush", ok=False)
    check(not done["done"] and "notes.txt" in user.conflicts(), f"nothing waits: {done}")
    check((user / "notes.txt").read_text() == marked, "the marked file was touched")
    check(volume.read("notes.txt") == text(line9="their nine", line17="theirs").encode(), "marks were spread")
    check(volume.read("other.txt") == b"other\n", "uploads do not wait")
    write(user / "notes.txt", text(line2="mine", line9="our nine", line17="theirs"))
    user.mark("notes.txt")
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check((agent / "notes.txt").read_text() == text(line2="mine", line9="our nine", line17="theirs"), "not marked")
    check_no_conflicts(volume, user, agent)

    # Both made a file of this name: there is no base, and all that differs is marked.
    conflict(user, volume, "new.txt", "title\nmine\n", "title\ntheirs\n")
    done = user.sync("conflicts", "resolve", "new.txt", "--merge", ok=False)
    check(done.returncode == 3, f"two texts without a base were merged: {done.stdout}")
    check((user / "new.txt").read_text() ==
          "title\n<<<<<<< mine\nmine\n||||||| base\n=======\ntheirs\n>>>>>>> theirs\n",
          (user / "new.txt").read_text())


def test_what_cannot_be_merged_stays_as_it_is(bench):
    volume, user, agent = pair(bench)
    both = {"picture.bin": (b"\x00base", b"\x00mine\xff", b"\x00theirs\xff"),
            "gone.txt": (b"base\n", b"mine\n", None),
            "large.txt": (b"base\n", b"mine\n" * 2_000_000, b"theirs\n")}
    for file, (base, _, _) in both.items():
        write(user / file, base)
    settle(user, agent)
    user.stop()
    for file, (_, mine, theirs) in both.items():
        write(user / file, mine)
        volume.remove(file) if theirs is None else volume.write(file, theirs)
    user.start()
    wait_until("all are conflicts", lambda: set(both) == set(user.conflicts()), 30)
    said = user.json("conflicts", "resolve", "--all", "--merge", ok=False)
    errors = {path["path"]: path["error"] for path in said["paths"]}
    wanted = {"picture.bin": "not text", "gone.txt": "nothing to merge", "large.txt": "8 MiB"}
    for file, why in wanted.items():
        check(why in errors[file] and "theirs" in errors[file], f"{file}: {errors[file]}")
        check((user / file).read_bytes() == both[file][1], f"{file} was touched")
    check(set(user.conflicts()) == set(both), "a conflict ended")


def test_edits_go_on_while_files_are_merged(bench):
    """A program that saves again and again, in both ways of saving, beside merges: no save of it is lost
    that it did not replace itself."""
    volume, user, agent = pair(bench)
    for number in range(30):
        write(user / f"f{number}.txt", text())
    settle(user, agent)
    user.stop()
    for number in range(30):
        write(user / f"f{number}.txt", text(line2="mine"))
        volume.write(f"f{number}.txt", text(line17="theirs"))
    user.start()
    wait_until("all are conflicts", lambda: len(user.conflicts()) == 30, 30)
    codes = []

    def merge():
        while open := list(user.conflicts()):
            codes.append(user.sync("conflicts", "resolve", bench.random.choice(open), "--merge", ok=False).returncode)

    last, turn = {}, 0
    merging = threading.Thread(target=merge, daemon=True)
    merging.start()
    while merging.is_alive() and turn < 20_000:
        turn += 1
        path = user / f"f{bench.random.randrange(30)}.txt"
        found = path.read_text().splitlines()
        found[9] = f"saved {turn}"
        saved = "".join(line + "\n" for line in found)
        if turn % 2:
            write(path, saved)
        else:
            write(path.with_name("save.tmp"), saved)
            os.replace(path.with_name("save.tmp"), path)
        last[path.name] = found[9]
        # Programs think, too; a file that never rests is never merged.
        time.sleep(bench.random.random() / 1000)
    merging.join(60)
    check(not user.conflicts(), "conflicts do not end")
    settle(user, agent)
    there = check_all_equal(volume, user, agent)
    # A save that came while its file was changing places is beside it.
    kept = [path.read_text().splitlines() for path in user.root.iterdir() if "s0-kept" in path.name]
    bench.note(f"{turn} saves, {len(codes)} merges, {len(codes) - codes.count(0)} in vain, {len(kept)} kept beside")
    for name, line in last.items():
        found = (user / name).read_text().splitlines()
        check(line in found or any(line in other for other in kept), f"{name} lost {line!r}: {found}")
    check(len(there) >= 30, "files are gone")


def test_a_flush_names_what_is_in_the_way(bench):
    volume, user, agent = pair(bench)
    write(user / "dir/open.txt", "first\n")
    settle(user, agent)
    with open(user / "dir/open.txt", "a"):
        volume.write("dir/open.txt", "from the Volume\n")
        volume.write("dir/other.txt", "not in the way\n")
        said = user.json("flush", "--timeout", "2", ok=False)
        paths = [it["path"] for it in said["unfinished"]]
        check(not said["done"] and paths == ["dir/open.txt"], f"{said}")
    settle(user, agent)
    check_all_equal(volume, user, agent)


def test_a_host_stops_starts_and_detaches_cleanly(bench):
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    replica = machine.attach(volume)
    write(replica / "one.txt", "1\n")
    settle(replica)
    pid = replica.pid
    check(is_running(pid), "status names a process that does not run")
    listed = machine.run("sync", "list").stdout.decode()
    check(str(replica.root) in listed and volume.id in listed, f"list does not show it: {listed}")
    replica.stop()
    write(replica / "two.txt", "2\n")
    with service.frozen():
        # Nobody answers, so that there is something to wait for.
        replica.sync("start", "--no-wait", timeout=20)
        check(replica.status()["condition"] != "in_sync", "it is in sync without a service")
    check(replica.pid != pid, "the same process again")
    wait_until("what was written meanwhile is in the Volume", lambda: volume.read("two.txt") == b"2\n", 20)
    logs = replica.sync("logs").stdout.decode()
    check(logs.strip(), "the log is empty")
    pid = replica.pid
    replica.sync("detach")
    wait_until("the host is gone", lambda: not is_running(pid), 20)
    check((replica / "two.txt").exists(), "detaching removed files")
    check(volume.read("two.txt") == b"2\n", "detaching removed files of the Volume")
    check(str(replica.root) not in machine.run("sync", "list").stdout.decode(), "it is still listed")


def test_a_directory_that_is_attached_again_is_another_replica(bench):
    """Neither the machine's name nor the path says who a replica is: both can be those of another one."""
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    first = machine.attach(volume)
    write(first / "one.txt", "1\n")
    settle(first)
    id = first.status()["replica_id"]
    first.sync("detach")
    again = machine.attach(volume)
    settle(again)
    check(again.status()["replica_id"] != id, "it is taken for the one before, whose entries would be its own echoes")
    volume.write("one.txt", "the agent's\n")
    settle(again)
    check_all_equal(volume, again)


def test_an_emptied_or_missing_root_halts_and_deletes_nothing(bench):
    volume, user, agent = pair(bench)
    for number in range(300):
        write(user / f"d{number % 7}/f{number}.txt", f"{number}\n" * 3)
    settle(user, agent)
    before = volume.tree()
    # The whole directory moves away, as an unmounted disk does.
    away = user.root.with_name("away")
    os.rename(user.root, away)
    wait_until("the host halts", lambda: user.machine.json(
        "sync", "status", "-C", user.root, ok=False).get("condition") == "halted", 30)
    check_equal(before, volume.tree(), "the Volume before and after")
    os.rename(away, user.root)
    user.sync("resume", ok=False)
    settle(user, agent)
    check_all_equal(volume, user, agent)

    # Most files vanish at once.
    kept = disk_tree(user.root)
    aside = user.machine.dir / "aside"
    aside.mkdir()
    with user.frozen():
        for name in [f"d{number}" for number in range(6)]:
            os.rename(user / name, aside / name)
    wait_until("the host halts", lambda: user.status()["condition"] == "halted", 30)
    check_equal(before, volume.tree(), "the Volume before and after")
    check_equal(before, agent.tree(), "the agent's disk before and after")
    for name in [f"d{number}" for number in range(6)]:
        os.rename(aside / name, user / name)
    user.sync("resume", ok=False)
    settle(user, agent)
    check_equal(kept, disk_tree(user.root), "the workspace before and after")
    check_all_equal(volume, user, agent)


def test_snapshots_restore_and_fork_reach_every_replica(bench):
    volume, user, agent = pair(bench)
    for number in range(40):
        write(user / f"src/f{number}.txt", f"before {number}\n")
    settle(user, agent)
    before = volume.tree()
    snapshot = user.machine.json("volume", "snapshot", "create", volume.id, "--name", "before-agent")
    for number in range(0, 40, 2):
        write(agent / f"src/f{number}.txt", f"agent {number}\n")
    os.unlink(agent / "src/f1.txt")
    write(agent / "src/extra.txt", "new\n")
    settle(agent, user)
    fork = user.machine.json("volume", "fork", volume.id)
    user.machine.run("volume", "snapshot", "restore", volume.id, snapshot["id"])
    settle(user, agent)
    check_equal(before, check_all_equal(volume, user, agent), "the snapshot and the Volume after the restore")
    check_no_conflicts(volume, user, agent)
    forked = type(volume)(volume.service, fork["id"])
    check(forked.read("src/f0.txt") == b"agent 0\n", "the fork does not hold what the Volume held")
    forked.write("src/f3.txt", "in the fork\n")
    check(volume.read("src/f3.txt") == b"before 3\n", "a write to the fork reached its source")


def test_the_file_commands_do_what_they_say(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    id = machine.run("volume", "create").stdout.decode().strip()
    files = ("volume", "files")
    machine.run(*files, "write", id, "notes/a.txt", input=b"from standard input\n")
    check(machine.run(*files, "cat", id, "notes/a.txt").stdout == b"from standard input\n", "cat gives other bytes")
    machine.run(*files, "mkdir", id, "made/below", "--parents")
    machine.run(*files, "mv", id, "notes/a.txt", "made/below/b.txt")
    check(machine.run(*files, "cat", id, "notes/a.txt", ok=False).returncode != 0, "what was moved is still there")
    tree = machine.dir / "tree"
    for number in range(30):
        write(tree / f"d{number % 3}/f{number}.bin", bench.random.randbytes(5000 * number))
    os.chmod(tree / "d0/f0.bin", 0o755)
    machine.run(*files, "upload", id, tree, "up")
    machine.run(*files, "download", id, "up", machine.dir / "down")
    found, wanted = disk_tree(machine.dir / "down"), disk_tree(tree)
    check_equal({path: what[:2] for path, what in wanted.items()},
                {path: what[:2] for path, what in found.items()}, "what went up and what came down")
    listed = machine.json(*files, "ls", id, "up/d1")
    names = {entry["name"] for entry in (listed["entries"] if isinstance(listed, dict) else listed)}
    check(names == {f"f{number}.bin" for number in range(1, 30, 3)}, f"ls lists {sorted(names)}")
    check(machine.json(*files, "stat", id, "up/d1/f1.bin")["size"] == 5000, "stat gives another size")
    machine.run(*files, "rm", id, "up")
    check(machine.run(*files, "stat", id, "up", ok=False).returncode != 0, "what was removed is still there")
    check(id in machine.run("volume", "list").stdout.decode(), "list does not show the Volume")
    machine.run("volume", "delete", id)
    check(id not in machine.run("volume", "list").stdout.decode(), "the deleted Volume is still listed")


def test_an_idle_workspace_costs_nothing(bench):
    from harness import cpu_seconds
    volume, user, _ = pair(bench)
    for number in range(2000):
        write(user / f"d{number % 50}/f{number}.txt", f"{number}\n")
    user.flush()
    wait_until("in sync", lambda: user.status()["condition"] == "in_sync", 30)
    pid, head = user.pid, volume.head()
    before = cpu_seconds(pid)
    # Ten seconds of nothing are the subject here, not a wait for something.
    time.sleep(10)
    used = cpu_seconds(pid) - before
    bench.note(f"{used:.2f} s of processor time in 10 s")
    check(used < 0.3, f"an idle host used {used:.2f} s of processor time in 10 s")
    check(volume.head() == head, "the journal grew while nobody did anything")
