"""The tests of the published client; `run.py` starts them."""
import argparse
import base64
import hashlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from datetime import datetime, timedelta, timezone

import published
from openapi_spec_validator import OpenAPIV31SpecValidator
from published import *  # noqa: F403
from published import Caller, changes_of, check, harness, is_set, model

from sandbox0 import APIError, Client
from sandbox0.apispec.models import *  # noqa: F403
from sandbox0.apispec.types import File


def equal(found, expected, what=""):
    check(found == expected, lambda: f"{what}: {found!r} and not {expected!r}")


def change(event, path, **more):
    return {"event_type": event, "path": path, **more}


def written(path, text):
    return change("write", path, content_base64=base64.b64encode(text).decode())


# ---- volumes, snapshots ------------------------------------------------------------------------------------


def test_volumes(me):
    volume = me.data(MADE, 201, body=CreateSandboxVolumeRequest(
        access_mode=VolumeAccessMode.RWX, default_posix_uid=5, default_posix_gid=6))
    equal((volume.access_mode, volume.default_posix_uid, volume.default_posix_gid), (VolumeAccessMode.RWX, 5, 6))
    equal((volume.team_id, volume.user_id, is_set(volume.source_volume_id)), ("local", "local", False))
    equal(me.data(GET, id=volume.id).to_dict(), volume.to_dict())
    check(volume.id in [one.id for one in me.data(LIST)], "it is listed")
    nobody = CreateSandboxVolumeRequest(default_posix_uid=-1, default_posix_gid=0)
    me.refused(MADE, 400, "bad_request", body=nobody)
    me.refused(GET, 404, "not_found", id="none")
    equal(me.data(DELETE, id=volume.id, force=True).deleted, True)
    equal(me.data(DELETE, id=volume.id).deleted, True, "again")
    me.refused(GET, 404, "not_found", id=volume.id)


def test_forks(me):
    source = me.volume(default_posix_uid=5, default_posix_gid=6)
    me.write(source, "/a", b"1")
    fork = me.data(FORK, 201, id=source, body=ForkVolumeRequest())
    equal((fork.source_volume_id, fork.default_posix_uid, fork.access_mode), (source, 5, VolumeAccessMode.RWO))
    me.write(source, "/a", b"2")
    equal(me.answer(READ, id=fork.id, path="a").content, b"1")
    me.refused(FORK, 400, "bad_request", id=source, body=ForkVolumeRequest(default_posix_gid=1))
    me.refused(FORK, 404, "not_found", "volume not found", id="none", body=ForkVolumeRequest())


def test_snapshots(me):
    volume = me.volume()
    me.write(volume, "a", b"12345")
    equal(me.data(TAKEN, id=volume), [])
    taken = me.data(TAKE, 201, id=volume, body=CreateSnapshotRequest(name="n", description="d"))
    equal((taken.name, taken.description, taken.size_bytes, taken.volume_id), ("n", "d", 5, volume))
    equal([one.id for one in me.data(TAKEN, id=volume)], [taken.id])
    equal(me.data(ONE, id=volume, snapshot_id=taken.id).to_dict(), taken.to_dict())
    me.write(volume, "a", b"other")
    me.answer(RESTORE, id=volume, snapshot_id=taken.id)
    equal(me.answer(READ, id=volume, path="a").content, b"12345")
    me.refused(TAKE, 400, "bad_request", id=volume, body=CreateSnapshotRequest(name=" "))
    me.refused(TAKE, 404, "not_found", "volume not found", id="none", body=CreateSnapshotRequest(name="n"))
    me.refused(TAKEN, 404, "not_found", "volume not found", id="none")
    for operation in (ONE, RESTORE):
        me.refused(operation, 404, "not_found", "snapshot not found", id=volume, snapshot_id="none")
    for snapshot in (taken.id, "none"):
        equal(me.data(FORGET, id=volume, snapshot_id=snapshot).deleted, True)
    me.refused(FORGET, 404, "not_found", id="none", snapshot_id="none")


# ---- files -------------------------------------------------------------------------------------------------


