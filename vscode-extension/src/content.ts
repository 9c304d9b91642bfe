// The addresses of texts that are not on the disk. No `vscode` here: tested by `node --test`.

import { contentUri } from "./protocol.js";

/** What such an address says. */
export interface Address {
  folder: string;
  path: string;
  version: string;
}

/**
 * The address as the server knows it, from the parts that VS Code has decoded. Its own `toString()` would
 * encode `=` and `&` of the query too, which is another address to everyone but VS Code.
 */
export function serverAddress(path: string, query: string): string | undefined {
  const address = readAddress(path, query);
  return address && contentUri(address.folder, address.path, address.version);
}

export function readAddress(path: string, query: string): Address | undefined {
  const found = /^folder=(.*)&version=([^&]*)(?:&path=(.*))?$/.exec(query);
  if (!found?.[1] || !found[2]) return undefined;
  return { folder: found[1], path: found[3] ?? path.replace(/^\//, ""), version: found[2] };
}

/**
 * The same text under the path of a file, for the multi-diff editor: two sides with different paths would be shown
 * as a rename there. The server's path goes into the query.
 */
export function beside(file: string, path: string, query: string): { path: string; query: string } {
  const address = readAddress(path, query);
  return address === undefined
    ? { path, query }
    : { path: file, query: `folder=${address.folder}&version=${address.version}&path=${address.path}` };
}
