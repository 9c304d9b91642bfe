"""Sandboxes: what is inside, what goes in and out, and that nothing is left of one, whoever dies."""
import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import termios
import time

from harness import BIN, PATIENCE, Skip, check, end, is_running, wait_until, write

# Another user's number, which nobody has.
SOMEBODY = 54321


class Desk:
    """A user of this machine, without any service."""

    def __init__(self, bench, name="desk", user=None, **environment):
        if not shutil.which("bwrap"):
            raise Skip("bubblewrap")
        self.bench, self.user = bench, user
        self.dir = bench.dir / name
        self.home, self.state = self.dir / "home", self.dir / "state"
        self.home.mkdir(parents=True)
        self.program = BIN
        # What is put before the program, to be that user in some other way.
        self.become = []
        if user is not None:
            if os.geteuid() != 0:
                raise Skip("root, to become somebody else")
            bench.dir.chmod(0o755)
            # Where everybody may run it.
            self.program = str(bench.dir / "s0")
            shutil.copy(BIN, self.program)
            for place in (self.dir, self.home):
                os.chown(place, user, user)
        self.environment = bench.environment(**{
            "HOME": str(self.home), "S0_STATE_DIR": str(self.state), "S0_DATA_DIR": str(self.dir / "data"),
            "SANDBOX0_TOKEN": "s0_secret_of_the_host", **environment})

    def popen(self, *arguments, **how):
        """Begins `s0 …` as this user."""
        if self.user is not None and not self.become:
            how.update(user=self.user, group=self.user, extra_groups=[])
        command = [*self.become, self.program, *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment, cwd="/", **how)

    def start(self, *arguments, **how):
        """Begins `s0 sandbox …`."""
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        return self.popen("sandbox", *arguments, **how)

    def run(self, *arguments, code=0, input=None):
        """Runs it; gives what it said on both streams."""
        process = self.start(*arguments, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE)
        out, err = process.communicate(input, timeout=120 * PATIENCE)
        check(code is None or process.returncode == code,
              lambda: f"s0 sandbox {arguments} ended with {process.returncode}, not {code}:\n{out}\n{err}")
        return out, err.decode(errors="replace")

    def says(self, *arguments, **how):
        return self.run(*arguments, **how)[0].decode(errors="replace")

    def json(self, *arguments):
        return json.loads(self.says(*arguments[:1], "-o", "json", *arguments[1:]))

    def create(self, *arguments):
        return Box(self, self.json("create", *arguments))

    def kept(self):
        """The state of sandboxes that is there."""
        place = self.state / "sandboxes"
        return sorted(it.name for it in place.iterdir() if it.is_dir()) if place.exists() else []


class Box:
    """A sandbox."""

    def __init__(self, desk, said):
        self.desk, self.id, self.pid, self.warden = desk, said["id"], said["pid"], said["warden_pid"]
        self.space = os.readlink(f"/proc/{self.pid}/ns/mnt")

    def says(self, *command, **how):
        return self.desk.says("exec", self.id, "--", *command, **how)

    def sh(self, script, **how):
        return self.says("sh", "-c", script, **how)

    def begin(self, script, marker=b"ready", **how):
        """Begins a script in it, and returns when it has said that it is ready."""
        process = self.desk.start("exec", self.id, "--", "sh", "-c", script, **how)
        said = process.stdout.readline().strip()
        check(said == marker, lambda: f"not ready: {said!r}, {process.stderr.read()!r}")
        return process

    def processes(self):
        """All processes that see its files."""
        found = []
        for folder in pathlib.Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(folder / "ns/mnt") == self.space and is_running(int(folder.name)):
                        found.append(int(folder.name))
        return found

    def check_gone(self, kept=False):
        """Nothing is left of it: no process, so no mount; no warden; unless `kept`, no state."""
        wait_until(f"the processes of {self.id} end", lambda: not self.processes(), 10)
        wait_until("its warden ends", lambda: not is_running(self.warden), 10)
        if not kept:
            wait_until("its state is removed", lambda: self.id not in self.desk.kept(), 10)


