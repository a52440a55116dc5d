/**
 * The layout as plain data: its types, its bounds, and its JSON (version 1), which is the node's `layout` input.
 * The same bounds hold in `contextgen_core/layout`; both sides are tested with the files in `tests/vectors/`.
 *
 * @typedef {{w: number, h: number}} Size  width and height, pixels of the canvas
 * @typedef {{x: number, y: number, w: number, h: number}} Rect  top-left corner and size, pixels of the canvas
 * @typedef {string | number | null} Ref  a reference's name, its number counted from 1, or nothing (text only)
 * @typedef {"h" | "v" | "hv"} Flip
 * @typedef {"instance" | "stretch" | "image"} Fit
 * @typedef {{x: number, z: number, y: number, w: number, h: number, d: number, yaw: number, pitch: number, roll: number,
 *   at: readonly [number, number, number, number]}} Solid  a cuboid in scene units: x right, z distance, y its bottom above
 *   the ground; at: the box it was projected to, so that a reader without solids can be told from one with them
 * @typedef {Rect & {id: string, ref: Ref, label: string, locked: boolean, rot?: number, flip?: Flip, fit?: Fit, strength?: number,
 *   opacity?: number, hidden?: boolean, group?: string, colour?: string, solid?: Solid}} Box
 *   rot: degrees clockwise about the box's centre; fit: instead of the node's; strength: times the reference's; opacity: in
 *   the composite; hidden: neither painted nor bound. What has its default is left out. Keys of newer versions stay as they are.
 * @typedef {{id: string, label: string, hidden: boolean, locked: boolean}} Group
 * @typedef {{focal: number, height: number, pitch: number}} Camera  focal: in canvas widths; height: scene units; pitch:
 *   degrees, positive looks down
 * @typedef {"scale" | "keep"} ResizeRule  what boxes do when the canvas changes its size
 * @typedef {"auto" | "plain" | "run" | "picture"} Background
 * @typedef {{resize: ResizeRule, grid: number, edges: boolean, inside: boolean, aspect: boolean,
 *            background: Background, preview: boolean, labels: boolean, shows: Shows}} Preferences  labels: names at boxes that are not selected
 * @typedef {(typeof SHOWS)[number]} Shows  the picture, or a plane of SIGMA-GEN's control picture
 * @typedef {{canvas: Size, boxes: readonly Box[], editor: Preferences, groups?: readonly Group[], camera?: Camera,
 *   more?: Readonly<Record<string, unknown>>}} Layout  boxes in painting order, bottom first; more: keys of newer versions
 * @typedef {{code: string, where: string}} Problem  why a text is no layout; `code` is a key of the strings
 */

import { normaliseAngle } from "../kit/matrix.js";

export const VERSION = 1;
export const MAX_BOXES = 50;
export const MAX_BYTES = 65536;
export const MAX_DEPTH = 8;
export const MAX_COORDINATE = 1e6;
export const MAX_ID = 64;
export const MAX_LABEL = 200;
export const MAX_REF = 100;
export const MAX_REF_NUMBER = 9999;
export const CANVAS_MIN = 64;
export const CANVAS_MAX = 16384;
export const MAX_STRENGTH = 4;
/** Longest side of a turned box, in longer sides of the canvas: unlike others it is not clipped to the canvas. */
export const MAX_TURNED = 4;
/** What a layout may demand of its reader in `needs`. */
const KNOWN_NEEDS = ["rot", "flip", "fit", "strength", "opacity", "hidden", "groups", "solid", "camera"];
export const SHOWS = /** @type {const} */ (["picture", "ascending", "descending", "depth"]);
export const FITS = /** @type {const} */ (["instance", "stretch", "image"]);

/** @type {Readonly<Camera>} */
export const DEFAULT_CAMERA = Object.freeze({ focal: 1, height: 1, pitch: 0 });

/** @type {Readonly<Preferences>} */
export const DEFAULT_PREFERENCES = Object.freeze({
  resize: "scale",
  grid: 0,
  edges: true,
  inside: true,
  aspect: false,
  background: "auto",
  preview: true,
  labels: true,
  shows: "picture",
});

