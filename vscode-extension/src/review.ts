// The commands of the review: Keep, Revert, Compare, and going from hunk to hunk.

import * as vscode from "vscode";
import { type Command, confirm, pickFolder } from "./commands.js";
import { beside } from "./content.js";
import type { Ctx } from "./ctx.js";
import { linesOf } from "./documents.js";
import { type ShownHunk, around, choiceOf, hunkAt, neighbour, shownLine } from "./hunks.js";
import { type Choice, type Chosen, type Hunk, type Item, contentUri } from "./protocol.js";
import type { Row } from "./rows.js";
import { count } from "./words.js";

type Verb = "keep" | "revert";

/** How long the server is waited for to say what follows from a request. */
const SERVER_ANSWERS_MS = 2000;

export function reviewCommands(ctx: Ctx): Record<string, Command> {
  return {
    keep: (argument, all) => settle(ctx, "keep", argument, all),
    revert: (argument, all) => settle(ctx, "revert", argument, all),
    keepFile: () => carryOut(ctx, "keep", [fileChoice(ctx, activeEditor().document)]),
    revertFile: () => carryOut(ctx, "revert", [fileChoice(ctx, activeEditor().document)]),
    keepAll: (argument) => settleAll(ctx, "keep", argument),
    revertAll: (argument) => settleAll(ctx, "revert", argument),
    compare: (argument) => compare(ctx, argument),
    open: (argument) => open(ctx, argument),
    reviewAll: (argument) => reviewAll(ctx, argument),
    nextHunk: () => go(ctx, true),
    previousHunk: () => go(ctx, false),
  };
}

/** From a lens, a hover or a code action: a choice. From the view: rows. From the palette: the hunk at the cursor. */
async function settle(ctx: Ctx, verb: Verb, argument: unknown, all: unknown): Promise<void> {
  if (argument === undefined) {
    await carryOut(ctx, verb, [hunkChoice(ctx, activeEditor())]);
  } else if (isRow(argument)) {
    const rows = Array.isArray(all) && all.length > 0 ? (all as Row[]) : [argument];
    const choices = rows.flatMap(choicesOf);
    if (choices.some((choice) => "folder" in choice) && !(await sure(verb, "everything that is chosen")))
      return;
    await carryOut(ctx, verb, choices);
  } else {
    await carryOut(ctx, verb, [asShown(ctx, argument as Choice | ShownHunk)]);
  }
}

async function settleAll(ctx: Ctx, verb: Verb, argument: unknown): Promise<void> {
  const folder = await pickFolder(ctx, argument, (state) => state.incoming.length > 0);
  if (folder === undefined) return;
  const number = ctx.states.get(folder)?.incoming.length ?? 0;
  if (await sure(verb, count(number, "file"))) await carryOut(ctx, verb, [{ folder }]);
}

/** Keeping takes nothing away; reverting much at once is asked about. */
async function sure(verb: Verb, what: string): Promise<boolean> {
  if (verb === "keep") return true;
  const detail = "What agents wrote since your last review is taken back, here and in the Volume.";
  return await confirm(`Revert ${what}?`, detail, "Revert");
}

async function carryOut(ctx: Ctx, verb: Verb, choices: Choice[]): Promise<void> {
  const refused: Chosen["refused"] = [];
  for (const choice of choices) {
    if (verb === "revert" && "hunk" in choice && (await revertUnsaved(ctx, choice))) continue;
    refused.push(...(await ctx.request(`s0-sync/${verb}`, choice)).refused);
  }
  if (refused.length > 0) {
    const first = refused.slice(0, 3).map(({ path, why }) => `${path}: ${why}`);
    throw new Error(
      `${verb === "keep" ? "not kept" : "not reverted"}: ${first.join("; ")}${refused.length > 3 ? "; …" : ""}`,
    );
  }
}

/**
 * A hunk of a document with unsaved text is reverted in that text, where Undo brings it back, and reaches the disk
 * when the user saves. On the disk it could not be reverted without writing under the user.
 */
