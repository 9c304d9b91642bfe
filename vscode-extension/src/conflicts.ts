// The commands about conflicts and held writes: every way out, and the three-way merge editor.

import * as vscode from "vscode";
import { type Command, busy, confirm } from "./commands.js";
import type { Ctx } from "./ctx.js";
import { type Conflict, type Held, type HeldWay, type Requests, type Way, contentUri } from "./protocol.js";
import { heard, isRow, uriOf } from "./review.js";
import type { Row } from "./rows.js";
import { WAYS, baseName, count, heldWay, heldWhy, openConflicts } from "./words.js";

interface Found<T> {
  folder: string;
  one: T;
}

export function conflictCommands(ctx: Ctx): Record<string, Command> {
  const way =
    (way: Way): Command =>
    (argument, all) =>
      resolveRows(ctx, way, argument, all);
  const held =
    (way: HeldWay): Command =>
    async (argument) => {
      const found = heldOf(ctx, argument);
      if (found) await settleHeld(ctx, { folder: found.folder, path: found.one.path, way });
    };
  return {
    resolve: (argument) => resolve(ctx, argument),
    takeTheirs: way("take_theirs"),
    keepMine: way("keep_mine"),
    keepBoth: way("keep_both"),
    merge: way("merge"),
    rename: way("rename"),
    mark: way("mark"),
    ignore: way("ignore"),
    mergeEditor: (argument) => mergeEditor(ctx, argument),
    completeMerge: () => vscode.commands.executeCommand("mergeEditor.acceptMerge"),
    settleHeld: (argument) => chooseHeld(ctx, argument),
    heldTake: held("take"),
    // The same way out under the name that it has for a guarded path.
    heldAllow: held("take"),
    heldDiscard: held("discard"),
    heldKeepBoth: held("keep_both"),
  };
}

/** From a code action: the request itself. From elsewhere: pick a conflict, then a way. */
async function resolve(ctx: Ctx, argument: unknown): Promise<void> {
  const request = argument as Partial<Requests["s0-sync/resolve"][0]> | undefined;
  if (request?.folder !== undefined && request.paths && request.way) {
    await carryOut(ctx, request.folder, request.paths, request.way, request.name);
    return;
  }
  const found = conflictOf(ctx, argument) ?? (await pickConflict(ctx));
  if (!found) return;
  const { folder, one } = found;
  const merge = one.ways.includes("merge") && (await hasMergeEditor());
  const picked = await vscode.window.showQuickPick(
    [
      ...(merge
        ? [{ label: "Merge Editor", detail: "Base, theirs and yours side by side", way: undefined }]
        : []),
      ...ordered(one.ways).map((way) => ({ label: WAYS[way].title, detail: WAYS[way].detail, way })),
    ],
    { title: one.path, placeHolder: one.message },
  );
  if (!picked) return;
  if (picked.way === undefined) await mergeEditor(ctx, { uri: one.uri });
  else await carryOut(ctx, folder, [one.path], picked.way);
}

async function resolveRows(ctx: Ctx, way: Way, argument: unknown, all: unknown): Promise<void> {
  if (isRow(argument) && argument.subject.is === "conflicts") {
    const number = openConflicts(ctx.folders.filter((state) => state.folder === argument.folder)).length;
    const { title, detail } = WAYS[way];
    if (await confirm(`${title} for ${count(number, "conflict")}?`, `${detail}.`, title)) {
      await carryOut(ctx, argument.folder, [], way);
    }
    return;
  }
  const rows = Array.isArray(all) && all.length > 0 ? (all as Row[]) : [argument];
  const found = rows.flatMap((row) => conflictOf(ctx, row) ?? []);
  const chosen = found.length > 0 ? found : [await pickConflict(ctx, way)];
  for (const one of chosen) if (one) await carryOut(ctx, one.folder, [one.one.path], way);
}

