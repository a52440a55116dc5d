"""The real server starts with the pack in its custom_nodes, and the pack does not disturb it."""

from __future__ import annotations

import json

import live_server
import pytest


def test_server_starts_with_the_pack(server: live_server.Server) -> None:
    assert "system" in server.json("/system_stats")
    log = server.log()
    assert live_server.PACK_FOLDER in log, "the server did not look at the pack's folder"
    assert "IMPORT FAILED" not in log.split("Import times for custom nodes")[-1]
    assert "Cannot import" not in log


def test_registration_reaches_object_info(server: live_server.Server) -> None:
    info = server.json("/object_info")
    ours = {name for name, node in info.items() if live_server.PACK_FOLDER in node["python_module"]}
    assert {"ReferenceBundle", "LayoutComposer", "ContextGenPatchModel"} <= ours


def test_prompt_with_stock_nodes_runs_and_returns_a_picture(server: live_server.Server) -> None:
    prompt = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "smoke"}},
    }
    pictures = server.images(server.run(prompt))
    assert len(pictures) == 1
    assert pictures[0].startswith(b"\x89PNG")


def test_refused_prompt_says_why_and_leaves_the_queue_usable(server: live_server.Server) -> None:
    with pytest.raises(live_server.PromptError) as refused:
        server.submit({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert "NoSuchNode" in json.dumps(refused.value.details)
    assert server.json("/queue") == {"queue_running": [], "queue_pending": []}


def test_nothing_is_written_into_the_comfyui_folder(server: live_server.Server, host_path) -> None:
    assert not (host_path / "custom_nodes" / live_server.PACK_FOLDER).exists()
    assert (server.base / "custom_nodes" / live_server.PACK_FOLDER).exists()
