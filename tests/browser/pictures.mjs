/** Pictures of made-up subjects with transparent backgrounds, drawn by the browser and uploaded like a user's. */

import { settled } from "./page.mjs";



/**
 * Draws one subject. Runs inside the page.
 * @param {string} kind @param {{w: number, h: number}} size @returns {Promise<string>} a data URL
 */
async function drawSubject({ kind, size }) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [size.w, size.h];
  const c = canvas.getContext("2d");
  // All of them are drawn on a 100 x 100 field in the middle of the picture.
  const k = Math.min(size.w, size.h) / 100;
  c.translate(size.w / 2 - 50 * k, size.h / 2 - 50 * k);
  c.scale(k, k);
  const fill = (colour, draw) => {
    c.beginPath();
    draw();
    c.fillStyle = colour;
    c.fill();
  };
  const oval = (colour, x, y, rx, ry, turn = 0) => fill(colour, () => c.ellipse(x, y, rx, ry, turn, 0, 7));
  const shape = (colour, ...points) => fill(colour, () => points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y))));
  const shade = (from, to, y1, y2) => {
    const gradient = c.createLinearGradient(0, y1, 0, y2);
    gradient.addColorStop(0, from);
    gradient.addColorStop(1, to);
    return gradient;
  };
  if (kind === "fox") {
    shape("#c65a1c", [24, 34], [28, 8], [46, 26]);
    shape("#c65a1c", [76, 34], [72, 8], [54, 26]);
    shape("#3a2418", [28, 26], [30, 14], [39, 25]);
    shape("#3a2418", [72, 26], [70, 14], [61, 25]);
    oval(shade("#f08a3c", "#d0651f", 20, 60), 50, 42, 28, 22);
    shape("#fff3e4", [26, 46], [50, 68], [42, 40]);
    shape("#fff3e4", [74, 46], [50, 68], [58, 40]);
    oval("#2a1a12", 50, 62, 4, 3);
    oval("#2a1a12", 39, 42, 3, 3.6);
    oval("#2a1a12", 61, 42, 3, 3.6);
    oval("#ffffff", 40, 41, 1, 1);
    oval("#ffffff", 62, 41, 1, 1);
    fill(shade("#e5742a", "#b94f17", 64, 96), () => c.roundRect(32, 66, 36, 30, 14));
    oval("#fff3e4", 50, 82, 9, 12);
  } else if (kind === "robot") {
    fill("#4b5b6b", () => c.roundRect(48, 5, 4, 12, 2));
    oval("#ff5d5d", 50, 6, 4, 4);
    fill(shade("#9fb6c9", "#6d8599", 15, 45), () => c.roundRect(26, 15, 48, 32, 9));
    fill("#16222e", () => c.roundRect(32, 22, 36, 17, 7));
    oval("#56f0d0", 42, 30, 4, 4);
    oval("#56f0d0", 58, 30, 4, 4);
    fill(shade("#b9cad8", "#7c93a6", 50, 84), () => c.roundRect(30, 50, 40, 34, 8));
    fill("#e8b23a", () => c.roundRect(42, 58, 16, 12, 3));
    for (const x of [17, 75]) fill("#6d8599", () => c.roundRect(x, 52, 8, 26, 4));
    for (const x of [35, 55]) fill("#4b5b6b", () => c.roundRect(x, 84, 10, 12, 3));
  } else if (kind === "tree") {
    fill(shade("#8a5a35", "#5d3a20", 60, 98), () => c.roundRect(44, 58, 12, 40, 3));
    for (const [x, y, r] of [[50, 24, 20], [32, 40, 19], [68, 40, 19], [50, 48, 21]]) oval(shade("#5cb85c", "#2c7a3d", y - r, y + r), x, y, r, r);
    for (const [x, y] of [[40, 28], [60, 36], [34, 48], [56, 52], [70, 44]]) oval("#e8453c", x, y, 3, 3);
  } else {
    oval(shade("#7d6bd6", "#4b3aa3", 10, 92), 50, 52, 30, 42);
    oval("#f5d76e", 50, 52, 12, 12);
    for (const [x, y] of [[38, 26], [62, 26], [38, 78], [62, 78]]) oval("#ffffff", x, y, 4, 4);
  }
  return canvas.toDataURL("image/png");
}