def test_files(me):
    volume = me.volume()
    equal(me.write(volume, "/d/f.txt", b"hello").data.written, True)
    equal(me.answer(READ, id=volume, path=" d//x/../f.txt").content, b"hello")
    info = me.data(STAT, id=volume, path="d/f.txt")
    equal((info.name, info.path, info.type_, info.size, info.mode, info.is_link),
          ("f.txt", "/d/f.txt", FileInfoType.FILE, 5, "0644", False))
    check(abs(info.mod_time - datetime.now(timezone.utc)) < timedelta(minutes=5), lambda: info.mod_time)
    entries = me.data(DIRECTORY, id=volume, path="/").entries
    equal([(one.name, one.type_) for one in entries], [("d", FileInfoType.DIR)])
    made = me.answer(WRITE, 201, id=volume, path="n/e/w", mkdir=True, recursive=True, body=File(payload=io.BytesIO()))
    equal(made.parsed.data.created, True)
    equal(me.data(MOVE, id=volume, body=MoveFileRequest(source="d/f.txt", destination="n/g")).moved, True)
    nothing = File(payload=io.BytesIO())
    for operation, status, code, arguments in [
            (READ, 400, "bad_request", dict(path="")),
            (READ, 404, "not_found", dict(path="none")),
            (READ, 409, "conflict", dict(path="n")),
            (STAT, 404, "not_found", dict(path="none")),
            (STAT, 409, "conflict", dict(path="n/g/below")),
            (DIRECTORY, 404, "not_found", dict(path="none")),
            (DIRECTORY, 409, "conflict", dict(path="n/g")),
            (WRITE, 400, "bad_request", dict(path="/", body=nothing)),
            (WRITE, 409, "conflict", dict(path="n", body=nothing)),
            (WRITE, 409, "conflict", dict(path="n", mkdir=True, body=nothing)),
            (WRITE, 404, "not_found", dict(path="x/y", mkdir=True, body=nothing)),
            (MOVE, 404, "not_found", dict(body=MoveFileRequest(source="none", destination="x"))),
            (MOVE, 400, "bad_request", dict(body=MoveFileRequest(source="", destination="x"))),
            (REMOVE, 400, "bad_request", dict(path="/")),
            (READ, 404, "not_found", dict(id="none", path="x"))]:
        me.refused(operation, status, code, **{"id": volume, **arguments})
    for path in ("n", "n"):
        equal(me.data(REMOVE, id=volume, path=path).deleted, True)
    me.refused(READ, 404, "not_found", "file not found", id=volume, path="n/g")


def test_a_large_file(me):
    volume = me.volume()
    large = os.urandom(3_000_000)
    me.write(volume, "large", large)
    equal(hashlib.sha256(me.answer(READ, id=volume, path="large").content).digest(), hashlib.sha256(large).digest())
    me.refused(WRITE, 413, "bad_request", "file too large", id=volume, path="huge",
               body=File(payload=io.BytesIO(bytes(104_857_601))))


def test_clones(me):
    source, target = me.volume(), me.volume()
    me.write(source, "f", b"shared")

    def request(to, **more):
        entry = CloneVolumeFileEntry(source_volume_id=source, source_path="f", target_path=to, **more)
        return CloneVolumeFilesRequest(entries=[entry])

    cloned = me.data(CLONE, id=target, body=request("a/b", create_parents=True)).entries[0]
    equal((cloned.mode, cloned.size_bytes, cloned.target_path), (CloneVolumeFileResultMode.COW, 6, "a/b"))
    equal(me.answer(READ, id=target, path="a/b").content, b"shared")
    me.refused(CLONE, 409, "conflict", "path already exists", id=target, body=request("a/b"))
    me.refused(CLONE, 404, "not_found", id=target, body=request("n/x"))
    me.refused(CLONE, 400, "bad_request", id=target, body=CloneVolumeFilesRequest(entries=[]))


