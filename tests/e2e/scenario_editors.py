"""An editor of neither kind: a plain LSP client of the sidecar."""
import os
import time

from harness import PATIENCE, check, check_no_conflicts, settle, wait_until, write
from lsp import Client, Refused, uri

OLD = "".join(f"line {number}\n" for number in range(1, 21))


def workspace(bench, **client):
    """A user's workspace with an editor on it, and an agent's sandbox, on one Volume."""
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    write(user / "notes.txt", OLD)
    write(user / "other.txt", "plain\n")
    settle(user, agent)
    editor = Client(user.machine, [user.root], **client)
    return volume, user, agent, editor


def lens_titles(editor, path):
    return [lens["command"]["title"] for lens in editor.lenses(path)]


def compared(editor, path):
    """Which version the sidecar compares a file with, and how it calls that."""
    answer = editor.ask("s0-sync/compare", {"uri": uri(path)})
    check(answer["right"] == uri(path), f"{answer}")
    return answer["left"].rsplit("&", 1)[1], answer["title"]


def test_a_plain_client_keeps_one_hunk_and_reverts_another(bench):
    volume, user, agent, editor = workspace(bench)
    path = user / "notes.txt"
    editor.open(path)
    check(lens_titles(editor, path) == [], "there are lenses though no agent wrote")
    changed = OLD.replace("line 3\n", "LINE 3\n").replace("line 15\n", "line 15\nfifteen and a half\n")
    write(agent / "notes.txt", changed)
    wait_until("it came", lambda: path.read_text() == changed, 20)
    editor.edit(path, 2, changed)
    wait_until("the lenses are there", lambda: len(lens_titles(editor, path)) == 6, 20)
    check("sb_agent" in lens_titles(editor, path)[0], "the lens does not say who wrote")
    lenses = wait_until("they are about the new text", lambda: [
        lens for lens in editor.lenses(path) if lens["command"]["title"].startswith("Keep")
        and lens["range"]["start"]["line"] in (2, 15)], 20)
    check([lens["range"]["start"]["line"] for lens in lenses] == [2, 15], f"{lenses}")
    stale = editor.lenses(path)[1]
    check(editor.run({"command": lenses[0]["command"]})["done"] == 1, "the first hunk was not kept")
    wait_until("one hunk is left", lambda: len(lens_titles(editor, path)) == 3, 20)
    try:
        editor.run({"command": stale["command"]})
        check(False, "a choice about an older state was not refused")
    except Refused as error:
        check("changed since" in str(error), f"{error}")
    check(path.read_text() == changed, "a refused revert wrote something")
    # By the quick fix, this time.
    revert = editor.actions(path, 15)["Revert this hunk"]
    check(editor.run(revert)["done"] == 1, "the second hunk was not reverted")
    wanted = OLD.replace("line 3\n", "LINE 3\n")
    check(path.read_text() == wanted, f"the file is now {path.read_text()!r}")
    settle(user, agent)
    check((agent / "notes.txt").read_text() == wanted, "the agent does not see the revert")
    editor.edit(path, 3, wanted)
    wait_until("nothing is left to review", lambda: lens_titles(editor, path) == [], 20)
    check(editor.quit() == 0, "it did not end in order")
    check_no_conflicts(volume, user, agent)


