// `src/protocol.ts` mirrors `protocol.md`; what one names, the other names.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const TYPES = ["FolderState", "Conflict", "Held", "Item", "Actor", "Reviewed", "FileHunks", "Hunk"];
const page = readFileSync("../protocol.md", "utf8").split("## JSON-RPC with the editors")[1] ?? "";
const mirror = readFileSync("src/protocol.ts", "utf8");
const context = readFileSync("src/ctx.ts", "utf8");

/** The names of the fields of an interface, those of objects within it too. */
function fields(text: string, name: string): string[] {
  const body = new RegExp(`interface ${name} \\{(.*?)\\n?\\}(?=\\s|$)`, "s").exec(text)?.[1] ?? "";
  const bare = body.replaceAll(/\/\*.*?\*\/|\/\/.*/g, "");
  return [...bare.matchAll(/(\w+)\??:/g)].map((match) => match[1] ?? "").sort();
}

test("the messages are the same", () => {
  const named = (text: string) => [...new Set(text.match(/"s0-sync\/\w+"/g))].sort();
  assert.deepEqual(named(mirror + context), named(page));
});

for (const name of TYPES) {
  test(`the fields of ${name} are the same`, () => {
    assert.notEqual(fields(page, name).length, 0);
    assert.deepEqual(fields(mirror, name), fields(page, name));
  });
}

test("the ways out are the same", () => {
  for (const name of ["Way", "HeldWay"]) {
    const ways = (text: string) =>
      (new RegExp(`type ${name} =([^;]*);`).exec(text)?.[1]?.match(/"\w+"/g) ?? []).sort();
    assert.notEqual(ways(page).length, 0);
    assert.deepEqual(ways(mirror), ways(page));
  }
});
