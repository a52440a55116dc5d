/** The keyboard: one handler at the editor's root. What it takes does not reach the graph, what it leaves does. */

/** Step of an arrow key as a share of the canvas' shorter side, when no grid is set. */
const NUDGE = 1 / 100;

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
export function onKeyDown(view, event) {
  const target = /** @type {Element} */ (event.composedPath()[0]);
  const typing = target.matches("input:not([type=checkbox]), textarea, select");
  const taken = typing ? typed(view, event, target) : view.help.open ? helpKeys(view, event) : pressed(view, event, target);
  if (taken) event.preventDefault();
  // A letter typed here must not be a shortcut of the graph; Ctrl+Enter still queues.
  if (taken || (typing && !(event.ctrlKey || event.metaKey)) || isUndo(event)) event.stopPropagation();
}

/** @param {KeyboardEvent} event */
function isUndo(event) {
  return (event.ctrlKey || event.metaKey) && !event.altKey && ["z", "y"].includes(event.key.toLowerCase());
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
  const onStage = stage.element.contains(target);
  if (event.key === "Escape") return escape(view);
  if (event.key === "?" || event.key === "F1") return done(view.help.show(true));
  if (!onStage && !target.closest(".rows")) return false;
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

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function undoKeys(view, event) {
  const key = event.key.toLowerCase();
  if (!isUndo(event)) return false;
  if (key === "y" || event.shiftKey) view.commands.redo();
  else view.commands.undo();
  return true;
}

/** @param {import("./view.js").EditorView} view @param {KeyboardEvent} event */
function commandKeys(view, event) {
  if (event.altKey || event.shiftKey) return false;
  switch (event.key.toLowerCase()) {
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
