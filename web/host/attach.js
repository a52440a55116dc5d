/** The life of an editor on its node, the same for all of them: put there, kept up to date, taken away. */

import { forwardToCanvas, rendersElements, rootGraph, shownGraph } from "./comfy.js";

/** How often a visible editor looks for changes above it in the graph, of which the host does not tell; milliseconds. */
const LOOK = 400;

/** @typedef {import("./comfy.js").HostNode} HostNode */

/**
 * @param {HostNode} node
 * @param {{name: string, input: any, element: HTMLElement, minHeight: number, size: readonly [number, number], watched: readonly string[],
 *   always: () => boolean, loaded: () => void, sync: () => void, ran: (output: any) => void, end: () => void}} editor
 *   input: the text widget that it stands for; size: of a fresh node; watched: names of widgets whose change counts;
 *   loaded: the node has been read from a workflow; always: kept up to date even while its element is not seen; end: the node is gone
 */
export function attachEditor(node, { name, input, element, minHeight, size, watched, always, loaded, sync, ran, end }) {
  if (rendersElements()) hide(input);
  const widget = node.addDOMWidget(name, name, element, { serialize: false, hideOnZoom: false, getMinHeight: () => minHeight });
  // Two switches: the first for the saved workflow, the option above for the prompt.
  widget.serialize = false;
  // The editor shows the node's pictures itself; the host's own below it would only take room.
  node.hideOutputImages = true;
  Object.defineProperty(node, "imgs", { get: () => undefined, set: () => {}, configurable: true });
  if (node.size?.[1] < size[1]) node.setSize?.([Math.max(node.size[0], size[0]), size[1]]);
  forwardToCanvas(element);
  let ended = false;
  const finish = () => {
    if (ended) return;
    ended = true;
    clearInterval(timer);
    element.dataset.gone = "";
    end();
  };
  const timer = setInterval(() => {
    if (orphaned(node)) {
      finish();
      element.remove();
      return;
    }
    if (document.hidden) return;
    if (!element.isConnected) takePlace(node, element);
    if (always() || (element.isConnected && element.offsetParent !== null)) sync();
  }, LOOK);
  chain(node, "onConfigure", loaded);
  chain(node, "onConnectionsChange", sync);
  chain(node, "onExecuted", ran);
  chain(node, "onRemoved", finish);
  for (const other of node.widgets) if (watched.includes(other.name)) chain(other, "callback", sync);
}

const NOTES_HEIGHT = 64;
const TEXT_HEIGHT = 150;

/**
 * A panel at the end of a node, which grows by what the panel needs. Not a part of the workflow.
 * @param {HostNode} node @param {{name: string, element: HTMLElement}} panel
 * @returns {(plain: string, long: boolean) => void} to be told what is in it: for a frontend that shows no elements, and
 *   whether it is a text of many lines; an empty one takes no room
 */
export function addNotes(node, { name, element }) {
  let height = 0;
  const shows = rendersElements();
  const widget = shows
    ? node.addDOMWidget(name, name, element, { serialize: false, hideOnZoom: false, getMinHeight: () => height })
    : node.addWidget("customtext", name, "", () => {}, { serialize: false, multiline: true, read_only: true });
  widget.serialize = false;
  return (plain, long) => {
    if (!shows) widget.value = plain;
    // The element alone goes and comes: of a widget that was hidden the new renderer shows nothing any more.
    const hidden = !plain;
    height = hidden ? 0 : long ? TEXT_HEIGHT : NOTES_HEIGHT;
    Object.assign(element.style, { display: hidden ? "none" : "block", minHeight: `${height}px` });
    const least = node.computeSize?.();
    if (!hidden && least && node.size && node.size[1] < least[1]) node.setSize?.([node.size[0], least[1]]);
    node.graph?.setDirtyCanvas?.(true, true);
  };
}

/** The text field stays the node's input, saved at its place; only its picture goes. @param {any} widget */
function hide(widget) {
  widget.hidden = true;
  widget.options = Object.assign(widget.options ?? {}, { hidden: true });
  widget.computeSize = () => [0, -4];
  if (widget.element) widget.element.style.display = "none";
}

/**
 * Undo in the graph makes all nodes anew, but the new renderer may keep what it drew for a node of the same id and with
 * it the element of the node that is gone, whose place this is.
 * @param {HostNode} node @param {HTMLElement} element
 */
function takePlace(node, element) {
  const frame = document.querySelector(`[data-node-id="${CSS.escape(String(node.id))}"]`);
  if (node.graph === shownGraph()) frame?.querySelector(`.${element.classList[0]}[data-gone]`)?.replaceWith(element);
}

/** True for a node in a subgraph that is gone: the host takes such nodes away without a word. @param {HostNode} node */
function orphaned(node) {
  const root = rootGraph();
  const subgraphs = root?.subgraphs;
  if (!node.graph || node.graph === root || typeof subgraphs?.has !== "function") return false;
  return !subgraphs.has(node.graph.id);
}

/** Calls `after` behind a method, with the same arguments. @param {any} target @param {string} name @param {(...args: any[]) => void} after */
export function chain(target, name, after) {
  const before = target[name];
  target[name] = function (/** @type {any[]} */ ...args) {
    const result = before?.apply(this, args);
    after(...args);
    return result;
  };
}
