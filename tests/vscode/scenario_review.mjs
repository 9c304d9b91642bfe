// Agents' writes, as they appear, and what becomes of them.

import { check, until } from "./harness.mjs";

const lines = (count, from = 1) => Array.from({ length: count }, (_, i) => `line ${i + from}\n`).join("");

export async function attach_from_the_welcome_view({ bench, open, shot }) {
  bench.write("main.py", 'print("hello")\n');
  const w = await open();
  await w.openView();
  await w.page.locator(".welcome-view-content").waitFor();
  await shot(w, "welcome");
  await w.attach();
  check(bench.attachment(), "s0 sync list does not know the workspace");
  const agent = bench.agent();
  await until("the agent has the file", () => agent.read("main.py") === 'print("hello")\n');
  // And on: what is saved in the editor reaches the agent.
  await w.openFile("main.py");
  await w.page.keyboard.type("# mine\n");
  await w.page.keyboard.press("Control+s");
  await until("the agent has the saved text", () => agent.read("main.py") === '# mine\nprint("hello")\n');
  check((await w.toasts()).length === 0, "attaching needs no notification");
}

export async function an_agents_edit_appears_at_once({ bench, open, shot }) {
  bench.write("story.txt", lines(30));
  bench.write("other.txt", "other\n");
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await w.openFile("other.txt");
  await w.openFile("story.txt");
  await until("the agent has the file", () => agent.read("story.txt") === lines(30));
  const focus = await w.focus();
  const tabs = await w.page.locator(".tabs-container .tab").count();

  // From before the agent's write to what of it is shown, without a click: the first mark, which says where it writes;
  // the text, once VS Code has read the file; the exact marks of it; the lenses.
  const times = { disk: [], mark: [], text: [], decoration: [], lenses: [] };
  for (let round = 0; round < 20; round += 1) {
    const text = `the agent, round ${round}`;
    await w.noteWhenShown(text);
    const started = performance.timeOrigin + performance.now();
    agent.write("story.txt", lines(3) + `${text}\n` + lines(27, 4));
    await until("the disk has it", () => bench.read("story.txt").includes(text), 10, 2);
    times.disk.push(performance.timeOrigin + performance.now() - started);
    for (const [what, time] of Object.entries(await w.shownTimes())) times[what].push(time - started);
    // Reviewed, so that the next one is a mark of its own.
    await w.lens("Keep");
    await until("the mark is gone", async () => (await w.markedLines()) === 0 && (await w.lenses()).length === 0, 10);
  }
  const figures = Object.entries(times).map(([what, all]) => {
    all.sort((a, b) => a - b);
    return { what, median: (all[9] + all[10]) / 2, slowest: all[19] };
  });
  console.log(
    "      from an agent's write, median of 20 (slowest): " +
      figures
        .map(({ what, median, slowest }) => `${what} ${median.toFixed(0)} ms (${slowest.toFixed(0)})`)
        .join(", "),
  );
  const { median } = figures.find(({ what }) => what === "mark");
  check(median < 500, `it takes ${median} ms until a write is marked`);
  check((await w.page.locator(".tabs-container .tab").count()) === tabs, "a tab was opened unasked");
  check((await w.toasts()).length === 0, "a notification was shown unasked");
  agent.write("story.txt", "first\n" + lines(10) + "changed\n" + lines(9, 12) + lines(7, 24) + "last\n");
  await until("four hunks are marked", async () => (await w.lenses()).length >= 4, 10);
  check(focus.split(" ")[0] === (await w.focus()).split(" ")[0], "the focus was moved");
  await shot(w, "decorations");
}

export async function what_an_agent_writes_deep_in_the_tree_is_reloaded({ bench, open }) {
  bench.write("src/deep/story.txt", lines(30));
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await until("the agent has the file", () => agent.read("src/deep/story.txt") === lines(30));
  await w.openFile("src/deep/story.txt");
  for (const text of ["first", "second"]) {
    agent.write("src/deep/story.txt", `${text}\n` + lines(30));
    await until(`the editor shows the ${text} write`, async () => (await w.text()).startsWith(`${text}\n`), 5);
  }
}

export async function keep_one_hunk_and_revert_another({ bench, open, shot }) {
  bench.write("main.py", lines(20));
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await until("the agent has the file", () => agent.read("main.py") === lines(20));
  await w.openFile("main.py");
  agent.write("main.py", "first\n" + lines(20) + "last\n");
  await until("two hunks are marked", async () => (await w.lenses()).length === 2, 10);
  await until("the view counts the file", async () => (await w.badge()) === "1");
  check((await w.row("main.py").first().innerText()).includes("+2 −0"), "the row does not say +2 −0");

  await w.lens("Keep", 0);
  await until("one hunk is left", async () => (await w.lenses()).length === 1, 10);
  await w.lens("Revert", 0);
  await until("no hunk is left", async () => (await w.lenses()).length === 0, 10);
  await until(
    "both sides have the one and not the other",
    () => bench.read("main.py") === "first\n" + lines(20) && agent.read("main.py") === "first\n" + lines(20),
  );
  await until(
    "the editor shows it",
    async () => (await w.text()).startsWith("first\n") && !(await w.text()).includes("last"),
  );
  check(!(await w.isDirty("main.py")), "the document has unsaved text");
  await until("the badge is gone", async () => (await w.badge()) === "");
  await until("the reviewed file is listed", async () => /Reviewed\s*[12]/.test((await w.rows()).join(" ")));

  // A hunk in a document with unsaved text is reverted in the text, and Undo brings it back.
  agent.write("main.py", "first\n" + lines(20) + "again\n");
  await until("the hunk is marked", async () => (await w.lenses()).length === 1, 10);
  await w.page.locator(".editor-instance .view-line").first().click();
  await w.page.keyboard.type("mine ");
  await until("the text is unsaved", () => w.isDirty("main.py"));
  await w.lens("Revert", 0);
  await until("the hunk is gone from the text", async () => !(await w.text()).includes("again"));
  check(bench.read("main.py").endsWith("again\n"), "the file was written under unsaved text");
  await w.page.keyboard.press("Control+s");
  await until("the agent has the saved text", () => {
    const text = agent.read("main.py");
    return text.includes("mine ") && !text.includes("again");
  });
}

