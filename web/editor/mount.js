/** Houses an editor in a shadow tree: the page's styles do not reach in, and ours do not leak out. */

import { element } from "./dom.js";

const STYLE = new URL("./editor.css", import.meta.url).href;

/** @param {HTMLElement} content @param {() => void} [onReady]  once the styles are there @returns {HTMLElement} the element to put into the page */
export function mount(content, onReady = () => {}) {
  const host = element("div", { class: "contextgen-editor" });
  const root = host.attachShadow({ mode: "open" });
  const sheet = element("link", { rel: "stylesheet", href: STYLE });
  content.style.visibility = "hidden";
  const show = () => {
    content.style.visibility = "";
    onReady();
  };
  sheet.addEventListener("load", show, { once: true });
  root.append(sheet, content);
  Object.assign(host.style, { display: "block", width: "100%", height: "100%", minHeight: "0", pointerEvents: "auto" });
  // The host undoes graph changes on Ctrl+Z wherever the focus is, save in an input or in what calls itself a
  // textarea. This element has a history of its own just like those.
  Object.defineProperty(host, "type", { value: "textarea" });
  return host;
}
