/** The cut-out editor in a real browser on a real ComfyUI: clicks reach the input, survive a reload, and the run shows its mask. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { CHROMIUM, count, empty, launch, openPage } from "./page.mjs";
import { run } from "./pictures.mjs";
import { frontendOf, hosts, ROOT, startServer } from "./server.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PHOTO = path.join(ROOT, "assets", "samples", "contextgen_photo.png");
const found = existsSync(CHROMIUM) ? hosts() : [];
const missing = existsSync(CHROMIUM) ? "no ComfyUI found: set COMFYUI_PATH" : `no Chromium at ${CHROMIUM}: set CHROMIUM_PATH`;

if (!found.length) test("the cut-out editor in a browser", { skip: missing });
for (const comfy of found) {
  describe(path.basename(comfy), () => {
    let server;
    let browser;
    before(async () => {
      server = await startServer(comfy);
      browser = await launch();
      const form = new FormData();
      form.append("image", new Blob([readFileSync(PHOTO)]), "contextgen_photo.png");
      await fetch(`${server.url}/upload/image`, { method: "POST", body: form });
    });
    after(async () => {
      await browser?.close();
      await server?.stop();
    });
    for (const vue of [false, true]) {
      if (vue && frontendOf(comfy) < 30) continue; // that renderer shows no elements of extensions: the text field stays
      test(vue ? "Nodes 2.0" : "legacy renderer", async () => {
        const { page, problems } = await openPage(browser.context, server.url, { vue });
        await empty(page);
        await clicksReachTheInput(page);
        await theRunShowsItsMask(page);
        await theBrushMendsTheMask(page, server.url);
        await theEditorOutlivesTheGraphsUndo(page);
        assert.deepEqual(problems, []);
        await page.close();
      });
    }
  });
}

/** Load Image and a cut-out by mask, which needs no weights. @param {import("playwright-core").Page} page */
async function addCutout(page) {
  await page.evaluate(() => {
    const { app, LiteGraph } = window;
    const load = LiteGraph.createNode("LoadImage");
    const cutout = LiteGraph.createNode("ContextGenCutout");
    for (const [node, x] of [[load, 0], [cutout, 360]]) {
      node.pos = [x, 60];
      app.graph.add(node);
    }
    load.widgets.find((widget) => widget.name === "image").value = "contextgen_photo.png";
    cutout.widgets.find((widget) => widget.name === "source").value = "plain background";
    cutout.widgets.find((widget) => widget.name === "tolerance").value = 0.5;
    load.connect(0, cutout, cutout.inputs.findIndex((input) => input.name === "image"));
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [20, 20];
    app.canvas.setDirty(true, true);
  });
  await page.locator(".contextgen-cutout .stage").waitFor();
  await page.waitForTimeout(800);
}

/** @param {import("playwright-core").Page} page */
async function promptsOf(page) {
  const text = await page.evaluate(async () => {
    const { output } = await window.app.graphToPrompt();
    return Object.values(output).find((node) => node.class_type === "ContextGenCutout").inputs.prompts;
  });
  return text ? JSON.parse(text) : null;
}

/** The node as it is with a model that clicks are for, which this place has not, or as it runs here. @param {import("playwright-core").Page} page @param {boolean} model */
async function choose(page, model) {
  await page.evaluate((on) => {
    const node = window.app.graph.nodes.find((each) => each.type === "ContextGenCutout");
    for (const [name, value] of [["source", on ? "automatic" : "plain background"], ["sam_model", on ? "sam_vit_b.safetensors" : "none"]]) {
      const widget = node.widgets.find((each) => each.name === name);
      widget.value = value;
      widget.callback?.(value);
    }
  }, model);
  await page.waitForTimeout(600);
}

/** @param {import("playwright-core").Page} page */
async function clicksReachTheInput(page) {
  await addCutout(page);
  let stage = await page.locator(".contextgen-cutout .stage").boundingBox();
  const at = (x, y) => [stage.x + stage.width * x, stage.y + stage.height * y];
  // Clicks that the node would not use are not taken, and it says why.
  await page.mouse.click(...at(0.25, 0.75));
  assert.equal(await promptsOf(page), null);
  assert.match(await page.locator(".contextgen-cutout .status").textContent(), /without clicks/);
  await choose(page, true);
  stage = await page.locator(".contextgen-cutout .stage").boundingBox();
  await page.mouse.click(...at(0.25, 0.75));
  await page.keyboard.down("Shift");
  await page.mouse.click(...at(0.75, 0.25));
  await page.keyboard.up("Shift");
  await page.mouse.move(...at(0.1, 0.2));
  await page.mouse.down();
  await page.mouse.move(...at(0.6, 1.3), { steps: 4 }); // out of the picture: the gesture holds on and the box is cut there
  await page.mouse.up();
  const { picture, points, box } = await promptsOf(page);
  assert.deepEqual(picture, { w: 384, h: 384 });
  assert.deepEqual(points.map((point) => point.keep), [true, false]);
  const near = (value, want) => assert.ok(Math.abs(value - want) < 4, `${value} is not ${want}`);
  near(points[0].x, 96);
  near(points[0].y, 288);
  near(box.x, 38);
  assert.equal(box.y + box.h, 384);
  await page.keyboard.press("Control+z");
  assert.equal((await promptsOf(page)).box, null);
  assert.equal(await count(page, "ContextGenCutout"), 1, "the graph's own undo stayed out of it");
  await page.evaluate(async () => window.app.loadGraphData(JSON.parse(JSON.stringify(window.app.graph.serialize()))));
  await page.locator(".contextgen-cutout .point").nth(1).waitFor();
  assert.equal((await promptsOf(page)).points.length, 2);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document.querySelector(".contextgen-cutout")));
  assert.deepEqual(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)]), []);
}

