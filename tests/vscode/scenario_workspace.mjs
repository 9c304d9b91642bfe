// The workspace as a whole: snapshots, the agent's terminal, pausing, and where the server is found.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { ROOT, SERVER, check, until } from "./harness.mjs";

export async function a_snapshot_is_taken_and_restored({ bench, open, shot }) {
  bench.write("main.py", "before\n");
  const w = await open();
  await w.attach();
  await w.command("s0 sync: Take a Snapshot");
  const input = w.page.locator(".quick-input-widget input.input");
  await until("a name is asked for", async () => (await input.inputValue()) === "before");
  await input.fill("first");
  await w.page.keyboard.press("Enter");
  await until("the view counts it", async () => (await w.rows()).some((row) => /^Snapshots\s*1$/.test(row)));
  await w.row("Snapshots").click();
  await w.row("first").waitFor();
  await shot(w, "workspace");
  const agent = bench.agent();
  agent.write("main.py", "after\n");
  await until("the agent's write is here", () => bench.read("main.py") === "after\n");
  await w.rowAction("first", "Restore");
  await w.answer("Restore");
  await until(
    "both sides are as before",
    () => bench.read("main.py") === "before\n" && agent.read("main.py") === "before\n",
  );
}

export async function one_person_tries_both_sides_with_the_agents_terminal({ bench, open, shot }) {
  bench.write("main.py", 'print("hello")\n');
  const w = await open();
  await w.attach();
  await w.openFile("main.py");
  await w.command("s0 sync: Open a Terminal as an Agent");
  const terminal = w.page.locator(".terminal-wrapper .xterm");
  await terminal.waitFor({ timeout: 30_000 });
  await terminal.click();
  await w.page.keyboard.type("echo 'print(1)' >> main.py\n");
  await until("the line is here", () => bench.read("main.py") === 'print("hello")\nprint(1)\n');
  await until("and marked", async () => (await w.lenses()).length === 1);
  await shot(w, "agent-terminal");
  await w.lens("Revert");
  await until("the line is gone", () => bench.read("main.py") === 'print("hello")\n');
  await w.command("s0 sync: Detach");
  await w.answer("Detach");
  await w.openView();
  await until("the view leads to Attach again", () => w.page.locator(".welcome-view-content").isVisible());
  check(bench.read("main.py") === 'print("hello")\n', "detaching touched a file");
}

export async function without_a_server_the_view_says_what_to_do({ bench, open, shot }) {
  const w = await open({ settings: { "s0-sync.server.path": "/nowhere/s0-sync-lsp" } });
  await w.openView();
  await until("the view says that the server is missing", async () =>
    (await w.page.locator(".welcome-view-content").innerText()).includes("it was not found"),
  );
  await until("and the status bar names the setting", async () => /s0-sync\.server\.path/.test(await w.statusText()));
  await shot(w, "no-server");
}

export async function a_folder_that_is_not_trusted_is_left_alone({ bench, open }) {
  const w = await open({ trust: true, settings: { "security.workspace.trust.startupPrompt": "never" } });
  const restricted = w.page.locator('.statusbar-item[id="status.workspaceTrust"]');
  await until("the window is in restricted mode", () => restricted.isVisible(), 60);
  check(bench.processOf("s0-sync-lsp", "--stdio") === undefined, "a server runs for a folder that is not trusted");
  check(!(await w.status.isVisible()), "the extension runs in a folder that is not trusted");
  await restricted.click();
  await w.page
    .locator(".workspace-trust-editor .monaco-button", { hasText: /^Trust$/ })
    .first()
    .click();
  await until("once it is trusted the extension starts", () => w.status.isVisible(), 60);
  await until("and so does the server", () => bench.processOf("s0-sync-lsp", "--stdio"));
}

export async function the_settings_are_those_of_the_servers_schema() {
  const printed = spawnSync(SERVER, ["--print-config-schema"], { encoding: "utf8" });
  check(printed.status === 0, printed.stderr);
  const { properties } = JSON.parse(fs.readFileSync(path.join(ROOT, "vscode-extension/package.json"), "utf8"))
    .contributes.configuration;
  for (const [name, wanted] of Object.entries(JSON.parse(printed.stdout).properties)) {
    const { scope, ...here } = properties[name] ?? {};
    check(scope, `package.json lacks the setting ${name}`);
    const sorted = (value) => JSON.stringify(Object.entries(value).sort());
    check(sorted(here) === sorted(wanted), `${name} is ${sorted(here)} in package.json, and not ${sorted(wanted)}`);
  }
}

export async function the_packages_are_whole({ bench, open }) {
  const extension = path.join(ROOT, "vscode-extension");
  const pack = (...args) =>
    spawnSync("npm", ["run", "--silent", "package", "--", ...args], { cwd: extension, encoding: "utf8" });
  const missing = pack("linux-x64", "--server", "/nowhere/s0-sync-lsp", "--out", path.join(bench.dir, "x.vsix"));
  check(missing.status !== 0 && missing.stderr.includes("/nowhere"), "a missing server is no error");
  check(!fs.existsSync(path.join(bench.dir, "x.vsix")), "a package was made without its server");
  const universal = pack("universal", "--out", path.join(bench.dir, "universal.vsix"));
  check(universal.status === 0, universal.stdout + universal.stderr);
  const whole = path.join(bench.dir, "linux.vsix");
  const made = pack("linux-x64", "--server", SERVER, "--out", whole);
  check(made.status === 0, made.stdout + made.stderr);
  // Installed as users do it, with nothing on the PATH, it has all that it needs.
  bench.write("main.py", "x\n");
  const w = await open({ bundled: whole });
  await w.attach();
  const running = bench.processes().find((pid) => {
    try {
      return fs.readlinkSync(`/proc/${pid}/exe`).startsWith(path.join(bench.dir, "extensions"));
    } catch {
      return false;
    }
  });
  check(running, "the server inside the package does not run");
}
