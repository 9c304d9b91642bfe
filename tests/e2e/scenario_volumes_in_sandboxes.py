"""Volumes in sandboxes: an agent works in one, and a developer sees it while it runs."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time

import scenario_sandboxes
from harness import BIN, HttpError, Skip, Volume, check, check_all_equal, check_no_conflicts, settle, wait_until, write


class Desk:
    """A service, a developer with an attached directory, and sandboxes on the same machine."""

    def __init__(self, bench, mode="RWX"):
        if not shutil.which("bwrap") or not os.path.exists("/dev/fuse") or os.geteuid() != 0:
            raise Skip("bubblewrap, /dev/fuse, and root")
        self.bench, self.service = bench, bench.service()
        self.laptop = bench.machine("laptop", self.service)
        id = self.laptop.run("volume", "create", "--access-mode", mode).stdout.decode().strip()
        self.volume = Volume(self.service, id)
        self.user = self.laptop.attach(self.volume)
        self.workers = bench.machine("workers", self.service)

    def sandbox(self, *arguments, **how):
        return self.workers.run("sandbox", *arguments, **how)

    def start(self, *arguments, **how):
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        return subprocess.Popen([BIN, "sandbox", *arguments], env=self.workers.environment(), cwd="/", **how)

    def create(self, *arguments):
        return self.sandbox("create", *arguments).stdout.decode().strip()

    def close(self):
        self.sandbox("stop", "--all", "--force", ok=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


AGENT = r"""
set -e
for d in src docs tests lib tools; do
    mkdir -p $d
    for f in one two; do echo "$d $f, by the agent" > $d/$f.txt; done
