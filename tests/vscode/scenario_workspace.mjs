// The workspace as a whole: snapshots, the agent's terminal, pausing, and where the server is found.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { ROOT, SERVER, check, read, until, write } from "./harness.mjs";

export async function a_snapshot_is_restored_and_the_volume_forked({ bench, open, shot }) {
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

  await w.command("s0 sync: Fork the Volume");
  const fork = await until("the fork is named", async () =>
    /the fork is Volume ([\w-]+)/.exec((await w.toasts()).join(" "))?.[1],
  );
  check(fork !== bench.attachment().volume_id, "the fork is the Volume itself");
  const elsewhere = bench.agent("sb_fork", fork);
  await until("the fork has the file", () => elsewhere.read("main.py") === "before\n");
  elsewhere.write("main.py", "in the fork\n");
  elsewhere.flush();
  bench.write("other.txt", "here\n");
  await until("what is written here reaches the agent", () => agent.read("other.txt") === "here\n");
  check(bench.read("main.py") === "before\n", "what is written in the fork came here");
  check(elsewhere.read("other.txt") === undefined, "what is written here came into the fork");
}

export async function a_pause_and_a_halt_are_shown_and_end_on_a_word({ bench, open, shot }) {
  const names = Array.from({ length: 12 }, (_, i) => `all/file-${i}.txt`);
  for (const name of names) bench.write(name, `${name}\n`);
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await until("the agent has the files", () => names.every((name) => agent.read(name) === `${name}\n`));

  await w.command("s0 sync: Pause");
  await until("it is paused", async () => /paused/.test(await w.statusText()), 20);
  agent.write("all/while-paused.txt", "x\n");
  agent.flush();
  check(bench.read("all/while-paused.txt") === undefined, "a paused folder was written to");
  await w.command("s0 sync: Start");
  await until("what came meanwhile is here", () => bench.read("all/while-paused.txt") === "x\n");
  await until("it is in sync", async () => /in sync/.test(await w.statusText()));
  check((await w.toasts()).length === 0, "a pause needs no notification");

  // The folder is gone, as an unmounted disk is.
  const away = path.join(bench.dir, "away");
  const halts = async () => (await w.toasts()).filter((toast) => toast.includes("has halted"));
  fs.renameSync(bench.workspace, away);
  await until("the status bar says halted", async () => /halted/.test(await w.statusText()));
  await until("it is said once", async () => (await halts()).length === 1);
  await shot(w, "halt");
  fs.renameSync(away, bench.workspace);
  await w.page.locator(".notifications-toasts .monaco-button", { hasText: "Go On" }).click();
  await w.answer("Go On");
  await until("it is in sync again", async () => /in sync/.test(await w.statusText()));

  // Everything in it is gone: what was removed is not removed elsewhere before the user says that it was meant.
  const removed = [...names, "all/while-paused.txt"];
  fs.renameSync(bench.file("all"), away);
  await until("the status bar says halted again", async () => /halted/.test(await w.statusText()));
  await until("it is said once more", async () => (await halts()).length === 1);
  check(
    removed.every((name) => agent.read(name) !== undefined),
    "the removals were sent without a word",
  );
  await w.command("s0 sync: Go On After a Halt");
  await w.dialog.waitFor();
  await shot(w, "halt-question");
  await w.answer("Send the Deletions");
  await until("the removals arrive", () => removed.every((name) => agent.read(name) === undefined));
  await until("it is in sync at last", async () => /in sync/.test(await w.statusText()));
}

