/** The only file that knows the host's frontend: it makes an editor for each node and takes it away again. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { Controller } from "./controller.js";
import { isLinked, readPicture, readReferences, widgetValue } from "./graph.js";
import { translator } from "./strings.js";

const NODE = "LayoutComposer";
const WIDGET = "contextgen_layout_editor";
const MIN_HEIGHT = 430;
const DEFAULT_SIZE = /** @type {const} */ ([480, 960]);
/** How often a visible editor looks for changes above it in the graph, of which the host does not tell; milliseconds. */
const LOOK = 400;
/** Minor version of the frontend from which on the new renderer shows elements: certain for 48, certainly not in 27. */
const FIRST_WITH_ELEMENTS = 30;

/** @typedef {any} HostNode  the host ships no types for extensions */

export const extension = {
  name: "contextgen.LayoutEditor",
  /** @param {HostNode} node */
  nodeCreated(node) {
    if (node.comfyClass === NODE) attach(node);
  },
};

/** Registers with the frontend, once: a pack found under two names has its files loaded twice. @param {{name: string}} [made] */
export function register(made = extension) {
  const known = app.extensions?.some?.((/** @type {any} */ other) => other.name === made.name);
  if (!known) app.registerExtension(made);
}

/** @param {HostNode} node */
function attach(node) {
  const input = node.widgets?.find((/** @type {any} */ widget) => widget.name === "layout");
  if (!input || typeof node.addDOMWidget !== "function") return;
  const t = translator(locale());
  const controller = new Controller(hostOf(node, input), t);
  const shown = rendersElements();
  if (shown) hide(input);
  const widget = node.addDOMWidget(WIDGET, "contextgen_layout_editor", controller.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => MIN_HEIGHT,
  });
  // Two switches: the first for the saved workflow, the option above for the prompt.
  widget.serialize = false;
  if (!shown) {
    const button = node.addWidget("button", t("openLarge"), null, () => controller.openLarge(), { serialize: false });
    button.serialize = false;
  }
  // The editor shows the composite itself; the host's own picture of it below would only take room.
  node.hideOutputImages = true;
  Object.defineProperty(node, "imgs", { get: () => undefined, set: () => {}, configurable: true });
  if (node.size?.[1] < DEFAULT_SIZE[1]) node.setSize?.([Math.max(node.size[0], DEFAULT_SIZE[0]), DEFAULT_SIZE[1]]);
  forwardToCanvas(controller.element);
  const end = () => {
    clearInterval(timer);
    controller.dispose();
  };
  const timer = setInterval(() => {
    const { element } = controller;
    if (orphaned(node)) {
      end();
      element.remove();
      return;
    }
    if (document.hidden) return;
    if (!element.isConnected) takePlace(node, element);
    if (controller.closeLarge || (element.isConnected && element.offsetParent !== null)) {
      controller.sync();
      controller.view.stage.measure();
    }
  }, LOOK);
  chain(node, "onConfigure", () => controller.sync());
  chain(node, "onConnectionsChange", () => controller.sync());
  chain(node, "onExecuted", (/** @type {any} */ output) => controller.ran(readResult(output)));
  chain(node, "onRemoved", end);
  for (const other of node.widgets) {
    if (["width", "height", "layout", "fit", "order", "boxes_policy"].includes(other.name)) chain(other, "callback", () => controller.sync());
  }
}

/** @param {HostNode} node @param {any} input @returns {import("./controller.js").Host} */
function hostOf(node, input) {
  return {
    read: () => ({
      text: typeof input.value === "string" ? input.value : JSON.stringify(input.value ?? ""),
      size: { w: side(widgetValue(node, "width")), h: side(widgetValue(node, "height")) },
      fit: String(widgetValue(node, "fit") ?? "instance"),
      order: String(widgetValue(node, "order") ?? "drawn"),
      policy: String(widgetValue(node, "boxes_policy") ?? ""),
      boxesLinked: isLinked(node, "boxes"),
      layoutLinked: isLinked(node, "layout"),
      picture: readPicture(node, "layout_image", annotatedUrl),
      sources: readReferences(node, annotatedUrl),
    }),
    write: (text) => {
      input.value = text;
    },
    changed: () => graphChanged(node),
    detach: () => {
      const policy = node.widgets.find((/** @type {any} */ widget) => widget.name === "boxes_policy");
      if (policy) policy.value = "seed once";
      policy?.callback?.(policy.value);
    },
    viewUrl,
  };
}

/** Tells the host that a node's inputs have changed. @param {HostNode} node */
export function graphChanged(node) {
  node.graph?.setDirtyCanvas?.(true, true);
  // The host looks at the graph after clicks and keys of its own; ours are over by the time of its next look.
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
}

/**
 * Undo in the graph makes all nodes anew, but the new renderer may keep what it drew for a node of the same id and with
 * it the element of the node that is gone, whose place this is.
 * @param {HostNode} node @param {HTMLElement} element
 */
function takePlace(node, element) {
  const frame = document.querySelector(`[data-node-id="${CSS.escape(String(node.id))}"]`);
  if (node.graph === app.canvas?.graph) frame?.querySelector(".contextgen-editor[data-gone]")?.replaceWith(element);
}

/** True for a node in a subgraph that is gone: the host takes such nodes away without a word. @param {HostNode} node */
export function orphaned(node) {
  const root = app.rootGraph ?? app.graph;
  const subgraphs = root?.subgraphs;
  if (!node.graph || node.graph === root || typeof subgraphs?.has !== "function") return false;
  return !subgraphs.has(node.graph.id);
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

/** The text field stays the node's input, saved at its place; only its picture goes. @param {any} widget */
export function hide(widget) {
  widget.hidden = true;
  widget.options = Object.assign(widget.options ?? {}, { hidden: true });
  widget.computeSize = () => [0, -4];
  if (widget.element) widget.element.style.display = "none";
}

/** @param {any} target @param {string} name @param {(...args: any[]) => void} after */
export function chain(target, name, after) {
  const before = target[name];
  target[name] = function (/** @type {any[]} */ ...args) {
    const result = before?.apply(this, args);
    after(...args);
    return result;
  };
}

/** The wheel zooms the graph and the middle button pans it, as everywhere else on a node. @param {HTMLElement} element */
export function forwardToCanvas(element) {
  element.addEventListener("wheel", (event) => {
    // Nodes 2.0 puts the element inside the node and hears the event itself.
    if (element.closest("[data-node-id]")) return;
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

/** @param {any} output @returns {import("./controller.js").RunResult} */
function readResult(output) {
  const list = (/** @type {unknown} */ value) => (Array.isArray(value) ? value : []);
  return {
    text: String(list(output?.contextgen_layout)[0] ?? ""),
    pictures: list(output?.images),
    references: list(output?.contextgen_references).filter((reference) => reference?.image),
    warnings: list(output?.contextgen_warnings).map(String),
  };
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

/** A side as the node takes it: the nearest multiple of 16. @param {unknown} value */
function side(value) {
  const number = Math.floor((Number(value) + 8) / 16) * 16;
  return Number.isFinite(number) ? Math.max(64, Math.min(16384, number)) : 1024;
}

export function locale() {
  return String(setting("Comfy.Locale") ?? "en");
}

/** @param {string} id @returns {unknown} */
function setting(id) {
  return app.extensionManager?.setting?.get?.(id) ?? app.ui?.settings?.getSettingValue?.(id);
}
