/**
 * Houses an editor in the page: in a shadow tree, so that the page's styles do not reach in and ours do not leak out, and
 * behind shields, so that what is typed, dropped or pasted there does not act on the graph.
 */

import { element, iconButton } from "./dom.js";

/**
 * @param {HTMLElement} content @param {{name: string, style: string, onReady?: () => void}} options
 *   name: class of the element; style: URL of the style sheet; onReady: once the styles are there
 * @returns {HTMLElement} the element to put into the page
 */
export function mount(content, { name, style, onReady = () => {} }) {
  const host = element("div", { class: name });
  const root = host.attachShadow({ mode: "open" });
  const sheet = element("link", { rel: "stylesheet", href: style });
  content.style.visibility = "hidden";
  const show = () => {
    content.style.visibility = "";
    onReady();
  };
  sheet.addEventListener("load", show, { once: true });
  root.append(sheet, content);
  Object.assign(host.style, { display: "block", width: "100%", height: "100%", minHeight: "0", pointerEvents: "auto" });
  shieldUndo(host);
  return host;
}

/**
 * The host undoes graph changes on Ctrl+Z wherever the focus is, save in an input or in what calls itself a textarea.
 * An editor has a history of its own just like those. @param {HTMLElement} target
 */
function shieldUndo(target) {
  Object.defineProperty(target, "type", { value: "textarea" });
}

/**
 * Keys that reach the end of an editor. Those with Ctrl or Cmd may be the host's (Ctrl+Enter queues); a plain key never
 * is: Delete on a tool would delete the node. @param {KeyboardEvent} event @param {boolean} taken  the editor has used it
 */
export function shieldKey(event, taken) {
  if (taken) event.preventDefault();
  const command = event.ctrlKey || event.metaKey;
  if (taken || !command || isUndo(event)) event.stopPropagation();
}

/** @param {KeyboardEvent} event */
export function isUndo(event) {
  return (event.ctrlKey || event.metaKey) && !event.altKey && ["z", "y"].includes(event.key.toLowerCase());
}

/**
 * An editor over the whole window, in the browser's own modal dialog.
 * @param {HTMLElement} content  a second view; the caller disposes of it in onClose
 * @param {{title: string, close: string, name: string, style: string, onKey: (event: KeyboardEvent) => void, onReady: () => void,
 *   onClose: () => void}} options  onKey: keys pressed while nothing inside has the focus
 * @returns {() => void} closes the dialog
 */
export function openDialog(content, { title, close, name, style, onKey, onReady, onClose }) {
  const aborter = new AbortController();
  const { signal } = aborter;
  const button = iconButton("close", close);
  const frame = element("div", { class: "large" }, element("header", {}, element("h2", { text: title }), button), content);
  const housed = mount(frame, { name, style, onReady });
  const dialog = element("dialog", { "aria-label": title }, housed);
  // The focus falls to the dialog itself after a click on its bare parts: the keys are the editor's there, too.
  shieldUndo(dialog);
  Object.assign(dialog.style, {
    width: "100vw", height: "100vh", maxWidth: "none", maxHeight: "none", margin: "0", padding: "0", border: "0", background: "none",
  });
  const shut = () => {
    if (signal.aborted) return;
    aborter.abort();
    dialog.close();
    dialog.remove();
    onClose();
  };
  button.addEventListener("click", shut, { signal });
  dialog.addEventListener("keydown", (event) => event.composedPath()[0] === dialog && onKey(event), { signal });
  frame.addEventListener("keydown", (event) => !content.contains(/** @type {Node} */ (event.target)) && event.key !== "Escape" && onKey(event), { signal });
  // Nothing done in here concerns the graph behind it.
  for (const type of ["keydown", "keyup", "pointerdown", "wheel", "copy", "cut", "paste", "dragover", "drop"]) {
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
