/**
 * What can be done to a layout: one pure function from state and action to state. A state is returned unchanged
 * (the same object) when the action has no effect, so that nothing empty lands in the history.
 *
 * @typedef {import("./schema.js").Layout} Layout
 * @typedef {import("./schema.js").Box} Box
 * @typedef {import("./schema.js").Rect} Rect
 * @typedef {import("./schema.js").Size} Size
 * @typedef {import("./schema.js").Ref} Ref
 * @typedef {import("./geometry.js").Alignment} Alignment
 * @typedef {{rot?: number, fit?: import("./schema.js").Fit | null, strength?: number, opacity?: number, hidden?: boolean,
 *   colour?: string | null}} Layer  what of a box may be set by itself; the default takes the field away
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
 *   | {type: "layer", ids: readonly string[], change: Layer}
 *   | {type: "flip", ids: readonly string[], axis: "h" | "v"}
 *   | {type: "become", box: Box}
 *   | {type: "solid", ids: readonly string[], on: boolean}
 *   | {type: "camera", camera: import("./schema.js").Camera}
 *   | {type: "group"}
 *   | {type: "ungroup"}
 *   | {type: "groupIs", id: string, change: Partial<Omit<import("./schema.js").Group, "id">>}
 *   | {type: "step", step: Step}
 *   | {type: "moveTo", id: string, index: number}
 *   | {type: "arrange", ids: readonly string[]}
 *   | {type: "align", how: Alignment}
 *   | {type: "distribute", axis: "x" | "y"}
 *   | {type: "canvas", size: Size}
 *   | {type: "prefer", preferences: Partial<import("./schema.js").Preferences>}
 *   | {type: "replace", layout: Layout}} Action
 */

import { normaliseAngle } from "../kit/matrix.js";
import { cameraOf } from "./camera.js";
import { align, bounds, confine, distribute, MIN_SIDE } from "./geometry.js";
import { kindOf, regionOf } from "./kinds/index.js";
import { toFlat, toSolid } from "./kinds/solid.js";
import { cleanText, DEFAULT_CAMERA, groupOf, isLocked, MAX_BOXES, MAX_LABEL, MAX_STRENGTH, MAX_TURNED, nextId } from "./schema.js";

