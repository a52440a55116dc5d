/**
 * Colours of boxes. A box keeps its colour when the order changes: it follows from its id, and the first 32 ids differ. The
 * report paints with the same (tests/vectors/box_colour.json). Nothing is told by colour alone.
 */

const COUNT = 32;
const GOLDEN_ANGLE = 137.5;
const FIRST_HUE = 210;
const LIGHTNESS = [0.66, 0.54, 0.76];
const SATURATION = 0.85;

/** @param {{id: string, colour?: string}} box @returns {string} #rrggbb */
export function colourOf({ id, colour }) {
  return colour ?? idColour(id);
}

/** @param {string} id @returns {string} #rrggbb */
export function idColour(id) {
  const number = /\d+$/.exec(id);
  const code = number ? Number(number[0].slice(-6)) - 1 : [...id].reduce((sum, letter) => sum + (letter.codePointAt(0) ?? 0), 0);
  const index = ((code % COUNT) + COUNT) % COUNT;
  const hue = (FIRST_HUE + index * GOLDEN_ANGLE) % 360;
  const lightness = LIGHTNESS[index % LIGHTNESS.length];
  const chroma = SATURATION * Math.min(lightness, 1 - lightness);
  const channel = (/** @type {number} */ n) => {
    const k = (n + hue / 30) % 12;
    const share = lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.floor(share * 255 + 0.5).toString(16).padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}

/** Black or white, whichever is read better on it. @param {string} colour #rrggbb */
export function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const share = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#101114" : "#ffffff";
}
