/**
 * What can be done to a layout: one pure function from state and action to state. A state is returned unchanged
 * (the same object) when the action has no effect, so that nothing empty lands in the history.
 *
 * @typedef {import("./model.js").Layout} Layout
 * @typedef {import("./model.js").Box} Box
 * @typedef {import("./model.js").Rect} Rect
 * @typedef {import("./model.js").Size} Size
 * @typedef {import("./model.js").Ref} Ref
 * @typedef {import("./geometry.js").Alignment} Alignment
 * @typedef {{layout: Layout, selection: readonly string[]}} State  selection: ids, in the order they were chosen
 * @typedef {"front" | "back" | "forward" | "backward"} Step
 * @typedef {{type: "select", ids: readonly string[], toggle?: boolean}
 *   | {type: "add", rect: Rect, ref?: Ref, label?: string}
 *   | {type: "place", rects: readonly (Rect & {id: string})[]}
 *   | {type: "nudge", dx: number, dy: number}
 *   | {type: "grow", dw: number, dh: number}
 *   | {type: "remove"}
 *   | {type: "duplicate"}
 *   | {type: "paste", boxes: readonly Box[], canvas: Size}
 *   | {type: "bind", ids: readonly string[], ref: Ref}
 *   | {type: "label", id: string, label: string}
 *   | {type: "lock", ids: readonly string[], locked: boolean}
 *   | {type: "step", step: Step}
 *   | {type: "moveTo", id: string, index: number}
 *   | {type: "arrange", ids: readonly string[]}
 *   | {type: "align", how: Alignment}
 *   | {type: "distribute", axis: "x" | "y"}
 *   | {type: "canvas", size: Size}
 *   | {type: "prefer", preferences: Partial<import("./model.js").Preferences>}
 *   | {type: "replace", layout: Layout}} Action
 */

import { align, bounds, confine, distribute, MIN_SIDE } from "./geometry.js";
import { cleanText, MAX_BOXES, MAX_LABEL, nextId } from "./model.js";

/** @param {State} state @param {Action} action @returns {State} */
export function reduce(state, action) {
  const { layout } = state;
  const chosen = new Set(state.selection);
  switch (action.type) {
    case "select":
      return select(state, action.ids, action.toggle ?? false);
    case "add":
      return addBoxes(state, [{ ...action.rect, ref: action.ref ?? null, label: action.label ?? "", locked: false }]);
    case "place": {
      const rects = new Map(action.rects.map((rect) => [rect.id, rect]));
      return mapBoxes(state, (box) => (box.locked ? box : moved(box, rects.get(box.id) ?? box, layout)));
    }
    case "nudge":
      return nudge(state, action.dx, action.dy);
    case "grow":
      return mapBoxes(state, (box) => (chosen.has(box.id) && !box.locked ? grown(box, action, layout) : box));
    case "remove":
      return setBoxes(
        state,
        layout.boxes.filter((box) => box.locked || !chosen.has(box.id)),
      );
    case "duplicate":
      return addBoxes(state, shifted(layout.boxes.filter((box) => chosen.has(box.id)), layout));
    case "paste":
      return addBoxes(state, pasted(action.boxes, action.canvas, layout));
    case "bind":
      return mapBoxes(state, (box) =>
        action.ids.includes(box.id) && box.ref !== action.ref ? { ...box, ref: action.ref } : box,
      );
    case "label": {
      const label = cleanText(action.label, MAX_LABEL);
      return mapBoxes(state, (box) => (box.id === action.id && box.label !== label ? { ...box, label } : box));
    }
    case "lock":
      return mapBoxes(state, (box) =>
        action.ids.includes(box.id) && box.locked !== action.locked ? { ...box, locked: action.locked } : box,
      );
    case "step":
      return setBoxes(state, stepped(layout.boxes, chosen, action.step));
    case "moveTo":
      return moveTo(state, action.id, action.index);
    case "arrange":
      return arrange(state, action.ids);
    case "align":
    case "distribute":
      return arrangeRects(state, action);
    case "canvas":
      return resizeCanvas(state, action.size);
    case "prefer":
      return { ...state, layout: { ...layout, editor: { ...layout.editor, ...action.preferences } } };
    case "replace":
      return { layout: action.layout, selection: kept(state.selection, action.layout.boxes) };
  }
}

