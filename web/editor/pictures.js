/**
 * New references from inside the editor: a picture dropped, pasted or chosen becomes nodes of the graph, a name, and a box.
 */

import { element, iconButton } from "../kit/dom.js";
import { MAX_REQUEST } from "../scene/requests.js";
import { cleanText, MAX_BOXES, MAX_LABEL, MAX_REF, nextId } from "../scene/schema.js";
import { besideOthers } from "./commands.js";
import { readLayers, seenOf } from "./layered.js";

/** @typedef {{blob: Blob | null, name: string, opacity: number, share: import("../scene/schema.js").Rect}} Sheet  a cut-out (null: a clear layer), and where it lies in shares of the canvas */

const MAX_FILE = 64 * 1024 * 1024;
/** Room for what `layered_write.js` may write. */
const MAX_LAYERED = 160 * 1024 * 1024;
const LOOK_SIDE = 256;
/** Distance between two colours, of 255 * sqrt(3), below which they count as one ground. */
const PLAIN = 24;

export class Pictures {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.signal = signal;
    const { t } = view;
    this.button = iconButton("picture", t("addPicture"), { class: "add-picture" });
    this.button.append(element("span", { text: t("addPicture") }));
    this.file = element("input", { type: "file", accept: "image/png,image/jpeg,image/webp,application/json,.json,.psd", multiple: true, hidden: true, "aria-label": t("addPicture"), tabindex: -1 });
    this.name = element("input", { type: "text", maxlength: MAX_REF, "aria-label": t("nameIt") });
    this.form = element("form", { class: "naming", hidden: true }, element("span", { text: t("nameIt") }), this.name, element("button", { type: "submit", text: t("ok") }));
    /** @type {(() => void) | null} */
    this.named = null;
    this.button.addEventListener("click", () => this.file.click(), { signal });
    this.file.addEventListener("change", () => {
      void this.#addAll([...(this.file.files ?? [])], null);
      this.file.value = "";
    }, { signal });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.named?.();
    }, { signal });
    this.name.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.name.value = "";
      this.named?.();
    }, { signal });
  }

  update() {
    const { commands } = this.view;
    this.button.disabled = !commands.canEdit;
  }

  /** @param {HTMLElement} root */
  listen(root) {
    const { signal } = this;
    // Without this the host would make an unwired node of the file, or the browser leave the page.
    for (const type of /** @type {const} */ (["dragenter", "dragover"])) {
      root.addEventListener(type, (event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        event.stopPropagation();
        event.dataTransfer.dropEffect = "copy";
        this.view.stage.showTarget(this.view.stage.target(event.clientX, event.clientY)?.box?.id ?? null);
      }, { signal });
    }
    root.addEventListener("dragleave", () => this.view.stage.showTarget(null), { signal });
    root.addEventListener("drop", (event) => {
      this.view.stage.showTarget(null);
      if (!this.take(event.dataTransfer, this.view.stage.target(event.clientX, event.clientY))) return;
      event.preventDefault();
      event.stopPropagation();
    }, { signal });
  }

  /**
   * @param {DataTransfer | null} data @param {{x: number, y: number, box: import("../scene/schema.js").Box | null} | null} at
   * @returns {boolean} whether there were pictures in it
   */
  take(data, at) {
    const files = [...(data?.files ?? [])].filter((file) => /^image\/(png|jpeg|webp)$/.test(file.type) || isLayout(file) || isLayered(file));
    if (!files.length) return false;
    void this.#addAll(files, at);
    return true;
  }

  /** Each layer becomes a reference, and a box where it lies; a clear one a box without a picture. @param {string} file  its name @param {readonly Sheet[]} layers */
  async #addLayers(file, layers) {
    const { store, commands, t } = this.view;
    let added = 0;
    for (const { blob, name, opacity, share } of layers) {
      if (store.state.layout.boxes.length >= MAX_BOXES) break;
      const { canvas } = store.state.layout;
      const rect = { x: share.x * canvas.w, y: share.y * canvas.h, w: share.w * canvas.w, h: share.h * canvas.h };
      if (!blob) {
        if (commands.canPlace && store.dispatch({ type: "add", rect, label: cleanText(name, MAX_LABEL) })) added += 1;
        continue;
      }
      const ref = this.#freeName(cleanText(name, MAX_REF).trim() || "Subject");
      const then = () => {
        if (!commands.canPlace) return;
        const id = nextId(store.state.layout.boxes);
        store.begin();
        store.preview({ type: "add", rect, ref }, { type: "layer", ids: [id], change: { opacity } });
        store.commit();
      };
      try {
        await this.view.callbacks.onPicture({ file: blob, name: ref, cut: "alpha", then });
        added += 1;
      } catch {
        return this.view.announce(t("saidNoUpload", { name: ref }));
      }
      if (this.signal.aborted) return;
    }
    this.view.announce(added ? t("saidLayers", { name: file, count: added }) : t("saidNoLayers", { name: file }));
  }

  /** Boxes from a file: a layout, or a request of the authors. @param {File} file */
  async #addBoxes(file) {
    const text = file.size <= MAX_REQUEST ? await file.text() : "";
    if (!this.signal.aborted) this.view.commands.paste(text);
  }

  /** @param {readonly File[]} files @param {{x: number, y: number, box: import("../scene/schema.js").Box | null} | null} at */
  async #addAll(files, at) {
    const { commands, t } = this.view;
    if (!commands.canEdit) return;
    const sheets = await layersIn(files);
    if (this.signal.aborted) return;
    if (sheets) return this.#addLayers(files[0].name, sheets);
    for (const file of files) {
      if (isLayout(file) || isLayered(file)) {
        await (isLayout(file) ? this.#addBoxes(file) : this.#addLayers(file.name, await layersOf(file)));
        continue;
      }
      const found = file.size <= MAX_FILE ? await lookAt(file) : null;
      if (this.signal.aborted) return;
      if (!found) {
        this.view.announce(t("saidNoPicture", { name: file.name }));
        continue;
      }
      const name = this.#freeName(await this.#askName(file.name.replace(/\.\w+$/, "")));
      try {
        await this.view.callbacks.onPicture({ file, name, cut: found.cut, then: () => this.#place(name, found, at) });
        this.view.announce(t(found.cut === "none" ? "saidPictureWhole" : "saidPicture", { name }));
      } catch {
        this.view.announce(t("saidNoUpload", { name }));
      }
    }
  }

  /** The box of a new reference: the one it was dropped on, or a new one of its shape. @param {string} name @param {{aspect: number}} found @param {{x: number, y: number, box: import("../scene/schema.js").Box | null} | null} at */
  #place(name, { aspect }, at) {
    const { store, commands } = this.view;
    if (at?.box) {
      store.dispatch({ type: "bind", ids: [at.box.id], ref: name });
      return;
    }
    if (!commands.canPlace) return;
    const { canvas } = store.state.layout;
    const area = (canvas.w * canvas.h) / 9;
    const w = Math.min(Math.sqrt(area * aspect), canvas.w * 0.9, canvas.h * 0.9 * aspect);
    const size = { w, h: w / aspect };
    const rect = { x: (at?.x ?? canvas.w / 2) - size.w / 2, y: (at?.y ?? canvas.h / 2) - size.h / 2, ...size };
    store.dispatch({ type: "add", rect: at ? rect : besideOthers(rect, store.state.layout), ref: name });
  }

  /** Asks for the name, with that of the file as a start. @param {string} start @returns {Promise<string>} */
  #askName(start) {
    this.name.value = cleanText(start, MAX_REF).trim();
    this.form.hidden = false;
    this.name.focus();
    this.name.select();
    return new Promise((resolve) => {
      this.named = () => {
        this.named = null;
        this.form.hidden = true;
        this.view.stage.element.focus({ preventScroll: true });
        resolve(cleanText(this.name.value, MAX_REF).trim() || cleanText(start, MAX_REF).trim() || "Subject");
      };
    });
  }

  /** A name that no reference has yet: a box means a reference by it. @param {string} wanted */
  #freeName(wanted) {
    const taken = new Set(this.view.library.references.map((reference) => reference.name));
    let name = wanted;
    for (let number = 2; taken.has(name); number += 1) name = `${[...wanted].slice(0, MAX_REF - 4).join("")} ${number}`;
    return name;
  }
}

