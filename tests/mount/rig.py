"""What the scenarios of the mount need beside the harness: mounts, children with a deadline, a line that can be cut.

Whatever touches a mount that may be dead or deaf does it in a child (`within`, `together`): a call that hangs is
a failed test then, and never a run that hangs.
"""
import contextlib
import os
import pathlib
import pickle
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
import traceback

import harness
from harness import PATIENCE, Failed, Skip, Volume, check, is_running, wait_until


def needs_fuse():
    if os.geteuid() != 0:
        raise Skip("root, to mount")
    if not os.path.exists("/dev/fuse"):
        raise Skip("/dev/fuse")


def tool(name, crate, version):
    """A program of a published crate; built into the target directory when it is not there yet."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or harness.ROOT / "target")
    root = target / "rigs" / "mount"
    program = root / "bin" / name
    if not program.exists():
        done = subprocess.run(["cargo", "install", "--quiet", "--locked", "--root", str(root),
                               "--version", version, crate], capture_output=True, text=True)
        check(done.returncode == 0, lambda: f"cargo install {crate} failed:\n{done.stderr[-2000:]}")
    return program


# ---- children ----------------------------------------------------------------------------------------------


class Hung(Failed):
    """A child was not done when its time was up."""


class Child:
    """A function in a process of its own. What it returns, or raises, comes back through a pipe."""

    def __init__(self, function, *arguments):
        self.name = getattr(function, "__name__", str(function))
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.alarm(0)
                os.close(ours)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
                    signal.signal(number, signal.SIG_DFL)
                try:
                    value = (True, function(*arguments))
                except BaseException as error:  # noqa: BLE001 - it is raised again in the parent
                    value = (False, (error, traceback.format_exc()))
                try:
                    data = pickle.dumps(value)
                except Exception:  # noqa: BLE001 - an exception that cannot travel
                    data = pickle.dumps((False, (Failed(repr(value[1])), repr(value[1]))))
                with os.fdopen(theirs, "wb") as pipe:
                    pipe.write(data)
                code = 0
            finally:
                os._exit(code)
        os.close(theirs)
        self.pipe = ours
        self.data = b""

    def take(self):
        """Takes in what has come through the pipe. Whether that was all."""
        more = os.read(self.pipe, 1 << 16)
        self.data += more
        return not more

    def value(self):
        """What the function returned, or raises what it raised."""
        check(self.data, lambda: f"{self.name} died")
        fine, value = pickle.loads(self.data)
        if not fine:
            error, trace = value
            error.add_note(f"in the child {self.name}:\n{trace}")
            raise error
        return value

    def result(self, seconds):
        """Waits for it, and gives what the function returned."""
        return collect([self], seconds)[0]

    def where(self):
        """Where in the kernel it waits."""
        said = []
        for file in ("wchan", "syscall"):
            with contextlib.suppress(OSError):
                said.append(pathlib.Path(f"/proc/{self.pid}/{file}").read_text().strip())
        return f"it waits in {' '.join(said)}"

    def end(self):
        """Ends it, and says whether it went: what a mount holds cannot be ended."""
        if self.pipe is None:
            return True
        os.close(self.pipe)
        self.pipe = None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return True
            time.sleep(0.002)
        return False


class Flag:
    """What one process raises and another waits for, made before they part."""

    def __init__(self):
        self.ours, self.theirs = os.pipe()

    def raise_(self, times=1):
        os.write(self.theirs, b"!" * times)

    def wait(self, seconds=60):
        """Waits until it is raised, and takes it down."""
        ready, _, _ = select.select([self.ours], [], [], seconds * PATIENCE)
        check(ready, "another process did not get as far as it should")
        os.read(self.ours, 1)


def within(seconds, function, *arguments):
    """Calls a function in a child, which has so many seconds."""
    return Child(function, *arguments).result(seconds)


def together(seconds, *calls):
    """Calls all of them at once, each in a child: each call is a function and its arguments."""
    return collect([Child(*call) for call in calls], seconds)


def collect(children, seconds):
    """What all of them return, in order. The first failure ends all, and so does the end of the time: that is
    `Hung`."""
    deadline = time.monotonic() + seconds * PATIENCE
    results = {}
    try:
        while len(results) < len(children):
            waits = {child.pipe: child for child in children if child not in results}
            ready, _, _ = select.select(list(waits), [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise Hung("; ".join(f"{child.name} (process {child.pid}) hangs: {child.where()}"
                                     for child in waits.values()))
            for pipe in ready:
                if waits[pipe].take():
                    results[waits[pipe]] = waits[pipe].value()
    finally:
        for child in children:
            child.end()
    return [results[child] for child in children]


def error_of(function, *arguments):
    """The number of the error that a call fails with; 0 when it succeeds."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


# ---- mounts ------------------------------------------------------------------------------------------------


def mounted(path):
    """Whether something is mounted there. The mount itself is not asked."""
    name = str(path).encode().replace(b" ", b"\\040")
    with open("/proc/self/mounts", "rb") as file:
        return any(line.split()[1] == name for line in file)


