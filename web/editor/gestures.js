/**
 * Pointer gestures on the stage: draw, move, pull a handle, resize several, select with a frame, move the view.
 *
 * @typedef {import("../scene/schema.js").Rect} Rect
 * @typedef {import("../scene/schema.js").Box} Box
 * @typedef {import("../scene/geometry.js").Handle} Edge
 * @typedef {{x: number, y: number}} Point
 * @typedef {{kind: "draw" | "move" | "pull" | "scale" | "frame" | "pan", start: Point, boxes: readonly Box[], handle: string,
 *   ref: import("../scene/schema.js").Ref, base: readonly string[], toggle: string | null, last: Point}} Gesture
 *   ref: what a new box will be bound to; base: the selection before; toggle: the box that a click with Shift takes or leaves
 */

import { Pointer } from "../kit/pointer.js";
import { zoomed } from "../kit/viewport.js";
import { naturalAspect } from "../render/place.js";
import { selected } from "../scene/actions.js";
import * as geometry from "../scene/geometry.js";
import { kindOf, regionOf } from "../scene/kinds/index.js";
import { isLocked } from "../scene/schema.js";

/** Distance from which edges stick, CSS pixels. */
const REACH = 6;
/** Degrees from which a quarter turn sticks, and the step with Shift. */
const QUARTER_REACH = 3;
const TURN_STEP = 15;

export class Gestures {
  /** @param {import("./stage.js").Stage} stage @param {AbortSignal} signal */
  constructor(stage, signal) {
    this.stage = stage;
    this.view = stage.view;
    this.store = stage.view.store;
    this.space = false;
    /** @type {Map<number, {clientX: number, clientY: number}>} fingers on the stage */
    this.fingers = new Map();
    if (this.view.isLarge) this.#listenForView(signal);
    /** @type {Pointer<Gesture>} */
    this.pointer = new Pointer(
      stage.element,
      {
        point: (event) => stage.point(event),
        down: (event, at) => this.#down(event, at),
        begin: (gesture) => gesture.kind !== "pan" && this.store.begin(),
        move: (gesture, at, event) => this.#move(gesture, at, event),
        end: (gesture) => this.#end(gesture),
        click: (gesture, event) => this.#click(gesture, event),
        cancel: (gesture) => this.#give(gesture),
      },
      signal,
    );
    stage.element.addEventListener("dblclick", (event) => this.#single(event), { signal });
  }

  /** The gesture under way, or null. */
  get active() {
    return this.pointer.active?.data ?? null;
  }

  /** Gives up the gesture under way. @returns {boolean} whether there was one */
  cancel() {
    return this.pointer.cancel();
  }

  /** @param {Gesture} gesture */
  #give(gesture) {
    this.#clear();
    if (gesture.kind !== "pan") this.store.cancel();
  }

