/** The layout as text: for those who want to type or paste it, and for a text that is no layout. */

import { element, setText } from "../kit/dom.js";

export class TextPanel {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    const { t } = view;
    this.view = view;
    this.message = element("p", { class: "problem", role: "alert" });
    this.area = element("textarea", { spellcheck: "false", "aria-label": t("showText") });
    this.close = element("button", { type: "button", text: t("hideText") });
    this.reset = element("button", { type: "button", text: t("startOver") });
    this.element = element(
      "div",
      { class: "text", role: "group", "aria-label": t("showText"), hidden: true },
      this.message,
      this.area,
      element("footer", {}, this.reset, this.close),
    );
    this.wanted = false;
    this.area.addEventListener("change", () => view.callbacks.onText(this.area.value), { signal });
    this.reset.addEventListener("click", () => view.callbacks.onText(""), { signal });
    this.close.addEventListener("click", () => this.show(false), { signal });
  }

  /** @param {boolean} wanted */
  show(wanted) {
    this.wanted = wanted;
    this.view.update();
    if (wanted) this.area.focus();
    else this.view.stage.element.focus({ preventScroll: true });
  }

  update() {
    const { problem, text } = this.view;
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    this.element.hidden = !problem && !this.wanted;
    this.close.hidden = problem !== null;
    this.reset.hidden = problem === null;
    this.area.readOnly = this.view.environment.readOnly;
    const where = problem?.where ? ` (${problem.where})` : "";
    const key = /** @type {Parameters<import("./strings.js").Translate>[0]} */ (problem?.code ?? "notJson");
    setText(this.message, problem ? this.view.t("problem", { reason: this.view.t(key) }) + where : "");
    if (root.activeElement !== this.area && this.area.value !== text) this.area.value = text;
  }
}
