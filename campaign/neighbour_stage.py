"""Runs in a ComfyUI's own interpreter: the pack beside one other pack at a time, each time in a process of its own.

    <interpreter> campaign/neighbour_stage.py <ComfyUI> <folder of packs> <file of results> <seconds> [PACK ...]

The host is prepared once and forked for each pack and order. Standard library, torch and the host alone: the
repository's root stays off the path. Each line of results is a JSON object (see ``beside``).
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OURS = "contextgen-layout"
WORKFLOW = "tiny_two_subjects"
STEPS, NODES = 2, 16  # of the small workflow's sampler; of a pack's patches
LIMIT, EACH = 900, 90  # seconds for one pack in one order, for one of its patches
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN"}
Prompt = dict[str, Any]


def host_nodes() -> Any:
    """The host's module of nodes, whose name the pack's folder of nodes shares for a type checker."""
    return importlib.import_module("nodes")


def prepare(path: Path) -> Path:
    """Makes the host ready on CPU, with a base folder of its own; that folder."""
    base = Path(tempfile.mkdtemp(prefix="contextgen-neighbours-"))
    for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir()
    for picture in (ROOT / "assets" / "samples").glob("*.png"):
        shutil.copy(picture, base / "input")
    (base / "custom_nodes" / OURS).symlink_to(ROOT, target_is_directory=True)
    sys.path[0] = str(path)
    sys.argv = [str(path / "main.py")]
    os.chdir(base)
    import comfy.options  # pyright: ignore[reportMissingImports]

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args  # pyright: ignore[reportMissingImports]

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.base_directory = str(base)
    importlib.import_module("utils.install_util")  # before the host puts its folder comfy on the path, with a utils.py
    import server  # pyright: ignore[reportMissingImports]

    nodes = host_nodes()

    async def ready() -> None:
        server.PromptServer(asyncio.get_running_loop())
        await nodes.init_builtin_extra_nodes()

    loop = asyncio.new_event_loop()  # stays open: messages for browsers that are not there are put in it
    asyncio.set_event_loop(loop)
    loop.run_until_complete(ready())
    return base


def load(folder: Path) -> str:
    """Loads a pack as the host does; what went wrong, in its last line, or ""."""
    import io
    import logging

    nodes = host_nodes()

    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger().addHandler(handler)
    before = set(nodes.NODE_CLASS_MAPPINGS)
    try:
        good = asyncio.run(nodes.load_custom_node(str(folder), ignore=set(), module_parent="custom_nodes"))
    finally:
        logging.getLogger().removeHandler(handler)
    if good or set(nodes.NODE_CLASS_MAPPINGS) - before:
        return ""
    lines = [line for line in heard.getvalue().splitlines() if "Error" in line]
    return (lines or ["it defines no nodes"])[-1][:200]


def paint(prompt: Prompt) -> tuple[Any, str]:
    """Runs a prompt in this process; the saved picture's pixels, or None and the error's type and message."""
    import execution  # pyright: ignore[reportMissingImports]
    import folder_paths  # pyright: ignore[reportMissingImports]
    import numpy as np
    import server  # pyright: ignore[reportMissingImports]
    from PIL import Image

    prompt = copy.deepcopy(prompt)
    good, error, outputs, refused = asyncio.run(execution.validate_prompt("campaign", prompt, None))
    if not good:
        said = [one["details"] or one["message"] for node in refused.values() for one in node["errors"]]
        return None, f"refused: {'; '.join(map(str, said)) or error}"
    options: dict[str, Any] = {"cache_type": execution.CacheType.CLASSIC}
    if "cache_args" in inspect.signature(execution.PromptExecutor).parameters:
        options["cache_args"] = {"lru": 0, "ram": 0, "ram_inactive": 0}
    executor = execution.PromptExecutor(server.PromptServer.instance, **options)
    executor.execute(prompt, "campaign", {}, outputs)
    if not executor.success:
        failed = [said for kind, said in executor.status_messages if kind == "execution_error"]
        said = failed[-1] if failed else {"exception_type": "nothing", "exception_message": "was said"}
        return None, f"{said['exception_type']}: {str(said['exception_message']).strip()}"
    shown = executor.history_result["outputs"]["42"]["images"][0]
    file = Path(folder_paths.get_directory_by_type(shown["type"])) / shown["subfolder"] / shown["filename"]
    return np.asarray(Image.open(file)), ""


def workflow() -> Prompt:
    prompt = json.loads((ROOT / "workflows" / "api" / f"{WORKFLOW}.json").read_text("utf-8"))
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = STEPS
    return prompt


def patches(ids: set[str]) -> dict[str, tuple[dict[str, Any], str, int]]:
    """Of these nodes, those that take one model and give one and need nothing else that is not a plain value: their
    values at the defaults, the name of the model's input, and the output's number."""
    nodes = host_nodes()

    out = {}
    for name in sorted(ids):
        node = nodes.NODE_CLASS_MAPPINGS[name]
        try:
            required = node.INPUT_TYPES().get("required", {})
            gives = list(node.RETURN_TYPES)
        except Exception:  # noqa: S112  a neighbour's node that cannot say what it takes is not one we can place
            continue
        models = [key for key, kind in required.items() if kind[0] == "MODEL"]
        if len(models) != 1 or "MODEL" not in gives:
            continue
        values = {}
        for key, (kind, *rest) in ((key, (*value,)) for key, value in required.items() if key not in models):
            options = rest[0] if rest and isinstance(rest[0], dict) else {}
            choices = kind if isinstance(kind, (list, tuple)) else options.get("options") if kind == "COMBO" else None
            if choices:
                values[key] = options.get("default", choices[0])
            elif isinstance(kind, str) and kind in WIDGETS:
                values[key] = options.get("default", {"STRING": "", "BOOLEAN": False}.get(kind, options.get("min", 0)))
            else:
                break
        else:
            out[name] = (values, models[0], gives.index("MODEL"))
    return out


def placed(prompt: Prompt, name: str, patch: tuple[dict[str, Any], str, int], where: str) -> Prompt:
    """The workflow with another pack's patch before ours, after it, or (alone) in its place."""
    prompt = copy.deepcopy(prompt)
    values, model, output = patch
    ours = next(key for key, node in prompt.items() if node["class_type"] == "ContextGenPatchModel")
    if where == "before":
        source = prompt[ours]["inputs"]["model"]
        prompt[ours]["inputs"]["model"] = ["900", output]
    else:
        source = prompt[ours]["inputs"]["model"] if where == "alone" else [ours, 0]
        for key, node in prompt.items():
            for slot, value in node["inputs"].items():
                if value == [ours, 0] and (key != ours):
                    node["inputs"][slot] = ["900", output]
        if where == "alone":
            del prompt[ours]
    prompt["900"] = {"class_type": name, "inputs": {**values, model: source}}
    return prompt


