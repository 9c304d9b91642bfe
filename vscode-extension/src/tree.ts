// The view in the activity bar.

import * as vscode from "vscode";
import type { Ctx } from "./ctx.js";
import { rows, type Row } from "./rows.js";
import { count, waiting } from "./words.js";

/** Ages in the descriptions grow; once a minute is enough. */
const AGES_MS = 60_000;

export function createView(ctx: Ctx): vscode.Disposable {
  const changed = new vscode.EventEmitter<undefined>();
  const provider: vscode.TreeDataProvider<Row> = {
    onDidChangeTreeData: changed.event,
    getChildren(row) {
      if (row?.subject.is === "snapshots" && !ctx.snapshots.has(row.folder)) {
        // Asked for when the user looks; the rows come with the answer.
        ctx.readSnapshots(row.folder).catch((error: unknown) => {
          ctx.log.warn(`snapshots: ${String(error)}`);
        });
      }
      return row ? (row.children ?? []) : rows(ctx.folders, ctx.snapshots, Date.now());
    },
    getTreeItem: treeItem,
  };
  const view = vscode.window.createTreeView("s0-sync.view", {
    treeDataProvider: provider,
    showCollapseAll: true,
    canSelectMany: true,
  });
  const refresh = () => {
    changed.fire(undefined);
    const number = waiting(ctx.folders);
    view.badge =
      number === 0 ? undefined : { value: number, tooltip: `${count(number, "file")} waiting for you` };
  };
  const timer = setInterval(() => {
    if (view.visible) changed.fire(undefined);
  }, AGES_MS);
  refresh();
  return vscode.Disposable.from(view, changed, ctx.onDidChangeState(refresh), {
    dispose: () => {
      clearInterval(timer);
    },
  });
}

function treeItem(row: Row): vscode.TreeItem {
  const states = vscode.TreeItemCollapsibleState;
  // A group that is empty can be expanded too: VS Code keeps a row that once could not be as it was, collapsed.
  const state =
    row.children === undefined ? states.None : row.expanded === true ? states.Expanded : states.Collapsed;
  const item = new vscode.TreeItem(row.label, state);
  item.id = row.id;
  item.contextValue = row.context;
  if (row.description !== undefined) item.description = row.description;
  if (row.tooltip !== undefined) item.tooltip = row.tooltip;
  if (row.uri !== undefined) item.resourceUri = vscode.Uri.parse(row.uri);
  item.iconPath =
    row.icon === undefined
      ? vscode.ThemeIcon.File
      : new vscode.ThemeIcon(
          row.icon,
          row.color === undefined ? undefined : new vscode.ThemeColor(row.color),
        );
  if (row.command !== undefined && row.uri !== undefined) {
    item.command = { command: row.command, title: "Open", arguments: [{ uri: row.uri }] };
  }
  return item;
}
