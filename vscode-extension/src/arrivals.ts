// Between a write to the disk and VS Code's own reload of the document some hundred milliseconds may pass. In them the
// lines that are about to change are marked, so that the user sees at once where an agent is writing.
//
// The document is not touched: how VS Code reloads it, and that it never reloads unsaved text, stays its own affair.

import { readFile, stat } from "node:fs/promises";
import * as vscode from "vscode";
import { arriving } from "./arriving.js";
import type { Ctx } from "./ctx.js";

/** A larger file is not read for what is seen for a moment only. */
const LARGEST = 1024 * 1024;

const STYLE: vscode.DecorationRenderOptions = {
  isWholeLine: true,
  borderColor: new vscode.ThemeColor("s0Sync.incomingForeground"),
  borderStyle: "dashed",
  overviewRulerColor: new vscode.ThemeColor("s0Sync.incomingForeground"),
  overviewRulerLane: vscode.OverviewRulerLane.Left,
};

type Place = "changes" | "before" | "after";

export function createArrivals(ctx: Ctx): vscode.Disposable {
  const type = (borderWidth: string) =>
    vscode.window.createTextEditorDecorationType({ ...STYLE, borderWidth });
  const types: Record<Place, vscode.TextEditorDecorationType> = {
    changes: type("0 0 0 3px"),
    before: type("2px 0 0 0"),
    after: type("0 0 2px 0"),
  };
  /** The documents with marks, by their addresses. */
  const marked = new Set<string>();

  const draw = (document: vscode.TextDocument, places: Record<Place, vscode.Range[]>) => {
    for (const editor of vscode.window.visibleTextEditors) {
      if (editor.document !== document) continue;
      for (const place of Object.keys(types) as Place[]) editor.setDecorations(types[place], places[place]);
    }
  };
  const clear = (document: vscode.TextDocument) => {
    if (marked.delete(document.uri.toString())) draw(document, { changes: [], before: [], after: [] });
  };
  const mark = async (uri: vscode.Uri) => {
    const document = vscode.window.visibleTextEditors.find(
      (editor) => editor.document.uri.toString() === uri.toString(),
    )?.document;
    if (!document || !isWanted(document)) return;
    const { version } = document;
    const text = await textOf(uri);
    // Was it reloaded meanwhile, or did the user type, then there is nothing to announce.
    if (text === undefined || document.version !== version || document.isDirty) return;
    const places: Record<Place, vscode.Range[]> = { changes: [], before: [], after: [] };
    for (const { start, end } of arriving(linesOf(document.getText()), linesOf(text))) {
      const place = end > start ? "changes" : start < document.lineCount ? "before" : "after";
      const first = Math.min(start, document.lineCount - 1);
      places[place].push(new vscode.Range(first, 0, Math.max(first, end - 1), 0));
    }
    marked.add(uri.toString());
    draw(document, places);
  };

  return vscode.Disposable.from(
    ...Object.values(types),
    ctx.onDidApply((items) => {
      for (const { uri, removed } of items) {
        if (removed) continue;
        mark(vscode.Uri.parse(uri)).catch((error: unknown) => {
          ctx.log.warn(`what arrives in ${uri} could not be marked: ${String(error)}`);
        });
      }
    }),
    vscode.workspace.onDidChangeTextDocument((event) => {
      if (event.contentChanges.length > 0) clear(event.document);
    }),
    vscode.workspace.onDidCloseTextDocument(clear),
  );
}

function isWanted(document: vscode.TextDocument): boolean {
  const settings = vscode.workspace.getConfiguration("s0-sync", document);
  return !document.isDirty && settings.get<boolean>("review.decorations", true);
}

/** The text of a file; nothing where it is none, or cannot be read. */
async function textOf(uri: vscode.Uri): Promise<string | undefined> {
  try {
    if ((await stat(uri.fsPath)).size > LARGEST) return undefined;
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(uri.fsPath));
  } catch {
    return undefined;
  }
}

function linesOf(text: string): string[] {
  return text.split(/\r\n|\r|\n/);
}
