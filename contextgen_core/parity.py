"""``python -m contextgen_core.parity``."""

import sys

from .commands.parity import main

if __name__ == "__main__":
    sys.exit(main())
