import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/web/**/*.test.js"],
    environment: "node",
    pool: "threads",
    maxWorkers: 1,
    testTimeout: 120000, // other suites run beside; only a hang comes near it
  },
});
