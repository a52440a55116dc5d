/** Puts the notes on our nodes: each has a panel as soon as there is something to say. */

import { addNotes, chain } from "../host/attach.js";
import { locale, nodeOf, onRun, refusals, rendersElements, rootGraph } from "../host/comfy.js";
import { findSession, keepSession } from "../host/sessions.js";
import { doubtsIn, nodesOf, typeOf } from "./graph.js";
import { isEmpty, NOTHING, readError, readOutput, readRefusal } from "./model.js";
import { Panel } from "./panel.js";
import { translator } from "./strings.js";

/** Nodes whose editor says itself what the last run had to remark. */
const EDITORS = ["LayoutComposer", "ContextGenCutout"];
/** How often the graph is looked at for what is wrong in it; milliseconds. */
const LOOK = 1000;
const KIND = "notes";

/** @typedef {import("../host/comfy.js").HostNode} HostNode */

/** @type {Set<string>} */
const types = new Set();
/** @type {Map<HostNode, Noted>} */
const noted = new Map();

class Noted {
  /** @param {HostNode} node */
  constructor(node) {
    this.node = node;
    this.notes = NOTHING;
    /** @type {((notes: import("./model.js").Notes) => void) | null} */
    this.show = null;
  }

  /** @param {Partial<import("./model.js").Notes>} changes */
  set(changes) {
    const next = { ...this.notes, ...changes };
    if (JSON.stringify(next) === JSON.stringify(this.notes)) return;
    this.notes = next;
    if (!this.show && isEmpty(next)) return;
    this.show ??= addPanel(this.node);
    this.show(next);
  }
}

/** @param {HostNode} node @returns {(notes: import("./model.js").Notes) => void} */
function addPanel(node) {
  const panel = new Panel(translator(locale()));
  const put = addNotes(node, { name: "contextgen_notes", element: panel.element });
  return (notes) => {
    panel.show(notes);
    put(Panel.plain(notes), Boolean(notes.text));
  };
}

export const extension = {
  name: "contextgen.Notes",
  /** @param {any} _type @param {any} definition */
  beforeRegisterNodeDef(_type, definition) {
    if (String(definition?.category ?? "").split("/")[0] === "ContextGen") types.add(String(definition.name));
  },
  setup() {
    onRun({
      start: () => forget(),
      error: (detail) => {
        const error = readError(detail, (type) => types.has(type));
        if (!error) return;
        const one = error.id === null ? null : nodeOf(error.id);
        for (const node of one ? [one] : nodesOf(rootGraph()).filter((each) => typeOf(each) === error.type)) noted.get(node)?.set({ error: error.message });
      },
    });
    /** @type {unknown} */
    let refused = null;
    setInterval(() => {
      if (document.hidden || !noted.size) return;
      if (refusals() !== refused) {
        refused = refusals();
        forget();
        for (const [id, message] of readRefusal(refused)) noted.get(nodeOf(id))?.set({ error: message });
      }
      const said = doubtsIn(rootGraph(), translator(locale()));
      for (const [node, entry] of noted) entry.set({ graph: said.get(node) ?? [] });
    }, LOOK);
  },
  /** @param {HostNode} node */
  nodeCreated(node) {
    if (!types.has(typeOf(node))) return;
    const entry = new Noted(node);
    noted.set(node, entry);
    const editor = EDITORS.includes(typeOf(node));
    chain(node, "onExecuted", (output) => {
      const { text, warnings } = readOutput(output);
      entry.set({ text, warnings: editor && rendersElements() ? [] : warnings, error: "" });
    });
    chain(node, "onConfigure", () => entry.set(findSession(node, KIND) ?? {}));
    chain(node, "onRemoved", () => {
      keepSession(node, KIND, entry.notes);
      noted.delete(node);
    });
  },
};

/** An error is that of the last run alone. */
function forget() {
  for (const entry of noted.values()) entry.set({ error: "" });
}
