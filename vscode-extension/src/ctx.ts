// The one object with state: the server, what it said last, and who wants to know.

import * as vscode from "vscode";
import { LanguageClient, State, type StaticFeature } from "vscode-languageclient/node";
import { HunkStore } from "./hunks.js";
import {
  EXPERIMENTAL,
  type FolderState,
  type Notifications,
  type Requests,
  type Snapshot,
} from "./protocol.js";
import { findServer } from "./server.js";

export type ServerCondition = "starting" | "running" | "stopped" | "missing";

export class Ctx implements vscode.Disposable {
  readonly log = vscode.window.createOutputChannel("s0 sync", { log: true });
  readonly states = new Map<string, FolderState>();
  readonly hunks = new HunkStore();
  readonly snapshots = new Map<string, Snapshot[]>();
  server: ServerCondition = "stopped";
  /** Why the server could not be started. */
  trouble: string | undefined;

  readonly #stateChanged = new vscode.EventEmitter<void>();
  readonly #hunksChanged = new vscode.EventEmitter<string>();
  readonly #contentChanged = new vscode.EventEmitter<string[]>();
  readonly #applied = new vscode.EventEmitter<Notifications["s0-sync/didApply"]["items"]>();
  readonly #started = new vscode.EventEmitter<void>();
  /** The state of a folder, or of the server, is another one. */
  readonly onDidChangeState = this.#stateChanged.event;
  /** The hunks of the document with this URI are others. */
  readonly onDidChangeHunks = this.#hunksChanged.event;
  readonly onDidChangeContent = this.#contentChanged.event;
  /** Files were written or removed for the Volume. */
  readonly onDidApply = this.#applied.event;
  /** The server answers, for the first time or after a restart; it knows nothing yet. */
  readonly onDidStart = this.#started.event;

  #client: LanguageClient | undefined;
  /** Starts and stops one after the other, however fast they are asked for. */
  #changing: Promise<void> = Promise.resolve();

  constructor(readonly extension: vscode.ExtensionContext) {}

  get folders(): FolderState[] {
    return [...this.states.values()];
  }

  get attached(): FolderState[] {
    return this.folders.filter((state) => state.condition !== "detached");
  }

  start(): Promise<void> {
    return this.#next(() => this.#start());
  }

  stop(): Promise<void> {
    return this.#next(() => this.#stop());
  }

