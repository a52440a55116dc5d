"""Starts a real ComfyUI server with the pack in it and talks to its HTTP API; standard library only.

Not called ``server``: that is a module of ComfyUI. Nothing is written into the ComfyUI folder: the server gets
a base folder of its own, where custom_nodes holds one link to this repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PACK_FOLDER = "contextgen-layout"

Answer = TypeVar("Answer")


class PromptError(RuntimeError):
    """A prompt refused (``details``: the server's JSON answer) or failed while it ran (its messages)."""

    def __init__(self, message: str, details: Any) -> None:
        super().__init__(f"{message}: {json.dumps(details)[:2000]}")
        self.details = details


@dataclass(frozen=True)
class Server:
    """A started server: ``base`` is its folder (input, output, models/...), ``log_file`` what it printed."""

    url: str
    base: Path
    log_file: Path
    process: subprocess.Popen[bytes]

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str, **query: str) -> bytes:
        address = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310  http on the loopback only
            return answer.read()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, value: Any) -> Any:
        """Posts JSON; returns the answer's JSON, None when empty. Raises PromptError on status 400."""
        request = urllib.request.Request(  # noqa: S310
            self.url + path, data=json.dumps(value).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                body = answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptError("refused", json.loads(error.read())) from None
        return json.loads(body) if body else None

    def submit(self, prompt: dict[str, Any]) -> str:
        """Queues an API prompt; returns its id. Raises PromptError when validation refuses it."""
        return self.post("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})["prompt_id"]

    def until(self, met: Callable[[], Answer], timeout: float = 60.0) -> Answer:
        """Asks ten times a second until the answer is true, and returns it. Raises where the server ended or time is
        over."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if answer := met():
                return answer
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()[-4000:]}")
            time.sleep(0.1)
        raise TimeoutError(f"nothing came within {timeout:.0f} s:\n{self.log()[-4000:]}")

    def wait(self, prompt_id: str, timeout: float = 300.0) -> dict[str, Any]:
        """Waits for a queued prompt; returns its history entry. Raises PromptError when a node failed."""
        entry = self.until(lambda: self.json(f"/history/{prompt_id}").get(prompt_id), timeout)
        status = entry.get("status", {})
        if status.get("status_str") != "success":
            raise PromptError("failed", status.get("messages"))
        return entry

    def run(self, prompt: dict[str, Any], timeout: float = 300.0) -> dict[str, Any]:
        """Submits and waits; returns the history entry (``outputs`` by node id)."""
        return self.wait(self.submit(prompt), timeout)

    def forget(self) -> None:
        """Empties the host's caches: the next prompt runs whole, and reports the pictures of all its nodes."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        # The host does so between two prompts, or when idle. After this one, it has.
        empty = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
        self.run({"1": empty, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})

    def images(self, entry: dict[str, Any]) -> list[bytes]:
        """The encoded pictures of a history entry, in the order of its nodes."""
        found = [image for out in entry["outputs"].values() for image in out.get("images", [])]
        return [self.get("/view", **{k: str(image[k]) for k in ("filename", "subfolder", "type")}) for image in found]

    def interrupt(self) -> None:
        self.post("/interrupt", {})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def link_pack(packs: Path) -> None:
    """Puts this repository into the folder custom_nodes as a link, or as a copy where links are not allowed."""
    link = packs / PACK_FOLDER
    try:
        link.symlink_to(ROOT, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        ignored = shutil.ignore_patterns(".git", ".venv", "node_modules", "output", "__pycache__")
        shutil.copytree(ROOT, link, ignore=ignored)


def _make_base(base: Path, fill: Callable[[Path], None]) -> None:
    for name in ("models", "input", "output", "temp", "user/default", "custom_nodes"):
        (base / name).mkdir(parents=True)
    fill(base / "custom_nodes")
    # Otherwise the frontend covers a fresh user's page with its template browser.
    settings = json.dumps({"Comfy.TutorialCompleted": True})
    (base / "user" / "default" / "comfy.settings.json").write_text(settings, encoding="utf-8")


def _wait_until_up(server: Server, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"ComfyUI ended with {server.process.returncode} at start:\n{server.log()[-4000:]}")
        with contextlib.suppress(OSError):
            server.get("/system_stats")
            return
        time.sleep(0.25)
    raise TimeoutError(f"ComfyUI did not answer within {timeout:.0f} s:\n{server.log()[-4000:]}")


@contextlib.contextmanager
def running(
    host: Path,
    python: str = sys.executable,
    arguments: tuple[str, ...] = (),
    timeout: float = 600.0,
    fill: Callable[[Path], None] = link_pack,
    prefix: str = "contextgen-server-",
    before: tuple[str, ...] = (),
) -> Iterator[Server]:
    """Starts the server of the ComfyUI at ``host`` on a free port of 127.0.0.1; ends it on leaving.

    fill: puts packs into its custom_nodes. prefix: of its folder's name. before: a command that starts the command.
    """
    base = Path(tempfile.mkdtemp(prefix=prefix))
    _make_base(base, fill)
    port = _free_port()
    command = [*before, python, str(host / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--disable-auto-launch", "--base-directory", str(base)]
    command += ["--database-url", f"sqlite:///{base / 'comfyui.db'}", *arguments]
    log_file = base / "server.log"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=base, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", base, log_file, process)
    try:
        _wait_until_up(server, timeout)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":  # for the browser tests: prints the address, serves until standard input closes
    with running(Path(os.environ["COMFYUI_PATH"]).expanduser(), arguments=tuple(sys.argv[1:])) as served:
        sys.stdout.write(json.dumps({"url": served.url, "base": str(served.base)}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
