/** Starts and ends a real ComfyUI on CPU for a test, with this pack and nothing else in it. */

import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const PACK = process.env.CONTEXTGEN_PACK ?? ROOT;

/** Installations to test with: COMFYUI_PATH (several with the platform's path separator), else comfy-cli's default place. */
export function hosts() {
  const named = (process.env.COMFYUI_PATH ?? "").split(path.delimiter).filter(Boolean);
  const known = named.length ? named : [path.join(process.env.HOME ?? "", "comfy", "ComfyUI")];
  return known.filter((folder) => existsSync(path.join(folder, "main.py")));
}

/** The minor version of an installation's frontend, 0 where it cannot be told. @param {string} comfy */
export function frontendOf(comfy) {
  for (const name of [".venv", "venv"]) {
    const library = path.join(comfy, name, "lib");
    for (const python of existsSync(library) ? readdirSync(library) : []) {
      const packages = path.join(library, python, "site-packages");
      const found = (existsSync(packages) ? readdirSync(packages) : []).find((entry) => /^comfyui_frontend_package-.*\.dist-info$/.test(entry));
      if (found) return Number(found.split("-")[1].split(".")[1]);
    }
  }
  return 0;
}

/** With COMFYUI_URL a server that runs already is used, which spares the wait while working on the editor. @param {string} comfy @returns {Promise<{url: string, base: string, stop: () => Promise<void>, log: () => string}>} */
export async function startServer(comfy) {
  const running = process.env.COMFYUI_URL;
  if (running) return { url: running, base: "", stop: async () => {}, log: () => "" };
  const base = await mkdtemp(path.join(tmpdir(), "contextgen-browser-"));
  for (const folder of ["custom_nodes", "input", "output", "temp", "user", "models"]) await mkdir(path.join(base, folder));
  await symlink(PACK, path.join(base, "custom_nodes", "comfyui-contextgen"), "dir");
  const port = await freePort();
  const venv = [path.join(comfy, ".venv", "bin", "python"), path.join(comfy, "venv", "bin", "python")].find(existsSync);
  const options = ["main.py", "--cpu", "--listen", "127.0.0.1", "--port", String(port), "--base-directory", base, "--disable-auto-launch"];
  const child = spawn(venv ?? "python3", options, { cwd: comfy, env: { ...process.env, OMP_NUM_THREADS: "1" }, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (log = (log + data).slice(-20000)));
  const orphan = () => child.kill("SIGKILL");
  process.once("exit", orphan);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const url = `http://127.0.0.1:${port}`;
  const stop = async () => {
    child.kill("SIGTERM");
    const force = setTimeout(() => child.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(force);
    process.removeListener("exit", orphan);
    await rm(base, { recursive: true, force: true });
  };
  for (let tries = 0; tries < 240; tries += 1) {
    if (child.exitCode !== null) throw new Error(`ComfyUI ended before it answered:\n${log.slice(-3000)}`);
    const answer = await fetch(`${url}/system_stats`).catch(() => null);
    if (answer?.ok) return { url, base, stop, log: () => log };
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  await stop();
  throw new Error(`ComfyUI did not answer:\n${log.slice(-3000)}`);
}

/** @returns {Promise<number>} */
function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
