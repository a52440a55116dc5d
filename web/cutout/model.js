/**
 * The clicks of ContextGen Cutout: their JSON, as contextgen_core/cutout/cutout.py reads it, and what can be done to them.
 * Plain immutable data; coordinates in pixels of the picture.
 *
 * @typedef {{x: number, y: number, keep: boolean}} Point
 * @typedef {{x: number, y: number, w: number, h: number}} Rect
 * @typedef {{w: number, h: number}} Size
 * @typedef {{keep: boolean, r: number, at: readonly number[]}} Stroke  of a round brush of radius r through x, y, x, y, ...
 * @typedef {{picture: Size | null, points: readonly Point[], box: Rect | null, strokes: readonly Stroke[]}} Clicks
 */

export const MAX_POINTS = 64;
export const MAX_STROKES = 64;
const MAX_PLACES = 4096;
const MAX_RADIUS = 2048;
const MAX_TEXT = 65536;
const MAX_COORDINATE = 1e6;

/** @type {Clicks} */
export const EMPTY = Object.freeze({ picture: null, points: Object.freeze([]), box: null, strokes: Object.freeze([]) });

/**
 * Reads the input's text. What cannot be read is reported, not guessed: the text stays until somebody clicks.
 * @param {string} text @returns {{clicks: Clicks, broken: boolean}}
 */
export function parseClicks(text) {
  if (!text.trim()) return { clicks: EMPTY, broken: false };
  try {
    if (text.length > MAX_TEXT) throw new RangeError("too long");
    const value = JSON.parse(text);
    if (!isObject(value) || (own(value, "v") ?? 1) !== 1) throw new TypeError("not clicks");
    const picture = own(value, "picture");
    const points = own(value, "points") ?? [];
    const box = own(value, "box");
    const strokes = own(value, "strokes") ?? [];
    if (!Array.isArray(strokes) || strokes.length > MAX_STROKES) throw new TypeError("strokes");
    if (!Array.isArray(points) || points.length > MAX_POINTS) throw new TypeError("points");
    const clicks = {
      picture: picture == null ? null : { w: side(own(picture, "w")), h: side(own(picture, "h")) },
      points: points.map((point) => ({ x: number(own(point, "x")), y: number(own(point, "y")), keep: flag(own(point, "keep")) })),
      box: box == null ? null : { x: number(own(box, "x")), y: number(own(box, "y")), w: size(own(box, "w")), h: size(own(box, "h")) },
      strokes: strokes.map(readStroke),
    };
    if (placesOf(clicks.strokes) > MAX_PLACES) throw new RangeError("strokes");
    return { clicks, broken: false };
  } catch {
    return { clicks: EMPTY, broken: true };
  }
}

/** @param {Clicks} clicks @returns {string} the input's text; empty without clicks */
export function formatClicks({ picture, points, box, strokes }) {
  if (!points.length && !box && !strokes.length) return "";
  return JSON.stringify({
    v: 1,
    ...(picture ? { picture } : {}),
    points: points.map(({ x, y, keep }) => ({ x: short(x), y: short(y), keep })),
    box: box && { x: short(box.x), y: short(box.y), w: short(box.w), h: short(box.h) },
    ...(strokes.length ? { strokes } : {}),
  });
}

/** The same clicks on a picture of another size. @param {Clicks} clicks @param {Size} to @returns {Clicks} */
export function fitClicks(clicks, to) {
  const { picture } = clicks;
  if (!picture || (picture.w === to.w && picture.h === to.h)) return { ...clicks, picture: to };
  const [sx, sy] = [to.w / picture.w, to.h / picture.h];
  return {
    picture: to,
    points: clicks.points.map((point) => ({ ...point, x: point.x * sx, y: point.y * sy })),
    box: clicks.box && { x: clicks.box.x * sx, y: clicks.box.y * sy, w: clicks.box.w * sx, h: clicks.box.h * sy },
    strokes: clicks.strokes.map(({ keep, r, at }) => ({
      keep,
      r: Math.max(1, Math.round((r * (sx + sy)) / 2)),
      at: at.map((place, i) => Math.round(place * (i % 2 ? sy : sx))),
    })),
  };
}

/** The clicks without what is mended by hand: what a model is asked. @param {Clicks} clicks @returns {Clicks} */
export function withoutStrokes(clicks) {
  return { ...clicks, strokes: [] };
}

