/** The row of tools, and the two rows that open below it: align and distribute, and the settings. */

import { selected } from "./actions.js";
import { element, iconButton, setAttribute } from "./dom.js";

const GRIDS = [0, 8, 16, 32, 64];

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
    const free = () => commands.canPlace && selected(view.store.state).some((box) => !box.locked);
    this.drawButton = this.#button("draw", t("draw"), () => view.stage.setDrawing(!view.stage.drawing), () => commands.canPlace);
    this.arrange = this.#arrangeRow(free);
    this.settings = this.#settingsRow();
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
        this.#disclosure("settings", t("settings"), this.settings),
        this.#button("help", t("help"), () => view.help.show(!view.help.open), () => true),
        view.isLarge ? null : this.#button("large", t("large"), () => view.openLarge(), () => true),
      ),
      this.arrange,
      this.settings,
    );
  }

  update() {
    for (const [button, enabled] of this.enabled) {
      const off = !enabled();
      // A button that switches itself off keeps the focus: aria-disabled, not disabled.
      setAttribute(button, "aria-disabled", off ? "true" : null);
    }
    setAttribute(this.drawButton, "aria-pressed", this.view.stage.drawing ? "true" : "false");
    const { editor } = this.view.store.state.layout;
    for (const [key, field] of Object.entries(this.fields)) {
      const value = editor[/** @type {keyof typeof editor} */ (key)];
      if (field instanceof HTMLInputElement) field.checked = Boolean(value);
      else field.value = String(value);
    }
  }

  /** @param {import("./dom.js").IconName} name @param {string} label @param {() => void} act @param {() => boolean} enabled */
  #button(name, label, act, enabled) {
    const button = iconButton(name, label, { "data-tool": name });
    button.addEventListener("click", () => enabled() && act(), { signal: this.signal });
    this.enabled.set(button, enabled);
    return button;
  }

  /** @param {import("./dom.js").IconName} name @param {string} label @param {HTMLElement} row */
  #disclosure(name, label, row) {
    const button = iconButton(name, label, { "data-tool": name, "aria-expanded": "false" });
    const toggle = () => {
      row.hidden = !row.hidden;
      setAttribute(button, "aria-expanded", row.hidden ? "false" : "true");
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

  /** @param {"edges" | "inside" | "aspect" | "preview"} key @param {string} label */
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

  /** @param {Partial<import("./model.js").Preferences>} preferences */
  #prefer(preferences) {
    this.view.store.amend({ type: "prefer", preferences });
  }
}

function gap() {
  return element("span", { class: "gap" });
}
