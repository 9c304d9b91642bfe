#!/usr/bin/env python3
"""Builds and runs the fuzz targets: run.py [TARGET…] [--seconds N] [--seed N] [--jobs N] [--list]

One line for each target, and "N passed, N failed" at the end. A failure prints the input that
made it, and how to run that alone. What was found on the way to new code stays in
target/fuzz/TARGET/corpus, and is where the next run begins.
"""
import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BIN = TARGET / "debug" / "s0-fuzz"
# An input of this many bytes is enough for all that is looked for; larger ones are slow.
LONGEST = 8192


def build():
    environment = os.environ | {"RUSTC_WORKSPACE_WRAPPER": str(HERE / "rustc"), "CARGO_INCREMENTAL": "0"}
    # All features of the workspace, so that no crate of others is built a second time.
    command = ["cargo", "build", "--workspace", "--bin", "s0-fuzz", "--features", "s0-fuzz/libfuzzer"]
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL).returncode == 0


def environment(target, **more):
    return os.environ | {"S0_FUZZ_TARGET": target, "RUST_BACKTRACE": "1", **more}


def names():
    done = subprocess.run([BIN], env=environment("list"), capture_output=True, text=True, check=True)
    return done.stdout.split()


def fuzz(target, seconds, seed):
    """Runs one target; gives a line about it, and what went wrong."""
    place = TARGET / "fuzz" / target
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    subprocess.run([BIN], env=environment(target, S0_FUZZ_SEEDS=str(corpus)), check=True)
    command = [BIN, f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={place}/", "-timeout=10",
               f"-max_len={LONGEST}", "-rss_limit_mb=2048", "-print_final_stats=1", "-close_fd_mask=1", corpus]
    done = subprocess.run(command, env=environment(target), capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=seconds * 3 + 120)
    said = done.stderr.decode(errors="replace")
    runs = re.findall(r"number_of_executed_units: (\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    line = f"{target}: {int(runs[-1]) if runs else 0:,} inputs, {covered[-1] if covered else 0} edges"
    if done.returncode == 0:
        return line, None
    kept = re.findall(r"Test unit written to (\S+)", said)
    again = f"\n     replay: S0_FUZZ_TARGET={target} {BIN.name} {kept[-1]}" if kept else ""
    # What matters is around the panic; the rest is figures.
    lines = said.splitlines()
    about = next((at for at, it in enumerate(lines) if "panicked at" in it or "ERROR: libFuzzer" in it),
                 max(0, len(lines) - 40))
    return line, "     " + "\n     ".join(lines[about:about + 40]) + again


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=3, help="for each target")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run")
    parser.add_argument("--jobs", type=int, default=max(1, min(2, os.cpu_count() or 1)))
    parser.add_argument("--no-build", action="store_true", help="run what was built last")
    parser.add_argument("--list", action="store_true", help="only list the targets")
    options = parser.parse_args()
    if not options.no_build and not build():
        print("0 passed, 1 failed")
        return 1
    all_names = names()
    if options.list:
        print("\n".join(all_names))
        return 0
    unknown = set(options.targets) - set(all_names)
    if unknown:
        print(f"there is no target named {', '.join(sorted(unknown))}; --list names all")
        print("0 passed, 1 failed")
        return 1
    seed = random.SystemRandom().randrange(1, 2**31) if options.seed is None else options.seed
    chosen = options.targets or all_names
    print(f"{len(chosen)} targets, {options.seconds} s each, --seed {seed}", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for line, wrong in pool.map(lambda target: fuzz(target, options.seconds, seed), chosen):
            print(f"{'ok  ' if wrong is None else 'FAIL'} {line}", flush=True)
            if wrong is not None:
                failed += 1
                print(wrong, flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
