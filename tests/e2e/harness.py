"""What the scenarios are made of: services, machines, replicas, trees, and waiting.

Everything runs as users have it: the program `s0` (from `S0_BIN`), started in processes of its own, and the
documented HTTP API. Nothing here sleeps and hopes. `wait_until` waits for a condition and says, when its time
is up, what it last saw. `S0_TEST_PATIENCE=3` makes every time limit three times as long, for slow machines.
"""
import contextlib
import hashlib
import http.client
import io
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import tempfile
import threading
import time
from urllib.parse import quote, urlencode, urlsplit

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("S0_BIN") or str(ROOT / "target" / "debug" / "s0")
PATIENCE = float(os.environ.get("S0_TEST_PATIENCE", "1"))
# Never synced, so never compared: version control, and the replica's own directory.
LEFT_OUT = {".git", ".s0"}


class Failed(AssertionError):
    """A check did not hold."""


class Skip(Exception):
    """This machine cannot run the test; the text says what it lacks."""


def check(condition, said):
    """Fails the test unless the condition holds."""
    if not condition:
        raise Failed(said() if callable(said) else said)


def wait_until(what, condition, seconds=30.0, every=0.02):
    """Waits until `condition()` is true and gives what it returned."""
    limit = seconds * PATIENCE
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"after {limit:.0f} s still not: {what} (last seen: {value!r})")
        time.sleep(every)


# ---- processes ---------------------------------------------------------------------------------------------


def is_running(pid):
    """Whether a process is there and not merely waiting to be buried."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def peak_memory(pid):
    """The most memory that a process ever had resident, in MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise Failed(f"process {pid} does not say how much memory it has")


def reset_peak_memory(pid):
    """Makes `peak_memory` count from now on."""
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid):
    """The processor time that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end(pid, how=signal.SIGKILL, seconds=10):
    """Ends one process, by its id, and waits until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
    wait_until(f"process {pid} ends", lambda: not is_running(pid), seconds, every=0.005)


# ---- trees -------------------------------------------------------------------------------------------------


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def disk_tree(root, only=None):
    """What a directory holds: path -> what is there. Files by SHA-256 and mode, links by target.

    `only` narrows it to these paths (of files and links)."""
    root = pathlib.Path(root)
    found = {}
    if only is not None:
        for name in only:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[name] = _on_disk(root / name)
        return found
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for entry in os.scandir(root / folder):
            if entry.name in LEFT_OUT:
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                found[name] = ("directory",)
                waiting.append(name)
            else:
                found[name] = _on_disk(entry.path)
    return found


def _on_disk(path):
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(info.st_mode):
        return ("directory",)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ("file", digest, oct(info.st_mode & 0o777))


def files_of(tree):
    """A tree without its directories."""
    return {path: what for path, what in tree.items() if what[0] != "directory"}


def differences(one, other, limit=12):
    """The first differences of two trees, in words; empty when they are equal."""
    said = []
    for path in sorted(set(one) | set(other)):
        if one.get(path) != other.get(path):
            said.append(f"{path}: {one.get(path, 'absent')} / {other.get(path, 'absent')}")
    return said[:limit] + ([f"… {len(said)} in all"] if len(said) > limit else [])


def check_equal(one, other, names):
    """Fails unless two trees are equal."""
    found = differences(one, other)
    check(not found, lambda: f"{names} differ:\n  " + "\n  ".join(found))


