/**
 * The frames of scripts/record.py: two creatures get their boxes by drag and drop in *tiny_two_subjects*, then it runs.
 *
 *     COMFYUI_PATH=~/comfy/ComfyUI node scripts/record.mjs FOLDER
 */

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";

import { launch, openPage, settled } from "../tests/browser/page.mjs";
import { uploadBytes } from "../tests/browser/pictures.mjs";
import { hosts, ROOT, startServer } from "../tests/browser/server.mjs";

const [folder] = process.argv.slice(2);
const SHOWN = { width: 800, height: 760 };
const FROM = { disc: [6, 26], heart: [58, 44] }; // a corner of each box, percent of the stage
const TO = { disc: [54, 74], heart: [92, 84] };
const SHORT = 90;
const LONG = 900;

const [comfy] = hosts();
if (!comfy) throw new Error("no ComfyUI found: set COMFYUI_PATH");
const server = await startServer(comfy);
const browser = await launch();
const frames = [];
try {
  const { page } = await openPage(browser.context, server.url, { vue: true, settings: { "Comfy.ColorPalette": "dark" } });
  page.setDefaultTimeout(240000);
  await page.setViewportSize(SHOWN);
  for (const number of [2, 4]) {
    const name = `contextgen_creature_${number}.png`;
    await uploadBytes(server.url, name, await readFile(path.join(ROOT, "assets", "samples", name)));
  }
  const template = JSON.parse(await readFile(path.join(ROOT, "workflows", "tiny_two_subjects.json"), "utf8"));
  const composer = template.nodes.find((node) => node.type === "LayoutComposer");
  composer.widgets_values[2] = "";
  await page.evaluate(async (workflow) => {
    await window.app.loadGraphData(workflow);
    const { nodes } = window.app.graph;
    const [layout, save] = ["LayoutComposer", "SaveImage"].map((type) => nodes.find((node) => node.type === type));
    // Side by side, as large as they can be: what is drawn, and what comes out of it.
    save.pos = [layout.pos[0] + layout.size[0] + 30, layout.pos[1]];
    save.setSize([600, 760]);
    Object.assign(window.app.canvas.ds, { scale: 0.5, offset: [180 - layout.pos[0], 190 - layout.pos[1]] });
    for (const node of nodes) if (node !== layout && node !== save) node.pos = [node.pos[0] - 6000, node.pos[1]];
    for (const group of window.app.graph.groups ?? []) group.pos = [group.pos[0] - 6000, group.pos[1]];
    window.app.canvas.setDirty(true, true);
  }, template);
  await settled(page);
  await page.waitForTimeout(2500);
  await page.addStyleTag({ content: "#pointer { position: fixed; z-index: 99999; width: 14px; height: 14px; margin: -7px; border-radius: 50%; background: #ffd21e; border: 2px solid #222; pointer-events: none }" });
  await page.evaluate(() => document.body.append(Object.assign(document.createElement("div"), { id: "pointer" })));
  const stage = await page.locator(".contextgen-editor .stage:visible").first().boundingBox();
  const at = ([x, y]) => [stage.x + (stage.width * x) / 100, stage.y + (stage.height * y) / 100];
  await shoot(page, [stage.x + stage.width / 2, stage.y + stage.height / 2], LONG);
  for (const name of ["disc", "heart"]) {
    const [from, to] = [at(FROM[name]), at(TO[name])];
    await page.mouse.move(...from);
    await shoot(page, from, 3 * SHORT);
    await page.mouse.down();
    for (let step = 1; step <= 8; step += 1) {
      const here = from.map((value, axis) => value + ((to[axis] - value) * step) / 8);
      await page.mouse.move(...here);
      await shoot(page, here, SHORT);
    }
    await page.mouse.up();
    await page.waitForTimeout(500);
    await shoot(page, to, LONG);
  }
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  await shoot(page, at([50, 110]), LONG);
  await page.waitForFunction(() => {
    const save = window.app.graph.nodes.find((node) => node.type === "SaveImage");
    return [...document.querySelectorAll(`[data-node-id="${save.id}"] img`)].some((image) => image.naturalWidth);
  });
  await page.waitForTimeout(1500);
  await shoot(page, at([50, 110]), 3 * LONG);
  await writeFile(path.join(folder, "frames.json"), JSON.stringify(frames));
} finally {
  await browser.close();
  await server.stop();
}

/** @param {import("playwright-core").Page} page @param {number[]} pointer @param {number} ms */
async function shoot(page, pointer, ms) {
  await page.evaluate(([x, y]) => Object.assign(document.getElementById("pointer").style, { left: `${x}px`, top: `${y}px` }), pointer);
  const file = `${String(frames.length).padStart(3, "0")}.png`;
  await page.screenshot({ path: path.join(folder, file) });
  frames.push({ file, ms });
}
