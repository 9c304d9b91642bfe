// Where VS Code comes in.

import * as vscode from "vscode";
import { createArrivals } from "./arrivals.js";
import { createBadges } from "./badges.js";
import { registerCommands } from "./commands.js";
import { Ctx } from "./ctx.js";
import { createDecorations } from "./decorations.js";
import { createContents, createDirtyWatch } from "./documents.js";
import { createLenses } from "./lenses.js";
import { createNotices } from "./notices.js";
import { createStatus } from "./status.js";
import { createView } from "./tree.js";

let ctx: Ctx | undefined;

export function activate(extension: vscode.ExtensionContext): void {
  const started = new Ctx(extension);
  ctx = started;
  extension.subscriptions.push(
    started,
    registerCommands(started),
    createStatus(started),
    createView(started),
    createNotices(started),
    createDecorations(started),
    createArrivals(started),
    createLenses(started),
    createBadges(started),
    createContents(started),
    createDirtyWatch(started),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("s0-sync.server")) void started.restart();
      else if (event.affectsConfiguration("s0-sync")) started.configure();
    }),
  );
  // Not awaited: the editor need not wait for the server, and whether it runs is shown.
  void started.start();
}

export async function deactivate(): Promise<void> {
  await ctx?.stop();
}
