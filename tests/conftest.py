"""Makes tests/support importable; in importlib mode pytest leaves sys.path alone. No clock decides a property test."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")
