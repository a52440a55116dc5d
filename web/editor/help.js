/** The overlay that lists keys and gestures. */

import { element, iconButton } from "../kit/dom.js";

const ROWS = /** @type {const} */ ([
  ["helpDraw", "helpDrawKeys"],
  ["helpOver", "helpOverKeys"],
  ["helpMarquee", "helpMarqueeKeys"],
  ["helpCycle", "helpCycleKeys"],
  ["helpFree", "helpFreeKeys"],
  ["helpNew", "helpNewKeys"],
  ["helpNext", "helpNextKeys"],
  ["helpNudge", "helpNudgeKeys"],
  ["helpGrow", "helpGrowKeys"],
  ["helpBind", "helpBindKeys"],
  ["helpOrder", "helpOrderKeys"],
  ["helpEdit", "helpEditKeys"],
  ["helpTurn", "helpTurnKeys"],
  ["helpGroup", "helpGroupKeys"],
  ["helpSolid", "helpSolidKeys"],
  ["helpSolidMove", "helpSolidMoveKeys"],
  ["helpSolidSize", "helpSolidSizeKeys"],
  ["helpCopy", "helpCopyKeys"],
  ["helpUndo", "helpUndoKeys"],
  ["helpZoom", "helpZoomKeys"],
  ["helpEscape", "helpEscapeKeys"],
  ["helpLarge", "helpLargeKeys"],
]);

export class Help {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    const { t } = view;
    this.closeButton = iconButton("close", t("close"));
    const rows = ROWS.flatMap(([what, keys]) => [element("dt", { text: t(what) }), element("dd", { text: t(keys) })]);
    this.element = element(
      "div",
      { class: "help", role: "dialog", "aria-label": t("helpTitle"), hidden: true, tabindex: -1 },
      element("header", {}, element("h2", { text: t("helpTitle") }), this.closeButton),
      element("div", { class: "keys", role: "group", tabindex: 0, "aria-label": t("helpTitle") }, element("dl", {}, ...rows)),
    );
    /** @type {HTMLElement | null} */
    this.before = null;
    this.closeButton.addEventListener("click", () => this.show(false), { signal });
  }

  get open() {
    return !this.element.hidden;
  }

  /** @param {boolean} open */
  show(open) {
    if (open === this.open) return;
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    if (open) this.before = root.activeElement instanceof HTMLElement ? root.activeElement : null;
    this.element.hidden = !open;
    if (open) this.closeButton.focus();
    else this.before?.focus({ preventScroll: true });
  }
}