def bare(prompt: Prompt) -> Prompt:
    """The workflow without our patch on the model."""
    prompt = copy.deepcopy(prompt)
    ours = next(key for key, node in prompt.items() if node["class_type"] == "ContextGenPatchModel")
    source = prompt.pop(ours)["inputs"]["model"]
    for node in prompt.values():
        for slot, value in node["inputs"].items():
            if value == [ours, 0]:
                node["inputs"][slot] = source
    return prompt


def beside(folder: Path, ours_first: bool, wanted: Any, plain: Any) -> dict[str, Any]:
    """What is seen beside one pack: its nodes, what is taken twice, whether our picture stays, and its patches.

    wanted: our picture without it. plain: that of the model without our patch."""
    import numpy as np

    nodes = host_nodes()

    ours, core = ROOT, set(nodes.NODE_CLASS_MAPPINGS)
    said: dict[Path, str] = {}
    names: dict[Path, set[str]] = {}
    webs: dict[Path, set[str]] = {}
    for place in (ours, folder) if ours_first else (folder, ours):
        before, known = dict(nodes.NODE_CLASS_MAPPINGS), dict(nodes.EXTENSION_WEB_DIRS)
        said[place] = load(Path("custom_nodes", OURS).absolute() if place == ours else place)
        after = nodes.NODE_CLASS_MAPPINGS
        names[place] = {name for name in after if before.get(name) is not after[name]}
        webs[place] = {name for name, web in nodes.EXTENSION_WEB_DIRS.items() if known.get(name) != web}
    result: dict[str, Any] = {
        "pack": folder.name,
        "order": "ours first" if ours_first else "theirs first",
        "failed": said[folder],
        "ours failed": said[ours],
        "nodes": len(names[folder]),
        "taken": sorted((names[ours] & names[folder]) | (webs[ours] & webs[folder])),
        "core taken": sorted(names[ours] & core),
        "patches": {},
    }
    picture, error = paint(workflow())
    result["picture"] = error or bool(np.array_equal(picture, wanted))
    if not ours_first and not said[folder]:
        for name, patch in list(patches(names[folder]).items())[:NODES]:
            result["patches"][name] = forked(partial(together, name, patch, wanted, plain), EACH)
    return result