def test_a_sandbox_is_made_used_listed_and_ended(bench):
    # The address of a socket in there is too long for the system.
    desk = Desk(bench, "desk-" + 100 * "x")
    check(desk.json("list") == [], "there is a sandbox before any was made")
    box = desk.create("--name", "agent")
    check(re.fullmatch(r"sb_[a-z2-9]{16}", box.id), f"{box.id}")
    listed, = desk.json("list")
    check((listed["id"], listed["name"], listed["state"], listed["mounts"], listed["pid"])
          == (box.id, "agent", "running", [], box.pid), f"{listed}")
    for line in (box.id, "agent", "running"):
        check(line in desk.says("list"), f"{line} is not listed")
    box.sh("echo kept > /workspace/file && echo also > ~/file")
    check(desk.says("exec", "agent", "--", "cat", "/workspace/file") == "kept\n", "what one wrote, another does not read")
    check(box.sh("pwd; cat ~/file; echo $S0_SANDBOX_ID") == f"/workspace\nalso\n{box.id}\n", "place, home or id are not right")
    check("is named agent already" in desk.run("create", "--name", "agent", code=1)[1], "two have one name")
    mode = lambda path: oct((desk.state / "sandboxes" / box.id / path).stat().st_mode & 0o777)  # noqa: E731
    check((mode(""), mode("control"), mode("sandbox.json")) == ("0o700", "0o600", "0o600"), "state is not the user's alone")
    check(box.id in desk.says("stop", "agent"), "it is not said what was stopped")
    check(not box.processes() and not is_running(box.warden) and desk.kept() == [], "stop returned before the end")
    check(desk.json("list") == [], "an ended one is listed")
    first, second = desk.create(), desk.create()
    desk.run("stop", "--all")
    for box in (first, second):
        box.check_gone()
    check(desk.json("stop", "--all") == {"stopped": []}, "something was left to stop")


