/**
 * The layout as plain data: its types, its bounds, and its JSON (version 1), which is the node's `layout` input.
 * The same bounds hold in `contextgen_core/layout.py`; both sides are tested with the files in `tests/vectors/`.
 *
 * @typedef {{w: number, h: number}} Size  width and height, pixels of the canvas
 * @typedef {{x: number, y: number, w: number, h: number}} Rect  top-left corner and size, pixels of the canvas
 * @typedef {string | number | null} Ref  a reference's name, its number counted from 1, or nothing (text only)
 * @typedef {Rect & {id: string, ref: Ref, label: string, locked: boolean}} Box
 * @typedef {"scale" | "keep"} ResizeRule  what boxes do when the canvas changes its size
 * @typedef {"auto" | "plain" | "run" | "picture"} Background
 * @typedef {{resize: ResizeRule, grid: number, edges: boolean, inside: boolean, aspect: boolean,
 *            background: Background, preview: boolean}} Preferences
 * @typedef {{canvas: Size, boxes: readonly Box[], editor: Preferences}} Layout  boxes in painting order, bottom first
 * @typedef {{code: string, where: string}} Problem  why a text is no layout; `code` is a key of the strings
 */

export const VERSION = 1;
export const MAX_BOXES = 32;
export const MAX_BYTES = 65536;
export const MAX_DEPTH = 8;
export const MAX_COORDINATE = 1e6;
export const MAX_ID = 64;
export const MAX_LABEL = 200;
export const MAX_REF = 100;
export const MAX_REF_NUMBER = 9999;
export const CANVAS_MIN = 64;
export const CANVAS_MAX = 16384;

/** @type {Readonly<Preferences>} */
export const DEFAULT_PREFERENCES = Object.freeze({
  resize: "scale",
  grid: 0,
  edges: true,
  inside: true,
  aspect: false,
  background: "auto",
  preview: true,
});

/** A layout without boxes. @param {Size} canvas @returns {Layout} */
export function emptyLayout(canvas) {
  return { canvas: { w: canvas.w, h: canvas.h }, boxes: [], editor: { ...DEFAULT_PREFERENCES } };
}

/**
 * Reads the text of the node's input. Never throws and never touches unknown keys.
 * @param {unknown} text  JSON text (or what JSON.parse made of it)
 * @param {Size} fallback  canvas of a layout that names none (the node's width and height)
 * @returns {{layout: Layout, problem: null} | {layout: null, problem: Problem}}
 */
export function parseLayout(text, fallback) {
  try {
    return { layout: readLayout(decode(text), fallback), problem: null };
  } catch (error) {
    if (error instanceof Refusal) return { layout: null, problem: { code: error.code, where: error.where } };
    throw error;
  }
}

/**
 * Writes the text of the node's input: fixed key order, coordinates to 1/100 pixel, defaults of the editor left out.
 * @param {Layout} layout @returns {string}
 */
export function serialiseLayout(layout) {
  /** @type {Record<string, unknown>} */
  const data = {
    v: VERSION,
    canvas: { w: layout.canvas.w, h: layout.canvas.h },
    boxes: layout.boxes.map((box) => {
      const [x, y] = [hundredths(box.x), hundredths(box.y)];
      const [w, h] = [hundredths(hundredths(box.x + box.w) - x), hundredths(hundredths(box.y + box.h) - y)];
      return { id: box.id, x, y, w, h, ref: box.ref, label: box.label, locked: box.locked };
    }),
  };
  const editor = Object.entries(layout.editor).filter(([key, value]) => DEFAULTS[key] !== value);
  if (editor.length) data.editor = Object.fromEntries(editor);
  return JSON.stringify(data);
}

/** A box id not yet in use: b1, b2, ... @param {readonly {id: string}[]} boxes @returns {string} */
export function nextId(boxes) {
  const used = new Set(boxes.map((box) => box.id));
  let number = boxes.length + 1;
  while (used.has(`b${number}`)) number += 1;
  return `b${number}`;
}

/** True if the two describe the same picture (the editor's preferences do not count). @param {Layout} a @param {Layout} b */
export function sameScene(a, b) {
  const plain = (/** @type {Layout} */ layout) => serialiseLayout({ ...layout, editor: { ...DEFAULT_PREFERENCES } });
  return plain(a) === plain(b);
}

/** Bytes of a text in UTF-8. @param {string} text */
export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

const CONTROL = /[\p{Cc}\p{Cs}]/u;
const DEFAULTS = /** @type {Record<string, unknown>} */ (DEFAULT_PREFERENCES);

/** Why a text is refused; stays inside this file. */
class Refusal extends Error {
  /** @param {string} code @param {string} [where] */
  constructor(code, where = "") {
    super(code);
    this.code = code;
    this.where = where;
  }
}

/** @param {unknown} text @returns {unknown} */
function decode(text) {
  let data = text;
  if (typeof text === "string") {
    if (byteLength(text) > MAX_BYTES) throw new Refusal("tooLong");
    if (text.trim() === "") return {};
    try {
      data = JSON.parse(text);
    } catch {
      throw new Refusal("notJson");
    }
  }
  if (deeperThan(data, MAX_DEPTH)) throw new Refusal("tooDeep");
  return data;
}

/** @param {unknown} data @param {Size} fallback @returns {Layout} */
function readLayout(data, fallback) {
  const document = migrate(data, fallback);
  const canvas = readCanvas(own(document, "canvas"));
  const list = own(document, "boxes");
  if (!Array.isArray(list)) throw new Refusal("boxesProblem", "boxes");
  if (list.length > MAX_BOXES) throw new Refusal("tooMany");
  const boxes = list.map((item, index) => readBox(item, canvas, `boxes[${index}]`));
  if (new Set(boxes.map((box) => box.id)).size !== boxes.length) throw new Refusal("sameId", "boxes");
  return { canvas, boxes, editor: readPreferences(own(document, "editor")) };
}