def same(one: Any, other: Any) -> bool:
    """Whether two pictures are equal but for the rounding of sums in another order: one step of 255 in one value of a
    thousand."""
    import numpy as np

    apart = np.abs(one.astype(np.int16) - other)
    return bool(apart.max() <= 1 and (apart > 0).mean() <= 0.001)


def together(name: str, patch: tuple[dict[str, Any], str, int], wanted: Any, plain: Any) -> dict[str, Any]:
    """One patch of another pack alone, before ours and after it: errors, or how the pictures stand to each other."""
    prompt = workflow()
    pictures, out = {}, {}
    for where in ("alone", "before", "after"):
        pictures[where], error = paint(placed(prompt, name, patch, where))
        out[where] = error
    if pictures["alone"] is not None:
        out["neutral"] = same(pictures["alone"], plain)
    both = pictures["before"], pictures["after"]
    if all(one is not None for one in both):
        out["same in both orders"] = same(*both)
        out["ours as without"] = same(both[0], wanted)
        out["flat"] = any(float(one.std()) < 1 for one in both)
    return out


def forked(work: Any, limit: float) -> dict[str, Any]:
    """What ``work()`` returns in a child process; {"died": why} where it did not, {"late": True} after ``limit``
    seconds."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            said = json.dumps(work())
        except BaseException:  # the parent is told, whatever it was
            said = json.dumps({"died": traceback.format_exc().strip().splitlines()[-1]})
        with os.fdopen(write, "w") as pipe:
            pipe.write(said)
        os._exit(0)
    os.close(write)
    late: list[bool] = []

    def kill(*_: object) -> None:
        late.append(True)
        os.kill(child, signal.SIGKILL)

    killer = signal.signal(signal.SIGALRM, kill)
    signal.alarm(int(limit))
    with os.fdopen(read) as pipe:
        said = pipe.read()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, killer)
    os.waitpid(child, 0)
    return json.loads(said) if said else {"late": True} if late else {"died": "its process ended"}


def main(host: Path, packs: Path, results: Path, seconds: float, only: list[str]) -> None:
    started = time.monotonic()
    folders = [
        one.resolve()
        for one in sorted(packs.iterdir())
        if one.is_dir() and one.name[0] != "." and (not only or one.name in only)
    ]
    results = results.resolve()
    base = prepare(host.resolve())

    def baseline() -> dict[str, Any]:
        failed = load(Path("custom_nodes", OURS).absolute())
        (wanted, error), (plain, other) = paint(workflow()), paint(bare(workflow()))
        if failed or error or other:
            raise RuntimeError(failed or error or other)
        return {"wanted": wanted.tolist(), "plain": plain.tolist()}

    try:
        pictures = forked(baseline, LIMIT)
        if "wanted" not in pictures:
            raise RuntimeError(pictures.get("died", "the workflow alone takes too long"))
        import numpy as np

        wanted, plain = (np.asarray(pictures[key], dtype=np.uint8) for key in ("wanted", "plain"))
        with results.open("w", encoding="utf-8") as file:
            for folder in folders:
                for ours_first in (False, True):
                    if time.monotonic() - started > seconds:
                        return
                    seen = forked(partial(beside, folder, ours_first, wanted, plain), LIMIT)
                    order = "ours first" if ours_first else "theirs first"
                    file.write(json.dumps({"pack": folder.name, "order": order, **seen}) + "\n")
                    file.flush()
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
