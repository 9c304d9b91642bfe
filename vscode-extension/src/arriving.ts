// Which lines of a text are about to change, when another text is about to replace it. No `vscode` here: tested by
// `node --test`.

/** Lines from `start` up to `end`; an empty range is a place before which lines come. */
export interface Lines {
  start: number;
  end: number;
}

/**
 * The lines of a text that the other one no longer has, between what both begin with and what both end with. When only
 * lines are added, the place where they come. It is seen for a moment only, so that it need not be a whole diff.
 */
export function arriving(here: readonly string[], there: readonly string[]): Lines[] {
  const shorter = Math.min(here.length, there.length);
  let first = 0;
  while (first < shorter && here[first] === there[first]) first += 1;
  if (first === here.length && first === there.length) return [];
  let same = 0;
  while (same < shorter - first && here.at(-1 - same) === there.at(-1 - same)) same += 1;

  const left = new Map<string, number>();
  for (const line of there.slice(first, there.length - same)) left.set(line, (left.get(line) ?? 0) + 1);
  const going: Lines[] = [];
  for (let line = first; line < here.length - same; line += 1) {
    const text = here[line] ?? "";
    const copies = left.get(text) ?? 0;
    if (copies > 0) {
      left.set(text, copies - 1);
      continue;
    }
    const last = going.at(-1);
    if (last?.end === line) last.end = line + 1;
    else going.push({ start: line, end: line + 1 });
  }
  return going.length > 0 ? going : [{ start: first, end: first }];
}
