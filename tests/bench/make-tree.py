#!/usr/bin/env python3
"""Makes the benchmark tree: make-tree.py DIRECTORY FILES

A tree like a large repository: twelve files to a directory, up to seven levels deep, sizes log-normal around
4 KB with a long tail up to 400 KB. The same number of files gives the same bytes on every machine; 20,000 files
are about 190 MB.
"""
import pathlib
import random
import sys

SEED = 7
PER_DIRECTORY = 12
DEEPEST = 7
SMALLEST, LARGEST = 50, 400_000


def make_tree(root, files):
    """Makes the tree and gives the paths of its files, relative to `root`."""
    root = pathlib.Path(root)
    root.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    noise = rng.randbytes(1 << 20)
    folders = [pathlib.PurePath()]
    for number in range(files // PER_DIRECTORY):
        # New directories grow below recent ones, so that depth and breadth both occur.
        above = rng.choice(folders[-400:])
        if len(above.parts) >= DEEPEST:
            above = pathlib.PurePath()
        folder = above / f"d{number:05d}"
        (root / folder).mkdir(exist_ok=True)
        folders.append(folder)
    made, total = [], 0
    for number in range(files):
        size = int(min(LARGEST, max(SMALLEST, rng.lognormvariate(8.2, 1.4))))
        start = rng.randrange(len(noise) - size)
        path = rng.choice(folders) / f"f{number:06d}.txt"
        # The number at the end makes each content its own.
        (root / path).write_bytes(noise[start:start + size] + b"%d" % number)
        made.append(str(path))
        total += size
    return made, len(folders), total


def main():
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.exit(__doc__)
    made, folders, total = make_tree(sys.argv[1], int(sys.argv[2]))
    print(f"{len(made)} files in {folders} directories, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
