/**
 * What the rest of the graph does with a layout: which nodes read the words written at boxes. The one list of them is here.
 */

/** Nodes whose method reads the words of boxes; with them a box without a picture means something. */
export const WORD_METHODS = [
  "InstanceAssembleConditioning",
  "EliGenConditioning",
  "LAMICConditioning",
];

/** Nodes that print or match the names of boxes; the picture does not depend on them. */
export const NAME_READERS = ["ContextGenReport", "ContextGenScore", "ContextGenPairBoxes"];

const NEVER = 2;
const BYPASS = 4;

/**
 * @param {import("./comfy.js").HostNode} root  the outermost graph
 * @returns {{words: string | null, names: boolean}} words: the title of the first node whose method reads them; names:
 *   whether any node reads labels at all
 */
export function readersIn(root) {
  const graphs = [root, ...(root?.subgraphs?.values?.() ?? [])];
  /** @type {string | null} */
  let words = null;
  let names = false;
  for (const graph of graphs) {
    for (const node of graph?.nodes ?? graph?._nodes ?? []) {
      if (node.mode === NEVER || node.mode === BYPASS) continue;
      const type = String(node.comfyClass ?? node.type ?? "");
      if (WORD_METHODS.includes(type)) words ??= String(node.title || type);
      names ||= NAME_READERS.includes(type);
    }
  }
  return { words, names: names || words !== null };
}
