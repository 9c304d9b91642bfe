// What passes between documents and the server: the texts that are not on the disk, and which texts are unsaved.

import * as vscode from "vscode";
import { serverAddress } from "./content.js";
import type { Ctx } from "./ctx.js";
import { SCHEME } from "./protocol.js";

/** The text of lines of a document. */
export function linesOf(document: vscode.TextDocument): (start: number, end: number) => string {
  return (start, end) => document.getText(new vscode.Range(start, 0, end, 0));
}

/** The documents of the scheme `s0-sync`, read-only. */
export function createContents(ctx: Ctx): vscode.Disposable {
  const changed = new vscode.EventEmitter<vscode.Uri>();
  const addressOf = (uri: vscode.Uri) => serverAddress(uri.path, uri.query);
  return vscode.Disposable.from(
    changed,
    vscode.workspace.registerTextDocumentContentProvider(SCHEME, {
      onDidChange: changed.event,
      async provideTextDocumentContent(uri) {
        const address = addressOf(uri);
        if (address === undefined) throw new Error(`Not an address of s0 sync: ${uri.toString(true)}`);
        const { text } = await ctx.request("s0-sync/content", { uri: address });
        return text;
      },
    }),
    ctx.onDidChangeContent((uris) => {
      const addresses = new Set(uris.map((uri) => addressOf(vscode.Uri.parse(uri))));
      for (const { uri } of vscode.workspace.textDocuments) {
        const address = uri.scheme === SCHEME ? addressOf(uri) : undefined;
        if (address !== undefined && addresses.has(address)) changed.fire(uri);
      }
    }),
  );
}

/**
 * Tells the server which documents have unsaved text. VS Code knows better than a comparison of texts: between a
 * write to the disk and VS Code's own reload of a clean document the two differ, and nothing is unsaved.
 */
export function createDirtyWatch(ctx: Ctx): vscode.Disposable {
  const known = new Map<string, boolean>();
  const say = (document: vscode.TextDocument) => {
    if (document.uri.scheme !== "file") return;
    const uri = document.uri.toString();
    if (known.get(uri) === document.isDirty) return;
    known.set(uri, document.isDirty);
    ctx.sayDirty(uri, document.isDirty);
  };
  return vscode.Disposable.from(
    vscode.workspace.onDidOpenTextDocument(say),
    vscode.workspace.onDidChangeTextDocument((event) => {
      ctx.edited(event);
      say(event.document);
    }),
    vscode.workspace.onDidSaveTextDocument(say),
    vscode.workspace.onDidCloseTextDocument((document) => {
      known.delete(document.uri.toString());
      ctx.closed(document);
    }),
    ctx.onDidStart(() => {
      known.clear();
      vscode.workspace.textDocuments.forEach(say);
    }),
  );
}