class Mount:
    """A directory with a Volume mounted, and its host process."""

    def __init__(self, bench, volume, name, *flags, service=None, start=True, **environment):
        self.bench, self.volume, self.name, self.flags = bench, volume, name, flags
        self.service = service or volume.service
        self.environment = environment
        self.path = bench.dir / name
        self.path.mkdir()
        self.log = bench.dir / f"{name}.log"
        self.process = self.watchdog = None
        bench.cleanups.append(self.close)
        if start:
            self.start()

    def __truediv__(self, name):
        return self.path / name

    def __str__(self):
        return str(self.path)

    def start(self):
        check(self.process is None, f"{self} runs already")
        with open(self.log, "ab") as log:
            begins = log.tell()
            self.process = subprocess.Popen(
                [harness.BIN, "mount-host", "--volume-id", self.volume.id, "--path", str(self.path), *self.flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=self.bench.environment(**{
                    "SANDBOX0_BASE_URL": self.service.url, "SANDBOX0_TOKEN": self.service.token,
                    "S0_STATE_DIR": str(self.bench.dir / f"{self.name}-state"),
                    "HOME": str(self.bench.dir), "S0_LOG": os.environ.get("S0_RIG_LOG", "info"), **self.environment}))
        # A test that hangs in a call of this mount is freed by its end.
        limit = int((4 * 3600 if self.bench.long else 840) * PATIENCE)
        self.watchdog = subprocess.Popen(["sh", "-c", f"sleep {limit}; kill -9 {self.process.pid}"],
                                         env=self.bench.environment(), start_new_session=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def there():
            check(self.process.poll() is None,
                  lambda: f"{self} ended with {self.process.returncode}:\n{self.said()}")
            # The kernel has a mount before its host knows the Volume.
            return b"mounted at " in self.log.read_bytes()[begins:]

        wait_until(f"{self} is mounted", there)
        return self

    def said(self):
        return self.log.read_text(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    def _over(self):
        self.process = None
        if self.watchdog:
            # Its sleep is a child of the shell: the session that it leads.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.watchdog.pid, signal.SIGKILL)
            self.watchdog.wait()
            self.watchdog = None

    def kill(self):
        """Ends the host as a power cut would. The directory stays a dead mount."""
        self.process.kill()
        try:
            self.process.wait(10 * PATIENCE)
        except subprocess.TimeoutExpired:
            threads = "\n".join(self._threads())
            # That frees whoever waits for it.
            subprocess.run(["umount", "-f", str(self.path)], capture_output=True)
            self.process.wait()
            self._over()
            raise Failed(f"{self}'s host does not end when it is killed; its threads wait in\n{threads}") from None
        self._over()

    def _threads(self):
        for thread in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                stack = (thread / "stack").read_text().split("\n")
                yield f"{(thread / 'comm').read_text().strip()}: {'; '.join(stack[:5])}"

    def umount(self):
        done = subprocess.run(["umount", "-l", str(self.path)], capture_output=True, text=True)
        check(done.returncode == 0, lambda: f"umount -l: {done.stderr}")

    def stop(self, seconds=20):
        """Ends it politely; it must unmount and go by itself."""
        self.process.terminate()
        try:
            code = self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self}'s host is still there {seconds} s after SIGTERM:\n{self.said()[-2000:]}") from None
        self._over()
        check(not mounted(self.path), f"{self} ended with {code} and is still mounted")
        return code

    def again(self):
        """After `kill`: what is dead is taken away, and the Volume mounted anew."""
        self.umount()
        return self.start()

    @contextlib.contextmanager
    def frozen(self):
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def close(self):
        if self.process:
            self.kill()
        while mounted(self.path):
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=True)


def service_and_volume(bench, **flags):
    needs_fuse()
    service = bench.service(**flags)
    return service, new_volume(service)


def new_volume(service):
    made = service.http.data("POST", "/api/v1/sandboxvolumes", value={"access_mode": "RWX"})
    return Volume(service, made["id"])


def mounts(bench, *names, **flags):
    """A service, a Volume, and mounts of it."""
    _, volume = service_and_volume(bench, **flags)
    return [Mount(bench, volume, name) for name in names]


# ---- a line that can be cut --------------------------------------------------------------------------------


class Line:
    """A TCP connection's way to the service, byte for byte. `state` is

    - `good`: bytes pass;
    - `silent`: nothing passes in either direction, and nobody is told (a cable that is out);
    - `closed`: connections are closed, and new ones too.
    """

    def __init__(self, bench, service):
        self.service, self.state = service, "good"
        self.lock = threading.Lock()
        self.pairs = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        bench.cleanups.append(self.close)

    @property
    def token(self):
        return self.service.token

    def set(self, state):
        self.state = state
        if state == "closed":
            self._drop()

    def _drop(self):
        with self.lock:
            pairs, self.pairs = self.pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.state == "closed":
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.service.port))
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.pairs.add((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                while self.state == "silent":
                    time.sleep(0.005)
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.state = "closed"
        self.listener.close()
        self._drop()


def have(program):
    return shutil.which(program) is not None
