/** Puts the cut-out editor on its nodes; what knows the host's frontend lies in the box editor's host.js. */

import { isLinked, readPicture } from "../editor/graph.js";
import { annotatedUrl, chain, forwardToCanvas, graphChanged, hide, locale, orphaned, rendersElements, viewUrl } from "../editor/host.js";
import { formatClicks, parseClicks } from "./model.js";
import { translator } from "./strings.js";
import { CutoutView } from "./view.js";

const NODE = "ContextGenCutout";
const WIDGET = "contextgen_cutout_editor";
const MIN_HEIGHT = 260;
const DEFAULT_SIZE = /** @type {const} */ ([400, 780]);
const LOOK = 500;

/** @typedef {any} HostNode  the host ships no types for extensions */

export const extension = {
  name: "contextgen.CutoutEditor",
  /** @param {HostNode} node */
  nodeCreated(node) {
    if (node.comfyClass === NODE) attach(node);
  },
};

/** @param {HostNode} node */
function attach(node) {
  const input = node.widgets?.find((/** @type {any} */ widget) => widget.name === "prompts");
  // A frontend that shows no elements keeps the text field; the input means the same.
  if (!input || typeof node.addDOMWidget !== "function" || !rendersElements()) return;
  const view = new CutoutView(translator(locale()), (text) => {
    input.value = text;
    graphChanged(node);
  });
  hide(input);
  const widget = node.addDOMWidget(WIDGET, WIDGET, view.element, { serialize: false, hideOnZoom: false, getMinHeight: () => MIN_HEIGHT });
  widget.serialize = false;
  // The editor shows the picture and the mask itself; the host's own picture below it would only take room.
  node.hideOutputImages = true;
  Object.defineProperty(node, "imgs", { get: () => undefined, set: () => {}, configurable: true });
  if (node.size?.[1] < DEFAULT_SIZE[1]) node.setSize?.([Math.max(node.size[0], DEFAULT_SIZE[0]), DEFAULT_SIZE[1]]);
  forwardToCanvas(view.element);
  const sync = () => {
    const text = typeof input.value === "string" ? input.value : JSON.stringify(input.value ?? "");
    const source = readPicture(node, "image", annotatedUrl);
    view.sync({ ...parseClicks(text), readOnly: isLinked(node, "prompts"), source });
  };
  const end = () => {
    clearInterval(timer);
    view.dispose();
  };
  const timer = setInterval(() => {
    if (orphaned(node)) end();
    else if (!document.hidden && view.element.isConnected) sync();
  }, LOOK);
  chain(node, "onConfigure", sync);
  chain(node, "onConnectionsChange", sync);
  chain(input, "callback", sync);
  chain(node, "onRemoved", end);
  chain(node, "onExecuted", (/** @type {any} */ output) => {
    const told = output?.contextgen_cutout?.[0];
    if (!told?.picture || !told?.mask) return;
    sync();
    view.ran({
      picture: viewUrl(told.picture),
      mask: viewUrl(told.mask),
      size: { w: Number(told.width), h: Number(told.height) },
      text: formatClicks(view.clicks),
      source: view.source,
      quality: told.count === 1 ? Number(told.quality?.[0]) : null,
      warnings: (Array.isArray(told.warnings) ? told.warnings : []).map(String),
    });
  });
  sync();
}
