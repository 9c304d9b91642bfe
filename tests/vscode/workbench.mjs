// The workbench as a person sees it: what is where on the page, and what is done there.

import { until } from "./harness.mjs";

export class Workbench {
  constructor(page) {
    this.page = page;
  }

  static async open(browser, address, { trust = false } = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    const page = await context.newPage();
    await page.goto(address);
    const workbench = new Workbench(page);
    await page.locator(".monaco-workbench .statusbar").waitFor({ timeout: 90_000 });
    if (!trust) await until("the extension is active", () => workbench.status.isVisible(), 90, 100);
    return workbench;
  }

  async close() {
    await this.page.context().close();
  }

  get status() {
    return this.page.locator('.statusbar-item[id="s0.s0-sync.status"]');
  }

  async statusText() {
    return ((await this.status.getAttribute("aria-label")) ?? "") + " | " + (await this.status.innerText());
  }

  /** The icon in the activity bar. */
  get activity() {
    return this.page.locator('.activitybar .action-item:has(a[aria-label^="s0 sync"])');
  }

  async openView() {
    const header = this.page.locator(".sidebar .composite.title", { hasText: /s0 sync/i });
    if (!(await header.isVisible())) await this.activity.click();
    await header.waitFor();
  }

  /** Attaches the workspace through the view, as a new user does. */
  async attach() {
    await this.openView();
    await this.page.locator(".welcome-view-content .monaco-button", { hasText: "Attach This Folder" }).click();
    await until("the view shows the groups", () => this.row("Workspace").isVisible(), 60);
    await until("the status bar says in sync", async () => /in sync/.test(await this.statusText()), 60);
  }

  async openExplorer() {
    const header = this.page.locator(".sidebar .composite.title", { hasText: /explorer/i });
    if (!(await header.isVisible())) await this.page.locator('.activitybar a[aria-label^="Explorer"]').click();
    await header.waitFor();
  }

  async badge() {
    const badge = this.activity.locator(".badge-content");
    return (await badge.isVisible()) ? await badge.innerText() : "";
  }

  /** A row of the view, by a text in its label. */
  row(text) {
    return this.page.locator(".sidebar .monaco-list-row", { hasText: text });
  }

  async rows() {
    return await this.page.locator(".sidebar .monaco-list-row").allInnerTexts();
  }

  /** Clicks an action that appears in a row when the mouse is over it. */
  async rowAction(text, title) {
    const row = this.row(text).first();
    const action = row.locator(`.action-label[aria-label^="${title}"]`);
    // When the view is drawn anew under the mouse, the actions come again with the next move of it.
    await until(`${title} is offered at ${text}`, async () => {
      await this.page.mouse.move(640, 400);
      await row.hover({ timeout: 1000 });
      await action.click({ timeout: 1000 });
      return true;
    });
  }

  /** Runs a command from the palette by its title. */
  async command(title) {
    await this.page.keyboard.press("F1");
    const input = this.page.locator(".quick-input-widget input.input");
    await input.waitFor();
    await input.fill(`>${title}`);
    const first = this.page.locator(".quick-input-list .monaco-list-row").first();
    await until(`the palette offers ${title}`, async () =>
      (await first.innerText()).replace(/\s+/g, " ").includes(title.replace(/\s+/g, " ")),
    );
    await this.page.keyboard.press("Enter");
  }

  /** Opens a file through Quick Open. */
  async openFile(name) {
    await this.page.keyboard.press("Control+p");
    const input = this.page.locator(".quick-input-widget input.input");
    await input.waitFor();
    await input.fill(name);
    const first = this.page.locator(".quick-input-list .monaco-list-row").first();
    await until(`Quick Open finds ${name}`, async () => (await first.innerText()).includes(name.split("/").pop()));
    await this.page.keyboard.press("Enter");
    await until(`${name} is open`, () => this.tab(name.split("/").pop()).first().isVisible());
    await this.editor.locator(".view-lines").first().waitFor();
  }

  tab(name) {
    return this.page.locator(`.tabs-container .tab[data-resource-name="${name}"]`);
  }

  get editor() {
    return this.page.locator(".editor-group-container.active .editor-instance").first();
  }

  /** The text of the lines that are on the screen, in order. */
  async text() {
    return await this.editor
      .locator(".view-lines")
      .first()
      .evaluate((lines) =>
        [...lines.querySelectorAll(".view-line")]
          .sort((a, b) => a.offsetTop - b.offsetTop)
          .map((line) => line.textContent.replaceAll("\u00a0", " "))
          .join("\n"),
      );
  }

