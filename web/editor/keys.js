/** The keyboard: one handler at the editor's root. What it takes does not reach the graph, what it leaves does. */

import { isUndo } from "../kit/shell.js";
import { selected } from "../scene/actions.js";
import { kindOf } from "../scene/kinds/index.js";

/** Step of an arrow key as a share of the canvas' shorter side, when no grid is set. */
const NUDGE = 1 / 100;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event @returns {boolean} whether the key was one of the editor's */
export function onKeyDown(view, event) {
  const target = /** @type {Element} */ (event.composedPath()[0]);
  const typing = target.matches("input:not([type=checkbox], [type=color]), textarea, select");
  if (typing) return typed(view, event, target);
  return view.help.open ? helpKeys(view, event) : pressed(view, event, target);
}

/** In a field the keys belong to the field, but for Escape. @param {import("./view.js").EditorView} view @param {KeyboardEvent} event @param {Element} target */
function typed(view, event, target) {
  if (event.key === "Escape") {
    view.stage.element.focus({ preventScroll: true });
    return true;
  }
  if (isUndo(event) && target.matches("select, input[type=number]")) return undoKeys(view, event);
  return false;
}

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function helpKeys(view, event) {
  if (event.key !== "Escape" && event.key !== "?") return false;
  view.help.show(false);
  return true;
}

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event @param {Element} target */
function pressed(view, event, target) {
  if (event.ctrlKey || event.metaKey) return undoKeys(view, event) || commandKeys(view, event);
  const { commands, stage } = view;
  // With nothing in particular focused (the dialog itself) the keys are those of the stage.
  const onStage = stage.element.contains(target) || !view.element.contains(target);
  if (event.key === "Escape") return escape(view);
  if (event.key === "?" || event.key === "F1") return done(view.help.show(true));
  if (target.closest(".bar") && arrowsInBar(event, target)) return true;
  if (!onStage && !target.closest(".rows")) return false;
  if (onStage && kindKeys(view, event)) return true;
  if (event.key in ARROWS) return onStage && arrow(view, event);
  if (/^[0-9]$/.test(event.key) && !event.altKey) return done(commands.bindNumber(Number(event.key)));
  if (event.altKey) return false;
  switch (event.key) {
    case "Delete":
    case "Backspace":
      return done(commands.remove());
    case "]":
      return done(commands.step("forward"));
    case "[":
      return done(commands.step("backward"));
    case "}":
      return done(commands.step("front"));
    case "{":
      return done(commands.step("back"));
    case "PageDown":
      return done(commands.cycle(1));
    case "PageUp":
      return done(commands.cycle(-1));
    case "Home":
      return done(commands.cycle(-Infinity));
    case "End":
      return done(commands.cycle(Infinity));
    case "n":
    case "N":
    case "Insert":
      return done(commands.add());
    case "l":
    case "L":
      return done(commands.lock());
    case "f":
    case "F":
      return done(view.openLarge());
    case "h":
    case "H":
      return done(commands.flip("h"));
    case "v":
    case "V":
      return done(commands.flip("v"));
    case "r":
      return done(commands.turn(15));
    case "R":
      return done(commands.turn(-15));
    case "d":
    case "D":
      return done(commands.solid());
    case "e":
    case "E":
      return done(commands.hide());
    case "+":
    case "=":
      return done(stage.zoomBy(1.25));
    case "-":
      return done(stage.zoomBy(0.8));
    case "Enter":
    case " ":
      return onStage && select(view, target);
    default:
      return false;
  }
}

/** @param {import("./view.js").EditorView} view @param {Element} target */
function select(view, target) {
  const id = target.getAttribute("data-box");
  if (!id) return false;
  if (view.store.state.selection.includes(id)) view.sidebar.focusFields();
  else view.store.dispatch({ type: "select", ids: [id] });
  return true;
}

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function arrow(view, event) {
  const { canvas, editor } = view.store.state.layout;
  const step = event.altKey ? 1 : editor.grid || Math.max(1, Math.round(Math.min(canvas.w, canvas.h) * NUDGE));
  const [dx, dy] = ARROWS[event.key];
  view.commands.nudge(dx * step, dy * step, event.shiftKey);
  return true;
}

/** A key that means something to the kind of the one selected box. @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function kindKeys(view, event) {
  const [box, ...more] = selected(view.store.state);
  if (!box || more.length || !view.commands.canPlace) return false;
  const next = kindOf(box).key(box, event, view.store.state.layout);
  if (!next) return false;
  if (view.store.dispatch({ type: "become", box: next }, { join: `key ${event.key}` })) view.commands.sayPlaced();
  else if (next === box) view.announce(view.t("saidUnseen"));
  return true;
}

/** One stop for the Tab key; the arrows go from tool to tool. @param {KeyboardEvent} event @param {Element} target */
function arrowsInBar(event, target) {
  const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
  const all = /** @type {HTMLElement[]} */ ([...(target.closest(".bar")?.querySelectorAll("button:not([hidden])") ?? [])]);
  const at = all.indexOf(/** @type {HTMLElement} */ (target));
  const to = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : by && at >= 0 ? (at + by + all.length) % all.length : -1;
  if (to < 0) return false;
  for (const tool of all) tool.tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
  return true;
}

/** With nothing to undo the key is not ours. @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function undoKeys(view, event) {
  if (!isUndo(event)) return false;
  const forward = event.key.toLowerCase() === "y" || event.shiftKey;
  return forward ? view.commands.redo() : view.commands.undo();
}

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function commandKeys(view, event) {
  if (event.altKey) return false;
  if (event.key.toLowerCase() === "g") return done(event.shiftKey ? view.commands.ungroup() : view.commands.group());
  if (event.shiftKey) return false;
  switch (event.key.toLowerCase()) {
    case "0":
      return done(view.stage.showWhole());
    case "a":
      return done(view.commands.selectAll());
    case "d":
      return done(view.commands.duplicate());
    default:
      return false;
  }
}

/** From the inside out: the gesture, the drawing mode, the selection. Nothing left: the key goes on. @param {import("./view.js").EditorView} view */
function escape(view) {
  if (view.cancelGesture()) {
    view.announce(view.t("saidCancelled"));
    return true;
  }
  if (view.stage.drawing) {
    view.stage.setDrawing(false);
    return true;
  }
  if (!view.store.state.selection.length) return false;
  view.store.dispatch({ type: "select", ids: [] });
  view.stage.element.focus({ preventScroll: true });
  return true;
}

/** @param {unknown} _effect */
function done(_effect) {
  return true;
}