export async function two_folders_of_a_window_are_two_workspaces({ bench, open, shot }) {
  const second = path.join(bench.dir, "second");
  const plain = path.join(bench.dir, "plain");
  bench.write("main.py", "first\n");
  write(path.join(second, "main.py"), "second\n");
  write(path.join(plain, "main.py"), "plain\n");
  const w = await open({ folders: [bench.workspace, second, plain] });
  await w.openView();
  for (const [name, left] of [
    ["project", 2],
    ["second", 1],
  ]) {
    await w.command("s0 sync: Attach a Folder");
    await w.pick(name);
    // Once there is a Volume, a new one has to be chosen.
    if (left === 1) await w.pick("New Volume");
    const root = path.join(bench.dir, name);
    await until(`${name} is attached`, () => bench.attachment(root) !== undefined, 30, 200);
    await until("and in sync", async () => /in sync/.test(await w.statusText()));
  }
  check(bench.attachment(plain) === undefined, "a folder was attached unasked");
  const agents = [bench.agent("sb_one"), bench.agent("sb_two", bench.attachment(second).volume_id)];
  await until("the agents have the files", () =>
    agents.every(({ read }, index) => read("main.py") === ["first\n", "second\n"][index]),
  );
  await until("each folder has its row", async () => {
    const rows = await w.rows();
    const of = (name) => rows.some((row) => new RegExp(`^${name}\\s*in sync$`).test(row));
    return of("project") && of("second") && !rows.some((row) => row.startsWith("plain"));
  });

  agents[0].write("main.py", "first\nby one\n");
  agents[1].write("main.py", "second\nby two\n");
  await until("two files wait", async () => (await w.badge()) === "2");
  await w.row("sb_one").waitFor();
  await w.row("sb_two").waitFor();
  await shot(w, "two-folders");
  await w.rowAction("sb_one", "Keep");
  await until("one file is left", async () => (await w.badge()) === "1");
  await until("what was kept is listed no longer", async () => (await w.row("sb_one").count()) === 0);
  // A click at the file of the other folder opens that, and there it is reverted.
  await w.page.locator(".sidebar .monaco-list-row", { hasText: /^main\.py.*\+1/ }).click();
  await until("its hunk is marked", async () => (await w.lenses()).length === 1);
  check((await w.text()).startsWith("second\n"), `the wrong file was opened: ${await w.text()}`);
  await w.lens("Revert");
  await until("it is reverted on both sides", () =>
    [read(path.join(second, "main.py")), agents[1].read("main.py")].every((text) => text === "second\n"),
  );
  check(bench.read("main.py") === "first\nby one\n", "the other folder was touched");

  // A conflict in one of them, while the other goes on.
  await w.command("s0 sync: Pause");
  await w.pick("second");
  await until("it is paused", async () => (await w.rows()).some((row) => /^second\s*paused$/.test(row)), 20);
  agents[1].write("main.py", "theirs\n");
  agents[1].flush();
  write(path.join(second, "main.py"), "mine\n");
  await w.command("s0 sync: Start");
  await until("its conflict is listed", async () =>
    (await w.rows()).some((row) => /^Conflicts\s*1$/.test(row)),
  );
  bench.write("main.py", "mine too\n");
  await until("the other folder goes on", () => agents[0].read("main.py") === "mine too\n");
  await w.command("s0 sync: Settle a Conflict");
  await w.pick("main.py");
  await w.pick("Take Theirs");
  await until("the conflict is settled", () => read(path.join(second, "main.py")) === "theirs\n");
  await until("and the window is in sync", async () => /in sync/.test(await w.statusText()));
  check(read(path.join(plain, "main.py")) === "plain\n", "the folder that is not attached was touched");
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

/** Makes a VSIX with the options of `npm run package`. */
function pack(...args) {
  return spawnSync("npm", ["run", "--silent", "package", "--", ...args], {
    cwd: path.join(ROOT, "vscode-extension"),
    encoding: "utf8",
  });
}

export async function the_package_with_a_server_is_whole({ bench, open }) {
  const missing = pack("linux-x64", "--server", "/nowhere/s0-sync-lsp", "--out", path.join(bench.dir, "x.vsix"));
  check(missing.status !== 0 && missing.stderr.includes("/nowhere"), "a missing server is no error");
  check(!fs.existsSync(path.join(bench.dir, "x.vsix")), "a package was made without its server");
  const whole = path.join(bench.dir, "linux.vsix");
  const made = pack("linux-x64", "--server", SERVER, "--out", whole);
  check(made.status === 0, made.stdout + made.stderr);
  // Installed as users do it, with nothing on the PATH, it has all that it needs.
  bench.write("main.py", "x\n");
  const w = await open({ bundled: whole, onPath: false });
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

export async function the_package_without_a_server_takes_the_one_on_the_path({ bench, open }) {
  const universal = path.join(bench.dir, "universal.vsix");
  const made = pack("universal", "--out", universal);
  check(made.status === 0, made.stdout + made.stderr);
  bench.write("main.py", "x\n");
  const w = await open({ bundled: universal });
  await w.attach();
  check(bench.processOf("s0-sync-lsp", "--stdio"), "the server on the PATH does not run");
}

export async function the_package_without_a_server_says_what_to_do_when_there_is_none({ bench, open, shot }) {
  const universal = path.join(bench.dir, "universal.vsix");
  const made = pack("universal", "--out", universal);
  check(made.status === 0, made.stdout + made.stderr);
  const w = await open({ bundled: universal, onPath: false });
  await w.openView();
  const welcome = async () => await w.page.locator(".welcome-view-content").innerText();
  await until("the view says that the server is missing", async () => (await welcome()).includes("it was not found"));
  check((await welcome()).includes("Say Where It Is"), `the view does not say what to do: ${await welcome()}`);
  await until("and so does the status bar", async () =>
    /neither inside this extension nor on the PATH[^]*s0-sync\.server\.path/.test(await w.statusText()),
  );
  await shot(w, "no-server-universal");
  // As told: the setting, which begins to count at once.
  const machine = path.join(bench.dir, "user/Machine/settings.json");
  write(machine, JSON.stringify({ "s0-sync.server.path": SERVER }));
  await until("once it is told where, the server runs", () => bench.processOf("s0-sync-lsp", "--stdio"));
}
