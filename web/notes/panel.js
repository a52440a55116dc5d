/** The panel on a node: what went wrong, what to look at, and the text that the last run gave. */

import { element, setChildren, setText } from "../kit/dom.js";
import { mount } from "../kit/shell.js";

const STYLE = new URL("./notes.css", import.meta.url).href;

export class Panel {
  /** @param {import("./strings.js").Translate} t */
  constructor(t) {
    this.list = element("ul", { class: "list", tabindex: 0, "aria-label": t("notes"), hidden: true });
    this.text = element("pre", { class: "text", dir: "auto", tabindex: 0, role: "region", "aria-label": t("text"), hidden: true });
    const root = element("div", { class: "notes", role: "group", "aria-label": t("notes") }, this.list, this.text);
    this.element = mount(root, { name: "contextgen-notes", style: STYLE });
    // Marking text must not drag the node.
    for (const type of ["pointerdown", "dblclick"]) root.addEventListener(type, (event) => event.stopPropagation());
    root.addEventListener("keydown", (event) => !event.ctrlKey && !event.metaKey && event.stopPropagation());
  }

  /** @param {import("./model.js").Notes} notes */
  show({ text, warnings, error, graph }) {
    const lines = [...(error ? [{ kind: "error", line: error }] : []), ...[...graph, ...warnings].map((line) => ({ kind: "warning", line }))];
    this.list.hidden = !lines.length;
    setChildren(this.list, lines.map(({ kind, line }) => element("li", { class: kind, text: line, dir: "auto" })));
    this.text.hidden = !text;
    setText(this.text, text);
  }

  /** Without markup, for a frontend that shows no elements. @param {import("./model.js").Notes} notes */
  static plain({ text, warnings, error, graph }) {
    return [error, ...graph, ...warnings, text].filter(Boolean).join("\n\n");
  }
}
