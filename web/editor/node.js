/** Puts the layout editor on its nodes: what the controller needs of the host, as plain functions. */

import { attachEditor } from "../host/attach.js";
import {
  annotatedUrl, graphChanged, graphMarks, locale, rendersElements, rootGraph, shownGraph, transaction, travelGraph, upload, viewUrl,
} from "../host/comfy.js";
import { readersIn } from "../host/downstream.js";
import { addBundle } from "../host/references.js";
import { findSession, keepSession } from "../host/sessions.js";
import { isLinked, readPicture, readReferences, widgetValue } from "../host/upstream.js";
import { Controller } from "./controller.js";
import { translator } from "./strings.js";

const NODE = "LayoutComposer";
const WIDGET = "contextgen_layout_editor";

/** @typedef {import("../host/comfy.js").HostNode} HostNode */

export const extension = {
  name: "contextgen.LayoutEditor",
  /** @param {HostNode} node */
  nodeCreated(node) {
    if (node.comfyClass === NODE) attach(node);
  },
};

/** @param {HostNode} node */
function attach(node) {
  const input = node.widgets?.find((/** @type {any} */ widget) => widget.name === "layout");
  if (!input || typeof node.addDOMWidget !== "function") return;
  const t = translator(locale());
  const controller = new Controller(hostOf(node, input), t);
  // The prompt carries only what the picture depends on; the saved workflow carries all of it.
  input.serializeValue = () => controller.promptText();
  attachEditor(node, {
    name: WIDGET,
    input,
    element: controller.element,
    minHeight: 430,
    size: [480, 960],
    watched: ["width", "height", "layout", "fit", "order", "boxes_policy"],
    always: () => controller.closeLarge !== null,
    loaded: () => controller.resume(findSession(node, NODE)),
    sync: () => {
      controller.sync();
      controller.view.stage.measure();
    },
    ran: (output) => controller.ran(readResult(output)),
    end: () => {
      keepSession(node, NODE, controller.session());
      controller.dispose();
    },
  });
  if (!rendersElements()) {
    const button = node.addWidget("button", t("openLarge"), null, () => controller.openLarge(), { serialize: false });
    button.serialize = false;
  }
}

/** @param {HostNode} node @param {any} input @returns {import("./controller.js").Host} */
function hostOf(node, input) {
  const widget = (/** @type {string} */ name) => node.widgets.find((/** @type {any} */ each) => each.name === name);
  const set = (/** @type {string} */ name, /** @type {unknown} */ value) => {
    const field = widget(name);
    if (!field || field.value === value) return;
    field.value = value;
    field.callback?.(value);
  };
  return {
    read: () => ({
      text: typeof input.value === "string" ? input.value : JSON.stringify(input.value ?? ""),
      size: { w: side(widgetValue(node, "width")), h: side(widgetValue(node, "height")) },
      sizeLinked: isLinked(node, "width") || isLinked(node, "height"),
      fit: String(widgetValue(node, "fit") ?? "instance"),
      order: String(widgetValue(node, "order") ?? "drawn"),
      policy: String(widgetValue(node, "boxes_policy") ?? ""),
      boxesLinked: isLinked(node, "boxes"),
      layoutLinked: isLinked(node, "layout"),
      picture: readPicture(node, "layout_image", annotatedUrl),
      sources: readReferences(node, annotatedUrl),
      readers: readersIn(rootGraph()),
      shown: node.graph === shownGraph(),
    }),
    write: (text) => {
      input.value = text;
    },
    resize: ({ w, h }) => {
      set("width", w);
      set("height", h);
    },
    changed: () => graphChanged(node),
    setPolicy: (policy) => set("boxes_policy", policy),
    travel: travelGraph,
    marks: graphMarks,
    addReference: async ({ file, name, cut, then }) => {
      const stored = await upload(file, name);
      transaction(() => {
        addBundle(node, { stored, name, cut });
        then();
      });
      graphChanged(node);
    },
    viewUrl,
  };
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

/** A side as the node takes it: the nearest multiple of 16. @param {unknown} value */
function side(value) {
  const number = Math.floor((Number(value) + 8) / 16) * 16;
  return Number.isFinite(number) ? Math.max(64, Math.min(16384, number)) : 1024;
}