/**
 * Uploads a subject's picture into the server's input folder.
 * @param {import("playwright-core").Page} page @param {string} url @param {string} kind @param {{w: number, h: number}} [size]
 * @returns {Promise<string>} the file's name
 */
export async function upload(page, url, kind, size = { w: 480, h: 480 }) {
  const data = await page.evaluate(drawSubject, { kind, size });
  return uploadBytes(url, `${kind}_${size.w}x${size.h}.png`, Buffer.from(data.split(",")[1], "base64"));
}

/** @param {string} url @param {string} name @param {Buffer} bytes @returns {Promise<string>} the file's name on the server */
export async function uploadBytes(url, name, bytes) {
  const form = new FormData();
  form.append("image", new Blob([bytes], { type: "image/png" }), name);
  form.append("overwrite", "true");
  const answer = await fetch(`${url}/upload/image`, { method: "POST", body: form });
  return (await answer.json()).name;
}

/**
 * A graph with a chain of references: loader, bundle, ... and the composer.
 * @param {import("playwright-core").Page} page
 * @param {{files: readonly {file: string, name: string}[], layout?: string, x?: number, y?: number, side?: number,
 *   fit?: string, boxes?: string}} parts  boxes: text for the input of that name
 * @returns {Promise<number>} the composer's id
 */
export async function addScene(page, { files, layout = "", x = 80, y = 60, side = 1024, fit = "instance", boxes = "" }) {
  const id = await page.evaluate(
    ({ list, text, left, top, size, rule, upstream }) => {
      const { app, LiteGraph } = window;
      app.canvas.ds.scale = 1;
      app.canvas.ds.offset = [0, 0];
      const make = (type, at) => {
        const node = LiteGraph.createNode(type);
        node.pos = at;
        app.graph.add(node);
        return node;
      };
      const set = (node, name, value) => (node.widgets.find((widget) => widget.name === name).value = value);
      const composer = make("LayoutComposer", [left, top]);
      for (const [name, value] of [["width", size], ["height", size], ["fit", rule]]) set(composer, name, value);
      if (upstream) {
        const source = make("PrimitiveStringMultiline", [4000, 60]);
        source.widgets[0].value = upstream;
        source.connect(0, composer, composer.inputs.findIndex((input) => input.name === "boxes"));
      }
      const shown = make("PreviewImage", [2600, 60]);
      composer.connect(1, shown, 0);
      let last = null;
      list.forEach(({ file, name }, i) => {
        const loader = make("LoadImage", [-3000, 600 * i]);
        const combo = loader.widgets.find((widget) => widget.name === "image");
        if (Array.isArray(combo.options?.values) && !combo.options.values.includes(file)) combo.options.values.push(file);
        set(loader, "image", file);
        const bundle = make("ReferenceBundle", [-2500, 600 * i]);
        set(bundle, "name", name);
        set(bundle, "invert_mask", true);
        const slot = (wanted) => bundle.inputs.findIndex((input) => input.name === wanted);
        loader.connect(0, bundle, slot("image"));
        loader.connect(1, bundle, slot("subject_mask"));
        if (last) last.connect(0, bundle, slot("references"));
        last = bundle;
      });
      if (last) last.connect(0, composer, composer.inputs.findIndex((input) => input.name === "references"));
      if (text) set(composer, "layout", text);
      app.canvas.setDirty(true, true);
      return composer.id;
    },
    { list: files, text: layout, left: x, top: y, size: side, rule: fit, upstream: boxes },
  );
  await page.locator(".contextgen-editor .thumb:visible").nth(files.length - 1).waitFor();
  await settled(page);
  return id;
}