def test_watching(me):
    volume = me.volume()
    client = Client(token=me.service.token, base_url=me.service.url)
    stream = client.volumes.watch_files(volume, "/d", recursive=True)
    published.SEEN[WATCH].add(101)
    me.write(volume, "elsewhere", b"1")
    me.write(volume, "d/f", b"1")
    me.data(MOVE, id=volume, body=MoveFileRequest(source="d/f", destination="d/g"))
    me.data(REMOVE, id=volume, path="d")
    told = []
    for event in stream.iter_events():
        equal((event.type, event.watch_id), ("event", stream.watch_id))
        told.append((event.event, event.path))
        if told[-1] == ("remove", "/d"):
            break
    equal(told, [("create", "/d"), ("create", "/d/f"), ("rename", "/d/g"), ("remove", "/d/g"), ("remove", "/d")])
    stream.unsubscribe()
    try:
        client.volumes.watch_files(volume, "C:/x")
        raise harness.Failed("a bad path was watched")
    except APIError as error:
        check("invalid path" in error.message, error)
    # Without an upgrade it is a request like any other.
    me.refused(WATCH, 400, "bad_request", id=volume)
    me.refused(WATCH, 404, "not_found", id="none")
    client.close()


# ---- sync --------------------------------------------------------------------------------------------------


def test_replicas(me):
    volume = me.volume()
    told = me.register(volume, "a", display_name="mine", platform="linux", root_path="/w")
    equal((told.replica.id, told.replica.display_name, told.replica.last_applied_seq, told.head_seq), ("a", "mine", 0, 0))
    folding = VolumeSyncFilesystemCapabilities(
        case_sensitive=False, unicode_normalization_insensitive=False, windows_compatible_paths=False)
    told = me.register(volume, "b", capabilities=folding).replica.capabilities
    equal((told.case_sensitive, told.unicode_normalization_insensitive), (False, True), "one implies the other")
    equal(me.data(REPLICA, id=volume, replica_id="a").replica.case_sensitive, False, "the policy is merged")
    me.write(volume, "x", b"1")

    def to(seq):
        return dict(id=volume, replica_id="a", body=UpdateSyncReplicaCursorRequest(last_applied_seq=seq))

    equal(me.data(CURSOR, **to(1)).replica.last_applied_seq, 1)
    me.refused(CURSOR, 409, "conflict", "sync cursor ahead of head", **to(2))
    me.refused(CURSOR, 409, "conflict", "sync cursor regression", **to(0))
    me.refused(CURSOR, 400, "bad_request", **to(-1))
    me.refused(REPLICA, 404, "not_found", "not found", id=volume, replica_id="none")
    me.refused(REGISTER, 404, "not_found", "not found", id="none", replica_id="a", body=UpsertSyncReplicaRequest())
    me.refused(CURSOR, 404, "not_found", **{**to(0), "replica_id": "none"})


def test_the_journal(me):
    volume = me.volume()
    me.register(volume, "a")
    done = me.upload(volume, "a", "1", 0, [
        change("create", "/d", entry_kind="directory"),
        {**written("/d/f", b"one"), "mode": 0o755, "metadata": {"by": "hand"}},
        change("rename", "/d/g", old_path="/d/f"),
        change("chmod", "/d/g", mode=0o600),
        change("remove", "/none"),
        change("invalidate", "/"),
    ])
    equal((done.head_seq, len(done.accepted), done.conflicts), (4, 4, []))
    listed = me.data(CHANGES, id=volume, after=0, limit=3)
    equal((listed.head_seq, listed.retained_after_seq, [one.seq for one in listed.changes]), (4, 0, [1, 2, 3]))
    equal([one.to_dict() for one in listed.changes], [one.to_dict() for one in done.accepted[:3]])
    file, renamed = listed.changes[1:]
    equal((file.event_type, file.source, file.replica_id, file.mode, file.entry_kind),
          (SyncEventType.CREATE, SyncJournalEntrySource.REPLICA, "a", 0o755, SyncJournalEntryEntryKind.FILE))
    digest = hashlib.sha256(b"one").hexdigest()
    equal((file.content_ref, file.content_sha256, file.size_bytes), (f"sha256:{digest}", digest, 3))
    equal(file.metadata.to_dict(), {"by": "hand"})
    equal((renamed.path, renamed.old_path), ("/d/g", "/d/f"))
    equal(me.answer(PAYLOAD, id=volume, content_ref=file.content_ref).content, b"one")
    me.refused(PAYLOAD, 400, "bad_request", "invalid sync replay payload reference", id=volume, content_ref="sha256:1")
    me.refused(PAYLOAD, 404, "not_found", "not found", id=volume, content_ref="sha256:" + "0" * 64)
    equal(me.data(CHANGES, id=volume, after=99).changes, [])
    me.refused(CHANGES, 400, "bad_request", id=volume, after="x")
    # What the client has no word for does not break it.
    link = change("create", "/l", entry_kind="symlink", link_target="d")
    me.service.http.data("POST", f"/api/v1/sandboxvolumes/{volume}/sync/replicas/a/changes",
                         value={"request_id": "l", "base_seq": 4, "changes": [link]})
    equal(me.data(CHANGES, id=volume, after=4).changes[0].event_type, SyncEventType.INVALIDATE)


