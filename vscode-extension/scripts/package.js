// Makes a VSIX.
//
//   npm run package -- linux-x64 [--server PATH]   with the server inside, for one kind of machine
//   npm run package -- universal                   without it: the server is then found on the PATH
//
// PATH is the program s0-sync-lsp that was built for that kind of machine; when it is not given, the release build
// of this repository is taken. A server that is missing is an error.

import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { parseArgs } from "node:util";
import { createVSIX, listFiles } from "@vscode/vsce";

const TARGETS = [
  "linux-x64",
  "linux-arm64",
  "alpine-x64",
  "darwin-x64",
  "darwin-arm64",
  "win32-x64",
  "win32-arm64",
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { server: { type: "string" }, out: { type: "string" } },
});
const [target] = positionals;
if (positionals.length !== 1 || (target !== "universal" && !TARGETS.includes(target))) {
  fail(
    `usage: npm run package -- TARGET [--server PATH] [--out FILE]\nTARGET is universal, ${TARGETS.join(", ")}`,
  );
}

process.chdir(new URL("..", import.meta.url).pathname);
const name = target.startsWith("win32") ? "s0-sync-lsp.exe" : "s0-sync-lsp";
// What an earlier run put there is for another machine, perhaps.
rmSync("server", { recursive: true, force: true });
if (target !== "universal") {
  const server = values.server ?? `../target/release/${name}`;
  if (!existsSync(server)) {
    fail(`There is no server at ${server}. Build it (cargo build --release), or name it with --server PATH.`);
  }
  mkdirSync("server");
  copyFileSync(server, `server/${name}`);
  chmodSync(`server/${name}`, 0o755);
}

execFileSync(process.execPath, ["scripts/build.js", "--minify"], { stdio: "inherit" });
const { version } = JSON.parse(readFileSync("package.json", "utf8"));
const packagePath = values.out ?? `s0-sync-${target}-${version}.vsix`;
await createVSIX({
  packagePath,
  ...(target === "universal" ? {} : { target }),
  // All that is needed is in the bundle.
  dependencies: false,
  // Where the repository will be is not known here; the links of the README are those of this tree.
  allowMissingRepository: true,
  rewriteRelativeLinks: false,
});
const inside = await listFiles({ packageManager: 0 });
if (inside.includes(`server/${name}`) !== (target !== "universal")) {
  fail(`${packagePath} has the wrong files: ${inside.join(", ")}`);
}
console.log(
  `${packagePath}: ${inside.length} files, ${target === "universal" ? "without a server" : "with the server"}`,
);

function fail(message) {
  console.error(message);
  process.exit(1);
}