/** @param {File} file */
function isLayered(file) {
  return /\.psd$/i.test(file.name);
}

/** What of a layered picture can stand in a box: not what covers all of it. @param {File} file @returns {Promise<Sheet[]>} none where it cannot be read */
async function layersOf(file) {
  try {
    if (file.size > MAX_LAYERED) return [];
    const { w, h, layers } = readLayers(await file.arrayBuffer());
    const sheets = await Promise.all(layers.map((layer) => sheetOf(layer, w, h)));
    return sheets.filter((sheet) => sheet !== null);
  } catch {
    return [];
  }
}

/** @param {import("./layered.js").Layer} layer @param {number} width @param {number} height @returns {Promise<Sheet | null>} */
async function sheetOf(layer, width, height) {
  const { name, opacity } = layer;
  const clear = layer.pixels.every((value, i) => i % 4 !== 3 || value === 0);
  const seen = clear ? layer : seenOf(layer);
  if (!seen) return null;
  const inside = seen.x < width && seen.y < height && seen.x + seen.w > 0 && seen.y + seen.h > 0;
  const ground = seen.x <= 0 && seen.y <= 0 && seen.x + seen.w >= width && seen.y + seen.h >= height;
  if (!inside || ground) return null;
  const share = { x: seen.x / width, y: seen.y / height, w: seen.w / width, h: seen.h / height };
  if (clear) return { blob: null, name, opacity, share };
  const canvas = document.createElement("canvas");
  // One clear pixel around: the loader tells a subject from its ground by transparency.
  [canvas.width, canvas.height] = [layer.w + 2, layer.h + 2];
  canvas.getContext("2d")?.putImageData(new ImageData(layer.pixels, layer.w, layer.h), 1, 1);
  const blob = await new Promise((/** @type {(blob: Blob | null) => void} */ resolve) => canvas.toBlob(resolve, "image/png"));
  return blob && { blob, name, opacity, share };
}

