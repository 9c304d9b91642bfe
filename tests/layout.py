#!/usr/bin/env python3
"""Checks of the repository itself: what lives where, and what must not be in it.

Prints one line for each check and ends with "N passed, N failed".
"""
import os
import pathlib
import re
import subprocess
import sys
import tomllib
from urllib.parse import urlsplit

ROOT = pathlib.Path(__file__).resolve().parent.parent
LONG_MODULE = 500

# Which of our crates each may use. An arrow that is not here goes up.
ARROWS = {
    "s0-tree": set(),
    "s0-review": {"s0-tree"},
    "s0-api": {"s0-tree"},
    "s0-service": {"s0-tree", "s0-api"},
    "s0-mount": {"s0-tree", "s0-api"},
    "s0-sandbox": {"s0-tree", "s0-api", "s0-mount"},
    "s0-replica": {"s0-tree", "s0-api", "s0-review"},
    "s0-host": {"s0-tree", "s0-api", "s0-review", "s0-replica"},
    "s0-sidecar": {"s0-tree", "s0-api", "s0-review", "s0-replica", "s0-host"},
}

# The addresses that every clone of every project has in its lock files.
PUBLIC_HOSTS = {
    "crates.io", "index.crates.io", "static.crates.io", "github.com",
    "registry.npmjs.org", "pypi.org", "files.pythonhosted.org",
    "deb.debian.org", "security.debian.org", "archive.ubuntu.com", "security.ubuntu.com",
    "localhost", "127.0.0.1",
}


