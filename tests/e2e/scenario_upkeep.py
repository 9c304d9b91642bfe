"""The service is looked after: the backup drill, its log, its numbers."""
import json
import os
import shutil
import urllib.request

from harness import check, check_all_equal, check_no_conflicts, settle, wait_until, write


def pair(bench, service):
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    return volume, user, agent


def test_backup_drill_everything_is_lost_and_comes_back(bench):
    service = bench.service()
    operator = bench.machine("operator", service)
    volume, user, agent = pair(bench, service)
    large = os.urandom(3_000_000)
    write(user / "src/large.bin", large)
    for name in ("stays", "edited", "removed", "taken"):
        write(user / f"src/{name}.txt", f"{name}, before\n")
    settle(user, agent)
    backup = bench.dir / "backup"
    made = operator.json("service", "backup", str(backup), "--data-dir", str(service.data))
    check(made["backup"]["volumes"] == [volume.id] and made["copied"]["damaged"] == [], f"{made}")

    # What the backup does not know, on both sides.
    write(user / "src/edited.txt", "edited, after\n")
    write(user / "src/new.txt", "new, after\n")
    os.unlink(user / "src/removed.txt")
    write(agent / "agents/own.txt", "the agent's, after\n")
    settle(user, agent)
    os.rename(agent / "src/taken.txt", agent / "agents/taken.txt")
    settle(agent, user)
    before = user.tree()

    service.kill()
    shutil.rmtree(service.data)
    operator.run("service", "restore", str(backup), "--data-dir", str(service.data))
    check(operator.run("service", "fsck", "--data-dir", str(service.data)).stdout.endswith(b"all is well\n"), "fsck")
    # The service's own token is not in a backup; these workspaces have it from elsewhere.
    (service.data / "token").write_text(service.token)
    service.start()
    # Every file is still on both disks, in its newest version, whatever the Volume says.
    for replica in (user, agent):
        wait_until(f"{replica} is connected again", lambda r=replica: r.status()["connected"], 60)
    wait_until("nothing moves any more", lambda: all(r.status()["condition"] in ("in_sync", "blocked") for r in (user, agent)), 60)
    for replica in (user, agent):
        there = replica.tree()
        gone = {path for path, what in before.items() if there.get(path) != what}
        check(gone <= set(replica.conflicts()), f"{replica} lost {gone}: {replica.conflicts()}")
        check((replica / "src/large.bin").read_bytes() == large, "the large file is not what it was")
    # The user's word ends it, and all are one again.
    for replica in (user, agent):
        if replica.conflicts():
            replica.sync("conflicts", "resolve", "--all", "--keep-mine")
    settle(user, agent)
    check_no_conflicts(volume, user, agent)
    there = check_all_equal(volume, user, agent)
    for path in before:
        check(path in there, f"{path} is gone")
    check((agent / "src/edited.txt").read_text() == "edited, after\n", "an edit is gone")
    check((user / "agents/own.txt").read_text() == "the agent's, after\n", "an agent's file is gone")


def test_the_log_is_for_programs_and_has_no_secrets(bench):
    service = bench.service(log_format="json", log="trace")
    volume, user, agent = pair(bench, service)
    write(user / "a.txt", "a\n")
    settle(user, agent)
    key = service.http.data("POST", "/api-keys", value={"name": "ci"})["key"]
    for token in (key, "s0_local_wrong"):
        ask = urllib.request.Request(service.url + volume.base, headers={"Authorization": f"Bearer {token}"})
        try:
            urllib.request.urlopen(ask).read()
        except urllib.error.HTTPError as refused:
            check(refused.code == 401 and refused.headers["x-request-id"], f"{refused.code}")
    own = urllib.request.Request(service.url + "/metrics", headers={"Authorization": f"Bearer {service.token}"})
    numbers = urllib.request.urlopen(own).read().decode()
    check("s0_journal_entries_total" in numbers and volume.id not in numbers, numbers)
    check(service.stop() == 0, "it did not end by itself")
    text = service.log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if not line.startswith("listening on")]
    answered = [line for line in lines if line["fields"].get("message") == "answered"]
    check(any(line["span"].get("route", "").endswith("/submit") and line["fields"]["status"] == 200 for line in answered),
          f"{answered[:3]}")
    for secret in (service.token, key):
        check(secret not in text, "a token is in the log")
