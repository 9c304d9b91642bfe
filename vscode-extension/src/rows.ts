// The rows of the view, from the state of the folders. No `vscode` here: tested by `node --test`.

import type { Actor, Conflict, FolderState, Held, Item, Reviewed, Snapshot } from "./protocol.js";
import {
  CONDITIONS,
  actors,
  age,
  baseName,
  count,
  directoryName,
  extent,
  folderName,
  heldWhy,
  openConflicts,
  reviewedWhat,
} from "./words.js";

/** What a row is about, for the commands that are called at it. */
export type Subject =
  | { is: "folder" }
  | { is: "conflicts" }
  | { is: "conflict"; conflict: Conflict }
  | { is: "held"; held: Held }
  | { is: "incoming" }
  | { is: "actor"; actor: Actor }
  | { is: "item"; item: Item }
  | { is: "reviewed"; reviewed: Reviewed }
  | { is: "snapshots" }
  | { is: "snapshot"; snapshot: Snapshot }
  | { is: "fact"; value?: string };

export interface Row {
  /** Stable over changes, so that VS Code keeps what is expanded and selected. */
  id: string;
  folder: string;
  subject: Subject;
  label: string;
  description?: string;
  tooltip?: string;
  /** A product icon; a row with a `uri` and without an icon has that of its file. */
  icon?: string;
  /** Theme colour of the icon. */
  color?: string;
  uri?: string;
  /** Words that `viewItem` of menus is matched with. */
  context: string;
  command?: "s0-sync.open" | "s0-sync.compare";
  children?: Row[];
  expanded?: boolean;
}

/** The rows of all attached folders; one attached folder needs no row of its own. */
export function rows(states: FolderState[], snapshots: Map<string, Snapshot[]>, now: number): Row[] {
  const attached = states.filter((state) => state.condition !== "detached");
  const of = (state: FolderState) => groups(state, snapshots.get(state.folder), now);
  if (attached.length === 1) return attached.flatMap(of);
  return attached.map((state) => ({
    id: state.folder,
    folder: state.folder,
    subject: { is: "folder" },
    label: folderName(state.folder),
    description: CONDITIONS[state.condition],
    icon: "root-folder",
    context: "folder",
    children: of(state),
    expanded: true,
  }));
}

function groups(state: FolderState, snapshots: Snapshot[] | undefined, now: number): Row[] {
  return [
    conflictsGroup(state, now),
    incomingGroup(state, now),
    reviewedGroup(state, now),
    workspaceGroup(state, snapshots),
  ];
}

function conflictsGroup(state: FolderState, now: number): Row {
  const { folder } = state;
  const open = openConflicts([state]).length;
  return {
    id: `${folder}#conflicts`,
    folder,
    subject: { is: "conflicts" },
    label: "Conflicts",
    description: open > 0 ? `${open}` : "none",
    tooltip: "What you and the other side both changed without having seen each other's change",
    icon: "warning",
    ...(open > 0 ? { color: "list.warningForeground" } : {}),
    context: open > 1 ? "conflicts some" : "conflicts",
    expanded: true,
    children: state.conflicts.map((conflict) => ({
      id: `${folder}#conflicts/${conflict.path}#${conflict.reason}`,
      folder,
      subject: { is: "conflict", conflict },
      ...fileRow(conflict),
      description: joined(
        conflict.status === "ignored" ? "ignored" : "",
        directoryName(conflict.path),
        age(conflict.time, now),
      ),
      tooltip: `${conflict.path}\n${conflict.message}`,
      context: ["conflict", ...conflict.ways].join(" "),
      command: "s0-sync.compare",
    })),
  };
}

function incomingGroup(state: FolderState, now: number): Row {
  const { folder } = state;
  const byActor = new Map<string, { actor: Actor; items: Item[] }>();
  for (const item of state.incoming) {
    for (const actor of item.actors) {
      const of = byActor.get(actor.id) ?? { actor, items: [] };
      byActor.set(actor.id, { actor, items: [...of.items, item] });
    }
  }
  const waiting = state.incoming.length + state.held.length;
  return {
    id: `${folder}#incoming`,
    folder,
    subject: { is: "incoming" },
    label: "Incoming",
    description: waiting > 0 ? `${waiting}` : "nothing to review",
    tooltip: "What agents wrote and nobody reviewed yet",
    icon: "sparkle",
    context: state.incoming.length > 0 ? "incoming some" : "incoming",
    expanded: true,
    children: [
      ...state.held.map((held) => heldRow(folder, held)),
      ...[...byActor.values()].map(({ actor, items }) => actorRow(folder, actor, items, now)),
    ],
  };
}

function heldRow(folder: string, held: Held): Row {
  return {
    id: `${folder}#held/${held.path}`,
    folder,
    subject: { is: "held", held },
    label: baseName(held.path),
    description: joined(
      held.why === "unsaved" ? "held: unsaved changes" : "held: guarded",
      directoryName(held.path),
    ),
    tooltip: `${held.path}\n${heldWhy(held)}`,
    icon: "inbox",
    color: "list.warningForeground",
    uri: held.uri,
    context: ["held", held.why, ...held.ways].join(" "),
    command: "s0-sync.compare",
  };
}