def write(path, data):
    """Writes a file, as the simplest program would."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


# ---- the service and its API -------------------------------------------------------------------------------


class HttpError(Exception):
    """The service answered with an error."""

    def __init__(self, method, path, status, body):
        super().__init__(f"{method} {path}: {status} {body[:300]!r}")
        self.status, self.body = status, body

    @property
    def error(self):
        """The documented inner part: code, message, details."""
        return json.loads(self.body)["error"]


class Http:
    """HTTP with one kept connection for each thread."""

    def __init__(self, url, token):
        self.url, self.token = url, token
        self.local = threading.local()

    def raw(self, method, path, query=None, body=None, headers=None, timeout=60):
        """Sends a request; gives status and body. Failures of the network are raised as OSError."""
        if query:
            path += "?" + urlencode(query, quote_via=quote)
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent.update(headers or {})
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            fresh = connection is None
            if fresh:
                host = urlsplit(self.url)
                connection = http.client.HTTPConnection(host.hostname, host.port, timeout=timeout)
                self.local.connection = connection
            try:
                connection.request(method, path, body, sent)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                self.local.connection = None
                # A kept connection may have been closed in between; a new one says the truth.
                if fresh or attempt == 2:
                    raise OSError(str(error) or type(error).__name__) from error

    def call(self, method, path, query=None, body=None, headers=None):
        """Sends a request that must succeed; gives the body."""
        status, answer = self.raw(method, path, query, body, headers)
        if not 200 <= status < 300:
            raise HttpError(method, path, status, answer)
        return answer

    def data(self, method, path, query=None, value=None):
        """Sends JSON, and takes the data out of the envelope."""
        body = None if value is None else json.dumps(value).encode()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        return json.loads(self.call(method, path, query, body, headers)).get("data")


class Service:
    """One `s0 serve`. Its port stays the same when it is started again."""

    def __init__(self, bench, name="service", **flags):
        self.bench, self.name = bench, name
        self.data = bench.dir / name
        self.log = bench.dir / f"{name}.log"
        self.flags = flags
        self.process = self.url = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self):
        check(self.process is None, "the service runs already")
        command = [BIN, "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(self.data)]
        flags = dict(self.flags)
        log_level = flags.pop("log", None)
        more = {"S0_LOG": log_level} if log_level else {}
        for flag, value in flags.items():
            command += ["--" + flag.replace("_", "-"), str(value)]
        said = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=self.bench.environment(S0_DATA_DIR=str(self.data), **more), start_new_session=True)

        def listening():
            check(self.process.poll() is None,
                  lambda: f"the service ended with {self.process.returncode}:\n{self.log.read_text()}")
            for line in self.log.read_bytes()[said:].decode(errors="replace").splitlines():
                if "listening on http://" in line:
                    return "http://" + line.split("listening on http://")[1].split()[0].rstrip("/")
            return None

        self.url = wait_until("the service listens", listening)
        wait_until("the service has a token", (self.data / "token").exists)
        self.http = Http(self.url, (self.data / "token").read_text().strip())
        return self

    @property
    def token(self):
        return self.http.token

    def kill(self):
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """Ends it politely; it must go by itself."""
        self.process.terminate()
        code = self.process.wait(20 * PATIENCE)
        self.process = None
        return code

    @contextlib.contextmanager
    def frozen(self):
        """The service stands still: what is written meanwhile is written unseen by others."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def create_volume(self):
        return Volume(self, self.http.data("POST", "/api/v1/sandboxvolumes", value={})["id"])


class Volume:
    """A Volume, through the documented API. Paths have no leading slash here."""

    def __init__(self, service, id):
        self.service, self.id = service, id
        self.base = f"/api/v1/sandboxvolumes/{id}"

    @property
    def http(self):
        return self.service.http

    def write(self, path, data):
        data = data.encode() if isinstance(data, str) else data
        self.http.call("POST", f"{self.base}/files", {"path": f"/{path}"}, data)

    def read(self, path):
        """A file's bytes; None when there is none."""
        status, body = self.http.raw("GET", f"{self.base}/files", {"path": f"/{path}"})
        if status == 404:
            return None
        if status != 200:
            raise HttpError("GET", path, status, body)
        return body

    def remove(self, path):
        self.http.call("DELETE", f"{self.base}/files", {"path": f"/{path}"})

    def changes(self, after=0):
        """All retained entries of the journal after one."""
        found = []
        while True:
            page = self.http.data("GET", f"{self.base}/sync/changes", {"after": after, "limit": 2048})
            if not page["changes"]:
                return found
            found += page["changes"]
            after = found[-1]["seq"]

    def head(self):
        page = self.http.data("GET", f"{self.base}/sync/changes", {"after": 2**53, "limit": 1})
        return page["head_seq"]

    def conflicts(self, status="open"):
        return self.http.data("GET", f"{self.base}/sync/conflicts",
                              {"status": status, "limit": 2048})["conflicts"]

    def tree(self):
        """The whole tree, read from the documented bootstrap archive."""
        made = self.http.data("POST", f"{self.base}/sync/bootstrap", value={})
        packed = self.http.call("GET", made["archive_download_path"])
        self.http.call("DELETE", f"{self.base}/snapshots/{made['snapshot']['id']}")
        found = {}
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r|gz") as archive:
            for member in archive:
                name = member.name.strip("/")
                if member.isdir():
                    found[name] = ("directory",)
                elif member.issym():
                    found[name] = ("link", member.linkname)
                else:
                    data = archive.extractfile(member)
                    digest = hashlib.file_digest(data, "sha256").hexdigest()
                    found[name] = ("file", digest, oct(member.mode & 0o777))
        return found