def tracked():
    """The files of the repository: committed, staged, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True).stdout
    names = sorted({name.decode() for name in listed.split(b"\0") if name})
    return [name for name in names if (ROOT / name).is_file()]


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def rust_files(names):
    return [n for n in names if n.endswith(".rs") and n.startswith("server/")]


def conditions(text):
    """Each `cfg(…)`, `cfg!(…)` and `cfg_attr(…)`, with its line and its balanced parentheses."""
    for match in re.finditer(r"\bcfg(_attr)?!?\s*\(", text):
        depth, at = 1, match.end()
        while depth and at < len(text):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        yield text.count("\n", 0, match.start()) + 1, text[match.start():at]


def code_for_one_system_lives_in_platform_modules(names):
    for name in rust_files(names):
        parts = pathlib.PurePath(name)
        if parts.stem == "platform" or "platform" in parts.parts:
            continue
        for line, condition in conditions(text_of(name)):
            bare = re.sub(r'"[^"]*"', "", condition)
            if re.search(r"\b(unix|windows|target_os|target_family)\b", bare):
                yield f"{name}:{line}: {condition}"


def arrows_between_rooms_go_down(names):
    for name in names:
        if not re.fullmatch(r"server/[^/]+/Cargo\.toml", name):
            continue
        manifest = tomllib.loads(text_of(name))
        crate = manifest["package"]["name"]
        ours = {d for d in manifest.get("dependencies", {}) if d.startswith("s0-")}
        for upward in sorted(ours - ARROWS.get(crate, ours)):
            yield f"{name}: {crate} must not use {upward}"


def pure_rooms_do_no_io(names):
    forbidden = re.compile(
        r"\bstd::(fs|net|process|thread|env)\b|\bSystemTime::now\b|\bInstant::now\b"
        r"|\basync fn\b|\btokio\b|\brand::")
    for name in rust_files(names):
        if not name.startswith(("server/tree/src/", "server/review/src/")):
            continue
        code = text_of(name).split("#[cfg(test)]")[0]
        for number, line in enumerate(code.splitlines(), 1):
            if not line.lstrip().startswith("//") and forbidden.search(line):
                yield f"{name}:{number}: {line.strip()}"


def each_crate_says_what_must_never_enter(names):
    for name in names:
        if re.fullmatch(r"server/[^/]+/src/lib\.rs", name):
            text = text_of(name)
            if not text.startswith("//!") or "must never enter" not in text.lower():
                yield f"{name}: open with what the room is for and what must never enter it"


def no_machine_is_named(names):
    """Paths of the machine that this runs on, found at run time so that none stands here."""
    home = os.path.expanduser("~").rstrip("/")
    places = {str(ROOT) + "/", home + "/"}
    above = str(ROOT.parent).rstrip("/")
    if above.count("/") >= 1 and above not in ("", "/", "/tmp", "/home", "/root", "/var/tmp", home):
        places.add(above + "/")
    places -= {"/"}
    for name in names:
        for number, line in enumerate(text_of(name).splitlines(), 1):
            for place in places:
                if re.search(r"(?<![\w.$}~/-])" + re.escape(place), line):
                    yield f"{name}:{number}: mentions {place}"


def configured_hosts():
    """Hosts of the package registries and mirrors that this machine is set up with."""
    home = pathlib.Path.home()
    cargo = pathlib.Path(os.environ.get("CARGO_HOME", home / ".cargo"))
    sources = [cargo / "config.toml", cargo / "config", home / ".npmrc", home / ".pip/pip.conf",
               home / ".config/pip/pip.conf", pathlib.Path("/etc/pip.conf"),
               pathlib.Path("/etc/npmrc"), pathlib.Path("/etc/apt/sources.list"),
               *pathlib.Path("/etc/apt/sources.list.d").glob("*"),
               *pathlib.Path("/etc/apt/apt.conf.d").glob("*")]
    texts = [value for key, value in os.environ.items()
             if re.search(r"REGISTR|INDEX_URL|GOPROXY|_PROXY$", key, re.IGNORECASE)]
    for source in sources:
        try:
            texts.append(source.read_text(errors="replace"))
        except OSError:
            continue
    hosts = set()
    for text in texts:
        for url in re.findall(r"[a-z+]+://[^\s\"'<>|,]+", text):
            try:
                host = urlsplit(url).hostname
            except ValueError:
                continue
            if host and "." in host and host not in PUBLIC_HOSTS:
                hosts.add(host)
    return hosts


def no_registry_host_is_named(names):
    hosts = configured_hosts()
    for name in names:
        text = text_of(name)
        for host in hosts:
            if host in text:
                yield f"{name}: mentions a registry or mirror of this machine"


def no_secret_or_key_is_committed(names):
    pattern = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_\w{36}\b")
    for name in names:
        if name != "tests/layout.py" and pattern.search(text_of(name)):
            yield f"{name}: holds what looks like a key"


def python_of_the_tests_compiles(names):
    for name in names:
        if name.endswith(".py"):
            try:
                compile(text_of(name), name, "exec")
            except SyntaxError as error:
                yield f"{name}: {error}"


CARDS = [f"D{number}" for number in range(1, 34)] + [f"V{number}" for number in range(1, 12)]


def stands_in(name, wanted):
    """Whether a file has a test, or a type, of this name."""
    text, word = text_of(name), re.escape(wanted)
    if name.endswith(".py"):
        return wanted.startswith("test_") and re.search(rf"^def {word}\(", text, re.MULTILINE)
    if wanted[0].isupper():
        return re.search(rf"^\s*pub (struct|enum) {word}\b", text, re.MULTILINE)
    attributes = r"#\[(?:tokio::)?test(?:\([^]]*\))?\]\s*(?:#\[(?!ignore)[^]]*\]\s*)*"
    return re.search(attributes + rf"(?:async )?fn {word}\b", text)


def the_deck_names_what_is_there(names):
    """Each card of tests/deck.md has a row, and each test and type that a row names exists."""
    rows = re.findall(r"^\| ([DV]\d+) \|[^|]*\|([^|]*)\|$", text_of("tests/deck.md"), re.MULTILINE)
    cards = [card for card, _ in rows]
    if cards != CARDS:
        yield f"tests/deck.md: rows of {sorted(set(CARDS) ^ set(cards)) or 'cards twice or out of order'}"
    for card, cell in rows:
        named = re.findall(r"`([^`]*/[^`]*)`", cell)
        others = re.findall(r"\b[DV]\d+\b", re.sub(r"`[^`]*`", "", cell))
        if not named and not others:
            yield f"tests/deck.md: {card} names nothing that would fail"
        for other in others:
            if other not in CARDS or other == card:
                yield f"tests/deck.md: {card} names {other}"
        for it in named:
            file, _, wanted = it.partition("#")
            found = [name for name in (f"server/{file}", f"tests/{file}") if name in names]
            plant = file.startswith("sim/plants/")
            if not found or bool(wanted) == plant or (wanted and not stands_in(found[0], wanted)):
                yield f"tests/deck.md: {card} names {it}, which is not there"


def planted_bugs_fit_the_sources(names):
    for name in names:
        if name.startswith("tests/sim/plants/") and name.endswith(".toml"):
            for edit in tomllib.loads(text_of(name))["edit"]:
                times = text_of(edit["file"]).count(edit["old"])
                if times != 1:
                    yield f"{name}: what it replaces is {times} times in {edit['file']}"


CHECKS = [
    code_for_one_system_lives_in_platform_modules,
    arrows_between_rooms_go_down,
    pure_rooms_do_no_io,
    each_crate_says_what_must_never_enter,
    no_machine_is_named,
    no_registry_host_is_named,
    no_secret_or_key_is_committed,
    python_of_the_tests_compiles,
    the_deck_names_what_is_there,
    planted_bugs_fit_the_sources,
]


def main():
    names = tracked()
    for name in rust_files(names):
        lines = text_of(name).count("\n")
        if lines > LONG_MODULE:
            print(f"warning  {name} has {lines} lines; a module should stay under {LONG_MODULE}")
    passed = failed = 0
    for check in CHECKS:
        found = list(check(names))
        if found:
            failed += 1
            print(f"FAIL     {check.__name__}")
            for line in found[:20]:
                print(f"         {line}")
        else:
            passed += 1
            print(f"ok       {check.__name__}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