async function carryOut(ctx: Ctx, folder: string, paths: string[], way: Way, name?: string): Promise<void> {
  const params: Requests["s0-sync/resolve"][0] = { folder, paths, way };
  const conflict = ctx.states.get(folder)?.conflicts.find((one) => one.path === paths[0]);
  if (way === "rename") {
    const root = ctx.states.get(folder)?.root ?? folder;
    // What was offered may have been taken since.
    const offered = name !== undefined && !(await isTaken(root, name)) ? name : undefined;
    const chosen = offered ?? (await askName(root, conflict, paths[0] ?? ""));
    if (chosen === undefined) return;
    params.name = chosen;
  }
  const { results } = await busy(WAYS[way].title, () => ctx.request("s0-sync/resolve", params));
  const failed = results.flatMap(({ path, error }) => (error === undefined ? [] : [`${path}: ${error}`]));
  if (failed.length > 0) throw new Error(failed.join("; "));
  const left = results.find(({ overlaps }) => (overlaps ?? 0) > 0);
  if (left && conflict) {
    // The user asked for a merge, and it is not done: there the rest is to do.
    const editor = await vscode.window.showTextDocument(vscode.Uri.parse(conflict.uri));
    const at = editor.document.getText().search(/^<{7}/m);
    if (at >= 0)
      editor.revealRange(new vscode.Range(editor.document.positionAt(at), editor.document.positionAt(at)));
    void vscode.window.setStatusBarMessage(
      `s0 sync: both changed the same lines in ${count(left.overlaps ?? 0, "place")}; settle the markers, then mark it`,
      10_000,
    );
  }
}

async function askName(
  root: string,
  conflict: Conflict | undefined,
  path: string,
): Promise<string | undefined> {
  return await vscode.window.showInputBox({
    title: `Rename ${path}`,
    prompt: conflict?.message ?? "",
    value: conflict?.suggestion ?? path,
    async validateInput(value) {
      if (value.trim() === "") return "A file needs a name";
      return (await isTaken(root, value)) ? "Something has this name already" : undefined;
    },
  });
}

async function isTaken(root: string, path: string): Promise<boolean> {
  try {
    await vscode.workspace.fs.stat(vscode.Uri.joinPath(vscode.Uri.parse(root), path));
    return true;
  } catch {
    return false;
  }
}

/** Opens the three-way merge editor, and settles the conflict when the user has completed the merge there. */
async function mergeEditor(ctx: Ctx, argument: unknown): Promise<void> {
  const found = conflictOf(ctx, argument) ?? (await pickConflict(ctx, "merge"));
  if (!found) return;
  const { folder, one } = found;
  if (!(await hasMergeEditor())) {
    // An editor that is no VS Code, but runs its extensions, may lack it.
    await vscode.commands.executeCommand("s0-sync.compare", { uri: one.uri });
    return;
  }
  const text = (version: string) => vscode.Uri.parse(contentUri(folder, one.path, version));
  const output = vscode.Uri.parse(one.uri);
  await vscode.commands.executeCommand("_open.mergeEditor", {
    base: text("base"),
    input1: { uri: text("theirs"), title: "Theirs", description: "in the Volume", detail: "" },
    input2: { uri: text("mine"), title: "Mine", description: "on this machine", detail: "" },
    output,
  });
  settleWhenMerged(ctx, folder, one, output);
}

/** Merge editors of ours that are open; while there are any, their title bar has "Complete Merge". */
let merging = 0;

function countMerging(by: 1 | -1): void {
  merging += by;
  void vscode.commands.executeCommand("setContext", "s0-sync.merging", merging > 0);
}

/** "Complete Merge" saves the file and closes the editor; closing it without that leaves the conflict open. */
function settleWhenMerged(ctx: Ctx, folder: string, conflict: Conflict, output: vscode.Uri): void {
  let saved = false;
  // What a tab of the merge editor is about is not told to extensions; that it is the one just opened is.
  const tab = vscode.window.tabGroups.activeTabGroup.activeTab;
  countMerging(1);
  const watch = vscode.Disposable.from(
    vscode.workspace.onDidSaveTextDocument((document) => {
      if (document.uri.toString() === output.toString()) saved = true;
    }),
    vscode.window.tabGroups.onDidChangeTabs(({ closed }) => {
      if (!tab || !closed.includes(tab)) return;
      watch.dispose();
      countMerging(-1);
      const open = ctx.states.get(folder)?.conflicts.some((one) => one.path === conflict.path) ?? false;
      if (saved && open) {
        void vscode.commands.executeCommand("s0-sync.resolve", {
          folder,
          paths: [conflict.path],
          way: "mark",
        });
      }
    }),
  );
  ctx.extension.subscriptions.push(watch);
}

