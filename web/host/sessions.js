/**
 * What an editor knows beyond its node's inputs, above all its history, kept while the node is made anew: the graph's undo,
 * a reload and a change of tabs all build every node again, under the same id.
 */

import { rootGraph, workflowName } from "./comfy.js";

const KEPT = 16;

/** @type {Map<string, unknown>} the latest last */
const sessions = new Map();

/** @param {import("./comfy.js").HostNode} node @param {string} kind */
function keyOf(node, kind) {
  const { graph } = node;
  return [kind, workflowName(), graph && graph !== rootGraph() ? graph.id : "", node.id].join("|");
}

/** @template T @param {import("./comfy.js").HostNode} node @param {string} kind @param {T} session */
export function keepSession(node, kind, session) {
  if (node.id === undefined || node.id === -1) return;
  const key = keyOf(node, kind);
  sessions.delete(key);
  sessions.set(key, session);
  for (const old of sessions.keys()) {
    if (sessions.size <= KEPT) break;
    sessions.delete(old);
  }
}

/** @param {import("./comfy.js").HostNode} node @param {string} kind @returns {any} what was kept under this node's id, or null */
export function findSession(node, kind) {
  return sessions.get(keyOf(node, kind)) ?? null;
}