async function revertUnsaved(ctx: Ctx, choice: { uri: string; hunk: string }): Promise<boolean> {
  const document = vscode.workspace.textDocuments.find((one) => one.uri.toString() === choice.uri);
  if (!document?.isDirty) return false;
  const hunk = ctx.hunks.get(choice.uri)?.hunks.find((one) => one.id === choice.hunk);
  if (!hunk) throw new Error("that hunk is there no longer.");
  const edit = new vscode.WorkspaceEdit();
  const ending = document.eol === vscode.EndOfLine.CRLF ? "\r\n" : "\n";
  const before = hunk.before.map((line) => line + ending).join("");
  if (hunk.end < document.lineCount) {
    edit.replace(document.uri, new vscode.Range(hunk.start, 0, hunk.end, 0), before);
  } else {
    // Up to the end of the text, where the last line has no line end of its own.
    const from = hunk.start > 0 ? document.lineAt(hunk.start - 1).range.end : new vscode.Position(0, 0);
    const text = hunk.before.join(ending);
    const range = new vscode.Range(from, document.lineAt(document.lineCount - 1).range.end);
    edit.replace(document.uri, range, hunk.start > 0 && hunk.before.length > 0 ? ending + text : text);
  }
  if (!(await vscode.workspace.applyEdit(edit))) throw new Error("the document could not be changed.");
  return true;
}

/** What a lens or a link shows goes by what is there now; a choice of a code action is one already. */
function asShown(ctx: Ctx, argument: Choice | ShownHunk): Choice {
  if (!("print" in argument)) return argument;
  const document = vscode.workspace.textDocuments.find((one) => one.uri.toString() === argument.uri);
  return document ? choiceOf(argument, ctx.hunks.get(argument.uri), linesOf(document)) : argument;
}

function choicesOf(row: Row): Choice[] {
  switch (row.subject.is) {
    case "item":
      return [{ uri: row.subject.item.uri }];
    case "actor":
      return [{ folder: row.folder, actor: row.subject.actor.id }];
    case "incoming":
    case "folder":
      return [{ folder: row.folder }];
    default:
      return [];
  }
}

function hunkChoice(ctx: Ctx, editor: vscode.TextEditor): Choice {
  const uri = editor.document.uri.toString();
  const file = ctx.hunks.get(uri);
  const hunk = hunkAt(file?.hunks ?? [], editor.selection.active.line, editor.document.lineCount);
  if (!file || !hunk) throw new Error("there is no hunk of an agent at the cursor.");
  return { uri, hunk: hunk.id, version: file.version };
}

/** With the version that is on the screen, so that what came since is not settled unseen. */
function fileChoice(ctx: Ctx, document: vscode.TextDocument): Choice {
  const uri = document.uri.toString();
  const version = ctx.hunks.get(uri)?.version;
  return version === undefined || version === "" ? { uri } : { uri, version };
}

function activeEditor(): vscode.TextEditor {
  const editor = vscode.window.activeTextEditor;
  if (!editor) throw new Error("no text editor is active.");
  return editor;
}

async function compare(ctx: Ctx, argument: unknown): Promise<void> {
  const uri = uriOf(argument) ?? activeEditor().document.uri.toString();
  const { left, right, title } = await ctx.request("s0-sync/compare", { uri });
  await vscode.commands.executeCommand("vscode.diff", vscode.Uri.parse(left), vscode.Uri.parse(right), title);
}

