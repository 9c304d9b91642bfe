"""Quotas: what does not fit stays where it is, says so, and goes when there is room."""
import os

from harness import Volume, check, check_all_equal, check_no_conflicts, settle, wait_until, write


def test_what_does_not_fit_waits_for_room(bench):
    service = bench.service()
    laptop = bench.machine("laptop", service)
    id = laptop.run("volume", "create", "--quota-bytes", "100KB", "--quota-inodes", "20").stdout.decode().strip()
    volume = Volume(service, id)
    user = laptop.attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    write(user / "small.txt", b"s" * 60_000)
    settle(user, agent)

    # A file too many, and one that is too large for the service's inline contents.
    write(user / "large.bin", os.urandom(200_000))
    write(user / "fits.txt", b"f" * 30_000)
    wait_until("the problem is told", lambda: "large.bin" in user.status()["problems"], 20)
    why = user.status()["problems"]["large.bin"]
    check("no room" in why and "of 100000 bytes" in why and "s0 volume set" in why, why)
    wait_until("what fits is across", lambda: (agent / "fits.txt").exists(), 20)
    flushed = user.sync("flush", "--timeout", "20", ok=False)
    check(flushed.returncode != 0 and b"large.bin" in flushed.stderr + flushed.stdout, f"{flushed}")
    check((user / "large.bin").stat().st_size == 200_000, "the user's file is not what it was")
    check(not (agent / "large.bin").exists(), "it is across without room")
    said = laptop.run("volume", "get", id).stdout.decode()
    check("2 of 20" in said and "90.0 kB of 100.0 kB" in said, said)

    # A directory that does not fit keeps what is in it.
    for number in range(25):
        write(user / f"many/{number:02}.txt", b"m")
    wait_until("the last ones are told", lambda: len(user.status()["problems"]) >= 8, 20)
    settle(agent)
    check(len(os.listdir(agent / "many")) == 17, f"{sorted(os.listdir(agent / 'many'))}")

    # What makes room lets in what waits, without a word to the workspace.
    os.unlink(user / "small.txt")
    laptop.run("volume", "set", id, "--quota-bytes", "1MiB", "--quota-inodes", "none")
    settle(user, agent)
    there = check_all_equal(volume, user, agent)
    check(len([at for at in there if at.startswith("many/")]) == 25, f"{sorted(there)}")
    check(user.status()["problems"] == {}, f"{user.status()['problems']}")
    check_no_conflicts(volume, user, agent)

    # The file API and the command line say it too, with the code of a refusal.
    laptop.run("volume", "set", id, "--quota-bytes", "300KB")
    refused = laptop.run("volume", "files", "write", id, "more.bin", input=b"x" * 200_000, ok=False)
    check(refused.returncode == 1 and b"has no room" in refused.stderr and b"larger quota" in refused.stderr, f"{refused}")
    for wrong in ("lots", "-1", "10 parsecs"):
        said = laptop.run("volume", "set", id, f"--quota-bytes={wrong}", ok=False)
        check(said.returncode == 2 and b"10GiB" in said.stderr, f"{said}")
