/**
 * Every template in workflows/ in the real frontend: it loads, means the same as its headless twin in workflows/api,
 * and still does after it was saved and loaded again.
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { CHROMIUM, launch, openPage } from "./page.mjs";
import { hosts, ROOT, startServer } from "./server.mjs";

const found = existsSync(CHROMIUM) ? hosts() : [];
const missing = existsSync(CHROMIUM) ? "no ComfyUI found: set COMFYUI_PATH" : `no Chromium at ${CHROMIUM}: set CHROMIUM_PATH`;
const folder = path.join(ROOT, "workflows");
const names = readdirSync(folder).filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5));
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