/** @param {State} state @param {Action} action @returns {State} */
export function reduce(state, action) {
  const { layout } = state;
  const chosen = new Set(state.selection);
  const free = (/** @type {Box} */ box) => !isLocked(box, layout);
  switch (action.type) {
    case "select":
      return select(state, action.ids, action.toggle ?? false);
    case "add":
      return addBoxes(state, [{ ...action.rect, ref: action.ref ?? null, label: action.label ?? "", locked: false }]);
    case "place": {
      const rects = new Map(action.rects.map((rect) => [rect.id, rect]));
      return mapBoxes(state, (box) => (free(box) ? moved(box, rects.get(box.id) ?? box, layout) : box));
    }
    case "nudge":
      return nudge(state, action.dx, action.dy);
    case "grow":
      return mapBoxes(state, (box) => (chosen.has(box.id) && free(box) ? grown(box, action, layout) : box));
    case "remove":
      return setBoxes(
        state,
        layout.boxes.filter((box) => !free(box) || !chosen.has(box.id)),
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
    case "layer":
      return mapBoxes(state, (box) => (action.ids.includes(box.id) ? layered(box, action.change, layout) : box));
    case "flip":
      return mapBoxes(state, (box) => (action.ids.includes(box.id) && free(box) ? flipped(box, action.axis) : box));
    case "become":
      return mapBoxes(state, (box) => (box.id === action.box.id && free(box) && !sameFields(box, action.box) ? kindOf(action.box).settle(action.box, layout) : box));
    case "solid":
      return mapBoxes(state, (box) => (action.ids.includes(box.id) && free(box) && (box.solid !== undefined) !== action.on ? (action.on ? toSolid(box, layout) : toFlat(box)) : box));
    case "camera":
      return film(state, action.camera);
    case "group":
      return group(state);
    case "ungroup":
      return mapBoxes(state, (box) => (chosen.has(box.id) && box.group !== undefined ? without(box, "group") : box));
    case "groupIs":
      return groupIs(state, action.id, action.change);
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
  // Copies of a group are a group of their own.
  const taken = new Set(boxes.map((box) => box.group));
  const renamed = new Map(added.flatMap(({ group }) => (group !== undefined && taken.has(group) ? [[group, nextGroup(taken)]] : [])));
  for (const { group: before, ...box } of added.slice(0, MAX_BOXES - boxes.length)) {
    const id = nextId(boxes);
    ids.push(id);
    const group = before === undefined ? undefined : (renamed.get(before) ?? before);
    boxes.push({ ...moved({ ...box, id }, box, state.layout), ...(group === undefined ? {} : { group }) });
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
  return { layout: withBoxes(state.layout, boxes), selection: kept(state.selection, boxes) };
}

/** A group that nobody is in any more goes. @param {Layout} layout @param {readonly Box[]} boxes @returns {Layout} */
function withBoxes(layout, boxes) {
  const { groups, ...rest } = layout;
  const left = groups?.filter((group) => boxes.some((box) => box.group === group.id));
  return { ...rest, boxes, ...(left?.length ? { groups: left } : {}) };
}

/** @param {readonly string[]} selection @param {readonly Box[]} boxes */
function kept(selection, boxes) {
  return selection.filter((id) => boxes.some((box) => box.id === id));
}

/** @param {Box} box @param {Rect} rect @param {Layout} layout @returns {Box} */
function moved(box, rect, layout) {
  return kindOf(box).place(box, rect, layout);
}

/** @param {Box} box @param {Layer} change @param {Layout} layout @returns {Box} */
function layered(box, change, layout) {
  const next = { ...box };
  /** @type {<K extends keyof Layer & keyof Box>(key: K, value: Box[K], normal: unknown) => void} */
  const set = (key, value, normal) => {
    if (value === normal || value === null) delete next[key];
    else next[key] = value;
  };
  // A cuboid turns in its scene.
  if (change.rot !== undefined && !box.solid && !isLocked(box, layout)) set("rot", normaliseAngle(change.rot), 0);
  if (change.fit !== undefined) set("fit", change.fit ?? undefined, undefined);
  if (change.strength !== undefined) set("strength", hundredths(change.strength, MAX_STRENGTH), 1);
  if (change.opacity !== undefined) set("opacity", hundredths(change.opacity, 1), 1);
  if (change.hidden !== undefined) set("hidden", change.hidden, false);
  if (change.colour !== undefined) set("colour", change.colour?.toLowerCase(), undefined);
  if (sameFields(box, next)) return box;
  return next.rot === box.rot ? next : moved(next, next, layout);
}

/** @param {number} value @param {number} most */
function hundredths(value, most) {
  return Math.floor(Math.min(most, Math.max(0, value)) * 100 + 0.5) / 100;
}

/** @param {Box} a @param {Box} b */
function sameFields(a, b) {
  const [x, y] = [/** @type {Record<string, unknown>} */ (a), /** @type {Record<string, unknown>} */ (b)];
  return [...new Set([...Object.keys(x), ...Object.keys(y)])].every((key) => x[key] === y[key]);
}

/** What is seen is mirrored, so a turned box turns the other way. @param {Box} box @param {"h" | "v"} axis @returns {Box} */
function flipped(box, axis) {
  const has = box.flip ?? "";
  const flip = (/** @type {const} */ (["h", "v"])).filter((each) => has.includes(each) !== (each === axis)).join("");
  const { flip: _flip, rot: _rot, ...rest } = box;
  const rot = normaliseAngle(-(box.rot ?? 0));
  return { ...rest, ...(rot ? { rot } : {}), ...(flip ? { flip: /** @type {import("./schema.js").Flip} */ (flip) } : {}) };
}

/** @param {ReadonlySet<unknown>} taken @returns {string} */
function nextGroup(taken) {
  let number = 1;
  while (taken.has(`g${number}`)) number += 1;
  return `g${number}`;
}

/** The selection becomes one group; what it was grouped with before is left. @param {State} state @returns {State} */
function group(state) {
  const members = selected(state);
  if (members.length < 2) return state;
  const [{ group: first }] = members;
  if (first !== undefined && state.layout.boxes.every((box) => state.selection.includes(box.id) === (box.group === first))) return state;
  const id = nextGroup(new Set(state.layout.boxes.map((box) => box.group)));
  return mapBoxes(state, (box) => (state.selection.includes(box.id) ? { ...box, group: id } : box));
}

/** @param {State} state @param {string} id @param {Partial<Omit<import("./schema.js").Group, "id">>} change @returns {State} */
function groupIs(state, id, change) {
  const member = state.layout.boxes.find((box) => box.group === id);
  if (!member) return state;
  const before = groupOf(member, state.layout) ?? { id, label: "", hidden: false, locked: false };
  const after = { ...before, ...change };
  if (Object.keys(change).every((key) => before[/** @type {keyof typeof before} */ (key)] === after[/** @type {keyof typeof after} */ (key)])) return state;
  const others = (state.layout.groups ?? []).filter((each) => each.id !== id);
  const plain = !after.label && !after.hidden && !after.locked;
  const { groups: _groups, ...rest } = state.layout;
  const groups = plain ? others : [...others, after];
  return { ...state, layout: { ...rest, ...(groups.length ? { groups } : {}) } };
}

/** @param {Box} box @param {"group"} key @returns {Box} */
function without(box, key) {
  const { [key]: _gone, ...rest } = box;
  return rest;
}

/** The selection moves as one: it stops where its first member meets the edge. @param {State} state @param {number} dx @param {number} dy @returns {State} */
function nudge(state, dx, dy) {
  const { layout } = state;
  const free = selected(state).filter((box) => !isLocked(box, layout));
  if (!free.length) return state;
  const frame = bounds(free.map(regionOf));
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
    const rect = { x: box.x + (fits ? by : -by), y: box.y + (fits ? by : -by), w: box.w, h: box.h };
    return { ...(box.solid ? moved(box, rect, layout) : { ...box, ...rect }), locked: false };
  });
}

/** @param {readonly Box[]} boxes @param {Size} canvas @param {Layout} layout @returns {Omit<Box, "id">[]} */
function pasted(boxes, canvas, layout) {
  const sx = layout.canvas.w / canvas.w;
  const sy = layout.canvas.h / canvas.h;
  const scaled = boxes.map((box) => kindOf(box).rescale(box, { x: box.x * sx, y: box.y * sy, w: box.w * sx, h: box.h * sy }, layout));
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
  const free = selected(state).filter((box) => !isLocked(box, state.layout));
  if (!free.length) return state;
  // What is lined up is the room that boxes take: that of a turned one is larger than its frame.
  const regions = free.map((box) => ({ ...regionOf(box), id: box.id }));
  const wanted = action.type === "align" ? align(regions, action.how, state.layout.canvas) : distribute(regions, action.axis);
  const rects = free.map((box, i) => ({ ...box, x: box.x + wanted[i].x - regions[i].x, y: box.y + wanted[i].y - regions[i].y }));
  return reduce(state, { type: "place", rects });
}

/** Boxes scale with the canvas, or keep their pixels and are pulled in, as the user chose. @param {State} state @param {Size} size @returns {State} */
function resizeCanvas(state, size) {
  const { canvas, editor } = state.layout;
  if (size.w === canvas.w && size.h === canvas.h) return state;
  const sx = size.w / canvas.w;
  const sy = size.h / canvas.h;
  const next = { ...state.layout, canvas: { w: size.w, h: size.h } };
  const boxes = state.layout.boxes.map((box) => {
    const rect =
      editor.resize === "scale"
        ? keepVisible(boundedTurned(box, { x: box.x * sx, y: box.y * sy, w: box.w * sx, h: box.h * sy }, size), size)
        : confine(boundedTurned(box, box, size), size, editor.inside);
    return kindOf(box).rescale(box, rect, next);
  });
  return { ...state, layout: { ...next, boxes } };
}

/** All cuboids as another camera sees them; nothing changes when it would not see one of them. @param {State} state @param {import("./schema.js").Camera} camera @returns {State} */
function film(state, camera) {
  const before = cameraOf(state.layout);
  const keys = /** @type {const} */ (["focal", "height", "pitch"]);
  if (keys.every((key) => camera[key] === before[key])) return state;
  const { camera: _before, ...rest } = state.layout;
  const plain = keys.every((key) => camera[key] === DEFAULT_CAMERA[key]);
  const next = plain ? rest : { ...rest, camera };
  const boxes = state.layout.boxes.map((box) => (box.solid ? kindOf(box).rescale(box, box, next) : box));
  if (boxes.some((box, i) => !box.solid && state.layout.boxes[i].solid)) return state;
  return { ...state, layout: { ...next, boxes } };
}

/** A turned box keeps within what the format allows. @param {Box} box @param {Rect} rect @param {Size} size @returns {Rect} */
function boundedTurned(box, rect, size) {
  const most = MAX_TURNED * Math.max(size.w, size.h);
  const [w, h] = box.rot ? [Math.min(rect.w, most), Math.min(rect.h, most)] : [rect.w, rect.h];
  return { x: rect.x + (rect.w - w) / 2, y: rect.y + (rect.h - h) / 2, w, h };
}

/** A box scaled so far down that rounding could lose it keeps one visible pixel. @param {Rect} rect @param {Size} size @returns {Rect} */
function keepVisible(rect, size) {
  const [w, h] = [Math.max(rect.w, 1), Math.max(rect.h, 1)];
  const x = Math.min(Math.max(rect.x, 1 - w), size.w - 1);
  const y = Math.min(Math.max(rect.y, 1 - h), size.h - 1);
  return { x, y, w, h };
}