  /** How many whole-line decorations are drawn. */
  async marks() {
    return await this.page.locator('.editor-instance .view-overlays [class*="ced-"]').count();
  }

  /** Our decorations alone: those with a coloured edge at the left, the top or the bottom. */
  async markedLines() {
    return await this.editor
      .locator(".view-overlays")
      .first()
      .evaluate(
        (overlays) =>
          [...overlays.children].filter((line) =>
            [...line.querySelectorAll('[class*="ced-"]')].some((mark) => {
              const style = getComputedStyle(mark);
              return [style.borderLeftWidth, style.borderTopWidth, style.borderBottomWidth].some(
                (width) => parseFloat(width) > 0,
              );
            }),
          ).length,
      );
  }

  /**
   * From now on the page itself notes when it first shows a mark, a text, the exact marks of it, and its lenses. Asking
   * it again and again would slow down what is measured.
   */
  async noteWhenShown(text) {
    await this.page.evaluate((wanted) => {
      const noted = { wanted, times: {} };
      globalThis.noted?.observer.disconnect();
      globalThis.noted = noted;
      const look = () => {
        const editor = document.querySelector(".editor-group-container.active .editor-instance");
        const note = (what) => (noted.times[what] ??= performance.timeOrigin + performance.now());
        const styles = [...editor.querySelectorAll('.view-overlays [class*="ced-"]')].flatMap((mark) => {
          const style = getComputedStyle(mark);
          return ["Left", "Top", "Bottom"]
            .filter((edge) => parseFloat(style[`border${edge}Width`]) > 0)
            .map((edge) => style[`border${edge}Style`]);
        });
        if (styles.length > 0) note("mark");
        if (!editor.querySelector(".view-lines").textContent.replaceAll("\u00a0", " ").includes(wanted)) return;
        note("text");
        if (styles.includes("solid")) note("decoration");
        if (editor.querySelector(".codelens-decoration")) note("lenses");
      };
      noted.observer = new MutationObserver(look);
      noted.observer.observe(document.querySelector(".part.editor"), {
        subtree: true,
        childList: true,
        characterData: true,
        attributes: true,
      });
    }, text);
  }

  /** What was noted, each with its time by the machine's clock, once it all was shown. */
  async shownTimes() {
    const times = () => this.page.evaluate(() => globalThis.noted.times);
    await until("everything is shown", async () => Object.keys(await times()).length === 4, 10, 50);
    return await times();
  }

  async lenses() {
    return (await this.editor.locator(".codelens-decoration").allInnerTexts()).map((text) =>
      text.replaceAll("\u00a0", " "),
    );
  }

  /** Clicks a word of a lens; `index` counts hunks from the top. */
  async lens(title, index = 0) {
    const lens = this.editor.locator(".codelens-decoration").nth(index).locator("a", { hasText: title });
    await lens.waitFor();
    await lens.click();
  }

  async isDirty(name) {
    return await this.tab(name)
      .first()
      .evaluate((tab) => tab.classList.contains("dirty"));
  }

  async toasts() {
    return await this.page.locator(".notifications-toasts .notification-list-item").allInnerTexts();
  }

  get dialog() {
    return this.page.locator(".monaco-dialog-box");
  }

  async answer(button) {
    await this.dialog.locator(".monaco-button", { hasText: button }).first().click();
    await this.dialog.waitFor({ state: "hidden" });
  }

  /** Picks from a quick pick by a text in the row, with the keyboard: rows may move under a mouse. */
  async pick(text) {
    const rows = this.page.locator(".quick-input-list .monaco-list-row");
    await rows.filter({ hasText: text }).first().waitFor();
    await this.page.locator(".quick-input-widget input.input").fill(text);
    await until(`${text} can be picked`, async () => (await rows.first().innerText()).includes(text));
    await this.page.keyboard.press("Enter");
  }

  /** Goes to a line (from 1) of the active editor. */
  async goTo(line) {
    await this.page.keyboard.press("Control+g");
    const input = this.page.locator(".quick-input-widget input.input");
    await input.waitFor();
    await input.fill(`:${line}`);
    await this.page.keyboard.press("Enter");
    await input.waitFor({ state: "hidden" });
  }

  /** The title of the widget that has the keyboard, to see that nothing steals it. */
  async focus() {
    return await this.page.evaluate(() => {
      const element = document.activeElement;
      const part = element?.closest(".part");
      return `${part?.id ?? ""} ${element?.closest(".editor-instance")?.getAttribute("aria-label") ?? ""}`;
    });
  }

  async screenshot(file) {
    await this.page.screenshot({ path: file });
  }
}