# ---- machines and their replicas ---------------------------------------------------------------------------


class Machine:
    """A computer of its own, as far as s0 can tell: a state directory, a home, a service that it knows."""

    def __init__(self, bench, name, service):
        self.bench, self.name, self.service = bench, name, service
        self.dir = bench.dir / name
        self.state = self.dir / "state"
        (self.dir / "home").mkdir(parents=True, exist_ok=True)
        self.replicas = []

    def environment(self, **more):
        return self.bench.environment(**{
            "HOME": str(self.dir / "home"), "S0_STATE_DIR": str(self.state),
            "SANDBOX0_BASE_URL": self.service.url, "SANDBOX0_TOKEN": self.service.token, **more})

    def run(self, *arguments, cwd=None, ok=True, timeout=180, input=None, env=None):
        """Runs `s0 …` on this machine; fails when it fails, unless `ok` is false."""
        done = subprocess.run(
            [BIN, *map(str, arguments)], cwd=cwd or self.dir, env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL if input is None else None, input=input,
            capture_output=True, timeout=timeout * PATIENCE)
        if ok and done.returncode != 0:
            raise Failed(f"s0 {' '.join(map(str, arguments))} ended with {done.returncode}:\n"
                         f"{done.stdout.decode(errors='replace')}{done.stderr.decode(errors='replace')}")
        return done

    def json(self, *arguments, cwd=None, ok=True, timeout=180):
        done = self.run(*arguments, "-o", "json", cwd=cwd, ok=ok, timeout=timeout)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Failed(f"s0 {' '.join(map(str, arguments))} -o json said no JSON:\n{done.stdout!r}\n"
                         f"{done.stderr.decode(errors='replace')}") from None

    def attach(self, volume, root=None, init_from=None, sandbox=None, pause=None, ignore=(), guard=None, wait=True):
        """Attaches a directory in the background, as `s0 sync attach` does by itself.

        It returns when both sides are equal, or (code 3) when what is left waits for the user."""
        root = pathlib.Path(root) if root else self.dir / "workspace"
        root.mkdir(parents=True, exist_ok=True)
        command = ["sync", "attach", volume.id, root]
        if init_from:
            command += ["--init-from", init_from]
        if sandbox:
            command += ["--as", "sandbox", "--sandbox-id", sandbox]
        if pause:
            command += ["--pause", pause]
        for pattern in ignore:
            command += ["--ignore", pattern]
        if guard is not None:
            command += [it for pattern in guard for it in ("--guard", pattern)] or ["--no-guard"]
        if not wait:
            command.append("--no-wait")
        done = self.run(*command, ok=False, timeout=240)
        check(done.returncode in (0, 3), lambda: f"s0 {' '.join(map(str, command))} ended with "
              f"{done.returncode}:\n{done.stdout.decode()}{done.stderr.decode()}")
        replica = Replica(self, volume, root)
        self.replicas.append(replica)
        return replica