def test_a_plain_client_settles_conflicts_by_every_quick_fix(bench):
    volume, user, agent, editor = workspace(bench)

    def is_told():
        return "window/showMessageRequest" in {method for method, _ in editor.asked}

    ways = {"Keep mine": "mine\n", "Take theirs": "theirs\n", "Merge": None, "Keep both": "theirs\n"}
    for number, (title, wanted) in enumerate(ways.items()):
        name = f"file{number}.txt"
        base = "".join(f"{line}\n" for line in range(10))
        mine, theirs = (base.replace("1\n", "mine\n"), base.replace("8\n", "theirs\n")) if wanted is None else (
            "mine\n", "theirs\n")
        write(user / name, base)
        settle(user, agent)
        with user.frozen():
            write(user / name, mine)
            write(agent / name, theirs)
            agent.flush()
        path = user / name
        editor.open(path)
        found = wait_until("the conflict is shown", lambda: editor.diagnostics.get(uri(path)), 30)
        check(found[0]["source"] == "s0-sync" and found[0]["code"] == "concurrent_update", f"{found}")
        check(found[0]["relatedInformation"][0]["location"]["uri"].startswith("s0-sync:"), f"{found}")
        other = found[0]["relatedInformation"][0]["location"]["uri"]
        shown = editor.ask("workspace/textDocumentContent", {"uri": other})["text"]
        check(shown == theirs, f"the other version is {shown!r}")
        check(compared(editor, path) == ("version=theirs", f"{name}: theirs ⟷ mine"), "another comparison")
        check(user.status()["condition"] == "blocked", "uploads do not wait")
        wait_until("the user is told that uploads wait", is_told, 20)
        result = editor.run(editor.actions(path)[title])["results"]
        check(result and not result[0].get("error"), f"{title}: {result}")
        settle(user, agent)
        wait_until("nothing is shown any more", lambda: not editor.diagnostics.get(uri(path)), 20)
        if wanted is None:
            wanted = base.replace("1\n", "mine\n").replace("8\n", "theirs\n")
        check(path.read_text() == wanted, f"{title}: the file is {path.read_text()!r}")
        check((agent / name).read_text() == wanted, f"{title}: the agent has another file")
    check_no_conflicts(volume, user, agent)


def test_unsaved_text_is_never_written_under(bench):
    volume, user, agent, editor = workspace(bench)
    path = user / "notes.txt"
    editor.open(path)
    editor.edit(path, 2, "mine, not saved\n")
    # The host knows before the agent writes.
    time.sleep(0)
    wait_until("the host knows", lambda: editor.ask("s0-sync/state", {})["folders"][0]["condition"] == "in_sync", 20)
    write(agent / "other.txt", "a signal\n")
    wait_until("the signal came", lambda: (user / "other.txt").read_text() == "a signal\n", 20)
    write(agent / "notes.txt", "the agent's\n")
    agent.flush()
    found = wait_until("the held write is shown", lambda: editor.diagnostics.get(uri(path)), 20)
    check(found[0]["code"] == "held" and "unsaved" in found[0]["message"], f"{found}")
    check(path.read_text() == OLD, "the file was written under unsaved text")
    check(compared(editor, path) == ("version=incoming", "notes.txt: incoming ⟷ here"), "another comparison")
    actions = editor.actions(path)
    check({"Take incoming", "Keep mine", "Keep both"} <= set(actions), f"{sorted(actions)}")
    beside = editor.run(actions["Keep both"])["beside"]
    check((user / beside).read_text() == "the agent's\n", f"{beside} does not hold the agent's")
    settle(user, agent)
    check(path.read_text() == OLD, "what was kept is another text")
    check(compared(editor, path) == ("version=reviewed", "notes.txt: reviewed ⟷ now"), "another comparison")
    check((agent / "notes.txt").read_text() == OLD, "the agent does not have what was kept")
    # A second one comes by itself when the text is as the file again.
    write(agent / "notes.txt", "the agent's second\n")
    agent.flush()
    wait_until("it is held", lambda: editor.diagnostics.get(uri(path)), 20)
    editor.edit(path, 3, OLD)
    wait_until("it came", lambda: path.read_text() == "the agent's second\n", 20)
    wait_until("nothing is shown any more", lambda: not editor.diagnostics.get(uri(path)), 20)
    # And when the editor is gone without a word, nothing is held for it.
    editor.edit(path, 4, "unsaved again\n")
    editor.process.kill()
    write(agent / "notes.txt", "the agent's third\n")
    wait_until("it came", lambda: path.read_text() == "the agent's third\n", 20)
    check_no_conflicts(volume, user, agent)


