"""``python -m contextgen_core.score``."""

import sys

from ..commands.score import main

sys.exit(main())
