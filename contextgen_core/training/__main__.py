"""`python -m contextgen_core.training CONFIG.yaml [key=value ...]`: runs one stage of training."""

from __future__ import annotations

import argparse
import logging
import sys

from ..errors import InputError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m contextgen_core.training",
        description="Runs a training stage; started again with the same output folder, it resumes where it stopped.",
    )
    parser.add_argument("config", help="a YAML file, for example configs/tiny_sft.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the file")
    options = parser.parse_args(arguments)
    _log_to_stderr()
    try:
        from .config import load
        from .stages import train

        train(load(options.config, options.overrides))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except ImportError as error:
        sys.stderr.write(
            f"{error.name or error} is not installed; install the training extra: pip install"
            " 'contextgen-layout[train]'.\n"
        )
        return 2
    return 0


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("contextgen")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
