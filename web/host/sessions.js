/**
 * What an editor knows beyond its node's inputs, above all its history, kept while the graph's undo builds every node
 * anew, under the same id.
 */

import { rootGraph, workflowName } from "./comfy.js";

/** How long the host may take to build the graph again, milliseconds. Later it is another node that has the id. */
const KEPT = 4000;

/** @type {Map<string, {session: unknown, since: number}>} */
const sessions = new Map();

/** @param {import("./comfy.js").HostNode} node @param {string} kind */
function keyOf(node, kind) {
  const { graph } = node;
  return [kind, workflowName(), graph && graph !== rootGraph() ? graph.id : "", node.id].join("|");
}

/** @template T @param {import("./comfy.js").HostNode} node @param {string} kind @param {T} session */
export function keepSession(node, kind, session) {
  if (node.id === undefined || node.id === -1) return;
  const now = Date.now();
  for (const [key, { since }] of sessions) if (now - since > KEPT) sessions.delete(key);
  sessions.set(keyOf(node, kind), { session, since: now });
}

/** @param {import("./comfy.js").HostNode} node @param {string} kind @returns {any} what was kept under this node's id, or null */
export function findSession(node, kind) {
  const kept = sessions.get(keyOf(node, kind));
  return kept && Date.now() - kept.since <= KEPT ? kept.session : null;
}
