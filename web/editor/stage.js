/** The canvas with its boxes: HTML elements with percentage geometry over one painted picture. */

import { element, icon, setAttribute, setChildren, setText } from "./dom.js";
import { HANDLES } from "./geometry.js";
import { Gestures } from "./gestures.js";
import { sameScene } from "./model.js";
import { GREY, paint } from "./preview.js";

/** Colours of boxes; nothing is told by colour alone. */
const COLOURS = 8;
const PAINT_SIDE = 1024;

export class Stage {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.drawing = false;
    this.canvas = element("canvas", { class: "paint", "aria-hidden": "true" });
    this.boxes = element("div", { class: "boxes" });
    this.guides = element("div", { class: "guides", "aria-hidden": "true" });
    this.frame = element("div", { class: "frame", hidden: true, "aria-hidden": "true" });
    this.element = element(
      "div",
      { class: "stage", role: "application", tabindex: 0 },
      this.canvas,
      this.boxes,
      this.guides,
      this.frame,
    );
    // Another pack's style sheet must not be able to take the pointer away.
    this.element.style.pointerEvents = "auto";
    this.element.style.touchAction = "none";
    this.wrap = element("div", { class: "stage-wrap" }, this.element);
    this.gestures = new Gestures(this, signal);
    /** @type {Map<string, HTMLElement>} */
    this.byId = new Map();
    /** @type {Map<string, HTMLImageElement>} */
    this.pictures = new Map();
    this.repaint = 0;
    this.observer = typeof ResizeObserver === "function" ? new ResizeObserver(() => this.update()) : null;
    this.observer?.observe(this.element);
    this.element.addEventListener("pointerenter", () => this.measure(), { signal });
    this.element.addEventListener("focusin", () => this.measure(), { signal });
    signal.addEventListener("abort", () => this.#dispose(), { once: true });
  }