/** A layout without boxes. @param {Size} canvas @returns {Layout} */
export function emptyLayout(canvas) {
  return { canvas: { w: canvas.w, h: canvas.h }, boxes: [], editor: { ...DEFAULT_PREFERENCES } };
}

/**
 * Reads the text of the node's input. Never throws.
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
 * Writes the text of the node's input: fixed key order, coordinates to 1/100 pixel, defaults left out.
 * @param {Layout} layout @returns {string}
 */
export function serialiseLayout(layout) {
  /** @type {Record<string, unknown>} */
  const data = { v: VERSION, canvas: { w: layout.canvas.w, h: layout.canvas.h }, boxes: layout.boxes.map(writeBox) };
  if (layout.groups?.length) data.groups = layout.groups;
  if (layout.camera) data.camera = layout.camera;
  Object.assign(data, layout.more);
  const editor = Object.entries(layout.editor).filter(([key, value]) => DEFAULTS[key] !== value);
  if (editor.length) data.editor = Object.fromEntries(editor);
  return JSON.stringify(data);
}

/**
 * The layout as far as the picture depends on it: what the prompt carries, so that an edit for the eye alone (a lock, a
 * colour, a group, a preference) does not sample again.
 * @param {Layout} layout @param {boolean} named  whether labels and colours count, since a node reads them @returns {string}
 */
export function pictureText(layout, named) {
  const { canvas, camera, more } = layout;
  const boxes = layout.boxes.map((box) => {
    const { group: _group, colour, ...rest } = box;
    const shown = { ...rest, label: named ? box.label : "", locked: false, ...(named && colour ? { colour } : {}) };
    return isHidden(box, layout) ? { ...shown, hidden: true } : shown;
  });
  return serialiseLayout({ canvas, boxes, editor: { ...DEFAULT_PREFERENCES }, ...(camera ? { camera } : {}), ...(more ? { more } : {}) });
}

/** @param {Box} box @param {Layout} layout @returns {boolean} by itself or by its group */
export function isHidden(box, layout) {
  return box.hidden === true || groupOf(box, layout)?.hidden === true;
}

/** @param {Box} box @param {Layout} layout @returns {boolean} by itself or by its group */
export function isLocked(box, layout) {
  return box.locked || groupOf(box, layout)?.locked === true;
}

/** @param {Box} box @param {Layout} layout @returns {Group | null} */
export function groupOf(box, layout) {
  return (box.group !== undefined && layout.groups?.find((group) => group.id === box.group)) || null;
}

/** @param {Box} box */
function writeBox(box) {
  const { id, x: left, y: top, w: width, h: height, ref, label, locked, ...rest } = box;
  const [x, y] = [hundredths(left), hundredths(top)];
  const [w, h] = [hundredths(hundredths(left + width) - x), hundredths(hundredths(top + height) - y)];
  /** @type {Record<string, unknown>} */
  const written = { id, x, y, w, h, ref, label, locked };
  const more = /** @type {Record<string, unknown>} */ (rest);
  for (const key of Object.keys(OPTIONAL)) if (more[key] !== undefined) written[key] = more[key];
  return Object.assign(written, more);
}

/** A box id not yet in use: b1, b2, ... @param {readonly {id: string}[]} boxes @returns {string} */
export function nextId(boxes) {
  const used = new Set(boxes.map((box) => box.id));
  let number = boxes.length + 1;
  while (used.has(`b${number}`)) number += 1;
  return `b${number}`;
}