/** @param {import("playwright-core").Page} page */
async function theRunShowsItsMask(page) {
  await choose(page, false);
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  const mask = page.locator(".contextgen-cutout canvas.mask");
  await page.waitForFunction(() => {
    const canvas = document.querySelector(".contextgen-cutout")?.shadowRoot?.querySelector("canvas.mask");
    return canvas && !canvas.hidden && canvas.width === 384;
  }, null, { timeout: 60000 });
  assert.ok(!(await mask.getAttribute("class")).includes("stale"));
  await page.locator(".contextgen-cutout .point").first().focus();
  await page.keyboard.press("Delete");
  assert.ok((await mask.getAttribute("class")).includes("stale"));
}

/** Strokes in the large view, live on the mask, and the same after a run. @param {import("playwright-core").Page} page @param {string} url */
async function theBrushMendsTheMask(page, url) {
  await page.locator(".contextgen-cutout .tool[aria-label^='Open large']").click();
  await page.locator("dialog .stage").waitFor();
  await page.waitForTimeout(400);
  const stage = await page.locator("dialog .stage").boundingBox();
  assert.ok(stage.width > 500);
  const at = (x, y) => [stage.x + stage.width * x, stage.y + stage.height * y];
  const pull = async (from, to) => {
    await page.mouse.move(...at(...from));
    await page.mouse.down();
    await page.mouse.move(...at(...to), { steps: 8 });
    await page.mouse.up();
  };
  await page.locator("dialog .tool[aria-label^='Brush']").click();
  await pull([0.05, 0.05], [0.3, 0.05]);
  await page.locator("dialog .tool[aria-label^='Eraser']").click();
  await pull([0.15, 0.05], [0.16, 0.05]);
  const { strokes } = await promptsOf(page);
  assert.deepEqual(strokes.map((stroke) => stroke.keep), [true, false]);
  // Alpha of the mask that is shown, at three places along the stroke.
  const shown = () => page.evaluate(() => {
    const host = document.querySelector("dialog .contextgen-cutout") ?? document.querySelector(".contextgen-cutout");
    const canvas = host.shadowRoot.querySelector("canvas.mask");
    const { data } = canvas.getContext("2d").getImageData(0, Math.round(0.05 * canvas.height), canvas.width, 1);
    return [0.07, 0.155, 0.28].map((x) => data[4 * Math.round(x * canvas.width) + 3]);
  });
  assert.deepEqual(await shown(), [255, 0, 255]);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document.querySelector("dialog")));
  assert.deepEqual(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)]), []);
  await page.locator("dialog [aria-label='Close']").first().click();
  const outputs = await run(page, url);
  const told = Object.values(outputs).find((output) => output.contextgen_cutout).contextgen_cutout[0];
  const alphas = await page.evaluate(async (file) => {
    const image = new Image();
    image.src = `/view?${new URLSearchParams(file)}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return [0.07, 0.155, 0.28].map((x) => canvas.getContext("2d").getImageData(Math.round(x * canvas.width), Math.round(0.05 * canvas.height), 1, 1).data[0]);
  }, told.mask);
  assert.deepEqual(alphas, [255, 0, 255]);
  await page.waitForTimeout(400);
  assert.ok(!(await page.locator(".contextgen-cutout canvas.mask").getAttribute("class")).includes("stale"));
}

/** @param {import("playwright-core").Page} page */
async function theEditorOutlivesTheGraphsUndo(page) {
  const cutout = page.locator(".contextgen-cutout .stage:visible");
  await choose(page, true);
  // A click, then Delete: the click's point goes, the node stays.
  await page.evaluate(() => window.app.canvas.selectItems([window.app.graph.nodes.find((node) => node.type === "ContextGenCutout")]));
  await page.locator(".contextgen-cutout .tool[aria-label^='Click: keep']").click();
  const box = await cutout.boundingBox();
  await page.mouse.click(box.x + box.width * 0.9, box.y + box.height * 0.9);
  const points = (await promptsOf(page)).points.length;
  await page.keyboard.press("Delete");
  await page.locator(".contextgen-cutout .tool").first().focus();
  await page.keyboard.press("Delete");
  await page.waitForTimeout(200);
  assert.equal(await count(page, "ContextGenCutout"), 1);
  await page.mouse.click(box.x + box.width * 0.1, box.y + box.height * 0.9);
  await page.waitForTimeout(300);
  await page.evaluate(() => window.app.extensionManager.workflow.activeWorkflow.changeTracker.undo());
  await page.waitForTimeout(1500);
  const before = (await promptsOf(page)).points.length;
  assert.equal(await page.locator(".contextgen-cutout .point:visible").count(), before, "what is shown is what the node says");
  const now = await cutout.boundingBox();
  await page.mouse.click(now.x + now.width * 0.5, now.y + now.height * 0.95);
  assert.equal((await promptsOf(page)).points.length, before + 1, `${points}`);
  await page.keyboard.press("Control+z");
  await page.keyboard.press("Control+z");
  assert.notEqual((await promptsOf(page)).points.length, before + 1);
}
