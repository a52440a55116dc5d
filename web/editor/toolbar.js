/** The row of tools, and the two rows that open below it: align and distribute, and the settings. */

import { selected } from "../scene/actions.js";
import { CANVAS_MAX, CANVAS_MIN, isLocked } from "../scene/schema.js";
import { element, iconButton, setAttribute } from "../kit/dom.js";

const GRIDS = [0, 8, 16, 32, 64];
/** About a megapixel, as the models were trained on, and half and twice the side. */
const PRESETS = [[1024, 1024], [1152, 896], [1216, 832], [1344, 768], [1536, 640], [896, 1152], [832, 1216], [768, 1344], [640, 1536], [768, 768], [512, 512]];

export class Toolbar {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.signal = signal;
    const { commands, t } = view;
    /** @type {Map<HTMLButtonElement, () => boolean>} */
    this.enabled = new Map();
    /** @type {Record<string, HTMLInputElement | HTMLSelectElement>} */
    this.fields = {};
    const some = () => view.store.state.selection.length > 0;
    const free = () => commands.canPlace && selected(view.store.state).some((box) => !isLocked(box, view.store.state.layout));
    this.drawButton = this.#button("draw", t("draw"), () => view.stage.setDrawing(!view.stage.drawing), () => commands.canPlace);
    this.arrange = this.#arrangeRow(free);
    this.settings = this.#settingsRow();
    const { row, fields } = this.#canvasRow();
    this.canvasRow = row;
    this.canvasFields = fields;
    const many = () => commands.canEdit && view.store.state.selection.length > 1;
    const grouped = () => commands.canEdit && selected(view.store.state).some((box) => box.group !== undefined);
    this.arrange.append(
      gap(),
      this.#button("group", t("group"), () => commands.group(), many),
      this.#button("ungroup", t("ungroup"), () => commands.ungroup(), grouped),
    );
    this.element = element(
      "div",
      { class: "bars" },
      element(
        "div",
        { class: "bar", role: "toolbar", "aria-label": t("tools") },
        this.#button("undo", t("undo"), () => commands.undo(), () => view.store.canUndo && commands.canEdit),
        this.#button("redo", t("redo"), () => commands.redo(), () => view.store.canRedo && commands.canEdit),
        gap(),
        this.#button("add", t("add"), () => commands.add(), () => commands.canPlace),
        this.drawButton,
        this.#button("duplicate", t("duplicate"), () => commands.duplicate(), () => commands.canPlace && some()),
        this.#button("remove", t("remove"), () => commands.remove(), free),
        gap(),
        this.#button("front", t("front"), () => commands.step("front"), some),
        this.#button("forward", t("forward"), () => commands.step("forward"), some),
        this.#button("backward", t("backward"), () => commands.step("backward"), some),
        this.#button("back", t("back"), () => commands.step("back"), some),
        this.#button("auto", t("auto"), () => commands.automatic(), () => commands.canEdit),
        gap(),
        this.#disclosure("arrange", t("arrange"), this.arrange),
        view.isLarge ? null : this.#disclosure("layer", t("layer"), view.layer.element),
        this.#disclosure("solid", t("space"), view.space.element),
        this.#disclosure("canvas", t("canvasSize"), this.canvasRow),
        this.#disclosure("settings", t("settings"), this.settings),
        ...(view.isLarge ? this.#zoomTools() : []),
        this.#button("help", t("help"), () => view.help.show(!view.help.open), () => true),
        view.isLarge ? null : this.#button("large", t("large"), () => view.openLarge(), () => true),
      ),
      this.arrange,
      view.isLarge ? null : view.layer.element,
      view.space.element,
      this.canvasRow,
      this.settings,
    );
    // One stop for the Tab key; the arrow keys go on from there.
    this.element.querySelectorAll(".bar").forEach((bar) => {
      bar.querySelectorAll("button").forEach((button, at) => (button.tabIndex = at ? -1 : 0));
    });
  }