/** True if the two give the same picture: what is for the eye alone does not count. @param {Layout} a @param {Layout} b */
export function sameScene(a, b) {
  return pictureText(a, false) === pictureText(b, false);
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
  checkNeeds(own(document, "needs"));
  /** @type {Layout} */
  const layout = { canvas, boxes, editor: readPreferences(own(document, "editor")) };
  const groups = readGroups(own(document, "groups"));
  if (groups.length) layout.groups = groups;
  const camera = readCamera(own(document, "camera"));
  if (camera) layout.camera = camera;
  const more = unknownOf(document, ["v", "canvas", "boxes", "editor", "groups", "camera"]);
  if (Object.keys(more).length) layout.more = more;
  return layout;
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
  return { canvas, boxes: named, ...Object.fromEntries(["editor", "groups", "camera", "needs"].map((key) => [key, own(document, key)])) };
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
  for (const key of ["id", "ref", "label"]) if (hasControl(own(value, key))) throw new Refusal("control", `${where}.${key}`);
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
  if (w <= 0 || h <= 0 || x2 <= x || y2 <= y) throw new Refusal(own(value, "w") === 0 || own(value, "h") === 0 ? "size" : "tooSmall", where);
  if (x >= canvas.w || y >= canvas.h || x2 <= 0 || y2 <= 0) throw new Refusal("outside", where);
  const ref = own(value, "ref") ?? null;
  if (ref !== null && !isText(ref, MAX_REF) && !isReferenceNumber(ref)) throw new Refusal("ref", `${where}.ref`);
  const label = Object.hasOwn(value, "label") ? value.label : "";
  if (!isText(label, MAX_LABEL)) throw new Refusal("labelProblem", `${where}.label`);
  const locked = Object.hasOwn(value, "locked") ? value.locked : false;
  if (typeof locked !== "boolean") throw new Refusal("locked", `${where}.locked`);
  /** @type {Box} */
  const box = { id, x, y, w, h, ref: ref === "" ? null : ref, label, locked };
  for (const [key, read] of Object.entries(OPTIONAL)) {
    if (!Object.hasOwn(value, key)) continue;
    const checked = read(value[key], box);
    if (checked === REFUSED) throw new Refusal("fieldProblem", `${where}.${key}`);
    if (checked !== undefined) Object.assign(box, { [key]: checked });
  }
  if (box.rot && Math.max(w, h) > MAX_TURNED * Math.max(canvas.w, canvas.h)) throw new Refusal("turnedLarge", where);
  return Object.assign(box, unknownOf(value, ["id", "x", "y", "w", "h", "ref", "label", "locked", ...Object.keys(OPTIONAL)]));
}

const REFUSED = Symbol("refused");

/**
 * The fields that may be left out, in the order in which they are written: how each is read. The default is undefined
 * (left out), what cannot be is REFUSED.
 * @type {Record<string, (value: unknown, box: Box) => unknown>}
 */