class Replica:
    """An attached directory."""

    def __init__(self, machine, volume, root):
        self.machine, self.volume, self.root = machine, volume, root

    def __str__(self):
        return self.machine.name

    def __truediv__(self, path):
        return self.root / path

    def sync(self, *arguments, **how):
        return self.machine.run("sync", *arguments, cwd=self.root, **how)

    def json(self, *arguments, **how):
        return self.machine.json("sync", *arguments, cwd=self.root, **how)

    def status(self):
        # Its exit code says how it is, too: blocked, halted, offline.
        return self.json("status", ok=False)

    @property
    def pid(self):
        return self.status()["pid"]

    def flush(self, seconds=120):
        """Flushes until it is done; fails with the paths that are in the way."""
        last = None

        def done():
            nonlocal last
            last = self.json("flush", ok=False, timeout=seconds)
            return last.get("done")

        try:
            wait_until("flushed", done, seconds)
        except Failed:
            raise Failed(f"{self}: flush is not done after {seconds} s: {str(last)[:1500]}\n"
                         f"{str(self.status())[:1500]}") from None

    def verify(self):
        """Rehashes everything against the Volume; fails when something differs."""
        said = self.json("verify", ok=False, timeout=600)
        check(said["equal"], lambda: f"{self}: verify found {str(said['differences'])[:1500]}, apart: {said['apart']}")

    def conflicts(self):
        """The open conflicts, by path."""
        return {c["path"]: c for c in self.json("conflicts", "list") if c["status"] == "open"}

    def side(self, path, side):
        """One side's content of a conflict."""
        return self.sync("conflicts", "show", path, "--side", side).stdout

    def mark(self, path):
        self.sync("conflicts", "mark", path)

    def tree(self, only=None):
        return disk_tree(self.root, only)

    def kill(self):
        """Ends the host as a power cut would."""
        end(self.pid)

    @contextlib.contextmanager
    def frozen(self):
        """The host stands still: it sees what is done meanwhile at once, and not piece by piece."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def start(self):
        """Starts the host, and returns when it answers. By itself `s0 sync start` waits until all is
        across; under load that is never."""
        self.sync("start", "--no-wait")

    def stop(self):
        pid = self.pid
        self.sync("stop")
        wait_until(f"{self}'s host ends", lambda: not is_running(pid), 20)


def settle(*replicas):
    """A barrier over all: what each wrote is in the Volume, and on the disks of the others."""
    for replica in (*replicas, *replicas):
        replica.flush()


def check_all_equal(volume, *replicas):
    """Disks and Volume hold the same, by SHA-256 and mode, and each `verify` says so too."""
    there = volume.tree()
    for replica in replicas:
        check_equal(there, replica.tree(), f"the Volume and {replica}'s disk")
        replica.verify()
    return there


def check_no_conflicts(volume, *replicas):
    for replica in replicas:
        found = replica.conflicts()
        check(not found, lambda: f"{replica} has conflicts: {str(found)[:1500]}")
    found = volume.conflicts()
    check(not found, lambda: f"the Volume has open conflicts: {str(found)[:1500]}")


@contextlib.contextmanager
def small_disk(bench, size, at=None):
    """A disk of this size, mounted at a directory."""
    if os.geteuid() != 0:
        raise Skip("root, to mount a small disk")
    mount = at or bench.dir / "small"
    mount.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(mount)], capture_output=True)
    if done.returncode != 0:
        raise Skip(f"to mount a small disk: {done.stderr.decode().strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], capture_output=True)


# ---- one test's bench --------------------------------------------------------------------------------------


class Bench:
    """Everything that one test makes; `close` ends and removes all of it."""

    def __init__(self, name, long=False, seed=None):
        self.name, self.long = name, long
        self.seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        self.random = random.Random(self.seed)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="s0-e2e-")).resolve()
        self.machines = []
        self.cleanups = []
        self.figures = []
        # What all its programs have in their environment.
        self.everywhere = {}

    def note(self, text):
        """A figure to print beside the result."""
        self.figures.append(text)

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items()
                if not k.startswith(("S0_", "SANDBOX0_", "GIT_")) or k == "S0_BIN"}
        kept.setdefault("PATH", os.defpath)
        kept.update(S0_E2E_BENCH=str(self.dir), NO_COLOR="1", GIT_CONFIG_NOSYSTEM="1",
                    GIT_CONFIG_GLOBAL=os.devnull, **self.everywhere, **more)
        return kept

    def service(self, **flags):
        service = Service(self, f"service{len(self.cleanups)}", **flags)
        self.cleanups.append(lambda: service.process and service.kill())
        return service

    def machine(self, name, service):
        machine = Machine(self, name, service)
        self.machines.append(machine)
        return machine

    def own_processes(self):
        """The processes of this test, told by the mark in their environment."""
        mark = f"S0_E2E_BENCH={self.dir}".encode()
        for folder in pathlib.Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name)

    def logs(self, lines=25):
        """The ends of all logs, for a failure."""
        logs = set()
        for pattern in ("*.log", "*/state/**/log", "*/state/**/*.log"):
            # A mount whose host is dead, or cut off, says only errors.
            with contextlib.suppress(OSError):
                logs.update(self.dir.glob(pattern))
        for path in sorted(logs):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            yield f"--- {path.relative_to(self.dir)}\n" + "\n".join(last)

    def close(self, keep=False):
        for pid in list(self.own_processes()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        wait_until("this test's processes end",
                   lambda: not [p for p in self.own_processes() if is_running(p)])
        for cleanup in reversed(self.cleanups):
            cleanup()
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)