done
echo done with the files
read answer
echo "and $answer" >> src/one.txt
"""


def test_an_agent_edits_ten_files_while_a_developer_watches(bench):
    with Desk(bench) as desk:
        write(desk.user / "src/main.py", "print('hello')\n")
        settle(desk.user)
        agent = desk.start("run", "--volume-id", desk.volume.id, "--", "sh", "-c", AGENT,
                           stdin=subprocess.PIPE, bufsize=0)
        check(agent.stdout.readline() == b"done with the files\n", "the agent said something else")
        # It still runs, and waits for a word.
        files = [f"{d}/{f}.txt" for d in ("src", "docs", "tests", "lib", "tools") for f in ("one", "two")]
        for name in files:
            path = desk.user / name
            wait_until(f"{name} is here", path.exists, 20)
            d, f = name.split("/")
            check(path.read_text() == f"{d} {f[:-4]}, by the agent\n", f"{name}: {path.read_text()!r}")
        check(agent.poll() is None, "the agent has ended")
        agent.stdin.write(b"this\n")
        check(agent.wait(60) == 0, lambda: agent.stderr.read().decode())
        wait_until("the last line is here", lambda: (desk.user / "src/one.txt").read_text().endswith("and this\n"), 20)
        settle(desk.user)
        check_all_equal(desk.volume, desk.user)
        check_no_conflicts(desk.volume, desk.user)
        # Create, write and close of a new file are one entry, and each says who wrote.
        changes = [it for it in desk.volume.changes() if it["path"] == "/docs/two.txt"]
        check([it["event_type"] for it in changes] == ["create"], f"{changes}")
        check(changes[0]["source"] == "sandbox" and changes[0]["metadata"]["sandbox_id"].startswith("sb_"), f"{changes}")
        said = desk.laptop.run("sync", "history", "docs/two.txt", cwd=desk.user.root).stdout.decode()
        check(changes[0]["metadata"]["sandbox_id"] in said, said)


def test_a_volume_is_mounted_in_a_sandbox_that_runs(bench):
    with Desk(bench) as desk:
        write(desk.user / "notes.txt", "from the developer\n")
        settle(desk.user)
        box = desk.create("--name", "worker")
        where = ("--volume-id", desk.volume.id, "--path", "/workspace")
        desk.sandbox("volume", "mount", *where, "--sandbox-id", "worker")
        inside = lambda script, **how: desk.sandbox("exec", box, "--", "sh", "-c", script, **how)
        check(inside("cat /workspace/notes.txt").stdout == b"from the developer\n", "not what is in the Volume")
        listed = json.loads(desk.sandbox("volume", "status", "-s", box, "-o", "json").stdout)
        check([(it["sandboxvolume_id"], it["mount_point"], it["state"]) for it in listed]
              == [(desk.volume.id, "/workspace", "mounted")], f"{listed}")
        again = desk.sandbox("volume", "mount", *where, "-s", box, ok=False)
        check(again.returncode == 1 and b"is mounted at /workspace already" in again.stderr, f"{again}")
        # What the developer saves is there at once, and a program that waits for it hears of it.
        write(desk.user / "notes.txt", "and more\n")
        inside("until grep -q more notes.txt; do sleep 0.05; done")
        inside("echo from inside > answer.txt; rm notes.txt")
        wait_until("it is here", (desk.user / "answer.txt").exists, 20)
        wait_until("it is gone", lambda: not (desk.user / "notes.txt").exists(), 20)
        desk.sandbox("volume", "unmount", "-s", box)
        check(inside("ls -A /workspace").stdout == b"", "it is still there")
        # A second Volume mounts where the first one was.
        desk.sandbox("volume", "mount", *where, "-s", box)
        check(b"answer.txt" in inside("ls").stdout, "it did not come back")
        # The Volume outlives the sandbox.
        desk.sandbox("stop", box)
        settle(desk.user)
        check_all_equal(desk.volume, desk.user)


def test_a_sandbox_is_stopped_in_mid_write_and_the_next_goes_on(bench):
    with Desk(bench) as desk:
        box = desk.create("--volume-id", desk.volume.id)
        # It writes to a file that it never closes, and to many that it does.
        writer = desk.start("exec", box, "--", "sh", "-c",
                            "exec 3>open.log; n=0; while :; do n=$((n+1)); echo $n >&3; echo $n > f$n; echo $n; done", bufsize=0)
        closed = 0
        while closed < 50:
            closed = int(writer.stdout.readline())
        desk.sandbox("stop", box)
        writer.wait(60)
        rest = writer.stdout.read().split()
        closed = max([closed, *map(int, rest)])
        inside = desk.sandbox("run", "--volume-id", desk.volume.id, "--", "sh", "-c", "ls f* | wc -l; cat open.log")
        count, *lines = inside.stdout.split()
        check(int(count) >= closed, f"{int(count)} of {closed} files that were closed are there")
        check([int(line) for line in lines] == list(range(1, len(lines) + 1)) and len(lines) >= closed,
              f"{len(lines)} lines after {closed}")
        settle(desk.user)
        check_all_equal(desk.volume, desk.user)


def test_a_sandbox_is_killed_at_any_moment_and_the_next_goes_on(bench):
    with Desk(bench) as desk:
        closed = 0
        for number in range(50 if bench.long else 4):
            box = desk.create("--volume-id", desk.volume.id)
            # What the last one was about to write is written again.
            script = f"n={closed}; while :; do n=$((n+1)); echo $n > f$n; echo $n; done"
            writer = desk.start("exec", box, "--", "sh", "-c", script, bufsize=0)
            closed = int(writer.stdout.readline())
            time.sleep(bench.random.uniform(0, 0.3))  # the moment is chance
            state, = (it for it in json.loads(desk.sandbox("list", "-o", "json").stdout) if it["id"] == box)
            os.kill(state["pid"], signal.SIGKILL)
            writer.wait(60)
            closed = max([closed, *map(int, writer.stdout.read().split())])
            script = f"cat $(seq -f f%.0f {closed})"
            inside = desk.sandbox("run", "--volume-id", desk.volume.id, "--", "sh", "-c", script)
            there = list(map(int, inside.stdout.split()))
            check(there == list(range(1, closed + 1)), f"round {number}: of {closed} that were closed, {len(there)} are there")
        bench.note(f"{closed} files")
        settle(desk.user)
        check_all_equal(desk.volume, desk.user)
        check_no_conflicts(desk.volume, desk.user)


def test_names_that_a_developers_machine_cannot_hold_are_refused_and_told(bench):
    with Desk(bench) as desk:
        capabilities = {"case_sensitive": False, "unicode_normalization_insensitive": True, "windows_compatible_paths": True}
        desk.volume.http.data("PUT", f"{desk.volume.base}/sync/replicas/win", value={
            "display_name": "win", "platform": "windows", "root_path": "C:/x", "case_sensitive": False,
            "capabilities": capabilities})
        script = r"""
            touch aux.txt && exit 1; mkdir con && exit 2; touch 'a:b' && exit 3; ln -s x 'bad.' && exit 4
            touch Readme || exit 5; touch README && exit 6; mv Readme nul && exit 7; touch aux.txt && exit 8; ls -A"""
        done = desk.sandbox("run", "--volume-id", desk.volume.id, "--", "sh", "-c", script)
        check(done.stdout == b"Readme\n", f"{done}")
        check(b"Invalid argument" in done.stderr and b"File exists" in done.stderr, f"{done.stderr}")
        told = {it["path"]: it for it in desk.volume.conflicts()}
        check(sorted(told) == ["/README", "/a:b", "/aux.txt", "/bad.", "/con", "/nul"], f"{sorted(told)}")
        check(len(desk.volume.conflicts()) == 6, "one was told twice")
        check(told["/con"]["metadata"]["process"].startswith("mkdir["), f"{told['/con']}")
        check(told["/con"]["metadata"]["sandbox_id"].startswith("sb_"), f"{told['/con']}")
        check(told["/README"]["reason"] == "casefold_collision", f"{told['/README']}")


def test_access_modes_govern_mounts(bench):
    with Desk(bench, mode="RWO") as desk:
        box = desk.create("--volume-id", desk.volume.id)
        refused = desk.sandbox("run", "--volume-id", desk.volume.id, "--", "true", ok=False)
        check(refused.returncode == 1 and b"RWO" in refused.stderr, f"{refused}")
        desk.sandbox("stop", box)
        desk.sandbox("run", "--volume-id", desk.volume.id, "--", "touch", "mine")
        # Replicas are not governed by it.
        wait_until("it is here", (desk.user / "mine").exists, 20)
        other = desk.create()
        desk.sandbox("volume", "mount", "--volume-id", desk.volume.id, "-s", other, "--read-only")
        written = desk.sandbox("exec", other, "--", "touch", "no", ok=False)
        check(b"Read-only file system" in written.stderr, f"{written}")


def test_where_there_is_no_fuse_another_way_is_named(bench):
    with Desk(bench) as desk:
        box = ["bwrap", "--dev-bind", "/", "/", "--dev", "/dev"]
        command = [BIN, "sandbox", "volume", "mount", "--volume-id", desk.volume.id, "--path", str(bench.dir / "here")]
        done = subprocess.run([*box, *command], env=desk.workers.environment(), capture_output=True, timeout=60)
        check(done.returncode == 1, f"{done}")
        check(b"/dev/fuse" in done.stderr and b"s0 sync attach" in done.stderr and b"--as sandbox" in done.stderr,
              f"{done.stderr}")


def test_a_volume_is_mounted_right_here(bench):
    with Desk(bench) as desk:
        here = bench.dir / "here"
        mount = ("volume", "mount", "--volume-id", desk.volume.id, "--path", str(here))
        desk.sandbox(*mount)
        try:
            write(here / "deep/er/file.txt", "x" * 100_000)
            wait_until("it is across", lambda: (desk.user / "deep/er/file.txt").exists(), 20)
            again = desk.sandbox(*mount, ok=False)
            check(again.returncode == 1 and b"mounted already" in again.stderr, f"{again}")
            listed = desk.sandbox("volume", "status").stdout.decode()
            check(str(here) in listed and desk.volume.id in listed, listed)
            refused = desk.workers.run("volume", "delete", desk.volume.id, ok=False)
            check(refused.returncode == 1 and b"mounted" in refused.stderr, f"{refused}")
            with open(here / "left.txt", "w") as left:
                left.write("written, and not closed")
                left.flush()
                busy = desk.sandbox("volume", "unmount", "--path", str(here), ok=False)
                check(busy.returncode == 1 and b"is in use" in busy.stderr, f"{busy}")
            desk.sandbox("volume", "unmount", "--path", str(here))
            check(not os.path.ismount(here), "it is still mounted")
            check(desk.volume.read("left.txt") == b"written, and not closed", "what was written is not there")
            unmounted = desk.sandbox("volume", "unmount", "--path", str(here), ok=False)
            check(unmounted.returncode == 1 and b"no Volume is mounted" in unmounted.stderr, f"{unmounted}")
        finally:
            subprocess.run(["umount", "-l", here], capture_output=True)


def test_a_warden_that_is_killed_leaves_no_mount_and_loses_nothing_synced(bench):
    with Desk(bench) as desk:
        box = desk.create("--volume-id", desk.volume.id)
        desk.sandbox("exec", box, "--", "sh", "-c", "echo safe > safe.txt; sync safe.txt")
        listed = json.loads(desk.sandbox("list", "-o", "json").stdout)
        os.kill(listed[0]["warden_pid"], signal.SIGKILL)
        wait_until("it has ended", lambda: not os.path.exists(f"/proc/{listed[0]['pid']}"), 20)
        done = desk.sandbox("run", "--volume-id", desk.volume.id, "--", "cat", "safe.txt")
        check(done.stdout == b"safe\n", f"{done}")


def hears(bench, service, bare):
    """A program in a sandbox waits for the developer's save, and hears of it."""
    if not shutil.which("inotifywait"):
        raise Skip("inotify-tools")
    laptop = bench.machine("laptop", service)
    volume = Volume(service, laptop.run("volume", "create", "--access-mode", "RWX").stdout.decode().strip())
    user = laptop.attach(volume)
    write(user / "src/old.txt", "old\n")
    settle(user)
    box = bare.create("--volume-id", volume.id)
    said = bench.dir / "heard"
    with open(said, "wb") as out:
        watcher = bare.start("exec", box.id, "--", "inotifywait", "--monitor", "--recursive", "--format", "%e %f",
                             "/workspace", stdout=out, stderr=out)

    def heard(line):
        wait_until(f"{line!r} is heard", lambda: line in said.read_text().splitlines(), 20)

    heard("Watches established.")
    write(user / "src/new.txt", "new\n")
    heard("CREATE new.txt")
    (user / "src/old.txt").rename(user / "src/moved.txt")
    heard("MOVED_FROM old.txt")
    heard("MOVED_TO moved.txt")
    (user / "src/moved.txt").unlink()
    heard("DELETE moved.txt")
    bare.run("stop", "--force", box.id)
    watcher.wait(60)