export async function next_hunk_goes_through_all_files_and_review_all_shows_them({ bench, open, shot }) {
  for (const name of ["a.txt", "b.txt", "c/deep.txt"]) bench.write(name, lines(40));
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await until("the agent has the files", () => agent.read("c/deep.txt") === lines(40));
  agent.write("a.txt", lines(5) + "one\n" + lines(30, 6) + "two\n" + lines(5, 36));
  agent.write("b.txt", lines(10) + lines(25, 16));
  agent.write("c/deep.txt", lines(40) + "end\n");
  await until("three files wait", async () => (await w.badge()) === "3");
  const at = async () => {
    const tab = await w.page.locator(".tabs-container .tab.active").getAttribute("data-resource-name");
    const line = await w.page.locator('.statusbar-item[id="status.editor.selection"]').innerText();
    return `${tab} ${/Ln (\d+)/.exec(line)?.[1]}`;
  };
  const places = ["a.txt 6", "a.txt 37", "b.txt 11", "deep.txt 41", "a.txt 6"];
  for (const place of places) {
    await w.page.keyboard.press("Alt+F5");
    await until(`the cursor is at ${place}`, async () => (await at()) === place, 10);
  }
  for (const place of places.toReversed().slice(1)) {
    await w.page.keyboard.press("Shift+Alt+F5");
    await until(`the cursor is back at ${place}`, async () => (await at()) === place, 10);
  }
  // VS Code asks for no lenses while an editor is without the keyboard, and forgets that it was about to.
  await until("the lenses are drawn", async () => (await w.lenses()).length > 0);
  await w.openExplorer();
  await until(
    "the Explorer has badges",
    async () =>
      (await w.page
        .locator('.explorer-folders-view .monaco-list-row[aria-label^="a.txt"] .monaco-icon-label')
        .first()
        .evaluate((label) => getComputedStyle(label, "::after").content)) === '"2"',
  );
  await shot(w, "explorer");
  await w.openView();
  await w.command("s0 sync: Review All");
  await until(
    "the multi-diff editor shows three files",
    async () =>
      (await w.page.locator(".multiDiffEntry").count()) >= 2 &&
      (await w.tab("").count()) >= 0 &&
      (await w.page.locator(".tabs-container .tab.active").innerText()).includes("3 files"),
  );
  await until("with both sides", async () => (await w.page.locator(".multiDiffEntry .view-lines").count()) >= 4);
  await shot(w, "review-all");
  await w.command("s0 sync: Keep All");
  await until("nothing waits", async () => (await w.badge()) === "");
}

export async function ten_files_in_a_burst_are_one_update({ bench, open }) {
  bench.write("main.py", "x\n");
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await until("the agent has the file", () => agent.read("main.py") === "x\n");
  await w.page.evaluate(() => {
    globalThis.badges = [];
    new MutationObserver(() => {
      const text =
        document.querySelector('.activitybar .action-item:has(a[aria-label^="s0 sync"]) .badge-content')?.textContent ??
        "";
      if (text !== "" && globalThis.badges.at(-1) !== text) globalThis.badges.push(text);
    }).observe(document.querySelector(".activitybar"), { subtree: true, childList: true, characterData: true });
  });
  for (let i = 0; i < 10; i += 1) agent.write(`burst-${i}.txt`, `burst ${i}\n`);
  await until("ten files wait", async () => (await w.badge()) === "10");
  const badges = await w.page.evaluate(() => globalThis.badges);
  console.log(`      the badge went through ${badges.join(", ")}`);
  check(badges.length === 1, `ten files gave ${badges.length} updates: ${badges.join(", ")}`);
  check((await w.toasts()).length === 0, "a burst needs no notification");
}

export async function a_restart_keeps_what_was_reviewed({ bench, open }) {
  bench.write("main.py", lines(20));
  const w = await open();
  await w.attach();
  const agent = bench.agent();
  await until("the agent has the file", () => agent.read("main.py") === lines(20));
  await w.openFile("main.py");
  agent.write("main.py", "first\n" + lines(20) + "last\n");
  await until("two hunks are marked", async () => (await w.lenses()).length === 2, 10);
  await w.lens("Keep", 0);
  await until("one hunk is left", async () => (await w.lenses()).length === 1, 10);
  const settled = async () => {
    const shown = (await w.lenses()).length === 1 && (await w.badge()) === "1";
    return shown && /Reviewed\s*1/.test((await w.rows()).join(" "));
  };
  await until("one is reviewed and one waits", settled);
  const before = bench.processOf("s0-sync-lsp", "--stdio");
  await w.command("s0 sync: Restart Server");
  const after = await until("another server runs", () => {
    const pid = bench.processOf("s0-sync-lsp", "--stdio");
    return pid !== before && pid;
  });
  await until("after the restart it is the same", settled);
  // Killed rather than asked.
  process.kill(after, "SIGKILL");
  await until("another server runs", () => {
    const pid = bench.processOf("s0-sync-lsp", "--stdio");
    return pid !== undefined && pid !== after;
  });
  await until("after the kill it is the same", settled);
  await w.lens("Revert", 0);
  await until(
    "both sides follow",
    () => bench.read("main.py") === "first\n" + lines(20) && agent.read("main.py") === "first\n" + lines(20),
  );
}