def test_uploads(me):
    volume = me.volume()
    for replica in ("a", "b"):
        me.register(volume, replica)
    first = me.upload(volume, "a", "q", 0, [written("/x", b"theirs")])
    equal(me.upload(volume, "a", "q", 0, [written("/x", b"theirs")]).to_dict(), first.to_dict(), "it is answered again")

    def request(name, base, *changes, replica="a"):
        return dict(id=volume, replica_id=replica, body=changes_of(name, base, list(changes)))

    me.refused(UPLOAD, 409, "conflict", "sync request id reused with different payload", **request("q", 0))
    me.refused(UPLOAD, 409, "conflict", "sync cursor ahead of head", **request("r", 5))
    me.refused(UPLOAD, 404, "not_found", "not found", **request("r", 0, replica="none"))
    me.refused(UPLOAD, 400, "bad_request", "invalid sync request id", **request("", 0))
    for bad in (change("remove", "/../x"), change("remove", "/"), {**written("/y", b"1"), "size_bytes": 2},
                {**written("/y", b"1"), "content_sha256": "0" * 64}, change("write", "/y"), change("chmod", "/x")):
        me.refused(UPLOAD, 400, "bad_request", **request("bad", 1, bad))
    done = me.upload(volume, "b", "1", 0, [written("/x", b"mine"), written("/y", b"mine")])
    equal([one.path for one in done.accepted], ["/y"], "one conflict stops nothing else")
    conflict = done.conflicts[0]
    equal((conflict.path, conflict.reason, conflict.status, conflict.replica_id, conflict.existing_seq),
          ("/x", "concurrent_update", "open", "b", 1))
    kept = conflict.metadata["content_ref"]
    equal(me.answer(PAYLOAD, id=volume, content_ref=kept).content, b"mine", "what lost is kept")


def test_conflicts(me):
    volume = me.volume()
    for replica in ("a", "b"):
        me.register(volume, replica)
    me.upload(volume, "a", "1", 0, [written("/x", b"1"), written("/y", b"1")])
    me.upload(volume, "b", "1", 0, [written("/x", b"2"), written("/y", b"2")])
    listed = me.data(CONFLICTS, id=volume).conflicts
    equal([one.path for one in listed], ["/y", "/x"], "newest first")
    equal(len(me.data(CONFLICTS, id=volume, limit=1).conflicts), 1)
    resolved, ignored = (ResolveVolumeSyncConflictRequestStatus(one) for one in ("resolved", "ignored"))
    settled = me.data(SETTLE, id=volume, conflict_id=listed[0].id, body=ResolveVolumeSyncConflictRequest(
        status=resolved, resolution="keep", note="n"))
    equal((settled.status, settled.metadata["resolution"], settled.metadata["note"]), ("resolved", "keep", "n"))
    body = ResolveVolumeSyncConflictRequest(status=ignored)
    equal(me.data(SETTLE, id=volume, conflict_id=listed[1].id, body=body).status, "ignored")
    for status, count in (("open", 0), ("resolved", 1), ("ignored", 1), ("odd", 0)):
        equal(len(me.data(CONFLICTS, id=volume, status=status).conflicts), count, status)
    me.refused(SETTLE, 404, "not_found", "not found", id=volume, conflict_id="none", body=body)
    wrong = model("ResolveVolumeSyncConflictRequest")(status=resolved)
    wrong.status = type("Open", (), {"value": "open"})
    me.refused(SETTLE, 400, "bad_request", "invalid sync conflict status",
               id=volume, conflict_id=listed[0].id, body=wrong)
    me.refused(CONFLICTS, 400, "bad_request", id=volume, limit="x")