def test_watchers_in_a_sandbox_hear_of_the_developer(bench):
    service = bench.service()
    who = {"SANDBOX0_BASE_URL": service.url, "SANDBOX0_TOKEN": service.token}
    hears(bench, service, scenario_sandboxes.fuse_desk(bench, None, **who))


def test_watchers_of_users_without_rights_hear_of_the_developer(bench):
    service = bench.service()
    who = {"SANDBOX0_BASE_URL": service.url, "SANDBOX0_TOKEN": service.token}
    hears(bench, service, scenario_sandboxes.fuse_desk(bench, scenario_sandboxes.SOMEBODY, **who))


def mount_tokens(desk):
    """What tokens there are that were made for mounts."""
    with sqlite3.connect(f"file:{desk.service.data}/journal.db?mode=ro", uri=True, timeout=20) as db:
        rows = db.execute("SELECT purpose FROM tokens WHERE parent IS NOT NULL").fetchall()
    return sorted((it for it in (json.loads(purpose) for purpose, in rows) if "mount" in it), key=str)


def has_in_memory(pid, text):
    """Whether a process has a text where it can write, or in its environment."""
    if text in open(f"/proc/{pid}/environ", "rb").read():
        return True
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            begin, end = (int(it, 16) for it in span.split("-"))
            if not rights.startswith("rw"):
                continue
            try:
                memory.seek(begin)
                if text in memory.read(end - begin):
                    return True
            except OSError:
                pass  # Of the kernel's own, or gone.
    return False


