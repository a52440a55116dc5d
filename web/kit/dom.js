/**
 * Small helpers around the DOM. Text goes in as text only: there is no way through here to set markup.
 *
 * @typedef {Record<string, string | number | boolean | null | undefined>} Attributes
 */

/**
 * Makes an element. `class`, `text` and attributes by name; false, null and undefined leave an attribute out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Attributes} [attributes] @param {...(Node | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = String(value ?? "");
    else setAttribute(made, name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Sets an attribute only if that changes something. @param {Element} target @param {string} name @param {string | number | boolean | null | undefined} value */
export function setAttribute(target, name, value) {
  if (value === false || value === null || value === undefined) {
    if (target.hasAttribute(name)) target.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (target.getAttribute(name) !== text) target.setAttribute(name, text);
}

/** @param {Element} target @param {string} text */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Makes the children of `parent` exactly `wanted`, moving as little as possible (a moved element loses its focus). @param {Element} parent @param {readonly Element[]} wanted */
export function setChildren(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}

const SVG = "http://www.w3.org/2000/svg";

/** Outlines on a 16 x 16 grid, drawn with the current colour. */
const ICONS = {
  undo: "M6 3 2.5 6.5 6 10M3 6.5h6.5a4 4 0 0 1 0 8H7",
  redo: "M10 3l3.5 3.5L10 10M13 6.5H6.5a4 4 0 0 0 0 8H9",
  add: "M2.5 2.5h11v11h-11zM8 5.2v5.6M5.2 8h5.6",
  draw: "M2.5 13.5l.8-3.2 7.4-7.4 2.4 2.4-7.4 7.4zM9.3 4.3l2.4 2.4",
  duplicate: "M5.5 5.5h8v8h-8zM3.8 10.5H2.5v-8h8v1.3",
  remove: "M3 4.5h10M6.3 4.2V2.5h3.4v1.7M4.3 4.8l.6 8.7h6.2l.6-8.7M6.8 7v4.2M9.2 7v4.2",
  front: "M8 13.5V5.8M4.8 8.6 8 5.4l3.2 3.2M3 2.6h10",
  forward: "M8 13V4M4.6 7.4 8 4l3.4 3.4",
  backward: "M8 3v9M4.6 8.6 8 12l3.4-3.4",
  back: "M8 2.5v7.7M4.8 7.4 8 10.6l3.2-3.2M3 13.4h10",
  auto: "M8 2 14 5 8 8 2 5zM2.3 8.2 8 11l5.7-2.8M2.3 11.2 8 14l5.7-2.8",
  arrange: "M2.5 2v12M5 4h8.5v3H5zM5 9.3h5.5v3H5z",
  settings: "M2 4.5h7M12.5 4.5H14M2 11.5h1.5M7 11.5h7M9 2.7h3.5v3.6H9zM3.5 9.7H7v3.6H3.5z",
  help: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4zM6.1 6.3a1.9 1.9 0 1 1 2.7 1.7c-.6.3-.8.6-.8 1.3M8 11.2v.4",
  large: "M9.5 2.5h4v4M13.3 2.7 9.3 6.7M6.5 13.5h-4v-4M2.7 13.3l4-4",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  lock: "M3.8 7.2h8.4v6.3H3.8zM5.6 7V4.9a2.4 2.4 0 0 1 4.8 0V7",
  unlock: "M3.8 7.2h8.4v6.3H3.8zM5.6 7V4.9a2.4 2.4 0 0 1 4.6-.9",
  hidden: "M2 8s2.2-4 6-4 6 4 6 4-2.2 4-6 4-6-4-6-4zM3 13 13 3",
  shown: "M2 8s2.2-4 6-4 6 4 6 4-2.2 4-6 4-6-4-6-4zM8 6.3a1.7 1.7 0 1 0 0 3.4 1.7 1.7 0 0 0 0-3.4z",
  covered: "M2.5 2.5h7v7h-7zM6.5 6.5h7v7h-7zM9.5 6.5v3h-3",
  layer: "M2.5 10.5 8 13l5.5-2.5M2.5 7.8 8 10.3l5.5-2.5M8 2.5 13.5 5 8 7.6 2.5 5z",
  solid: "M2.5 5.2 8 2.6l5.5 2.6v5.6L8 13.4l-5.5-2.6zM2.5 5.2 8 7.8l5.5-2.6M8 7.8v5.6",
  group: "M2.5 2.5h3M10.5 2.5h3v3M13.5 10.5v3h-3M5.5 13.5h-3v-3M2.5 5.5v-3M5 5h4v4H5zM7.5 9v2.5h4v-4H9",
  ungroup: "M2.5 2.5h5v5h-5zM8.5 8.5h5v5h-5zM10 3l3 3M13 3l-3 3",
  flipH: "M8 2v12M6 4 2.5 12H6zM10 4l3.5 8H10z",
  flipV: "M2 8h12M4 6 12 2.5V6zM4 10l8 3.5V10z",
  canvas: "M2.5 4.5h11v7h-11zM5 2.5v2M11 2.5v2M5 11.5v2M11 11.5v2",
  swap: "M3 6h9.5L10 3.5M13 10H3.5L6 12.5",
  zoomIn: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7 14 14M7 4.8v4.4M4.8 7h4.4",
  zoomOut: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7 14 14M4.8 7h4.4",
  whole: "M2.5 5.5v-3h3M10.5 2.5h3v3M13.5 10.5v3h-3M5.5 13.5h-3v-3",
  picture: "M2.5 3h11v10h-11zM2.5 11l3.5-3.5 2.5 2.5 2-2 3 3M10.5 5.5a.8.8 0 1 0 0 1.6.8.8 0 0 0 0-1.6z",
  brush: "M13.5 2.5 8 8.7M8 8.7c-1.6-.8-3.2.1-3.5 1.6-.2 1.2-.8 2-2 2.2 2 1.6 5.3 1.2 6-1.1.3-1-.1-2-.5-2.7z",
  eraser: "M6 13.5h7.5M2.8 9.7 9 3.5l4 4-6 6H5z",
  warning: "M8 2.2 14.4 13.5H1.6zM8 6.5v3.2M8 11.5v.4",
  grip: "M6 3.6v.1M10 3.6v.1M6 8v.1M10 8v.1M6 12.4v.1M10 12.4v.1",
  left: "M2.5 2v12M5 4h8v3H5zM5 9.2h5v3H5z",
  center: "M8 1.8v12.4M3.5 4h9v3h-9zM5.5 9.2h5v3h-5z",
  right: "M13.5 2v12M3 4h8v3H3zM6 9.2h5v3H6z",
  top: "M2 2.5h12M4 5h3v8H4zM9.2 5h3v5h-3z",
  middle: "M1.8 8h12.4M4 3.5h3v9H4zM9.2 5.5h3v5h-3z",
  bottom: "M2 13.5h12M4 3h3v8H4zM9.2 6h3v5h-3z",
  spreadX: "M2 2.5v11M14 2.5v11M6 5h4v6H6z",
  spreadY: "M2.5 2h11M2.5 14h11M5 6v4h6V6z",
  shape: "M2.5 4.5h11v7h-11zM5 9.5l2-2.4 1.6 1.8 1.2-1 1.4 1.6",
};

/** @typedef {keyof typeof ICONS} IconName */

/** @param {IconName} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [key, value] of [["viewBox", "0 0 16 16"], ["aria-hidden", "true"], ["class", "icon"]]) {
    svg.setAttribute(key, value);
  }
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with a picture; its name is read out and shown as a tooltip. @param {IconName} name @param {string} label @param {Attributes} [attributes] */
export function iconButton(name, label, attributes = {}) {
  return element("button", { type: "button", class: "tool", "aria-label": label, title: label, ...attributes }, icon(name));
}
