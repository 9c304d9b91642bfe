// Keep · Revert · Compare above each hunk.

import * as vscode from "vscode";
import type { Ctx } from "./ctx.js";
import { linesOf } from "./documents.js";
import { shownHunk, shownLine } from "./hunks.js";
import { hunkTitle } from "./words.js";

const AGES_MS = 60_000;

export function createLenses(ctx: Ctx): vscode.Disposable {
  const changed = new vscode.EventEmitter<void>();
  const provider: vscode.CodeLensProvider = {
    onDidChangeCodeLenses: changed.event,
    provideCodeLenses(document) {
      if (!vscode.workspace.getConfiguration("s0-sync", document).get<boolean>("review.codeLens", true))
        return [];
      const uri = document.uri.toString();
      const file = ctx.hunks.get(uri);
      if (!file) return [];
      return file.hunks.flatMap((hunk) => {
        const line = shownLine(hunk, document.lineCount);
        const range = new vscode.Range(line, 0, line, 0);
        const lens = (title: string, command: string, tooltip: string, ...args: unknown[]) =>
          new vscode.CodeLens(range, { title, command, tooltip, arguments: args });
        const choice = shownHunk(file, hunk, linesOf(document));
        return [
          lens(`$(hubot)\u00a0 ${hunkTitle(hunk, Date.now())}`, "", ""),
          lens("Keep", "s0-sync.keep", "Counts as reviewed", choice),
          lens("Revert", "s0-sync.revert", "Writes back what was there when it was last reviewed", choice),
          lens("Compare", "s0-sync.compare", "Shows the file beside what was last reviewed", { uri }),
        ];
      });
    },
  };
  const timer = setInterval(() => {
    changed.fire();
  }, AGES_MS);
  return vscode.Disposable.from(
    changed,
    vscode.languages.registerCodeLensProvider({ scheme: "file" }, provider),
    ctx.onDidChangeHunks(() => {
      changed.fire();
    }),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("s0-sync.review")) changed.fire();
    }),
    {
      dispose: () => {
        clearInterval(timer);
      },
    },
  );
}