/** Queues the graph and waits for its end. @param {import("playwright-core").Page} page @param {string} url @returns {Promise<any>} the outputs by node */
export async function run(page, url) {
  const before = Object.keys(await (await fetch(`${url}/history`)).json());
  await page.evaluate(() => window.app.queuePrompt(0, 1));
  for (let tries = 0; tries < 120; tries += 1) {
    const history = await (await fetch(`${url}/history`)).json();
    const [entry] = Object.keys(history).filter((id) => !before.includes(id)).map((id) => history[id]);
    if (entry?.status?.completed) {
      await page.waitForTimeout(300);
      return entry.outputs;
    }
    if (entry?.status?.status_str === "error") throw new Error(JSON.stringify(entry.status.messages).slice(0, 2000));
    await page.waitForTimeout(250);
  }
  throw new Error("the run did not end");
}

/** Queues the graph again and waits. @param {import("playwright-core").Page} page @param {string} url @returns {Promise<string[]>} ids of the nodes that really ran */
export async function executed(page, url) {
  await run(page, url);
  const history = Object.values(await (await fetch(`${url}/history`)).json());
  const { status, prompt } = history.reduce((a, b) => (a.prompt[0] > b.prompt[0] ? a : b));
  const cached = status.messages.filter(([type]) => type === "execution_cached").flatMap(([, { nodes }]) => nodes);
  return Object.keys(prompt[2]).filter((id) => !cached.includes(id));
}

/** Drops a picture of a subject from outside on the stage. @param {import("playwright-core").Page} page @param {string} kind @param {string} name @param {[number, number]} at  percent of the stage */
export async function dropPicture(page, kind, name, at) {
  const data = await page.evaluate(drawSubject, { kind, size: { w: 300, h: 300 } });
  const rect = await page.locator(".contextgen-editor .stage:visible").first().boundingBox();
  await page.evaluate(async ({ url, file, x, y }) => {
    const blob = await (await fetch(url)).blob();
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([blob], file, { type: "image/png" }));
    const host = [...document.querySelectorAll(".contextgen-editor")].find((each) => each.offsetParent !== null);
    const stage = host.shadowRoot.querySelector(".stage");
    for (const type of ["dragenter", "dragover", "drop"]) {
      stage.dispatchEvent(new DragEvent(type, { dataTransfer, clientX: x, clientY: y, bubbles: true, composed: true, cancelable: true }));
    }
  }, { url: data, file: name, x: rect.x + (rect.width * at[0]) / 100, y: rect.y + (rect.height * at[1]) / 100 });
}

/**
 * Mean absolute difference, 0..255, between what the large editor shows before a run and the composite of the run.
 * @param {import("playwright-core").Page} page @param {string} url @param {number} id @returns {Promise<number>}
 */
export async function compareWithRun(page, url, id) {
  await page.locator(".contextgen-editor [data-tool=large]").click();
  await page.locator("dialog .stage").waitFor();
  await page.waitForTimeout(900);
  await page.evaluate(() => {
    const canvas = document.querySelector("dialog .contextgen-editor").shadowRoot.querySelector(".paint");
    window.shownPixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  });
  await page.locator('dialog [aria-label="Close"]').first().click();
  const outputs = await run(page, url);
  const [file] = outputs[id].images;
  return page.evaluate(async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const shown = window.shownPixels;
    if (shown.width !== canvas.width || shown.height !== canvas.height) throw new Error(`${shown.width} x ${shown.height}`);
    let sum = 0;
    for (let p = 0; p < data.length; p += 4) for (let c = 0; c < 3; c += 1) sum += Math.abs(data[p + c] - shown.data[p + c]);
    return sum / ((data.length / 4) * 3);
  }, `/view?${new URLSearchParams(file)}`);
}
