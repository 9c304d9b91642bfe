"""Power cuts: host and service are killed at random moments while everyone writes."""
import collections
import hashlib
import os
import threading
import time

from harness import (check, check_all_equal, check_no_conflicts, settle, wait_until, write)

FILES = 24


def body(name, version, size):
    """A file that proves that it is whole: its first line is the hash of the rest."""
    rest = f"{name} {version}\n".encode() * (1 + size)
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def version_of(data):
    """The version that a whole file holds; None for a torn one."""
    head, _, rest = data.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != head:
        return None
    return int(rest.split(b"\n", 1)[0].rsplit(b" ", 1)[1])


def atomically(path, data):
    beside = path.with_name("." + path.name + ".saving")
    with open(beside, "wb") as file:
        file.write(data)
    os.replace(beside, path)


class Load:
    """A user, an agent and a client of the API, who write until told to stop; and a reader of both disks."""

    def __init__(self, bench, volume, user, agent):
        self.volume, self.user, self.agent = volume, user, agent
        self.stop = threading.Event()
        self.failures, self.torn = [], []
        self.last = collections.Counter()      # the last version that is on the writer's disk
        self.attempted = collections.Counter()  # the API: the last version that was sent,
        self.acknowledged = collections.Counter()  # and the last that was answered
        self.reads = 0
        seeds = [bench.random.randrange(2**32) for _ in range(4)]
        works = [(self.disk, (user, "user")), (self.disk, (agent, "agent")), (self.api, ()), (self.read, ())]
        self.threads = [threading.Thread(target=self.guarded, args=(work, seed, *rest))
                        for (work, rest), seed in zip(works, seeds, strict=True)]

    def guarded(self, work, seed, *rest):
        import random
        try:
            work(random.Random(seed), *rest)
        except Exception as error:  # noqa: BLE001 - told at the end
            self.failures.append(f"{work.__name__}: {error!r}")

    def disk(self, random, replica, who):
        version = 0
        while not self.stop.is_set():
            version += 1
            name = f"{who}/f{random.randrange(FILES)}.bin"
            data = body(name, version, random.choice([1, 30, 3000, 40_000]))
            if random.random() < 0.7:
                atomically(replica / name, data)
            else:
                write(replica / f"{name}.inplace", data)
                name += ".inplace"
            self.last[name] = version
            if random.random() < 0.1:
                # Something comes and goes; nothing of it may stay.
                write(replica / f"{who}/passing/p{version}.txt", "x\n")
                os.unlink(replica / f"{who}/passing/p{version}.txt")
            time.sleep(random.random() * 0.02)

    def api(self, random):
        version = 0
        while not self.stop.is_set():
            version += 1
            name = f"api/f{random.randrange(FILES)}.bin"
            self.attempted[name] = version
            try:
                self.volume.write(name, body(name, version, random.choice([1, 30, 3000])))
                self.acknowledged[name] = version
            except OSError:
                time.sleep(0.02)
            except Exception as error:  # noqa: BLE001
                # A dying service may say 5xx; anything else is a finding.
                if getattr(error, "status", 0) < 500:
                    raise
            time.sleep(random.random() * 0.01)

    def read(self, random):
        """What the other side wrote must be whole whenever one looks."""
        while not self.stop.is_set():
            reader, who = random.choice([(self.user, "agent"), (self.agent, "user"),
                                         (self.user, "api"), (self.agent, "api")])
            name = f"{who}/f{random.randrange(FILES)}.bin"
            try:
                data = (reader / name).read_bytes()
            except FileNotFoundError:
                continue
            self.reads += 1
            if version_of(data) is None:
                self.torn.append(f"{reader}: {name} ({len(data)} bytes)")
            time.sleep(0.002)

    def __enter__(self):
        for who, replica in (("user", self.user), ("agent", self.agent)):
            (replica / f"{who}/passing").mkdir(parents=True, exist_ok=True)
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        """To be called when all is settled."""
        check(not self.failures, f"writers failed: {self.failures}")
        check(not self.torn, f"{len(self.torn)} torn files were seen: {self.torn[:5]}")
        for name, version in self.last.items():
            got = version_of(self.volume.read(name) or b"")
            check(got == version, f"{name} is version {got} in the Volume; {version} was written")
        for name, version in self.acknowledged.items():
            got = version_of(self.volume.read(name) or b"")
            check(got is not None and version <= got <= self.attempted[name],
                  f"{name} is version {got}; {version} was acknowledged, {self.attempted[name]} sent last")


def kill_and_check(bench, kills, targets):
    service = bench.service(checkpoint_every=500)
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    agent = bench.machine("sandbox", service).attach(volume, sandbox="sb_agent")
    for number in range(200):
        write(user / f"base/{number % 9}/f{number}.txt", f"{number}\n" * 20)
    settle(user, agent)
    bench.note(f"seed {bench.seed}")
    counts = collections.Counter()
    with Load(bench, volume, user, agent) as load:
        for _ in range(kills):
            time.sleep(0.05 + bench.random.random() * 0.8)
            target = bench.random.choice(targets)
            counts[target] += 1
            if target == "service":
                service.kill()
                time.sleep(bench.random.random() * 0.3)
                service.start()
            else:
                replica = user if target == "user" else agent
                replica.kill()
                time.sleep(bench.random.random() * 0.3)
                replica.start()
    started = time.monotonic()
    wait_until("the service answers", lambda: volume.head() > 0, 30)
    settle(user, agent)
    bench.note(", ".join(f"{target} {n} times" for target, n in sorted(counts.items()))
               + f"; {sum(load.last.values()) and len(load.last)} + {len(load.acknowledged)} files, "
               f"{volume.head()} entries, {load.reads} reads; settled in {time.monotonic() - started:.1f} s")
    load.check()
    there = check_all_equal(volume, user, agent)
    check_no_conflicts(volume, user, agent)
    strays = [path for path in there if path.split("/")[0] not in ("base", "user", "agent", "api")
              or path.endswith(".saving") or "kept" in path]
    check(not strays, f"strays: {strays}")


def test_kills_of_hosts_and_service_under_load_lose_nothing(bench):
    kill_and_check(bench, 200 if bench.long else 50, ["service", "user", "agent"])


def test_kills_of_one_host_lose_nothing(bench):
    kill_and_check(bench, 100 if bench.long else 6, ["agent"])


def test_a_kill_while_a_project_comes_down_is_healed(bench):
    service = bench.service()
    volume = service.create_volume()
    user = bench.machine("laptop", service).attach(volume)
    for number in range(1500):
        write(user / f"d{number % 60}/f{number}.txt", f"{number}\n" * 100)
    settle(user)
    second = bench.machine("second", service).attach(volume, init_from="volume", wait=False)
    for _ in range(4):
        time.sleep(bench.random.random() * 0.3)
        second.kill()
        second.start()
    settle(second, user)
    check_all_equal(volume, user, second)
    check_no_conflicts(volume, user, second)


def test_a_kill_while_a_project_goes_up_is_healed(bench):
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    for number in range(1500):
        write(machine.dir / f"workspace/d{number % 60}/f{number}.txt", f"{number}\n" * 100)
    user = machine.attach(volume, wait=False)
    for turn in range(4):
        time.sleep(bench.random.random() * 0.3)
        if turn % 2:
            service.kill()
            service.start()
        else:
            user.kill()
            user.start()
    settle(user)
    check_all_equal(volume, user)
    check_no_conflicts(volume, user)
    made = collections.Counter(entry["path"] for entry in volume.changes())
    twice = [path for path, count in made.items() if count > 1]
    check(not twice, f"{len(twice)} paths were journaled more than once: {twice[:5]}")
