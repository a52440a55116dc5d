"""Watches a Python process that a watched test has started. Python's own module of this name, which this one hides,
runs before."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_here = os.path.dirname(os.path.abspath(__file__))
_hidden = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if os.path.abspath(entry) != _here])
if _hidden is not None and _hidden.loader is not None:
    _hidden.loader.exec_module(module_from_spec(_hidden))

if os.environ.get("CONTEXTGEN_WATCH"):
    import contextgen_watch

    contextgen_watch.start()
