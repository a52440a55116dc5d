/** A page for the views without a browser: jsdom with the few things it lacks, and events as a browser sends them. */

import { JSDOM } from "jsdom";

import { parseLayout } from "../../web/scene/schema.js";
import { Planes } from "../../web/render/planes.js";
import { ReferenceLibrary } from "../../web/render/references.js";
import { Store } from "../../web/scene/store.js";
import { translator } from "../../web/editor/strings.js";

/** The stage's place on the pretended screen: 500 pixels wide for whatever canvas. */
export const STAGE = { left: 100, top: 50, width: 500, height: 500 };

const NAMES = [
  "document", "window", "Node", "Element", "HTMLElement", "HTMLInputElement", "HTMLSelectElement", "HTMLCanvasElement",
  "HTMLImageElement", "ShadowRoot", "KeyboardEvent", "PointerEvent", "Event", "MouseEvent", "getComputedStyle", "AbortController", "AbortSignal",
];

export function openPage() {
  const { window } = new JSDOM("<!doctype html><body></body>", { pretendToBeVisual: true });
  for (const name of NAMES) globalThis[name] = name === "window" ? window : window[name];
  globalThis.requestAnimationFrame = () => 0;
  globalThis.cancelAnimationFrame = () => {};
  globalThis.Image = window.Image;
  window.HTMLCanvasElement.prototype.getContext = () => null;
  window.HTMLElement.prototype.setPointerCapture = () => {};
  window.HTMLElement.prototype.getBoundingClientRect = function () {
    const rect = this.classList.contains("stage") ? STAGE : { left: 0, top: 0, width: 0, height: 0 };
    return { ...rect, x: rect.left, y: rect.top, right: rect.left + rect.width, bottom: rect.top + rect.height };
  };
  window.HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
  };
  window.HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
  return window;
}

/** References without pictures, as before anything is loaded. @param {...string} names */
export function libraryOf(...names) {
  const library = new ReferenceLibrary();
  library.update(names.map((name) => ({ name, named: true, image: null, mask: null, exact: true, size: null })));
  return library;
}

/** Pretends that the pictures of references are there: name, size and half-open rectangle of the subject. */
export function withSubjects(view, subjects) {
  const { library } = view;
  // A canvas that takes everything and shows nothing.
  const context = (canvas) => ({ canvas, getImageData: (x, y, w, h) => ({ data: new Uint8ClampedArray(4 * w * h) }) });
  HTMLCanvasElement.prototype.getContext = function () {
    return new Proxy(context(this), { get: (known, name) => known[name] ?? (() => {}), set: () => true });
  };
  library.references = library.references.map((reference) => {
    const [width, height, ...subject] = subjects[reference.name];
    return { ...reference, cutout: { width, height, subject, picture: null, pictureSize: { w: width, h: height } } };
  });
  view.update();
}

/** @param {string} text @param {{names?: string[], locale?: string, isLarge?: boolean}} [options] */
export async function openView(text = "", { names = [], locale = "en", isLarge = false } = {}) {
  const { EditorView } = await import("../../web/editor/view.js");
  const calls = { text: [], large: 0, detach: 0, take: 0, travel: [], pictures: [] };
  const callbacks = {
    onText: (value) => calls.text.push(value),
    onLarge: () => (calls.large += 1),
    onDetach: () => (calls.detach += 1),
    onTake: () => (calls.take += 1),
    onTravel: (direction) => calls.travel.push(direction),
    onUndo: () => false,
    onRedo: () => false,
    onPicture: async (picture) => calls.pictures.push(picture),
  };
  const store = new Store(parseLayout(text, { w: 1000, h: 1000 }).layout);
  const library = libraryOf(...names);
  const view = new EditorView({ store, library, planes: new Planes(library), t: translator(locale), callbacks, isLarge });
  document.body.append(view.element);
  return { view, store, calls };
}

/** Drags from one point of the canvas to another (1000 x 1000), on whatever lies there. */
export function drag(view, from, to, { target = view.stage.element, end = "pointerup", ...modifiers } = {}) {
  const at = ([x, y]) => ({ clientX: STAGE.left + x / 2, clientY: STAGE.top + y / 2 });
  const fire = (type, point) =>
    target.dispatchEvent(new PointerEvent(type, { bubbles: true, composed: true, cancelable: true, pointerId: 1, isPrimary: true, button: 0, ...at(point), ...modifiers }));
  fire("pointerdown", from);
  fire("pointermove", [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2]);
  fire("pointermove", to);
  if (end) fire(end, to);
}

/** @param {Element} target @param {string} key @param {KeyboardEventInit} [options] @returns {KeyboardEvent} */
export function press(target, key, options = {}) {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, composed: true, cancelable: true, ...options });
  target.dispatchEvent(event);
  return event;
}

export const boxOf = (view, id) => view.element.querySelector(`[data-box="${id}"]`);
export const tool = (view, name) => view.element.querySelector(`[data-tool="${name}"]`);
export const field = (view, name) => view.element.querySelector(`[data-field="${name}"]`);

/** Sets a field as a user does. */
export function enter(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}
