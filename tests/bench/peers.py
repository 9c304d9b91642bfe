"""The programs that are measured beside ours, each with the settings that its manual gives first.

- rsync: `rsync -a`, and `sync` where what is measured must be durable. It copies one way and remembers nothing.
- Unison: one run for each sync (`-batch -ui text`, both roots local); Debian's package has no unison-fsmonitor, so
  `-repeat watch` is not to be had. It does not make what it writes durable.
- Mutagen: a session of two local directories, default mode, default watching, in a daemon of its own. Its watching
  falls back on a look every ten seconds, so single changes are measured with `mutagen sync flush` after them.
- Syncthing: two instances on loopback, no discovery, no relays, the watcher's delay at one second, its lowest (the
  default is ten). It syncs each file to the disk, as ours does.

What is missing is installed where that is possible; what cannot be had is left out, and said (`missing`).
"""
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

MUTAGEN = ("github.com/mutagen-io/mutagen", "v0.18.1")


def run(command, env=None, cwd=None, timeout=1800, ok=True):
    done = subprocess.run([str(it) for it in command], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=timeout)
    if ok and done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n"
                           f"{(done.stdout + done.stderr).decode(errors='replace')[-2000:]}")
    return done


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sync():
    """Everything that was written, by whomever, is on the disk."""
    os.sync()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install(packages):
    """Debian's packages, where there is an apt-get that may be used."""
    lacking = [name for name in packages if not shutil.which(name)]
    if not lacking or not shutil.which("apt-get"):
        return
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"],
                    ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking]):
        with contextlib.suppress(RuntimeError, OSError):
            run(root + command, env=env)


def build_mutagen():
    """Mutagen, from Go's module proxy; kept in the user's cache. None when it cannot be had."""
    found = shutil.which("mutagen")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "s0-bench"
    kept = cache / f"mutagen-{MUTAGEN[1]}"
    if found or kept.exists():
        return found or str(kept)
    if not shutil.which("go"):
        return None
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as empty:
            # Not `go install …@version`: that asks the proxy for a list of versions, which not every proxy gives.
            got = run(["go", "mod", "download", "-json", "@".join(MUTAGEN)], cwd=empty)
        built = cache / "mutagen.new"
        run(["go", "build", "-mod=readonly", "-tags", "mutagencli", "-o", built, "./cmd/mutagen"],
            cwd=json.loads(got.stdout)["Dir"])
        run([built, "version"])
        built.rename(kept)
    except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"mutagen cannot be had: {str(error)[-300:]}", file=sys.stderr)
        return None
    return str(kept)


def memory_and_cpu(pids):
    """Proportional set size in MiB, and processor seconds, of some processes together."""
    size = seconds = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                size += int(line.split()[1]) / 1024
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return size, seconds


class Rsync:
    name, durable = "rsync", "with sync"
    processes = ()

    def __init__(self, bench, dir):
        self.dir = dir

    def begin(self, one, other):
        self.one, self.other = one, other
        self.across()

    def across(self):
        run(["rsync", "-a", f"{self.one}/", f"{self.other}/"])

    def close(self):
        pass


class Unison:
    name, durable = "Unison", "not durable"
    processes = ()

    def __init__(self, bench, dir):
        self.env = bench.environment(UNISON=str(dir / "unison"), HOME=str(dir))

    def begin(self, one, other):
        self.one, self.other = one, other
        self.across()

    def across(self):
        done = run(["unison", self.one, self.other, "-batch", "-ui", "text", "-silent"], env=self.env, ok=False)
        # 1: all went well, but something was skipped.
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])

    def close(self):
        pass


