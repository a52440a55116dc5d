/** The list of boxes, front first: choose, lock, and drag or step to another place in the order. */

import { element, icon, iconButton, setAttribute, setChildren, setText } from "./dom.js";
import { colourOf } from "./stage.js";
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
    /** @type {{id: string, pointer: number} | null} */
    this.drag = null;
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
    if (!this.drag) this.#settle(wanted);
  }

  cancel() {
    if (!this.drag) return false;
    this.drag = null;
    this.view.store.cancel();
    return true;
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
      element("span", { class: "name" }),
      icon("warning"),
      icon("hidden"),
    );
    const lock = iconButton("unlock", view.t("lock"));
    const up = iconButton("forward", view.t("forward"));
    const down = iconButton("backward", view.t("backward"));
    const row = element("li", { "data-row": id }, grip, main, up, down, lock);
    const choose = (/** @type {MouseEvent} */ event) =>
      view.store.dispatch({ type: "select", ids: [id], toggle: event.shiftKey || event.ctrlKey || event.metaKey });
    main.addEventListener("click", choose, { signal });
    lock.addEventListener("click", () => view.commands.lock([id]), { signal });
    for (const [button, step] of /** @type {const} */ ([[up, 1], [down, -1]])) {
      button.addEventListener("click", () => view.commands.moveTo(id, this.#indexOf(id) + step), { signal });
    }
    grip.style.touchAction = "none";
    grip.addEventListener("pointerdown", (event) => this.#down(grip, id, event), { signal });
    grip.addEventListener("pointermove", (event) => this.#move(event), { signal });
    grip.addEventListener("pointerup", (event) => this.#up(event), { signal });
    for (const type of ["pointercancel", "lostpointercapture"]) grip.addEventListener(type, () => this.cancel(), { signal });
    this.byId.set(id, row);
    return row;
  }

  /** @param {HTMLElement} row @param {import("./scene.js").Member} member @param {number} index */
  #updateRow(row, member, index) {
    const { t, store, commands } = this.view;
    const { box } = member;
    const name = commands.nameOf(box);
    const [, main, up, down, lock] = row.children;
    const [number, canvas, text] = main.children;
    const notes = [t("row", { number: index + 1, name })];
    if (box.locked) notes.push(t("boxLocked"));
    if (member.missing) notes.push(t("boxMissing"));
    if (member.hidden) notes.push(t("boxHidden"));
    setAttribute(number, "data-number", index + 1);
    setText(text, name);
    setAttribute(main, "aria-label", notes.join(", "));
    setAttribute(main, "title", notes.join("\n"));
    setAttribute(main, "aria-pressed", store.state.selection.includes(box.id) ? "true" : "false");
    setAttribute(row, "data-colour", colourOf(box.id));
    for (const [key, on] of Object.entries({
      chosen: store.state.selection.includes(box.id),
      unbound: box.ref === null,
      missing: member.missing,
      hidden: member.hidden,
      locked: box.locked,
      dragged: this.drag?.id === box.id,
    })) {
      row.classList.toggle(key, on);
    }
    setAttribute(up, "aria-disabled", index === this.view.scene.members.length - 1 ? "true" : null);
    setAttribute(down, "aria-disabled", index === 0 ? "true" : null);
    const action = t(box.locked ? "unlock" : "lock");
    if (lock.getAttribute("aria-label") !== action) {
      setAttribute(lock, "aria-label", action);
      setAttribute(lock, "title", action);
      lock.replaceChildren(icon(box.locked ? "lock" : "unlock"));
    }
    if (row.dataset.thumb !== thumbKey(member)) {
      row.dataset.thumb = thumbKey(member);
      drawThumb(/** @type {HTMLCanvasElement} */ (canvas), member.reference);
    }
  }

  /** @param {HTMLElement} grip @param {string} id @param {PointerEvent} event */
  #down(grip, id, event) {
    if (event.button !== 0 || !this.view.commands.canEdit) return;
    event.stopPropagation();
    event.preventDefault();
    grip.setPointerCapture(event.pointerId);
    this.drag = { id, pointer: event.pointerId };
    this.view.store.dispatch({ type: "select", ids: [id] });
    this.view.store.begin();
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const { drag } = this;
    if (!drag || drag.pointer !== event.pointerId) return;
    event.stopPropagation();
    const list = this.rows.getBoundingClientRect();
    const count = this.view.scene.members.length;
    const scroll = this.rows.offsetHeight ? (this.rows.scrollTop * list.height) / this.rows.offsetHeight : 0;
    const whole = this.rows.offsetHeight ? (this.rows.scrollHeight * list.height) / this.rows.offsetHeight : list.height;
    const place = Math.floor(((event.clientY - list.top + scroll) / Math.max(1, whole)) * count);
    const index = count - 1 - Math.max(0, Math.min(count - 1, place));
    this.view.store.preview({ type: "moveTo", id: drag.id, index });
  }

  /** @param {PointerEvent} event */
  #up(event) {
    const { drag } = this;
    if (!drag || drag.pointer !== event.pointerId) return;
    event.stopPropagation();
    this.drag = null;
    if (!this.view.store.commit()) this.view.update();
    const number = this.#indexOf(drag.id) + 1;
    this.view.announce(this.view.t("saidOrder", { number, count: this.view.scene.members.length }));
  }

  /** @param {string} id */
  #indexOf(id) {
    return this.view.store.state.layout.boxes.findIndex((box) => box.id === id);
  }
}

/** @param {import("./scene.js").Member} member */
function thumbKey({ reference }) {
  return reference ? JSON.stringify([reference.image, reference.mask, Boolean(reference.cutout)]) : "";
}
