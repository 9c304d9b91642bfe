#!/usr/bin/env python3
"""How fast a mount is, beside the local file system and a FUSE that only passes through: mount.py [--only TEXT] [--rounds N] [--small]

The three take turns in one run, each in fresh directories; the median of the rounds counts. The pass-through is
`bindfs` over the same local file system. `S0_BIN` names the program; figures mean something for a release build.
"""
import argparse
import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "mount"), str(HERE.parent / "e2e")]
import harness  # noqa: E402
import rig  # noqa: E402

SMALL = os.urandom(4096)


# ---- what is measured: each takes a fresh directory and gives figures in the unit --------------------------


def make_many(root, count, writers):
    """Makes, writes and closes small files."""
    def some(number):
        folder = f"{root}/w{number}"
        os.mkdir(folder)
        for i in range(count // writers):
            file = os.open(f"{folder}/f{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(file, SMALL)
            os.close(file)
    started = time.monotonic()
    rig.together(3600, *((some, number) for number in range(writers)))
    return count / (time.monotonic() - started)


def fill(root, count):
    for i in range(count):
        if i % 1000 == 0:
            folder = f"{root}/d{i // 1000}"
            os.mkdir(folder)
        with open(f"{folder}/f{i}", "wb") as file:
            file.write(b"x" * 100)


def walk(root, count):
    """Lists all, and asks for the attributes of all, when all is cached. Two figures: both a second."""
    def listing():
        names = 0
        for folder in os.listdir(root):
            names += len(os.listdir(f"{root}/{folder}"))
        assert names == count, names

    def stats():
        for i in range(count):
            os.stat(f"{root}/d{i // 1000}/f{i}")

    took = {}
    for what in (listing, stats):
        what()
        started = time.monotonic()
        what()
        took[what.__name__] = count / (time.monotonic() - started)
    return took["listing"], took["stats"]


def stream(root, size):
    """Writes a large file, and reads it when it is cached. MB a second."""
    path, block = f"{root}/large", os.urandom(1 << 20)
    started = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(block)
    wrote = size / 1e6 / (time.monotonic() - started)

    def read():
        with open(path, "rb", buffering=0) as file:
            into = bytearray(1 << 20)
            while file.readinto(into):
                pass
    read()
    started = time.monotonic()
    read()
    return wrote, size / 1e6 / (time.monotonic() - started)


def git_status(root, count):
    """`git status` of a project of so many files when it is warm, in milliseconds."""
    fill(root, count)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*command):
        subprocess.run(["git", "-c", "gc.auto=0", *command], cwd=root, env=environment, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "all")
    git("status")
    took = []
    for _ in range(3):
        started = time.monotonic()
        git("status")
        took.append(time.monotonic() - started)
    return statistics.median(took) * 1000


def seen_after(here, there, rounds):
    """From the end of a save until the other side has it, in milliseconds: the median. Ten files take turns: one
    that is saved more than five times a second for long is slowed down on purpose."""
    took = []
    for number in range(rounds):
        name, data = f"file{number % 10}", f"version {number}\n".encode()
        (here / name).write_bytes(data)
        closed = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                if (there / name).read_bytes() == data:
                    break
            if time.monotonic() - closed > 60:
                raise harness.Failed(f"version {number} is not seen after a minute")
        took.append(time.monotonic() - closed)
        time.sleep(0.05)
    return statistics.median(took) * 1000


# ---- where it is measured ----------------------------------------------------------------------------------


class Local:
    name = "local"

    def __init__(self, bench):
        self.root = bench.dir / "local"
        self.root.mkdir()

    def fresh(self, name):
        path = self.root / name
        path.mkdir()
        return str(path)


class PassThrough(Local):
    name = "bindfs"

    def __init__(self, bench):
        self.below, self.root = bench.dir / "below", bench.dir / "through"
        self.below.mkdir()
        self.root.mkdir()
        subprocess.run(["bindfs", "-o", "attr_timeout=3600,entry_timeout=3600,negative_timeout=3600,kernel_cache",
                        str(self.below), str(self.root)], check=True, env=bench.environment())
        bench.cleanups.append(lambda: subprocess.run(["umount", "-l", str(self.root)], capture_output=True))


class Mounted(Local):
    name = "s0 mount"

    def __init__(self, bench):
        self.service, self.volume = rig.service_and_volume(bench)
        self.mount = rig.Mount(bench, self.volume, "mount")
        self.root = self.mount.path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only figures whose name contains this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tenth of everything, to try this program")
    options = parser.parse_args()
    tenth = 10 if options.small else 1
    many, cached, status = 10_000 // tenth, 50_000 // tenth, 10_000 // tenth
    size = (512 << 20) // tenth
    figures = {}

    def note(figure, unit, who, value):
        figures.setdefault((figure, unit), {}).setdefault(who, []).append(value)
        print(f"{figure}: {who}: {value:,.1f} {unit}", file=sys.stderr, flush=True)

    bench = harness.Bench("mount", long=True)
    try:
        places = [Local(bench), Mounted(bench)]
        if shutil.which("bindfs"):
            places.insert(1, PassThrough(bench))

        def in_turn(which, figures_of, measure):
            """Each place in turn, so many rounds."""
            if not any(options.only in name for name, _ in figures_of):
                return
            for number in range(options.rounds):
                for place in places:
                    values = measure(place.fresh(f"{which}{number}"))
                    for (name, unit), value in zip(figures_of, values):
                        note(name, unit, place.name, value)

        for writers, word in ((1, "one writer"), (8, "eight writers")):
            in_turn(f"make{writers}-", [(f"make, write, close {many:,} files of 4 KiB, {word}", "files/s")],
                    lambda path, writers=writers: [make_many(path, many, writers)])
        in_turn("large", [("write a large file", "MB/s"), ("read it, cached", "MB/s")], lambda path: stream(path, size))
        in_turn("status", [(f"git status of {status:,} files, warm", "ms")], lambda path: [git_status(path, status)])
        if options.only in f"list {cached:,} names, cached" or options.only in f"stat {cached:,} files, cached":
            # Filled once; what is measured is warm in every round.
            filled = {}
            for place in places:
                filled[place] = place.fresh("walk")
                fill(filled[place], cached)
            for _ in range(options.rounds):
                for place in places:
                    listed, stats = walk(filled[place], cached)
                    note(f"list {cached:,} names, cached", "entries/s", place.name, listed)
                    note(f"stat {cached:,} files, cached", "entries/s", place.name, stats)
        across = "an agent's close → on the developer's disk", "a developer's save → readable in the mount"
        if any(options.only in name for name in across):
            mounted = places[-1]
            volume = rig.new_volume(mounted.service)
            mount = rig.Mount(bench, volume, "across")
            replica = bench.machine("developer", mounted.service).attach(volume)

            mount, rounds = mount.path, 200 // tenth
            (replica / "theirs").mkdir()
            harness.wait_until("the directory is in the mount", (mount / "theirs").is_dir)
            note(across[0], "ms", mounted.name, seen_after(mount, replica, rounds))
            note(across[1], "ms", mounted.name, seen_after(replica / "theirs", mount / "theirs", rounds))
    finally:
        bench.close()

    names = [place.name for place in places]
    others = names[:-1]
    print("| figure | unit | " + " | ".join(names) + " | " + " | ".join(f"mount / {other}" for other in others) + " |")
    print("|---|---|" + "---|" * (len(names) + len(others)))
    for (figure, unit), seen in figures.items():
        medians = {who: statistics.median(values) for who, values in seen.items()}

        def cell(who):
            return "" if who not in medians else f"{medians[who]:,.0f}" if medians[who] >= 100 else f"{medians[who]:.1f}"

        ratios = [f"{medians[names[-1]] / medians[other]:.2f}" if other in medians else "" for other in others]
        print("| " + " | ".join([figure, unit, *map(cell, names), *ratios]) + " |")


if __name__ == "__main__":
    sys.exit(main())
