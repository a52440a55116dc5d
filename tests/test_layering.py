"""Dependencies point one way: nodes -> core; the core knows neither ComfyUI nor, outside its hosts, diffusers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = sorted((ROOT / "contextgen_core").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))

COMFY = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "execution", "server", "node_helpers"}
TRAINING_ONLY = {"diffusers", "peft", "accelerate", "prodigyopt", "transformers"}
PATCH_POINTS = {
    "add_wrapper", "add_wrapper_with_key", "set_model_patch", "set_model_patch_replace", "add_object_patch",
    "set_model_attn1_patch", "set_model_post_input_patch", "set_model_unet_function_wrapper",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that a file imports absolutely."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names


def relative_targets(path: Path) -> set[Path]:
    """Folders of this repository that a file's relative imports reach."""
    reached: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            reached.add((path.parents[node.level - 1] / (node.module or "").split(".")[0]).resolve())
    return reached


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_stands_alone(path: Path) -> None:
    names = imported(path)
    assert not names & COMFY
    assert "contextgen_core" not in names, "inside the core imports are relative: the pack has another name in ComfyUI"
    inside = path.relative_to(ROOT / "contextgen_core").parts[0]
    if inside not in ("hosts", "training", "bulk"):
        assert not names & TRAINING_ONLY
    assert all(ROOT / "contextgen_core" in (target, *target.parents) for target in relative_targets(path))


@pytest.mark.parametrize("path", sorted((ROOT / "contextgen_core" / "attention").glob("*.py")), ids=lambda p: p.name)
def test_the_engine_knows_no_method(path: Path) -> None:
    core = ROOT / "contextgen_core"
    reached = {target.relative_to(core).parts[0] for target in relative_targets(path) if target != core}
    assert reached <= {"attention", "errors"} and "contextgen." not in path.read_text().replace('"contextgen"', "")


def inner_imports(path: Path, types: bool = True) -> set[str]:
    """Dotted names inside the core, like "methods.lamic.plan", of what a file imports from it.

    ``types``: also what is imported for annotations alone, under ``if TYPE_CHECKING``
    """
    core = ROOT / "contextgen_core"
    tree = ast.parse(path.read_text())
    checking = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    left_out = set() if types else {id(inner) for node in checking for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in left_out:
            continue
        base = path.parents[node.level - 1].relative_to(core).parts + tuple((node.module or "").split("."))
        for alias in node.names:
            whole = [part for part in (*base, alias.name) if part]
            while whole and not (core.joinpath(*whole).with_suffix(".py").exists() or core.joinpath(*whole).is_dir()):
                whole.pop()
            names.add(".".join(whole))
    return names - {""}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "contextgen_core").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_methods_and_hosts_do_not_know_each_other(path: Path) -> None:
    """A method imports no host and no other method; hosts, backbones and reports name no method."""
    room, *rest = name_of(path).split(".")
    methods = {name.split(".")[1] for name in inner_imports(path) if name.count(".") and name.startswith("methods.")}
    general = {"boundary", "golden", "plan_values", "registry"}
    if room == "methods":
        assert not any(
            name.split(".")[0] in ("hosts", "commands", "training", "report") for name in inner_imports(path)
        )
        assert methods <= general | {rest[0] if rest else ""}
    elif room in ("hosts", "backbones", "report", "verbs", "layout", "composite", "attention", "lora"):
        assert methods <= general


def test_no_import_circle() -> None:
    """At run time; what is imported for annotations alone ties nothing."""
    files = {name_of(path): path for path in CORE if path.name != "__main__.py"}
    graph = {name: inner_imports(path, types=False) & set(files) - {name} for name, path in files.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*above, name))
            done.add(name)

    for name in sorted(files):
        visit(name, ())


@pytest.mark.parametrize("path", NODES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nodes_never_import_themselves_by_name(path: Path) -> None:
    assert not imported(path) & {"nodes", "contextgen_core", *TRAINING_ONLY}


@pytest.mark.parametrize("path", NODES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_host_room_touches_patch_points(path: Path) -> None:
    called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    if path.parent.name != "host" and path.name != "parity.py":  # which calls the model itself
        assert not called & (PATCH_POINTS | {"model_options"})


@pytest.mark.parametrize("path", CORE + NODES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_ships_does_not_know_the_campaign(path: Path) -> None:
    assert "campaign" not in imported(path)


@pytest.mark.parametrize("path", CORE + NODES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_evaluates_or_calls_out(path: Path) -> None:
    tree = ast.parse(path.read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "print"}
    if path.relative_to(ROOT).parts[:3] != (
        "contextgen_core",
        "bulk",
        "comfy.py",
    ):  # talks to the ComfyUI it is told of
        assert not imported(path) & {"requests", "urllib", "http", "socket", "aiohttp"}
    attributes = {
        (n.value.id, n.attr) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }
    assert not {name for owner, name in attributes if owner == "pickle"} - {"UnpicklingError"}


@pytest.mark.parametrize("path", CORE + NODES, ids=lambda p: str(p.relative_to(ROOT)))
def test_bulk_runs_are_a_room_that_nothing_else_enters(path: Path) -> None:
    bulk = ROOT / "contextgen_core" / "bulk"
    assert bulk in path.parents or not any(bulk in (target, *target.parents) for target in relative_targets(path))
