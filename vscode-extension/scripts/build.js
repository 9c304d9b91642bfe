// Bundles the extension, or with `--test` each of its tests.

import { readdirSync } from "node:fs";
import { build } from "esbuild";

const common = { bundle: true, platform: "node", target: "node20", logLevel: "warning" };

if (process.argv.includes("--test")) {
  const tests = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: tests.map((name) => `test/${name}`),
    outdir: "out",
    outExtension: { ".js": ".mjs" },
    format: "esm",
    sourcemap: "inline",
  });
} else {
  await build({
    ...common,
    entryPoints: ["src/main.ts"],
    outfile: "dist/main.cjs",
    format: "cjs",
    external: ["vscode"],
    minify: process.argv.includes("--minify"),
    sourcemap: process.argv.includes("--minify") ? false : "linked",
  });
}
