"""How an installation is laid out and what counts as left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign import install


def test_the_archive_is_unpacked_whole_and_without_the_tests(tmp_path: Path) -> None:
    install.unpack(tmp_path / "pack")
    assert (tmp_path / "pack" / "nodes" / "__init__.py").is_file()
    assert (tmp_path / "pack" / "web" / "docs" / "LayoutComposer" / "en.md").is_file()
    assert not (tmp_path / "pack" / "tests").exists()


def test_a_protected_folder_refuses_who_is_held_back(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    install.protect(tmp_path / "pack")
    with_held = install.held_back()
    if not with_held:
        with pytest.raises(PermissionError):
            (tmp_path / "pack" / "new").touch()
        return
    import subprocess

    ended = subprocess.run([*with_held, "touch", str(tmp_path / "pack" / "new")], capture_output=True)
    assert ended.returncode and not (tmp_path / "pack" / "new").exists()
    install.release_folder(tmp_path / "pack")
    (tmp_path / "pack" / "new").touch()


def test_what_stays_behind_is_seen(tmp_path: Path) -> None:
    for path in ("output/contextgen.png", "input/a.png", "custom_nodes/contextgen-layout/x.py", "user/comfy.log"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert install.leftovers(tmp_path) == []
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "new.safetensors").touch()
    (tmp_path / "user" / "ContextGen.json").touch()
    assert install.leftovers(tmp_path) == ["models/new.safetensors", "user/ContextGen.json"]