  restart(): Promise<void> {
    return this.#next(async () => {
      await this.#stop();
      await this.#start();
    });
  }

  async request<M extends keyof Requests>(method: M, params: Requests[M][0]): Promise<Requests[M][1]> {
    if (!this.#client?.isRunning()) {
      throw new Error(this.trouble ?? "The server does not run. “s0 sync: Restart Server” starts it.");
    }
    return await this.#client.sendRequest<Requests[M][1]>(method, params);
  }

  sayDirty(uri: string, dirty: boolean): void {
    this.#notify("s0-sync/didChangeDirty", { uri, dirty });
  }

  /** The settings are others. */
  configure(): void {
    const settings = vscode.workspace.getConfiguration("s0-sync");
    this.#notify("workspace/didChangeConfiguration", { settings: { "s0-sync": settings } });
  }

  /** Tells the server, if there is one to tell. */
  #notify(method: string, params: object): void {
    if (!this.#client?.isRunning()) return;
    this.#client.sendNotification(method, params).catch((error: unknown) => {
      this.log.warn(`${method}: ${String(error)}`);
    });
  }

  async readSnapshots(folder: string): Promise<void> {
    const { snapshots } = await this.request("s0-sync/snapshots", { folder });
    this.snapshots.set(folder, snapshots);
    this.#stateChanged.fire();
  }

  /** The user typed: hunks move with the text until the server has looked at it. */
  edited(event: vscode.TextDocumentChangeEvent): void {
    if (event.document.uri.scheme !== "file" || event.contentChanges.length === 0) return;
    this.hunks.edited(
      event.document.uri.toString(),
      event.document.version,
      event.contentChanges.map(({ range, text }) => ({
        startLine: range.start.line,
        startCharacter: range.start.character,
        endLine: range.end.line,
        endCharacter: range.end.character,
        text,
      })),
    );
  }

  closed(document: vscode.TextDocument): void {
    this.hunks.closed(document.uri.toString());
  }

  dispose(): void {
    void this.stop();
    this.log.dispose();
  }

  #next(change: () => Promise<void>): Promise<void> {
    this.#changing = this.#changing.then(change, change);
    return this.#changing;
  }

  async #start(): Promise<void> {
    if (this.#client) return;
    const settings = vscode.workspace.getConfiguration("s0-sync");
    let command: string;
    try {
      command = findServer({
        setting: settings.get("server.path", ""),
        extension: this.extension.extensionPath,
        path: process.env["PATH"] ?? "",
      });
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
      this.log.error(this.trouble);
      this.#became("missing");
      return;
    }
    this.trouble = undefined;
    this.log.info(`starting ${command} --stdio`);
    const client = new LanguageClient(
      "s0-sync",
      "s0 sync",
      { command, args: ["--stdio"] },
      {
        documentSelector: [{ scheme: "file" }],
        outputChannel: this.log,
        initializationOptions: settings,
        // Every document, seen or not: one that was restored with unsaved text must not be written under.
        textSynchronization: { delayOpenNotifications: false },
      },
    );
    client.registerFeature(new Declaration());
    this.#listen(client);
    this.#client = client;
    this.#became("starting");
    try {
      await client.start();
    } catch (error) {
      this.trouble = `The server could not be started: ${String(error)}`;
      this.log.error(this.trouble);
      this.#client = undefined;
      this.#became("stopped");
    }
  }

  #listen(client: LanguageClient): void {
    const on = <M extends keyof Notifications>(method: M, handle: (params: Notifications[M]) => void) => {
      client.onNotification(method, handle);
    };
    on("s0-sync/didChangeState", (state) => {
      this.#take([state]);
    });
    on("s0-sync/didChangeHunks", (file) => {
      this.hunks.received(file);
      this.#hunksChanged.fire(file.uri);
    });
    on("s0-sync/didChangeContent", ({ uris }) => {
      this.#contentChanged.fire(uris);
    });
    on("s0-sync/didApply", ({ items }) => {
      // VS Code reloads what changed on the disk by itself.
      this.#applied.fire(items);
    });
    client.onDidChangeState(({ newState }) => {
      if (newState === State.Running) {
        this.#started.fire();
        // After a crash too: the client starts the server again, and what was known is asked for anew.
        this.request("s0-sync/state", {}).then(
          ({ folders }) => {
            this.states.clear();
            this.server = "running";
            this.#take(folders);
          },
          (error: unknown) => {
            this.log.error(`s0-sync/state: ${String(error)}`);
          },
        );
      } else {
        this.#forget();
        this.#became(newState === State.Starting ? "starting" : "stopped");
      }
    });
  }

  #take(states: FolderState[]): void {
    for (const state of states) {
      if (state.condition === "detached") this.snapshots.delete(state.folder);
      this.states.set(state.folder, state);
    }
    this.#publish();
  }

  #became(server: ServerCondition): void {
    this.server = server;
    this.#publish();
  }

  #publish(): void {
    const set = (key: string, value: unknown) =>
      void vscode.commands.executeCommand("setContext", `s0-sync.${key}`, value);
    set("server", this.server);
    const any = (test: (state: FolderState) => boolean) => this.folders.some(test);
    set("attached", this.attached.length > 0);
    set(
      "detached",
      any((state) => state.condition === "detached"),
    );
    set(
      "stopped",
      any((state) => state.condition === "stopped"),
    );
    set(
      "halted",
      any((state) => state.condition === "halted"),
    );
    const incoming = this.folders.flatMap((state) => state.incoming);
    set("incoming", incoming.length > 0);
    // For the title bar of an editor, which asks with the path of its file.
    set(
      "incomingPaths",
      incoming.map((item) => vscode.Uri.parse(item.uri).fsPath),
    );
    set(
      "held",
      any((state) => state.held.length > 0),
    );
    set(
      "conflicts",
      any((state) => state.conflicts.length > 0),
    );
    this.#stateChanged.fire();
  }

  #forget(): void {
    this.states.clear();
    this.snapshots.clear();
    for (const uri of this.hunks.clear()) this.#hunksChanged.fire(uri);
  }

  async #stop(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client) {
      try {
        await client.dispose();
      } catch (error) {
        this.log.warn(`the server did not end as it should: ${String(error)}`);
      }
    }
    this.#forget();
    this.#became("stopped");
  }
}

/** Tells the server that this client speaks the messages of `protocol.ts`. */
class Declaration implements StaticFeature {
  fillClientCapabilities(capabilities: { experimental?: unknown }): void {
    capabilities.experimental = { ...(capabilities.experimental as object | undefined), ...EXPERIMENTAL };
  }

  // The interface wants these; there is nothing to do.
  initialize(): void {
    return;
  }

  getState(): { kind: "static" } {
    return { kind: "static" };
  }

  clear(): void {
    return;
  }
}