def test_a_mount_has_a_token_of_its_own_which_ends_with_it(bench):
    with Desk(bench) as desk:
        box = desk.create("--volume-id", desk.volume.id)
        of_mount = lambda read_only: {"mount": {"volume": desk.volume.id, "read_only": read_only}}
        check(mount_tokens(desk) == [of_mount(False)], f"{mount_tokens(desk)}")
        warden = json.loads(desk.sandbox("list", "-o", "json").stdout)[0]["warden_pid"]
        check(has_in_memory(warden, desk.volume.id.encode()), "the warden's memory cannot be read")
        check(not has_in_memory(warden, desk.service.token.encode()), "the warden has the user's token")
        other = ("--volume-id", desk.volume.id, "--path", "/tmp", "-s", box)
        desk.sandbox("volume", "mount", *other, "--read-only")
        check(mount_tokens(desk) == [of_mount(False), of_mount(True)], f"{mount_tokens(desk)}")
        # One that cannot be mounted leaves none behind.
        refused = desk.sandbox("volume", "mount", *other, ok=False)
        check(refused.returncode == 1 and b"is mounted at /tmp already" in refused.stderr, f"{refused}")
        desk.sandbox("volume", "unmount", "--path", "/tmp", "-s", box)
        check(mount_tokens(desk) == [of_mount(False)], f"{mount_tokens(desk)}")
        # It outlives the service, and does not outlive the sandbox.
        desk.service.kill()
        desk.service.start()
        desk.sandbox("exec", box, "--", "sh", "-c", "until echo still here > f; do sleep 0.2; done")
        wait_until("it is here", (desk.user / "f").exists, 20)
        desk.sandbox("stop", box)
        check(mount_tokens(desk) == [], f"{mount_tokens(desk)}")