class Mutagen:
    name, durable = "Mutagen", "not durable"

    def __init__(self, bench, dir):
        self.program = build_mutagen()
        self.env = bench.environment(MUTAGEN_DATA_DIRECTORY=str(dir / "mutagen"), HOME=str(dir))
        self.daemon = subprocess.Popen([self.program, "daemon", "run"], env=self.env, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes = (self.daemon.pid,)
        deadline = time.monotonic() + 20
        while run([self.program, "sync", "list"], env=self.env, ok=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("Mutagen's daemon does not answer")
            time.sleep(0.05)

    def begin(self, one, other):
        run([self.program, "sync", "create", "--name=bench", one, other], env=self.env)
        self.across()

    def across(self):
        run([self.program, "sync", "flush", "bench"], env=self.env)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait(30)


class Syncthing:
    name, durable = "Syncthing", "durable"
    # It has no barrier: what is across is seen on the other side.
    across = None

    def __init__(self, bench, dir):
        self.sides = []
        for side in ("one", "other"):
            home = dir / f"syncthing-{side}"
            env = bench.environment(HOME=str(home), STNODEFAULTFOLDER="1")
            run(["syncthing", "generate", f"--home={home}"], env=env)
            api = f"127.0.0.1:{free_port()}"
            process = subprocess.Popen(
                ["syncthing", "serve", f"--home={home}", f"--gui-address={api}", "--gui-apikey=bench", "--no-browser",
                 "--no-restart", "--no-upgrade"],
                env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.sides.append({"api": f"http://{api}", "process": process, "port": free_port()})
        for side in self.sides:
            side["id"] = self.wait(lambda: self.ask(side, "GET", "/rest/system/status"))["myID"]
            self.ask(side, "PATCH", "/rest/config/options", {
                "listenAddresses": [f"tcp://127.0.0.1:{side['port']}"], "globalAnnounceEnabled": False,
                "localAnnounceEnabled": False, "relaysEnabled": False, "natEnabled": False, "urAccepted": -1,
                "crashReportingEnabled": False, "autoUpgradeIntervalH": 0})

    @property
    def processes(self):
        # It runs a monitor, and the program as the monitor's child.
        found = [side["process"].pid for side in self.sides]
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) in found[:2]:
                    found.append(int(stat.parent.name))
        return found

    @staticmethod
    def ask(side, method, path, value=None):
        request = urllib.request.Request(
            side["api"] + path, method=method, headers={"X-API-Key": "bench", "Content-Type": "application/json"},
            data=None if value is None else json.dumps(value).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    @staticmethod
    def wait(asked, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := asked():
                    return found
            except (OSError, urllib.error.URLError):
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"Syncthing was not done within {seconds} s")
            time.sleep(0.2)

    def begin(self, one, other, limit=900):
        one_side, other_side = self.sides
        for side, peer, path in ((one_side, other_side, one), (other_side, one_side, other)):
            self.ask(side, "POST", "/rest/config/devices", {
                "deviceID": peer["id"], "addresses": [f"tcp://127.0.0.1:{peer['port']}"]})
            self.ask(side, "POST", "/rest/config/folders", {
                "id": "bench", "path": str(path), "fsWatcherEnabled": True, "fsWatcherDelayS": 1,
                "devices": [{"deviceID": side["id"]}, {"deviceID": peer["id"]}]})

        def same():
            first, second = (self.ask(side, "GET", "/rest/db/status?folder=bench") for side in self.sides)
            return (first["state"] == second["state"] == "idle" and first["localFiles"] > 0
                    and first["localFiles"] == second["localFiles"] and second["needBytes"] == 0)

        self.wait(same, limit)

    def close(self):
        for side in self.sides:
            side["process"].terminate()
        for side in self.sides:
            side["process"].wait(60)


ALL = (Rsync, Unison, Mutagen, Syncthing)


def available():
    """The peers that are here, and the names of those that are not, with the reason."""
    install(["rsync", "unison", "syncthing"])
    here, missing = [], {}
    for peer in ALL:
        if peer is Mutagen:
            found = build_mutagen()
        else:
            found = shutil.which(peer.name.lower())
        if found:
            here.append(peer)
        else:
            missing[peer.name] = "cannot be installed here"
    return here, missing


def versions(here):
    """Which versions were measured."""
    asks = {"rsync": ["rsync", "--version"], "Unison": ["unison", "-version"],
            "Syncthing": ["syncthing", "--version"], "Mutagen": [build_mutagen() or "mutagen", "version"]}
    for peer in here:
        said = run(asks[peer.name]).stdout.decode(errors="replace").split("\n")[0]
        yield f"{peer.name} " + next((word for word in said.split() if any(c.isdigit() for c in word)), said)
