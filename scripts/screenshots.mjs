/**
 * Makes the pictures of the editor in web/docs/LayoutComposer: both renderers, light and dark, and the large editor.
 *
 *     COMFYUI_PATH=~/comfy/ComfyUI node scripts/screenshots.mjs
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";

import { drag, launch, openPage } from "../tests/browser/page.mjs";
import { addScene, run, uploadBytes } from "../tests/browser/pictures.mjs";
import { hosts, ROOT, startServer } from "../tests/browser/server.mjs";

const OUT = path.join(ROOT, "web", "docs", "LayoutComposer");
const SAMPLES = path.join(ROOT, "assets", "samples");
const SUBJECTS = [["astronaut", "Astronaut"], ["shuttle", "Shuttle"], ["cat", "Cat"], ["cup", "Cup"]];
const LAYOUT = JSON.stringify({
  v: 1,
  canvas: { w: 1024, h: 1024 },
  boxes: [
    { id: "b1", x: 600, y: 40, w: 300, h: 560, ref: "Shuttle" },
    { id: "b2", x: 60, y: 170, w: 520, h: 790, ref: "Astronaut" },
    { id: "b3", x: 480, y: 560, w: 360, h: 400, ref: "Cat", rot: -12 },
    { id: "b4", x: 40, y: 40, w: 300, h: 110, ref: null, label: "a bright moon" },
  ],
});

const [comfy] = hosts();
if (!comfy) throw new Error("no ComfyUI found: set COMFYUI_PATH");
const server = await startServer(comfy);
const browser = await launch();
try {
  await mkdir(OUT, { recursive: true });
  for (const vue of [false, true]) {
    for (const theme of ["dark", "light"]) await shoot(vue, theme);
  }
} finally {
  await browser.close();
  await server.stop();
}

async function shoot(vue, theme) {
  const { page } = await openPage(browser.context, server.url, { vue, settings: { "Comfy.ColorPalette": theme } });
  const files = [];
  for (const [sample, name] of SUBJECTS) {
    const bytes = await readFile(path.join(SAMPLES, `contextgen_${sample}.png`));
    files.push({ file: await uploadBytes(server.url, `contextgen_${sample}.png`, bytes), name });
  }
  await addScene(page, { files, layout: LAYOUT, x: 120, y: 90 });
  await page.locator('.contextgen-editor [data-box="b3"]').focus();
  await page.keyboard.press("Enter");
  await page.mouse.move(1200, 1100);
  await page.waitForTimeout(900);
  const renderer = vue ? "nodes2" : "legacy";
  const node = await page.locator(".contextgen-editor").first().boundingBox();
  await save(page, `editor-${renderer}-${theme}`, { x: node.x - 24, y: node.y - 310, width: node.width + 48, height: node.height + 340 });
  if (vue) {
    await run(page, server.url);
    await page.locator(".contextgen-editor [data-tool=large]").click();
    await page.setViewportSize({ width: 1100, height: 760 });
    await page.locator("dialog .stage").waitFor();
    await page.waitForTimeout(900);
    await drag(page, [65, 75], [65, 75]);
    await page.waitForTimeout(700);
    await save(page, `editor-large-${theme}`);
  }
  await page.setViewportSize({ width: 1300, height: 1150 });
  await page.close();
}

async function save(page, name, clip) {
  const size = page.viewportSize();
  const [x, y] = [Math.max(0, clip?.x ?? 0), Math.max(0, clip?.y ?? 0)];
  const area = { x, y, width: Math.min(clip?.width ?? size.width, size.width - x), height: Math.min(clip?.height ?? size.height, size.height - y) };
  const png = await page.screenshot({ clip: area });
  // The browser's own encoder makes them small.
  const data = await page.evaluate(async (bytes) => {
    const image = new Image();
    image.src = `data:image/png;base64,${bytes}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.86);
  }, png.toString("base64"));
  const bytes = Buffer.from(data.split(",")[1], "base64");
  await writeFile(path.join(OUT, `${name}.webp`), bytes);
  console.log(name, `${Math.round(bytes.length / 1024)} kB`);
}
