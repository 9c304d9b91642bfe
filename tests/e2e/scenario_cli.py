"""The program's screens: formats, colours, profiles, the doctor, and what is said of mistakes."""
import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time

from harness import BIN, PATIENCE, check, settle, wait_until, write

# Commands that show a document.
SHOWING = (("volume", "list"), ("token", "list"), ("sync", "list"), ("doctor",))


def without_service(machine, **more):
    """An environment in which no service is named: only files of this machine can name one."""
    environment = machine.environment(S0_DATA_DIR=str(machine.dir / "no-data"), **more)
    del environment["SANDBOX0_BASE_URL"], environment["SANDBOX0_TOKEN"]
    return environment


def run(environment, *arguments, cwd=None):
    return subprocess.run([BIN, *map(str, arguments)], env=environment, cwd=cwd, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=120 * PATIENCE)


def on_terminal(environment, *arguments, cwd=None):
    """What a command prints on a terminal."""
    inner, outer = pty.openpty()
    process = subprocess.Popen([BIN, *map(str, arguments)], env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
                               stdout=outer, stderr=outer)
    os.close(outer)
    said = b""
    deadline = time.monotonic() + 60 * PATIENCE
    # A terminal that nobody writes to any more is an error to its reader.
    with contextlib.suppress(OSError):
        while select.select([inner], [], [], max(0, deadline - time.monotonic()))[0]:
            piece = os.read(inner, 65536)
            if not piece:
                break
            said += piece
    os.close(inner)
    process.wait(10 * PATIENCE)
    return said.decode()


def verdicts(machine, *arguments, environment=None, cwd=None):
    """The doctor's exit code, and its findings by check."""
    done = run(environment or machine.environment(), "doctor", "-o", "json", *arguments, cwd=cwd or machine.dir)
    findings = {}
    for finding in json.loads(done.stdout)["checks"]:
        findings.setdefault(finding["check"], []).append(finding)
    return done.returncode, findings


