#!/usr/bin/env python3
"""Runs the end-to-end scenarios: run.py [-k TEXT] [--long] [--seed N] [--keep] [--list]

One line for each test, and "N passed, N failed, N skipped" at the end. `tests/mount/run` runs its own scenarios
with this.
"""
import argparse
import faulthandler
import importlib
import os
import pathlib
import signal
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402

MODULES = ["basics", "ignoring", "history", "bad_input", "habits", "hazards", "project", "offline", "kills", "hostile", "folding_disk", "editors",
           "quotas", "upkeep", "sandboxes", "volumes_in_sandboxes", "cli", "tour"]
PROGRAM = "tests/e2e/run.py"


class Overtime(Exception):
    """A test took longer than any test may."""


def tests(modules):
    for module in modules:
        scenario = importlib.import_module(f"scenario_{module}")
        for name, function in vars(scenario).items():
            if name.startswith("test_"):
                yield module, name.removeprefix("test_"), function


def overtime(_signal, _frame):
    raise Overtime("the test took longer than any test may")


def run(module, name, function, options, program):
    """Runs one test and says "passed", "failed" or "skipped"."""
    bench = harness.Bench(name, options.long, options.seed)
    started = time.monotonic()
    result, said = "passed", ""
    signal.alarm(int((4 * 3600 if options.long else 900) * harness.PATIENCE))
    try:
        function(bench)
    except harness.Skip as reason:
        result, said = "skipped", f"  needs {reason}"
    except KeyboardInterrupt:
        bench.close()
        raise
    except BaseException:  # noqa: BLE001 - whatever it was, the other tests go on
        result, said = "failed", traceback.format_exc()
    finally:
        signal.alarm(0)
    mark = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[result]
    figures = f"  [{'; '.join(bench.figures)}]" if bench.figures else ""
    took = time.monotonic() - started
    print(f"{mark} {module}: {name.replace('_', ' ')} ({took:.1f} s){figures}", flush=True)
    if result == "skipped":
        print(f"     {said.strip()}", flush=True)
    if result == "failed":
        print(f"     replay: {program} -k {name} --seed {bench.seed}"
              + (" --long" if options.long else ""))
        print("     " + said.rstrip().replace("\n", "\n     "))
        for log in bench.logs():
            print("     " + log.replace("\n", "\n     "))
        if options.keep:
            print(f"     kept in {bench.dir}")
        sys.stdout.flush()
    bench.close(keep=options.keep and result == "failed")
    return result


def main(modules=tuple(MODULES), program=PROGRAM, about=__doc__.splitlines()[0]):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("-k", dest="only", default="", help="only tests whose name contains this")
    parser.add_argument("--long", action="store_true", help="the long forms")
    parser.add_argument("--seed", type=int, help="the seed of a failed test")
    parser.add_argument("--keep", action="store_true", help="keep the files of failed tests")
    parser.add_argument("--list", action="store_true", help="only list the tests")
    options = parser.parse_args()
    chosen = [(module, name, function) for module, name, function in tests(modules)
              if options.only.replace(" ", "_") in f"{module}:{name}"]
    if options.list:
        for module, name, function in chosen:
            print(f"{module}: {name.replace('_', ' ')}")
        return 0
    if not os.access(harness.BIN, os.X_OK):
        print(f"{harness.BIN} is missing: cargo build --bin s0, or set S0_BIN")
        print("0 passed, 1 failed, 0 skipped")
        return 1
    faulthandler.enable()
    signal.signal(signal.SIGALRM, overtime)
    # Whoever ends the run gets its mounts and processes cleaned up, in the background too.
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, signal.default_int_handler)
    results = [run(*test, options, program) for test in chosen]
    counts = [results.count(result) for result in ("passed", "failed", "skipped")]
    print("{} passed, {} failed, {} skipped".format(*counts))
    return 0 if counts[1] == 0 and chosen else 1


if __name__ == "__main__":
    sys.exit(main())
