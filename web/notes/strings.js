/**
 * What the notes on nodes say, in English and Chinese. Filled in as `kit/i18n.js` says.
 * @typedef {(key: keyof typeof EN, values?: Record<string, string | number>) => string} Translate
 */

import { translatorOf } from "../kit/i18n.js";

const EN = {
  notes: "Notes on this node",
  text: "What the last run said",
  shift: "“{node}” is set to {its}, this layout is {ours}: connect this node's width and height to it.",
  tinySide: "The small model knows pictures of {known} alone, this graph's layout is {ours}: expect stripes. Set the layout to {known}.",
  tinyTokens: "The small model knows references of {known} tokens: set “size” of {count} {count|reference|references} to {known}.",
};

/** @type {Record<keyof typeof EN, string>} */
const ZH = {
  notes: "本节点的说明",
  text: "上一次运行的输出",
  shift: "“{node}”设为 {its}，而本布局为 {ours}：请把本节点的宽度和高度连接到它。",
  tinySide: "小模型只认识 {known} 的图片，本图的布局为 {ours}：会画出条纹。请把布局设为 {known}。",
  tinyTokens: "小模型只认识 {known} 个 token 的参考：请把 {count} 个参考的“大小”设为 {known}。",
};

/** @param {string} locale @returns {Translate} */
export function translator(locale) {
  return translatorOf({ en: EN, zh: ZH }, locale);
}
