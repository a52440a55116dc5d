/** A real Chromium on a real ComfyUI, and the few things that tests do with it. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

import { chromium } from "playwright-core";

export const CHROMIUM = process.env.CHROMIUM ?? process.env.CHROMIUM_PATH ?? "/usr/bin/chromium";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Noise of the host itself that says nothing about the editor. */
const KNOWN = /Failed to load resource|net::ERR|user\.css|accessed before init|cleanup event listeners|reading 'id'|api\.comfy\.org|Firebase|fonts\.g|deprecat/i;

export async function launch() {
  const profile = await mkdtemp(path.join(tmpdir(), "contextgen-profile-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
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
  const all = { "Comfy.TutorialCompleted": true, "Comfy.VueNodes.Enabled": vue, "Comfy.Minimap.Visible": false, ...settings };
  for (const [key, value] of Object.entries(all)) {
    await fetch(`${url}/settings/${key}`, { method: "POST", body: JSON.stringify(value) });
  }
  const page = await context.newPage();
  await page.addInitScript(countListeners);
  /** @type {string[]} */
  const problems = [];
  page.on("pageerror", (error) => !KNOWN.test(String(error)) && problems.push(String(error.stack ?? error)));
  page.on("console", (message) => message.type() === "error" && !KNOWN.test(message.text()) && problems.push(message.text()));
  await page.goto(url, { timeout: 240000, waitUntil: "commit" });
  await ready(page);
  return { page, problems };
}

/** Counts what listens to the window and the document, and what repeats. Runs in the page before anything else. */
function countListeners() {
  const counts = { listeners: 0, timers: 0, ours: 0 };
  const isOurs = () => /\/extensions\/[^/]*contextgen[^/]*\//.test(new Error().stack ?? "");
  window.contextgenCounts = counts;
  /** @type {Map<EventTarget, Set<string>>} */
  const known = new Map([[window, new Set()], [document, new Set()]]);
  const numbers = new WeakMap();
  let next = 0;
  const keyOf = (type, listener, options) => {
    if (listener && !numbers.has(listener)) numbers.set(listener, (next += 1));
    return `${type} ${listener && numbers.get(listener)} ${Boolean(typeof options === "object" ? options?.capture : options)}`;
  };
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  EventTarget.prototype.addEventListener = function (type, listener, options) {
    const target = this ?? window;
    const set = known.get(target);
    const key = set && keyOf(type, listener, options);
    if (set && key && !options?.once) {
      set.add(key);
      if (isOurs()) counts.ours += 1;
      options?.signal?.addEventListener?.("abort", () => set.delete(key));
      counts.listeners = [...known.values()].reduce((sum, each) => sum + each.size, 0);
    }
    return addEventListener.call(target, type, listener, options);
  };
  EventTarget.prototype.removeEventListener = function (type, listener, options) {
    const target = this ?? window;
    known.get(target)?.delete(keyOf(type, listener, options));
    counts.listeners = [...known.values()].reduce((sum, each) => sum + each.size, 0);
    return removeEventListener.call(target, type, listener, options);
  };
  const running = new Set();
  const { setInterval, clearInterval } = window;
  window.setInterval = (...args) => {
    const id = setInterval(...args);
    running.add(id);
    counts.timers = running.size;
    return id;
  };
  window.clearInterval = (id) => {
    running.delete(id);
    counts.timers = running.size;
    clearInterval(id);
  };
}

/** @param {import("playwright-core").Page} page */
export async function ready(page) {
  // Asking for the graph before the rest is ready makes newer frontends complain.
  await page.waitForFunction(() => window.app?.extensionManager && window.app.canvas, null, { timeout: 240000 });
  await page.waitForFunction(
    () => window.app.graph && window.LiteGraph?.registered_node_types?.LayoutComposer,
    null,
    { timeout: 240000 },
  );
  await page.waitForTimeout(600);
  await page.evaluate(() => {
    document.querySelectorAll(".p-dialog-mask").forEach((mask) => mask.remove());
  });
  await empty(page);
}

/** An empty workflow, in the way the host itself goes from one to the next. @param {import("playwright-core").Page} page */
export async function empty(page) {
  // A page just loaded may still be restoring its last workflow, which then comes after ours: hence several tries.
  for (let tries = 0; tries < 5; tries += 1) {
    await page.evaluate(async () => {
      const workflow = window.app.extensionManager.workflow?.activeWorkflow;
      const nothing = { last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: [], config: {}, extra: {}, version: 0.4 };
      // As the workflow that is open, or each call would leave another tab.
      await window.app.loadGraphData(nothing, true, true, workflow);
    });
    await page.waitForTimeout(tries ? 1000 : 100);
    if (await page.evaluate(() => window.app.graph.nodes.length === 0)) return;
  }
  throw new Error("the graph does not become empty");
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
  await settled(page);
  return id;
}

/** Waits until the first editor is there and stays where it is. @param {import("playwright-core").Page} page */
export async function settled(page) {
  const stage = page.locator(".contextgen-editor .stage:visible").first();
  await stage.waitFor();
  let last = "";
  for (let calm = 0, tries = 0; calm < 3 && tries < 60; tries += 1) {
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    await page.waitForTimeout(90);
    const now = JSON.stringify(await stage.boundingBox());
    calm = now === last ? calm + 1 : 0;
    last = now;
  }
}

/** The layout in the node's input. @param {import("playwright-core").Page} page @param {string | number} id */
export async function layoutOf(page, id) {
  const text = await page.evaluate((node) => {
    const found = window.app.graph.getNodeById(node);
    return found.widgets.find((widget) => widget.name === "layout").value;
  }, id);
  return text ? JSON.parse(text) : { boxes: [] };
}

/** Nodes in the graph, of one type or of all. @param {import("playwright-core").Page} page @param {string} [type] */
export async function count(page, type) {
  return page.evaluate((wanted) => window.app.graph.nodes.filter((node) => !wanted || node.type === wanted).length, type ?? null);
}

/** The stage's place on the screen; the large editor's while it is open. @param {import("playwright-core").Page} page */
export async function stageOf(page) {
  const large = page.locator("dialog .stage");
  const rect = await ((await large.count()) ? large : page.locator(".contextgen-editor .stage:visible")).first().boundingBox();
  if (!rect) throw new Error("no stage");
  return rect;
}

/** A point of the screen from a place on the stage in percent. @param {import("playwright-core").Page} page @param {[number, number]} at @returns {Promise<[number, number]>} */
export async function boxAt(page, [x, y]) {
  const rect = await stageOf(page);
  return [rect.x + (rect.width * x) / 100, rect.y + (rect.height * y) / 100];
}

/** Drags over the stage, places in percent. @param {import("playwright-core").Page} page @param {[number, number]} from @param {[number, number]} to */
export async function drag(page, from, to) {
  await page.mouse.move(...(await boxAt(page, from)));
  await page.mouse.down();
  await page.mouse.move(...(await boxAt(page, to)), { steps: 6 });
  await page.mouse.up();
}
