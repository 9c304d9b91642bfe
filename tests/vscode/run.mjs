// Runs the tests in a real VS Code. `tests/vscode/run` installs the rig first; see README.md.
//
//   node run.mjs [-k WORD] [--keep] [--screens FOLDER] [--list]
//
// The last line is "N passed, N failed".

import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { Bench, S0, SERVER, check, read, startBrowser, startCode } from "./harness.mjs";
import { Workbench } from "./workbench.mjs";

const { values } = parseArgs({
  options: {
    k: { type: "string", short: "k", default: "" },
    keep: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    screens: { type: "string" },
  },
});

const scenarios = fs.readdirSync(import.meta.dirname).filter((name) => /^scenario_.*\.mjs$/.test(name));
const tests = [];
for (const scenario of scenarios.sort()) {
  for (const [name, test] of Object.entries(await import(`./${scenario}`))) {
    if (typeof test === "function" && name.includes(values.k)) tests.push([name, test]);
  }
}
if (values.list) {
  for (const [name] of tests) console.log(name);
  process.exit(0);
}
for (const program of [S0, SERVER]) check(fs.existsSync(program), `there is no ${program}: build it first`);

const browser = await startBrowser();
let passed = 0;
let failed = 0;
// A browser, a workbench and a server share two cores here, and any of them may be late. What fails twice has failed;
// what fails once is told, and is worth a look.
for (const [name, test] of tests) {
  let ok = await run(name, test);
  if (!ok) {
    console.log(`again ${name}`);
    ok = await run(name, test);
  }
  if (ok) passed += 1;
  else failed += 1;
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

/** Runs one test. Says whether it passed. */
async function run(name, test) {
  const started = Date.now();
  const bench = new Bench(name);
  const opened = [];
  const open = async (options) => {
    const workbench = await Workbench.open(browser, await startCode(bench, options), options);
    opened.push(workbench);
    return workbench;
  };
  const shot = async (workbench, picture) => {
    if (!values.screens) return;
    fs.mkdirSync(values.screens, { recursive: true });
    await workbench.screenshot(path.join(values.screens, `${picture}.png`));
  };
  try {
    await test({ bench, open, shot });
    console.log(`ok    ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    return true;
  } catch (error) {
    console.log(`FAIL  ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)\n${error.stack}`);
    const picture = path.join(bench.dir, "..", `s0-sync-vscode-${name}.png`);
    const last = opened.at(-1);
    if (last) {
      await last.screenshot(picture).then(
        () => console.log(`  the screen: ${picture}`),
        () => console.log("  the screen could not be taken"),
      );
      console.log(`  toasts: ${JSON.stringify(await last.toasts().catch(() => []))}`);
    }
    for (const file of logs(bench.dir)) console.log(`  --- ${file}\n${tail(file)}`);
    return false;
  } finally {
    for (const workbench of opened) await workbench.close();
    await bench.close(values.keep);
    if (values.keep) console.log(`      ${bench.dir}`);
  }
}

/** The log of the extension and the server, wherever VS Code put it. */
function logs(dir) {
  const folder = path.join(dir, "user/logs");
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true })
    .filter((file) => file.endsWith("s0 sync.log"))
    .map((file) => path.join(folder, file));
}

function tail(file) {
  return read(file)
    .split("\n")
    .slice(-25)
    .map((line) => `  ${line.slice(0, 300)}`)
    .join("\n");
}
