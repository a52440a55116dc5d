"""ComfyUI's API from the outside: what is fetched, and what a host that breaks off costs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contextgen_core.bulk.backend import HostError
from contextgen_core.bulk.comfy import Comfy
from contextgen_core.bulk.graph import Filled


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
