"""Tools that watch a mount hear what a developer does, as if a program in the sandbox had done it."""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import subprocess

import harness
import rig
from harness import Skip, check, settle, wait_until, write

# What is watched with, from the registry of npm.
PACKAGES = {"chokidar": "4.0.3", "vite": "6.3.5"}


def packages():
    """A directory with the packages; they are installed when they are not there yet."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise Skip(program)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or harness.ROOT / "target")
    root = target / "rigs" / "watchers"
    wanted = json.dumps({"private": True, "type": "module", "dependencies": PACKAGES}, sort_keys=True)
    done = root / "installed.json"
    if not done.exists() or done.read_text() != wanted:
        root.mkdir(parents=True, exist_ok=True)
        write(root / "package.json", wanted)
        installed = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=root,
                                   capture_output=True, text=True)
        check(installed.returncode == 0, lambda: f"npm install failed:\n{installed.stderr[-2000:]}")
        write(done, wanted)
    return root


@contextlib.contextmanager
def watching(bench, name, command, cwd=None, **environment):
    """Runs what watches; gives a function that gives the lines that it has said."""
    said = bench.dir / f"{name}.out"
    with open(said, "wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, cwd=cwd, env=bench.environment(**environment))
    try:
        yield lambda: said.read_text(errors="replace").splitlines()
    finally:
        process.kill()
        process.wait()


def desk(bench):
    service, volume = rig.service_and_volume(bench)
    mount = rig.Mount(bench, volume, "mount")
    developer = bench.machine("developer", service).attach(volume)
    (developer / "src").mkdir()
    write(developer / "src" / "old.js", "old\n")
    write(developer / "src" / "gone.js", "gone\n")
    settle(developer)
    wait_until("the files are in the mount", (mount / "src/gone.js").exists)
    return mount, developer


def heard(lines, wanted):
    """Waits for a line; all that was said is told if it does not come."""
    try:
        wait_until(f"{wanted!r} is heard", lambda: wanted in lines(), 20)
    except harness.Failed as failed:
        raise harness.Failed(f"{failed}; heard was:\n" + "\n".join(lines())) from None


def test_inotifywait_hears_what_a_developer_does(bench):
    if not shutil.which("inotifywait"):
        raise Skip("inotify-tools")
    mount, developer = desk(bench)
    command = ["inotifywait", "--monitor", "--recursive", "--format", "%e %f", mount.path]
    with watching(bench, "inotifywait", command) as lines:
        wait_until("it watches", lambda: "Watches established." in lines())
        write(developer / "src" / "new.js", "new\n")
        heard(lines, "CREATE new.js")
        write(developer / "src" / "old.js", "changed\n")
        heard(lines, "MODIFY old.js")
        heard(lines, "CLOSE_WRITE,CLOSE old.js")
        (developer / "src" / "old.js").rename(developer / "src" / "moved.js")
        heard(lines, "MOVED_FROM old.js")
        heard(lines, "MOVED_TO moved.js")
        (developer / "src" / "gone.js").unlink()
        heard(lines, "DELETE gone.js")
        (developer / "lib").mkdir()
        heard(lines, "CREATE,ISDIR lib")
        # One that was not there when it began.
        write(developer / "lib" / "deep.js", "deep\n")
        heard(lines, "CREATE deep.js")
        settle(developer)
    check((mount / "src/moved.js").read_text() == "changed\n", "the mount shows something else")


CHOKIDAR = """
import { watch } from 'chokidar';
const root = process.argv[2];
watch(root, { ignoreInitial: true, usePolling: false })
  .on('all', (event, path) => console.log(event, path.slice(root.length + 1)))
  .on('ready', () => console.log('ready'));
"""


def test_chokidar_hears_what_a_developer_does(bench):
    root = packages()
    mount, developer = desk(bench)
    # It finds its packages beside itself.
    write(root / "watch.mjs", CHOKIDAR)
    with watching(bench, "chokidar", ["node", root / "watch.mjs", mount.path]) as lines:
        heard(lines, "ready")
        write(developer / "src" / "new.js", "new\n")
        heard(lines, "add src/new.js")
        write(developer / "src" / "old.js", "changed\n")
        heard(lines, "change src/old.js")
        (developer / "src" / "old.js").rename(developer / "src" / "moved.js")
        heard(lines, "unlink src/old.js")
        heard(lines, "add src/moved.js")
        (developer / "src" / "gone.js").unlink()
        heard(lines, "unlink src/gone.js")
        (developer / "lib").mkdir()
        heard(lines, "addDir lib")


VITE = """
import { createServer } from 'vite';
const [root, cacheDir] = process.argv.slice(2);
const server = await createServer({ root, cacheDir, configFile: false, logLevel: 'info', clearScreen: false,
  server: { port: 0, host: '127.0.0.1', fs: { strict: false } }, optimizeDeps: { noDiscovery: true } });
await server.listen();
console.log('port ' + server.httpServer.address().port);
server.watcher.on('all', (event, path) => console.log(event, path.slice(root.length + 1)));
"""


def test_a_dev_server_serves_what_a_developer_saves(bench):
    root = packages()
    mount, developer = desk(bench)
    write(developer / "index.html", '<script type="module" src="/src/main.js"></script>\n')
    write(developer / "src" / "main.js", "import { word } from './word.js'; document.title = word;\n")
    write(developer / "src" / "word.js", "export const word = 'first';\n")
    settle(developer)
    wait_until("the files are in the mount", (mount / "src/word.js").exists)
    write(root / "serve.mjs", VITE)
    command = ["node", root / "serve.mjs", mount.path, bench.dir / "vite"]
    with watching(bench, "vite", command, cwd=mount.path) as lines:
        wait_until("it listens", lambda: any(line.startswith("port ") for line in lines()), 60)
        port = next(int(line.split()[1]) for line in lines() if line.startswith("port "))

        def served(path):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path)
            answer = connection.getresponse()
            check(answer.status == 200, f"{path}: {answer.status}")
            return answer.read().decode()

        check("first" in served("/src/word.js") and "word.js" in served("/src/main.js"), "it serves something else")
        # What it has served is in its memory until it hears that the file has changed.
        write(developer / "src" / "word.js", "export const word = 'second';\n")
        heard(lines, "change src/word.js")
        wait_until("what was saved is served", lambda: "second" in served("/src/word.js"), 20)
