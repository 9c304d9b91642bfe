"""What a newcomer types first."""
import signal
import subprocess

from harness import BIN, check, is_running, wait_until, write


def test_the_tour_passes_and_tells_its_steps(bench):
    home = bench.dir / "home"
    home.mkdir()
    done = subprocess.run([BIN, "up", "--tour"], cwd=home, stdin=subprocess.DEVNULL, capture_output=True,
                          env=bench.environment(HOME=str(home), S0_STATE_DIR=str(bench.dir / "state"),
                                                S0_DATA_DIR=str(bench.dir / "data")), timeout=240)
    said = done.stdout.decode()
    check(done.returncode == 0, f"it ended with {done.returncode}:\n{said}\n{done.stderr.decode()}")
    check(len(said.strip().splitlines()) >= 5, f"it does not tell its steps:\n{said}")
    check("conflict" in said.lower(), f"it does not tell of a conflict:\n{said}")
    check("agent" in said.lower(), f"it does not tell of an agent:\n{said}")
    wait_until("nothing of it runs on", lambda: not [p for p in bench.own_processes() if is_running(p)], 20)


def test_a_tour_that_is_broken_off_leaves_nothing(bench):
    home = bench.dir / "home"
    home.mkdir()
    for lines in (1, 2, 3, 4, 7):
        tour = subprocess.Popen([BIN, "up", "--tour"], cwd=home, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, env=bench.environment(HOME=str(home), TMPDIR=str(home)))
        for _ in range(lines):
            tour.stdout.readline()
        tour.send_signal(signal.SIGINT)
        tour.stdout.read()
        check(tour.wait(60) == 1, f"broken off after {lines} lines it ended with {tour.returncode}")
        wait_until("nothing of it runs on", lambda: not [p for p in bench.own_processes() if is_running(p)], 20)
        check(not list(home.iterdir()), lambda: f"after {lines} lines there are {list(home.iterdir())}")


def test_up_attaches_a_directory_and_ends_on_ctrl_c(bench):
    root, home = bench.dir / "project", bench.dir / "home"
    write(root / "README.md", "# Mine\n")
    home.mkdir()
    log = open(bench.dir / "up.log", "wb")
    up = subprocess.Popen([BIN, "up", str(root)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                          env=bench.environment(HOME=str(home), S0_STATE_DIR=str(bench.dir / "state"),
                                                S0_DATA_DIR=str(bench.dir / "data")))

    def said():
        return (bench.dir / "up.log").read_text()

    wait_until("it says how an agent joins, and is in sync",
               lambda: up.poll() is not None or ("--as sandbox" in said() and "in sync" in said()), 60)
    check(up.poll() is None, lambda: f"it ended with {up.returncode}:\n{said()}")
    up.send_signal(signal.SIGINT)
    code = up.wait(30)
    check(code in (0, 130), lambda: f"Ctrl-C ended it with {code}:\n{said()}")
    check((root / "README.md").read_text() == "# Mine\n", "the project was touched")
