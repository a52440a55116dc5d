"""What is published, and what each version keeps of the ones before it."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
assert SPEC and SPEC.loader
release = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release)

VERSIONS = sorted(path.stem for path in release.RELEASED.glob("*.json"))


def recorded(version: str) -> dict[str, Any]:
    return json.loads((release.RELEASED / f"{version}.json").read_text("utf-8"))


def test_nothing_stands_against_a_release_but_what_is_written_at_its_time() -> None:
    late = ("run scripts/release.py --freeze",)
    assert [
        one for one in release.complaints(f"v{release.version()}") if not one.removesuffix(".").endswith(late)
    ] == []
    assert any("tag" in one for one in release.complaints("v0.0.9"))


def test_the_archive_holds_what_users_need_and_nothing_else() -> None:
    files = set(release.archive())
    tops = {path.split("/")[0] for path in files}
    assert tops == {
        "__init__.py", "nodes", "contextgen_core", "web", "locales", "workflows", "assets", "configs",
        "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "pyproject.toml", "requirements.txt", ".comfyignore",
    }  # fmt: skip
    nodes = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
    helped = {path.split("/")[2] for path in files if path.startswith("web/docs/") and path.endswith("/en.md")}
    assert helped == set(nodes)
    for folder in ("web", "locales", "workflows", "contextgen_core/tiny", "assets"):
        here = {path for path in release._git("ls-files", folder) if not path.endswith(".comfyignore")}
        assert here <= files, sorted(here - files)


def test_every_picture_of_a_help_page_is_in_the_archive() -> None:
    files = set(release.archive())
    for page in (path for path in files if path.startswith("web/docs/") and path.endswith(".md")):
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / page).read_text("utf-8")):
            if not target.startswith(("http:", "https:")):
                assert f"web/docs/{target}" in files, (page, target)  # the host reads them from there


def test_what_the_registry_shows_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    icon = re.search(r'^Icon = ".*/main/(.+)"$', text, re.MULTILINE)
    assert icon and (ROOT / icon[1]).is_file() and icon[1] in release.archive()
    core = (ROOT / "contextgen_core" / "__init__.py").read_text("utf-8")
    assert f'__version__ = "{release.version()}"' in core


def test_the_archives_names_are_such_as_every_system_holds() -> None:
    assert release.unportable(release.archive()) == []
    for path in ("a/aux.py", "web/a:b.js", "x/con", "a./b", "é.png", "a/" + "b" * 130):
        assert len(release.unportable([path])) == 1, path
    assert release.unportable(["a/B.py", "A/b.py", "a/auxiliary.py"]) == [
        "a/b.py is there twice where capitals are not told apart."
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_nodes_of_a_released_version_are_still_there(version: str) -> None:
    assert release.broken(recorded(version)["nodes"], release.promises()["nodes"]) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_headless_workflows_of_a_released_version_are_still_the_same(version: str) -> None:
    """Their pictures are held by tests/host/test_workflows.py; a better workflow takes a name of its own."""
    now = release.promises()["workflows"]
    changed = {name for name, digest in recorded(version)["workflows"].items() if now.get(name) != digest}
    assert not changed, f"released with {version}; give the changed ones new names"


def _moved(node: dict[str, Any]) -> None:
    node["inputs"].reverse()


def _renamed(node: dict[str, Any]) -> None:
    node["inputs"][0]["id"] += "_"


def _inserted(node: dict[str, Any]) -> None:
    node["inputs"].insert(0, {**node["inputs"][0], "id": "first"})


def _demanded(node: dict[str, Any]) -> None:
    last = max(n for n, one in enumerate(node["inputs"]) if one["section"] == "required")
    node["inputs"].insert(last + 1, {**node["inputs"][last], "id": "more"})


def _chosen(node: dict[str, Any]) -> None:
    next(one for one in node["inputs"] if one["choices"])["choices"].pop()


def _typed(node: dict[str, Any]) -> None:
    node["inputs"][0]["type"] = "OTHER"


def _answered(node: dict[str, Any]) -> None:
    node["outputs"].insert(0, "OTHER")


@pytest.mark.parametrize("change", [_moved, _renamed, _inserted, _demanded, _chosen, _typed, _answered])
def test_a_change_that_workflows_would_feel_is_seen(change: Any) -> None:
    released = release.promises()["nodes"]
    name = next(name for name, node in released.items() if any(one["choices"] for one in node["inputs"]))
    now = copy.deepcopy(released)
    change(now[name])
    assert release.broken(released, now)


def test_what_is_appended_breaks_nothing() -> None:
    released = release.promises()["nodes"]
    now = copy.deepcopy(released)
    for node in now.values():
        node["inputs"].append({"id": "newest", "section": "optional", "type": "INT", "choices": []})
        node["outputs"].append("IMAGE")
        for one in node["inputs"]:
            one["choices"] = [*one["choices"], "another"]
    now["ContextGenNewest"] = {"inputs": [], "outputs": []}
    assert release.broken(released, now) == []
    assert release.broken(now, released), "and a node that is gone is seen"