async function hasMergeEditor(): Promise<boolean> {
  return (await vscode.commands.getCommands(false)).includes("_open.mergeEditor");
}

async function pickConflict(ctx: Ctx, way?: Way): Promise<Found<Conflict> | undefined> {
  const all = ctx.folders.flatMap((state) =>
    state.conflicts
      .map((one) => ({ folder: state.folder, one }))
      .filter(({ one }) => !way || one.ways.includes(way)),
  );
  if (all.length === 0) throw new Error("there is no conflict that this would settle.");
  const picked = await vscode.window.showQuickPick(
    all.map((found) => ({
      label: baseName(found.one.path),
      description: found.one.path,
      detail: found.one.message,
      found,
    })),
    { title: way ? WAYS[way].title : "Settle a Conflict", placeHolder: count(all.length, "conflict") },
  );
  return picked?.found;
}

function conflictOf(ctx: Ctx, argument: unknown): Found<Conflict> | undefined {
  if (isRow(argument)) {
    return argument.subject.is === "conflict"
      ? { folder: argument.folder, one: argument.subject.conflict }
      : undefined;
  }
  const uri = uriOf(argument);
  return ctx.folders
    .flatMap((state) => state.conflicts.map((one) => ({ folder: state.folder, one })))
    .find(({ one }) => one.uri === uri);
}

function heldOf(ctx: Ctx, argument: unknown): Found<Held> | undefined {
  if (isRow(argument)) {
    return argument.subject.is === "held"
      ? { folder: argument.folder, one: argument.subject.held }
      : undefined;
  }
  const uri = uriOf(argument);
  return allHeld(ctx).find(({ one }) => one.uri === uri);
}

function allHeld(ctx: Ctx): Found<Held>[] {
  return ctx.folders.flatMap((state) => state.held.map((one) => ({ folder: state.folder, one })));
}

async function chooseHeld(ctx: Ctx, argument: unknown): Promise<void> {
  const request = argument as Partial<Requests["s0-sync/settleHeld"][0]> | undefined;
  if (request?.folder !== undefined && request.path !== undefined && request.way) {
    await settleHeld(ctx, { folder: request.folder, path: request.path, way: request.way });
    return;
  }
  const all = allHeld(ctx);
  if (all.length === 0) throw new Error("no incoming write is held.");
  const found =
    heldOf(ctx, argument) ??
    (all.length === 1
      ? all[0]
      : (
          await vscode.window.showQuickPick(
            all.map((found) => ({ label: found.one.path, detail: heldWhy(found.one), found })),
            { title: "Held Writes" },
          )
        )?.found);
  if (!found) return;
  const { folder, one } = found;
  const picked = await vscode.window.showQuickPick(
    one.ways.map((way) => ({ label: heldWay(way, one).title, detail: heldWay(way, one).detail, way })),
    { title: one.path, placeHolder: heldWhy(one) },
  );
  if (picked) await settleHeld(ctx, { folder, path: one.path, way: picked.way });
}

/**
 * Taking a write that was held for unsaved text loses nothing in this order: first the server writes what is incoming
 * to the disk, while the editor still has the unsaved text; then the editor reads the file again, which it does as an
 * edit of its text, so that Undo brings the unsaved text back. Were it to fail in between, the unsaved text is still
 * there, and saving it asks first, since the file is newer.
 */
async function settleHeld(ctx: Ctx, params: Requests["s0-sync/settleHeld"][0]): Promise<void> {
  const held = ctx.states.get(params.folder)?.held.find((one) => one.path === params.path);
  const written = heard(ctx.onDidApply, (items) => items.some(({ uri }) => uri === held?.uri));
  const { beside } = await ctx.request("s0-sync/settleHeld", params);
  if (beside !== undefined)
    void vscode.window.setStatusBarMessage(`s0 sync: put beside it as ${beside}`, 8000);
  if (params.way !== "take" || held?.why !== "unsaved" || held.kind === "remove") return;
  const document = vscode.workspace.textDocuments.find((one) => one.uri.toString() === held.uri);
  if (!document?.isDirty) return;
  await written;
  await vscode.window.showTextDocument(document);
  await vscode.commands.executeCommand("workbench.action.files.revert");
}

function ordered(ways: Way[]): Way[] {
  return (Object.keys(WAYS) as Way[]).filter((way) => ways.includes(way));
}
