/** The tray of connected references: click binds or adds, dragging drops onto a box or the canvas. */

import { element, setAttribute, setChildren, setText } from "./dom.js";

/** @typedef {import("./references.js").Reference} Reference */

export class Tray {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.signal = signal;
    this.empty = element("p", { class: "hint", text: view.t("noReferences") });
    this.items = element("div", { class: "thumbs", role: "group", "aria-label": view.t("references") });
    this.element = element("section", { class: "tray" }, this.items, this.empty);
    /** @type {{number: number, pointer: number, x: number, y: number, ghost: HTMLElement | null} | null} */
    this.drag = null;
  }

  update() {
    const { references } = this.view.library;
    this.empty.hidden = references.length > 0;
    this.items.hidden = !references.length;
    const nodes = [...this.items.children];
    setChildren(
      this.items,
      references.map((reference, index) => {
        const node = /** @type {HTMLElement} */ (nodes[index]) ?? this.#make(index);
        this.#updateItem(node, reference);
        return node;
      }),
    );
  }

  cancel() {
    if (!this.drag) return false;
    this.drag.ghost?.remove();
    this.drag = null;
    this.view.stage.showTarget(null);
    return true;
  }

  /** @param {number} index */
  #make(index) {
    const { signal } = this;
    const node = element(
      "button",
      { type: "button", class: "thumb" },
      element("canvas", { width: 96, height: 96, "aria-hidden": "true" }),
      element("span", { class: "name" }),
      element("b", { class: "count" }),
    );
    // Keyboard and assistive technology; the pointer is answered when it comes up.
    node.addEventListener("click", (event) => event.detail === 0 && this.#use(index), { signal });
    node.addEventListener("pointerdown", (event) => this.#down(node, index, event), { signal });
    node.addEventListener("pointermove", (event) => this.#move(node, event), { signal });
    node.addEventListener("pointerup", (event) => this.#up(index, event), { signal });
    for (const type of ["pointercancel", "lostpointercapture"]) node.addEventListener(type, () => this.cancel(), { signal });
    node.style.touchAction = "none";
    return node;
  }

  /** @param {HTMLElement} node @param {Reference} reference */
  #updateItem(node, reference) {
    const [canvas, name, count] = node.children;
    const used = this.view.scene.members.filter((member) => member.reference === reference).length;
    const hint = [this.view.t("thumb", { name: reference.name })];
    if (used) hint.push(this.view.t("thumbUsed", { count: used }));
    if (!reference.exact) hint.push(this.view.t("approximate"));
    setAttribute(node, "title", hint.join("\n"));
    setAttribute(node, "aria-label", `${reference.number}. ${hint.join(", ")}`);
    node.classList.toggle("rough", !reference.exact);
    node.classList.toggle("used", used > 0);
    setText(name, reference.name);
    setAttribute(count, "data-number", reference.number);
    drawThumb(/** @type {HTMLCanvasElement} */ (canvas), reference);
  }

  /** @param {HTMLElement} node @param {number} index @param {PointerEvent} event */
  #down(node, index, event) {
    if (event.button !== 0 || !this.view.commands.canEdit) return;
    event.stopPropagation();
    this.drag = { number: index + 1, pointer: event.pointerId, x: event.clientX, y: event.clientY, ghost: null };
    node.setPointerCapture(event.pointerId);
  }

  /** @param {HTMLElement} node @param {PointerEvent} event */
  #move(node, event) {
    const { drag } = this;
    if (!drag || drag.pointer !== event.pointerId) return;
    event.stopPropagation();
    if (!drag.ghost) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 5) return;
      const canvas = /** @type {HTMLCanvasElement} */ (node.firstElementChild);
      const copy = element("canvas", { width: canvas.width, height: canvas.height, class: "ghost", "aria-hidden": "true" });
      copy.getContext("2d")?.drawImage(canvas, 0, 0);
      drag.ghost = copy;
      this.view.element.append(copy);
    }
    const frame = this.view.element.getBoundingClientRect();
    const scale = frame.width / (this.view.element.offsetWidth || 1) || 1;
    drag.ghost.style.left = `${(event.clientX - frame.left) / scale}px`;
    drag.ghost.style.top = `${(event.clientY - frame.top) / scale}px`;
    this.view.stage.showTarget(this.view.stage.target(event.clientX, event.clientY)?.box?.id ?? null);
  }

  /** @param {number} index @param {PointerEvent} event */
  #up(index, event) {
    const { drag } = this;
    if (!drag || drag.pointer !== event.pointerId) return;
    event.stopPropagation();
    const moved = drag.ghost !== null;
    this.cancel();
    if (!moved) {
      this.#use(index);
      return;
    }
    const reference = this.view.library.references[index];
    const target = this.view.stage.target(event.clientX, event.clientY);
    if (!reference || !target) return;
    const ref = this.view.library.refOf(reference);
    if (target.box) {
      this.view.store.dispatch({ type: "select", ids: [target.box.id] });
      this.view.commands.bind(ref, [target.box.id]);
    } else this.view.commands.add({ ref, x: target.x, y: target.y });
  }

  /** @param {number} index */
  #use(index) {
    const reference = this.view.library.references[index];
    if (!reference) return;
    const ref = this.view.library.refOf(reference);
    if (this.view.store.state.selection.length) this.view.commands.bind(ref);
    else this.view.commands.add({ ref });
  }
}

/** Draws the subject, fitted, or the picture's number while there is none. @param {HTMLCanvasElement} canvas @param {Reference | null} reference */
export function drawThumb(canvas, reference) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const { width, height } = canvas;
  const { cutout } = reference ?? { cutout: null };
  context.clearRect(0, 0, width, height);
  if (!cutout) return;
  const [x1, y1, x2, y2] = cutout.subject;
  const k = Math.min(width / (x2 - x1), height / (y2 - y1));
  const [w, h] = [(x2 - x1) * k, (y2 - y1) * k];
  const [px, py] = [cutout.pictureSize.w / cutout.width, cutout.pictureSize.h / cutout.height];
  context.imageSmoothingQuality = "high";
  context.drawImage(
    cutout.picture, x1 * px, y1 * py, (x2 - x1) * px, (y2 - y1) * py, (width - w) / 2, (height - h) / 2, w, h,
  );
}