function actorRow(folder: string, actor: Actor, items: Item[], now: number): Row {
  const hunks = items.reduce((sum, item) => sum + item.hunks, 0);
  return {
    id: `${folder}#incoming/${actor.id}`,
    folder,
    subject: { is: "actor", actor },
    label: actor.label,
    description: joined(count(items.length, "file"), hunks > 0 ? count(hunks, "hunk") : ""),
    icon: "hubot",
    context: "actor",
    expanded: true,
    children: items.map((item) => ({
      id: `${folder}#incoming/${actor.id}/${item.path}`,
      folder,
      subject: { is: "item", item },
      ...fileRow(item),
      description: joined(extent(item), directoryName(item.path), age(item.time, now)),
      tooltip: joinedLines(
        item.path,
        item.from === undefined ? "" : `was ${item.from}`,
        `${extent(item)} by ${actors(item.actors)}, ${age(item.time, now)}`,
      ),
      context: `item ${item.kind}`,
      command: item.hunks > 0 ? "s0-sync.open" : "s0-sync.compare",
    })),
  };
}

function reviewedGroup(state: FolderState, now: number): Row {
  const { folder } = state;
  return {
    id: `${folder}#reviewed`,
    folder,
    subject: { is: "fact" },
    label: "Reviewed",
    description: state.reviewed.length > 0 ? `${state.reviewed.length}` : "nothing yet",
    tooltip: "What you kept or reverted, newest first",
    icon: "checklist",
    context: "reviewed-group",
    children: state.reviewed.map((reviewed, index) => ({
      id: `${folder}#reviewed/${reviewed.time}/${index}/${reviewed.path}`,
      folder,
      subject: { is: "reviewed", reviewed },
      label: baseName(reviewed.path),
      description: joined(actors(reviewed.actors), directoryName(reviewed.path), age(reviewed.time, now)),
      tooltip: `${reviewed.path}\n${reviewedWhat(reviewed, now)}`,
      icon: "pass",
      uri: reviewed.uri,
      context: "reviewed",
      command: "s0-sync.open",
    })),
  };
}

function workspaceGroup(state: FolderState, snapshots: Snapshot[] | undefined): Row {
  const { folder } = state;
  const fact = (name: string, value: string | undefined, icon: string, tooltip?: string): Row[] =>
    value === undefined
      ? []
      : [
          {
            id: `${folder}#workspace/${name}`,
            folder,
            subject: { is: "fact", value },
            label: name,
            description: value,
            tooltip: tooltip ?? value,
            icon,
            context: "fact value",
          },
        ];
  const pending = state.pending ?? { uploads: 0, downloads: 0 };
  const moving =
    pending.uploads + pending.downloads > 0 ? `↑${pending.uploads} ↓${pending.downloads}` : undefined;
  return {
    id: `${folder}#workspace`,
    folder,
    subject: { is: "folder" },
    label: "Workspace",
    description: CONDITIONS[state.condition],
    icon: "root-folder",
    context: `workspace ${state.condition}`,
    expanded: true,
    children: [
      ...fact("State", joined(CONDITIONS[state.condition], state.message ?? ""), "pulse", state.message),
      ...fact("On its way", moving, "arrow-swap"),
      ...fact("Volume", state.volume, "database"),
      ...fact("This replica", state.replica, "vm"),
      ...fact("Sandbox", state.sandbox, "hubot"),
      ...fact("Service", state.server, "server"),
      ...problemRows(state),
      {
        id: `${folder}#snapshots`,
        folder,
        subject: { is: "snapshots" },
        label: "Snapshots",
        description: snapshots === undefined ? "" : snapshots.length > 0 ? `${snapshots.length}` : "none yet",
        icon: "history",
        context: "snapshots",
        children: (snapshots ?? []).map((snapshot) => ({
          id: `${folder}#snapshots/${snapshot.id}`,
          folder,
          subject: { is: "snapshot", snapshot },
          label: snapshot.name === "" ? snapshot.id : snapshot.name,
          description: new Date(snapshot.created).toLocaleString(),
          icon: "device-camera",
          context: "snapshot",
        })),
      },
    ],
  };
}

function problemRows(state: FolderState): Row[] {
  return state.problems.map((problem) => ({
    id: `${state.folder}#problems/${problem.path}`,
    folder: state.folder,
    subject: { is: "fact", value: problem.path },
    label: baseName(problem.path),
    description: problem.why,
    tooltip: `${problem.path}\n${problem.why}`,
    icon: "issue-opened",
    color: "list.errorForeground",
    uri: problem.uri,
    context: "fact value",
  }));
}

function fileRow(file: { path: string; uri: string }): Pick<Row, "label" | "uri"> {
  return { label: baseName(file.path), uri: file.uri };
}

function joined(...parts: string[]): string {
  return parts.filter((part) => part !== "").join(" · ");
}

function joinedLines(...parts: string[]): string {
  return parts.filter((part) => part !== "").join("\n");
}
