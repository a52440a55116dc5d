/** Puts the cut-out editor on its nodes. */

import { attachEditor } from "../host/attach.js";
import { annotatedUrl, graphChanged, locale, rendersElements, viewUrl } from "../host/comfy.js";
import { findSession, keepSession } from "../host/sessions.js";
import { isLinked, readPicture, widgetValue } from "../host/upstream.js";
import { formatClicks, parseClicks } from "./model.js";
import { translator } from "./strings.js";
import { CutoutView } from "./view.js";

const NODE = "ContextGenCutout";

/** @typedef {import("../host/comfy.js").HostNode} HostNode */

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
  const view = new CutoutView(
    translator(locale()),
    (text) => {
      input.value = text;
      graphChanged(node);
    },
    (number) => {
      const choice = node.widgets.find((/** @type {any} */ widget) => widget.name === "mask_choice");
      if (!choice) return;
      choice.value = String(number);
      graphChanged(node);
    },
  );
  const sync = () => {
    const text = typeof input.value === "string" ? input.value : JSON.stringify(input.value ?? "");
    const source = readPicture(node, "image", annotatedUrl);
    const choice = Number(widgetValue(node, "mask_choice")) || 0;
    view.sync({ ...parseClicks(text), readOnly: isLinked(node, "prompts"), source, idle: idleOf(node), choice });
  };
  attachEditor(node, {
    name: "contextgen_cutout_editor",
    input,
    element: view.element,
    minHeight: 260,
    size: [400, 780],
    watched: ["prompts", "source", "sam_model", "mask_choice"],
    always: () => false,
    loaded: () => {
      view.resume(findSession(node, NODE));
      sync();
    },
    sync,
    ran: (output) => {
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
        candidates: (Array.isArray(told.candidates) ? told.candidates : []).map((/** @type {any} */ one) => ({ mask: viewUrl(one.mask), quality: Number(one.quality) })),
        taken: Number(told.taken) || 0,
        warnings: (Array.isArray(told.warnings) ? told.warnings : []).map(String),
      });
    },
    end: () => {
      keepSession(node, NODE, view.session());
      view.dispose();
    },
  });
  sync();
}

/** Why the node would not use clicks, as far as its own inputs tell. @param {HostNode} node @returns {import("./view.js").Idle | null} */
export function idleOf(node) {
  const source = widgetValue(node, "source");
  if (!isLinked(node, "source")) {
    if (source === "plain background") return "plain";
    if (source === "mask or alpha") return "mask";
  }
  return !isLinked(node, "sam_model") && widgetValue(node, "sam_model") === "none" ? "noModel" : null;
}
