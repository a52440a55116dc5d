/** The list of boxes, front first: choose, lock, and drag or step to another place in the order. */

import { element, icon, iconButton, setAttribute, setChildren, setText } from "../kit/dom.js";
import { Pointer } from "../kit/pointer.js";
import { colourOf, inkOn } from "../scene/colours.js";
import { isLocked } from "../scene/schema.js";
import { drawThumb } from "./tray.js";

export class BoxList {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.signal = signal;
    this.rows = element("ol", { class: "rows", reversed: true, "aria-label": view.t("boxes") });
    this.empty = element("p", { class: "hint", text: view.t("noBoxes") });
    this.element = element("section", { class: "list" }, this.rows, this.empty);
    /** @type {Map<string, HTMLElement>} */
    this.byId = new Map();
    /** @type {Map<string, Pointer<string>>} */
    this.pointers = new Map();
    /** The box whose row is dragged. @type {string | null} */
    this.dragged = null;
  }

  update() {
    const { members } = this.view.scene;
    this.empty.hidden = members.length > 0;
    this.rows.hidden = !members.length;
    for (const id of this.byId.keys()) if (!members.some((member) => member.box.id === id)) this.byId.delete(id);
    members.forEach((member, index) => {
      this.#updateRow(this.byId.get(member.box.id) ?? this.#make(member.box.id), member, index);
    });
    // While a row is dragged the rows keep their places in the document, as a moved element loses the pointer.
    const wanted = [...members].reverse().map((member) => /** @type {HTMLElement} */ (this.byId.get(member.box.id)));
    wanted.forEach((row, place) => (row.style.order = String(place)));
    if (!this.dragged) this.#settle(wanted);
  }

  cancel() {
    return this.dragged !== null && (this.pointers.get(this.dragged)?.cancel() ?? false);
  }

  /** @param {readonly HTMLElement[]} wanted */
  #settle(wanted) {
    const focus = /** @type {ShadowRoot | Document} */ (this.rows.getRootNode()).activeElement;
    setChildren(this.rows, wanted);
    if (focus instanceof HTMLElement && this.rows.contains(focus)) focus.focus({ preventScroll: true });
  }

  /** @param {string} id */
  #make(id) {
    const { view, signal } = this;
    const grip = element("span", { class: "grip", title: view.t("grip"), "aria-hidden": "true" }, icon("grip"));
    const main = element(
      "button",
      { type: "button", class: "choose" },
      element("b"),
      element("canvas", { width: 44, height: 44, "aria-hidden": "true" }),
      element("bdi", { class: "name" }),
      icon("warning"),
      icon("covered"),
    );
    const eye = iconButton("shown", view.t("hide"));
    const lock = iconButton("unlock", view.t("lock"));
    const up = iconButton("forward", view.t("forward"));
    const down = iconButton("backward", view.t("backward"));
    const row = element("li", { "data-row": id }, grip, main, up, down, eye, lock);
    const choose = (/** @type {MouseEvent} */ event) =>
      view.store.dispatch({ type: "select", ids: event.detail > 1 ? [id] : view.commands.together(id), toggle: event.shiftKey || event.ctrlKey || event.metaKey });
    main.addEventListener("click", choose, { signal });
    eye.addEventListener("click", () => view.commands.hide([id]), { signal });
    lock.addEventListener("click", () => view.commands.lock([id]), { signal });
    for (const [button, step] of /** @type {const} */ ([[up, 1], [down, -1]])) {
      button.addEventListener("click", () => view.commands.moveTo(id, this.#indexOf(id) + step), { signal });
    }
    const pointer = new Pointer(
      grip,
      {
        point: ({ clientX: x, clientY: y }) => ({ x, y }),
        down: (event) => (event.button === 0 && view.commands.canEdit ? id : null),
        begin: () => this.#begin(id),
        move: (_, { y }) => view.store.preview({ type: "moveTo", id, index: this.#indexAt(y) }),
        end: () => this.#end(id),
        click: () => view.store.dispatch({ type: "select", ids: view.commands.together(id) }),
        cancel: () => this.#leave(),
      },
      signal,
    );
    this.pointers.set(id, pointer);
    this.byId.set(id, row);
    return row;
  }

  /** @param {HTMLElement} row @param {import("../render/planes.js").Member} member @param {number} index */
  #updateRow(row, member, index) {
    const { t, store, commands } = this.view;
    const { box } = member;
    const name = commands.nameOf(box);
    const [, main, up, down, eye, lock] = row.children;
    const locked = isLocked(box, store.state.layout);
    const colour = colourOf(box);
    const [number, canvas, text] = main.children;
    const notes = [t("row", { number: index + 1, name })];
    if (locked) notes.push(t("boxLocked"));
    if (member.missing) notes.push(t("boxMissing"));
    if (member.off) notes.push(t("boxOff"));
    if (member.covered) notes.push(t("boxCovered"));
    setAttribute(number, "data-number", index + 1);
    setText(text, name);
    setAttribute(main, "aria-label", notes.join(", "));
    setAttribute(main, "title", notes.join("\n"));
    setAttribute(main, "aria-pressed", store.state.selection.includes(box.id) ? "true" : "false");
    row.style.setProperty("--c", colour);
    row.style.setProperty("--ink", inkOn(colour));
    for (const [key, on] of Object.entries({
      chosen: store.state.selection.includes(box.id),
      unbound: box.ref === null,
      missing: member.missing,
      covered: member.covered,
      off: member.off,
      grouped: box.group !== undefined,
      locked,
      dragged: this.dragged === box.id,
    })) {
      row.classList.toggle(key, on);
    }
    setAttribute(up, "aria-disabled", index === this.view.scene.members.length - 1 ? "true" : null);
    setAttribute(down, "aria-disabled", index === 0 ? "true" : null);
    relabel(lock, t(box.locked ? "unlock" : "lock"), box.locked ? "lock" : "unlock");
    relabel(eye, t(box.hidden ? "show" : "hide"), box.hidden ? "hidden" : "shown");
    if (row.dataset.thumb !== thumbKey(member)) {
      row.dataset.thumb = thumbKey(member);
      drawThumb(/** @type {HTMLCanvasElement} */ (canvas), member.reference);
    }
  }

  /** @param {string} id */
  #begin(id) {
    this.dragged = id;
    this.view.store.dispatch({ type: "select", ids: [id] });
    this.view.store.begin();
  }

  /** The place in the order that a row dropped there would take. @param {number} y  on the screen */
  #indexAt(y) {
    const list = this.rows.getBoundingClientRect();
    const count = this.view.scene.members.length;
    const scroll = this.rows.offsetHeight ? (this.rows.scrollTop * list.height) / this.rows.offsetHeight : 0;
    const whole = this.rows.offsetHeight ? (this.rows.scrollHeight * list.height) / this.rows.offsetHeight : list.height;
    const place = Math.floor(((y - list.top + scroll) / Math.max(1, whole)) * count);
    return count - 1 - Math.max(0, Math.min(count - 1, place));
  }

  /** @param {string} id */
  #end(id) {
    this.dragged = null;
    if (!this.view.store.commit()) this.view.update();
    const number = this.#indexOf(id) + 1;
    this.view.announce(this.view.t("saidOrder", { number, count: this.view.scene.members.length }));
  }

  #leave() {
    this.dragged = null;
    this.view.store.cancel();
  }

  /** @param {string} id */
  #indexOf(id) {
    return this.view.store.state.layout.boxes.findIndex((box) => box.id === id);
  }
}

/** @param {import("../render/planes.js").Member} member */
function thumbKey({ reference }) {
  return reference ? JSON.stringify([reference.image, reference.mask, Boolean(reference.cutout)]) : "";
}

/** @param {Element} button @param {string} label @param {import("../kit/dom.js").IconName} name */
function relabel(button, label, name) {
  if (button.getAttribute("aria-label") === label) return;
  setAttribute(button, "aria-label", label);
  setAttribute(button, "title", label);
  button.replaceChildren(icon(name));
}
