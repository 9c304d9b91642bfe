// Mirrors `protocol.md`, section "JSON-RPC with the editors". A change there is a change here.

export const EXPERIMENTAL = { s0Sync: { version: 1 } };
export const SCHEME = "s0-sync";

export type Condition =
  "detached" | "stopped" | "starting" | "in_sync" | "syncing" | "blocked" | "offline" | "halted";

/** The whole state of a workspace folder. */
export interface FolderState {
  folder: string;
  condition: Condition;
  message?: string;
  root?: string;
  volume?: string;
  replica?: string;
  sandbox?: string;
  server?: string;
  pending?: { uploads: number; downloads: number };
  conflicts: Conflict[];
  held: Held[];
  incoming: Item[];
  reviewed: Reviewed[];
  problems: { path: string; uri: string; why: string }[];
}

export type Way = "keep_mine" | "take_theirs" | "keep_both" | "merge" | "mark" | "ignore" | "rename";
export type HeldWay = "take" | "discard" | "keep_both";
export type Thing =
  { kind: "file"; size: number } | { kind: "directory" } | { kind: "symlink"; target: string };

export interface Conflict {
  path: string;
  uri: string;
  reason: string;
  message: string;
  status: "open" | "ignored";
  base?: Thing;
  mine?: Thing;
  theirs?: Thing;
  other?: string;
  suggestion?: string;
  time: number;
  ways: Way[];
}

/** An incoming write that is not let in yet. */
export interface Held {
  path: string;
  uri: string;
  why: "unsaved" | "guarded";
  /** It came before the unsaved text was known: it is in the file, and saving writes over it. */
  written?: boolean;
  actor?: string;
  kind: "write" | "remove";
  ways: HeldWay[];
}

/** A path that agents wrote and nobody reviewed yet. */
export interface Item {
  path: string;
  uri: string;
  kind: "created" | "changed" | "deleted" | "renamed" | "mode" | "whole";
  from?: string;
  actors: Actor[];
  hunks: number;
  added: number;
  removed: number;
  time: number;
}

export interface Actor {
  id: string;
  label: string;
}

export interface Reviewed {
  path: string;
  uri: string;
  actors: Actor[];
  time: number;
}

export interface FileHunks {
  uri: string;
  documentVersion: number;
  version: string;
  hunks: Hunk[];
}

export interface Hunk {
  id: string;
  kind: "added" | "changed" | "deleted";
  start: number;
  end: number;
  before: string[];
  authors: { start: number; end: number; actor: Actor; time: number }[];
  actors: Actor[];
  time: number;
}

export type Choice =
  | { uri: string; hunk: string; version: string }
  | { uri: string; version?: string }
  | { folder: string; actor?: string };

export interface Chosen {
  done: number;
  refused: { path: string; why: string }[];
}

interface OfFolder {
  folder: string;
}
type Nothing = Record<string, never>;

/** Client to server: method → what it takes and what it answers. */
export interface Requests {
  "s0-sync/state": [Nothing, { folders: FolderState[] }];
  "s0-sync/attach": [
    OfFolder & { volume?: string; initFrom?: "auto" | "volume" | "local" },
    { volume: string },
  ];
  "s0-sync/detach": [OfFolder, Nothing];
  "s0-sync/start": [OfFolder, Nothing];
  "s0-sync/stop": [OfFolder, Nothing];
  "s0-sync/resume": [OfFolder & { confirmDeletions?: boolean }, Nothing];
  "s0-sync/flush": [
    OfFolder & { timeoutMs?: number },
    { done: boolean; unfinished: { path: string; why: string }[] },
  ];
  "s0-sync/volumes": [
    { folder?: string },
    { volumes: { id: string; created: string; attachedHere: string[] }[] },
  ];
  "s0-sync/snapshots": [OfFolder, { snapshots: Snapshot[] }];
  "s0-sync/snapshot": [OfFolder & { name: string }, { id: string }];
  "s0-sync/restore": [OfFolder & { snapshot: string }, Nothing];
  "s0-sync/fork": [OfFolder, { volume: string }];
  "s0-sync/agent": [OfFolder, { directory: string; sandbox: string }];
  "s0-sync/log": [OfFolder, { file: string }];
  "s0-sync/hunks": [{ uri: string }, FileHunks];
  "s0-sync/keep": [Choice, Chosen];
  "s0-sync/revert": [Choice, Chosen];
  "s0-sync/resolve": [
    OfFolder & { paths: string[]; way: Way; name?: string },
    { results: { path: string; overlaps?: number; error?: string }[] },
  ];
  "s0-sync/settleHeld": [OfFolder & { path: string; way: HeldWay }, { beside?: string }];
  "s0-sync/compare": [{ uri: string }, { left: string; right: string; title: string }];
  "s0-sync/content": [{ uri: string }, { text: string }];
}

export interface Snapshot {
  id: string;
  name: string;
  created: string;
}

/** Server to client. */
export interface Notifications {
  "s0-sync/didChangeState": FolderState;
  "s0-sync/didApply": { folder: string; items: { uri: string; removed: boolean; actor?: string }[] };
  "s0-sync/didChangeContent": { uris: string[] };
  "s0-sync/didChangeHunks": FileHunks;
}

/** The address of a text that is not on the disk; see "Documents of the scheme `s0-sync`". */
export function contentUri(folder: string, path: string, version: string): string {
  const encoded = path.split("/").map(encodeURIComponent).join("/");
  return `${SCHEME}:/${encoded}?folder=${encodeURIComponent(folder)}&version=${version}`;
}