const OPTIONAL = {
  rot: (value) => (isNumber(value, 360) ? normaliseAngle(value) || undefined : REFUSED),
  flip: (value) => (value === "" || value === "h" || value === "v" || value === "hv" ? value || undefined : REFUSED),
  fit: (value) => (value === null ? undefined : FITS.some((fit) => fit === value) ? value : REFUSED),
  strength: (value) => (isNumber(value, MAX_STRENGTH) && value >= 0 ? unless(hundredths(value), 1) : REFUSED),
  opacity: (value) => (isNumber(value, 1) && value >= 0 ? unless(hundredths(value), 1) : REFUSED),
  hidden: (value) => (typeof value === "boolean" ? value || undefined : REFUSED),
  group: (value) => (value === null ? undefined : isText(value, MAX_ID) && value !== "" ? value : REFUSED),
  colour: (value) => (value === null ? undefined : isText(value, 7) && /^#[0-9a-f]{6}$/i.test(value) ? value.toLowerCase() : REFUSED),
  solid: readSolid,
};

/** @param {unknown} value @param {unknown} normal */
function unless(value, normal) {
  return value === normal ? undefined : value;
}

/** @param {unknown} value @param {number} most @returns {value is number} */
function isNumber(value, most) {
  return typeof value === "number" && Math.abs(value) <= most;
}

/**
 * A solid whose projection is no longer the box was edited by somebody who knows boxes only: it is given up.
 * @param {unknown} value @param {Box} box
 */
function readSolid(value, box) {
  if (value === null) return undefined;
  if (!isRecord(value)) return REFUSED;
  const at = own(value, "at");
  if (!Array.isArray(at) || at.length !== 4 || !at.every((side) => isNumber(side, MAX_COORDINATE))) return REFUSED;
  /** @type {Record<string, unknown>} */
  const solid = {};
  for (const [key, normal] of Object.entries({ x: null, z: null, y: 0, w: null, h: null, d: null, yaw: 0, pitch: 0, roll: 0 })) {
    const number = own(value, key) ?? normal;
    if (!isNumber(number, MAX_COORDINATE)) return REFUSED;
    if (["w", "h", "d"].includes(key) && number <= 0) return REFUSED;
    solid[key] = number;
  }
  const same = [box.x, box.y, box.w, box.h].every((side, i) => Math.abs(side - at[i]) < 0.015);
  return same ? { ...solid, at: at.map(hundredths) } : undefined;
}

/** @param {unknown} value @returns {Group[]} */
function readGroups(value) {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > MAX_BOXES) throw new Refusal("groupsProblem", "groups");
  return value.map((group, index) => {
    const id = isRecord(group) ? own(group, "id") : undefined;
    const label = isRecord(group) ? (own(group, "label") ?? "") : undefined;
    const flags = isRecord(group) ? [own(group, "hidden") ?? false, own(group, "locked") ?? false] : [];
    if (!isText(id, MAX_ID) || id === "" || !isText(label, MAX_LABEL) || !flags.every((flag) => typeof flag === "boolean")) {
      throw new Refusal("groupsProblem", `groups[${index}]`);
    }
    return { id, label, hidden: flags[0] === true, locked: flags[1] === true };
  });
}

/** @param {unknown} value @returns {Camera | null} null: the default */
function readCamera(value) {
  if (value === undefined || value === null) return null;
  if (!isRecord(value)) throw new Refusal("cameraProblem", "camera");
  const camera = { ...DEFAULT_CAMERA };
  for (const key of /** @type {const} */ (["focal", "height", "pitch"])) {
    const number = own(value, key) ?? DEFAULT_CAMERA[key];
    const fits = key === "pitch" ? isNumber(number, 89) : isNumber(number, 1000) && number > 0;
    if (!fits) throw new Refusal("cameraProblem", `camera.${key}`);
    camera[key] = /** @type {number} */ (number);
  }
  return Object.entries(camera).every(([key, number]) => number === /** @type {Record<string, number>} */ (DEFAULT_CAMERA)[key]) ? null : camera;
}

/** @param {unknown} value */
function checkNeeds(value) {
  if (value === undefined || value === null) return;
  if (!Array.isArray(value) || !value.every((need) => KNOWN_NEEDS.includes(need))) throw new Refusal("needs", "needs");
}

/** What a newer version has written and this one must not lose. @param {Record<string, unknown>} data @param {readonly string[]} known */
function unknownOf(data, known) {
  return Object.fromEntries(Object.entries(data).filter(([key, value]) => key !== "__proto__" && value !== undefined && !known.includes(key)));
}

/** @param {unknown} value @returns {value is number} */
function isReferenceNumber(value) {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= MAX_REF_NUMBER;
}

/** Text without control characters, its length counted in code points as Python does. @param {unknown} value @param {number} limit @returns {value is string} */
function isText(value, limit) {
  return typeof value === "string" && [...value].length <= limit && !CONTROL.test(value);
}

/** @param {unknown} value */
function hasControl(value) {
  return typeof value === "string" && CONTROL.test(value);
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
  const shows = SHOWS.find((each) => each === own(value, "shows"));
  if (shows) read.shows = shows;
  const grid = own(value, "grid");
  if (typeof grid === "number" && Number.isInteger(grid) && grid >= 0 && grid <= 512) read.grid = grid;
  for (const key of /** @type {const} */ (["edges", "inside", "aspect", "preview", "labels"])) {
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
