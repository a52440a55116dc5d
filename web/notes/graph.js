/**
 * What a graph shows to be wrong before any run: sizes that are typed twice and differ, and the small model where it
 * knows nothing. Knows nodes by their plain fields alone.
 */

import { isolate } from "../kit/i18n.js";
import { feeding, isLinked, widgetValue } from "../host/upstream.js";

/** @typedef {import("../host/comfy.js").HostNode} HostNode */
/** @typedef {{w: number, h: number}} Size */

const NEVER = 2;
const BYPASS = 4;
const MAX_STEPS = 64;
const TINY_SIZES = [128, 192].map((side) => ({ w: side, h: side }));
export const TINY_TOKENS = 16;

/**
 * @param {HostNode} root  the outermost graph
 * @param {import("./strings.js").Translate} t
 * @returns {Map<HostNode, string[]>} sentences by node
 */
export function doubtsIn(root, t) {
  const nodes = nodesOf(root);
  const composers = nodes.filter((node) => typeOf(node) === "LayoutComposer").flatMap((node) => {
    const size = isLinked(node, "width") || isLinked(node, "height") ? null : sizeOf(node, 16);
    return size ? [{ node, size }] : [];
  });
  /** @type {Map<HostNode, string[]>} */
  const said = new Map();
  const say = (/** @type {HostNode} */ node, /** @type {string} */ sentence) => said.set(node, [...(said.get(node) ?? []), sentence]);
  for (const node of nodes.filter((each) => typeOf(each) === "ModelSamplingFlux" && followsLayout(each))) {
    const its = isLinked(node, "width") || isLinked(node, "height") ? null : sizeOf(node, 1);
    if (!its || composers.some(({ size }) => same(size, its))) continue;
    for (const { node: composer, size } of composers) {
      say(composer, t("shift", { node: isolate(String(node.title || "ModelSamplingFlux")), its: text(its), ours: text(size) }));
    }
  }
  const other = composers.find(({ size }) => !TINY_SIZES.some((known) => same(size, known)));
  const bundles = nodes.filter((node) => typeOf(node) === "ReferenceBundle" && !isLinked(node, "size") && widgetValue(node, "size") !== TINY_TOKENS);
  for (const node of nodes.filter((each) => typeOf(each) === "ContextGenTinyModel")) {
    if (other) say(node, t("tinySide", { known: TINY_SIZES.map(text).join(", "), ours: text(other.size) }));
    if (bundles.length) say(node, t("tinyTokens", { known: TINY_TOKENS, count: bundles.length }));
  }
  return said;
}

/** Whether the model that goes in has come through one of our model patches. @param {HostNode} node */
function followsLayout(node) {
  let at = feeding(node, "model");
  for (let step = 0; at && step < MAX_STEPS; step += 1) {
    if (/PatchModel$/.test(typeOf(at.node))) return true;
    at = feeding(at.node, "model");
  }
  return false;
}

/** Every node that takes part in a run, of all subgraphs. @param {HostNode} root @returns {HostNode[]} */
export function nodesOf(root) {
  const graphs = [root, ...(root?.subgraphs?.values?.() ?? [])];
  return graphs.flatMap((graph) => graph?.nodes ?? graph?._nodes ?? []).filter((node) => node.mode !== NEVER && node.mode !== BYPASS);
}

/** @param {HostNode} node @returns {string} */
export function typeOf(node) {
  return String(node.comfyClass ?? node.type ?? "");
}

/** @param {HostNode} node @param {number} step @returns {Size | null} */
function sizeOf(node, step) {
  const [w, h] = ["width", "height"].map((name) => Math.floor((Number(widgetValue(node, name)) + step / 2) / step) * step);
  return w > 0 && h > 0 ? { w, h } : null;
}

/** @param {Size} a @param {Size} b */
function same(a, b) {
  return a.w === b.w && a.h === b.h;
}

/** @param {Size} size */
function text({ w, h }) {
  return `${w} × ${h}`;
}
