import assert from "node:assert/strict";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import test from "node:test";
import { SERVER_NAME, findServer } from "../src/server.js";

const places = { setting: "", extension: "/ext", path: ["relative", "/one", "/two"].join(delimiter) };
const only =
  (...files: string[]) =>
  (file: string) =>
    files.includes(file);
const inside = join("/ext", "server", SERVER_NAME);
const onPath = join("/two", SERVER_NAME);

test("the setting comes first, then what is inside, then PATH", () => {
  assert.equal(findServer({ ...places, setting: "/mine" }, only("/mine", inside, onPath)), "/mine");
  assert.equal(findServer(places, only(inside, onPath)), inside);
  assert.equal(findServer(places, only(onPath)), onPath);
});

test("a folder of PATH that is relative is not looked into", () => {
  assert.throws(() => findServer(places, only(join("relative", SERVER_NAME))));
});

test("a setting that leads nowhere is said, and nothing else is taken", () => {
  assert.throws(
    () => findServer({ ...places, setting: "/gone" }, only(inside)),
    /s0-sync\.server\.path.*\/gone/,
  );
  assert.throws(() => findServer({ ...places, setting: "s0-sync-lsp" }, only(inside)), /absolute/);
});

test("a home directory is understood", () => {
  const file = join(homedir(), "bin/x");
  assert.equal(findServer({ ...places, setting: "~/bin/x" }, only(file)), file);
});

test("without any the setting is named", () => {
  assert.throws(() => findServer(places, only()), /s0-sync\.server\.path/);
});
