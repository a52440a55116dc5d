/** The editor over the whole window, in the browser's own modal dialog: a second view of the same store. */

import { element, iconButton } from "./dom.js";
import { mount } from "./mount.js";

/**
 * @param {import("./view.js").EditorView} view  the large view; disposed with the dialog
 * @param {{title: string, close: string, onClose: () => void}} options
 * @returns {() => void} closes the dialog
 */
export function openLarge(view, { title, close, onClose }) {
  const aborter = new AbortController();
  const { signal } = aborter;
  const button = iconButton("close", close);
  const frame = element("div", { class: "large" }, element("header", {}, element("h2", { text: title }), button), view.element);
  const dialog = element("dialog", { "aria-label": title }, mount(frame, () => view.stage.element.focus({ preventScroll: true })));
  Object.assign(dialog.style, {
    width: "100vw", height: "100vh", maxWidth: "none", maxHeight: "none", margin: "0", padding: "0", border: "0", background: "none",
  });
  const shut = () => {
    if (signal.aborted) return;
    aborter.abort();
    view.dispose();
    dialog.close();
    dialog.remove();
    onClose();
  };
  button.addEventListener("click", shut, { signal });
  // Nothing typed in here concerns the graph behind it.
  for (const type of ["keydown", "keyup", "pointerdown", "wheel", "copy", "cut", "paste"]) {
    dialog.addEventListener(type, (event) => event.stopPropagation(), { signal });
  }
  // Escape belongs first to what is under way inside, which then prevents the default.
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    shut();
  }, { signal });
  dialog.addEventListener("close", shut, { signal });
  document.body.append(dialog);
  dialog.showModal();
  return shut;
}