def test_bootstraps(me):
    volume = me.volume()
    me.write(volume, "d/f", b"content")
    told = me.data(BOOTSTRAP, 201, id=volume, body=CreateVolumeSyncBootstrapRequest(snapshot_name="mine"))
    equal((told.snapshot.name, told.replay_after_seq), ("mine", 2))
    archive = me.answer(ARCHIVE, id=volume, snapshot_id=told.snapshot.id).content
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        equal(tar.getnames(), ["d", "d/f"])
        equal(tar.extractfile("d/f").read(), b"content")
    check(told.archive_download_path.endswith(told.snapshot.id), told.archive_download_path)
    me.refused(ARCHIVE, 400, "bad_request", id=volume, snapshot_id="")
    me.refused(ARCHIVE, 404, "not_found", "snapshot not found", id=volume, snapshot_id="none")
    for path in ("A", "a"):
        me.write(volume, path, b"1")
    folding = CreateVolumeSyncBootstrapRequest(case_sensitive=False)
    said = me.answer(BOOTSTRAP, 409, id=volume, body=folding).parsed
    check(isinstance(said, VolumeSyncBootstrapConflictErrorEnvelope), lambda: said)
    details = said.to_dict()["error"]["details"]
    equal(details["reason"], "namespace_incompatible")
    equal([(one["code"], one["paths"]) for one in details["issues"]], [("casefold_collision", ["/A", "/a"])])
    me.refused(BOOTSTRAP, 404, "not_found", id="none", body=folding)


def test_reseeds(me):
    """A fork retains nothing of its source's journal: whoever reads from before it starts over."""
    source = me.volume()
    me.write(source, "a", b"1")
    me.write(source, "b", b"1")
    fork = me.data(FORK, 201, id=source, body=ForkVolumeRequest()).id
    me.register(fork, "r")
    cursor = UpdateSyncReplicaCursorRequest(last_applied_seq=1)
    for operation, arguments in ((CHANGES, dict(after=1)), (CURSOR, dict(replica_id="r", body=cursor)),
                                 (UPLOAD, dict(replica_id="r", body=changes_of("1", 1, [])))):
        said = me.answer(operation, 409, id=fork, **arguments).parsed.to_dict()["error"]
        equal(said["message"], "sync reseed required", operation)
        equal(said["details"], {"reason": "reseed_required", "retained_after_seq": 2, "head_seq": 2}, operation)


# ---- tokens, health ----------------------------------------------------------------------------------------


def test_tokens(me):
    made = me.data(MAKE_KEY, 201, body=CreateAPIKeyRequest(name="ci", roles=["viewer"], expires_in="30d"))
    equal((made.roles, made.team_id, made.scope), (["viewer"], "local", "team"))
    equal((made.expires_at - made.created_at).days, 30)
    viewer = Caller(me.service, made.key)
    own = viewer.data(OWN_KEY).api_key
    equal((own.id, own.permissions), (made.id, ["sandboxvolume:read", "sandboxvolumefile:read"]))
    viewer.answer(LIST)
    viewer.refused(MADE, 403, "forbidden", "insufficient permissions", body=CreateSandboxVolumeRequest())
    viewer.refused(MAKE_KEY, 403, "forbidden", body=CreateAPIKeyRequest(name="more"))
    viewer.refused(KEYS, 403, "forbidden")
    viewer.refused(END_KEY, 403, "forbidden", id=made.id)
    viewer.refused(DELETE_KEY, 403, "forbidden", id=made.id)
    me.refused(MAKE_KEY, 400, "bad_request", body=CreateAPIKeyRequest(name="x", roles=["king"]))
    forever = me.data(MAKE_KEY, 201, body=CreateAPIKeyRequest(name="x", expires_in="never"))
    equal(forever.expires_at.year, 9999)
    check({made.id, forever.id} <= {one.id for one in me.data(KEYS).api_keys}, "they are listed")
    me.answer(END_KEY, id=made.id)
    viewer.refused(OWN_KEY, 401, "unauthorized", "the token was revoked")
    viewer.refused(LIST, 401, "unauthorized")
    me.answer(DELETE_KEY, id=made.id)
    for operation in (END_KEY, DELETE_KEY):
        me.refused(operation, 404, "not_found", id=made.id)


