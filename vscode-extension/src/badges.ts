// Badges in the Explorer and on tabs.

import * as vscode from "vscode";
import type { Ctx } from "./ctx.js";
import type { FolderState } from "./protocol.js";
import { actors, count, extent, heldWhy } from "./words.js";

export function createBadges(ctx: Ctx): vscode.Disposable {
  const changed = new vscode.EventEmitter<vscode.Uri[]>();
  let badges = new Map<string, vscode.FileDecoration>();
  const refresh = () => {
    const before = badges;
    const wanted = vscode.workspace.getConfiguration("s0-sync").get<boolean>("review.badges", true);
    badges = wanted ? badgesOf(ctx.folders) : new Map<string, vscode.FileDecoration>();
    const differs = (uri: string) => before.get(uri)?.tooltip !== badges.get(uri)?.tooltip;
    // Old ones and new ones together, so that a badge that is gone goes.
    const uris = [...new Set([...before.keys(), ...badges.keys()])].filter(differs);
    if (uris.length > 0) changed.fire(uris.map((uri) => vscode.Uri.parse(uri)));
  };
  return vscode.Disposable.from(
    changed,
    vscode.window.registerFileDecorationProvider({
      onDidChangeFileDecorations: changed.event,
      provideFileDecoration: (uri) => badges.get(uri.toString()),
    }),
    ctx.onDidChangeState(refresh),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("s0-sync.review")) refresh();
    }),
  );
}

function badgesOf(states: FolderState[]): Map<string, vscode.FileDecoration> {
  const badges = new Map<string, vscode.FileDecoration>();
  const add = (uri: string, badge: string, tooltip: string, color: string) => {
    const decoration = new vscode.FileDecoration(badge, `s0 sync: ${tooltip}`, new vscode.ThemeColor(color));
    decoration.propagate = true;
    // What VS Code asks for is its own spelling of the address.
    badges.set(vscode.Uri.parse(uri).toString(), decoration);
  };
  // What is more urgent comes later and stays.
  for (const state of states) {
    for (const item of state.incoming) {
      const hunks = item.hunks > 0 ? `, ${count(item.hunks, "hunk")} to review` : "";
      const badge = item.hunks > 0 && item.hunks < 100 ? `${item.hunks}` : "●";
      add(item.uri, badge, `${extent(item)} by ${actors(item.actors)}${hunks}`, "s0Sync.incomingForeground");
    }
    for (const held of state.held) add(held.uri, "…", heldWhy(held), "s0Sync.heldForeground");
    for (const conflict of state.conflicts) {
      if (conflict.status === "open") add(conflict.uri, "!", conflict.message, "s0Sync.conflictForeground");
    }
  }
  return badges;
}