  #clear() {
    this.stage.showFrame(null);
    this.stage.showGuides([]);
    this.stage.element.classList.remove("panning");
  }

  // --- the view -----------------------------------------------------------------------------------------------------

  /** Wheel and pinch zoom, the space bar and the middle button move what is seen. @param {AbortSignal} signal */
  #listenForView(signal) {
    const { stage } = this;
    stage.wrap.addEventListener("wheel", (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (event.shiftKey && !event.ctrlKey) stage.panBy(-(event.deltaX || event.deltaY), 0);
      else stage.look(zoomed(stage.seen, Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), stage.frameShare(event)));
    }, { signal, passive: false });
    stage.element.addEventListener("keydown", (event) => event.key === " " && event.target === stage.element && this.#hold(true), { signal });
    stage.element.addEventListener("keyup", (event) => event.key === " " && this.#hold(false), { signal });
    const fingers = (/** @type {PointerEvent} */ event) => event.pointerType === "touch" && this.#finger(event);
    for (const type of /** @type {const} */ (["pointerdown", "pointermove", "pointerup", "pointercancel"])) {
      stage.element.addEventListener(type, fingers, { signal, capture: true });
    }
  }

  /** @param {boolean} on */
  #hold(on) {
    this.space = on;
    this.stage.element.classList.toggle("grabbing", on);
  }

  /** Two fingers zoom and move, and end what one of them had begun. @param {PointerEvent} event */
  #finger(event) {
    if (event.type === "pointerup" || event.type === "pointercancel") {
      this.fingers.delete(event.pointerId);
      return;
    }
    const before = [...this.fingers.values()];
    if (event.type === "pointermove" && !this.fingers.has(event.pointerId)) return;
    this.fingers.set(event.pointerId, { clientX: event.clientX, clientY: event.clientY });
    const now = [...this.fingers.values()];
    if (now.length !== 2) return;
    this.cancel();
    event.stopImmediatePropagation();
    if (before.length !== 2) return;
    const middle = (/** @type {typeof now} */ [a, b]) => ({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
    const span = (/** @type {typeof now} */ [a, b]) => Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY));
    const [from, to] = [middle(before), middle(now)];
    this.stage.look(zoomed(this.stage.seen, span(now) / span(before), this.stage.frameShare(from)));
    this.stage.panBy(to.clientX - from.clientX, to.clientY - from.clientY);
  }

  // --- press --------------------------------------------------------------------------------------------------------

  /** @param {PointerEvent} event @param {Point} start @returns {Gesture | null} */
  #down(event, start) {
    const pan = this.view.isLarge && (event.button === 1 || (event.button === 0 && this.space));
    if (!pan && (event.button !== 0 || this.view.environment.readOnly)) return null;
    const base = this.store.state.selection;
    /** @type {Gesture} */
    const gesture = { kind: "pan", start, boxes: [], handle: "", ref: null, base, toggle: null, last: { x: event.clientX, y: event.clientY } };
    if (pan) {
      this.stage.element.classList.add("panning");
      return gesture;
    }
    const target = /** @type {Element} */ (event.composedPath()[0]);
    gesture.handle = target.closest("[data-handle]")?.getAttribute("data-handle") ?? "";
    const box = this.#boxAt(target, start, event.altKey);
    const draw = event.ctrlKey || event.metaKey || this.stage.drawing;
    const { canPlace } = this.view.commands;
    gesture.kind = "frame";
    if (gesture.handle && canPlace) gesture.kind = target.closest(".together") ? "scale" : "pull";
    else if (draw && canPlace) gesture.kind = "draw";
    else if (box) gesture.kind = "move";
    else if (!event.shiftKey && canPlace) gesture.kind = "draw";
    if (gesture.kind === "move" && box) gesture.toggle = this.#choose(box, event);
    if (gesture.kind === "draw" || gesture.kind === "frame") this.stage.element.focus({ preventScroll: true });
    gesture.boxes = selected(this.store.state).filter((each) => !isLocked(each, this.store.state.layout));
    gesture.ref = gesture.kind === "draw" ? this.view.commands.nextReference() : null;
    if (!event.shiftKey && gesture.kind === "frame") gesture.base = [];
    return gesture;
  }

  /** The box pressed on: the chosen one first, then the one in front; with Alt the next one below. @param {Element} target @param {Point} point @param {boolean} below @returns {Box | null} */
  #boxAt(target, point, below) {
    const { boxes } = this.store.state.layout;
    if (below) {
      const stack = this.#stackAt(point).reverse();
      const at = stack.findIndex((box) => this.store.state.selection.includes(box.id));
      return stack.length ? stack[(at + 1) % stack.length] : null;
    }
    const id = target.closest("[data-box]")?.getAttribute("data-box");
    return boxes.find((box) => box.id === id) ?? null;
  }

  /** @param {Point} point @returns {Box[]} bottom first */
  #stackAt(point) {
    return this.store.state.layout.boxes.filter((box) => kindOf(box).hit(box, point));
  }

  /** Chooses a box and those grouped with it. @param {Box} box @param {PointerEvent} event @returns {string | null} the box that a click with Shift shall leave out again */
  #choose(box, event) {
    const already = this.store.state.selection.includes(box.id);
    const ids = event.altKey ? [box.id] : this.view.commands.together(box.id);
    this.stage.focusBox(box.id);
    if (event.shiftKey && !already) this.store.dispatch({ type: "select", ids: [...this.store.state.selection, ...ids] });
    else if (!event.shiftKey && (!already || event.altKey)) this.store.dispatch({ type: "select", ids });
    return event.shiftKey && already ? box.id : null;
  }

  /** A double click reaches into a group. @param {MouseEvent} event */
  #single(event) {
    const id = /** @type {Element} */ (event.composedPath()[0]).closest("[data-box]")?.getAttribute("data-box");
    if (id) this.store.dispatch({ type: "select", ids: [id] });
  }

  /** @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #move(gesture, point, event) {
    if (gesture.kind === "pan") {
      this.stage.panBy(event.clientX - gesture.last.x, event.clientY - gesture.last.y);
      gesture.last = { x: event.clientX, y: event.clientY };
    } else if (gesture.kind === "draw") this.#draw(gesture, point, event);
    else if (gesture.kind === "move") this.#drag(gesture, point, event);
    else if (gesture.kind === "pull") this.#pull(gesture, point, event);
    else if (gesture.kind === "scale") this.#scale(gesture, point, event);
    else this.#frame(gesture, point);
  }

  /** @param {Gesture} gesture */
  #end(gesture) {
    this.#clear();
    if (gesture.kind === "pan") return;
    const changed = this.store.commit();
    if (gesture.kind === "draw" && changed) {
      this.stage.setDrawing(false);
      this.view.commands.sayAdded();
    } else if (gesture.kind === "frame") {
      this.view.announce(this.view.t("saidSelected", { count: this.store.state.selection.length }));
    } else if (changed) this.view.commands.sayPlaced();
  }

  /** A press without movement: on nothing it deselects, on a chosen box that another covers it chooses that other. @param {Gesture} gesture @param {PointerEvent} event */
  #click(gesture, event) {
    this.#clear();
    if (gesture.kind === "draw" || gesture.kind === "frame") {
      if (!event.shiftKey) this.store.dispatch({ type: "select", ids: [] });
      return;
    }
    if (gesture.kind !== "move" || event.altKey) return;
    if (event.shiftKey) {
      if (gesture.toggle !== null) this.store.dispatch({ type: "select", ids: this.view.commands.together(gesture.toggle), toggle: true });
      return;
    }
    const top = this.#stackAt(gesture.start).at(-1);
    if (top) {
      this.store.dispatch({ type: "select", ids: this.view.commands.together(top.id) });
      this.stage.focusBox(top.id);
    }
  }

  // --- movement -----------------------------------------------------------------------------------------------------

  /** @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #draw(gesture, point, event) {
    const { canvas, editor, boxes } = this.store.state.layout;
    const lines = this.#lines(boxes.slice(0, this.store.history.present.layout.boxes.length));
    const start = this.#snapPoint(gesture.start, lines, event, false);
    const end = this.#snapPoint(point, lines, event, true);
    let rect = geometry.fromPoints(start.x, start.y, end.x, end.y);
    const { ref } = gesture;
    const cutout = ref === null ? null : this.view.library.find(ref)?.cutout;
    if (cutout && editor.aspect !== event.shiftKey) {
      const aspect = naturalAspect(this.view.environment.fit, cutout);
      const w = Math.max(rect.w, rect.h * aspect);
      rect = { x: end.x < start.x ? start.x - w : start.x, y: end.y < start.y ? start.y - w / aspect : start.y, w, h: w / aspect };
    }
    if (editor.inside) rect = clip(rect, canvas);
    this.store.preview({ type: "add", rect, ref });
  }

  /** Shift keeps to one axis. @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #drag(gesture, point, event) {
    const { layout } = this.store.state;
    if (!gesture.boxes.length || !this.view.commands.canPlace) return;
    let dx = point.x - gesture.start.x;
    let dy = point.y - gesture.start.y;
    if (event.shiftKey) {
      if (Math.abs(dx) > Math.abs(dy)) dy = 0;
      else dx = 0;
    }
    const frame = geometry.bounds(gesture.boxes.map(regionOf));
    if (!event.altKey) {
      const lines = this.#lines(layout.boxes.filter((box) => !gesture.boxes.some((moved) => moved.id === box.id)));
      // An axis along which the hand has hardly moved is left alone: a level drag stays level.
      const reach = this.#reach();
      const x = Math.abs(dx) < reach ? STILL : this.#snap([frame.x + dx, frame.x + dx + frame.w, frame.x + dx + frame.w / 2], lines.x);
      const y = Math.abs(dy) < reach ? STILL : this.#snap([frame.y + dy, frame.y + dy + frame.h, frame.y + dy + frame.h / 2], lines.y);
      dx += x.shift;
      dy += y.shift;
      this.stage.showGuides(guides(x.line, y.line));
    } else this.stage.showGuides([]);
    const target = geometry.confine({ ...frame, x: frame.x + dx, y: frame.y + dy }, layout.canvas, layout.editor.inside);
    const shift = { x: target.x - frame.x, y: target.y - frame.y };
    const rects = gesture.boxes.map((box) => ({ id: box.id, x: box.x + shift.x, y: box.y + shift.y, w: box.w, h: box.h }));
    this.store.preview({ type: "place", rects });
  }

  /** A handle of one box. @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #pull(gesture, point, event) {
    const { layout } = this.store.state;
    const [box] = gesture.boxes;
    if (!box) return;
    const lines = this.#lines(layout.boxes.filter((each) => each.id !== box.id));
    const next = kindOf(box).drag(box, gesture.handle, gesture.start, point, {
      layout,
      aspect: layout.editor.aspect !== event.shiftKey ? this.#aspect(box) : null,
      snap: (to) => this.#snapPoint(to, lines, event, true, gesture.handle),
      turnTo: (degrees) => roundTurn(degrees, event),
    });
    this.store.preview({ type: "become", box: next });
  }

  /** A handle of the frame around several: all keep their share of it. @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #scale(gesture, point, event) {
    const { layout } = this.store.state;
    const frame = geometry.bounds(gesture.boxes.map(regionOf));
    const handle = /** @type {Edge} */ (gesture.handle);
    const held = geometry.handlePoint(frame, handle);
    const lines = this.#lines(layout.boxes.filter((box) => !gesture.boxes.some((moved) => moved.id === box.id)));
    const to = this.#snapPoint({ x: held.x + point.x - gesture.start.x, y: held.y + point.y - gesture.start.y }, lines, event, true, handle);
    // What is turned keeps its shape: two scales at once would make it another.
    const keep = event.shiftKey || gesture.boxes.some((box) => box.rot);
    const next = geometry.resize(frame, handle, to.x - held.x, to.y - held.y, {
      canvas: layout.canvas,
      inside: layout.editor.inside,
      aspect: keep ? frame.w / frame.h : null,
    });
    const [sx, sy] = [next.w / frame.w, next.h / frame.h];
    const rects = gesture.boxes.map((box) => {
      const [cx, cy] = [next.x + (box.x + box.w / 2 - frame.x) * sx, next.y + (box.y + box.h / 2 - frame.y) * sy];
      return { id: box.id, x: cx - (box.w * sx) / 2, y: cy - (box.h * sy) / 2, w: box.w * sx, h: box.h * sy };
    });
    this.store.preview({ type: "place", rects });
  }

  /** @param {Gesture} gesture @param {Point} point */
  #frame(gesture, point) {
    const frame = geometry.fromPoints(gesture.start.x, gesture.start.y, point.x, point.y);
    this.stage.showFrame(frame);
    const inside = this.store.state.layout.boxes
      .filter((box) => geometry.overlaps(regionOf(box), frame))
      .flatMap((box) => this.view.commands.together(box.id));
    this.store.preview({ type: "select", ids: [...new Set([...gesture.base, ...inside])] });
  }

  /** The shape to keep: that of the reference, else that of the box itself. @param {Box} box */
  #aspect(box) {
    const cutout = box.ref === null ? null : this.view.library.find(box.ref)?.cutout;
    return cutout && this.store.state.layout.editor.aspect ? naturalAspect(box.fit ?? this.view.environment.fit, cutout) : box.w / box.h;
  }

  /** @param {Point} point @param {{x: number[], y: number[]}} lines @param {PointerEvent} event @param {boolean} show @param {string} [handle] */
  #snapPoint(point, lines, event, show, handle) {
    if (event.altKey) {
      if (show) this.stage.showGuides([]);
      return point;
    }
    const x = handle && !/[ew]/.test(handle) ? STILL : this.#snap([point.x], lines.x);
    const y = handle && !/[ns]/.test(handle) ? STILL : this.#snap([point.y], lines.y);
    if (show) this.stage.showGuides(guides(x.line, y.line));
    return { x: point.x + x.shift, y: point.y + y.shift };
  }

  /** @param {readonly number[]} edges @param {readonly number[]} lines */
  #snap(edges, lines) {
    const { editor } = this.store.state.layout;
    return geometry.snap(edges, editor.edges ? lines : [], this.#reach(), editor.grid);
  }

  /** The distance from which edges stick, pixels of the canvas. */
  #reach() {
    return (REACH * this.store.state.layout.canvas.w) / Math.max(1, this.stage.element.getBoundingClientRect().width);
  }

  /** @param {readonly Box[]} others */
  #lines(others) {
    return geometry.snapLines(others.map(regionOf), this.store.state.layout.canvas);
  }
}

