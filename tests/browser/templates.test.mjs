/**
 * Every template in workflows/ in the real frontend: it loads, means the same as its headless twin in workflows/api,
 * and still does after it was saved and loaded again; and in both renderers no node lies on another, also after a run,
 * and the layout's stage has room to work on.
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { CHROMIUM, launch, openPage } from "./page.mjs";
import { frontendOf, hosts, ROOT, startServer } from "./server.mjs";

const found = existsSync(CHROMIUM) ? hosts() : [];
const missing = existsSync(CHROMIUM) ? "no ComfyUI found: set COMFYUI_PATH" : `no Chromium at ${CHROMIUM}: set CHROMIUM_PATH`;
const folder = path.join(ROOT, "workflows");
const names = readdirSync(folder).filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5));
/** What a stage must have for drawing to be comfortable, in pixels at full scale. */
const STAGE = 400;
const read = (...parts) => JSON.parse(readFileSync(path.join(folder, ...parts), "utf8"));

if (!found.length) test("the templates in a browser", { skip: missing });
for (const comfy of found) describe(path.basename(comfy), () => suite(comfy));

/**
 * What a headless twin says; the frontend may add inputs that the twin leaves at their defaults. Stock nodes that are
 * younger than the host are the only ones that may be missing.
 */
function compare(prompt, twin, known) {
  const kinds = (nodes) => Object.entries(nodes).map(([id, node]) => `${id} ${known[node.class_type] ? node.class_type : undefined}`).sort();
  assert.deepEqual(kinds(prompt), kinds(twin));
  for (const node of Object.values(twin)) assert.ok(known[node.class_type] || !/^ContextGen|^LAMIC|^ReferenceBundle|^LayoutComposer/.test(node.class_type));
  for (const [id, node] of Object.entries(twin).filter(([, each]) => known[each.class_type])) {
    for (const [key, value] of Object.entries(node.inputs)) assert.deepEqual(prompt[id].inputs[key], value, `${id}.${key}`);
  }
}

