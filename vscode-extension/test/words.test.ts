import assert from "node:assert/strict";
import test from "node:test";
import { beside, serverAddress } from "../src/content.js";
import { contentUri, type Conflict, type FolderState, type Item } from "../src/protocol.js";
import { rows, type Row } from "../src/rows.js";
import { Episodes, age, haltWhy, status, waiting } from "../src/words.js";

const NOW = 1_700_000_000_000;
const agent = { id: "sandbox:one", label: "one" };
const other = { id: "sandbox:two", label: "two" };

function state(more: Partial<FolderState> = {}): FolderState {
  const none = { conflicts: [], held: [], incoming: [], reviewed: [], problems: [] };
  return { folder: "file:///w", condition: "in_sync", ...none, ...more };
}

function item(path: string, actors = [agent]): Item {
  return {
    path,
    uri: `file:///w/${path}`,
    kind: "changed",
    actors,
    hunks: 2,
    added: 3,
    removed: 1,
    time: NOW,
  };
}

function conflict(path: string, status: Conflict["status"] = "open"): Conflict {
  const ways: Conflict["ways"] = ["keep_mine", "take_theirs"];
  return {
    path,
    uri: `file:///w/${path}`,
    reason: "concurrent_update",
    message: "m",
    status,
    time: NOW,
    ways,
  };
}

const labels = (list: Row[] = []) => list.map((row) => row.label);

test("ages", () => {
  const ages = [0, 9, 45, 61, 3_700, 90_000, -5].map((seconds) => age(NOW - seconds * 1000, NOW));
  assert.deepEqual(ages, ["just now", "just now", "45 s ago", "1 min ago", "1 h ago", "1 d ago", "just now"]);
});

test("the status bar says the worst of all folders, and what waits", () => {
  assert.match(status([state({ condition: "detached" })]).lines[0] ?? "", /not attached/);
  assert.equal(status([state()]).text, "$(check) s0");
  const busy = state({ condition: "syncing", pending: { uploads: 3, downloads: 0 } });
  assert.equal(status([state(), busy]).text, "$(sync~spin) s0 ↑3");
  const blocked = status([
    state({ condition: "blocked", conflicts: [conflict("a")], incoming: [item("b")] }),
  ]);
  assert.equal(blocked.severity, "warning");
  assert.match(blocked.text, /\$\(warning\) 1 {2}\$\(sparkle\) 1$/);
  assert.equal(status([state({ condition: "halted", message: "root gone" })]).severity, "error");
  assert.equal(status([state({ conflicts: [conflict("a", "ignored")] })]).severity, "none");
});

test("the badge counts each path once", () => {
  assert.equal(
    waiting([
      state({ incoming: [item("a"), item("b")], conflicts: [conflict("a"), conflict("c", "ignored")] }),
    ]),
    2,
  );
});

test("the rows of one folder are its groups, and agents have theirs", () => {
  const all = rows([state({ incoming: [item("a/x.py", [agent, other]), item("y.py")] })], new Map(), NOW);
  assert.deepEqual(labels(all), ["Conflicts", "Incoming", "Reviewed", "Workspace"]);
  const agents = all[1]?.children ?? [];
  assert.deepEqual(labels(agents), ["one", "two"]);
  assert.deepEqual(labels(agents[0]?.children), ["x.py", "y.py"]);
  assert.deepEqual(labels(agents[1]?.children), ["x.py"]);
  const ids = [agents[0]?.children?.[0]?.id, agents[1]?.children?.[0]?.id];
  assert.notEqual(ids[0], ids[1]);
});

test("what is not attached has no rows, and two folders have a row each", () => {
  const second = state({ folder: "file:///v%20w" });
  assert.deepEqual(rows([state({ condition: "detached" })], new Map(), NOW), []);
  assert.deepEqual(labels(rows([state(), second], new Map(), NOW)), ["w", "v w"]);
});

test("a conflict's row says its ways, which its menu is made of", () => {
  const [group] = rows([state({ conflicts: [conflict("a")] })], new Map(), NOW);
  assert.equal(group?.children?.[0]?.context, "conflict keep_mine take_theirs");
});

test("an address survives VS Code's decoding", () => {
  for (const folder of ["file:///w", "file:///with%20space/%C3%BC", "file:///a%26b%3Dc"]) {
    for (const path of ["a.txt", "ü/a b#c?.txt", "100%.txt", "a&path=b"]) {
      const address = contentUri(folder, path, "at:17");
      // What VS Code makes of it: the parts, decoded once.
      const [, pathPart = "", queryPart = ""] = /^s0-sync:([^?]*)\?(.*)$/.exec(address) ?? [];
      const parts = { path: decodeURIComponent(pathPart), query: decodeURIComponent(queryPart) };
      assert.equal(serverAddress(parts.path, parts.query), address);
      const moved = beside("/home/me/file", parts.path, parts.query);
      assert.equal(serverAddress(moved.path, moved.query), address);
    }
  }
  assert.equal(serverAddress("/a", "version=base"), undefined);
});

test("each blocked episode and each halt is said once", () => {
  const episodes = new Episodes();
  const blocked = state({ condition: "blocked", conflicts: [conflict("a")] });
  const said = [
    blocked,
    blocked,
    state({ condition: "syncing" }),
    blocked,
    state({ condition: "halted" }),
    state(),
    blocked,
  ];
  const begun = said.map((one) => episodes.begun(one));
  assert.deepEqual(begun, ["blocked", undefined, undefined, undefined, "halted", undefined, "blocked"]);
});

test("a halt is told without the commands of a terminal", () => {
  const why = (message: string) => haltWhy(state({ condition: "halted", message }));
  assert.equal(
    why("the disk is full; nothing is lost. Make room and run `s0 sync resume`"),
    "the disk is full; nothing is lost.",
  );
  assert.equal(why("run `s0 sync resume`"), "run `s0 sync resume`");
  assert.equal(why("another host has taken over"), "another host has taken over");
});