def test_yaml_is_one_document_for_each_answer(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    volume = service.create_volume()
    machine.attach(volume)
    for command in SHOWING:
        said = machine.run(*command, "-o", "yaml").stdout.decode()
        check(said.startswith("---\n"), f"{command}: {said!r}")
        check("\x1b" not in said, f"{command} has colours: {said!r}")
        check('{"' not in said, f"{command} says JSON: {said!r}")
    said = machine.run("volume", "get", volume.id, "-o", "yaml").stdout.decode()
    value = machine.json("volume", "get", volume.id)
    for key in value:
        check(f"\n{key}: " in said, f"{key} is not in the YAML: {said!r}")
    failed = machine.run("volume", "get", "vol_none", "-o", "yaml", ok=False)
    check(failed.stderr.startswith(b"---\nerror: ") and b"\nexit_code: 1\n" in failed.stderr, f"{failed.stderr!r}")


def test_colours_are_for_terminals_that_want_them(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    machine.attach(service.create_volume())
    environment = machine.environment(TERM="xterm")
    no_colour = dict(environment)
    del environment["NO_COLOR"]
    for command in (("sync", "list"), ("sync", "status", "-C", machine.dir / "workspace"), ("doctor",),
                    ("volume", "get", "vol_none")):
        shown = on_terminal(environment, *command, cwd=machine.dir)
        check("\x1b[" in shown and "\x1b[0m" in shown, f"{command} has no colours on a terminal: {shown!r}")
        for name, quiet in (("NO_COLOR", no_colour), ("TERM=dumb", {**environment, "TERM": "dumb"})):
            shown = on_terminal(quiet, *command, cwd=machine.dir)
            check(len(shown) > 20 and "m" in shown, f"{command} says nothing: {shown!r}")
            check("\x1b[3" not in shown and "\x1b[1m" not in shown, f"{command} has colours with {name}: {shown!r}")
        piped = run(environment, *command, cwd=machine.dir)
        check("\x1b" not in piped.stdout + piped.stderr, f"{command} has colours in a pipe: {piped!r}")
    shown = on_terminal(environment, "sync", "list", "-o", "json", cwd=machine.dir)
    check("\x1b" not in shown, f"JSON has colours: {shown!r}")


def test_profiles_name_services_and_come_after_options_and_environment(bench):
    service, other = bench.service(), bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    config = machine.dir / "home/.config/s0/config.toml"
    environment = without_service(machine)

    def list_with(*options, **more):
        return run({**environment, **more}, "volume", "list", "-o", "json", *options)

    check(list_with().returncode == 5, "there is a service, and none was named")
    write(config, f'profile = "one"\n[profiles.one]\nbase_url = "{service.url}"\ntoken = "{service.token}"\n'
                  f'[profiles.two]\nbase_url = "{other.url}"\ntoken_file = "two"\n')
    write(config.parent / "two", other.token + "\n")
    config.chmod(0o644)
    refused = list_with()
    check(refused.returncode == 1 and "chmod 600" in refused.stderr, f"{refused}")
    check(service.token not in refused.stderr, "the token was shown")
    config.chmod(0o600)
    ids = lambda done: [it["id"] for it in json.loads(done.stdout)]  # noqa: E731
    check(ids(list_with()) == [volume.id], "the file's own profile is not taken")
    check(ids(list_with("--profile", "two")) == [], "--profile does not choose")
    check(ids(list_with(S0_PROFILE="two")) == [], "S0_PROFILE does not choose")
    check(ids(list_with("--profile", "one", S0_PROFILE="two")) == [volume.id], "the option is not before its variable")
    both = {"SANDBOX0_BASE_URL": service.url, "SANDBOX0_TOKEN": service.token}
    check(ids(list_with(S0_PROFILE="two", **both)) == [volume.id], "the environment is not before a profile")
    check(ids(list_with("--server", other.url, "--token", other.token, **both)) == [],
          "options are not before the environment")
    # The token of a profile is for its service only.
    elsewhere = list_with("--server", other.url)
    check(elsewhere.returncode == 5 and "token" in elsewhere.stderr, f"{elsewhere}")
    unknown = list_with("--profile", "tow")
    check(unknown.returncode == 1 and "one, two" in unknown.stderr, f"{unknown}")
    moved = config.rename(machine.dir / "mine.toml")
    write(machine.dir / "two", other.token)
    check(ids(list_with("--config", moved)) == [volume.id], "--config names no file")
    check(ids(list_with(S0_CONFIG=str(moved), S0_PROFILE="two")) == [], "S0_CONFIG names no file")
    absent = list_with("--config", config)
    check(absent.returncode == 1 and str(config) in absent.stderr, f"{absent}")
    write(moved, f'[profiles.one]\nbase_url = "x"\ntoken = "{service.token}')
    broken = list_with("--config", moved)
    check(broken.returncode == 1 and "line 3" in broken.stderr, f"{broken}")
    check(service.token not in broken.stderr, "a broken line was shown with its token")
    # Whoever works in an attached directory needs no file that is whole.
    replica = machine.attach(volume)
    check(run({**environment, "S0_CONFIG": str(moved)}, "sync", "status", cwd=replica.root).returncode == 0,
          "a broken file of profiles is in the way of a workspace")


def test_the_doctor_says_what_is_in_the_way_and_the_way_out(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    volume = service.create_volume()
    code, found = verdicts(machine)
    check(code == 0, f"{found}")
    check({"program", "config", "service", "token", "clock", "state", "disk"} <= set(found), f"{set(found)}")

    fresh = machine.dir / "fresh"
    fresh.mkdir()
    code, found = verdicts(machine, fresh)
    check(code == 0 and {"watching", "space"} <= set(found), f"{found}")
    check(not list(fresh.iterdir()), "the doctor left something in a directory that is not attached")

    code, found = verdicts(machine, environment=machine.environment(SANDBOX0_TOKEN="wrong"))
    check(code == 1 and found["token"][0]["verdict"] == "failure", f"{found}")
    check("SANDBOX0_TOKEN" in found["token"][0]["do_next"], f"{found}")
    code, found = verdicts(machine, environment=machine.environment(SANDBOX0_BASE_URL="http://127.0.0.1:1"))
    check(code == 1 and found["service"][0]["verdict"] == "failure", f"{found}")
    check("SANDBOX0_BASE_URL" in found["service"][0]["do_next"] and "token" not in found, f"{found}")
    code, found = verdicts(machine, environment=without_service(machine))
    check(code == 1 and "s0 serve --background" in found["service"][0]["do_next"], f"{found}")
    code, found = verdicts(machine, environment=machine.environment(S0_CONFIG=str(machine.dir / "none.toml")))
    check(code == 0, f"whoever names service and token needs no profile: {found}")
    code, found = verdicts(machine, environment=without_service(machine, S0_PROFILE="none"))
    check(code == 1 and found["config"][0]["verdict"] == "failure", f"{found}")

    replica = machine.attach(volume)
    settle(replica)
    code, found = verdicts(machine, cwd=replica.root)
    check(code == 0 and found["workspace"][0]["verdict"] == "ok", f"{found}")
    with replica.frozen():
        code, found = verdicts(machine)
        check(code == 1 and "kill -CONT" in found["workspace"][0]["do_next"], f"{found}")
    replica.stop()
    code, found = verdicts(machine)
    check(code == 0 and found["workspace"][0]["verdict"] == "warning", f"{found}")
    check("s0 sync start" in found["workspace"][0]["do_next"], f"{found}")
    text = machine.run("doctor").stdout.decode()
    check("warning  workspace" in text and "→ `s0 sync start" in text, text)
    replica.root.rename(machine.dir / "elsewhere")
    code, found = verdicts(machine)
    check(code == 1 and found["disk"][0]["verdict"] == "failure", f"{found}")
    check("detach" in found["disk"][0]["do_next"], f"{found}")


def test_watching_a_volume_tells_of_changes_as_they_are_made(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    volume = service.create_volume()
    out = machine.dir / "watched"
    with open(out, "wb") as file:
        watching = subprocess.Popen([BIN, "volume", "files", "watch", volume.id, "src", "-r", "-o", "json"],
                                    env=machine.environment(), stdout=file, stderr=subprocess.PIPE)

    def told():
        return [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]

    wait_until("it watches", told)
    check(told()[0]["type"] == "subscribed" and told()[0]["path"] == "/src", f"{told()}")
    volume.write("elsewhere.txt", "not watched\n")
    volume.write("src/a.txt", "watched\n")
    volume.remove("src/a.txt")
    wait_until("the end is told", lambda: any(it.get("event") == "remove" for it in told()))
    check({it["path"] for it in told()[1:]} <= {"/src", "/src/a.txt"}, f"{told()}")
    watching.send_signal(signal.SIGINT)
    check(watching.wait(20 * PATIENCE) == 0, "Ctrl-C is no failure")
    unknown = machine.run("volume", "files", "watch", "vol_none", ok=False)
    check(unknown.returncode == 1 and b"does not know the Volume vol_none" in unknown.stderr, f"{unknown}")
    # A service that ends says so, and whoever watches hears that it is over.
    watching = subprocess.Popen([BIN, "volume", "files", "watch", volume.id], env=machine.environment(),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check(watching.stdout.readline().startswith("watching /"), "it does not say that it watches")
    service.stop()
    said = watching.communicate(timeout=30 * PATIENCE)[1]
    check(watching.returncode == 5 and "shuts down" in said, f"{watching.returncode}: {said}")


def test_detaching_by_force_ends_a_host_that_does_not_answer(bench):
    service = bench.service()
    machine = bench.machine("laptop", service)
    replica = machine.attach(service.create_volume())
    write(replica / "kept.txt", "kept\n")
    settle(replica)
    pid = replica.pid
    os.kill(pid, signal.SIGSTOP)
    refused = machine.run("sync", "detach", replica.root, ok=False)
    check(refused.returncode == 1 and b"does not answer" in refused.stderr, f"{refused}")
    check(b"--force" in refused.stderr, f"it does not say how else: {refused.stderr!r}")
    machine.run("sync", "detach", replica.root, "--force", "--purge-state")
    check(machine.json("sync", "list") == [], "it is still attached")
    check((replica / "kept.txt").read_text() == "kept\n" and not (replica / ".s0").exists(), "not as it should be")


def test_shells_and_the_manual_know_every_command(bench):
    machine = bench.machine("laptop", bench.service())
    for shell in ("bash", "zsh", "fish", "elvish", "powershell"):
        script = machine.run("completions", shell).stdout.decode()
        # What clap makes for fish knows two levels of commands, and no options below them.
        for word in ("conflicts", "doctor", "snapshot", *(("take-theirs",) if shell != "fish" else ())):
            check(word in script, f"{shell} is not told of {word}")
        check("tour-agent" not in script and "take-over" not in script, f"{shell} offers hidden commands")
    bash = machine.dir / "s0.bash"
    bash.write_bytes(machine.run("completions", "bash").stdout)
    typed = f'. {bash}; COMP_WORDS=(s0 sync conf); COMP_CWORD=2; _s0 s0 conf sync; echo "${{COMPREPLY[@]}}"'
    offered = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, timeout=60)
    check(offered.stdout.split() == ["conflicts"], f"bash offers {offered}")
    manual = machine.dir / "man"
    machine.run("man", manual)
    pages = {page.name for page in manual.iterdir()}
    check({"s0.1", "s0-doctor.1", "s0-sync-conflicts-resolve.1", "s0-volume-files-watch.1"} <= pages, f"{pages}")
    check(not any("tour" in page or "host" in page for page in pages), f"hidden commands have pages: {pages}")
    check("Exit codes" in (manual / "s0.1").read_text(), "the manual does not say the exit codes")
    check("Exit codes" in machine.run("--help").stdout.decode(), "the help does not say the exit codes")


def test_every_mistake_says_what_to_do_next(bench):
    service = bench.service()
    volume = service.create_volume()
    machine = bench.machine("laptop", service)
    replica = machine.attach(volume)
    outside = machine.dir / "outside"
    outside.mkdir()
    cases = [
        (("volume", "files", "ls", "vol_none"), 1, "s0 volume list"),
        (("volume", "files", "cat", volume.id, "/none"), 1, "s0 volume files ls"),
        (("volume", "files", "mkdir", volume.id, "/a/b"), 1, "--parents"),
        (("volume", "fork", "vol_none"), 1, "s0 volume list"),
        (("volume", "snapshot", "list", "vol_none"), 1, "s0 volume list"),
        (("volume", "snapshot", "restore", volume.id, "snap_none"), 1, "s0 volume snapshot list"),
        (("volume", "snapshot", "delete", volume.id, "snap_none"), 1, "s0 volume snapshot list"),
        (("volume", "files", "upload", volume.id, outside / "none", "/x"), 1, "check the path"),
        (("token", "revoke", "tok_none"), 1, "s0 token list"),
        (("volume", "list", "--token", "wrong"), 1, "s0 doctor"),
        (("volume", "list", "--server", "http://127.0.0.1:1"), 5, "s0 doctor"),
        (("volume", "list", "--server", "nonsense"), 1, "it comes from: --server or SANDBOX0_BASE_URL"),
        (("sync", "attach", volume.id, replica.root / "in"), 1, "s0 sync detach"),
        (("sync", "attach", volume.id, outside, "--ignore", "[z-a]"), 2, "--ignore"),
        (("sync", "attach", volume.id, outside, "--guard", "[a"), 2, "--guard"),
        (("sync", "status"), 1, "s0 sync attach"),
        (("sync", "include", "none", "-C", replica.root), 1, "s0 sync status"),
        (("sync", "show", "none", "-C", replica.root), 2, "s0 sync history"),
        (("sync", "held", "allow", "none", "-C", replica.root), 1, "s0 sync held list"),
        (("sync", "conflicts", "show", "none", "-C", replica.root), 1, "s0 sync conflicts list"),
    ]
    for arguments, code, says in cases:
        done = machine.run(*arguments, ok=False, cwd=outside)
        check(done.returncode == code, f"s0 {arguments} ended with {done.returncode}: {done.stderr.decode()}")
        check(says in done.stderr.decode(), f"s0 {arguments} does not say {says!r}: {done.stderr.decode()}")
    # This machine's token is for this machine's service.
    done = machine.run("volume", "list", "--server", "http://s0.example.com", ok=False, cwd=outside,
                       env={"SANDBOX0_TOKEN": ""})
    check(done.returncode == 1 and b"no token was given for http://s0.example.com" in done.stderr, f"{done}")
    if os.geteuid() != 0:
        outside.chmod(0)
        done = machine.run("sync", "attach", volume.id, outside, ok=False)
        outside.chmod(0o700)
        check(done.returncode == 1 and str(outside) in done.stderr.decode(), f"{done}")
    replica.stop()
    done = replica.sync("flush", ok=False)
    check(done.returncode == 1 and b"s0 sync start" in done.stderr, f"{done}")