def test_a_command_in_a_sandbox_ends_as_it_would_outside(bench):
    desk = Desk(bench)
    box = desk.create()
    for script, code in (("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)):
        box.sh(script, code=code)
    said = desk.run("exec", box.id, "--", "no-such-command", code=127)[1]
    check("no-such-command: there is no such command in the sandbox" in said, said)
    check("may not be run" in desk.run("exec", box.id, "--", "/etc/passwd", code=126)[1], "what cannot be run")
    check("there is no directory /no/where" in desk.run("exec", box.id, "-w", "/no/where", "--", "ls", code=1)[1], "where")
    for words in (("exec", "sb_none", "--", "true"), ("stop", "sb_none")):
        said = desk.run(*words, code=1)[1]
        check("there is no sandbox sb_none; `s0 sandbox list`" in said, said)
    desk.run("exec", box.id, code=2)
    desk.run("exec", box.id, "-e", "novalue", "--", "true", code=2)
    said = desk.says("exec", box.id, "-e", "A=one two", "-e", "B=", "-w", "/tmp", "--", "sh", "-c", 'pwd; echo "$A,$B"')
    check(said == "/tmp\none two,\n", said)
    check(desk.run("run", "--", "sh", "-c", "echo out; echo err >&2; exit 9", code=9)[0] == b"out\n", "run is not as exec")
    out, err = desk.run("exec", box.id, "--", "sh", "-c", "yes | head -n 1; grep -E 'Sig(Ign|Blk)' /proc/self/status")
    first, *words = out.decode().split()
    # The signals 32 and above are the C library's own.
    signals = [int(word, 16) & 0x7fff_ffff for word in words[1::2]]
    check((first, err, signals) == ("y", "", [0, 0]), f"signals are not as they were: {out}, {err}")
    blob = os.urandom(3 << 20)
    out, _ = desk.run("exec", box.id, "--", "cat", input=blob)
    check(out == blob, "bytes change on the way through a sandbox")
    desk.run("stop", box.id)


def test_signals_go_to_the_command(bench):
    box = Desk(bench).create()
    for name in ("INT", "TERM", "HUP"):
        process = box.begin(f"trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.01; done")
        process.send_signal(getattr(signal, f"SIG{name}"))
        out, _ = process.communicate(timeout=30 * PATIENCE)
        check((process.returncode, out) == (3, f"got {name}\n".encode()), f"{name}: {process.returncode}, {out!r}")
    # Also to what a shell waits for, as a terminal would.
    process = box.begin("echo ready; sleep 600; echo not reached")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30 * PATIENCE)
    check(process.returncode == 143, f"{process.returncode}")
    check(len(box.processes()) == 1, "a part of the command goes on")
    # The one outside is killed: nobody could end the command any more.
    process = box.begin("echo ready; exec sleep 600")
    end(process.pid)
    wait_until("the command ends with its caller", lambda: len(box.processes()) == 1, 10)
    box.desk.run("stop", box.id)


def inside_is_apart(desk):
    """What is the host's cannot be written, and what is not for an agent not be seen."""
    write(desk.home / "secret", "of the host")
    if desk.user is not None:
        os.chown(desk.home / "secret", desk.user, desk.user)
    elsewhere = "/usr/s0-e2e-test" if os.geteuid() == 0 else str(desk.home / "x")
    box = desk.create("--path", "/workspace", "--path", "/opt/s0-e2e/deep", "--path", "/tmp/inner")
    for path in ("/workspace", "/opt/s0-e2e/deep", "/tmp/inner", "/tmp", "$HOME"):
        box.sh(f"echo x > {path}/file && rm {path}/file")
    check(not pathlib.Path("/opt/s0-e2e").exists() and not pathlib.Path("/tmp/inner").exists(), "the host has them, too")
    for path in (elsewhere, "/etc/s0-e2e-test", "/bin/sh", "/run/s0/s0", "/proc/1/exe", "/run/s0/more"):
        box.sh(f": > {path}", code=2)
    box.sh("mv /run/s0 /run/s1", code=1)
    box.sh("mount -o remount,rw,bind /usr", code=None)
    box.sh(": > /usr/s0-e2e-test", code=2)
    check(not os.path.exists("/usr/s0-e2e-test"), "the host was written to")
    for path in (desk.home / "secret", desk.state / "sandboxes", desk.bench.dir / "s0"):
        check(box.sh(f"test -e {path} && echo there || echo none") == "none\n", f"{path} is seen inside")
    check(box.sh("ls -A ~").strip() == "", "the home is not empty")
    pids = [int(it) for it in box.sh("ls /proc").split() if it.isdigit()]
    check(1 in pids and max(pids) < 1000 and len(pids) < 6, f"processes of the host are seen: {pids}")
    for said in (box.sh("env; cat /proc/1/environ /proc/self/environ | tr '\\0' '\\n'"),):
        check("s0_secret_of_the_host" not in said and "S0_STATE_DIR" not in said, f"the host's environment: {said}")
    check(box.sh("hostname") != socket.gethostname() + "\n", "it has the host's name")
    # A command that is made to begin as this program again, whose file is the host's.
    box.sh("printf '#!/proc/self/exe\\n' > /workspace/trap && chmod +x /workspace/trap")
    box.says("/workspace/trap", code=None)
    check(box.sh("grep NoNewPrivs /proc/self/status").split()[1] == "1", "rights can be had anew")
    rights = int(box.sh("grep CapEff /proc/self/status").split()[1], 16)
    # Nobody inside may mount (21), trace (19), make devices (27), or set the network up (12).
    check(not any(rights >> number & 1 for number in (12, 16, 17, 19, 21, 27)), f"{rights:x}")
    check(box.sh("cat /proc/1/status | grep CapEff").split()[1] == box.sh("grep CapEff /proc/self/status").split()[1]
          or rights == 0, "init has other rights than commands")
    desk.run("stop", box.id)
    box.check_gone()


def test_what_is_outside_stays_outside(bench):
    inside_is_apart(Desk(bench))


def test_users_without_rights_have_sandboxes_too(bench):
    desk = Desk(bench, user=SOMEBODY)
    probe = desk.start("run", "--", "id", "-u")
    out, err = probe.communicate(timeout=60 * PATIENCE)
    if probe.returncode != 0 and b"user namespace" in err:
        raise Skip("user namespaces for everybody")
    check((probe.returncode, out) == (0, f"{SOMEBODY}\n".encode()), f"{probe.returncode}: {out!r} {err!r}")
    inside_is_apart(desk)


def test_places_that_are_none_are_refused(bench):
    desk = Desk(bench)
    for path, why in (("workspace", "begin with a slash"), ("/", "all of it"), ("/a/../b", "without `..`"),
                      ("/proc/x", "the system's"), ("/run/s0", "the system's"), ("/etc/passwd", "it is a file"),
                      ("/bin/x", "symbolic link")):
        said = desk.run("create", "--path", path, code=1)[1]
        check(why in said, f"{path}: {said}")
    box = desk.create("--path", "/workspace/z", "--path", "/data", "--path", "/workspace", "--path", "/data/")
    check(box.sh("pwd; cd /workspace; ls; ls -d /data") == "/workspace/z\nz\n/data\n", "the places are not those that were named")
    desk.run("stop", box.id)
    check(desk.kept() == [], f"something is left: {desk.kept()}")


def test_bubblewrap_that_is_missing_or_fails_is_said(bench):
    desk = Desk(bench)
    usual = desk.environment["PATH"]
    desk.environment["PATH"] = str(desk.dir / "nothing")
    for command in (("create",), ("run", "--", "true")):
        said = desk.run(*command, code=1)[1]
        check("apt install bubblewrap" in said, said)
    broken = desk.dir / "broken"
    write(broken / "bwrap", "#!/bin/sh\necho bwrap: no luck today >&2\nexit 1\n")
    (broken / "bwrap").chmod(0o755)
    desk.environment["PATH"] = f"{broken}:{usual}"
    said = desk.run("create", code=1)[1]
    check("no luck today" in said and "bubblewrap made no sandbox" in said, said)
    # One that hangs, as when a disk does not answer.
    write(broken / "bwrap", "#!/bin/sh\nexec cat >/dev/null\n")
    making = desk.start("create")
    wait_until("it is being made", lambda: [it["state"] for it in desk.json("list")] == ["changing"])
    check("being made" in desk.run("stop", desk.json("list")[0]["id"], code=1)[1], "it is not said that it is being made")
    desk.run("stop", "--all", "--force")
    check(making.wait(30 * PATIENCE) == 1, f"{making.returncode}")
    wait_until("nothing is left", lambda: not list(bench.own_processes()), 10)
    check(desk.kept() == [], f"something is left: {desk.kept()}")


def test_many_commands_at_once(bench):
    box = Desk(bench).create()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        said = list(pool.map(lambda n: box.sh(f"echo {n} > /workspace/{n}; cat /workspace/{n}"), range(20)))
    check(said == [f"{n}\n" for n in range(20)], f"{said}")
    check(len(box.sh("ls /workspace").split()) == 20, "not all were in one sandbox")
    wait_until("only the first process is left", lambda: len(box.processes()) == 1, 10)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        boxes = list(pool.map(lambda _: box.desk.create(), range(6)))
        check(len({it.id for it in boxes}) == 6, "two have one id")
        list(pool.map(lambda it: box.desk.run("stop", it.id), boxes))
    box.desk.run("stop", box.id)
    check(box.desk.kept() == [], f"something is left: {box.desk.kept()}")


def running(desk, script):
    """A sandbox that `run` has made, and the process of `run`."""
    process = desk.start("run", "--", "sh", "-c", f"echo ready; {script}", stdin=subprocess.PIPE)
    check(process.stdout.readline() == b"ready\n", lambda: f"{process.stderr.read()!r}")
    said, = desk.json("list")
    return process, Box(desk, said)


def test_a_sandbox_of_one_command_ends_with_it(bench):
    desk = Desk(bench)
    # What it leaves in the background, too.
    process, box = running(desk, "sleep 600 & read line; exit 4")
    process.stdin.close()
    check(process.wait(30 * PATIENCE) == 4, f"{process.returncode}")
    check(not box.processes() and desk.kept() == [], "it was not gone when the command returned")
    process, box = running(desk, "sleep 600")
    end(process.pid)
    process.wait()
    box.check_gone()
    said = desk.run("run", "--keep", "--name", "stays", "--", "touch", "/workspace/made")[1]
    check("`s0 sandbox stop sb_" in said, said)
    check(desk.says("exec", "stays", "--", "ls") == "made\n", "it did not stay")
    desk.run("stop", "stays")
    check(desk.kept() == [], f"something is left: {desk.kept()}")


def test_nothing_is_left_whoever_is_killed(bench):
    desk = Desk(bench)
    box = desk.create()
    process = box.begin("trap '' TERM INT HUP; setsid sleep 601 & echo ready; sleep 602")
    end(box.warden)
    check(process.wait(30 * PATIENCE) == 137, f"{process.returncode}")
    box.check_gone(kept=True)
    check("has ended" in desk.run("exec", box.id, "--", "true", code=1)[1], "what was killed is entered")
    other = desk.create()
    check([it["state"] for it in desk.json("list")] == ["ended", "running"], "it is not said that it ended")
    check([it["id"] for it in desk.json("list")] == [other.id] == desk.kept(), "it is not forgotten")
    end(other.warden)
    check(desk.json("stop", other.id) == {"stopped": [other.id]}, "one that has ended cannot be stopped")
    check(desk.kept() == [], "it is not forgotten")
    # Its first process, and bubblewrap: the warden cleans up.
    for victim in ("init", "bwrap"):
        box = desk.create()
        process = box.begin("echo ready; sleep 600")
        parent = int(pathlib.Path(f"/proc/{box.pid}/stat").read_text().rpartition(")")[2].split()[1])
        end(box.pid if victim == "init" else parent)
        check(process.wait(30 * PATIENCE) == 137, f"{process.returncode}")
        box.check_gone()
    # The one that makes a sandbox, while it does: whenever it dies, nothing stays.
    for delay in range(12):
        process = desk.start("run", "--", "sleep", "600")
        time.sleep(delay * bench.random.random() * 0.01)
        process.kill()
        process.wait()
    wait_until("no sandbox is left", lambda: all(it["state"] == "ended" for it in desk.json("list")), 30)
    wait_until("no process is left", lambda: not list(bench.own_processes()), 10)
    desk.run("list")
    check(desk.kept() == [], f"something is left: {desk.kept()}")


def test_stopping_asks_first_and_then_does_not(bench):
    desk = Desk(bench)
    box = desk.create()
    polite = box.begin("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    begun = time.monotonic()
    desk.run("stop", box.id)
    check(time.monotonic() - begun < 4 * PATIENCE, "it waited for those that had ended")
    check((polite.wait(10), polite.stdout.read()) == (0, b"bye\n"), "it was not asked")
    box = desk.create()
    deaf = box.begin("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    begun = time.monotonic()
    desk.run("stop", box.id)
    check(time.monotonic() - begun >= 4.9, "it had no time")
    check(deaf.wait(10) == 137, f"{deaf.returncode}")
    box.check_gone()
    box = desk.create()
    deaf = box.begin("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    begun = time.monotonic()
    desk.run("stop", box.id, "--force")
    check(time.monotonic() - begun < 4 * PATIENCE, "it was asked")
    check(deaf.wait(10) == 137, f"{deaf.returncode}")
    # A caller that stands still keeps a dead process from being buried, and nobody from stopping.
    box = desk.create()
    caller = box.begin("echo ready; sleep 600")
    os.kill(caller.pid, signal.SIGSTOP)
    desk.run("stop", box.id, "--force")
    check(desk.kept() == [] and not is_running(box.warden), "stopping waited for somebody outside")
    os.kill(caller.pid, signal.SIGCONT)
    check(caller.wait(10) == 137, f"{caller.returncode}")
    box.check_gone()
    # A warden that hangs.
    box = desk.create()
    os.kill(box.warden, signal.SIGSTOP)
    check([it["state"] for it in desk.json("list")] == ["not answering"], "it is not said that it hangs")
    desk.run("stop", box.id, "--force")
    box.check_gone()


def test_a_command_can_have_a_terminal(bench):
    desk = Desk(bench)
    box = desk.create()
    check("no terminal" in desk.run("exec", box.id, "-t", "--", "true", code=1)[1], "there was one")
    outer, end_of_it = pty.openpty()
    os.set_blocking(outer, False)
    fcntl.ioctl(end_of_it, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    before = termios.tcgetattr(end_of_it)
    script = "tty; stty size; trap 'echo caught' INT; echo ready; while read line; do echo \"<$line>\"; done; exit 6"
    process = desk.start("exec", box.id, "-t", "--", "sh", "-c", script, stdin=end_of_it, stdout=end_of_it, stderr=end_of_it)
    shown = b""

    def shows(what):
        def look():
            nonlocal shown
            while select.select([outer], [], [], 0)[0]:
                shown += os.read(outer, 65536)
            return what in shown
        wait_until(f"{what!r} is shown", lambda: look() or (shown if process.poll() is not None else None), 20)
        check(what in shown, f"{what!r} is not in {shown!r}")

    shows(b"ready")
    check(b"/dev/pts/" in shown and b"33 77" in shown, f"{shown!r}")
    os.write(outer, b"hello\r")
    shows(b"<hello>")
    fcntl.ioctl(end_of_it, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0))
    process.send_signal(signal.SIGWINCH)
    # The key goes to the command, and not to the one outside.
    os.write(outer, b"\x03")
    shows(b"caught")
    os.write(outer, b"\x04")
    check(process.wait(30 * PATIENCE) == 6, f"{process.returncode}: {shown!r}")
    check(termios.tcgetattr(end_of_it) == before, "the terminal is not as it was")
    os.close(outer)
    os.close(end_of_it)
    desk.run("stop", box.id)


def mounts(pid, at):
    """What is mounted at a place, as a process sees it."""
    lines = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line.split(" - ")[1].split()[0] for line in lines if line.split()[4] == at]


def helper(desk, box, *arguments):
    """Asks the helper; gives what it says, and the descriptor."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = desk.popen("sandbox-mount-helper", "--pid", box.pid, *arguments, stdin=its)
    its.close()
    said, fds, _, _ = socket.recv_fds(ours, 4096, 1)
    ours.close()
    check(process.wait(30 * PATIENCE) == 0, f"{process.returncode}")
    return json.loads(said), fds


def mounting(desk):
    if not os.path.exists("/dev/fuse"):
        raise Skip("/dev/fuse")
    box = desk.create()
    said, fds = helper(desk, box, "--path", "/workspace", "--options", "allow_other,default_permissions")
    if "failed" in said and "/dev/fuse" in str(said):
        raise Skip(f"FUSE: {said}")
    check(list(said) == ["mounted"] and len(fds) == 1, f"{said}, {fds}")
    check(mounts(box.pid, "/workspace")[-1] == "fuse.s0", f"{mounts(box.pid, '/workspace')}")
    # By its device: others may have such mounts on the host.
    inside = pathlib.Path(f"/proc/{box.pid}/mountinfo").read_text().splitlines()
    device, = (line.split()[2] for line in inside if " - fuse.s0 " in line and line.split()[4] == "/workspace")
    outside = [line.split()[2] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    check(device not in outside, "the host has it, too")
    # FUSE's first word is FUSE_INIT, 26: the descriptor is that of the mount.
    wait_until("the mount speaks", lambda: select.select(fds, [], [], 0)[0], 10)
    check(int.from_bytes(os.read(fds[0], 1 << 20)[4:8], "little") == 26, "it says something else than FUSE_INIT")
    os.close(fds[0])
    wait_until("the mount is dead", lambda: "not connected" in desk.run("exec", box.id, "-w", "/", "--", "ls", "/workspace", code=None)[1], 10)
    check(helper(desk, box, "--path", "/workspace", "--unmount")[0] == "unmounted", "it stays")
    check(mounts(box.pid, "/workspace") == ["tmpfs"], f"{mounts(box.pid, '/workspace')}")
    said, _ = helper(desk, box, "--path", "/workspace", "--unmount")
    check("nothing is mounted" in said.get("failed", ""), f"the sandbox's own directory was taken away: {said}")
    box.sh("touch /workspace/again")
    box.sh("ln -s /usr /workspace/link; touch /workspace/file")
    for path, why in (("/", "all of it"), ("workspace", "slash"), ("/usr/no/where", "no such directory"), ("/proc", "system"),
                      ("/workspace/link", "symbolic link"), ("/workspace/file", "no directory")):
        said, fds = helper(desk, box, "--path", path)
        check(why in said.get("failed", "") and not fds, f"{path}: {said}")
    said, _ = helper(desk, box, "--path", "/workspace", "--started", "1")
    check("has ended" in said.get("failed", ""), f"another process was taken for it: {said}")
    desk.run("stop", box.id)
    box.check_gone()


def test_fuse_is_mounted_inside_and_served_from_outside(bench):
    mounting(Desk(bench))


def fuse_desk(bench, user, **environment):
    """A user who can open the device."""
    if not os.path.exists("/dev/fuse"):
        raise Skip("/dev/fuse")
    desk = Desk(bench, user=user, **environment)
    if user is not None:
        # On many machines everybody may open it. Here they may in a mount namespace of their own.
        device = desk.dir / "fuse"
        os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        device.chmod(0o666)
        script = f'mount --bind "$0" /dev/fuse && exec setpriv --reuid {user} --regid {user} --clear-groups "$@"'
        desk.become = ["unshare", "--mount", "sh", "-c", script, str(device)]
    return desk


def test_fuse_is_mounted_for_users_without_rights(bench):
    mounting(fuse_desk(bench, SOMEBODY))
