"""The published client, and what it is asked through: each call is checked and noted."""
import collections
import importlib
import json
import pathlib
import re
import sys
import tomllib

from sandbox0 import apispec
from sandbox0.apispec.client import AuthenticatedClient
from sandbox0.apispec.types import UNSET, File

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import harness  # noqa: E402
from harness import check  # noqa: E402

# Short names of operations: the last part tells most of them apart.
OPERATIONS = tomllib.loads((HERE / "operations.toml").read_text())
# operation -> the statuses that were answered
SEEN = collections.defaultdict(set)

VOLUMES = "sandbox_volumes.{}_api_v1_sandboxvolumes"
FILES = "files.{}_api_v1_sandboxvolumes_id_files"
SNAPSHOTS = "snapshots.{}_api_v1_sandboxvolumes_id_snapshots"
SYNC = "volume_sync.{}_api_v1_sandboxvolumes_id_sync"

MADE, LIST, GET, DELETE, FORK = (VOLUMES.format("post"), VOLUMES.format("get"), VOLUMES.format("get") + "_id",
                                 VOLUMES.format("delete") + "_id", VOLUMES.format("post") + "_id_fork")
READ, WRITE, REMOVE = (FILES.format(method) for method in ("get", "post", "delete"))
STAT, DIRECTORY, WATCH = (FILES.format("get") + what for what in ("_stat", "_list", "_watch"))
MOVE, CLONE = (FILES.format("post") + what for what in ("_move", "_clone"))
TAKE, TAKEN, ONE, FORGET, RESTORE = (SNAPSHOTS.format("post"), SNAPSHOTS.format("get"),
                                     SNAPSHOTS.format("get") + "_snapshot_id", SNAPSHOTS.format("delete") + "_snapshot_id",
                                     SNAPSHOTS.format("post") + "_snapshot_id_restore")
REGISTER, REPLICA, CURSOR, UPLOAD = (SYNC.format("put") + "_replicas_replica_id", SYNC.format("get") + "_replicas_replica_id",
                                     SYNC.format("put") + "_replicas_replica_id_cursor",
                                     SYNC.format("post") + "_replicas_replica_id_changes")
CHANGES, PAYLOAD, BOOTSTRAP, ARCHIVE = (SYNC.format("get") + "_changes", SYNC.format("get") + "_replay_payload",
                                        SYNC.format("post") + "_bootstrap", SYNC.format("get") + "_bootstrap_archive")
CONFLICTS, SETTLE = SYNC.format("get") + "_conflicts", SYNC.format("put") + "_conflicts_conflict_id"
KEYS, MAKE_KEY, OWN_KEY = "api_keys.get_api_keys", "api_keys.post_api_keys", "api_keys.get_api_keys_current"
END_KEY, DELETE_KEY = "api_keys.post_api_keys_id_deactivate", "api_keys.delete_api_keys_id"


def model(name):
    """A model of the client, by the name of its class."""
    return getattr(apispec.models, name)


def operations():
    """Every operation that the installed package has."""
    place = pathlib.Path(apispec.__file__).parent / "api"
    return {f"{path.parent.name}.{path.stem}" for path in place.glob("*/*.py") if path.stem != "__init__"}


def module(operation):
    return importlib.import_module(f"sandbox0.apispec.api.{operation}")


def alike(value):
    """A JSON value with all times in one spelling: the client rewrites them."""
    if isinstance(value, dict):
        return {key: alike(one) for key, one in value.items()}
    if isinstance(value, list):
        return [alike(one) for one in value]
    moment = isinstance(value, str) and re.fullmatch(
        r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|\+00:00)", value)
    return moment[1] + (moment[2] or "").rstrip("0").rstrip(".") if moment else value


class Caller:
    """One who asks with a token."""

    def __init__(self, service, token=None):
        self.service = service
        self.api = AuthenticatedClient(base_url=service.url, token=service.token if token is None else token)

    def answer(self, operation, expected=200, /, **arguments):
        """Calls an operation; the status must be this one, and the client must have understood all of it."""
        said = module(operation).sync_detailed(client=self.api, **arguments)
        SEEN[operation].add(int(said.status_code))
        got = int(said.status_code)
        check(got == expected, lambda: f"{operation}: {got} and not {expected}: {said.content!r}")
        if said.headers.get("content-type", "").startswith("application/json"):
            body = json.loads(said.content)
            check(body["success"] is (got < 400), lambda: f"{operation}: {body}")
            if said.parsed is not None and not isinstance(said.parsed, File):
                understood = said.parsed.to_dict()
                check(alike(understood) == alike(body), lambda: f"{operation}: understood\n{understood}\nof\n{body}")
            else:
                check(got >= 400, lambda: f"{operation}: the client did not understand {body}")
        return said

    def data(self, operation, expected=200, /, **arguments):
        """The data of a success, as the client understood it."""
        return self.answer(operation, expected, **arguments).parsed.data

    def refused(self, operation, expected, code, message=None, /, **arguments):
        """Calls an operation that must be refused like this; gives the error's details."""
        said = self.answer(operation, expected, **arguments)
        error = json.loads(said.content)["error"]
        check(error["code"] == code, lambda: f"{operation}: {error}")
        check(message is None or error["message"] == message, lambda: f"{operation}: {error}")
        return error.get("details")

    def volume(self, **fields):
        return self.data(MADE, 201, body=model("CreateSandboxVolumeRequest")(**fields)).id

    def write(self, volume, path, data=b""):
        from io import BytesIO
        return self.answer(WRITE, id=volume, path=path, body=File(payload=BytesIO(data))).parsed

    def register(self, volume, replica, **fields):
        fields.setdefault("case_sensitive", True)
        return self.data(REGISTER, id=volume, replica_id=replica, body=model("UpsertSyncReplicaRequest")(**fields))

    def upload(self, volume, replica, request, base, changes):
        return self.data(UPLOAD, id=volume, replica_id=replica, body=changes_of(request, base, changes))


def changes_of(request, base, changes):
    """A request with changes, from plain dictionaries."""
    return model("AppendReplicaChangesRequest").from_dict({"request_id": request, "base_seq": base, "changes": changes})


def is_set(value):
    return value is not UNSET and value is not None
