// What is said to people, in one place. No `vscode` here: tested by `node --test`.

import type {
  Condition,
  Conflict,
  FolderState,
  Held,
  HeldWay,
  Hunk,
  Item,
  Reviewed,
  Way,
} from "./protocol.js";

export function age(time: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - time) / 1000));
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

export function actors(list: { label: string }[]): string {
  return [...new Set(list.map((actor) => actor.label))].join(", ");
}

export const CONDITIONS: Record<Condition, string> = {
  detached: "not attached",
  stopped: "paused",
  starting: "starting",
  in_sync: "in sync",
  syncing: "syncing",
  blocked: "waiting for you",
  offline: "offline",
  halted: "halted",
};

/** The ways out of a conflict, in the order in which they are offered. */
export const WAYS: Record<Way, { title: string; detail: string }> = {
  take_theirs: { title: "Take Theirs", detail: "The other side's version replaces yours" },
  keep_mine: { title: "Keep Mine", detail: "Your version replaces the other side's" },
  keep_both: {
    title: "Keep Both",
    detail: "Yours moves aside under another name, and the other side's comes",
  },
  merge: {
    title: "Merge",
    detail: "Joins both; where both changed the same lines, markers are left for you",
  },
  rename: { title: "Rename…", detail: "Gives yours a name that is free everywhere" },
  mark: {
    title: "Keep the File as It Is Now",
    detail: "You have repaired it; as it stands is what shall be",
  },
  ignore: {
    title: "Leave Both Sides as They Are",
    detail: "The conflict is not settled, and holds nothing back",
  },
};

/** The ways out of a held write. */
export function heldWay(way: HeldWay, held: Pick<Held, "why">): { title: string; detail: string } {
  switch (way) {
    case "take":
      return held.why === "guarded"
        ? { title: "Allow", detail: "Lets it in: it may run on this machine" }
        : { title: "Take Theirs", detail: "It comes; your unsaved text can be had back with Undo" };
    case "discard":
      return { title: "Keep Mine", detail: "What is here stays, and goes to the Volume" };
    case "keep_both":
      return { title: "Keep Both", detail: "What is here stays, the incoming one is put beside it" };
  }
}

export function heldWhy(held: Held): string {
  const does = held.kind === "remove" ? "removes it" : "wrote it";
  const who = held.actor ?? "The other side";
  if (held.written) return `${who} wrote the file just before you typed; saving writes over that`;
  return held.why === "unsaved"
    ? `${who} ${does}, and you have unsaved changes`
    : `${who} ${does}; it would run on this machine`;
}

/** `+3 −1`, or what else happened to a path. */
export function extent(item: Item): string {
  switch (item.kind) {
    case "deleted":
      return "deleted";
    case "mode":
      return "mode changed";
    case "whole":
      return "changed as a whole";
    case "renamed":
      return item.hunks > 0 ? `renamed, +${item.added} −${item.removed}` : "renamed";
    case "created":
    case "changed":
      return `+${item.added} −${item.removed}`;
  }
}

export function hunkTitle(hunk: Hunk, now: number): string {
  const lines = count(hunk.before.length, "line");
  const what =
    hunk.kind === "deleted" ? ` deleted ${lines}` : hunk.kind === "changed" ? ` changed ${lines}` : "";
  return `${actors(hunk.actors)}${what}, ${age(hunk.time, now)}`;
}

export interface Status {
  text: string;
  severity: "none" | "warning" | "error";
  /** Each line of the tooltip; Markdown. */
  lines: string[];
}

/** Why a folder has halted, without the commands of a terminal: here they are buttons. */
export function haltWhy(state: FolderState): string {
  const sentences = (state.message ?? "").split(/(?<=\.)\s+/);
  const without = sentences.filter((sentence) => !sentence.includes("`s0 "));
  return without.length > 0 ? without.join(" ") : (state.message ?? "");
}

/** The one line of the status bar, for all folders of the window together. */
export function status(states: FolderState[]): Status {
  const attached = states.filter((state) => state.condition !== "detached");
  const worst = [...attached].sort((a, b) => gravity(b.condition) - gravity(a.condition))[0];
  if (!worst) {
    return {
      text: "$(circle-slash) s0",
      severity: "none",
      lines: ["This folder is not attached to a Volume."],
    };
  }
  const conflicts = openConflicts(attached).length;
  const held = attached.flatMap((state) => state.held).length;
  const incoming = attached.flatMap((state) => state.incoming).length;
  const waiting = [
    conflicts > 0 ? `$(warning) ${conflicts}` : "",
    held > 0 ? `$(inbox) ${held}` : "",
    incoming > 0 ? `$(sparkle) ${incoming}` : "",
  ].filter((part) => part !== "");
  return {
    text: [`${ICONS[worst.condition]} s0${suffix(worst)}`, ...waiting].join("  "),
    severity: worst.condition === "halted" ? "error" : conflicts > 0 ? "warning" : "none",
    lines: attached.flatMap((state) => statusLines(state, attached.length > 1)),
  };
}