/** The selected boxes in painting order. @param {State} state @returns {Box[]} */
export function selected(state) {
  return state.layout.boxes.filter((box) => state.selection.includes(box.id));
}

/** @param {State} state @param {readonly string[]} ids @param {boolean} toggle @returns {State} */
function select(state, ids, toggle) {
  const known = ids.filter((id) => state.layout.boxes.some((box) => box.id === id));
  const next = toggle
    ? [...state.selection.filter((id) => !known.includes(id)), ...known.filter((id) => !state.selection.includes(id))]
    : known;
  const same = next.length === state.selection.length && next.every((id, i) => id === state.selection[i]);
  return same ? state : { ...state, selection: next };
}

/** New boxes in front of all others; they become the selection. @param {State} state @param {readonly Omit<Box, "id">[]} added @returns {State} */
function addBoxes(state, added) {
  const boxes = [...state.layout.boxes];
  const ids = [];
  for (const box of added.slice(0, MAX_BOXES - boxes.length)) {
    const id = nextId(boxes);
    ids.push(id);
    boxes.push({ ...box, ...placed(box, state.layout), id });
  }
  return ids.length ? { layout: { ...state.layout, boxes }, selection: ids } : state;
}

/** @param {State} state @param {(box: Box) => Box} change @returns {State} */
function mapBoxes(state, change) {
  return setBoxes(state, state.layout.boxes.map(change));
}

/** @param {State} state @param {readonly Box[]} boxes @returns {State} */
function setBoxes(state, boxes) {
  const old = state.layout.boxes;
  if (boxes.length === old.length && boxes.every((box, i) => box === old[i])) return state;
  return { layout: { ...state.layout, boxes }, selection: kept(state.selection, boxes) };
}

/** @param {readonly string[]} selection @param {readonly Box[]} boxes */
function kept(selection, boxes) {
  return selection.filter((id) => boxes.some((box) => box.id === id));
}

/** Whole pixels, inside the canvas as far as the user wants that. @param {Rect} rect @param {Layout} layout @returns {Rect} */
function placed(rect, layout) {
  const x = Math.round(rect.x);
  const y = Math.round(rect.y);
  const size = { w: Math.max(MIN_SIDE, Math.round(rect.w)), h: Math.max(MIN_SIDE, Math.round(rect.h)) };
  return confine({ x, y, ...size }, layout.canvas, layout.editor.inside);
}

/** @param {Box} box @param {Rect} rect @param {Layout} layout @returns {Box} */
function moved(box, rect, layout) {
  if (rect === box) return box;
  const next = placed(rect, layout);
  const same = next.x === box.x && next.y === box.y && next.w === box.w && next.h === box.h;
  return same ? box : { ...box, ...next };
}

/** The selection moves as one: it stops where its first member meets the edge. @param {State} state @param {number} dx @param {number} dy @returns {State} */
function nudge(state, dx, dy) {
  const { layout } = state;
  const free = selected(state).filter((box) => !box.locked);
  if (!free.length) return state;
  const frame = bounds(free);
  const target = confine({ ...frame, x: frame.x + dx, y: frame.y + dy }, layout.canvas, layout.editor.inside);
  const shift = { x: target.x - frame.x, y: target.y - frame.y };
  const rects = free.map((box) => ({ ...box, x: box.x + shift.x, y: box.y + shift.y }));
  return reduce(state, { type: "place", rects });
}

/** @param {Box} box @param {{dw: number, dh: number}} by @param {Layout} layout */
function grown(box, { dw, dh }, layout) {
  const limit = (/** @type {number} */ room) => (layout.editor.inside ? room : Infinity);
  const w = Math.max(MIN_SIDE, Math.min(box.w + dw, Math.max(box.w, limit(layout.canvas.w - box.x))));
  const h = Math.max(MIN_SIDE, Math.min(box.h + dh, Math.max(box.h, limit(layout.canvas.h - box.y))));
  return moved(box, { x: box.x, y: box.y, w, h }, layout);
}

/** Copies lie a little to the lower right, so that both can be seen. @param {readonly Box[]} boxes @param {Layout} layout @returns {Omit<Box, "id">[]} */
function shifted(boxes, layout) {
  const by = Math.max(8, Math.round(Math.min(layout.canvas.w, layout.canvas.h) / 40));
  return boxes.map((box) => {
    const fits = box.x + box.w + by <= layout.canvas.w && box.y + box.h + by <= layout.canvas.h;
    return { ...box, x: box.x + (fits ? by : -by), y: box.y + (fits ? by : -by), locked: false };
  });
}

