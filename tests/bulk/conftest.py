"""A Ray of the tests' own, once for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    from contextgen_core.bulk import run

    engine = run.engine()
    sys.path.insert(0, str(HERE))  # the stub backend, which the workers import, too
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), before)))
    run._connect(engine, run.Options(workers=2))
    yield engine
    engine.shutdown()
    os.environ["PYTHONPATH"] = before
    sys.path.remove(str(HERE))
