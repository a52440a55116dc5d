/** Creates the nodes that bring a picture into the chain of references of a node. Called inside a transaction. */

import { createNode } from "./comfy.js";
import { feeding } from "./upstream.js";

/** @typedef {import("./comfy.js").HostNode} HostNode */

const GAP = 40;

/**
 * A Load Image and a Reference Bundle at the end of the chain: after those that are there, so that their numbers stay.
 * @param {HostNode} node  the Layout Composer
 * @param {{stored: string, name: string, cut: import("../editor/controller.js").Cut}} picture  stored: what the loading node
 *   calls the file; cut: where the subject's mask comes from
 */
export function addBundle(node, { stored, name, cut }) {
  const { graph } = node;
  const last = feeding(node, "references");
  const [x, y] = placeFor(node, last?.node ?? null);
  const load = createNode(graph, "LoadImage", [x - 700, y]);
  const field = load.widgets?.find((/** @type {any} */ widget) => widget.name === "image");
  const { values } = field?.options ?? {};
  if (Array.isArray(values) && !values.includes(stored)) values.push(stored);
  if (field) field.value = stored;
  field?.callback?.(stored);
  const bundle = createNode(graph, "ReferenceBundle", [x, y]);
  set(bundle, "name", name);
  if (cut === "alpha") {
    load.connect(0, bundle, slot(bundle, "image"));
    load.connect(1, bundle, slot(bundle, "subject_mask"));
    set(bundle, "invert_mask", true);
  } else if (cut === "plain") {
    const cutout = createNode(graph, "ContextGenCutout", [x - 380, y]);
    set(cutout, "source", "plain background");
    load.connect(0, cutout, slot(cutout, "image"));
    cutout.connect(0, bundle, slot(bundle, "image"));
  } else {
    load.connect(0, bundle, slot(bundle, "image"));
  }
  if (last && last.node.graph === graph) last.node.connect(last.slot, bundle, slot(bundle, "references"));
  bundle.connect(0, node, slot(node, "references"));
}

/** Below the last bundle, or to the left of the node. @param {HostNode} node @param {HostNode | null} last @returns {[number, number]} */
function placeFor(node, last) {
  const graph = node.graph;
  const width = 300;
  if (!last || last.graph !== graph) return [node.pos[0] - width - GAP, node.pos[1]];
  const bundles = (graph.nodes ?? graph._nodes ?? []).filter((/** @type {HostNode} */ each) => Math.abs(each.pos[0] - last.pos[0]) < width && each.pos[1] >= last.pos[1]);
  const bottom = Math.max(...bundles.map((/** @type {HostNode} */ each) => each.pos[1] + (each.size?.[1] ?? 0)));
  return [last.pos[0], bottom + 2 * GAP];
}

/** @param {HostNode} node @param {string} name */
function slot(node, name) {
  return node.inputs?.findIndex((/** @type {any} */ input) => input.name === name) ?? -1;
}

/** @param {HostNode} node @param {string} name @param {unknown} value */
function set(node, name, value) {
  const field = node.widgets?.find((/** @type {any} */ widget) => widget.name === name);
  if (field) field.value = value;
}