def test_a_mount_may_no_more_than_whoever_asked_for_it(bench):
    with Desk(bench) as desk:
        made = lambda role: desk.service.http.data("POST", "/api-keys", value={"name": role, "roles": [role], "expires_in": "30d"})
        viewer, developer = made("viewer"), made("developer")
        asked = lambda token, *arguments, **how: desk.sandbox(*arguments, env={"SANDBOX0_TOKEN": token["key"]}, **how)
        refused = asked(viewer, "create", "--volume-id", desk.volume.id, ok=False)
        check(refused.returncode == 1 and b"may only read; mount the Volume read-only" in refused.stderr, f"{refused}")
        check(json.loads(desk.sandbox("list", "-o", "json").stdout) == [], "a sandbox was left")
        write(desk.user / "f", "to read\n")
        settle(desk.user)
        box = desk.create()
        asked(viewer, "volume", "mount", "--volume-id", desk.volume.id, "-s", box, "--read-only")
        check(desk.sandbox("exec", box, "--", "cat", "f").stdout == b"to read\n", "it cannot be read")
        desk.sandbox("volume", "unmount", "-s", box)
        # A token that is revoked takes the mounts along that were made with it.
        asked(developer, "volume", "mount", "--volume-id", desk.volume.id, "-s", box)
        desk.sandbox("exec", box, "--", "touch", "mine")
        desk.service.http.data("DELETE", f"/api-keys/{developer['id']}")
        check(mount_tokens(desk) == [], f"{mount_tokens(desk)}")
        gone = lambda: desk.sandbox("exec", box, "--", "sh", "-c", "test ! -e mine", ok=False).returncode == 0
        wait_until("the mount is gone", gone, 60)