/** @param {readonly Box[]} boxes @param {Size} canvas @param {Layout} layout @returns {Omit<Box, "id">[]} */
function pasted(boxes, canvas, layout) {
  const sx = layout.canvas.w / canvas.w;
  const sy = layout.canvas.h / canvas.h;
  const scaled = boxes.map((box) => ({ ...box, x: box.x * sx, y: box.y * sy, w: box.w * sx, h: box.h * sy }));
  const occupied = scaled.some((a) =>
    layout.boxes.some((b) => Math.abs(a.x - b.x) < 4 && Math.abs(a.y - b.y) < 4 && Math.abs(a.w - b.w) < 4),
  );
  return occupied ? shifted(scaled, layout) : scaled.map((box) => ({ ...box, locked: false }));
}

/** @param {readonly Box[]} boxes @param {ReadonlySet<string>} chosen @param {Step} step @returns {readonly Box[]} */
function stepped(boxes, chosen, step) {
  const marked = boxes.filter((box) => chosen.has(box.id));
  const rest = boxes.filter((box) => !chosen.has(box.id));
  if (step === "front") return [...rest, ...marked];
  if (step === "back") return [...marked, ...rest];
  const next = [...boxes];
  const up = step === "forward";
  // From the far end, so that a run of chosen boxes moves as one and stops together.
  for (let i = 0; i < next.length; i += 1) {
    const at = up ? next.length - 1 - i : i;
    const to = up ? at + 1 : at - 1;
    if (!chosen.has(next[at].id) || !next[to] || chosen.has(next[to].id)) continue;
    [next[at], next[to]] = [next[to], next[at]];
  }
  return next;
}

/** @param {State} state @param {string} id @param {number} index  position counted from the bottom @returns {State} */
function moveTo(state, id, index) {
  const box = state.layout.boxes.find((candidate) => candidate.id === id);
  if (!box) return state;
  const rest = state.layout.boxes.filter((candidate) => candidate !== box);
  const at = Math.max(0, Math.min(index, rest.length));
  return setBoxes(state, [...rest.slice(0, at), box, ...rest.slice(at)]);
}

/** @param {State} state @param {readonly string[]} ids  bottom first; ids left out stay below @returns {State} */
function arrange(state, ids) {
  const rank = new Map(ids.map((id, index) => [id, index]));
  return setBoxes(
    state,
    [...state.layout.boxes].sort((a, b) => (rank.get(a.id) ?? -1) - (rank.get(b.id) ?? -1)),
  );
}

/** @param {State} state @param {{type: "align", how: Alignment} | {type: "distribute", axis: "x" | "y"}} action @returns {State} */
function arrangeRects(state, action) {
  const free = selected(state).filter((box) => !box.locked);
  if (!free.length) return state;
  const rects =
    action.type === "align" ? align(free, action.how, state.layout.canvas) : distribute(free, action.axis);
  return reduce(state, { type: "place", rects });
}

/** Boxes scale with the canvas, or keep their pixels and are pulled in, as the user chose. @param {State} state @param {Size} size @returns {State} */
function resizeCanvas(state, size) {
  const { canvas, editor } = state.layout;
  if (size.w === canvas.w && size.h === canvas.h) return state;
  const sx = size.w / canvas.w;
  const sy = size.h / canvas.h;
  const boxes = state.layout.boxes.map((box) =>
    editor.resize === "scale"
      ? keepVisible({ ...box, x: box.x * sx, y: box.y * sy, w: box.w * sx, h: box.h * sy }, size)
      : { ...box, ...confine(box, size, editor.inside) },
  );
  return { ...state, layout: { canvas: { w: size.w, h: size.h }, boxes, editor } };
}

/** A box scaled so far down that rounding could lose it keeps one visible pixel. @param {Box} box @param {Size} size @returns {Box} */
function keepVisible(box, size) {
  const [w, h] = [Math.max(box.w, 1), Math.max(box.h, 1)];
  const x = Math.min(Math.max(box.x, 1 - w), size.w - 1);
  const y = Math.min(Math.max(box.y, 1 - h), size.h - 1);
  return { ...box, x, y, w, h };
}
