import assert from "node:assert/strict";
import test from "node:test";
import {
  HunkStore,
  around,
  choiceOf,
  hunkAt,
  neighbour,
  shifted,
  shownHunk,
  shownLine,
  type Change,
} from "../src/hunks.js";
import type { Hunk } from "../src/protocol.js";

const actor = { id: "sb", label: "sb" };

function hunk(start: number, end: number, id = `${start}`): Hunk {
  const kind = start === end ? "deleted" : "added";
  return {
    id,
    kind,
    start,
    end,
    before: [],
    authors: [{ start, end, actor, time: 0 }],
    actors: [actor],
    time: 0,
  };
}

function change(
  startLine: number,
  startCharacter: number,
  endLine: number,
  endCharacter: number,
  text: string,
): Change {
  return { startLine, startCharacter, endLine, endCharacter, text };
}

const lines = (hunks: Hunk[]) => hunks.map(({ start, end }) => [start, end]);

const MOVES: [what: string, before: [number, number], change: Change, after: [number, number]][] = [
  ["typing within the hunk moves nothing", [3, 5], change(3, 2, 3, 2, "x"), [3, 5]],
  ["a line above moves it down", [3, 5], change(0, 0, 0, 0, "x\n"), [4, 6]],
  ["a line directly above moves it down", [3, 5], change(3, 0, 3, 0, "x\n"), [4, 6]],
  ["Enter at the end of the line above moves it down", [3, 5], change(2, 4, 2, 4, "\n"), [4, 6]],
  ["a line within makes it longer", [3, 5], change(4, 0, 4, 0, "x\n"), [3, 6]],
  ["a line directly behind is not in it", [3, 5], change(5, 0, 5, 0, "x\n"), [3, 5]],
  ["a line below moves nothing", [3, 5], change(7, 0, 7, 0, "x\n"), [3, 5]],
  ["lines above that go move it up", [3, 5], change(0, 0, 2, 0, ""), [1, 3]],
  ["its first line goes", [3, 5], change(3, 0, 4, 0, ""), [3, 4]],
  ["all its lines go", [3, 5], change(3, 0, 5, 0, ""), [3, 3]],
  ["a replacement over its start", [3, 5], change(1, 0, 4, 0, "x\n"), [2, 3]],
  ["a deletion moves as a whole", [3, 3], change(3, 0, 3, 0, "x\n"), [4, 4]],
];

for (const [what, [start, end], edit, after] of MOVES) {
  test(`hunks move: ${what}`, () => {
    assert.deepEqual(lines(shifted([hunk(start, end)], [edit])), [after]);
  });
}

test("hunks of an older text are carried over the edits since", () => {
  const store = new HunkStore();
  const file = (documentVersion: number, hunks: Hunk[]) => ({
    uri: "u",
    documentVersion,
    version: "1",
    hunks,
  });
  store.received(file(1, [hunk(3, 5)]));
  store.edited("u", 2, [change(0, 0, 0, 0, "a\n")]);
  store.edited("u", 3, [change(0, 0, 0, 0, "b\n")]);
  assert.deepEqual(lines(store.get("u")?.hunks ?? []), [[5, 7]]);
  // The server had seen the first edit when it wrote, and not the second.
  store.received(file(2, [hunk(4, 6), hunk(9, 10)]));
  assert.deepEqual(lines(store.get("u")?.hunks ?? []), [
    [5, 7],
    [10, 11],
  ]);
  store.received(file(3, [hunk(5, 7)]));
  assert.deepEqual(lines(store.get("u")?.hunks ?? []), [[5, 7]]);
});

test("edits before the first message count too", () => {
  const store = new HunkStore();
  store.edited("u", 2, [change(0, 0, 0, 0, "a\n")]);
  store.received({ uri: "u", documentVersion: 1, version: "1", hunks: [hunk(3, 5)] });
  assert.deepEqual(lines(store.get("u")?.hunks ?? []), [[4, 6]]);
  store.closed("u");
  assert.equal(store.get("u"), undefined);
});

test("the hunk at a line, a deletion at the end included", () => {
  const hunks = [hunk(2, 4), hunk(7, 7), hunk(10, 10)];
  assert.equal(hunkAt(hunks, 3, 10)?.id, "2");
  assert.equal(hunkAt(hunks, 4, 10), undefined);
  assert.equal(hunkAt(hunks, 7, 10)?.id, "7");
  assert.equal(hunkAt(hunks, 9, 10)?.id, "10");
  assert.equal(shownLine(hunk(0, 0), 0), 0);
});

test("neighbours, and the round through files", () => {
  const hunks = [hunk(8, 9), hunk(2, 4)];
  assert.equal(neighbour(hunks, 2, true)?.id, "8");
  assert.equal(neighbour(hunks, 8, false)?.id, "2");
  assert.equal(neighbour(hunks, 8, true), undefined);
  const is = (one: string) => one === "b";
  assert.deepEqual(around(["a", "b", "c"], is, true), ["c", "a", "b"]);
  assert.deepEqual(around(["a", "b", "c"], is, false), ["a", "c", "b"]);
  assert.deepEqual(around(["a", "c"], is, false), ["c", "a"]);
});

test("a hunk that was shown is known again under another id, if it is still there once", () => {
  const texts = (text: string) => (start: number, end: number) =>
    text.split("\n").slice(start, end).join("\n");
  const file = (version: string, hunks: Hunk[]) => ({ uri: "u", documentVersion: 1, version, hunks });
  const before = file("1", [hunk(0, 1, "1-0"), hunk(3, 4, "1-1")]);
  const shown = shownHunk(before, hunk(3, 4, "1-1"), texts("a\n-\n-\nb\n"));
  const choose = (hunks: Hunk[], text: string) => choiceOf(shown, file("2", hunks), texts(text));
  // The first was kept, and a line above went.
  assert.deepEqual(choose([hunk(2, 3, "2-0")], "a\n-\nb\n"), { uri: "u", hunk: "2-0", version: "2" });
  // Its text is another one, or there are two: the server is asked for what was shown, and refuses.
  const old = { uri: "u", hunk: "1-1", version: "1" };
  assert.deepEqual(choose([hunk(2, 3, "2-0")], "a\n-\nc\n"), old);
  assert.deepEqual(choose([hunk(0, 1, "2-0"), hunk(2, 3, "2-1")], "b\n-\nb\n"), old);
});
