"""What a release is: the archive that the registry hands out, and what later versions must keep of it.

    python scripts/release.py               lists the archive and says what stands against a release
    python scripts/release.py --tag v1.0.0  the same, for a tag of this name; exit status 1 where something does
    python scripts/release.py --freeze      records the promises of the version in pyproject.toml under tests/released/

The registry's archive holds the files that git tracks without those that .comfyignore names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "tests" / "released"
LARGEST = 40_000_000  # bytes of all files; three quarters are the small model's weights
# Names that Windows keeps for devices, whatever their suffix.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
LONGEST = 120  # of Windows' 260 characters for a whole path

Nodes = dict[str, dict[str, Any]]


def _git(*arguments: str) -> list[str]:
    asked = subprocess.run(["git", *arguments, "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in asked.stdout.split("\0") if name]


def archive() -> list[str]:
    """The registry's archive: paths relative to the repository, in order."""
    ignored = set(_git("ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"))
    return sorted(set(_git("ls-files", "--cached")) - ignored)


def version() -> str:
    """The version that pyproject.toml names."""
    named = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    if not named:
        raise ValueError('pyproject.toml names no version; it needs a line version = "..." under [project].')
    return named[1]


def unportable(paths: list[str]) -> list[str]:
    """One sentence for each path that Windows, or a disk that does not tell capitals, cannot hold."""
    out = []
    for path in paths:
        for part in path.split("/"):
            if RESERVED.match(part) or part.endswith((".", " ")) or set(part) & set('<>:"\\|?*') or not part.isascii():
                out.append(f"{path}: Windows cannot hold the name {part!r}; rename it.")
        if len(path) > LONGEST:
            out.append(f"{path} has {len(path)} characters; shorten it to {LONGEST}.")
    counted = Counter(path.lower() for path in paths)
    out += [f"{path} is there twice where capitals are not told apart." for path, n in counted.items() if n > 1]
    return out


def interface(info: dict[str, Any]) -> Nodes:
    """Of nodes as /object_info tells them, what workflows rely on: inputs in their order with types and choices,
    outputs in their order with types."""
    made: Nodes = {}
    for name, node in sorted(info.items()):
        inputs = []
        for section in ("required", "optional"):
            for key in node["input_order"].get(section, []):
                kind, *rest = node["input"][section][key]
                options = rest[0] if rest else {}
                inputs.append({"id": key, "section": section, "type": kind, "choices": options.get("options", [])})
        made[name] = {"inputs": inputs, "outputs": list(node["output"])}
    return made


def broken(released: Nodes, now: Nodes) -> list[str]:
    """One sentence for each thing of a released version that a workflow relies on and that is no more."""
    out = []
    for name, node in released.items():
        if name not in now:
            out.append(f"The node {name} is gone; ids are permanent.")
            continue
        for section in ("required", "optional"):
            before = [one for one in node["inputs"] if one["section"] == section]
            after = [one for one in now[name]["inputs"] if one["section"] == section]
            if [one["id"] for one in after[: len(before)]] != [one["id"] for one in before]:
                out.append(f"{name}: the {section} inputs were renamed, moved or taken; they are only appended.")
                continue
            if section == "required" and len(after) > len(before):
                out.append(f"{name}: {after[len(before)]['id']} is required, which released workflows lack.")
            for old, new in zip(before, after, strict=False):
                if not set(str(old["type"]).split(",")) <= set(str(new["type"]).split(",")):
                    out.append(f"{name}: {old['id']} took {old['type']} and takes {new['type']}.")
                if gone := [str(one) for one in old["choices"] if one not in new["choices"]]:
                    out.append(f"{name}: {old['id']} has lost the choices {', '.join(gone)}.")
        if now[name]["outputs"][: len(node["outputs"])] != node["outputs"]:
            out.append(f"{name}: the outputs were moved, taken or changed in type; they are only appended.")
    return out


def promises() -> dict[str, Any]:
    """What the version of this checkout promises to later ones: its nodes, and its headless workflows by digest."""
    info = json.loads((ROOT / "tests" / "host" / "object_info.json").read_text("utf-8"))
    workflows = {path.stem: _digest(path) for path in sorted((ROOT / "workflows" / "api").glob("*.json"))}
    return {"nodes": interface(info), "workflows": workflows}


def _digest(path: Path) -> str:
    """sha256 of what a JSON file says, however it is written."""
    said = json.dumps(json.loads(path.read_text("utf-8")), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def complaints(tag: str = "") -> list[str]:
    """One sentence for each thing that stands against a release of this checkout."""
    files, name = archive(), version()
    out = unportable(files)
    if tag and tag != f"v{name}":
        out.append(f"The tag is {tag} and pyproject.toml says {name}; they must agree.")
    if f"\n## {name}\n" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        out.append(f"CHANGELOG.md has no section {name}.")
    size = sum((ROOT / path).stat().st_size for path in files)
    if size > LARGEST:
        out.append(f"The archive's files have {size:,} bytes, more than {LARGEST:,}; exclude what users do not need.")
    record = RELEASED / f"{name}.json"
    if not record.is_file() or json.loads(record.read_text("utf-8")) != promises():
        out.append(f"tests/released/{name}.json is not what this version promises; run scripts/release.py --freeze.")
    return out


def freeze() -> Path:
    """Writes the promises of this version to tests/released/<version>.json."""
    record = RELEASED / f"{version()}.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(promises(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a release.")
    parser.add_argument("--tag", default="", help="the tag that is published")
    parser.add_argument("--freeze", action="store_true", help="record what this version promises")
    arguments = parser.parse_args()
    if arguments.freeze:
        print("written:", freeze().relative_to(ROOT).as_posix())
    counted: Counter[str] = Counter()
    files = archive()
    for path in files:
        counted["/".join(path.split("/")[:2][: max(1, path.count("/"))])] += (ROOT / path).stat().st_size
    for folder, size in counted.most_common():
        print(f"{size:>12,}  {folder}")
    print(f"{sum(counted.values()):>12,}  in {len(files)} files")
    against = complaints(arguments.tag)
    print("\n".join(against) or f"Nothing stands against {version()}.")
    return int(bool(against))


if __name__ == "__main__":
    sys.exit(main())
