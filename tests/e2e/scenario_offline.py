"""Being away: replicas that were offline, services that went and came back."""
import concurrent.futures
import os

from harness import (HttpError, check, check_all_equal, check_no_conflicts, settle, wait_until, write)


def many(volume, writes):
    """Writes through the API, several at a time."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(volume.write, path, data) for path, data in writes]:
            done.result()


def test_a_replica_beyond_retention_comes_back_and_loses_nothing(bench):
    service = bench.service(retention_entries=1000, checkpoint_every=250)
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for number in range(300):
        write(user / f"base/{number % 10}/f{number}.txt", f"base {number}\n")
    settle(user, agent)
    cursor = user.status()["cursor"]
    user.stop()

    # Edits that were not sent.
    for number in range(20):
        write(user / f"base/{number % 10}/f{number}.txt", f"edited offline {number}\n")
    for number in range(20):
        write(user / f"offline/new{number}.txt", f"new offline {number}\n")
    for number in range(20, 30):
        os.unlink(user / f"base/{number % 10}/f{number}.txt")
    os.rename(user / "base/5/f295.txt", user / "base/5/renamed.txt")

    # The Volume moves on: 5,000 entries, five of them to files that were edited offline.
    many(volume, [(f"moved/{number % 40}/m{number % 900}.txt", f"turn {number}\n") for number in range(4_900)])
    many(volume, [(f"base/{number % 10}/f{number}.txt", f"the agent's {number}\n") for number in range(5)])
    many(volume, [(f"base/{number % 10}/f{number}.txt", f"the agent's {number}\n")
                  for number in range(100, 195)])
    volume.remove("base/9/f299.txt")
    check(volume.head() - cursor >= 5000, f"the Volume moved on by {volume.head() - cursor} entries only")

    def forgotten():
        try:
            volume.changes(after=cursor)
        except HttpError as error:
            return error.status == 409 and error.error["details"]["reason"] == "reseed_required"
        return False

    wait_until("the journal no longer reaches back", forgotten, 60, every=0.5)
    user.start()
    clashes = {f"base/{number}/f{number}.txt" for number in range(5)}
    wait_until("what clashes is a conflict", lambda: clashes <= set(user.conflicts()), 60, every=0.2)
    check(set(user.conflicts()) == clashes, f"other conflicts too: {sorted(user.conflicts())}")
    for number in range(5):
        name = f"base/{number}/f{number}.txt"
        check(user.side(name, "mine") == f"edited offline {number}\n".encode(), f"my {name} is lost")
        check(user.side(name, "theirs") == f"the agent's {number}\n".encode(), f"their {name} is lost")
        user.mark(name)
    settle(user, agent)
    there = check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    for number in range(20):
        check(volume.read(f"base/{number % 10}/f{number}.txt") == f"edited offline {number}\n".encode(),
              f"the offline edit of f{number}.txt is lost")
        check(volume.read(f"offline/new{number}.txt") == f"new offline {number}\n".encode(),
              f"offline/new{number}.txt is lost")
    for number in range(20, 30):
        check(f"base/{number % 10}/f{number}.txt" not in there, f"f{number}.txt came back")
    for number in range(900):
        check(f"moved/{number % 40}/m{number}.txt" in there or any(
            path.endswith(f"/m{number}.txt") for path in there), f"moved m{number}.txt is missing")
    check("base/9/f299.txt" not in there, "what the agent removed came back")
    check("base/5/renamed.txt" in there and "base/5/f295.txt" not in there, "the offline rename is lost")


def test_replicas_resume_when_a_killed_service_returns(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for number in range(100):
        write(user / f"f{number}.txt", f"base {number}\n")
    settle(user, agent)
    for turn in range(3):
        service.kill()
        for number in range(20):
            write(user / f"user/{turn}-{number}.txt", f"while away {turn} {number}\n")
            write(agent / f"agent/{turn}-{number}.txt", f"while away {turn} {number}\n")
        write(user / f"f{turn}.txt", f"edited in turn {turn}\n")
        os.unlink(agent / f"f{50 + turn}.txt")
        for replica in (user, agent):
            wait_until(f"{replica} says offline", lambda: replica.status()["condition"] == "offline", 30)
        said = user.json("flush", "--timeout", "2", ok=False)
        check(said["done"] is False, f"a flush without a service is done: {said}")
        service.start()
        wait_until("both sides have what was written",
                   lambda: (agent / f"user/{turn}-19.txt").exists()
                   and (user / f"agent/{turn}-19.txt").exists(), 60)
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_a_service_keeps_what_it_acknowledged(bench):
    service = bench.service()
    volume = service.create_volume()
    for turn in range(5):
        for number in range(40):
            volume.write(f"t{turn}/f{number}.txt", f"{turn} {number}\n" * 50)
        volume.write(f"large{turn}.bin", bytes([turn]) * 3_000_000)
        before = volume.tree()
        service.kill()
        service.start()
        check(volume.tree() == before, f"turn {turn}: the Volume is another one after the kill")
    seqs = [entry["seq"] for entry in volume.changes()]
    check(seqs == list(range(1, len(seqs) + 1)), "the journal has gaps")
    check(service.stop() == 0, "the service does not end cleanly when asked to")


def test_offline_edits_of_both_sides_meet(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        write(user / f"{name}.txt", "base\n")
    write(user / "dir/one.txt", "1\n")
    settle(user, agent)
    user.stop()
    agent.stop()
    write(user / "a.txt", "user\n")                   # only the user
    write(agent / "b.txt", "agent\n")                 # only the agent
    for side in (user, agent):
        write(side / "c.txt", "the same\n")           # both, alike
        os.unlink(side / "d.txt")                     # both removed it
    write(user / "e.txt", "user\n")                   # edited here, removed there
    os.unlink(agent / "e.txt")
    os.unlink(user / "f.txt")                         # removed here, edited there
    write(agent / "f.txt", "agent\n")
    write(user / "new.txt", "user\n")                 # made on both sides, differently
    write(agent / "new.txt", "agent\n")
    os.unlink(user / "dir/one.txt")                   # the directory goes here, and gets a file there
    os.rmdir(user / "dir")
    write(agent / "dir/two.txt", "2\n")
    agent.start()
    agent.flush()
    user.start()
    wait_until("the clashes are conflicts",
               lambda: {"e.txt", "f.txt", "new.txt"} <= set(user.conflicts()), 30)
    found = set(user.conflicts())
    check(found <= {"e.txt", "f.txt", "new.txt", "dir"}, f"too many conflicts: {sorted(found)}")
    check(not agent.conflicts(), "the agent's machine, which came first, has conflicts")
    check((user / "e.txt").read_text() == "user\n", "the user's edit went")
    check((user / "new.txt").read_text() == "user\n", "the user's new file was overwritten")
    check(user.side("f.txt", "theirs") == b"agent\n", "the agent's edit is not readable")
    check(user.side("new.txt", "theirs") == b"agent\n", "the agent's new file is not readable")
    check(volume.read("dir/two.txt") == b"2\n", "the agent's file in the directory went")
    for path in sorted(found):
        user.sync("conflicts", "resolve", path,
                  "--keep-mine" if path in ("e.txt", "new.txt") else "--take-theirs")
    settle(user, agent)
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    for path, wanted in {"a.txt": b"user\n", "b.txt": b"agent\n", "c.txt": b"the same\n", "d.txt": None,
                         "e.txt": b"user\n", "f.txt": b"agent\n", "new.txt": b"user\n",
                         "dir/two.txt": b"2\n"}.items():
        check(volume.read(path) == wanted, f"{path} is {volume.read(path)!r}, not {wanted!r}")
