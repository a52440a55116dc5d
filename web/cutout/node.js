/** Puts the cut-out editor on its nodes. */

import { attachEditor } from "../host/attach.js";
import { annotatedUrl, graphChanged, locale, rendersElements, viewUrl } from "../host/comfy.js";
import { findSession, keepSession } from "../host/sessions.js";
import { isLinked, readPicture } from "../host/upstream.js";
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
  const view = new CutoutView(translator(locale()), (text) => {
    input.value = text;
    graphChanged(node);
  });
  const sync = () => {
    const text = typeof input.value === "string" ? input.value : JSON.stringify(input.value ?? "");
    const source = readPicture(node, "image", annotatedUrl);
    view.sync({ ...parseClicks(text), readOnly: isLinked(node, "prompts"), source });
  };
  attachEditor(node, {
    name: "contextgen_cutout_editor",
    input,
    element: view.element,
    minHeight: 260,
    size: [400, 780],
    watched: ["prompts"],
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
