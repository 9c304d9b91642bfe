// The only notifications that nobody asked for: once when uploads begin to wait for conflicts, once for each halt.

import * as vscode from "vscode";
import type { Ctx } from "./ctx.js";
import type { FolderState } from "./protocol.js";
import { type Episode, Episodes, count, folderName, haltWhy, openConflicts } from "./words.js";

export function createNotices(ctx: Ctx): vscode.Disposable {
  const episodes = new Episodes();
  return ctx.onDidChangeState(() => {
    for (const state of ctx.folders) {
      const begun = episodes.begun(state);
      if (begun !== undefined) void say(state, begun);
    }
  });
}

async function say(state: FolderState, episode: Episode): Promise<void> {
  const name = folderName(state.folder);
  const argument = { folder: state.folder };
  if (episode === "halted") {
    const goOn = "Go On…";
    const text = `s0 sync has halted in ${name}: ${haltWhy(state)}`;
    const chosen = await vscode.window.showErrorMessage(text, goOn);
    if (chosen === goOn) await vscode.commands.executeCommand("s0-sync.resume", argument);
    return;
  }
  if (!vscode.workspace.getConfiguration("s0-sync").get<boolean>("notifications.blocked", true)) return;
  const show = "Show";
  const settle = "Settle…";
  const number = count(openConflicts([state]).length, "conflict");
  const text = `s0 sync: uploads of ${name} wait for ${number}. Nothing was overwritten.`;
  const chosen = await vscode.window.showWarningMessage(text, show, settle);
  if (chosen === show) await vscode.commands.executeCommand("s0-sync.view.focus");
  if (chosen === settle) await vscode.commands.executeCommand("s0-sync.resolve");
}
