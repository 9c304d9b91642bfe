// The hunks of open documents, kept in step with what the user types before the server has seen it.
// No `vscode` here: tested by `node --test`.

import { createHash } from "node:crypto";
import type { Choice, FileHunks, Hunk } from "./protocol.js";

/** A change of a document: the text from one position up to another was replaced. */
export interface Change {
  startLine: number;
  startCharacter: number;
  endLine: number;
  endCharacter: number;
  text: string;
}

/** More edits than this between two messages of the server: whatever comes then is drawn as it comes. */
const REMEMBERED_EDITS = 500;

interface Document {
  file: FileHunks;
  edits: { version: number; changes: readonly Change[] }[];
}

export class HunkStore {
  readonly #documents = new Map<string, Document>();

  get(uri: string): FileHunks | undefined {
    return this.#documents.get(uri)?.file;
  }

  /** What the server says, carried over the edits that it had not seen when it said so. */
  received(file: FileHunks): void {
    const edits = (this.#documents.get(file.uri)?.edits ?? []).filter(
      (edit) => edit.version > file.documentVersion,
    );
    const hunks = edits.reduce((hunks, edit) => shifted(hunks, edit.changes), file.hunks);
    this.#documents.set(file.uri, { file: { ...file, hunks }, edits });
  }

  edited(uri: string, version: number, changes: readonly Change[]): void {
    const document = this.#documents.get(uri);
    if (!document) {
      const file = { uri, documentVersion: version, version: "", hunks: [] };
      this.#documents.set(uri, { file, edits: [{ version, changes }] });
      return;
    }
    document.edits = [...document.edits, { version, changes }].slice(-REMEMBERED_EDITS);
    document.file = { ...document.file, hunks: shifted(document.file.hunks, changes) };
  }

  closed(uri: string): void {
    this.#documents.delete(uri);
  }

  clear(): string[] {
    const uris = [...this.#documents.keys()];
    this.#documents.clear();
    return uris;
  }
}

/** The hunks after changes of the document, which VS Code lists in an order in which they can be applied. */
export function shifted(hunks: Hunk[], changes: readonly Change[]): Hunk[] {
  return changes.reduce((hunks, change) => {
    const [start, end] = movers(change);
    return hunks.map((hunk) => ({
      ...hunk,
      start: start(hunk.start),
      end: hunk.start === hunk.end ? start(hunk.end) : end(hunk.end),
      authors: hunk.authors.map((author) => ({
        ...author,
        start: start(author.start),
        end: end(author.end),
      })),
    }));
  }, hunks);
}

/** How the first lines, and the ends, of ranges of lines move with a change. */
function movers(change: Change): [(line: number) => number, (line: number) => number] {
  const added = change.text.split("\n").length - 1;
  const growth = added - (change.endLine - change.startLine);
  // Whole lines that come or go touch nothing of the line that they come before.
  const whole =
    change.startCharacter === 0 &&
    change.endCharacter === 0 &&
    (change.text === "" || change.text.endsWith("\n"));
  const first = whole ? change.startLine : change.startLine + 1;
  const last = whole ? change.endLine : change.endLine + 1;
  const start = (line: number) =>
    line < first ? line : line >= last ? line + growth : Math.min(line, last + growth);
  // What is inserted exactly at an end is behind it.
  const end = (line: number) => (line <= first ? line : start(line));
  return [start, end];
}

/** A hunk that was shown, as it goes with a lens or a link. */
export interface ShownHunk {
  uri: string;
  hunk: string;
  version: string;
  /** What was there and what is there, so that it is known again under another id. */
  print: string;
}

export function shownHunk(
  file: FileHunks,
  hunk: Hunk,
  lines: (start: number, end: number) => string,
): ShownHunk {
  return { uri: file.uri, hunk: hunk.id, version: file.version, print: print(hunk, lines) };
}

function print(hunk: Hunk, lines: (start: number, end: number) => string): string {
  const text = JSON.stringify([hunk.kind, hunk.before, lines(hunk.start, hunk.end)]);
  return createHash("sha256").update(text).digest("base64url");
}

/**
 * The choice of a hunk that was shown. Each Keep and Revert gives the hunks that are left new ids, and VS Code draws
 * lenses a moment later; whoever clicks in between means the hunk that he sees. It is that one if it is still there
 * exactly once, text for text; if not, the old id goes to the server, which refuses it.
 */
export function choiceOf(
  shown: ShownHunk,
  file: FileHunks | undefined,
  lines: (start: number, end: number) => string,
): Choice {
  const { uri, hunk, version } = shown;
  if (!file || file.hunks.some((one) => one.id === hunk)) return { uri, hunk, version };
  const same = file.hunks.filter((one) => print(one, lines) === shown.print);
  return same.length === 1 && same[0]
    ? { uri, hunk: same[0].id, version: file.version }
    : { uri, hunk, version };
}

/** The hunk at a line; a deletion counts for the line that it is before, and at the end for the last line. */
export function hunkAt(hunks: Hunk[], line: number, lineCount: number): Hunk | undefined {
  return hunks.find((hunk) => {
    const start = shownLine(hunk, lineCount);
    return line >= start && line < Math.max(hunk.end, start + 1);
  });
}

/** The line at which a hunk is shown: a deletion at the end of the text has no line of its own. */
export function shownLine(hunk: Hunk, lineCount: number): number {
  return Math.max(0, Math.min(hunk.start, lineCount - 1));
}

/** The first hunk below a line, or the last one above it. */
export function neighbour(hunks: Hunk[], line: number, forwards: boolean): Hunk | undefined {
  const sorted = [...hunks].sort((a, b) => a.start - b.start);
  return forwards ? sorted.find((hunk) => hunk.start > line) : sorted.findLast((hunk) => hunk.start < line);
}

/** The place of a path among others, in a round: where to go on after the last hunk of a file. */
export function around<T>(all: T[], here: (one: T) => boolean, forwards: boolean): T[] {
  const ordered = forwards ? all : [...all].reverse();
  const at = ordered.findIndex(here);
  return at < 0 ? ordered : [...ordered.slice(at + 1), ...ordered.slice(0, at + 1)];
}
