/** The numbers, the reference and the label of the selected box. */

import { isolate } from "../kit/i18n.js";
import { selected } from "../scene/actions.js";
import { isLocked } from "../scene/schema.js";
import { element, setAttribute, setChildren } from "../kit/dom.js";

const SIDES = /** @type {const} */ (["x", "y", "w", "h"]);

export class Fields {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    const { t } = view;
    this.reference = element("select", { "data-field": "ref" });
    this.label = element("input", { type: "text", "data-field": "label", maxlength: 200, placeholder: t("labelHint") });
    const names = { x: t("fieldX"), y: t("fieldY"), w: t("fieldW"), h: t("fieldH") };
    this.numbers = SIDES.map((side) => element("input", { type: "number", step: 1, "data-field": side }));
    this.form = element(
      "div",
      { class: "form", role: "group", "aria-label": t("fields") },
      element("label", { class: "wide" }, element("span", { text: t("reference") }), this.reference),
      element("label", { class: "wide" }, element("span", { text: t("label") }), this.label),
      ...SIDES.map((side, i) => element("label", {}, element("span", { text: names[side] }), this.numbers[i])),
    );
    this.element = element("section", { class: "fields" }, this.form);
    this.reference.addEventListener("change", () => this.#bind(), { signal });
    this.label.addEventListener("change", () => this.#rename(), { signal });
    this.numbers.forEach((input, i) => input.addEventListener("change", () => this.#place(SIDES[i], input), { signal }));
  }

  update() {
    const boxes = selected(this.view.store.state);
    const [box] = boxes;
    const single = boxes.length === 1 ? box : null;
    const { canPlace, canEdit } = this.view.commands;
    // The fields are always there, so that the picture above does not jump when a box is chosen.
    SIDES.forEach((side, i) => {
      const input = this.numbers[i];
      if (!this.#typing(input)) input.value = single ? String(Math.round(single[side] * 100) / 100) : "";
      input.disabled = !single || !canPlace || isLocked(single, this.view.store.state.layout);
    });
    if (!this.#typing(this.label)) this.label.value = single?.label ?? "";
    this.label.disabled = !single || !canEdit;
    this.reference.disabled = !box || !canEdit;
    this.#updateChoice(boxes);
  }

  focus() {
    this.reference.focus();
  }

  /** True while the user is in the middle of an entry that must not be written over. @param {HTMLInputElement} input */
  #typing(input) {
    const root = /** @type {ShadowRoot | Document} */ (input.getRootNode());
    return root.activeElement === input && !this.view.store.inGesture && input.dataset.for === this.view.store.state.selection.join();
  }

  /** @param {readonly import("../scene/schema.js").Box[]} boxes */
  #updateChoice(boxes) {
    const { library, t } = this.view;
    const selection = this.view.store.state.selection.join();
    for (const input of [...this.numbers, this.label]) input.dataset.for = selection;
    const values = new Set(boxes.map((box) => encode(box.ref === null ? null : this.#canonical(box.ref))));
    const options = [
      { value: encode(null), text: t("noReference") },
      ...library.references.map((reference) => ({
        value: encode(library.refOf(reference)),
        text: reference.number < 10 ? this.view.t("referenceKey", { name: isolate(reference.name), number: reference.number }) : isolate(reference.name),
      })),
    ];
    for (const box of boxes) {
      if (box.ref !== null && !library.find(box.ref)) {
        options.push({ value: encode(box.ref), text: t("missing", { name: isolate(String(box.ref)) }) });
      }
    }
    if (JSON.stringify(options) !== this.reference.dataset.options) {
      this.reference.dataset.options = JSON.stringify(options);
      setChildren(this.reference, options.map(({ value, text }) => element("option", { value, text })));
    }
    const [value = "", ...others] = values;
    this.reference.value = others.length ? "" : value;
    setAttribute(this.reference, "title", this.reference.selectedOptions[0]?.textContent ?? null);
  }

  /** The form in which the list offers this reference. @param {import("../scene/schema.js").Ref} ref */
  #canonical(ref) {
    const reference = this.view.library.find(ref);
    return reference ? this.view.library.refOf(reference) : ref;
  }

  #bind() {
    const ref = JSON.parse(this.reference.value || "null");
    this.view.commands.bind(ref);
  }

  #rename() {
    const [id] = this.view.store.state.selection;
    if (id) this.view.store.dispatch({ type: "label", id, label: this.label.value });
    this.update();
  }

  /** @param {"x" | "y" | "w" | "h"} side @param {HTMLInputElement} input */
  #place(side, input) {
    const [box] = selected(this.view.store.state);
    const value = input.valueAsNumber;
    if (box && Number.isFinite(value) && this.view.commands.canPlace) {
      const rect = { x: box.x, y: box.y, w: box.w, h: box.h, [side]: value };
      if (this.view.store.dispatch({ type: "place", rects: [{ ...rect, id: box.id }] }, { join: `field ${side}` })) {
        this.view.commands.sayPlaced();
      }
    }
    const [now] = selected(this.view.store.state);
    if (now) input.value = String(Math.round(now[side] * 100) / 100);
  }
}

/** @param {import("../scene/schema.js").Ref} ref */
function encode(ref) {
  return JSON.stringify(ref);
}
