"""What hostile or mistaken input gets: a clear answer, and no effect."""
import base64
import json
import os

from harness import Http, check, check_all_equal, check_equal, disk_tree, settle, wait_until, write

HOSTILE = ["../x", "/../x", "a/../../x", "a/..", "..", ".", "a/./b", "//x", "a//b", "a/", "C:/x", "C:\\x",
           "a\0b", "", "/"]


def test_hostile_paths_in_changes_are_refused_whole(bench):
    service = bench.service()
    volume = service.create_volume()
    volume.write("a/file.txt", "x\n")
    replica = f"{volume.base}/sync/replicas/hostile"
    service.http.data("PUT", replica, value={"platform": "linux", "case_sensitive": True})
    head, before = volume.head(), volume.tree()
    content = base64.b64encode(b"owned").decode()
    for number, path in enumerate(HOSTILE):
        changes = [
            {"event_type": "create", "path": "/fine.txt", "content_base64": content},
            {"event_type": "write", "path": path, "content_base64": content},
        ]
        for kind in ("write", "create", "remove", "rename", "chmod"):
            changes[1].update(event_type=kind, mode=0o644, old_path="/a/file.txt")
            body = json.dumps({"request_id": f"{number}-{kind}", "base_seq": head, "changes": changes})
            status, said = service.http.raw("POST", f"{replica}/changes", body=body,
                                            headers={"Content-Type": "application/json"})
            check(status == 400, f"{kind} of {path!r} was answered with {status}: {said!r}")
            check(json.loads(said)["error"]["code"] == "bad_request", f"{path!r}: {said!r}")
        body = json.dumps({"request_id": f"{number}-old", "base_seq": head, "changes": [
            {"event_type": "rename", "path": "/b.txt", "old_path": path}]})
        status, said = service.http.raw("POST", f"{replica}/changes", body=body,
                                        headers={"Content-Type": "application/json"})
        check(status == 400, f"a rename from {path!r} was answered with {status}: {said!r}")
    check(volume.head() == head, "a refused request left entries in the journal")
    check_equal(before, volume.tree(), "the Volume before and after")


def test_hostile_paths_in_the_file_api_never_leave_the_volume(bench):
    service = bench.service()
    volume = service.create_volume()
    volume.write("inside.txt", "inside\n")
    machine = bench.machine("laptop", service)
    replica = machine.attach(volume)
    settle(replica)
    outside = disk_tree(machine.dir / "home")
    for path in ("a\0b", "/a\0", ""):
        for method in ("GET", "POST", "DELETE"):
            status, said = service.http.raw(method, f"{volume.base}/files", {"path": path}, b"")
            check(status == 400, f"{method} of {path!r} was answered with {status}: {said!r}")
    # Documented: `..` is resolved within the Volume and never climbs above its root.
    for path in ("/../inside.txt", "../../inside.txt", "/a/../../../inside.txt"):
        status, said = service.http.raw("GET", f"{volume.base}/files", {"path": path})
        check((status, said) == (200, b"inside\n") or status == 400, f"{path!r}: {status} {said!r}")
    for path in ("/../../../../etc/passwd", "/proc/self/environ", "/../token", "../service.json"):
        status, said = service.http.raw("GET", f"{volume.base}/files", {"path": path})
        check(status in (400, 404), f"{path!r} was answered with {status}: {said[:80]!r}")
    status, _ = service.http.raw("POST", f"{volume.base}/files", {"path": "/../../escaped.txt"}, b"x")
    check(status in (200, 400), f"a write above the root was answered with {status}")
    settle(replica)
    check(not list(bench.dir.rglob("escaped.txt")) or [p for p in bench.dir.rglob("escaped.txt")]
          == [replica.root / "escaped.txt"], "a write left the workspace")
    check_equal(outside, disk_tree(machine.dir / "home"), "the home directory before and after")
    check_all_equal(volume, replica)


def test_wrong_and_missing_tokens_get_401_and_say_so(bench):
    service = bench.service()
    volume = service.create_volume()
    for token in ("wrong", "", service.token[:-1], service.token + "x"):
        http = Http(service.url, token)
        for method, path in (("GET", "/api/v1/sandboxvolumes"), ("GET", volume.base),
                             ("GET", f"{volume.base}/files?path=/x"), ("GET", f"{volume.base}/sync/changes"),
                             ("GET", f"{volume.base}/sync/events?after=0"),
                             ("DELETE", volume.base)):
            status, said = http.raw(method, path)
            check(status == 401, f"{method} {path} with a wrong token: {status} {said!r}")
            check(json.loads(said)["error"]["code"] == "unauthorized", f"no envelope: {said!r}")
    status, _ = Http(service.url, "").raw("GET", "/healthz")
    check(status == 200, f"/healthz wants a token: {status}")
    machine = bench.machine("laptop", service)
    done = machine.run("volume", "list", ok=False, env={"SANDBOX0_TOKEN": "wrong"})
    check(done.returncode != 0, "the program accepted a wrong token")
    check(b"token" in done.stderr.lower(), f"it does not say what is wrong: {done.stderr!r}")


