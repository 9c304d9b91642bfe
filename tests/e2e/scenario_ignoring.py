"""What stays on its machine: ignore rules of every kind, and forgetting what they match."""
import os
import threading

from harness import check, check_all_equal, check_no_conflicts, files_of, settle, wait_until, write
from scenario_basics import pair


def test_ignored_files_stay_where_they_are(bench):
    volume, user, agent = pair(bench)
    write(user / ".gitignore", "*.log\n/build/\n")
    write(user / "app/.gitignore", "secret.env\n")
    write(user / ".s0ignore", "scratch/\n")
    settle(user, agent)
    for name in ("debug.log", "build/out.o", "app/secret.env", "scratch/a.txt", ".git/config"):
        write(user / name, "mine alone\n")
    for name in ("app/build/kept.txt", "secret.env", "kept.txt"):
        write(user / name, "for everyone\n")
    settle(user, agent)
    there = volume.tree()
    for name in ("app/build/kept.txt", "secret.env", "kept.txt"):
        check(name in there, f"{name} is not ignored by any rule, and did not cross")
        check((agent / name).exists(), f"{name} did not reach the agent")
    for name in ("debug.log", "build/out.o", "app/secret.env", "scratch/a.txt", ".git/config"):
        check(name not in there, f"{name} is ignored, and is in the Volume")
        check((user / name).read_text() == "mine alone\n", f"{name} was touched")
    # What the other side sends into .git or an ignored place does not land here either.
    volume.write(".git/hooks/post-checkout", "#!/bin/sh\ntouch /tmp/owned\n")
    volume.write("debug.log", "not for you\n")
    volume.write("marker.txt", "after those\n")
    wait_until("the marker came", (user / "marker.txt").exists, 10)
    check(not (user / ".git/hooks/post-checkout").exists(), "a hook came in through the Volume")
    check((user / "debug.log").read_text() == "mine alone\n", "an ignored file was overwritten")
    check_no_conflicts(volume, user, agent)


def test_patterns_of_an_attachment_hold_both_ways(bench):
    service = bench.service()
    volume = service.create_volume()
    laptop = bench.machine("laptop", service)
    write(laptop.dir / "workspace/data/big.bin", "mine alone\n")
    user = laptop.attach(volume, ignore=["/data/", "*.bin", "!kept.bin"])
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_one")
    write(user / "kept.bin", "for everyone\n")
    write(user / "src/tool.bin", "mine alone\n")
    write(agent / "data/theirs.txt", "the agent's alone\n")
    write(agent / "src/main.py", "for everyone\n")
    settle(user, agent)
    check(set(files_of(user.tree())) >= {"kept.bin", "src/main.py", "src/tool.bin", "data/big.bin"}, "files are gone")
    check(not (user / "data/theirs.txt").exists(), "what the attachment ignores came in")
    there = set(files_of(volume.tree()))
    check(there == {"kept.bin", "src/main.py", "data/theirs.txt"}, f"the Volume has {sorted(there)}")
    check(user.status()["ignored_incoming"] > 0, "the status does not count what is kept away")
    again = laptop.run("sync", "attach", volume.id, user.root, "--ignore", "*.o", ok=False)
    said = again.stderr.decode()
    check(again.returncode != 0 and "--ignore /data/ --ignore *.bin --ignore !kept.bin" in said, said)
    for wrong in ("", "# a remark", "two\nlines"):
        check(laptop.run("sync", "attach", volume.id, laptop.dir / "new", "--ignore", wrong, ok=False).returncode == 2,
              f"{wrong!r} is taken for a pattern")
    check(not (laptop.dir / "new").exists(), "a directory was made for a wrong command")


def test_what_is_forgotten_stays_on_both_sides(bench):
    volume, user, agent = pair(bench)
    for name in ("build/out.o", "build/deep/more.o", "src/debug.log", "src/main.py"):
        write(user / name, "first\n")
    settle(user, agent)
    # A rule alone un-invites what is new, and leaves what is synced as it is.
    write(user / ".s0ignore", "/build/\n*.log\n")
    write(user / "build/new.o", "never synced\n")
    write(user / "build/out.o", "still synced\n")
    settle(user, agent)
    check((agent / "build/out.o").read_text() == "still synced\n", "a rule alone has stopped the sync")
    check(volume.read("build/new.o") is None, "what is new and ignored was synced")

    # The rule and the command come so quickly that no watcher has seen the rule.
    with user.frozen():
        write(user / ".s0ignore", "/build/\n*.log\n/late\n")
        forgetting = threading.Thread(target=lambda: said.append(user.json("forget", "build", "src/debug.log")))
        said = []
        forgetting.start()
    forgetting.join(60)
    check(said == [{"forgotten": 5}], f"{said}")
    before = volume.tree()
    check({"build/out.o", "build/deep/more.o", "src/debug.log"} <= set(before), "forgetting removed something")
    check((user / "build/out.o").read_text() == "still synced\n", "forgetting touched a file")
    user.verify()

    # Neither side hears of the other's changes, whatever they are, across a restart too.
    write(user / "build/out.o", "the user's own\n")
    os.unlink(user / "src/debug.log")
    user.stop()
    os.unlink(user / "build/deep/more.o")
    user.start()
    write(agent / "build/out.o", "the agent's own\n")
    write(agent / "src/main.py", "second\n")
    settle(user, agent, user)
    check((user / "build/out.o").read_text() == "the user's own\n", "a forgotten file was overwritten")
    check(volume.read("build/out.o") == b"the agent's own\n", "a forgotten file was uploaded, or the agent's was not")
    check(volume.read("build/deep/more.o") == b"first\n", "a forgotten file was removed from the Volume")
    check(volume.read("src/debug.log") == b"first\n", "a forgotten file was removed from the Volume")
    check((user / "src/main.py").read_text() == "second\n", "what is not forgotten is not synced any more")
    check(not (user / "build/deep/more.o").exists(), "a forgotten file came back")
    check_no_conflicts(volume, user, agent)
    user.verify()
    check(user.status()["ignored_incoming"] > 0, "status does not count what is ignored on the way in")

    # Without the rule it is synced again; where the sides differ, that is a conflict.
    write(user / ".s0ignore", "")
    wait_until("what differs is a conflict", lambda: "build/out.o" in user.conflicts(), 30)
    check((user / "build/out.o").read_text() == "the user's own\n", "a file was overwritten")
    user.sync("conflicts", "resolve", "--all", "--keep-mine")
    settle(user, agent)
    wait_until("the rest is back", (user / "build/deep/more.o").exists, 20)
    settle(user, agent)
    check_all_equal(volume, user, agent)
