#!/usr/bin/env python3
"""How long a write takes to be on the other side: latency.py [--tree N] [--files N] [--check]

A workspace of N files is attached to a Volume; then single files, chosen at random, are written one after the
other, with a pause of random length between them, so that nothing keeps step with a timer of the program:

- save in place: truncate, write, close, as many editors do     -> the API gives the new bytes
- save by rename: write beside, rename over, as others do       -> the API gives the new bytes
- agent's write: POST to the file API, from sending it          -> the local file has the new bytes

The clock starts before the write, so the write itself and, upwards, the commit to disk are in the figures.
"""
import argparse
import importlib.util
import os
import pathlib
import random
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import harness  # noqa: E402

GOAL_MEDIAN, GOAL_P99 = 10, 50


def make_tree(root, files):
    """The benchmark tree, from the script beside this one (its name is no module's)."""
    spec = importlib.util.spec_from_file_location("make_tree", HERE / "make-tree.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_tree(root, files)


def in_place(path, data):
    path.write_bytes(data)


def by_rename(path, data):
    beside = path.with_name(f".{path.name}.saving")
    beside.write_bytes(data)
    os.replace(beside, path)


def wait(arrived, limit=30):
    deadline = time.perf_counter() + limit
    while not arrived():
        if time.perf_counter() > deadline:
            raise harness.Failed(f"a write did not arrive within {limit} s")
        time.sleep(0.0003)


def upwards(save, replica, volume, names, rng):
    for number, name in enumerate(names):
        data = b"%s %d %d\n" % (save.__name__.encode(), number, rng.randrange(2**40)) * rng.randrange(1, 300)
        time.sleep(0.005 + rng.random() * 0.03)
        started = time.perf_counter()
        save(replica / name, data)
        wait(lambda: volume.read(name) == data)
        yield (time.perf_counter() - started) * 1000


def downwards(replica, volume, names, rng):
    for number, name in enumerate(names):
        data = b"agent %d %d\n" % (number, rng.randrange(2**40)) * rng.randrange(1, 300)
        path = replica / name
        time.sleep(0.005 + rng.random() * 0.03)
        started = time.perf_counter()
        volume.write(name, data)
        wait(lambda: path.read_bytes() == data)
        yield (time.perf_counter() - started) * 1000


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=int, default=20_000, help="files in the workspace")
    parser.add_argument("--files", type=int, default=500, help="writes of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args()
    bench = harness.Bench("latency", seed=options.seed)
    rng = bench.random
    try:
        service = bench.service()
        volume = service.create_volume()
        machine = bench.machine("laptop", service)
        root = machine.dir / "workspace"
        names, folders, total = make_tree(root, options.tree)
        started = time.perf_counter()
        replica = machine.attach(volume, root)
        replica.flush(600)
        seeded = time.perf_counter() - started
        harness.wait_until("in sync", lambda: replica.status()["condition"] == "in_sync", 60)
        chosen = rng.sample(names, min(options.files, len(names)))
        rows = [
            ("save in place → readable through the API", upwards(in_place, replica, volume, chosen, rng)),
            ("save by rename → readable through the API", upwards(by_rename, replica, volume, chosen, rng)),
            ("agent's write → on local disk", downwards(replica, volume, chosen, rng)),
        ]
        print(f"{len(names)} files in {folders} directories, {total / 1e6:.0f} MB; "
              f"seeded in {seeded:.1f} s; {len(chosen)} writes of each kind; milliseconds")
        print()
        print("| way | median | p90 | p99 | max |")
        print("|---|---|---|---|---|")
        missed = []
        for name, figures in rows:
            values = list(figures)
            median, p99 = statistics.median(values), percentile(values, 0.99)
            print(f"| {name} | {median:.1f} | {percentile(values, 0.9):.1f} | {p99:.1f} | {max(values):.1f} |",
                  flush=True)
            if median > GOAL_MEDIAN or p99 > GOAL_P99:
                missed.append(name)
        memory = harness.peak_memory(replica.pid), harness.peak_memory(service.process.pid)
        print()
        print(f"peak memory: host {memory[0]:.0f} MiB, service {memory[1]:.0f} MiB")
        harness.settle(replica)
        replica.verify()
        print(f"goal (median {GOAL_MEDIAN} ms, p99 {GOAL_P99} ms): "
              + (f"missed by {', '.join(missed)}" if missed else "met by all"))
    finally:
        bench.close()
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
