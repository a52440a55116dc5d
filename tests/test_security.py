"""What SECURITY.md promises and the sources themselves show."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign import static

ROOT = Path(__file__).resolve().parents[1]
FILES = [*static.python_files(), *static.web_files()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_ships_says_what_is_promised_not_to_be(path: Path) -> None:
    assert static.problems(path) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.py", "eval('1')"), ("x.py", "import pickle\npickle.loads(b'')"), ("x.py", "torch.load(p)"),
        ("x.py", "torch.load(p, weights_only=False)"), ("x.py", "import requests"),
        ("x.py", "from urllib import request"),
        ("x.py", "import subprocess"), ("x.py", "np.load(p, allow_pickle=True)"), ("x.py", "os.system('x')"),
        ("x.py", "app.add_routes([])"), ("x.py", "yaml.load(t)"), ("x.js", "a.innerHTML = b"), ("x.js", "eval (a)"),
        ("x.js", "fetch('https://example.com/a')"), ("x.mjs", "new WebSocket(a)"),
    ],
)  # fmt: skip
def test_each_of_them_would_be_seen(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "ROOT", tmp_path)
    (tmp_path / name).write_text(line)
    assert len(static.problems(tmp_path / name)) >= 1