/** All that is incoming, in one multi-diff editor. */
async function reviewAll(ctx: Ctx, argument: unknown): Promise<void> {
  const folder = await pickFolder(ctx, argument, (state) => state.incoming.length > 0);
  if (folder === undefined) return;
  const actor = isRow(argument) && argument.subject.is === "actor" ? argument.subject.actor.id : undefined;
  const items = (ctx.states.get(folder)?.incoming ?? []).filter(
    (item) => actor === undefined || item.actors.some((one) => one.id === actor),
  );
  if (items.length === 0) throw new Error("there is nothing to review.");
  const resources = items.map((item) => {
    const file = vscode.Uri.parse(item.uri);
    const reviewed = vscode.Uri.parse(contentUri(folder, item.path, "reviewed"));
    return [file, reviewed.with(beside(file.path, reviewed.path, reviewed.query)), file];
  });
  await vscode.commands.executeCommand("vscode.changes", "Incoming", resources);
}

/** Opens a file at its first hunk. */
async function open(ctx: Ctx, argument: unknown): Promise<void> {
  const uri = uriOf(argument);
  if (uri === undefined) return;
  const editor = await vscode.window.showTextDocument(vscode.Uri.parse(uri), { preview: true });
  const first = (await hunksOf(ctx, uri))[0];
  if (first) reveal(editor, shownLine(first, editor.document.lineCount));
}

/** To the next or previous hunk, on into the next or previous file, and around. */
async function go(ctx: Ctx, forwards: boolean): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  const here = editor?.document.uri.toString();
  if (editor && here !== undefined) {
    const line = editor.selection.active.line;
    const hunk = neighbour(ctx.hunks.get(here)?.hunks ?? [], line, forwards);
    if (hunk && shownLine(hunk, editor.document.lineCount) !== line) {
      reveal(editor, shownLine(hunk, editor.document.lineCount));
      return;
    }
  }
  const items = ctx.folders
    .flatMap((state) => state.incoming)
    .filter((item) => item.hunks > 0 && item.kind !== "deleted")
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const item of around(items, (one: Item) => one.uri === here, forwards)) {
    const hunks = await hunksOf(ctx, item.uri);
    const hunk = forwards ? hunks[0] : hunks.at(-1);
    if (!hunk) continue;
    const shown = await vscode.window.showTextDocument(vscode.Uri.parse(item.uri), { preview: true });
    reveal(shown, shownLine(hunk, shown.document.lineCount));
    return;
  }
  throw new Error("there is no hunk to review.");
}

/** Until an event comes that is meant, or the server has had its time. */
export async function heard<T>(event: vscode.Event<T>, isMeant: (value: T) => boolean): Promise<void> {
  await new Promise<void>((resolve) => {
    const listener = event((value) => {
      if (isMeant(value)) done();
    });
    const timer = setTimeout(done, SERVER_ANSWERS_MS);
    function done(): void {
      clearTimeout(timer);
      listener.dispose();
      resolve();
    }
  });
}

/** The hunks of a file; one that is not open yet is opened, unseen, and the server then says what it has. */
async function hunksOf(ctx: Ctx, uri: string): Promise<Hunk[]> {
  const known = ctx.hunks.get(uri)?.hunks ?? [];
  if (known.length > 0) return known;
  const said = heard(ctx.onDidChangeHunks, (changed) => changed === uri);
  await vscode.workspace.openTextDocument(vscode.Uri.parse(uri));
  const asked = (await ctx.request("s0-sync/hunks", { uri })).hunks;
  if (asked.length > 0) return asked;
  await said;
  return ctx.hunks.get(uri)?.hunks ?? [];
}

function reveal(editor: vscode.TextEditor, line: number): void {
  const position = new vscode.Position(line, 0);
  editor.selection = new vscode.Selection(position, position);
  editor.revealRange(
    new vscode.Range(position, position),
    vscode.TextEditorRevealType.InCenterIfOutsideViewport,
  );
}

export function isRow(argument: unknown): argument is Row {
  return typeof argument === "object" && argument !== null && "subject" in argument;
}

/** The file of a row, of an argument of ours, or of what VS Code gives to a command in a menu. */
export function uriOf(argument: unknown): string | undefined {
  if (argument instanceof vscode.Uri) return argument.toString();
  const { uri } = (argument ?? {}) as { uri?: unknown };
  return typeof uri === "string" ? uri : undefined;
}
