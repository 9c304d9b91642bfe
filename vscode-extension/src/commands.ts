// The table of all commands, and those about the workspace as a whole.

import * as vscode from "vscode";
import { conflictCommands } from "./conflicts.js";
import type { Ctx } from "./ctx.js";
import type { Condition, FolderState, Requests } from "./protocol.js";
import { reviewCommands } from "./review.js";
import { CONDITIONS, count, folderName, haltWhy } from "./words.js";

type AttachArgument = Partial<Requests["s0-sync/attach"][0]> | undefined;
export type Command = (...args: unknown[]) => unknown;

export function registerCommands(ctx: Ctx): vscode.Disposable {
  const table = { ...workspaceCommands(ctx), ...reviewCommands(ctx), ...conflictCommands(ctx) };
  return vscode.Disposable.from(
    ...Object.entries(table).map(([name, command]) =>
      vscode.commands.registerCommand(`s0-sync.${name}`, async (...args: unknown[]) => {
        try {
          await command(...args);
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          ctx.log.error(`${name}: ${message}`);
          const output = "Show Output";
          // Not awaited: the command is over, whether or not the message is read.
          void vscode.window.showErrorMessage(`s0 sync: ${message}`, output).then((chosen) => {
            if (chosen === output) ctx.log.show();
          });
        }
      }),
    ),
  );
}

/** The folder that a command is about: that of its argument, the only one, or the one that is picked. */
export async function pickFolder(
  ctx: Ctx,
  argument: unknown,
  fits: (state: FolderState) => boolean = (state) => state.condition !== "detached",
): Promise<string | undefined> {
  const named = (argument as { folder?: unknown } | undefined)?.folder;
  if (typeof named === "string") return named;
  const states = ctx.folders.filter(fits);
  if (states.length <= 1) {
    if (states[0]) return states[0].folder;
    const one = ctx.folders.length === 1 ? ctx.folders[0] : undefined;
    throw new Error(
      one ? `This folder is ${CONDITIONS[one.condition]}.` : "No folder of this window can do that now.",
    );
  }
  const picked = await vscode.window.showQuickPick(
    states.map((state) => ({
      label: folderName(state.folder),
      description: CONDITIONS[state.condition],
      folder: state.folder,
    })),
    { placeHolder: "Which folder?" },
  );
  return picked?.folder;
}

function workspaceCommands(ctx: Ctx): Record<string, Command> {
  const among =
    (...conditions: Condition[]) =>
    (state: FolderState) =>
      conditions.includes(state.condition);
  const running = (state: FolderState) => !among("detached", "stopped")(state);
  /** A command that is one request about a folder. */
  const plain =
    (method: "s0-sync/start" | "s0-sync/stop", fits: (state: FolderState) => boolean): Command =>
    async (argument) => {
      const folder = await pickFolder(ctx, argument, fits);
      if (folder !== undefined) await ctx.request(method, { folder });
    };

  return {
    attach: (argument) => attach(ctx, argument as AttachArgument),

    async detach(argument) {
      const folder = await pickFolder(ctx, argument);
      if (folder === undefined) return;
      const sure = await confirm(
        `Detach ${folderName(folder)}?`,
        "Syncing ends. The files stay, and so does the Volume.",
        "Detach",
      );
      if (sure) await ctx.request("s0-sync/detach", { folder });
    },

    start: plain("s0-sync/start", among("stopped")),
    stop: plain("s0-sync/stop", running),

    async resume(argument) {
      const folder = await pickFolder(ctx, argument, among("halted"));
      if (folder === undefined) return;
      const state = ctx.states.get(folder);
      // The message that leads here may have been left standing.
      if (state?.condition !== "halted")
        throw new Error(`${folderName(folder)} has not halted, or goes on already.`);
      const go = "Go On";
      const remove = "Go On and Send the Deletions";
      const detail =
        `${haltWhy(state)}\n\nGo on once everything is where it should be. ` +
        "Only if you have removed files and meant it, send the deletions.";
      const question = `Syncing has halted in ${folderName(folder)}.`;
      const chosen = await vscode.window.showWarningMessage(question, { modal: true, detail }, go, remove);
      if (chosen !== undefined) {
        await ctx.request("s0-sync/resume", { folder, confirmDeletions: chosen === remove });
      }
    },

    async flush(argument) {
      const folder = await pickFolder(ctx, argument, running);
      if (folder === undefined) return;
      const { done, unfinished } = await busy("Waiting until both sides are equal", () =>
        ctx.request("s0-sync/flush", { folder }),
      );
      if (done) return void vscode.window.setStatusBarMessage("$(check) s0 sync: both sides are equal", 3000);
      const first = unfinished.slice(0, 5).map(({ path, why }) => `${path}: ${why}`);
      throw new Error(`not everything has arrived. ${first.join("; ")}`);
    },

    async snapshot(argument) {
      const folder = await pickFolder(ctx, argument);
      if (folder === undefined) return;
      const name = await vscode.window.showInputBox({
        title: "Take a Snapshot",
        prompt: "A name for how everything is now",
        value: "before",
        validateInput: (value) => (value.trim() === "" ? "A snapshot needs a name" : undefined),
      });
      if (name === undefined) return;
      await busy("Taking a snapshot", () => ctx.request("s0-sync/snapshot", { folder, name: name.trim() }));
      await ctx.readSnapshots(folder);
    },

    async restore(argument) {
      const folder = await pickFolder(ctx, argument);
      if (folder === undefined) return;
      const snapshot = await pickSnapshot(ctx, folder, argument);
      if (snapshot === undefined) return;
      const sure = await confirm(
        `Restore the snapshot “${snapshot.name}”?`,
        "The Volume's files become what they were then, here and on every other machine. " +
          "What is there now stays in the journal; take a snapshot first to come back easily.",
        "Restore",
      );
      if (sure) {
        await busy("Restoring", () => ctx.request("s0-sync/restore", { folder, snapshot: snapshot.id }));
      }
    },

    async fork(argument) {
      const folder = await pickFolder(ctx, argument);
      if (folder === undefined) return;
      const { volume } = await busy("Forking the Volume", () => ctx.request("s0-sync/fork", { folder }));
      const copy = "Copy Its Id";
      const chosen = await vscode.window.showInformationMessage(
        `s0 sync: the fork is Volume ${volume}.`,
        copy,
      );
      if (chosen === copy) await vscode.env.clipboard.writeText(volume);
    },

    async agentTerminal(argument) {
      const folder = await pickFolder(ctx, argument);
      if (folder === undefined) return;
      const { directory, sandbox } = await busy("Preparing a directory for the agent", () =>
        ctx.request("s0-sync/agent", { folder }),
      );
      vscode.window
        .createTerminal({
          name: `agent ${sandbox}`,
          cwd: directory,
          iconPath: new vscode.ThemeIcon("hubot"),
          message: `What you write in here is written by the agent ${sandbox}.`,
        })
        .show();
    },

    async log(argument) {
      const folder = await pickFolder(ctx, argument);
      if (folder === undefined) return;
      const { file } = await ctx.request("s0-sync/log", { folder });
      await vscode.window.showTextDocument(vscode.Uri.file(file));
    },

    async copyValue(argument) {
      const { value } = (argument as { subject?: { value?: string } } | undefined)?.subject ?? {};
      if (value !== undefined) await vscode.env.clipboard.writeText(value);
    },

    refreshSnapshots: async (argument) => {
      const folder = await pickFolder(ctx, argument);
      if (folder !== undefined) await ctx.readSnapshots(folder);
    },

    restartServer: () => ctx.restart(),
    output: () => {
      ctx.log.show();
    },
    serverSettings: () =>
      vscode.commands.executeCommand("workbench.action.openSettings", "s0-sync.server.path"),
  };
}