def test_the_command_line_makes_tokens(me):
    def s0(*arguments):
        more = {"SANDBOX0_BASE_URL": me.service.url, "SANDBOX0_TOKEN": me.service.token,
                "S0_STATE_DIR": str(me.service.bench.dir / "state")}
        done = subprocess.run([harness.BIN, *arguments], env=me.service.bench.environment(**more), text=True,
                              capture_output=True, timeout=60)
        equal((done.returncode, done.stderr), (0, ""), arguments)
        return done.stdout.strip()

    key = s0("token", "create", "for ci", "--role", "viewer", "--expires-in", "30d", "--team", "cli")
    own = Caller(me.service, key).data(OWN_KEY).api_key
    equal((own.team_id, own.roles), ("cli", ["viewer"]))
    row = next(line for line in s0("token", "list").splitlines() if own.id in line)
    check("for ci" in row and "viewer" in row and key not in row, row)
    s0("token", "revoke", own.id)
    Caller(me.service, key).refused(OWN_KEY, 401, "unauthorized")


def test_teams_are_apart(me):
    made = me.service.http.data("POST", "/api-keys", value={"name": "o", "roles": ["admin"], "team_id": "others"})
    other = Caller(me.service, made["key"])
    volume = me.volume()
    me.write(volume, "x", b"1")
    theirs = other.volume()
    equal([one.id for one in other.data(LIST)], [theirs])
    for operation, arguments in ((GET, {}), (DELETE, {}), (READ, dict(path="x")), (TAKEN, {}), (CHANGES, {}),
                                 (FORK, dict(body=ForkVolumeRequest())), (REPLICA, dict(replica_id="a"))):
        other.refused(operation, 404, "not_found", id=volume, **arguments)
    entry = CloneVolumeFileEntry(source_volume_id=volume, source_path="x", target_path="x")
    other.refused(CLONE, 404, "not_found", id=theirs, body=CloneVolumeFilesRequest(entries=[entry]))


def test_without_a_token(me):
    nobody = Caller(me.service, "s0_local_wrong")
    volume = me.volume()
    for operation, arguments in ((LIST, {}), (GET, dict(id=volume)), (READ, dict(id=volume, path="x")),
                                 (CHANGES, dict(id=volume)), (KEYS, {}), (WATCH, dict(id=volume))):
        nobody.refused(operation, 401, "unauthorized", **arguments)


def test_health(me):
    nobody = Caller(me.service, "wrong")
    for operation in ("health.get_healthz", "health.get_readyz"):
        told = nobody.data(operation)
        equal(told.status, "ok")
        check(abs(told.timestamp - time.time()) < 300, told)


# ---- as most people use it ---------------------------------------------------------------------------------


def test_the_client_that_people_use(me):
    """The hand-written face of the package, on top of the generated one."""
    with Client(token=me.service.token, base_url=me.service.url) as client:
        volumes = client.volumes
        with volumes.open(CreateSandboxVolumeRequest()) as session:
            volume = session.volume.id if hasattr(session, "volume") else session.id
            volumes.write_file(volume, "/a/b.txt", b"text")
            volumes.mkdir(volume, "/c/d", recursive=True)
            equal(volumes.read_file(volume, "/a/b.txt"), b"text")
            equal(volumes.stat_file(volume, "/a/b.txt").size, 4)
            equal(sorted(one.name for one in volumes.list_files(volume, "/")), ["a", "c"])
            snapshot = volumes.create_snapshot(volume, CreateSnapshotRequest(name="n"))
            volumes.move_file(volume, "/a/b.txt", "/c/b.txt")
            volumes.delete_file(volume, "/a")
            volumes.restore_snapshot(volume, snapshot.id)
            equal(volumes.read_file(volume, "/a/b.txt"), b"text")
            equal([one.id for one in volumes.list_snapshots(volume)], [snapshot.id])
            equal(volumes.get_snapshot(volume, snapshot.id).name, "n")
            volumes.delete_snapshot(volume, snapshot.id)
            fork = volumes.fork(volume)
            entry = CloneVolumeFileEntry(source_volume_id=volume, source_path="/a/b.txt", target_path="/clone")
            equal(volumes.clone_files(fork.id, CloneVolumeFilesRequest(entries=[entry]))[0].size_bytes, 4)
            check({volume, fork.id} <= {one.id for one in volumes.list()}, "both are listed")
        try:
            volumes.get(volume)
            raise harness.Failed("the session has deleted its volume")
        except APIError as error:
            equal((error.status_code, error.code), (404, "not_found"))


