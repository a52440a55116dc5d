"""``python -m contextgen_core.demo``."""

import sys

from .commands.demo import main

if __name__ == "__main__":
    sys.exit(main())
