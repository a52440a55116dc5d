/** The only file that imports the host's frontend. What differs between its versions is told apart here. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

/** Minor version of the frontend from which on the new renderer shows elements: certain for 48, certainly not in 27. */
const FIRST_WITH_ELEMENTS = 30;

/** @typedef {any} HostNode  the host ships no types for extensions */

/** Registers with the frontend, once: a pack found under two names has its files loaded twice. @param {{name: string}} extension */
export function register(extension) {
  const known = app.extensions?.some?.((/** @type {any} */ other) => other.name === extension.name);
  if (!known) app.registerExtension(extension);
}

/** @param {string} id @returns {unknown} */
function setting(id) {
  return app.extensionManager?.setting?.get?.(id) ?? app.ui?.settings?.getSettingValue?.(id);
}

export function locale() {
  return String(setting("Comfy.Locale") ?? "en");
}

/**
 * Whether this frontend shows an extension's own elements in nodes. The first ones with the new renderer did not: there
 * the text field stays, and a button opens the editor over the whole window.
 */
export function rendersElements() {
  if (setting("Comfy.VueNodes.Enabled") !== true) return true;
  const [major, minor] = String(/** @type {any} */ (window).__COMFYUI_FRONTEND_VERSION__ ?? "").split(".").map(Number);
  return !(major === 1 && minor < FIRST_WITH_ELEMENTS);
}

/** The outermost graph. @returns {any} */
export function rootGraph() {
  return app.rootGraph ?? app.graph;
}

/** The graph that is on the screen. @returns {any} */
export function shownGraph() {
  return app.canvas?.graph ?? rootGraph();
}

/** A name for the open workflow, to tell nodes of one from those of another. */
export function workflowName() {
  return String(app.extensionManager?.workflow?.activeWorkflow?.path ?? "");
}

function changeTracker() {
  return app.extensionManager?.workflow?.activeWorkflow?.changeTracker ?? null;
}

/** Tells the host that a node's inputs have changed. @param {HostNode} node */
export function graphChanged(node) {
  node.graph?.setDirtyCanvas?.(true, true);
  // The host looks at the graph after clicks and keys of its own; ours are over by the time of its next look.
  const tracker = changeTracker();
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
}

/** Where the graph's own history stands: the states that undo and redo would bring, to be compared by identity. @returns {{undo: unknown, redo: unknown}} */
export function graphMarks() {
  const tracker = changeTracker();
  return { undo: tracker?.undoQueue?.at?.(-1) ?? null, redo: tracker?.redoQueue?.at?.(-1) ?? null };
}

/** One step of the graph's own history. @param {"undo" | "redo"} direction */
export function travelGraph(direction) {
  void changeTracker()?.[direction]?.();
}

/**
 * Several changes of the graph that its undo takes back in one step. Must not wait in between.
 * @param {() => void} change
 */
export function transaction(change) {
  app.canvas?.emitBeforeChange?.();
  try {
    change();
  } finally {
    app.canvas?.emitAfterChange?.();
  }
}

/** @param {HostNode} graph @param {string} type @param {[number, number]} at @returns {HostNode} */
export function createNode(graph, type, at) {
  const node = /** @type {any} */ (window).LiteGraph?.createNode?.(type);
  if (!node) throw new Error(`the node ${type} is not there`);
  node.pos = at;
  graph.add(node);
  return node;
}

/** Puts a picture into the input folder. @param {Blob} file @param {string} name @returns {Promise<string>} what a loading node calls it */
export async function upload(file, name) {
  const form = new FormData();
  form.append("image", file, name);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body: form });
  if (!answer.ok) throw new Error(`upload: ${answer.status}`);
  const stored = await answer.json();
  return stored.subfolder ? `${stored.subfolder}/${stored.name}` : stored.name;
}

/** "folder/name.png [output]", the way widgets name a file. @param {string} value @param {string} folder */
export function annotatedUrl(value, folder) {
  const match = /^(.*?)(?: \[(input|output|temp)\])?$/s.exec(value);
  const path = match?.[1] ?? value;
  const cut = path.lastIndexOf("/");
  return viewUrl({ filename: path.slice(cut + 1), subfolder: cut < 0 ? "" : path.slice(0, cut), type: match?.[2] ?? folder });
}

/** @param {{filename: string, subfolder: string, type: string}} file */
export function viewUrl({ filename, subfolder, type }) {
  const query = new URLSearchParams({ filename: String(filename), subfolder: String(subfolder ?? ""), type: String(type) });
  return api.apiURL(`/view?${query}`);
}

/** The wheel zooms the graph and the middle button pans it, as everywhere else on a node. @param {HTMLElement} element */
export function forwardToCanvas(element) {
  element.addEventListener("wheel", (event) => {
    // Nodes 2.0 puts the element inside the node and hears the event itself.
    if (element.closest("[data-node-id]") || event.defaultPrevented) return;
    const path = event.composedPath().filter((part) => part instanceof HTMLElement);
    const scrolls = path.some((part) => part.scrollHeight > part.clientHeight + 1 && getComputedStyle(part).overflowY === "auto");
    if (scrolls && !event.ctrlKey) return;
    event.preventDefault();
    app.canvas?.processMouseWheel?.(event);
  });
  for (const [type, method] of /** @type {const} */ ([
    ["pointerdown", "processMouseDown"],
    ["pointermove", "processMouseMove"],
    ["pointerup", "processMouseUp"],
  ])) {
    element.addEventListener(type, (event) => {
      const middle = type === "pointermove" ? (event.buttons & 4) === 4 : event.button === 1;
      if (middle && !element.closest("[data-node-id]")) app.canvas?.[method]?.(event);
    });
  }
}

/** The node of an id as runs name it: "12", or "12:3" for node 3 of the subgraph in node 12. @param {string} id @returns {HostNode | null} */
export function nodeOf(id) {
  let graph = rootGraph();
  /** @type {HostNode | null} */
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById?.(part) ?? graph?.getNodeById?.(Number(part)) ?? null;
    graph = node?.subgraph ?? null;
  }
  return node;
}

/** Tells when a run begins, and how one failed. @param {{start: () => void, error: (detail: any) => void}} callbacks */
export function onRun({ start, error }) {
  api.addEventListener("execution_start", () => start());
  api.addEventListener("execution_error", (/** @type {any} */ event) => error(event.detail));
}

/** Which nodes the host has refused to run at the last try, and why: by node id, null for none; to be compared by identity. */
export function refusals() {
  return app.lastNodeErrors ?? null;
}