# ---- the description ---------------------------------------------------------------------------------------


def test_the_description_is_valid_and_has_every_driven_operation(me):
    described = json.loads(me.service.http.raw("GET", "/openapi.json")[1])
    problems = [error.message for error in OpenAPIV31SpecValidator(described).iter_errors()]
    equal(problems, [])
    there = {(method, re.sub(r"{.*?}", "{}", path)) for path, item in described["paths"].items() for method in item}
    for operation in published.OPERATIONS["driven"]:
        source = inspect.getsource(published.module(operation)._get_kwargs)
        method, path = (re.search(rf'"{key}": "(.*?)"', source)[1] for key in ("method", "url"))
        check((method, re.sub(r"{.*?}", "{}", path)) in there, lambda: f"{operation} is not described")


# ---- that nothing is left out; these come last -------------------------------------------------------------


def test_every_operation_of_the_package_is_driven_or_excluded_with_a_reason(_me):
    excluded = published.OPERATIONS["excluded"]
    for group in excluded:
        check(len(group["because"]) > 20 and group["operations"], lambda: f"without a reason: {group}")
    named = [*published.OPERATIONS["driven"], *(one for group in excluded for one in group["operations"])]
    check(len(named) == len(set(named)), "an operation is named twice")
    there = published.operations()
    equal((there - set(named), set(named) - there), (set(), set()), "new, and gone")


def test_every_driven_operation_has_succeeded_and_was_refused(_me):
    # What cannot be refused: health wants no token and knows nothing.
    never_refused = {"health.get_healthz", "health.get_readyz"}
    for operation in published.OPERATIONS["driven"]:
        seen = published.SEEN[operation]
        check(any(status < 400 for status in seen), lambda: f"{operation} never succeeded: {seen}")
        check(operation in never_refused or any(status >= 400 for status in seen), lambda: f"{operation}: {seen}")
    equal(set(published.SEEN) - set(published.OPERATIONS["driven"]), set(), "driven, and not named")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", dest="only", default="", help="only tests whose name contains this")
    only = parser.parse_args().only.replace(" ", "_")
    chosen = [(name, test) for name, test in globals().items() if name.startswith("test_") and only in name]
    if not os.access(harness.BIN, os.X_OK):
        print(f"{harness.BIN} is missing: cargo build --bin s0, or set S0_BIN")
        print("0 passed, 1 failed")
        return 1
    bench = harness.Bench("api")
    passed = 0
    try:
        me = Caller(bench.service())
        for name, test in chosen:
            started, why = time.monotonic(), ""
            # A test that hangs ends the run, with its name.
            watchdog = threading.Timer(120 * harness.PATIENCE, overtime, [name, bench])
            watchdog.daemon = True
            watchdog.start()
            try:
                test(me)
                passed += 1
            except Exception:  # noqa: BLE001 - whatever it was, the other tests go on
                why = traceback.format_exc()
            watchdog.cancel()
            mark = "FAIL" if why else "ok  "
            said = name.removeprefix("test_").replace("_", " ")
            print(f"{mark} {said} ({time.monotonic() - started:.1f} s)", flush=True)
            if why:
                print("     " + why.rstrip().replace("\n", "\n     "), flush=True)
        if passed < len(chosen):
            print("\n".join(bench.logs()))
    finally:
        bench.close()
    print(f"{passed} passed, {len(chosen) - passed} failed")
    return 0 if chosen and passed == len(chosen) else 1


def overtime(name, bench):
    print(f"FAIL {name} took longer than any test may\n0 passed, 1 failed", flush=True)
    bench.close()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