def test_a_write_that_came_just_before_the_typing_is_not_saved_over_unseen(bench):
    volume, user, agent, editor = workspace(bench)
    path = user / "notes.txt"
    editor.open(path)
    for number, (title, left) in enumerate({"Keep both": "beside", "Keep mine": "mine", "Take incoming": "theirs"}.items()):
        theirs = f"the agent's {number}\n"
        write(agent / "notes.txt", theirs)
        wait_until("it is on the disk", lambda: path.read_text() == theirs, 20)
        # The editor has not read it again, and the user types.
        editor.edit(path, 10 * number + 2, f"mine {number}, not saved\n")
        found = wait_until("the write is shown", lambda: editor.diagnostics.get(uri(path)), 20)
        check("came while" in found[0]["message"] and "sb_agent" in found[0]["message"], f"{found}")
        check(compared(editor, path) == ("version=incoming", "notes.txt: incoming ⟷ here"), "another comparison")
        shown = editor.ask("s0-sync/compare", {"uri": uri(path)})["left"]
        check(editor.ask("s0-sync/content", {"uri": shown})["text"] == theirs, "the incoming one is another text")
        done = editor.run(editor.actions(path)[title])
        if left == "beside":
            check((user / done["beside"]).read_text() == theirs, f"{done} does not hold the agent's")
        wait_until("nothing is shown any more", lambda: not editor.diagnostics.get(uri(path)), 20)
        check(path.read_text() == theirs, "the file was written")
        # It is saved, knowingly; the one that is taken is read again.
        text = theirs if left == "theirs" else f"mine {number}, not saved\n"
        editor.edit(path, 10 * number + 3, text)
        if left != "theirs":
            write(path, text)
            editor.saved(path)
            settle(user, agent)
        check((agent / "notes.txt").read_text() == text, "the agent has another text")
        wait_until("nothing is unsaved", lambda: editor.ask("s0-sync/state", {})["folders"][0]["held"] == [], 20)
    check_no_conflicts(volume, user, agent)


def test_reviews_survive_restarts_and_are_the_same_in_every_editor(bench):
    volume, user, agent, editor = workspace(bench, ours=True)
    second = Client(user.machine, [user.root], ours=True)
    write(agent / "notes.txt", OLD + "the agent's\n")
    write(agent / "new.txt", "a\nb\n")
    os.unlink(agent / "other.txt")
    agent.flush()
    key = uri(user.root)

    def incoming(client):
        return {it["path"]: (it["kind"], it["hunks"]) for it in client.states.get(key, {}).get("incoming", [])}

    wanted = {"notes.txt": ("changed", 1), "new.txt": ("created", 1), "other.txt": ("deleted", 1)}
    for client in (editor, second):
        wait_until("all is listed", lambda: set(incoming(client)) == set(wanted), 20)
    check(incoming(editor)["notes.txt"] == ("changed", 1), f"{incoming(editor)}")
    check(incoming(editor)["other.txt"][0] == "deleted", f"{incoming(editor)}")
    editor.ask("s0-sync/keep", {"uri": uri(user / "new.txt")})
    wait_until("the other editor knows", lambda: "new.txt" not in incoming(second), 20)
    check(editor.quit() == 0, "it did not end in order")
    user.stop()
    user.start()
    third = Client(user.machine, [user.root], ours=True)
    wait_until("it is as it was", lambda: set(incoming(third)) == {"notes.txt", "other.txt"}, 30)
    check([it["path"] for it in third.states[key]["reviewed"]] == ["new.txt"], "what was reviewed is forgotten")
    done = third.ask("s0-sync/revert", {"folder": key})
    check(done["done"] == 2 and not done["refused"], f"{done}")
    check((user / "notes.txt").read_text() == OLD, "the file is not as it was reviewed")
    check((user / "other.txt").read_text() == "plain\n", "the removed file is not back")
    settle(user, agent)
    check((agent / "other.txt").read_text() == "plain\n", "the agent does not have it back")
    wait_until("nothing is left", lambda: incoming(third) == {}, 20)
    check_no_conflicts(volume, user, agent)


def test_what_an_agent_wrote_while_no_host_ran_is_reviewed_too(bench):
    volume, user, agent, editor = workspace(bench, ours=True)
    check(editor.quit() == 0, "it did not end in order")
    user.stop()
    write(agent / "notes.txt", OLD.replace("line 3\n", "LINE 3\n"))
    write(agent / "new/deep.txt", "a\nb\n")
    os.unlink(agent / "other.txt")
    agent.flush()
    user.start()
    key = uri(user.root)
    client = Client(user.machine, [user.root], ours=True)

    def incoming():
        return {it["path"]: (it["kind"], it["hunks"], [a["label"] for a in it["actors"]])
                for it in client.states.get(key, {}).get("incoming", []) if it["kind"] != "directory"}

    wait_until("all is listed", lambda: {"notes.txt", "new/deep.txt", "other.txt"} <= set(incoming()), 20)
    check(incoming()["notes.txt"] == ("changed", 1, ["sb_agent"]), f"{incoming()}")
    check(incoming()["other.txt"][::2] == ("deleted", ["sb_agent"]), f"{incoming()}")
    # Nor is what the user brings back.
    versions = user.json("history", "notes.txt")
    client.ask("s0-sync/keep", {"folder": key})
    wait_until("all is kept", lambda: incoming() == {}, 20)
    user.json("restore", f"notes.txt@{versions['versions'][-1]['seq']}")
    wait_until("it is back", lambda: (user / "notes.txt").read_text() == OLD, 20)
    # One's own other machine is nobody to review.
    other = bench.machine("desktop", volume.service).attach(volume)
    user.stop()
    write(other / "mine.txt", "by myself\n")
    other.flush()
    user.start()
    wait_until("it came", (user / "mine.txt").exists, 20)
    settle(user, other, agent)
    wait_until("nothing else is listed", lambda: incoming() == {}, 20)
    check_no_conflicts(volume, user, agent)


