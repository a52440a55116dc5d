/**
 * Sentences in the host's language. `{name}` marks what is filled in; `{count|box|boxes}` writes the first form for
 * one and the second for any other number.
 */

/**
 * @template {Record<string, string>} T
 * @param {{en: T, zh: Record<keyof T, string>}} languages @param {string} locale  as the host names it, for example "zh-TW"
 * @returns {(key: keyof T, values?: Record<string, string | number>) => string}
 */
export function translatorOf(languages, locale) {
  const table = locale.toLowerCase().startsWith("zh") ? languages.zh : languages.en;
  return (key, values = {}) => fill(table[key], values);
}

/** @param {string} text @param {Record<string, string | number>} values */
function fill(text, values) {
  return text.replace(/\{(\w+)(?:\|([^|}]*)\|([^|}]*))?\}/g, (whole, name, one, many) => {
    if (!Object.hasOwn(values, name)) return whole;
    const value = values[name];
    if (one === undefined) return String(value);
    return Number(value) === 1 ? one : many;
  });
}

/**
 * A name between others: marks that would turn the direction of what follows are closed in (Unicode isolates).
 * @param {string} text
 */
export function isolate(text) {
  return /[\u202a-\u202e\u2066-\u2069\u200e\u200f\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/.test(text) ? `\u2068${text}\u2069` : text;
}
