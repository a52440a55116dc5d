"""ContextGen for FLUX.1-Kontext: layout and identity control of several subjects. Imports nothing by itself."""

from __future__ import annotations

__version__ = "0.1.0"
