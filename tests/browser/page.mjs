/** A real Chromium on a real ComfyUI, and the few things that tests do with it. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

import { chromium } from "playwright-core";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Noise of the host itself that says nothing about the editor. */
const KNOWN = /Failed to load resource|net::ERR|user\.css|reading 'id'|api\.comfy\.org|Firebase|fonts\.g|deprecat/i;

export async function launch() {
  const profile = await mkdtemp(path.join(tmpdir(), "contextgen-profile-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    viewport: { width: 1300, height: 1150 },
    permissions: ["clipboard-read", "clipboard-write"],
  });
  return {
    context,
    close: async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

/**
 * A page with the frontend ready and an empty graph.
 * @param {import("playwright-core").BrowserContext} context @param {string} url
 * @param {{vue?: boolean, settings?: Record<string, unknown>}} [options]
 */
export async function openPage(context, url, { vue = false, settings = {} } = {}) {
  const all = { "Comfy.TutorialCompleted": true, "Comfy.VueNodes.Enabled": vue, "Comfy.Workflow.ShowMissingModelsWarning": false, ...settings };
  for (const [key, value] of Object.entries(all)) {
    await fetch(`${url}/settings/${key}`, { method: "POST", body: JSON.stringify(value) });
  }
  const page = await context.newPage();
  /** @type {string[]} */
  const problems = [];
  page.on("pageerror", (error) => !KNOWN.test(String(error)) && problems.push(String(error.stack ?? error)));
  page.on("console", (message) => message.type() === "error" && !KNOWN.test(message.text()) && problems.push(message.text()));
  await page.goto(url);
  await ready(page);
  return { page, problems };
}

/** @param {import("playwright-core").Page} page */
export async function ready(page) {
  await page.waitForFunction(
    () => window.app?.extensionManager && window.app.graph && window.LiteGraph?.registered_node_types?.LayoutComposer,
    null,
    { timeout: 60000 },
  );
  await page.waitForTimeout(600);
  await page.evaluate(() => {
    document.querySelectorAll(".p-dialog-mask").forEach((mask) => mask.remove());
    window.app.graph.clear();
  });
}

/** Puts one node of ours at a place of the screen and returns its id. @param {import("playwright-core").Page} page @param {{x?: number, y?: number, layout?: string}} [options] */
export async function addComposer(page, { x = 60, y = 60, layout = "" } = {}) {
  const id = await page.evaluate(
    ([left, top, text]) => {
      const { app, LiteGraph } = window;
      app.canvas.ds.scale = 1;
      app.canvas.ds.offset = [0, 0];
      const node = LiteGraph.createNode("LayoutComposer");
      node.pos = [left, top];
      app.graph.add(node);
      if (text) node.widgets.find((widget) => widget.name === "layout").value = text;
      app.canvas.setDirty(true, true);
      return node.id;
    },
    /** @type {[number, number, string]} */ ([x, y, layout]),
  );
  await page.locator(".contextgen-editor .stage").first().waitFor();
  await page.waitForTimeout(700);
  return id;
}

/** The layout in the node's input. @param {import("playwright-core").Page} page @param {string | number} id */
export async function layoutOf(page, id) {
  const text = await page.evaluate((node) => {
    const found = window.app.graph.getNodeById(node);
    return found.widgets.find((widget) => widget.name === "layout").value;
  }, id);
  return text ? JSON.parse(text) : { boxes: [] };
}

/** Drags over a share of the stage, given in percent. @param {import("playwright-core").Page} page @param {[number, number]} from @param {[number, number]} to @param {{nth?: number, steps?: number}} [options] */
export async function drag(page, from, to, { nth = 0, steps = 6 } = {}) {
  const rect = await page.locator(".contextgen-editor .stage").nth(nth).boundingBox();
  if (!rect) throw new Error("no stage");
  const at = ([x, y]) => [rect.x + (rect.width * x) / 100, rect.y + (rect.height * y) / 100];
  await page.mouse.move(...at(from));
  await page.mouse.down();
  await page.mouse.move(...at(to), { steps });
  await page.mouse.up();
}
