/**
 * Reads the graph around a node: which references arrive, and from which pictures. Knows nodes only by their plain
 * fields, follows reroutes, bypassed nodes and subgraphs in both directions, and gives up rather than guess.
 *
 * @typedef {import("../render/references.js").Source} Source
 * @typedef {import("../render/references.js").MaskSource} MaskSource
 * @typedef {any} GraphNode  a node of the host's graph library, which ships no types
 * @typedef {{node: GraphNode, slot: number}} Output
 * @typedef {(value: string, folder: string) => string} ViewUrl  URL of a picture named by a widget's value
 */

const MAX_STEPS = 64;
const MAX_REFERENCES = 100;
const NEVER = 2;
const BYPASS = 4;

/** The output that feeds an input, through reroutes, bypassed nodes and subgraph borders. @param {GraphNode} node @param {string} name @returns {Output | null} */
export function feeding(node, name) {
  const input = node.inputs?.find((/** @type {any} */ candidate) => candidate.name === name);
  return input ? follow(node.graph, input.link, MAX_STEPS) : null;
}

/** Whether something is connected to an input. @param {GraphNode} node @param {string} name */
export function isLinked(node, name) {
  const input = node.inputs?.find((/** @type {any} */ candidate) => candidate.name === name);
  return input?.link !== null && input?.link !== undefined;
}

/** @param {GraphNode} node @param {string} name */
export function widgetValue(node, name) {
  return node.widgets?.find((/** @type {any} */ widget) => widget.name === name)?.value;
}

/**
 * The references that reach `node`'s input, in the bundle's order: those chained in come first.
 * @param {GraphNode} node @param {ViewUrl} viewUrl @returns {Source[]}
 */
export function readReferences(node, viewUrl) {
  /** @type {GraphNode[]} */
  const bundles = [];
  let at = feeding(node, "references");
  while (at && typeOf(at.node) === "ReferenceBundle" && bundles.length < MAX_REFERENCES && !bundles.includes(at.node)) {
    bundles.unshift(at.node);
    at = feeding(at.node, "references");
  }
  return bundles.map((bundle, index) => readBundle(bundle, index + 1, viewUrl));
}

/** The picture connected to an input, if it is known without a run. @param {GraphNode} node @param {string} name @param {ViewUrl} viewUrl @returns {string | null} */
export function readPicture(node, name, viewUrl) {
  const found = pictureOf(feeding(node, name), viewUrl);
  return found?.exact ? found.url : null;
}

/** @param {GraphNode} bundle @param {number} number @param {ViewUrl} viewUrl @returns {Source} */
function readBundle(bundle, number, viewUrl) {
  const typed = widgetValue(bundle, "name");
  const named = typeof typed === "string" && typed.trim() !== "" && !isLinked(bundle, "name");
  const picture = pictureOf(feeding(bundle, "image"), viewUrl);
  const mask = maskOf(feeding(bundle, "subject_mask"), widgetValue(bundle, "invert_mask") === true, viewUrl);
  const name = named ? typed.trim().slice(0, 100) : `reference ${number}`;
  return {
    name,
    named,
    image: picture?.url ?? null,
    mask: mask?.source ?? null,
    exact: Boolean(picture?.exact) && (mask?.exact ?? true),
    size: null,
  };
}

/** @param {Output | null} output @param {ViewUrl} viewUrl @returns {{url: string, exact: boolean} | null} */
function pictureOf(output, viewUrl) {
  let at = output;
  for (let step = 0; at && step < MAX_STEPS; step += 1) {
    const file = fileOf(at.node);
    if (file) return { url: viewUrl(file.value, file.folder), exact: step === 0 && at.slot === 0 };
    // Some node in between changes the picture: what goes in is the best that can be shown before a run.
    const input = at.node.inputs?.find((/** @type {any} */ candidate) => candidate.type === "IMAGE" && candidate.link != null);
    at = input ? follow(at.node.graph, input.link, MAX_STEPS) : null;
  }
  return null;
}