function suite(comfy) {
  let server;
  let browser;
  let page;
  let known;

  before(async () => {
    server = await startServer(comfy);
    const samples = path.join(ROOT, "assets", "samples");
    if (server.base) for (const name of readdirSync(samples)) await copyFile(path.join(samples, name), path.join(server.base, "input", name));
    known = await (await fetch(`${server.url}/object_info`)).json();
    browser = await launch();
    ({ page } = await openPage(browser.context, server.url));
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  /** Loads a workflow and gives back what it would queue, and itself as the frontend saves it. */
  const loaded = (workflow) =>
    page.evaluate(async (value) => {
      await window.app.loadGraphData(value);
      await new Promise((done) => setTimeout(done, 500));
      const { output } = await window.app.graphToPrompt();
      return { output, saved: window.app.graph.serialize() };
    }, workflow);

  // The first frontends with the new renderer show no elements of extensions: there the layout is a text field.
  for (const vue of frontendOf(comfy) < 30 ? [false] : [false, true]) {
    test(`no node lies on another, ${vue ? "Nodes 2.0" : "legacy renderer"}`, async () => {
      const opened = await openPage(browser.context, server.url, { vue });
      /** @type {string[]} */
      const wrong = [];
      for (const name of names) {
        await opened.page.evaluate(async (value) => {
          await window.app.loadGraphData(value);
          Object.assign(window.app.canvas.ds, { scale: 0.25, offset: [60, 120] });
          window.app.canvas.setDirty(true, true);
        }, read(`${name}.json`));
        await opened.page.evaluate(settled);
        wrong.push(...(await opened.page.evaluate(overlaps)).map((each) => `${name}: ${each}`));
        await opened.page.evaluate(pretendRun);
        await opened.page.evaluate(settled);
        wrong.push(...(await opened.page.evaluate(overlaps)).map((each) => `${name} after a run: ${each}`));
        const widths = await opened.page.evaluate(stageWidths);
        wrong.push(...widths.filter((width) => width < STAGE).map((width) => `${name}: the stage is ${width} px wide`));
      }
      await opened.page.close();
      assert.deepEqual(wrong, []);
    });
  }

  for (const name of names) {
    test(`${name} loads, equals its twin, and survives saving`, async () => {
      const twin = read("api", `${name}.json`);
      const first = await loaded(read(`${name}.json`));
      compare(first.output, twin, known);
      const second = await loaded(JSON.parse(JSON.stringify(first.saved)));
      assert.deepEqual(second.output, first.output);
    });
  }
}

/** Waits until no node has moved or grown for 0.8 s, at most 5 s. Runs in the page. */
async function settled() {
  const until = Date.now() + 5000;
  let last = "";
  for (let same = 0; same < 8 && Date.now() < until; ) {
    await new Promise((done) => setTimeout(done, 100));
    const shapes = window.app.graph.nodes.map(({ id, pos, size }) => {
      const drawn = document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect();
      return [id, ...pos, ...size, drawn?.x, drawn?.y, drawn?.width, drawn?.height].map((n) => Math.round(n ?? 0));
    });
    const now = JSON.stringify(shapes);
    same = now === last ? same + 1 : 0;
    last = now;
  }
}

/** What lies on what, as it is drawn. Runs in the page. @returns {string[]} */
function overlaps() {
  const { graph, canvas } = window.app;
  const { scale, offset } = canvas.ds;
  const origin = canvas.canvas.getBoundingClientRect();
  const rects = graph.nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    if (!drawn) return { node, x: node.pos[0], y: node.pos[1] - 30, w: node.size[0], h: node.size[1] + 30 };
    return { node, x: (drawn.x - origin.x) / scale - offset[0], y: (drawn.y - origin.y) / scale - offset[1], w: drawn.width / scale, h: drawn.height / scale };
  });
  const found = [];
  rects.forEach((a, index) => rects.slice(index + 1).forEach((b) => {
    const wide = Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x);
    const high = Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y);
    if (wide > 1 && high > 1) found.push(`${a.node.id} ${a.node.type} and ${b.node.id} ${b.node.type} by ${Math.round(wide)} x ${Math.round(high)}`);
  }));
  return found;
}

/** What a run shows on its nodes, told as the host tells it: weights of several GB are not at hand. Runs in the page. */
async function pretendRun() {
  const { api } = await import("/scripts/api.js");
  const images = [{ filename: "contextgen_cat.png", subfolder: "", type: "input" }];
  const text = [Array.from({ length: 30 }, (_, line) => `line ${line} of what a run had to say on this node`).join("\n")];
  const pictures = ["ReferenceBundle", "SaveImage", "PreviewImage", "ContextGenReport", "ContextGenAttentionMap", "SigmaGenControlPictures"];
  const texts = ["ContextGenReport", "ContextGenScore", "ContextGenPickBest", "ContextGenPairBoxes", "ContextGenDPOLoRALoader",
    "ContextGenAttentionMap", "InstanceAssembleLoader", "PreviewAny"];
  for (const node of window.app.graph.nodes) {
    const output = { ...(pictures.includes(node.type) && { images }), ...(texts.includes(node.type) && { text }) };
    if (!Object.keys(output).length) continue;
    const detail = { node: String(node.id), display_node: String(node.id), output, prompt_id: "pretended" };
    api.dispatchEvent(new window.CustomEvent("executed", { detail }));
  }
}

/** Widths of the layouts' stages at full scale, in pixels. Runs in the page. @returns {number[]} */
function stageWidths() {
  return window.app.graph.nodes.filter((node) => node.type === "LayoutComposer").map((node) => {
    const { element } = node.widgets.find((widget) => widget.name === "contextgen_layout_editor");
    const stage = element.shadowRoot.querySelector(".stage");
    return Math.round(stage.getBoundingClientRect().width / window.app.canvas.ds.scale);
  });
}
