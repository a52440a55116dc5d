/**
 * What a run says is on the node itself, in both renderers: the report's text, a bundle's warnings, the error in full; and
 * sizes that are typed twice and differ, before any run.
 */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { CHROMIUM, empty, launch, openPage } from "./page.mjs";
import { frontendOf, hosts, ROOT, startServer } from "./server.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const found = existsSync(CHROMIUM) ? hosts() : [];
const missing = existsSync(CHROMIUM) ? "no ComfyUI found: set COMFYUI_PATH" : `no Chromium at ${CHROMIUM}: set CHROMIUM_PATH`;

if (!found.length) test("notes in a browser", { skip: missing });
for (const comfy of found) {
  describe(path.basename(comfy), () => {
    let server;
    let browser;
    before(async () => {
      server = await startServer(comfy);
      browser = await launch();
      const form = new FormData();
      form.append("image", new Blob([readFileSync(path.join(ROOT, "assets", "samples", "contextgen_cat.png"))]), "contextgen_cat.png");
      await fetch(`${server.url}/upload/image`, { method: "POST", body: form });
    });
    after(async () => {
      await browser?.close();
      await server?.stop();
    });
    for (const vue of [false, true]) {
      test(vue ? "Nodes 2.0" : "legacy renderer", async () => {
        const elements = !vue || frontendOf(comfy) >= 30; // else: a text field of the host's, as the layout is there
        const { page, problems } = await openPage(browser.context, server.url, { vue });
        await empty(page);
        await build(page, `cat ${Date.now()}`); // another name: what a host has cached, it tells no second page
        await theGraphSaysWhatDiffers(page, elements);
        await aRunSaysWhatItFound(page, elements);
        if (elements) await anErrorStandsOnItsNodes(page, elements); // else: that text field is told of runs, not of errors
        assert.deepEqual(problems, []);
        await page.close();
      });
    }
  });
}

/** Load Image, Reference Bundle, Layout Composer, Report, and a patched model with another size. @param {import("playwright-core").Page} page @param {string} name */
async function build(page, name) {
  await page.evaluate((called) => {
    const { app, LiteGraph } = window;
    const made = {};
    for (const [name, type, x, y] of [
      ["load", "LoadImage", 0, 0], ["bundle", "ReferenceBundle", 320, 0], ["composer", "LayoutComposer", 660, 0],
      ["report", "ContextGenReport", 1180, 0], ["tiny", "ContextGenTinyModel", 0, 620], ["patch", "ContextGenPatchModel", 320, 620],
      ["shift", "ModelSamplingFlux", 1180, 620],
    ]) {
      made[name] = LiteGraph.createNode(type);
      made[name].pos = [x, y];
      app.graph.add(made[name]);
    }
    const { load, bundle, composer, report, tiny, patch, shift } = made;
    const set = (node, values) => {
      for (const widget of node.widgets) if (widget.name in values) widget.value = values[widget.name];
    };
    const slot = (node, name) => node.inputs.findIndex((input) => input.name === name);
    set(load, { image: "contextgen_cat.png" });
    set(bundle, { name: called, size: 16 }); // its mask is not inverted, as Load Image gives it
    set(composer, { width: 128, height: 128, layout: '{"v":1,"canvas":{"w":128,"h":128},"boxes":[{"id":"b1","x":8,"y":8,"w":96,"h":96,"ref":1}]}' });
    set(shift, { width: 256, height: 128 });
    load.connect(0, bundle, slot(bundle, "image"));
    load.connect(1, bundle, slot(bundle, "subject_mask"));
    bundle.connect(0, composer, slot(composer, "references"));
    composer.connect(0, report, slot(report, "layout"));
    tiny.connect(0, patch, slot(patch, "model"));
    patch.connect(0, shift, slot(shift, "model"));
    shift.connect(0, report, slot(report, "model"));
    app.canvas.ds.scale = 0.7;
    app.canvas.ds.offset = [10, 60];
    app.canvas.setDirty(true, true);
  }, name);
}

/** What the notes of a node say on the screen. @param {import("playwright-core").Page} page @param {string} type @param {boolean} elements */
async function notesOf(page, type, elements) {
  return page.evaluate(([wanted, shown]) => {
    const node = window.app.graph.nodes.find((each) => each.type === wanted);
    const widget = node.widgets?.find((each) => each.name === "contextgen_notes");
    if (!widget || widget.hidden) return "";
    if (!shown) return String(widget.value);
    const root = widget.element.shadowRoot.querySelector(".notes");
    const { width, height } = root.getBoundingClientRect();
    return width > 50 && height > 20 ? [...root.querySelectorAll("li, pre")].filter((each) => !each.hidden).map((each) => each.textContent).join("\n") : "";
  }, [type, elements]);
}

/** @param {import("playwright-core").Page} page @param {string} type @param {boolean} elements @param {RegExp} wanted */
async function says(page, type, elements, wanted) {
  let last = "";
  for (let tries = 0; tries < 80; tries += 1) {
    last = await notesOf(page, type, elements);
    if (wanted.test(last)) return last;
    await page.waitForTimeout(250);
  }
  throw new Error(`${type} says ${JSON.stringify(last)}, not ${wanted}`);
}

async function theGraphSaysWhatDiffers(page, elements) {
  await says(page, "LayoutComposer", elements, /256 × 128.*128 × 128/);
  await page.evaluate(() => {
    const { nodes } = window.app.graph;
    const [composer, shift] = ["LayoutComposer", "ModelSamplingFlux"].map((type) => nodes.find((node) => node.type === type));
    for (const name of ["width", "height"]) {
      const from = composer.outputs.findIndex((output) => output.name === name || output.name === `${name}_out`);
      composer.connect(from, shift, shift.inputs.findIndex((input) => input.name === name));
    }
  });
  await says(page, "LayoutComposer", elements, /^$/);
}

async function aRunSaysWhatItFound(page, elements) {
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  const report = await says(page, "ContextGenReport", elements, /tokens[\s\S]*attention per step/);
  assert.doesNotMatch(report, /sampling shift/, "width and height are connected");
  await says(page, "ReferenceBundle", elements, /subject and ground are probably exchanged/);
  if (!elements) return;
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run({ include: [[".contextgen-notes"]] }));
  assert.deepEqual(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)]), []);
  const serialized = await page.evaluate(() => JSON.stringify(window.app.graph.serialize()));
  assert.ok(!serialized.includes("attention per step"), "notes are no part of the workflow");
}

async function anErrorStandsOnItsNodes(page, elements) {
  await page.evaluate(() => {
    const composer = window.app.graph.nodes.find((node) => node.type === "LayoutComposer");
    composer.widgets.find((widget) => widget.name === "layout").value = "four boxes, please";
  });
  await page.waitForTimeout(600);
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  await says(page, "LayoutComposer", elements, /^LayoutComposer, layout: .*JSON/);
  await page.evaluate(() => {
    document.querySelectorAll(".p-dialog-mask").forEach((mask) => mask.remove());
    const composer = window.app.graph.nodes.find((node) => node.type === "LayoutComposer");
    composer.widgets.find((widget) => widget.name === "layout").value = "";
  });
  await page.waitForTimeout(600);
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  await says(page, "LayoutComposer", elements, /^(?!LayoutComposer, )/);
}
