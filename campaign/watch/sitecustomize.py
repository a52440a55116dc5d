"""Watches a Python process that a watched test has started."""

import os

if os.environ.get("CONTEXTGEN_WATCH"):
    import contextgen_watch

    contextgen_watch.start()
