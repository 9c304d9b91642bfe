"""Earlier versions of files: seen, read, and brought back."""
import json
import os

from harness import check, check_all_equal, check_no_conflicts, settle, wait_until, write


def pair(bench, **flags):
    """A user's workspace and an agent's sandbox on one Volume."""
    service = bench.service(**flags)
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    return volume, user, agent


def test_history_of_what_an_agent_rewrote_is_seen_and_brought_back(bench):
    volume, user, agent = pair(bench)
    write(user / "notes/plan.md", "the user's plan\n")
    os.chmod(user / "notes/plan.md", 0o755)
    settle(user, agent)
    for text in ("one\n", "two\n", "three, which nobody wanted\n"):
        write(agent / "notes/plan.md", text)
        settle(agent, user)
    os.rename(agent / "notes", agent / "docs")
    os.rename(agent / "docs/plan.md", agent / "docs/PLAN.txt")
    settle(agent, user)

    versions = user.json("history", "docs/PLAN.txt")["versions"]
    written = [it for it in versions if it["change"] in ("created", "written")]
    check([it["content"]["size"] for it in written][:3] == [27, 4, 4], f"{versions}")
    check(all(it["actor"].get("sandbox") == "sb_agent" for it in written[:3]), f"who wrote is not told: {versions}")
    check(written[-1]["path"] == "notes/plan.md" and written[-1]["change"] == "created", f"{versions}")
    said = user.sync("history", "docs/PLAN.txt").stdout.decode()
    check("sb_agent" in said and "renamed from" in said and "s0 sync restore docs/PLAN.txt@" in said, said)

    # Every version can be read, also by any seq in between.
    shown = [user.sync("show", f"docs/PLAN.txt@{it['seq']}").stdout for it in reversed(written)]
    check(shown == [b"the user's plan\n", b"one\n", b"two\n", b"three, which nobody wanted\n"], f"{shown}")

    # The newest entry after which it was the user's, with the mode that it had then.
    at = next(it["seq"] for it in versions if it.get("content", {}).get("size") == 16)
    user.sync("restore", f"docs/PLAN.txt@{at}")
    for replica in (user, agent):
        wait_until(f"{replica} has the plan again",
                   lambda r=replica: (r / "docs/PLAN.txt").read_text() == "the user's plan\n", 20)
    settle(user, agent)
    there = check_all_equal(volume, user, agent)
    check(there["docs/PLAN.txt"][2] == "0o755", f"the mode did not come back: {there}")
    check_no_conflicts(volume, user, agent)

    # And what the agent removes.
    os.unlink(agent / "docs/PLAN.txt")
    os.rmdir(agent / "docs")
    settle(agent, user)
    check(not (user / "docs").exists(), "the removal did not cross")
    user.sync("restore", f"docs/PLAN.txt@{written[0]['seq']}")
    settle(user, agent)
    check((agent / "docs/PLAN.txt").read_text() == "three, which nobody wanted\n", "a removed file did not come back")
    check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)


def test_history_is_brought_back_over_nothing_unseen(bench):
    volume, user, agent = pair(bench)
    write(user / "a.txt", "first\n")
    settle(user, agent)
    write(agent / "a.txt", "second\n")
    settle(agent, user)
    versions = user.json("history", "a.txt")["versions"]
    first, seen = versions[-1]["seq"], versions[0]["seq"]
    # The agent writes between the user's look and the user's word.
    write(agent / "a.txt", "third\n")
    settle(agent, user)
    head = volume.head()
    refused = user.sync("restore", f"a.txt@{first}", "--seen", str(seen), ok=False)
    check(refused.returncode == 1 and b"nothing was written" in refused.stderr, f"{refused}")
    # The same by hand, as an editor would.
    body = json.dumps({"path": "a.txt", "at": first, "seen": seen}).encode()
    status, answer = volume.http.raw("POST", f"{volume.base}/sync/history/restore", body=body)
    check(status == 409 and json.loads(answer)["error"]["details"]["reason"] == "concurrent_update", f"{answer}")
    settle(user, agent)
    check(volume.head() == head, "a refused restore has left something in the journal")
    check((user / "a.txt").read_text() == "third\n" and (agent / "a.txt").read_text() == "third\n", "it was written over")
    check_no_conflicts(volume, user, agent)

    # What the user has typed and not sent is not lost either: it becomes a conflict.
    user.stop()
    write(user / "a.txt", "typed and not sent\n")
    agent.sync("restore", f"a.txt@{first}")
    user.start()
    wait_until("it is a conflict", lambda: "a.txt" in user.conflicts(), 30)
    check((user / "a.txt").read_text() == "typed and not sent\n", "an unsent edit was written over")
    check(user.side("a.txt", "theirs") == b"first\n", "the version that came back is not shown")
    user.sync("conflicts", "resolve", "a.txt", "--take-theirs")
    settle(user, agent)
    check_all_equal(volume, user, agent)


def test_history_is_kept_as_long_as_the_journal(bench):
    volume, user, agent = pair(bench, retention_entries=200, checkpoint_every=50)
    write(user / "kept.txt", "never touched again\n")
    write(user / "old.txt", "written when it all began\n")
    settle(user, agent)

    def cut():
        for number in range(20):
            write(agent / f"many/{number}.txt", f"{volume.head()} {number}\n")
        settle(agent, user)
        return user.json("history", "kept.txt")["retained_after_seq"] > 30

    wait_until("the first entries are gone", cut, 180)
    [kept] = user.json("history", "kept.txt")["versions"]
    check(kept["change"] == "earlier" and "time" not in kept, f"{kept}")
    write(agent / "old.txt", "written over by the agent\n")
    settle(agent, user)
    os.unlink(agent / "kept.txt")
    settle(agent, user)
    for name, text in (("old.txt", "written when it all began\n"), ("kept.txt", "never touched again\n")):
        last = user.json("history", name)["versions"][-1]
        check(last["change"] == "earlier", f"{last}")
        check(user.sync("show", f"{name}@{last['seq']}").stdout.decode() == text, f"{name} cannot be read any more")
        user.sync("restore", f"{name}@{last['seq']}")
        gone = user.sync("show", f"{name}@1", ok=False)
        check(gone.returncode == 1 and b"is gone" in gone.stderr, f"{gone}")
    settle(user, agent)
    check((agent / "kept.txt").read_text() == "never touched again\n", "what was removed did not come back")
    check_all_equal(volume, user, agent)