/** A stroke on top of those before; the same clicks when there is no more room. @param {Clicks} clicks @param {Stroke} stroke @returns {Clicks} */
export function addStroke(clicks, stroke) {
  if (clicks.strokes.length >= MAX_STROKES || placesOf(clicks.strokes) >= MAX_PLACES) return clicks;
  const room = 2 * (MAX_PLACES - placesOf(clicks.strokes));
  return { ...clicks, strokes: [...clicks.strokes, { ...stroke, at: stroke.at.slice(0, room) }] };
}

/** @param {readonly Stroke[]} strokes */
function placesOf(strokes) {
  return strokes.reduce((sum, { at }) => sum + at.length / 2, 0);
}

/** @param {unknown} value @returns {Stroke} */
function readStroke(value) {
  const at = own(value, "at");
  const r = number(own(value, "r"));
  if (!Array.isArray(at) || !at.length || at.length % 2 || !(r >= 1 && r <= MAX_RADIUS)) throw new TypeError("stroke");
  return { keep: flag(own(value, "keep")), r: Math.round(r), at: at.map((place) => Math.round(number(place))) };
}

/** @param {Clicks} clicks @param {Point} point @returns {Clicks} */
export function addPoint(clicks, point) {
  return clicks.points.length < MAX_POINTS ? { ...clicks, points: [...clicks.points, confine(point, clicks.picture)] } : clicks;
}

/** @param {Clicks} clicks @param {number} index @param {Partial<Point>} change @returns {Clicks} */
export function changePoint(clicks, index, change) {
  const points = clicks.points.map((point, at) => (at === index ? confine({ ...point, ...change }, clicks.picture) : point));
  return { ...clicks, points };
}

/** @param {Clicks} clicks @param {number} index @returns {Clicks} */
export function removePoint(clicks, index) {
  return { ...clicks, points: clicks.points.filter((_, at) => at !== index) };
}

/** @param {Clicks} clicks @param {Rect | null} rect  clipped to the picture; less than two pixels is no box @returns {Clicks} */
export function setBox(clicks, rect) {
  if (!rect) return { ...clicks, box: null };
  const limit = clicks.picture ?? { w: MAX_COORDINATE, h: MAX_COORDINATE };
  const x = clamp(rect.x, 0, limit.w);
  const y = clamp(rect.y, 0, limit.h);
  const box = { x, y, w: clamp(rect.x + rect.w, 0, limit.w) - x, h: clamp(rect.y + rect.h, 0, limit.h) - y };
  return { ...clicks, box: box.w >= 2 && box.h >= 2 ? box : null };
}

/** Moves the box, wholly inside the picture. @param {Clicks} clicks @param {number} dx @param {number} dy @returns {Clicks} */
export function moveBox(clicks, dx, dy) {
  const { box, picture } = clicks;
  if (!box || !picture) return clicks;
  const x = clamp(box.x + dx, 0, Math.max(0, picture.w - box.w));
  const y = clamp(box.y + dy, 0, Math.max(0, picture.h - box.h));
  return { ...clicks, box: { ...box, x, y } };
}

/** @param {{x: number, y: number}} a @param {{x: number, y: number}} b @returns {Rect} */
export function rectBetween(a, b) {
  return { x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), w: Math.abs(a.x - b.x), h: Math.abs(a.y - b.y) };
}

/** @param {Point} point @param {Size | null} picture @returns {Point} */
function confine(point, picture) {
  if (!picture) return point;
  return { ...point, x: clamp(point.x, 0, picture.w - 1), y: clamp(point.y, 0, picture.h - 1) };
}

/** @param {number} value @param {number} low @param {number} high */
function clamp(value, low, high) {
  return Math.min(Math.max(value, low), Math.max(low, high));
}

/** @param {number} value */
function short(value) {
  return Math.floor(value * 100 + 0.5) / 100;
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value @param {string} name */
function own(value, name) {
  return isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
}

/** @param {unknown} value */
function number(value) {
  if (typeof value !== "number" || !(Math.abs(value) <= MAX_COORDINATE)) throw new TypeError("number");
  return value;
}

/** @param {unknown} value */
function size(value) {
  const checked = number(value);
  if (checked <= 0) throw new RangeError("size");
  return checked;
}

/** @param {unknown} value */
function side(value) {
  const checked = Math.trunc(number(value));
  if (checked < 1 || checked > 16384) throw new RangeError("side");
  return checked;
}

/** @param {unknown} value */
function flag(value) {
  if (value !== undefined && typeof value !== "boolean") throw new TypeError("keep");
  return value ?? true;
}
