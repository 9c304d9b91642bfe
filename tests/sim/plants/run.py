#!/usr/bin/env python3
"""Shows that the simulator sees: plants one known bug at a time, and expects seeds to fail of it.

run.py [-k TEXT] [--seeds N]. One line for each bug, "N passed, N failed" at the end. A plant is a file beside
this one: what the bug is, what is seen of it, and edits of the sources, each of a text that must be there exactly
once. The sources are copied below the target directory; nothing in the repository is changed.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

PLANTS = pathlib.Path(__file__).resolve().parent
ROOT = PLANTS.parents[2]
SCRATCH = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "plants"
SOURCES = SCRATCH / "sources"
# The test that runs whole worlds.
WORLDS = ["seeds", "--exact"]
# A plant moves all that happens in a world, so that one may fail of what is wrong without it.
# So many seeds that fail in the way of the bug, and pass without it, are no accident.
WITNESSES = 5


class Unfit(Exception):
    """The plant does not fit the sources any more, or does not build."""


def put(path, data):
    """Writes what differs only, so that Cargo builds what differs only."""
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def copy_sources():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                             "Cargo.toml", "Cargo.lock", "server", "tests/fuzz", "tests/sim"],
                            cwd=ROOT, check=True, capture_output=True).stdout
    names = {name.decode() for name in listed.split(b"\0") if name}
    names = {name for name in names if (ROOT / name).is_file()}
    for name in names:
        put(SOURCES / name, (ROOT / name).read_bytes())
    for path in [path for path in SOURCES.rglob("*") if path.is_file()]:
        if str(path.relative_to(SOURCES)) not in names:
            path.unlink()


def plant(edits):
    """Makes the edits in the copy, and returns the files as they were."""
    before, after = {}, {}
    for edit in edits:
        name, old, new = edit["file"], edit["old"].strip("\n"), edit["new"].strip("\n")
        text = after.get(name) or (SOURCES / name).read_text()
        before.setdefault(name, text)
        found = text.count(old)
        if found != 1:
            raise Unfit(f"{name} has this {found} times, not once:\n{old}")
        after[name] = text.replace(old, new)
    for name, text in after.items():
        put(SOURCES / name, text.encode())
    return before


def build(to):
    """Builds the simulator from the copy, and keeps its program."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(SCRATCH / "target"), RUSTFLAGS="-Awarnings")
    built = subprocess.run(["cargo", "test", "-p", "s0-sim", "--test", "seeds", "--no-run",
                            "--message-format", "json-render-diagnostics"], cwd=SOURCES, env=environment,
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if built.returncode != 0:
        raise Unfit(f"it does not build:\n{built.stderr[-3000:]}")
    messages = (json.loads(line) for line in built.stdout.splitlines())
    program, = [message["executable"] for message in messages if message.get("executable")]
    shutil.copy2(program, to)
    return to


def passes(program, seed):
    return subprocess.run([program, *WORLDS], env=dict(os.environ, S0_SIM_SEED=str(seed)), stdin=subprocess.DEVNULL,
                          capture_output=True).returncode == 0


def witnesses(planted, sound, seen, seeds):
    """Seeds that fail in the way of the bug, and pass without it, with what they say."""
    environment = dict(os.environ, S0_SIM_SEEDS=str(seeds), S0_SIM_STOP=str(seeds), RUST_BACKTRACE="0")
    found = []
    with subprocess.Popen([planted, *WORLDS, "--nocapture"], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        for line in running.stderr:
            failing = re.match(r"seed (\d+) fails: (?:\[.*?\] )?(.*)", line)
            if failing and re.search(seen, failing[2]) and passes(sound, failing[1]):
                found.append((int(failing[1]), failing[2]))
            if len(found) == WITNESSES:
                running.kill()
                break
    return sorted(found)


def try_plant(described, sound, seeds):
    """Whether the bug is noticed, and what there is to say about it."""
    before = {}
    try:
        before = plant(described["edit"])
        found = witnesses(build(SCRATCH / "planted"), sound, described["seen"], seeds)
    except Unfit as why:
        return False, str(why)
    finally:
        for name, text in before.items():
            put(SOURCES / name, text.encode())
    if len(found) < WITNESSES:
        return False, f"{len(found)} of {seeds} seeds notice that {described['what']}"
    return True, f"seed {found[0][0]}: {found[0][1]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-k", default="", help="only plants whose name contains this")
    parser.add_argument("--seeds", type=int, default=2000, help="give up after so many")
    options = parser.parse_args()
    copy_sources()
    sound = build(SCRATCH / "sound")
    passed = failed = 0
    for file in sorted(PLANTS.glob("*.toml")):
        if options.k not in file.stem:
            continue
        noticed, said = try_plant(tomllib.loads(file.read_text()), sound, options.seeds)
        print(f"{'ok  ' if noticed else 'FAIL'}  {file.stem}: {said}", flush=True)
        passed += noticed
        failed += not noticed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