/** Several cut-outs of one size are the layers of one picture, as programs save them into a folder. @param {readonly File[]} files @returns {Promise<Sheet[] | null>} null where they are not */
async function layersIn(files) {
  if (files.length < 2 || files.some((file) => isLayout(file) || isLayered(file) || file.size > MAX_FILE)) return null;
  /** @type {Sheet[]} */
  const sheets = [];
  let size = "";
  for (const file of [...files].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }))) {
    const found = await lookAt(file);
    if (!found || found.cut !== "alpha" || (size && size !== found.size)) return null;
    size = found.size;
    sheets.push({ blob: file, name: file.name.replace(/\.\w+$/, ""), opacity: 1, share: found.share });
  }
  return sheets;
}

/** @param {File} file */
function isLayout(file) {
  return file.type === "application/json" || /\.json$/i.test(file.name);
}

/**
 * What a picture is like: where its subject can be told from, and its shape.
 * @param {File} file
 * @returns {Promise<{cut: import("./controller.js").Cut, aspect: number, size: string, share: import("../scene/schema.js").Rect} | null>}
 *   share: where its subject lies, in shares of its sides; null: no picture
 */
async function lookAt(file) {
  const picture = await createImageBitmap(file).catch(() => null);
  if (!picture) return null;
  const size = `${picture.width} ${picture.height}`;
  const k = Math.min(1, LOOK_SIDE / Math.max(picture.width, picture.height));
  const [w, h] = [Math.max(1, Math.round(picture.width * k)), Math.max(1, Math.round(picture.height * k))];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return null;
  context.drawImage(picture, 0, 0, w, h);
  picture.close();
  const { data } = context.getImageData(0, 0, w, h);
  let [x1, y1, x2, y2, clear] = [w, h, 0, 0, 0];
  for (let p = 0; p < w * h; p += 1) {
    if (data[4 * p + 3] < 128) {
      clear += 1;
      continue;
    }
    const [x, y] = [p % w, Math.floor(p / w)];
    [x1, y1, x2, y2] = [Math.min(x1, x), Math.min(y1, y), Math.max(x2, x + 1), Math.max(y2, y + 1)];
  }
  if (clear > 0 && x2 > x1) {
    return { cut: "alpha", aspect: (x2 - x1) / (y2 - y1), size, share: { x: x1 / w, y: y1 / h, w: (x2 - x1) / w, h: (y2 - y1) / h } };
  }
  return { cut: plainEdge(data, w, h) ? "plain" : "none", aspect: w / h, size, share: { x: 0, y: 0, w: 1, h: 1 } };
}

/** Whether the picture's edge is of one colour. @param {Uint8ClampedArray} data @param {number} w @param {number} h */
function plainEdge(data, w, h) {
  const at = (/** @type {number} */ x, /** @type {number} */ y) => [0, 1, 2].map((c) => data[4 * (y * w + x) + c]);
  /** @type {number[][]} */
  const edge = [];
  for (let x = 0; x < w; x += 1) edge.push(at(x, 0), at(x, h - 1));
  for (let y = 0; y < h; y += 1) edge.push(at(0, y), at(w - 1, y));
  const middle = [0, 1, 2].map((c) => edge.map((pixel) => pixel[c]).sort((a, b) => a - b)[edge.length >> 1]);
  const near = edge.filter((pixel) => Math.hypot(...pixel.map((value, c) => value - middle[c])) < PLAIN);
  return near.length > 0.95 * edge.length;
}