def test_an_editor_attaches_with_progress_and_an_agent_gets_a_directory(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    root = machine.dir / "project"
    for number in range(200):
        write(root / f"d{number % 9}/f{number}.txt", f"{number}\n")
    editor = Client(machine, [root])
    key = uri(root)

    def state():
        return editor.ask("s0-sync/state", {})["folders"][0]

    check(state()["condition"] == "detached", f"{state()}")
    volume = editor.command("s0-sync.attach", {"folder": key})["volume"]
    wait_until("it is in sync", lambda: state()["condition"] == "in_sync", 30)
    check(state()["volume"] == volume, f"{state()}")
    wait_until("the progress ends", lambda: "end" in [
        params["value"]["kind"] for _, method, params in editor.notes if method == "$/progress"], 20)
    kinds = [params["value"]["kind"] for _, method, params in editor.notes if method == "$/progress"]
    check(kinds[0] == "begin" and kinds.count("end") == 1, f"{kinds}")
    agent = editor.ask("s0-sync/agent", {"folder": key})
    directory = type(root)(agent["directory"])
    check((directory / "d0/f0.txt").read_text() == "0\n", "the agent's directory has other files")
    write(directory / "agent.txt", "hello\n")
    wait_until("the agent's file came", (root / "agent.txt").exists, 20)
    wait_until("it is to be reviewed", lambda: [it["path"] for it in state()["incoming"]] == ["agent.txt"], 20)
    snapshot = editor.ask("s0-sync/snapshot", {"folder": key, "name": "before"})["id"]
    write(root / "d0/f0.txt", "changed\n")
    check(editor.ask("s0-sync/flush", {"folder": key})["done"], "the flush is not done")
    check([it["id"] for it in editor.ask("s0-sync/snapshots", {"folder": key})["snapshots"]] == [snapshot], "no snapshot")
    editor.ask("s0-sync/restore", {"folder": key, "snapshot": snapshot})
    wait_until("the restore is here", lambda: (root / "d0/f0.txt").read_text() == "0\n", 20)
    check(editor.ask("s0-sync/fork", {"folder": key})["volume"] != volume, "the fork is the Volume itself")
    check(len(editor.ask("s0-sync/volumes", {})["volumes"]) == 2, "not all Volumes are listed")
    editor.command("s0-sync.stop", {"folder": key})
    wait_until("it is stopped", lambda: state()["condition"] == "stopped", 20)
    editor.command("s0-sync.start", {"folder": key})
    wait_until("it is in sync again", lambda: state()["condition"] == "in_sync", 20)
    editor.command("s0-sync.detach", {"folder": key})
    wait_until("it is detached", lambda: state()["condition"] == "detached", 20)
    check((root / "agent.txt").exists(), "detaching removed files")
    machine.run("sync", "detach", directory)


def test_a_burst_of_messages_keeps_its_order_and_everyone_is_answered(bench):
    volume, user, agent, editor = workspace(bench, ours=True)
    path = user / "notes.txt"
    editor.open(path)
    flush = editor.begin("s0-sync/flush", {"folder": uri(user.root)})
    asked = []
    for number in range(10_000):
        # Each edit appends one character, so that one out of order would be seen.
        editor.tell("textDocument/didChange", {
            "textDocument": {"uri": uri(path), "version": number + 2},
            "contentChanges": [{"range": {"start": {"line": 0, "character": number % 100},
                                          "end": {"line": 0, "character": 1000}}, "text": "x"}]})
        if number % 100 == 0:
            asked.append(editor.begin("s0-sync/hunks", {"uri": uri(path)}))
    for number in asked:
        editor.end(number)
    check(editor.end(flush)["done"], "the flush was not answered in the burst")
    # Unsaved text that is the file's again: all edits were heard, in order.
    editor.edit(path, 20_000, OLD)
    write(agent / "notes.txt", "comes\n")
    wait_until("nothing is held", lambda: path.read_text() == "comes\n", 30)
    check(editor.quit() == 0, "it did not end in order")


def test_wrong_messages_get_the_right_answers(bench):
    volume, user, agent, editor = workspace(bench)
    early = Client(user.machine, [user.root], initialize=False)
    answer = early.end(early.begin("s0-sync/state", {}), raw=True)
    check(answer["error"]["code"] == -32002, f"before initialize: {answer}")
    early.process.stdin.close()
    check(early.process.wait(20) is not None, "it goes on without its input")
    for method, params, code in [("s0-sync/nothing", {}, -32601), ("s0-sync/keep", {"uri": 3}, -32602),
                                 ("s0-sync/content", {"uri": "s0-sync:/x"}, -32803),
                                 ("s0-sync/keep", {"uri": "file:///elsewhere"}, -32803),
                                 ("workspace/executeCommand", {"command": "s0-sync.rm", "arguments": []}, -32602)]:
        answer = editor.end(editor.begin(method, params), raw=True)
        check(answer["error"]["code"] == code, f"{method}: {answer}")
    for frame in (b"Content-Length: 100\r\n\r\n{\"jsonrpc\"", b"Content-Length: 9\r\n\r\nnot json!", b"\xff\xfe\r\n\r\n"):
        broken = Client(user.machine, [user.root])
        broken.process.stdin.write(frame)
        broken.process.stdin.close()
        check(broken.process.wait(20) == 1, f"it does not end, or as if in order, after {frame}")
    check(user.status()["condition"] == "in_sync", "the host was hurt")
    check(editor.quit() == 0, "it did not end in order")


def test_an_editor_stays_free_while_an_agent_writes_a_thousand_files(bench):
    volume, user, agent, editor = workspace(bench, ours=True)
    path, key = user / "notes.txt", uri(user.root)
    editor.open(path)
    with agent.frozen():
        for number in range(1000):
            write(agent / f"many/d{number % 10}/f{number}.txt", f"{number}\n" * 20)
    slowest, version, text = 0, 1, OLD

    def all_listed():
        nonlocal slowest, version
        # What an editor does while its user types.
        version += 1
        begun = time.monotonic()
        editor.edit(path, version, OLD + "x" * version)
        editor.ask("s0-sync/hunks", {"uri": uri(path)})
        editor.actions(path)
        slowest = max(slowest, time.monotonic() - begun)
        return len(editor.states.get(key, {}).get("incoming", [])) == 1000

    wait_until("all are to be reviewed", all_listed, 60)
    bench.note(f"{version - 1} edits with two requests each, the slowest {slowest * 1000:.0f} ms")
    check(slowest < 2 * PATIENCE, f"a request waited {slowest:.1f} s")
    states = [params for _, method, params in editor.notes if method == "s0-sync/didChangeState"]
    check(len(states) < 200, f"{len(states)} states were told for one burst")
    done = editor.ask("s0-sync/keep", {"folder": key}, timeout=60)
    check(done["done"] >= 1000, f"{done}")
    check_no_conflicts(volume, user, agent)


def test_what_cannot_be_written_down_is_remembered_for_review(bench):
    volume, user, agent, editor = workspace(bench, ours=True)
    editor.process.kill()
    # Where the review would be staged there is a directory, so that it cannot be kept.
    replica = next((user.machine.state / "replicas").iterdir())
    (replica / "review.new").mkdir()
    write(agent / "notes.txt", OLD + "the agent's\n")
    wait_until("it came", lambda: (user / "notes.txt").read_text().endswith("the agent's\n"), 20)
    wait_until("the trouble is in the log", lambda: "cannot be kept" in user.sync("logs").stdout.decode(), 20)
    os.kill(user.pid, 9)
    (replica / "review.new").rmdir()
    user.start()
    again = Client(user.machine, [user.root], ours=True)
    key = uri(user.root)
    wait_until("it is still to be reviewed", lambda: [
        it["path"] for it in again.states.get(key, {}).get("incoming", [])] == ["notes.txt"], 30)
    check_no_conflicts(volume, user, agent)
