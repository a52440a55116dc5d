"""``python -m contextgen_core.sam_check``."""

import sys

from .commands.sam_check import run

if __name__ == "__main__":
    sys.exit(run())
