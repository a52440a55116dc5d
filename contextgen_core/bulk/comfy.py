"""ComfyUI as a backend: a running one by its address, or one of our own, through the stock HTTP API alone."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..input.checks import shorten
from .backend import HostError, Made
from .graph import Filled, Graph

OLDEST = (0, 3, 64)
START_SECONDS = 300.0
MAX_PICTURE_BYTES = 256 << 20
PREVIEWS = 256  # a host's cache may answer with one of the last
PACK = "contextgen-layout"
_NOT_COPIED = (".*", "node_modules", "output", "tests", "docs", "bench", "__pycache__")
_POLL = (0.02, 0.5)  # seconds between two questions: at first, at most


class Comfy:
    """One ComfyUI. Raises HostError where it does not answer, InputError where it refuses what it was given."""

    def __init__(self, url: str, timeout: float = 600.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"the address {shorten(url, 80)} is none; give one like http://127.0.0.1:8188.")
        self.url, self.timeout = url.rstrip("/"), timeout
        # A proxy of the environment cannot reach this machine's own ports.
        proxies = [urllib.request.ProxyHandler({})] if _local(parts.hostname) else []
        self._open = urllib.request.build_opener(*proxies).open
        self._uploaded: dict[Path, tuple[tuple[int, int], str]] = {}

    # ---- the API ---------------------------------------------------------------------------------------------------

    def _ask(self, path: str, data: bytes | None = None, kind: str = "application/json", wait: float = 30.0) -> bytes:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind} if data is not None else {})  # noqa: S310  http(s) only, see __init__
        try:
            with self._open(request, timeout=min(wait, self.timeout)) as answer:
                body = answer.read(MAX_PICTURE_BYTES + 1)
                if answer.length and len(body) <= MAX_PICTURE_BYTES:  # a read of so many at most says nothing of it
                    raise http.client.IncompleteRead(body, answer.length)
        except urllib.error.HTTPError as error:
            raise _refusal(self.url, path, error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise HostError(f"ComfyUI at {self.url} does not answer ({shorten(str(reason), 80)}).") from None
        if len(body) > MAX_PICTURE_BYTES:
            raise InputError(
                f"ComfyUI at {self.url} sent more than {MAX_PICTURE_BYTES} bytes for {path.split('?')[0]}."
            )
        return body

    def _json(self, path: str, value: Any = None, wait: float = 30.0) -> Any:
        body = self._ask(path, None if value is None else json.dumps(value).encode(), wait=wait)
        try:
            return json.loads(body) if body else None
        except ValueError:
            raise self._odd(path) from None

    def _object(self, path: str, value: Any = None, wait: float = 30.0) -> Mapping[str, Any]:
        answer = self._json(path, value, wait)
        if not isinstance(answer, Mapping):
            raise self._odd(path)
        return answer

    def _odd(self, path: str) -> HostError:
        return HostError(f"what answers at {self.url} is no ComfyUI ({path.split('?')[0]} gave something else).")

    def version(self, wait: float = 10.0) -> str:
        """The host's version. Raises InputError for one that is older than the pack supports."""
        system = self._object("/system_stats", wait=wait).get("system")
        if not isinstance(system, Mapping):
            raise self._odd("/system_stats")
        version = str(system.get("comfyui_version", "unknown"))
        numbers = version.split("-")[0].split(".")
        if all(n.isdigit() for n in numbers) and tuple(map(int, numbers)) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise InputError(
                f"ComfyUI at {self.url} is version {version}, the oldest supported is {oldest}; update it."
            )
        return version

    def missing(self, graph: Graph) -> list[str]:
        """The node classes of a graph that this host does not have."""
        quoted = ((name, urllib.parse.quote(name)) for name in graph.classes())
        return [name for name, path in quoted if name not in self._object(f"/object_info/{path}")]

    def waiting(self) -> int:
        """Prompts that run or wait."""
        queue = self._object("/queue", wait=5.0)
        parts = [queue.get(name, []) for name in ("queue_running", "queue_pending")]
        if not all(isinstance(part, list) for part in parts):
            raise self._odd("/queue")
        return sum(map(len, parts))

    def upload(self, file: Path) -> str:
        """Puts a picture into the host's input folder, once; returns the name to load it by. Its name says what is in
        it, so that the same picture has the same name on every host."""
        state = file.stat()
        key = (state.st_mtime_ns, state.st_size)
        if file in self._uploaded and self._uploaded[file][0] == key:
            return self._uploaded[file][1]
        if state.st_size > MAX_PICTURE_BYTES:
            raise InputError(f"the picture {shorten(file.name, 80)} is larger than {MAX_PICTURE_BYTES} bytes.")
        content = file.read_bytes()
        suffix = file.suffix.lower()
        name = hashlib.sha256(content).hexdigest()[:32] + (suffix if suffix[1:].isalnum() else "")
        edge = uuid.uuid4().hex
        parts = [
            _part(edge, "image", content, name),
            *(_part(edge, k, v.encode()) for k, v in (("overwrite", "true"), ("type", "input"), ("subfolder", "bulk"))),
            f"--{edge}--\r\n".encode(),
        ]
        body = self._ask("/upload/image", b"".join(parts), f"multipart/form-data; boundary={edge}")
        try:
            answer = json.loads(body)
            place = "/".join(filter(None, (answer.get("subfolder"), answer["name"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._odd("/upload/image") from None
        self._uploaded[file] = (key, place)
        return place

    def paint(self, filled: Filled, seed: int) -> Made:
        """Runs a row's graph and fetches the first picture that it saves, or shows where it saves none. Nothing of it
        stays on the host but the uploaded references: what it would save goes into its folder for previews, and its
        history is deleted."""
        prompt = filled.with_seed(seed)
        for (node, name), file in filled.files.items():
            prompt[node]["inputs"][name] = self.upload(file)
        saving = [id for id, node in prompt.items() if node["class_type"] == "SaveImage"]
        for id in saving:
            prompt[id]["class_type"] = "PreviewImage"
            prompt[id]["inputs"].pop("filename_prefix", None)
        start = time.monotonic()
        id = self._object("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex}).get("prompt_id")
        if not isinstance(id, str):
            raise self._odd("/prompt")
        try:
            entry = self._wait(id, start)
        except BaseException:
            with suppress(HostError, InputError):
                self.cancel(id)
            raise
        with suppress(HostError, InputError):
            self._ask("/history", json.dumps({"delete": [id]}).encode())
        image = _first_image(entry.get("outputs"), saving)
        if image is None:
            raise InputError("the workflow gave no picture; add Save Image behind its last node.")
        query = urllib.parse.urlencode({k: str(image.get(k, "")) for k in ("filename", "subfolder", "type")})
        return Made(self._ask(f"/view?{query}"), seed, time.monotonic() - start)

    def _wait(self, id: str, start: float) -> Mapping[str, Any]:
        pause = _POLL[0]
        while time.monotonic() - start < self.timeout:
            entry = self._object(f"/history/{urllib.parse.quote(id)}").get(id)
            if isinstance(entry, Mapping):
                status = entry.get("status")
                if not isinstance(status, Mapping) or not status:
                    status = {"status_str": "success"} if entry.get("outputs") else {}
                if status.get("status_str") == "success":
                    return entry
                raise _failure(status.get("messages"))
            time.sleep(pause)
            pause = min(2 * pause, _POLL[1])
        raise HostError(f"ComfyUI at {self.url} did not finish the row within {self.timeout:.0f} s.")

    def cancel(self, id: str) -> None:
        """Takes a prompt out of the queue, and stops it where it runs; others' prompts are left alone."""
        self._ask("/queue", json.dumps({"delete": [id]}).encode(), wait=5.0)
        self._ask("/interrupt", json.dumps({"prompt_id": id}).encode(), wait=5.0)

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing of ours is left on a host that is not ours."""


def _local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _first_image(outputs: object, nodes: Sequence[str]) -> Mapping[str, Any] | None:
    """The first picture among what these nodes gave; of all nodes, those that only show something too, without any."""
    shown = outputs if isinstance(outputs, Mapping) else {}
    for node in nodes or shown:
        about = shown.get(node)
        images = about.get("images") if isinstance(about, Mapping) else None
        for image in images if isinstance(images, list) else ():
            if isinstance(image, Mapping):
                return image
    return None


def _part(edge: str, name: str, content: bytes, file: str = "") -> bytes:
    more = f'; filename="{file}"\r\nContent-Type: application/octet-stream' if file else ""
    return f'--{edge}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def _refusal(url: str, path: str, error: urllib.error.HTTPError) -> Exception:
    """400 is about what was sent; everything else is the host's trouble."""
    if error.code != 400:
        return HostError(f"ComfyUI at {url} answered {error.code} to {path.split('?')[0]}.")
    try:
        body = error.read(1 << 20)
    except (OSError, ValueError, http.client.HTTPException) as reason:
        return HostError(f"ComfyUI at {url} does not answer ({shorten(str(reason), 80)}).")
    try:
        answer = json.loads(body)
        nodes = answer.get("node_errors") or {}
        for entry in nodes.values():
            for one in entry.get("errors", ()):
                what = ": ".join(_line(one[k]) for k in ("message", "details") if one.get(k))
                return InputError(f"ComfyUI refused the row: {_line(entry.get('class_type', 'a node'))}: {what}")
        return InputError(f"ComfyUI refused the row: {_line(answer['error']['message'])}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return InputError(f"ComfyUI refused the row: {shorten(body.decode(errors='replace'), 200)}")


def _line(text: object) -> str:
    return shorten(" ".join(str(text).split()), 300)


def _failure(messages: object) -> Exception:
    """Why a prompt ended without success: an error of a node is the row's, an interruption is not."""
    for message in messages if isinstance(messages, (list, tuple)) else ():
        if isinstance(message, (list, tuple)) and len(message) == 2 and isinstance(message[1], Mapping):
            kind, about = message
            if kind == "execution_error":
                what = f"{_line(about.get('node_type', 'a node'))}: {_line(about.get('exception_message', 'failed'))}"
                memory = "OutOfMemory" in str(about.get("exception_type", ""))
                return HostError(what) if memory else InputError(what)
    return HostError("the prompt was interrupted on the host.")


# ---- a ComfyUI of our own ------------------------------------------------------------------------------------------


class OwnComfy(Comfy):
    """A ComfyUI that this process starts, on the loopback interface, with a base folder of its own; it ends with this
    process. Its models are those of the installation; the pack is linked into it where it is not there."""

    def __init__(
        self, path: Path, python: str = "", timeout: float = 600.0, threads: int = 1, arguments: tuple[str, ...] = ()
    ) -> None:
        if not (path / "main.py").is_file():
            raise InputError(f"there is no ComfyUI in {shorten(str(path), 80)}; give the folder with its main.py.")
        self.base = Path(tempfile.mkdtemp(prefix="contextgen-bulk-"))
        try:
            further = _base_folder(self.base, path.resolve())
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            super().__init__(f"http://127.0.0.1:{port}", timeout)
            command = [python or python_of(path), str(path / "main.py"), "--listen", "127.0.0.1", "--port", str(port)]
            command += ["--disable-auto-launch", "--base-directory", str(self.base), *further, *arguments]
            command += ["--database-url", f"sqlite:///{self.base / 'comfyui.db'}"]
            count = str(threads)
            environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
            with (self.base / "server.log").open("wb") as log:
                self.process = subprocess.Popen(  # noqa: S603  the user's own ComfyUI
                    command, cwd=self.base, env=environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, preexec_fn=_die_with_parent if os.name == "posix" else None,
                )  # fmt: skip
            atexit.register(self.close)
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                last = (self.base / "server.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise HostError(f"ComfyUI ended while it started: {shorten(''.join(last), 160)}")
            with suppress(HostError):
                self.version(2.0)
                return
            time.sleep(0.25)
        raise HostError(f"ComfyUI did not start within {START_SECONDS:.0f} s.")

    def paint(self, filled: Filled, seed: int) -> Made:
        """Like the one of any host; of the previews that would else pile up until it ends, the latest stay."""
        made = super().paint(filled, seed)
        with suppress(OSError):
            shown = sorted((file for file in (self.base / "temp").iterdir() if file.is_file()), key=_age)
            for file in shown[:-PREVIEWS]:
                file.unlink()
        return made

    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        atexit.unregister(self.close)
        process: subprocess.Popen[bytes] | None = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.base, ignore_errors=True)


def python_of(path: Path) -> str:
    """The Python of an installation: its virtual environment's, else this one."""
    for folder in (".venv", "venv"):
        for name in ("bin/python", "Scripts/python.exe"):
            if (path / folder / name).is_file():
                return str(path / folder / name)
    return sys.executable


def _base_folder(base: Path, path: Path) -> list[str]:
    """Makes a base folder with the installation's models and custom nodes, and the pack where it is not among them;
    returns further arguments for the host. Links, as custom nodes look for models under the base folder, too; where
    the system does not let us make them (Windows without the right to), the host's own file of further paths."""
    pack = Path(__file__).resolve().parents[2]
    for name in ("input", "output", "temp", "user/default", "custom_nodes"):
        (base / name).mkdir(parents=True)
    nodes, models = path / "custom_nodes", path / "models"
    installed = {
        entry.name: entry for entry in _folders(nodes) if entry.name != "__pycache__" and not entry.name.startswith(".")
    }
    there = pack in {entry.resolve() for entry in installed.values()} or not (pack / "nodes").is_dir()
    ours = {} if there else {PACK: pack}
    targets = {base / "custom_nodes" / name: entry for name, entry in (installed | ours).items()}
    if models.is_dir():
        targets[base / "models"] = models
    made: list[Path] = []
    try:
        for link, target in targets.items():
            link.symlink_to(target, target_is_directory=True)
            made.append(link)
        return []
    except OSError:
        for link in made:
            link.unlink()
    if ours:
        shutil.copytree(pack, base / "custom_nodes" / PACK, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    kinds = {"custom_nodes": str(nodes)} | {entry.name: str(entry) for entry in _folders(models)}
    further = base / "paths.yaml"
    further.write_text(json.dumps({"installation": kinds}, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    return ["--extra-model-paths-config", str(further)]


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns


def _folders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir()] if path.is_dir() else []


def _die_with_parent() -> None:
    """A worker that is killed outright takes its ComfyUI along (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
