// Where the server is found. It is never downloaded. No `vscode` here: tested by `node --test`.

import { accessSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, isAbsolute, join } from "node:path";

export const SERVER_NAME = process.platform === "win32" ? "s0-sync-lsp.exe" : "s0-sync-lsp";

export interface Places {
  /** The setting `s0-sync.server.path`. */
  setting: string;
  /** The folder of the extension, which may hold `server/s0-sync-lsp`. */
  extension: string;
  /** The environment's PATH. */
  path: string;
}

/** The program of the server: where the setting says, else inside the extension, else on PATH. */
export function findServer(places: Places, runs: (file: string) => boolean = isProgram): string {
  if (places.setting !== "") {
    const file = places.setting.replace(/^~(?=[/\\])/, homedir());
    if (!isAbsolute(file)) {
      throw new Error(
        `The setting "s0-sync.server.path" wants an absolute path, and has "${places.setting}".`,
      );
    }
    if (!runs(file)) {
      throw new Error(`The setting "s0-sync.server.path" names "${file}", and there is no program.`);
    }
    return file;
  }
  const candidates = [
    join(places.extension, "server", SERVER_NAME),
    ...places.path
      .split(delimiter)
      .filter(isAbsolute)
      .map((folder) => join(folder, SERVER_NAME)),
  ];
  const found = candidates.find(runs);
  if (found === undefined) {
    throw new Error(
      `The server ${SERVER_NAME} is neither inside this extension nor on the PATH. ` +
        `Install it, or say where it is in the setting "s0-sync.server.path".`,
    );
  }
  return found;
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
