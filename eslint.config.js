import js from "@eslint/js";

const browser = [
  "AbortController", "AbortSignal", "Blob", "CSS", "CanvasImageSource", "CanvasRenderingContext2D", "ClipboardEvent", "DataTransfer", "Element", "File", "FormData", "HTMLCanvasElement",
  "HTMLElement", "HTMLImageElement", "HTMLInputElement", "HTMLSelectElement", "Image", "ImageData", "KeyboardEvent", "Node",
  "PointerEvent", "ResizeObserver", "ShadowRoot", "TextEncoder", "URL", "URLSearchParams", "Worker", "cancelAnimationFrame", "clearInterval", "createImageBitmap",
  "document", "getComputedStyle", "requestAnimationFrame", "setInterval", "window",
];
const node = ["URL", "console", "process", "setTimeout", "clearTimeout", "fetch", "Buffer", "FormData", "Blob", "AbortSignal", "performance"];
const names = (list) => Object.fromEntries(list.map((name) => [name, "readonly"]));

export default [
  { ignores: ["node_modules/", "output/", "build/", "dist/", ".venv/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    rules: {
      curly: ["error", "multi-line"],
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-console": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "Text from workflows is hostile: textContent only." },
        { property: "outerHTML", message: "Text from workflows is hostile: textContent only." },
        { property: "insertAdjacentHTML", message: "Text from workflows is hostile: textContent only." },
      ],
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["web/**/*.js"],
    languageOptions: { globals: names(browser) },
    rules: {
      "no-restricted-syntax": [
        "error",
        {
          selector: "CallExpression[callee.property.name='addEventListener'][callee.object.name=/^(window|document)$/]",
          message: "Listeners belong on the editor's own elements: some renderers stop events before the document.",
        },
      ],
    },
  },
  {
    files: ["web/**/*.js"],
    ignores: ["web/host/comfy.js"],
    rules: { "no-restricted-imports": ["error", { patterns: [{ group: ["**/scripts/*"], message: "Only web/host/comfy.js knows the host." }] }] },
  },
  { files: ["web/**/*_worker.mjs"], languageOptions: { globals: names(["self", "fetch", "createImageBitmap", "OffscreenCanvas"]) } },
  { files: ["tests/web/**/*.js"], languageOptions: { globals: names([...browser, ...node, "ClipboardEvent", "Event", "MouseEvent"]) } },
  {
    files: ["tests/browser/**/*.mjs", "scripts/**/*.mjs", "campaign/**/*.mjs", "*.config.js"],
    languageOptions: { globals: names([...browser, ...node, "app", "LiteGraph", "MouseEvent", "EventTarget", "performance", "ClipboardEvent", "DataTransfer", "DragEvent", "File", "OffscreenCanvas", "structuredClone"]) },
    rules: { "no-console": "off" },
  },
];