def test_a_volume_is_mounted_in_a_sandbox_over_http(bench):
    with Desk(bench) as desk:
        write(desk.user / "notes.txt", "from the developer\n")
        settle(desk.user)
        box = desk.create()
        http, base = desk.service.http, f"/api/v1/sandboxes/{box}/sandboxvolumes"
        status = lambda: http.data("GET", f"{base}/status")["mounts"]
        wait_until("the sandbox is reached", lambda: is_reached(status), 20)
        check(status() == [], f"{status()}")
        asked = {"sandboxvolume_id": desk.volume.id, "mount_point": "/workspace"}
        mounted = http.data("POST", f"{base}/mount", value=asked)
        check(mounted["mount_session_id"].startswith("mnt_") and mounted["mount_point"] == "/workspace", f"{mounted}")
        check(mount_tokens(desk) == [{"mount": {"volume": desk.volume.id, "read_only": False}}], f"{mount_tokens(desk)}")
        inside = lambda script: desk.sandbox("exec", box, "--", "sh", "-c", script).stdout
        check(inside("cat notes.txt; echo from inside > answer.txt") == b"from the developer\n", "not what is in the Volume")
        wait_until("it is here", (desk.user / "answer.txt").exists, 20)
        listed = status()
        check([{k: it[k] for k in mounted} for it in listed] == [mounted] and listed[0]["state"] == "mounted", f"{listed}")
        def refused(value, code):
            try:
                http.data("POST", f"{base}/mount", value=value)
            except HttpError as error:
                check(error.error["code"] == code, f"{error}")
            else:
                check(False, f"{value} was not refused")
        refused(asked, "already_mounted")
        refused({**asked, "mount_point": "/proc"}, "invalid_mount_point")
        refused({**asked, "mount_point": "/workspace/../x"}, "invalid_mount_point")
        refused({**asked, "mount_point": "/etc/passwd"}, "mount_failed")
        refused({**asked, "mount_point": "/usr/no/where"}, "mount_failed")
        # Where it can be, a directory is made.
        made = http.data("POST", f"{base}/mount", value={**asked, "mount_point": "/tmp/some/where"})
        check(inside("stat -c %a /tmp/some; cat /tmp/some/where/notes.txt") == b"755\nfrom the developer\n", "not made")
        http.data("POST", f"{base}/unmount", value={k: made[k] for k in ("sandboxvolume_id", "mount_session_id")})
        other = desk.service.create_volume()
        refused({**asked, "sandboxvolume_id": other.id}, "mount_point_in_use")
        check(len(mount_tokens(desk)) == 1, "what was refused left a token")
        # It is reached again when the service comes back, and the mount is still there.
        desk.service.kill()
        desk.service.start()
        http = desk.service.http
        wait_until("the sandbox is reached again", lambda: is_reached(status), 60)
        inside("until echo more > more.txt; do sleep 0.2; done")
        for _ in range(2):
            ended = {"sandboxvolume_id": desk.volume.id, "mount_session_id": mounted["mount_session_id"]}
            check(http.data("POST", f"{base}/unmount", value=ended) == {"unmounted": True}, "it is still mounted")
        check(inside("ls -A /workspace") == b"" and status() == [] and mount_tokens(desk) == [], "it is still there")
        # One that has ended is not reached, and has left no token.
        desk.sandbox("stop", box)
        check(not is_reached(status), "it is still reached")
        with sqlite3.connect(f"file:{desk.service.data}/journal.db?mode=ro", uri=True, timeout=20) as db:
            check(db.execute("SELECT count(*) FROM tokens WHERE parent IS NOT NULL").fetchone() == (0,), "a token is left")


def is_reached(status):
    try:
        status()
        return True
    except HttpError as error:
        check(error.status == 404 and "no connection" in error.error["message"], f"{error}")
        return False


def test_a_sandbox_needs_no_service(bench):
    with Desk(bench) as desk:
        with desk.service.frozen():
            box = desk.create()
            check(desk.sandbox("exec", box, "--", "echo", "here").stdout == b"here\n", "it is not there")
            desk.sandbox("stop", box)
        desk.service.kill()
        done = desk.sandbox("run", "--", "echo", "here")
        check(done.stdout == b"here\n" and done.stderr == b"", f"{done}")
        desk.service.start()