/** @type {{shift: number, line: number | null}} */
const STILL = { shift: 0, line: null };

/** Round angles: steps with Shift, quarter turns from nearby, none with Alt. @param {number} degrees @param {PointerEvent} event */
function roundTurn(degrees, event) {
  if (event.shiftKey) return Math.round(degrees / TURN_STEP) * TURN_STEP;
  const quarter = Math.round(degrees / 90) * 90;
  return !event.altKey && Math.abs(degrees - quarter) < QUARTER_REACH ? quarter : Math.round(degrees);
}

/** @param {number | null} x @param {number | null} y @returns {geometry.Guide[]} */
function guides(x, y) {
  /** @type {geometry.Guide[]} */
  const lines = [];
  if (x !== null) lines.push({ axis: "x", at: x });
  if (y !== null) lines.push({ axis: "y", at: y });
  return lines;
}

/** @param {Rect} rect @param {import("../scene/schema.js").Size} canvas @returns {Rect} */
function clip(rect, canvas) {
  const x = geometry.clamp(rect.x, 0, canvas.w);
  const y = geometry.clamp(rect.y, 0, canvas.h);
  return { x, y, w: geometry.clamp(rect.x + rect.w, 0, canvas.w) - x, h: geometry.clamp(rect.y + rect.h, 0, canvas.h) - y };
}