/**
 * Any released form as a document of the current version. Version 0 has no "v", or is a bare list of boxes.
 * @param {unknown} data @param {Size} fallback @returns {Record<string, unknown>}
 */
function migrate(data, fallback) {
  if (isRecord(data) && Object.hasOwn(data, "v") && data.v !== 0) {
    if (data.v !== VERSION) throw new Refusal("version", "v");
    return data;
  }
  if (!isRecord(data) && !Array.isArray(data)) throw new Refusal("notObject");
  const document = Array.isArray(data) ? { boxes: data } : data;
  const known = Object.keys(document).every((key) => ["v", "canvas", "editor"].includes(key));
  const boxes = own(document, "boxes") ?? (known ? [] : null);
  const canvas = Object.hasOwn(document, "canvas") ? document.canvas : { w: fallback.w, h: fallback.h };
  if (!Array.isArray(boxes)) throw new Refusal("boxesProblem", "boxes");
  if (boxes.length > MAX_BOXES) throw new Refusal("tooMany");
  const taken = new Set(boxes.map((box) => (isRecord(box) ? own(box, "id") : undefined)));
  let number = 0;
  const named = boxes.map((box) => {
    if (!isRecord(box) || Object.hasOwn(box, "id")) return box;
    do number += 1;
    while (taken.has(`b${number}`));
    return Object.assign(Object.create(null), box, { id: `b${number}` });
  });
  return { canvas, boxes: named, editor: own(document, "editor") };
}

/** @param {unknown} value @returns {Size} */
function readCanvas(value) {
  if (!isRecord(value)) throw new Refusal("canvas", "canvas");
  const [w, h] = ["w", "h"].map((key) => {
    const side = own(value, key);
    if (typeof side !== "number" || !Number.isInteger(side) || side < CANVAS_MIN || side > CANVAS_MAX) {
      throw new Refusal("canvas", `canvas.${key}`);
    }
    return side;
  });
  return { w, h };
}

/** @param {unknown} value @param {Size} canvas @param {string} where @returns {Box} */
function readBox(value, canvas, where) {
  if (!isRecord(value)) throw new Refusal("boxProblem", where);
  const id = own(value, "id");
  if (!isText(id, MAX_ID) || id === "") throw new Refusal("id", `${where}.id`);
  const [x, y, w, h] = ["x", "y", "w", "h"].map((key) => {
    const number = own(value, key);
    if (typeof number !== "number" || !(Math.abs(number) <= MAX_COORDINATE)) {
      throw new Refusal("number", `${where}.${key}`);
    }
    return hundredths(number);
  });
  const [x2, y2] = [hundredths(x + w), hundredths(y + h)];
  if (Math.max(x2, y2) > MAX_COORDINATE) throw new Refusal("number", where);
  if (w <= 0 || h <= 0 || x2 <= x || y2 <= y) throw new Refusal("size", where);
  if (x >= canvas.w || y >= canvas.h || x2 <= 0 || y2 <= 0) throw new Refusal("outside", where);
  const ref = own(value, "ref") ?? null;
  if (ref !== null && !isText(ref, MAX_REF) && !isReferenceNumber(ref)) throw new Refusal("ref", `${where}.ref`);
  const label = Object.hasOwn(value, "label") ? value.label : "";
  if (!isText(label, MAX_LABEL)) throw new Refusal("labelProblem", `${where}.label`);
  const locked = Object.hasOwn(value, "locked") ? value.locked : false;
  if (typeof locked !== "boolean") throw new Refusal("locked", `${where}.locked`);
  return { id, x, y, w, h, ref: ref === "" ? null : ref, label, locked };
}

/** @param {unknown} value @returns {value is number} */
function isReferenceNumber(value) {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= MAX_REF_NUMBER;
}

/** Text without control characters, its length counted in code points as Python does. @param {unknown} value @param {number} limit @returns {value is string} */
function isText(value, limit) {
  return typeof value === "string" && [...value].length <= limit && !CONTROL.test(value);
}

/** What may be typed into a name or label, made fit for the layout. @param {string} text @param {number} limit */
export function cleanText(text, limit) {
  return [...text.replace(new RegExp(CONTROL, "gu"), " ")].slice(0, limit).join("");
}

/** The editor's own preferences: what is not understood falls back, it is no reason to refuse a layout. @param {unknown} value */
function readPreferences(value) {
  const read = { ...DEFAULT_PREFERENCES };
  if (!isRecord(value)) return read;
  const resize = own(value, "resize");
  if (resize === "scale" || resize === "keep") read.resize = resize;
  const background = own(value, "background");
  if (background === "auto" || background === "plain" || background === "run" || background === "picture") {
    read.background = background;
  }
  const grid = own(value, "grid");
  if (typeof grid === "number" && Number.isInteger(grid) && grid >= 0 && grid <= 512) read.grid = grid;
  for (const key of /** @type {const} */ (["edges", "inside", "aspect", "preview"])) {
    const flag = own(value, key);
    if (typeof flag === "boolean") read[key] = flag;
  }
  return read;
}

/** @param {Record<string, unknown>} data @param {string} key */
function own(data, key) {
  return Object.hasOwn(data, key) ? data[key] : undefined;
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value @param {number} levels @returns {boolean} */
function deeperThan(value, levels) {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => deeperThan(inner, levels - 1));
}

/** Rounds to 1/100 as Python's side does. @param {number} value */
function hundredths(value) {
  return Math.floor(value * 100 + 0.5) / 100;
}