/** @param {Output | null} output @param {boolean} inverted @param {ViewUrl} viewUrl @returns {{source: MaskSource | null, exact: boolean} | null} */
function maskOf(output, inverted, viewUrl) {
  let at = output;
  let invert = inverted;
  for (let step = 0; at && step < MAX_STEPS; step += 1) {
    if (typeOf(at.node) === "InvertMask") {
      invert = !invert;
      at = feeding(at.node, "mask");
      continue;
    }
    const file = fileOf(at.node);
    if (!file) return { source: null, exact: false };
    const url = viewUrl(file.value, file.folder);
    // Both loaders hand out 1 where the picture is transparent; the other channels come as they are.
    if (typeOf(at.node) === "LoadImageMask") {
      const channel = /** @type {const} */ ({ red: "r", green: "g", blue: "b", alpha: "a" })[String(widgetValue(at.node, "channel"))];
      if (!channel) return { source: null, exact: false };
      return { source: { url, channel, invert: channel === "a" ? !invert : invert }, exact: true };
    }
    return at.slot === 1 ? { source: { url, channel: "a", invert: !invert }, exact: true } : { source: null, exact: false };
  }
  return output ? { source: null, exact: false } : null;
}

/** The file that a loading node shows. @param {GraphNode} node @returns {{value: string, folder: string} | null} */
function fileOf(node) {
  if (!/^Load ?Image/.test(typeOf(node))) return null;
  const value = widgetValue(node, "image");
  if (typeof value !== "string" || !value || isLinked(node, "image")) return null;
  return { value, folder: typeOf(node) === "LoadImageOutput" ? "output" : "input" };
}

/** @param {GraphNode} node @returns {string} */
function typeOf(node) {
  return String(node.comfyClass ?? node.type ?? "");
}

/** @param {any} graph @param {any} linkId @param {number} steps @returns {Output | null} */
function follow(graph, linkId, steps) {
  if (!graph || linkId === null || linkId === undefined || steps <= 0) return null;
  const link = graph.getLink?.(linkId) ?? graph.links?.get?.(linkId) ?? graph.links?.[linkId];
  if (!link) return null;
  const node = graph.getNodeById?.(link.origin_id);
  if (!node) return fromOutside(graph, link, steps);
  if (node.subgraph) return fromInside(node, link.origin_slot, steps);
  if (node.mode === NEVER) return null;
  if (node.mode === BYPASS) return through(node, link.origin_slot, steps);
  if (typeOf(node) === "Reroute") return follow(graph, node.inputs?.[0]?.link, steps - 1);
  return { node, slot: link.origin_slot };
}

/** The link begins at the subgraph's border: go on at the node that stands for it in the graph around. @param {any} graph @param {any} link @param {number} steps @returns {Output | null} */
function fromOutside(graph, link, steps) {
  const root = graph.rootGraph;
  if (!root || root === graph) return null;
  const graphs = [root, ...(root.subgraphs?.values?.() ?? [])];
  for (const outer of graphs) {
    const shell = (outer.nodes ?? outer._nodes ?? []).find((/** @type {GraphNode} */ node) => node.subgraph === graph);
    const input = shell?.inputs?.[link.origin_slot];
    if (input) return follow(outer, input.link, steps - 1);
  }
  return null;
}

/** @param {GraphNode} shell @param {number} slot @param {number} steps @returns {Output | null} */
function fromInside(shell, slot, steps) {
  if (shell.mode === NEVER) return null;
  if (shell.mode === BYPASS) return through(shell, slot, steps);
  const output = shell.subgraph.outputs?.[slot];
  return follow(shell.subgraph, output?.linkIds?.[0], steps - 1);
}

/** A bypassed node hands on its first connected input of the same type. @param {GraphNode} node @param {number} slot @param {number} steps @returns {Output | null} */
function through(node, slot, steps) {
  const type = node.outputs?.[slot]?.type;
  const input = node.inputs?.find((/** @type {any} */ candidate) => candidate.type === type && candidate.link != null);
  return input ? follow(node.graph, input.link, steps - 1) : null;
}
