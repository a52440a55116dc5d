/**
 * What the cut-out editor says, in English and Chinese. Filled in as `kit/i18n.js` says.
 * @typedef {(key: keyof typeof EN, values?: Record<string, string | number>) => string} Translate
 */

import { translatorOf } from "../kit/i18n.js";

const EN = {
  editor: "Cut-out editor",
  stage: "Picture with {points} {points|point|points}. Click keeps, Shift and click leaves out, drag draws a box. K or X adds a point in the middle, B a box.",
  empty: "Connect a picture, or run once to see it here.",
  tools: "Tools",
  keep: "Click: keep",
  out: "Click: leave out (or hold Shift)",
  box: "Draw the box",
  brush: "Brush: add to the mask",
  eraser: "Eraser: rub out of the mask",
  radius: "Size of brush and eraser",
  large: "Open large",
  close: "Close",
  saidStroke: "Stroke {number} painted",
  saidFull: "No room for more strokes",
  undo: "Undo",
  redo: "Redo",
  clear: "Remove all points, the box and the strokes",
  mask: "Show the mask",
  pointKeep: "Point {number}, keep, x {x} %, y {y} %",
  pointOut: "Point {number}, leave out, x {x} %, y {y} %",
  boxAt: "Box, x {x} %, y {y} %, width {w} %, height {h} %",
  hint: "Click on the subject, or drag a box around it.",
  stale: "Run to see the mask of these clicks.",
  quality: "Quality {quality} by SAM's own estimate.",
  done: "Mask of the last run.",
  broken: "The text in the field cannot be read; the first click replaces it.",
  linked: "The clicks come from another node.",
  saidAdded: "Point {number} added",
  saidRemoved: "Removed",
  saidBox: "Box drawn",
  saidCleared: "All removed",
};

/** @type {Record<keyof typeof EN, string>} */
const ZH = {
  editor: "抠图编辑器",
  stage: "图片，{points} 个点。点击保留，Shift 加点击排除，拖动画框。K 或 X 在中央加点，B 加框。",
  empty: "请连接图片，或先运行一次。",
  tools: "工具",
  keep: "点击：保留",
  out: "点击：排除（或按住 Shift）",
  box: "画框",
  brush: "画笔：加入遮罩",
  eraser: "橡皮：擦出遮罩",
  radius: "画笔和橡皮的大小",
  large: "放大编辑",
  close: "关闭",
  saidStroke: "已绘制第 {number} 笔",
  saidFull: "没有更多笔画的空间",
  undo: "撤销",
  redo: "重做",
  clear: "删除所有点、框和笔画",
  mask: "显示遮罩",
  pointKeep: "点 {number}，保留，x {x} %，y {y} %",
  pointOut: "点 {number}，排除，x {x} %，y {y} %",
  boxAt: "框，x {x} %，y {y} %，宽 {w} %，高 {h} %",
  hint: "点击主体，或拖动画出包围它的框。",
  stale: "运行后显示这些点击的遮罩。",
  quality: "SAM 自评质量 {quality}。",
  done: "上次运行的遮罩。",
  broken: "字段中的文字无法读取；第一次点击会替换它。",
  linked: "点击来自另一个节点。",
  saidAdded: "已添加点 {number}",
  saidRemoved: "已删除",
  saidBox: "已画框",
  saidCleared: "已全部删除",
};

/** @param {string} locale @returns {Translate} */
export function translator(locale) {
  return translatorOf({ en: EN, zh: ZH }, locale);
}