def test_wrong_requests_are_answered_in_the_envelope(bench):
    service = bench.service()
    volume = service.create_volume()
    cases = [
        ("GET", "/api/v1/nothing", None, 404), ("PUT", f"{volume.base}/files?path=/x", b"", 405),
        ("GET", "/api/v1/sandboxvolumes/unknown", None, 404),
        ("GET", "/api/v1/sandboxvolumes/..%2f..%2fetc", None, 404),
        ("POST", "/api/v1/sandboxvolumes", b"{", 400), ("POST", "/api/v1/sandboxvolumes", b"[]", 400),
        ("POST", "/api/v1/sandboxvolumes", b'{"access_mode": "XXX"}', 400),
        ("GET", f"{volume.base}/files/stat?path=/none", None, 404),
        ("GET", f"{volume.base}/sync/changes?after=x", None, 400),
        ("GET", f"{volume.base}/sync/replay-payload?content_ref=md5:abc", None, 400),
        ("PUT", f"{volume.base}/sync/conflicts/none", b'{"status": "resolved"}', 404),
        ("POST", f"{volume.base}/sync/replicas/unknown/changes",
         b'{"request_id": "1", "base_seq": 0, "changes": []}', 404),
    ]
    for method, path, body, wanted in cases:
        status, said = service.http.raw(method, path, body=body,
                                        headers={"Content-Type": "application/json"})
        check(status == wanted, f"{method} {path}: {status} instead of {wanted}: {said!r}")
        check(json.loads(said)["success"] is False, f"{method} {path}: no envelope: {said!r}")
    check(service.http.data("GET", volume.base)["id"] == volume.id, "the service is no longer well")


def test_what_a_repository_brings_as_dot_s0_leads_nowhere(bench):
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    precious = machine.dir / "precious"
    cookie = precious / "00000000-0000-4000-8000-000000000000"
    write(cookie, "mine\n")
    write(precious / "rc", "mine\n")
    outside = disk_tree(precious)
    workspace = machine.dir / "workspace"

    def brings(name, target):
        """A repository with a link of this name in its .s0."""
        (workspace / ".s0").mkdir(parents=True, exist_ok=True)
        (workspace / ".s0" / name).unlink(missing_ok=True)
        (workspace / ".s0" / name).symlink_to(target)

    for name, target in (("lock", precious / "rc"), ("staging", precious), ("cookies", precious)):
        brings(name, target)
        done = machine.run("sync", "attach", volume.id, workspace, ok=False)
        check(done.returncode == 1, lambda: f".s0/{name} is a link, and attaching ended with {done.returncode}")
        check(b".s0" in done.stderr, lambda: f"it does not say where it is: {done.stderr!r}")
        check_equal(outside, disk_tree(precious), f"what .s0/{name} leads to, before and after")
        (workspace / ".s0" / name).unlink()
    replica = machine.attach(volume, workspace)
    replica.stop()
    (workspace / ".s0" / "cookies").rmdir()
    brings("cookies", precious)
    machine.run("sync", "detach", workspace)
    check_equal(outside, disk_tree(precious), "what the cookies' link leads to, before and after")


def test_mistakes_at_the_command_line_are_explained(bench):
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)

    def refused(*arguments, saying, cwd=None, env=None):
        done = machine.run(*arguments, ok=False, cwd=cwd, env=env)
        said = done.stderr.decode()
        check(done.returncode not in (0, 101) and done.returncode > 0,
              f"s0 {' '.join(map(str, arguments))} ended with {done.returncode}: {said}")
        check("panicked" not in said, f"it panicked: {said}")
        check(any(word in said.lower() for word in saying),
              f"s0 {' '.join(map(str, arguments))} does not say which of {saying} it is: {said!r}")

    missing = machine.dir / "missing"
    workspace = machine.dir / "workspace"
    workspace.mkdir()
    refused("sync", "attach", "no-such-volume", workspace, saying=["not found", "does not know", "no volume",
                                                                   "no such volume", "unknown"])
    file = machine.dir / "file.txt"
    file.write_text("not a directory\n")
    refused("sync", "attach", volume.id, file, saying=["directory"])
    refused("sync", "status", cwd=missing.parent, saying=["attach", "workspace"])
    refused("sync", "frobnicate", saying=["frobnicate", "unrecognized"])
    refused("volume", "list", env={"SANDBOX0_BASE_URL": "http://127.0.0.1:1"},
            saying=["reach", "running", "connect"])
    refused("volume", "list", env={"SANDBOX0_BASE_URL": "nonsense"}, saying=["address", "http"])
    replica = machine.attach(volume, workspace)
    other = service.create_volume()
    refused("sync", "attach", other.id, workspace, saying=["attached", "already"])
    nested = workspace / "inside"
    nested.mkdir()
    refused("sync", "attach", other.id, nested, saying=["attached", "already", "inside", "within"])
    pid = replica.pid
    machine.run("sync", "attach", volume.id, workspace, ok=False)
    wait_until("the host is still there", lambda: replica.pid == pid, 5)
    replica.sync("conflicts", "list")
    refused("sync", "detach", "typo", cwd=workspace, saying=["typo"])
    refused("sync", "detach", nested, saying=["part of"])
    refused("sync", "stop", "-C", workspace / "typo", saying=["not a directory"])
    refused("sync", "conflicts", "resolve", "--take-theirs", os.fsdecode(b"odd-\xff"), cwd=workspace, saying=["utf-8"])
    refused("sync", "attach", volume.id, workspace, "--pause", "path", saying=["detach"])
    refused("volume", "delete", "no-such-volume", saying=["does not know"])
    refused("volume", "files", "rm", volume.id, "/none", saying=["nothing at"])
    refused("sync", "conflicts", "show", "none.txt", cwd=workspace, saying=["none.txt", "no conflict"])
    write(replica / "fine.txt", "still works\n")
    settle(replica)
    check_all_equal(volume, replica)
