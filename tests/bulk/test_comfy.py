"""ComfyUI's API from the outside: what is fetched, and what a host that breaks off costs."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextgen_core.bulk import comfy
from contextgen_core.bulk.backend import HostError
from contextgen_core.bulk.comfy import Comfy
from contextgen_core.bulk.graph import Filled, Graph
from contextgen_core.errors import InputError


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers each connection with the same bytes; gives its address."""
    servers: list[socket.socket] = []

    def serve(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


STATS = json.dumps({"system": {"comfyui_version": "9.9.9"}}).encode()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(STATS) + STATS


@pytest.mark.parametrize("answer", [WHOLE[:-9], b"SSH-2.0-OpenSSH_9.6\r\n", b""], ids=["cut off", "no HTTP", "nothing"])
def test_an_answer_that_breaks_off_is_the_hosts_trouble(answering: Callable[[bytes], str], answer: bytes) -> None:
    with pytest.raises(HostError, match="does not answer"):
        Comfy(answering(answer)).version()


def test_a_host_on_this_machine_is_asked_without_the_proxy(
    answering: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert Comfy(answering(WHOLE)).version() == "9.9.9"


class Shown(Comfy):
    """A host whose nodes show pictures, by their ids."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:9")
        self.outputs = outputs
        self.prompt: dict[str, Any] = {}
        self.uploads: list[bytes] = []

    def _json(self, path: str, value: Any = None, wait: float = 30.0) -> Any:
        if path == "/prompt":
            self.prompt = value["prompt"]
            return {"prompt_id": "p"}
        return {"p": {"status": {"status_str": "success"}, "outputs": self.outputs}}

    def _ask(self, path: str, data: bytes | None = None, kind: str = "", wait: float = 30.0) -> bytes:
        if path == "/upload/image":
            self.uploads.append(data or b"")
            return b'{"name": "n", "subfolder": "bulk"}'
        return path.encode()


def images(name: str) -> dict[str, Any]:
    return {"images": [{"filename": name, "subfolder": "", "type": "temp"}]}


@pytest.mark.parametrize("saves", [True, False])
def test_the_saved_picture_is_fetched_whatever_is_shown_before_it(saves: bool) -> None:
    last = {"class_type": "SaveImage" if saves else "PreviewImage", "inputs": {"filename_prefix": "x"}}
    host = Shown({"1": images("reference.png"), "9": images("result.png")})
    made = host.paint(Filled({"1": {"class_type": "ReferenceBundle", "inputs": {}}, "9": last}), 1)
    assert host.prompt["9"]["class_type"] == "PreviewImage"
    assert (b"result.png" if saves else b"reference.png") in made.picture


@pytest.mark.parametrize(("name", "ends"), [("a.PNG", b'.png"'), ('a.p"; name="x', b'"')])
def test_a_file_name_stays_out_of_the_upload_but_for_its_ending(tmp_path: Path, name: str, ends: bytes) -> None:
    (tmp_path / name).write_bytes(b"content")
    host = Shown({})
    host.upload(tmp_path / name)
    [head] = [line for line in host.uploads[0].split(b"\r\n") if b"filename=" in line]
    assert head.endswith(ends) and head.count(b'"') == 4


# ---- whatever a host or a user sends --------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["p", "status", "status_str", "messages", "outputs", "images", "filename", "system", "comfyui_version", "name",
     "subfolder", "queue_running", "queue_pending", "prompt_id", "9", "success", "execution_error", "1.0", ""]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


class Odd(Comfy):
    """A host that answers each question with something."""

    def __init__(self, answers: Callable[[], bytes]) -> None:
        super().__init__("http://127.0.0.1:9", timeout=0.05)
        self.answers = answers

    def _ask(self, path: str, data: bytes | None = None, kind: str = "", wait: float = 30.0) -> bytes:
        return self.answers()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_answer_of_a_host_is_a_picture_or_one_sentence(tmp_path_factory: Any, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "x.png"
    file.write_bytes(b"x")
    host = Odd(lambda: json.dumps(data.draw(ANYTHING)).encode() if data.draw(st.booleans()) else b"<html>")
    graph = Graph({"9": {"class_type": "SaveImage", "inputs": {}}})
    asked = (
        host.version, host.waiting, lambda: host.missing(graph), lambda: host.upload(file),
        lambda: host.paint(Filled(dict(graph.nodes), {("9", "image"): file}), 1),
    )  # fmt: skip
    try:
        data.draw(st.sampled_from(asked))()
    except (HostError, InputError) as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b'{"node_errors": 1}', b'{"node_errors": {"1": {"errors": [{"message": "a\\nb"}]}}}',
             b'{"error": {"message": "a\\nb"}}', b'{"node_errors": {"1": []}, "error": []}'],
)  # fmt: skip
def test_a_refusal_in_any_form_is_one_sentence(answering: Callable[[bytes], str], body: bytes) -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with pytest.raises(InputError, match="refused the row") as error:
        Comfy(answering(answer)).version()
    assert "\n" not in str(error.value)


def test_without_the_right_to_make_links_the_host_gets_a_file_of_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation, base = tmp_path / "comfy", tmp_path / "base"
    for name in ("custom_nodes/other", "models/checkpoints", "models/loras"):
        (installation / name).mkdir(parents=True)
    assert comfy._base_folder(base, installation) == []
    assert (base / "models" / "loras").is_dir() and (base / "custom_nodes" / comfy.PACK / "nodes").is_dir()

    real, calls = os.symlink, []

    def symlink(*arguments: Any, **options: Any) -> None:
        if calls:  # the second one, so that the first has to go again
            raise OSError(1314, "A required privilege is not held by the client")
        calls.append(real(*arguments, **options))

    monkeypatch.setattr(os, "symlink", symlink)
    base = tmp_path / "other base"
    option, file = comfy._base_folder(base, installation)
    assert option == "--extra-model-paths-config"
    paths = json.loads(Path(file).read_text(encoding="utf-8"))["installation"]
    assert paths == {
        "custom_nodes": str(installation / "custom_nodes"),
        "checkpoints": str(installation / "models" / "checkpoints"),
        "loras": str(installation / "models" / "loras"),
    }
    assert not any(path.is_symlink() for path in base.rglob("*"))
    copied = base / "custom_nodes" / comfy.PACK
    assert (copied / "__init__.py").is_file() and (copied / "contextgen_core").is_dir()
    assert not (copied / "tests").exists()
