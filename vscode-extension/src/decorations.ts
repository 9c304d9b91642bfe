// What agents wrote, in the text itself: changed lines, the places of deleted ones, who and when on hover.

import * as vscode from "vscode";
import type { Ctx } from "./ctx.js";
import { linesOf } from "./documents.js";
import { shownHunk, shownLine } from "./hunks.js";
import type { FileHunks, Hunk } from "./protocol.js";
import { hunkTitle } from "./words.js";

/** How many of the earlier lines a hover shows. */
const SHOWN_BEFORE = 20;

type Kind = Hunk["kind"] | "deletedAtEnd";

const lines = (
  edge: string,
  background: string | undefined,
  ruler: string,
  border: string,
): vscode.DecorationRenderOptions => ({
  isWholeLine: true,
  ...(background === undefined ? {} : { backgroundColor: new vscode.ThemeColor(background) }),
  borderColor: new vscode.ThemeColor(edge),
  borderStyle: "solid",
  borderWidth: border,
  overviewRulerColor: new vscode.ThemeColor(ruler),
  overviewRulerLane: vscode.OverviewRulerLane.Left,
  rangeBehavior: vscode.DecorationRangeBehavior.ClosedOpen,
});

const STYLES: Record<Kind, vscode.DecorationRenderOptions> = {
  added: lines(
    "editorGutter.addedBackground",
    "diffEditor.insertedLineBackground",
    "editorOverviewRuler.addedForeground",
    "0 0 0 3px",
  ),
  changed: lines(
    "editorGutter.modifiedBackground",
    "diffEditor.insertedLineBackground",
    "editorOverviewRuler.modifiedForeground",
    "0 0 0 3px",
  ),
  deleted: lines(
    "editorGutter.deletedBackground",
    undefined,
    "editorOverviewRuler.deletedForeground",
    "2px 0 0 0",
  ),
  deletedAtEnd: lines(
    "editorGutter.deletedBackground",
    undefined,
    "editorOverviewRuler.deletedForeground",
    "0 0 2px 0",
  ),
};

export function createDecorations(ctx: Ctx): vscode.Disposable {
  const types = Object.fromEntries(
    Object.entries(STYLES).map(([kind, style]) => [
      kind,
      vscode.window.createTextEditorDecorationType(style),
    ]),
  ) as Record<Kind, vscode.TextEditorDecorationType>;

  const draw = (editor: vscode.TextEditor) => {
    const wanted = vscode.workspace
      .getConfiguration("s0-sync", editor.document)
      .get<boolean>("review.decorations", true);
    // An editor without a column is part of a larger one, as in the review of all: there the diff says it already.
    const file =
      wanted && editor.viewColumn !== undefined ? ctx.hunks.get(editor.document.uri.toString()) : undefined;
    // Every kind is set, the empty ones too, so that nothing of before is left.
    const ranges: Record<Kind, vscode.DecorationOptions[]> = {
      added: [],
      changed: [],
      deleted: [],
      deletedAtEnd: [],
    };
    if (file) {
      for (const hunk of file.hunks) {
        const [kind, range] = placed(hunk, editor.document);
        ranges[kind].push({ range, hoverMessage: hover(editor.document, file, hunk) });
      }
    }
    for (const kind of Object.keys(types) as Kind[]) editor.setDecorations(types[kind], ranges[kind]);
  };
  const drawAll = () => {
    vscode.window.visibleTextEditors.forEach(draw);
  };

  drawAll();
  return vscode.Disposable.from(
    ...Object.values(types),
    vscode.window.onDidChangeVisibleTextEditors(drawAll),
    ctx.onDidChangeHunks((uri) => {
      vscode.window.visibleTextEditors
        .filter((editor) => editor.document.uri.toString() === uri)
        .forEach(draw);
    }),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("s0-sync.review")) drawAll();
    }),
  );
}

function placed(hunk: Hunk, document: vscode.TextDocument): [Kind, vscode.Range] {
  const first = shownLine(hunk, document.lineCount);
  if (hunk.kind !== "deleted") {
    const last = Math.max(first, Math.min(hunk.end, document.lineCount) - 1);
    return [hunk.kind, new vscode.Range(first, 0, last, 0)];
  }
  return [
    hunk.start >= document.lineCount ? "deletedAtEnd" : "deleted",
    new vscode.Range(first, 0, first, 0),
  ];
}

function hover(document: vscode.TextDocument, file: FileHunks, hunk: Hunk): vscode.MarkdownString {
  const text = new vscode.MarkdownString("", true);
  const choice = [shownHunk(file, hunk, linesOf(document))];
  const link = (title: string, command: string, args: unknown[]) =>
    `[${title}](command:${command}?${encodeURIComponent(JSON.stringify(args))})`;
  text.appendMarkdown("$(hubot) ");
  text.appendText(hunkTitle(hunk, Date.now()));
  if (hunk.before.length > 0) {
    const before = hunk.before.slice(0, SHOWN_BEFORE).map((line) => `-${line}`);
    if (hunk.before.length > SHOWN_BEFORE) before.push(` … ${hunk.before.length - SHOWN_BEFORE} more`);
    text.appendCodeblock(before.join("\n"), "diff");
  }
  const links = [
    link("Keep", "s0-sync.keep", choice),
    link("Revert", "s0-sync.revert", choice),
    link("Compare", "s0-sync.compare", [{ uri: document.uri.toString() }]),
  ];
  text.appendMarkdown(`\n\n${links.join(" · ")}`);
  text.isTrusted = { enabledCommands: ["s0-sync.keep", "s0-sync.revert", "s0-sync.compare"] };
  return text;
}