async function attach(ctx: Ctx, argument: AttachArgument): Promise<void> {
  const isDetached = (state: FolderState) => state.condition === "detached";
  if (argument?.folder === undefined && ctx.attached.length > 0 && !ctx.folders.some(isDetached)) {
    throw new Error("every folder of this window is attached already.");
  }
  const folder = await pickFolder(ctx, argument, isDetached);
  if (folder === undefined) return;
  let volume = argument?.volume;
  if (volume === undefined) {
    const { volumes } = await ctx.request("s0-sync/volumes", { folder });
    const fresh = {
      label: "$(add) New Volume",
      detail: `From what is in ${folderName(folder)} now`,
      id: undefined as string | undefined,
    };
    const known = volumes.map(({ id, created, attachedHere }) => ({
      label: `$(database) ${id}`,
      description: attachedHere.map(folderName).join(", "),
      detail: `Made ${new Date(created).toLocaleString()}`,
      id: id,
    }));
    const picked =
      known.length === 0
        ? fresh
        : await vscode.window.showQuickPick([fresh, ...known], {
            title: `Attach ${folderName(folder)}`,
            placeHolder: "A new Volume, or one that is there",
            matchOnDetail: true,
          });
    if (!picked) return;
    volume = picked.id;
  }
  const params: Requests["s0-sync/attach"][0] = { folder };
  if (volume !== undefined) params.volume = volume;
  if (argument?.initFrom !== undefined) params.initFrom = argument.initFrom;
  await busy(`Attaching ${folderName(folder)}`, () => ctx.request("s0-sync/attach", params));
}

async function pickSnapshot(
  ctx: Ctx,
  folder: string,
  argument: unknown,
): Promise<{ id: string; name: string } | undefined> {
  const { subject } = (argument ?? {}) as { subject?: { snapshot?: { id: string; name: string } } };
  if (subject?.snapshot) return subject.snapshot;
  const { snapshots } = await ctx.request("s0-sync/snapshots", { folder });
  if (snapshots.length === 0)
    throw new Error("there is no snapshot yet. “s0 sync: Take a Snapshot” makes one.");
  const picked = await vscode.window.showQuickPick(
    snapshots.map((snapshot) => ({
      label: snapshot.name,
      description: new Date(snapshot.created).toLocaleString(),
      snapshot,
    })),
    { title: "Restore a Snapshot", placeHolder: count(snapshots.length, "snapshot") },
  );
  return picked?.snapshot;
}

export async function confirm(question: string, detail: string, yes: string): Promise<boolean> {
  return (await vscode.window.showWarningMessage(question, { modal: true, detail }, yes)) === yes;
}

/** Says in the status bar what is being waited for. */
export async function busy<T>(title: string, work: () => Promise<T>): Promise<T> {
  return await vscode.window.withProgress({ location: vscode.ProgressLocation.Window, title }, work);
}