function statusLines(state: FolderState, named: boolean): string[] {
  const name = named ? `**${folderName(state.folder)}**: ` : "";
  const conflicts = openConflicts([state]).length;
  const pending = state.pending ?? { uploads: 0, downloads: 0 };
  const lines = [
    `${name}${CONDITIONS[state.condition]}${state.message === undefined ? "" : ` – ${state.message}`}`,
    conflicts > 0 ? `${count(conflicts, "conflict")} to settle` : "",
    state.held.length > 0 ? `${count(state.held.length, "incoming write")} held for you` : "",
    state.incoming.length > 0 ? `${count(state.incoming.length, "file")} written by agents, to review` : "",
    pending.uploads + pending.downloads > 0
      ? `${pending.uploads} going up, ${pending.downloads} coming down`
      : "",
    state.problems.length > 0 ? count(state.problems.length, "problem") : "",
    state.volume === undefined ? "" : `Volume \`${state.volume}\``,
  ];
  return lines.filter((line) => line !== "");
}

const ICONS: Record<Condition, string> = {
  detached: "$(circle-slash)",
  stopped: "$(debug-pause)",
  starting: "$(loading~spin)",
  in_sync: "$(check)",
  syncing: "$(sync~spin)",
  blocked: "$(sync-ignored)",
  offline: "$(debug-disconnect)",
  halted: "$(error)",
};

function suffix(state: FolderState): string {
  switch (state.condition) {
    case "syncing": {
      const { uploads, downloads } = state.pending ?? { uploads: 0, downloads: 0 };
      return `${uploads > 0 ? ` ↑${uploads}` : ""}${downloads > 0 ? ` ↓${downloads}` : ""}`;
    }
    case "offline":
    case "halted":
    case "starting":
    case "stopped":
      return ` ${CONDITIONS[state.condition]}`;
    case "blocked":
    case "detached":
    case "in_sync":
      return "";
  }
}

const GRAVITY: Condition[] = [
  "detached",
  "in_sync",
  "syncing",
  "starting",
  "stopped",
  "offline",
  "blocked",
  "halted",
];

function gravity(condition: Condition): number {
  return GRAVITY.indexOf(condition);
}

export function openConflicts(states: FolderState[]): Conflict[] {
  return states.flatMap((state) => state.conflicts.filter((conflict) => conflict.status === "open"));
}

/** How many paths wait for the user: the badge of the view. */
export function waiting(states: FolderState[]): number {
  const uris = states.flatMap((state) => [
    ...openConflicts([state]).map((one) => one.uri),
    ...state.held.map((one) => one.uri),
    ...state.incoming.map((one) => one.uri),
  ]);
  return new Set(uris).size;
}

export function folderName(folder: string): string {
  return decodeURIComponent(folder.replace(/\/+$/, "").split("/").pop() ?? folder);
}

export function baseName(path: string): string {
  return path.split("/").pop() ?? path;
}

export function directoryName(path: string): string {
  return path.split("/").slice(0, -1).join("/");
}

export function reviewedWhat(reviewed: Reviewed, now: number): string {
  return `written by ${actors(reviewed.actors)}, ${age(reviewed.time, now)}`;
}

export type Episode = "blocked" | "halted";

/** When something begins to be in the way. It is one episode until the folder is well again, or nobody works on it. */
export class Episodes {
  readonly #running = new Map<string, Episode>();

  /** What begins with this state of a folder. */
  begun(state: FolderState): Episode | undefined {
    const now = inTheWay(state);
    if (now !== undefined) {
      if (this.#running.get(state.folder) === now) return undefined;
      this.#running.set(state.folder, now);
      return now;
    }
    // Between two conflicts a folder may seem to be well for a moment.
    if (state.condition !== "syncing" && state.condition !== "starting") this.#running.delete(state.folder);
    return undefined;
  }
}

function inTheWay(state: FolderState): Episode | undefined {
  if (state.condition === "halted") return "halted";
  return state.condition === "blocked" && openConflicts([state]).length > 0 ? "blocked" : undefined;
}
