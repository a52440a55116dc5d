/** What of the selected boxes may be set by itself: turn, mirror, fit, strength, opacity, colour. */

import { element, iconButton, setAttribute } from "../kit/dom.js";
import { selected } from "../scene/actions.js";
import { colourOf } from "../scene/colours.js";
import { FITS, isLocked, MAX_STRENGTH } from "../scene/schema.js";

const PERCENT = 100;

export class LayerPanel {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    const { t, commands } = view;
    this.rot = element("input", { type: "number", step: 1, min: -180, max: 180, "data-layer": "rot" });
    this.opacity = element("input", { type: "number", step: 5, min: 0, max: PERCENT, "data-layer": "opacity" });
    this.strength = element("input", { type: "number", step: 0.05, min: 0, max: MAX_STRENGTH, "data-layer": "strength" });
    const fits = FITS.map((fit) => element("option", { value: fit, text: fit }));
    this.fit = element("select", { "data-layer": "fit" }, element("option", { value: "", text: t("fitOfNode") }), ...fits);
    this.colour = element("input", { type: "color", "data-layer": "colour" });
    this.plain = iconButton("undo", t("colourReset"));
    this.flips = { h: iconButton("flipH", t("flipH")), v: iconButton("flipV", t("flipV")) };
    const named = (/** @type {Parameters<typeof t>[0]} */ key, /** @type {HTMLElement} */ field) =>
      element("label", {}, element("span", { text: t(key) }), field);
    this.element = element(
      "div",
      { class: "more layer", role: "group", "aria-label": t("layer"), hidden: !view.isLarge },
      named("rotation", this.rot),
      element("span", { class: "pair" }, this.flips.h, this.flips.v),
      named("fit", this.fit),
      named("opacity", this.opacity),
      named("strength", this.strength),
      element("span", { class: "pair" }, named("colour", this.colour), this.plain),
    );
    const on = (/** @type {HTMLElement} */ field, /** @type {string} */ type, /** @type {() => void} */ act) => field.addEventListener(type, act, { signal });
    on(this.rot, "change", () => this.#number(this.rot, (rot) => ({ rot })));
    on(this.opacity, "change", () => this.#number(this.opacity, (share) => ({ opacity: share / PERCENT })));
    on(this.strength, "change", () => this.#number(this.strength, (strength) => ({ strength })));
    on(this.fit, "change", () => commands.layer({ fit: /** @type {import("../scene/schema.js").Fit} */ (this.fit.value) || null }));
    on(this.colour, "change", () => commands.layer({ colour: this.colour.value }));
    on(this.plain, "click", () => commands.layer({ colour: null }));
    for (const axis of /** @type {const} */ (["h", "v"])) on(this.flips[axis], "click", () => commands.flip(axis));
  }

  update() {
    const { commands, store } = this.view;
    const boxes = selected(store.state);
    const [box] = boxes;
    const free = commands.canPlace && boxes.some((each) => !isLocked(each, store.state.layout));
    const off = !box || !commands.canEdit;
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    /** @type {(field: HTMLInputElement, value: (of: import("../scene/schema.js").Box) => number, disabled: boolean) => void} */
    const show = (field, value, disabled) => {
      field.disabled = disabled;
      const same = box && boxes.every((each) => value(each) === value(box));
      if (root.activeElement !== field || store.inGesture) field.value = same ? String(value(box)) : "";
    };
    show(this.rot, (each) => each.rot ?? 0, off || !free || boxes.every((each) => each.solid));
    show(this.opacity, (each) => Math.round((each.opacity ?? 1) * PERCENT), off);
    show(this.strength, (each) => each.strength ?? 1, off);
    this.fit.disabled = off;
    this.fit.value = box && boxes.every((each) => each.fit === box.fit) ? (box.fit ?? "") : "";
    this.colour.disabled = off;
    if (box) this.colour.value = colourOf(box);
    setAttribute(this.plain, "aria-disabled", off || boxes.every((each) => !each.colour) ? "true" : null);
    for (const axis of /** @type {const} */ (["h", "v"])) {
      setAttribute(this.flips[axis], "aria-disabled", off || !free ? "true" : null);
      setAttribute(this.flips[axis], "aria-pressed", String(Boolean(box?.flip?.includes(axis))));
    }
  }

  /** @param {HTMLInputElement} field @param {(value: number) => import("../scene/actions.js").Layer} change */
  #number(field, change) {
    if (Number.isFinite(field.valueAsNumber)) this.view.commands.layer(change(field.valueAsNumber), `layer ${field.dataset.layer}`);
    field.value = "";
    this.update();
  }
}