  #zoomTools() {
    const { stage, t } = this.view;
    return [
      gap(),
      this.#button("zoomOut", t("zoomOut"), () => stage.zoomBy(0.8), () => stage.seen.zoom > 1),
      this.#button("zoomIn", t("zoomIn"), () => stage.zoomBy(1.25), () => true),
      this.#button("whole", t("zoomWhole"), () => stage.showWhole(), () => stage.seen.zoom > 1),
    ];
  }

  /** The canvas' size: boxes go along as the settings say. */
  #canvasRow() {
    const { commands, t, store } = this.view;
    const { signal } = this;
    const presets = element("select", { "data-canvas": "preset", "aria-label": t("canvasPreset") });
    presets.append(element("option", { value: "", text: t("canvasPreset") }));
    for (const [w, h] of PRESETS) presets.append(element("option", { value: `${w} ${h}`, text: `${w} × ${h} (${ratio(w, h)})` }));
    const sides = /** @type {const} */ (["w", "h"]).map((side) =>
      element("input", { type: "number", min: CANVAS_MIN, max: CANVAS_MAX, step: 16, "data-canvas": side, "aria-label": t(side === "w" ? "fieldW" : "fieldH") }),
    );
    const [width, height] = sides;
    presets.addEventListener("change", () => {
      const [w, h] = presets.value.split(" ").map(Number);
      if (w && h) commands.setCanvas({ w, h });
      presets.value = "";
    }, { signal });
    for (const input of sides) {
      input.addEventListener("change", () => {
        const { canvas } = store.state.layout;
        commands.setCanvas({ w: width.valueAsNumber || canvas.w, h: height.valueAsNumber || canvas.h });
        this.update();
      }, { signal });
    }
    const swap = this.#button("swap", t("canvasSwap"), () => {
      const { canvas } = store.state.layout;
      commands.setCanvas({ w: canvas.h, h: canvas.w });
    }, () => commands.canPlace);
    const row = element("div", { class: "more settings", role: "group", "aria-label": t("canvasSize"), hidden: true }, presets, width, swap, height);
    return { row, fields: { presets, width, height } };
  }

  update() {
    for (const [button, enabled] of this.enabled) {
      const off = !enabled();
      // A button that switches itself off keeps the focus: aria-disabled, not disabled.
      setAttribute(button, "aria-disabled", off ? "true" : null);
    }
    setAttribute(this.drawButton, "aria-pressed", this.view.stage.drawing ? "true" : "false");
    const { editor, canvas } = this.view.store.state.layout;
    const { presets, width, height } = this.canvasFields;
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    for (const [input, side] of /** @type {const} */ ([[width, canvas.w], [height, canvas.h]])) {
      if (root.activeElement !== input || !input.value) input.value = String(side);
      input.disabled = !this.view.commands.canPlace;
    }
    presets.disabled = !this.view.commands.canPlace;
    for (const [key, field] of Object.entries(this.fields)) {
      const value = editor[/** @type {keyof typeof editor} */ (key)];
      if (field instanceof HTMLInputElement) field.checked = Boolean(value);
      else field.value = String(value);
    }
  }

  /** @param {import("../kit/dom.js").IconName} name @param {string} label @param {() => void} act @param {() => boolean} enabled */
  #button(name, label, act, enabled) {
    const button = iconButton(name, label, { "data-tool": name });
    button.addEventListener("click", () => enabled() && act(), { signal: this.signal });
    this.enabled.set(button, enabled);
    return button;
  }

  /** @param {import("../kit/dom.js").IconName} name @param {string} label @param {HTMLElement} row */
  #disclosure(name, label, row) {
    const button = iconButton(name, label, { "data-tool": name, "aria-expanded": "false" });
    const toggle = () => {
      row.hidden = !row.hidden;
      setAttribute(button, "aria-expanded", row.hidden ? "false" : "true");
      this.view.space.update();
    };
    button.addEventListener("click", toggle, { signal: this.signal });
    return button;
  }

  /** @param {() => boolean} free */
  #arrangeRow(free) {
    const { commands, t } = this.view;
    const row = element("div", { class: "bar more", role: "group", "aria-label": t("arrange"), hidden: true });
    for (const how of /** @type {const} */ (["left", "center", "right", "top", "middle", "bottom"])) {
      row.append(this.#button(how, t(how), () => commands.align(how), free));
    }
    const three = () => free() && this.view.store.state.selection.length > 2;
    row.append(
      this.#button("spreadX", t("spreadX"), () => commands.distribute("x"), three),
      this.#button("spreadY", t("spreadY"), () => commands.distribute("y"), three),
      this.#button("shape", t("shape"), () => commands.shape(), free),
    );
    return row;
  }

  #settingsRow() {
    const { t } = this.view;
    const grids = GRIDS.map((grid) => /** @type {[string, string]} */ ([String(grid), grid ? `${grid} px` : t("gridOff")]));
    return element(
      "div",
      { class: "more settings", role: "group", "aria-label": t("settings"), hidden: true },
      this.#check("edges", t("edges")),
      this.#check("inside", t("inside")),
      this.#check("aspect", t("aspect")),
      this.#check("preview", t("preview")),
      this.#check("labels", t("labels")),
      this.#choice("grid", t("grid"), grids),
      this.#choice("background", t("background"), [
        ["auto", t("bgAuto")],
        ["plain", t("bgPlain")],
        ["run", t("bgRun")],
        ["picture", t("bgPicture")],
      ]),
      this.#choice("resize", t("onResize"), [
        ["scale", t("resizeScale")],
        ["keep", t("resizeKeep")],
      ]),
    );
  }

  /** @param {"edges" | "inside" | "aspect" | "preview" | "labels"} key @param {string} label */
  #check(key, label) {
    const box = element("input", { type: "checkbox", "data-setting": key });
    this.fields[key] = box;
    box.addEventListener("change", () => this.#prefer({ [key]: box.checked }), { signal: this.signal });
    return element("label", {}, box, element("span", { text: label }));
  }

  /** @param {"grid" | "background" | "resize"} key @param {string} label @param {readonly [string, string][]} options */
  #choice(key, label, options) {
    const made = options.map(([value, text]) => element("option", { value, text }));
    const choice = element("select", { "data-setting": key }, ...made);
    this.fields[key] = choice;
    const chosen = () => this.#prefer({ [key]: key === "grid" ? Number(choice.value) : choice.value });
    choice.addEventListener("change", chosen, { signal: this.signal });
    return element("label", {}, element("span", { text: label }), choice);
  }

  /** @param {Partial<import("../scene/schema.js").Preferences>} preferences */
  #prefer(preferences) {
    this.view.store.amend({ type: "prefer", preferences });
  }
}

function gap() {
  return element("span", { class: "gap" });
}

/** The nearest ratio of small numbers. @param {number} w @param {number} h */
function ratio(w, h) {
  const known = [[1, 1], [4, 3], [5, 4], [3, 2], [16, 9], [21, 9], [9, 7]];
  const wide = Math.max(w, h) / Math.min(w, h);
  const [a, b] = known.reduce((best, each) => (Math.abs(each[0] / each[1] - wide) < Math.abs(best[0] / best[1] - wide) ? each : best));
  return w < h ? `${b}:${a}` : `${a}:${b}`;
}
