"""What the figures are taken with: a benchmark tree, pairs of synced directories, rounds, waiting."""
import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import harness  # noqa: E402
import peers  # noqa: E402

OURS = "s0 sync"
FIRST = "first copy"
# How often something is looked at while it is awaited; a look must take no turns from what is measured.
GLANCE = 0.001
# The same where a look is at a thousand files.
LONG_GLANCE = 0.01


def make_tree(root, files):
    """The benchmark tree, from the script beside this one (its name is no module's)."""
    spec = importlib.util.spec_from_file_location("make_tree", HERE / "make-tree.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_tree(root, files)


@dataclasses.dataclass
class Figure:
    """One figure: what was seen of ours and of each peer, in `unit`."""
    name: str
    unit: str
    how: str
    # Ours must be at most (with `least`: at least) this; with `beside`, this many times that peer's.
    goal: float | None = None
    beside: str | None = None
    least: bool = False
    seen: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)

    def add(self, who, value):
        self.seen.setdefault(who, []).append(value)
        print(f"    {self.name}: {who} {value:.4g} {self.unit}", file=sys.stderr, flush=True)

    def median(self, who=OURS):
        values = self.seen.get(who)
        return statistics.median(values) if values else None

    def limit(self):
        """The goal in the figure's own unit; none when the peer that it is told by was not measured."""
        if self.goal is None or self.beside is None:
            return self.goal
        return None if self.median(self.beside) is None else self.goal * self.median(self.beside)

    def met(self):
        limit, ours = self.limit(), self.median()
        if limit is None or ours is None:
            return None
        return ours >= limit if self.least else ours <= limit


def wait(arrived, limit=120, glance=GLANCE):
    """Waits until something has come; gives the time at which it was seen."""
    deadline = time.perf_counter() + limit
    while True:
        if arrived():
            return time.perf_counter()
        if time.perf_counter() > deadline:
            raise harness.Failed(f"a change was not across within {limit} s")
        time.sleep(glance)


class Ours:
    """A pair of attached directories, each with a host, and the service between them."""
    name = OURS
    # Both sides watch; nothing needs to be asked for.
    across = None

    def __init__(self, lab, one=None):
        bench = lab.bench
        self.lab = lab
        self.service = bench.service()
        self.volume = self.service.create_volume()
        self.dir = lab.fresh("ours")
        self.one = one or lab.copy("ours-tree")
        self.other = self.dir / "other"
        self.replicas = []

    def attach(self, root, url=None, init_from=None):
        """Attaches a directory; returns when host and service call it in sync. Gives the replica and the time."""
        reached = Reached(url or self.service.url, self.service.token)
        machine = self.lab.bench.machine(self.lab.fresh("machine").name, reached)
        started = time.perf_counter()
        replica = machine.attach(self.volume, root, init_from=init_from)
        took = time.perf_counter() - started
        harness.check(replica.status()["condition"] == "in_sync", lambda: f"not in sync: {replica.status()}")
        self.replicas.append(replica)
        return replica, took

    def begin(self):
        for root in (self.one, self.other):
            self.attach(root)
        return self

    def close(self):
        for replica in self.replicas:
            replica.stop()
        self.service.stop()


@dataclasses.dataclass
class Reached:
    """A service as a machine knows it: an address and a token."""
    url: str
    token: str


class Lab:
    """All that one run of the benchmark has."""

    def __init__(self, files, rounds, wanted=None):
        self.files, self.rounds = files, rounds
        self.bench = harness.Bench("figures", seed=1)
        self.fresh_names = 0
        self.here, self.missing = peers.available()
        if wanted is not None:
            for peer in [it for it in self.here if it.name.lower() not in wanted]:
                self.here.remove(peer)
                self.missing[peer.name] = "not asked for"
        self.pairs = {}
        self.template = self.bench.dir / "template"
        self.paths, self.folders, self.bytes = make_tree(self.template, files)
        peers.sync()

    def fresh(self, name):
        """A directory that nobody has used."""
        self.fresh_names += 1
        made = self.bench.dir / f"{name}-{self.fresh_names}"
        made.mkdir()
        return made

    def copy(self, name):
        """A fresh copy of the tree, on the disk and in the cache."""
        made = self.fresh(name) / "tree"
        subprocess.run(["cp", "-a", self.template, made], check=True)
        peers.sync()
        return made

    def ours(self):
        """The pair of ours that single changes are measured with."""
        if OURS not in self.pairs:
            self.pairs[OURS] = Ours(self).begin()
        return self.pairs[OURS]

    def peer(self, kind):
        """The pair of a peer, and how long its first copy took, made durable."""
        if kind.name not in self.pairs:
            one, other = self.copy("peer-tree"), self.fresh("peer") / "other"
            other.mkdir()
            peer = kind(self.bench, self.fresh("peer-state"))
            peer.one, peer.other = one, other

            def first():
                peer.begin(one, other)
                peers.sync()

            print(f"    {FIRST} of {kind.name} …", file=sys.stderr, flush=True)
            peer.first = peers.timed(first)
            self.pairs[kind.name] = peer
        return self.pairs[kind.name]

    def all_pairs(self):
        """Ours and all peers, for one round, each in its turn. A peer that fails is left out, and said."""
        with self.turn(self.ours()) as pair:
            yield pair
        for kind in list(self.here):
            with self.perhaps(kind), self.turn(self.peer(kind)) as pair:
                yield pair

    @contextlib.contextmanager
    def turn(self, pair):
        """The other peers stand still meanwhile, and what was written before is on the disk."""
        others = [other for name, other in self.pairs.items() if name != OURS and other is not pair]
        standing = [pid for other in others for pid in other.processes]
        try:
            for pid in standing:
                os.kill(pid, signal.SIGSTOP)
            peers.sync()
            yield pair
        finally:
            for pid in standing:
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def perhaps(self, kind):
        """A peer that fails ends nothing but its own figures."""
        try:
            yield
        except (RuntimeError, OSError, harness.Failed, subprocess.SubprocessError) as error:
            print(f"    {kind.name} is left out: {error}", file=sys.stderr, flush=True)
            self.missing[kind.name] = f"failed: {str(error).splitlines()[0][:120]}"
            self.here.remove(kind)

    def crossing(self, pair, change, arrived, glance=GLANCE):
        """How long a change takes from one side to the other, from before it is made; in seconds."""
        started = time.perf_counter()
        change(pathlib.Path(pair.one))
        if pair.across:
            pair.across()
        return wait(lambda: arrived(pathlib.Path(pair.other)), glance=glance) - started

    def close(self):
        for name, pair in self.pairs.items():
            if name != OURS:
                with contextlib.suppress(Exception):
                    pair.close()
        self.bench.close()
