/**
 * What is to be said on a node: the text and the warnings of its last run, the error of the last run, and what the
 * graph itself shows to be wrong before any run.
 *
 * @typedef {{text: string, warnings: readonly string[], error: string, graph: readonly string[]}} Notes
 */

/** @type {Notes} */
export const NOTHING = Object.freeze({ text: "", warnings: [], error: "", graph: [] });

const MAX_TEXT = 20000;
const MAX_WARNINGS = 40;

/** @param {Notes} notes */
export function isEmpty({ text, warnings, error, graph }) {
  return !text && !error && !warnings.length && !graph.length;
}

/** A value as text; objects, which any node may have put there, say nothing. @param {unknown} value */
function spoken(value) {
  return value == null || typeof value === "object" ? "" : String(value);
}

/** What a node's output carries. @param {any} output @returns {{text: string, warnings: string[]}} */
export function readOutput(output) {
  const list = (/** @type {unknown} */ value) => (Array.isArray(value) ? value : []).map(spoken);
  return {
    text: list(output?.text).join("\n").trim().slice(0, MAX_TEXT),
    warnings: list(output?.contextgen_warnings).slice(0, MAX_WARNINGS),
  };
}

/**
 * The nodes of ours that an error is about: the one that raised it, else those that its sentence names ("NodeId, input: ..."):
 * a sampler says what our model patch has refused.
 * @param {{node_id?: unknown, node_type?: unknown, exception_message?: unknown}} error
 * @param {(type: string) => boolean} ours
 * @returns {{id: string | null, type: string, message: string} | null} id: of one node; null for all of the type
 */
export function readError(error, ours) {
  const message = spoken(error?.exception_message).trim().slice(0, MAX_TEXT);
  if (!message) return null;
  const type = spoken(error.node_type);
  if (ours(type)) return { id: spoken(error.node_id), type, message };
  const named = /^(\w+)[,:]/.exec(message)?.[1] ?? "";
  return ours(named) ? { id: null, type: named, message } : null;
}

/**
 * What the host refused before running: the sentences of each node.
 * @param {any} errors  by node id, as the host answers
 * @returns {Map<string, string>}
 */
export function readRefusal(errors) {
  const found = Object.entries(errors ?? {}).map(([id, entry]) => {
    const lines = (Array.isArray(entry?.errors) ? entry.errors : []).map((/** @type {any} */ one) => [one?.message, one?.details].map(spoken).filter(Boolean).join(": "));
    return /** @type {const} */ ([id, lines.join("\n").slice(0, MAX_TEXT)]);
  });
  return new Map(found.filter(([, text]) => text));
}
