#!/usr/bin/env python3
"""The figures of s0 sync beside those of other programs: figures.py [--only NAME]… [--files N] [-o OUT.json]

Everything is taken in one run on one machine: ours and the peers take turns, each round in fresh directories, nothing
is deleted in bulk before what is measured; the median of the rounds counts. `S0_BIN` names the program; it must be a
release build for figures that mean something. Without --peers all peers that can be had are measured.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import chart
import lab
import measures
import peers

GROWTH_FROM = 20_000


def number(value, unit):
    """A figure as people read it."""
    if value is None:
        return ""
    if unit == "entries/s":
        return f"{value:,.0f}"
    for limit, form in ((0.095, ".3f"), (10, ".2f"), (100, ".1f")):
        if abs(value) < limit:
            return format(value, form)
    return f"{value:.0f}"


def goal(figure):
    if figure.goal is None:
        return "–"
    word = "≥" if figure.least else "≤"
    if figure.beside:
        limit = figure.limit()
        told = f" = {number(limit, figure.unit)}" if limit is not None else ""
        return f"{word} {figure.goal:g} × {figure.beside}{told}"
    return f"{word} {number(figure.goal, figure.unit)}"


def verdict(figure):
    met = figure.met()
    if met is None:
        return "–"
    if not figure.beside:
        return "met" if met else "**not met**"
    ratio = figure.median() / figure.median(figure.beside)
    return f"{'met' if met else '**not met**'} ({ratio:.2f} ×)"


def spread(figure, who=lab.OURS):
    values = figure.seen.get(who) or []
    if len(values) < 2:
        return "once" if values else ""
    return f"{number(min(values), figure.unit)} … {number(max(values), figure.unit)}"


def table(figures, others):
    """The figures in Markdown."""
    yield "| figure | unit | s0 sync | spread | " + " | ".join(others) + " | goal | |"
    yield "|---|---|---|---|" + "---|" * len(others) + "---|---|"
    for figure in figures:
        cells = [figure.name, figure.unit, number(figure.median(), figure.unit), spread(figure)]
        cells += [number(figure.median(other), figure.unit) for other in others]
        yield "| " + " | ".join([*cells, goal(figure), verdict(figure)]) + " |"


def machine():
    """What it ran on, without names."""
    model = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "")
    return f"{os.cpu_count()} processors{f' ({model})' if model else ''}, Linux {os.uname().release.split('-')[0]}"


def commit():
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=lab.HERE, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def document(taken, figures):
    """All of it, for programs: and for the chart, and the table of growth, of another day."""
    return {
        "commit": commit(), "machine": machine(), "files": taken.files, "bytes": taken.bytes, "rounds": taken.rounds,
        "load": os.getloadavg(), "missing": taken.missing, "peers": list(peers.versions(taken.here)),
        "figures": [{
            "name": it.name, "unit": it.unit, "how": it.how, "goal": it.goal, "beside": it.beside, "least": it.least,
            "limit": it.limit(), "met": it.met(), "seen": it.seen, "notes": it.notes} for it in figures],
    }


def read(path):
    """A document, and its figures as they were."""
    said = json.loads(pathlib.Path(path).read_text())
    keys = ("name", "unit", "how", "goal", "beside", "least", "seen", "notes")
    return said, [lab.Figure(**{key: it[key] for key in keys}) for it in said["figures"]]


def report(said, figures):
    """The whole text."""
    others = [name for name in ("rsync", "Unison", "Mutagen", "Syncthing", "git status")
              if any(name in figure.seen for figure in figures)]
    yield (f"Commit {said['commit']}, {said['machine']}; {said['files']:,} files, {said['bytes'] / 1e6:.0f} MB; "
           f"median of {said['rounds']} rounds where nothing else is said. Peers: {', '.join(said['peers']) or 'none'}.")
    for name, why in said["missing"].items():
        yield f"\n{name} is not in the table: {why}."
    yield ""
    yield from table(figures, others)
    yield ""
    for figure in figures:
        notes = f" ({'; '.join(figure.notes)})" if figure.notes else ""
        yield f"- **{figure.name}**: {figure.how}{notes}."


def growth(small, large):
    """How each figure of ours grows with the number of files."""
    (less, few), (more, many) = read(small), read(large)
    yield (f"| figure | unit | {less['files']:,} files | {more['files']:,} files | grows | rsync, git grow |")
    yield "|---|---|---|---|---|---|"
    later = {figure.name: figure for figure in many}
    for figure in few:
        other = later.get(figure.name)
        if other is None or other.median() is None or figure.median() is None:
            continue
        peer = next((who for who in ("rsync", "git status")
                     if figure.median(who) and other.median(who)), None)
        theirs = f"{other.median(peer) / figure.median(peer):.1f} ×" if peer else ""
        factor = f"{other.median() / figure.median():.1f} ×" if figure.median() else ""
        yield (f"| {figure.name} | {figure.unit} | {number(figure.median(), figure.unit)} | "
               f"{number(other.median(), figure.unit)} | {factor} | {theirs} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(measures.ALL), help="only these measures")
    parser.add_argument("--list", action="store_true", help="say which measures there are")
    parser.add_argument("--files", type=int, default=GROWTH_FROM, help="files in the tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="only these, with commas between them; `none` for none")
    parser.add_argument("-o", "--output", help="write all of it as JSON, too")
    parser.add_argument("--chart", help="draw the chart there")
    parser.add_argument("--read", help="measure nothing: tell and draw what such a JSON holds")
    parser.add_argument("--growth", nargs=2, metavar=("SMALL", "LARGE"), help="only a table of two such JSONs")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args()
    if options.list:
        for key, function in measures.ALL.items():
            print(f"{key:10} {function.__doc__}")
        return 0
    if options.growth:
        print("\n".join(growth(*options.growth)))
        return 0
    if options.read:
        said, figures = read(options.read)
    else:
        said, figures = take(options)
    if options.chart:
        pathlib.Path(options.chart).write_text(chart.draw(said, figures, number))
    print("\n".join(report(said, figures)))
    return 1 if options.check and any(figure.met() is False for figure in figures) else 0


def take(options):
    wanted = None if options.peers is None else [name.strip().lower() for name in options.peers.split(",")]
    taken, figures = lab.Lab(options.files, options.rounds, wanted), []
    try:
        for key, function in measures.ALL.items():
            if options.only and key not in options.only:
                continue
            started = time.monotonic()
            print(f"== {key}: {function.__doc__}", file=sys.stderr, flush=True)
            figures += function(taken)
            print(f"== {key} took {time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.1f}",
                  file=sys.stderr, flush=True)
            if options.output:
                # After each: what breaks off has not been for nothing.
                text = json.dumps(document(taken, figures), indent=1, ensure_ascii=False)
                pathlib.Path(options.output).write_text(text + "\n")
        return document(taken, figures), figures
    except BaseException:
        print("\n".join(taken.bench.logs()), file=sys.stderr)
        raise
    finally:
        taken.close()


if __name__ == "__main__":
    sys.exit(main())
