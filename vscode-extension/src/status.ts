// The item in the status bar.

import * as vscode from "vscode";
import type { Ctx } from "./ctx.js";
import { status } from "./words.js";

export function createStatus(ctx: Ctx): vscode.Disposable {
  const item = vscode.window.createStatusBarItem("status", vscode.StatusBarAlignment.Left, 50);
  item.name = "s0 sync";
  const show = () => {
    if (ctx.server === "running") {
      const { text, severity, lines } = status(ctx.folders);
      const attached = ctx.attached.length > 0;
      item.text = text;
      item.backgroundColor =
        severity === "none" ? undefined : new vscode.ThemeColor(`statusBarItem.${severity}Background`);
      item.command = attached ? "s0-sync.view.focus" : "s0-sync.attach";
      item.tooltip = tooltip(lines, attached ? attachedLinks(ctx) : [["Attach…", "s0-sync.attach"]]);
      item.accessibilityInformation = { label: `s0 sync: ${lines.join(", ")}` };
    } else {
      const missing = ctx.server === "missing";
      item.text = missing
        ? "$(warning) s0"
        : ctx.server === "starting"
          ? "$(loading~spin) s0"
          : "$(debug-stop) s0";
      item.backgroundColor = missing ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
      item.command = missing ? "s0-sync.serverSettings" : "s0-sync.restartServer";
      item.tooltip = tooltip(
        [ctx.trouble ?? (ctx.server === "starting" ? "The server is starting." : "The server does not run.")],
        [
          ["Restart Server", "s0-sync.restartServer"],
          ["Settings", "s0-sync.serverSettings"],
          ["Output", "s0-sync.output"],
        ],
      );
    }
    // Without a folder there is nothing to say.
    if (vscode.workspace.workspaceFolders === undefined) item.hide();
    else item.show();
  };
  show();
  return vscode.Disposable.from(
    item,
    ctx.onDidChangeState(show),
    vscode.workspace.onDidChangeWorkspaceFolders(show),
  );
}

type Link = [title: string, command: string];

function attachedLinks(ctx: Ctx): Link[] {
  const is = (condition: string) => ctx.attached.some((state) => state.condition === condition);
  return [
    ...(ctx.attached.some((state) => state.incoming.length > 0)
      ? ([["Review All", "s0-sync.reviewAll"]] satisfies Link[])
      : []),
    ...(ctx.attached.some((state) => state.conflicts.length > 0)
      ? ([["Settle a Conflict…", "s0-sync.resolve"]] satisfies Link[])
      : []),
    ...(is("halted") ? ([["Go On After the Halt…", "s0-sync.resume"]] satisfies Link[]) : []),
    is("stopped") ? ["Start", "s0-sync.start"] : ["Pause", "s0-sync.stop"],
    ["Snapshot…", "s0-sync.snapshot"],
    ["Log", "s0-sync.log"],
  ];
}

function tooltip(lines: string[], links: Link[]): vscode.MarkdownString {
  const text = new vscode.MarkdownString(lines.join("  \n"), true);
  text.appendMarkdown(`\n\n${links.map(([title, command]) => `[${title}](command:${command})`).join(" · ")}`);
  text.isTrusted = { enabledCommands: links.map(([, command]) => command) };
  return text;
}
