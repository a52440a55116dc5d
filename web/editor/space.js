/** The third dimension: the cuboids' numbers, the camera that sees them, and what the stage shows of both. */

import { element, iconButton, setAttribute, setText } from "../kit/dom.js";
import { selected } from "../scene/actions.js";
import { cameraOf } from "../scene/camera.js";
import { isLocked, SHOWS } from "../scene/schema.js";

/** @typedef {keyof import("../scene/camera.js").Shape} Measure @typedef {keyof import("../scene/schema.js").Camera} CameraPart */

const MEASURES = /** @type {const} */ ([
  ["x", "solidX", 0.05], ["z", "solidZ", 0.1], ["y", "solidY", 0.05],
  ["w", "solidW", 0.05], ["h", "solidH", 0.05], ["d", "solidD", 0.05],
  ["yaw", "solidYaw", 5], ["pitch", "solidPitch", 5], ["roll", "solidRoll", 5],
]);
const PARTS = /** @type {const} */ ([["focal", "cameraFocal", 0.05], ["height", "cameraHeight", 0.05], ["pitch", "cameraPitch", 1]]);

export class SpacePanel {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    const { t, commands, store } = view;
    this.convert = iconButton("solid", t("solidMake"), { class: "plain convert", "data-tool": "convert" });
    this.convert.append(element("span", { text: t("solidMake") }));
    const number = (/** @type {string} */ key, /** @type {string} */ value, /** @type {number} */ step) => element("input", { type: "number", step, [`data-${key}`]: value });
    this.measures = MEASURES.map(([key, , step]) => number("solid", key, step));
    this.parts = PARTS.map(([key, , step]) => number("camera", key, step));
    const options = SHOWS.map((value) => element("option", { value, text: t(`shows_${value}`) }));
    this.shows = element("select", { "data-setting": "shows" }, ...options);
    const named = (/** @type {Parameters<typeof t>[0]} */ key, /** @type {HTMLElement} */ field) => element("label", {}, element("span", { text: t(key) }), field);
    this.element = element(
      "div",
      { class: "more space", role: "group", "aria-label": t("space"), hidden: true },
      element("div", { class: "wide row" }, this.convert, named("shows", this.shows)),
      ...MEASURES.map(([, label], i) => named(label, this.measures[i])),
      element("p", { class: "wide hint", text: t("camera") }),
      ...PARTS.map(([, label], i) => named(label, this.parts[i])),
    );
    this.convert.addEventListener("click", () => this.convert.getAttribute("aria-disabled") !== "true" && commands.solid(), { signal });
    this.shows.addEventListener("change", () => {
      store.amend({ type: "prefer", preferences: { shows: /** @type {import("../scene/schema.js").Shows} */ (this.shows.value) } });
    }, { signal });
    MEASURES.forEach(([key], i) => this.measures[i].addEventListener("change", () => this.#measure(key, this.measures[i]), { signal }));
    PARTS.forEach(([key], i) => this.parts[i].addEventListener("change", () => this.#part(key, this.parts[i]), { signal }));
  }

  update() {
    if (this.element.hidden) return;
    const { commands, store, t } = this.view;
    const { layout } = store.state;
    const boxes = selected(store.state);
    const [box] = boxes;
    const free = commands.canPlace && boxes.length === 1 && !isLocked(box, layout);
    const solid = boxes.length === 1 ? box.solid : undefined;
    const flat = commands.makesFlat;
    setText(/** @type {Element} */ (this.convert.lastElementChild), t(flat ? "solidFlat" : "solidMake"));
    setAttribute(this.convert, "aria-label", t(flat ? "solidFlat" : "solidMake"));
    setAttribute(this.convert, "title", t(flat ? "solidFlat" : "solidMake"));
    setAttribute(this.convert, "aria-disabled", commands.canPlace ? null : "true");
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    /** @type {(field: HTMLInputElement, value: number | undefined, off: boolean) => void} */
    const show = (field, value, off) => {
      field.disabled = off;
      if (root.activeElement !== field || store.inGesture || field.dataset.for !== store.state.selection.join()) field.value = value === undefined ? "" : String(value);
      field.dataset.for = store.state.selection.join();
    };
    MEASURES.forEach(([key], i) => show(this.measures[i], solid?.[key], !solid || !free));
    const camera = cameraOf(layout);
    const none = !commands.canPlace || !layout.boxes.some((each) => each.solid);
    PARTS.forEach(([key], i) => show(this.parts[i], camera[key], none));
    this.shows.value = layout.editor.shows;
  }

  /** @param {Measure} key @param {HTMLInputElement} field */
  #measure(key, field) {
    if (Number.isFinite(field.valueAsNumber)) this.view.commands.reshape({ [key]: field.valueAsNumber }, key);
    field.dataset.for = "";
    this.update();
  }

  /** @param {CameraPart} key @param {HTMLInputElement} field */
  #part(key, field) {
    if (Number.isFinite(field.valueAsNumber)) this.view.commands.film({ [key]: field.valueAsNumber });
    field.dataset.for = "";
    this.update();
  }
}
