/**
 * The authors' request files as layouts: InstanceAssemble's (also what its demo saves) and ContextGen's segment_info.json.
 * What they mean is as in `contextgen_core/layout` (foreign_boxes.py, request_file.py); tests/vectors/requests.json holds both to it.
 */

import { MAX_LABEL, MAX_BOXES, cleanText, parseLayout, VERSION } from "./schema.js";

/** @typedef {import("./schema.js").Layout} Layout */

/** Longest text that is looked at: ContextGen's file may hold many requests, of which the first is taken. */
export const MAX_REQUEST = 1 << 20;

/** @param {string} text @returns {Layout | null} on the request's own canvas; null where it is none, or a wrong one */
export function readRequest(text) {
  if (text.length > MAX_REQUEST) return null;
  /** @type {unknown} */
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return null;
  }
  const request = Array.isArray(data) ? data[0] : data;
  if (typeof request !== "object" || request === null) return null;
  if (![request.width, request.height ?? 1].every(Number.isFinite)) return null; // whatever is no number may be nested without end
  const document = annotated(request) ?? bound(request);
  return document && parseLayout(JSON.stringify({ v: VERSION, ...document }), { w: 1024, h: 1024 }).layout;
}

/** InstanceAssemble's: words at boxes. @param {any} request */
function annotated({ width, height, annos }) {
  if (!Array.isArray(annos) || annos.length > MAX_BOXES) return null;
  const words = (/** @type {any} */ entry) =>
    [entry?.category_name, entry?.caption].flatMap((word) => (typeof word === "string" && word.trim() ? [word.trim()] : [])).join(", ");
  return { canvas: { w: width, h: height }, boxes: annos.map((entry, i) => boxOf(entry, i, words(entry), null)) };
}

/** ContextGen's: pictures at boxes on a square; the n-th box means the n-th reference. @param {any} request */
function bound({ width, instances }) {
  if (!Array.isArray(instances) || instances.length > MAX_BOXES) return null;
  const words = (/** @type {any} */ entry) => [entry?.label, entry?.phrase].find((word) => typeof word === "string" && word) ?? "";
  return { canvas: { w: width, h: width }, boxes: instances.map((entry, i) => boxOf(entry, i, words(entry), i + 1)) };
}

/** @param {any} entry @param {number} index @param {string} label @param {number | null} ref */
function boxOf(entry, index, label, ref) {
  const [x1, y1, x2, y2] = Array.isArray(entry?.bbox) && entry.bbox.length === 4 && entry.bbox.every(Number.isFinite) ? entry.bbox : [];
  return { id: `b${index + 1}`, x: x1, y: y1, w: x2 - x1, h: y2 - y1, ref, label: cleanText(label, MAX_LABEL) };
}
