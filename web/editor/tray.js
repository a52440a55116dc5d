/** The tray of connected references: click binds or adds, dragging drops onto a box or the canvas. */

import { element, setAttribute, setChildren, setText } from "../kit/dom.js";
import { isolate } from "../kit/i18n.js";
import { Pointer } from "../kit/pointer.js";

/** @typedef {import("../render/references.js").Reference} Reference */

export class Tray {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.signal = signal;
    this.empty = element("p", { class: "hint", text: view.t("noReferences") });
    this.items = element("div", { class: "thumbs", role: "group", "aria-label": view.t("references") });
    this.element = element("section", { class: "tray" }, this.items, this.empty, view.pictures.button, view.pictures.file, view.pictures.form);
    /** @type {HTMLElement | null} what follows the pointer */
    this.ghost = null;
    /** @type {Pointer<number>[]} */
    this.pointers = [];
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
    return this.pointers.map((pointer) => pointer.cancel()).includes(true);
  }

  /** @param {number} index */
  #make(index) {
    const { signal } = this;
    const node = element(
      "button",
      { type: "button", class: "thumb" },
      element("canvas", { width: 96, height: 96, "aria-hidden": "true" }),
      element("bdi", { class: "name" }),
      element("kbd", { class: "key" }),
    );
    // Keyboard and assistive technology; the pointer is answered when it comes up.
    node.addEventListener("click", (event) => event.detail === 0 && this.#use(index), { signal });
    this.pointers[index] = new Pointer(
      node,
      {
        point: ({ clientX: x, clientY: y }) => ({ x, y }),
        down: (event) => (event.button === 0 && this.view.commands.canEdit ? index : null),
        begin: () => this.#lift(node),
        move: (_, at) => this.#carry(at),
        end: (_, at) => this.#drop(index, at),
        click: () => this.#use(index),
        cancel: () => this.#put(),
      },
      signal,
    );
    return node;
  }

  /** @param {HTMLElement} node @param {Reference} reference */
  #updateItem(node, reference) {
    const [canvas, name, key] = node.children;
    const used = this.view.scene.members.filter((member) => member.reference === reference).length;
    const hint = [this.view.t("thumb", { name: isolate(reference.name) })];
    if (reference.number < 10) hint.push(this.view.t("thumbKey", { number: reference.number }));
    if (used) hint.push(this.view.t("thumbUsed", { count: used }));
    if (!reference.exact) hint.push(this.view.t("approximate"));
    if (reference.broken) hint.push(this.view.t("broken"));
    setAttribute(node, "title", hint.join("\n"));
    setAttribute(node, "aria-label", hint.join(", "));
    node.classList.toggle("rough", !reference.exact);
    node.classList.toggle("used", used > 0);
    setText(name, reference.name);
    node.classList.toggle("broken", reference.broken);
    setAttribute(key, "data-number", reference.number < 10 ? reference.number : null);
    drawThumb(/** @type {HTMLCanvasElement} */ (canvas), reference);
  }

  /** @param {HTMLElement} node */
  #lift(node) {
    const canvas = /** @type {HTMLCanvasElement} */ (node.firstElementChild);
    const copy = element("canvas", { width: canvas.width, height: canvas.height, class: "ghost", "aria-hidden": "true" });
    copy.getContext("2d")?.drawImage(canvas, 0, 0);
    this.ghost = copy;
    this.view.element.append(copy);
  }

  /** @param {{x: number, y: number}} at  on the screen */
  #carry({ x, y }) {
    if (!this.ghost) return;
    const frame = this.view.element.getBoundingClientRect();
    const scale = frame.width / (this.view.element.offsetWidth || 1) || 1;
    this.ghost.style.left = `${(x - frame.left) / scale}px`;
    this.ghost.style.top = `${(y - frame.top) / scale}px`;
    this.view.stage.showTarget(this.view.stage.target(x, y)?.box?.id ?? null);
  }

  #put() {
    this.ghost?.remove();
    this.ghost = null;
    this.view.stage.showTarget(null);
  }

  /** @param {number} index @param {{x: number, y: number}} at */
  #drop(index, { x, y }) {
    this.#put();
    const reference = this.view.library.references[index];
    const target = this.view.stage.target(x, y);
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