  #dispose() {
    this.observer?.disconnect();
    cancelAnimationFrame(this.repaint);
    this.pictures.clear();
  }

  /** Handles, lines and names keep their size on the screen, whatever the zoom of the graph. */
  measure() {
    const { width } = this.element.getBoundingClientRect();
    const scale = this.element.offsetWidth ? width / this.element.offsetWidth : 1;
    const factor = scale > 0 ? Math.max(0.4, Math.min(3, 1 / scale)) : 1;
    this.element.style.setProperty("--k", factor.toFixed(3));
  }

  /** @param {boolean} on  the next drag draws, wherever it begins */
  setDrawing(on) {
    if (this.drawing === on) return;
    this.drawing = on;
    this.element.classList.toggle("drawing", on);
    this.view.toolbar.update();
  }

  update() {
    const { layout, selection } = this.view.store.state;
    const { canvas, boxes } = layout;
    const label = this.view.t("stage", { w: canvas.w, h: canvas.h, count: boxes.length });
    setAttribute(this.element, "aria-label", label);
    this.wrap.style.setProperty("--aspect", String(canvas.w / canvas.h));
    this.element.classList.toggle("gesture", this.view.store.inGesture);
    this.element.classList.toggle("fixed", !this.view.commands.canPlace);
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    const focused = root.activeElement;
    for (const id of this.byId.keys()) if (!boxes.some((box) => box.id === id)) this.byId.delete(id);
    const active = selection.at(-1) ?? boxes.at(-1)?.id;
    this.view.scene.members.forEach((member, index) => {
      const node = this.byId.get(member.box.id) ?? this.#makeBox(member.box.id);
      this.#updateBox(node, member, index, member.box.id === active);
    });
    // Elements stay in the order of their making: moving one would take its focus. What is in front is told by z-index.
    setChildren(this.boxes, [...this.byId.values()]);
    // The keys must not fall to the graph because the box that had the focus is gone.
    if (focused instanceof HTMLElement && focused.dataset.box && !focused.isConnected) this.element.focus({ preventScroll: true });
    this.#schedulePaint();
  }

  /** @param {string} id */
  #makeBox(id) {
    const node = element(
      "div",
      { class: "box", role: "button", "data-box": id },
      element("span", { class: "tag" }, element("b"), element("span"), icon("lock"), icon("hidden"), icon("warning")),
      ...HANDLES.map((handle) => element("i", { class: "handle", "data-handle": handle })),
    );
    this.byId.set(id, node);
    return node;
  }

  /** @param {HTMLElement} node @param {import("./scene.js").Member} member @param {number} index @param {boolean} active */
  #updateBox(node, member, index, active) {
    const { box } = member;
    const { layout, selection } = this.view.store.state;
    const { canvas } = layout;
    const chosen = selection.includes(box.id);
    const name = this.view.commands.nameOf(box);
    node.style.left = percent(box.x, canvas.w);
    node.style.top = percent(box.y, canvas.h);
    node.style.width = percent(box.w, canvas.w);
    node.style.height = percent(box.h, canvas.h);
    node.style.zIndex = String(chosen ? 100 + index : index + 1);
    const shown = { w: (box.w / canvas.w) * this.element.offsetWidth, h: (box.h / canvas.h) * this.element.offsetHeight };
    const classes = {
      chosen,
      single: chosen && selection.length === 1 && !box.locked && this.view.commands.canPlace,
      locked: box.locked,
      unbound: box.ref === null,
      missing: member.missing,
      hidden: member.hidden,
      slim: shown.w < 48,
      flat: shown.h < 48,
    };
    for (const [key, on] of Object.entries(classes)) node.classList.toggle(key, on);
    setAttribute(node, "data-colour", colourOf(box.id));
    setAttribute(node, "tabindex", active ? 0 : -1);
    setAttribute(node, "aria-pressed", chosen ? "true" : "false");
    setAttribute(node, "aria-label", this.#describe(member, index, name));
    const [tag] = node.children;
    // The number is drawn by the style sheet: it is part of the spoken name already.
    setAttribute(tag.children[0], "data-number", index + 1);
    setText(tag.children[1], name);
  }

  /** @param {import("./scene.js").Member} member @param {number} index @param {string} name */
  #describe({ box, hidden, missing }, index, name) {
    const { layout } = this.view.store.state;
    const share = (/** @type {number} */ value, /** @type {number} */ side) => Math.round((100 * value) / side);
    const parts = [
      this.view.t("box", {
        number: index + 1,
        count: layout.boxes.length,
        name,
        x: share(box.x, layout.canvas.w),
        y: share(box.y, layout.canvas.h),
        w: share(box.w, layout.canvas.w),
        h: share(box.h, layout.canvas.h),
      }),
    ];
    if (box.locked) parts.push(this.view.t("boxLocked"));
    if (missing) parts.push(this.view.t("boxMissing"));
    if (hidden) parts.push(this.view.t("boxHidden"));
    return parts.join(", ");
  }

  /** @param {string} id */
  focusBox(id) {
    this.byId.get(id)?.focus({ preventScroll: true });
  }

  /** @param {import("./model.js").Rect | null} rect */
  showFrame(rect) {
    this.frame.hidden = rect === null;
    if (!rect) return;
    const { canvas } = this.view.store.state.layout;
    this.frame.style.left = percent(rect.x, canvas.w);
    this.frame.style.top = percent(rect.y, canvas.h);
    this.frame.style.width = percent(rect.w, canvas.w);
    this.frame.style.height = percent(rect.h, canvas.h);
  }

  /** @param {readonly import("./geometry.js").Guide[]} guides */
  showGuides(guides) {
    const { canvas } = this.view.store.state.layout;
    setChildren(
      this.guides,
      guides.map(({ axis, at }) => {
        const line = element("i", { class: axis });
        if (axis === "x") line.style.left = percent(at, canvas.w);
        else line.style.top = percent(at, canvas.h);
        return line;
      }),
    );
  }

  /** The box or the canvas under a point of the screen, for what is dragged in from outside. @param {number} clientX @param {number} clientY */
  target(clientX, clientY) {
    const rect = this.element.getBoundingClientRect();
    const { canvas, boxes } = this.view.store.state.layout;
    const x = ((clientX - rect.left) / Math.max(1, rect.width)) * canvas.w;
    const y = ((clientY - rect.top) / Math.max(1, rect.height)) * canvas.h;
    if (x < 0 || y < 0 || x >= canvas.w || y >= canvas.h) return null;
    const box = boxes.filter((b) => x >= b.x && x < b.x + b.w && y >= b.y && y < b.y + b.h).at(-1) ?? null;
    return { x, y, box };
  }

  /** Marks the box that a dragged reference would be bound to. @param {string | null} id */
  showTarget(id) {
    for (const [key, node] of this.byId) node.classList.toggle("target", key === id);
  }

  #schedulePaint() {
    cancelAnimationFrame(this.repaint);
    this.repaint = requestAnimationFrame(() => this.#paint());
  }

  /** Which picture stands for the composite now. @returns {"run" | "picture" | "live" | "plain"} */
  get showing() {
    const { environment, store } = this.view;
    const { layout } = store.state;
    const { background, preview } = layout.editor;
    const current = environment.run !== null && !store.inGesture && sameScene(environment.run.layout, layout);
    if (environment.picture && (background === "auto" || background === "picture")) return "picture";
    if (environment.run && background === "run" && !preview) return "run";
    if (current && preview && background !== "plain") return "run";
    return preview ? "live" : "plain";
  }

  #paint() {
    const { store, environment, scene } = this.view;
    const { canvas, editor } = store.state.layout;
    const context = this.canvas.getContext("2d");
    if (!context || !this.element.offsetWidth) return;
    const density = Math.min(globalThis.devicePixelRatio || 1, 2);
    const k = Math.min(1, PAINT_SIDE / Math.max(canvas.w, canvas.h), (this.element.offsetWidth * density) / canvas.w);
    const [w, h] = [Math.max(1, Math.round(canvas.w * k)), Math.max(1, Math.round(canvas.h * k))];
    if (this.canvas.width !== w || this.canvas.height !== h) [this.canvas.width, this.canvas.height] = [w, h];
    context.fillStyle = GREY;
    context.fillRect(0, 0, w, h);
    const { showing } = this;
    const url = showing === "picture" ? environment.picture : showing === "run" || editor.background === "run" ? environment.run?.url : null;
    const picture = url ? this.#picture(url) : null;
    if (picture) context.drawImage(picture, 0, 0, w, h);
    if (picture && showing === "live") {
      context.fillStyle = "rgb(128 128 128 / 0.5)";
      context.fillRect(0, 0, w, h);
    }
    if (showing === "live" || (showing === "run" && !picture)) paint(context, canvas, scene.painted, { hard: !store.inGesture });
  }

  /** A background picture if it is loaded already; else it is asked for and painted later. @param {string} url */
  #picture(url) {
    const known = this.pictures.get(url);
    if (known) return known.complete && known.naturalWidth ? known : null;
    const image = new Image();
    image.onload = () => this.#schedulePaint();
    image.src = url;
    if (this.pictures.size > 4) this.pictures.clear();
    this.pictures.set(url, image);
    return null;
  }
}

/** A colour that stays with the box when the order changes. @param {string} id */
export function colourOf(id) {
  const number = /\d+$/.exec(id);
  if (number) return Number(number[0].slice(-6)) % COLOURS;
  return [...id].reduce((sum, letter) => sum + (letter.codePointAt(0) ?? 0), 0) % COLOURS;
}

/** @param {number} value @param {number} whole */
function percent(value, whole) {
  return `${((100 * value) / whole).toFixed(4)}%`;
}
