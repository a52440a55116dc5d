"""Makes one safetensors file of the files in which a method's authors ship their weights.

    python -m contextgen_core.commands.convert instance_assemble LAYOUT.pth LORA.safetensors OUT.safetensors

Prints the layers in the files that have no effect. Exit status 0, or 2 with one sentence for files that cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import InputError
from ..methods.instance_assemble.files import read_files, write_file


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.commands.convert", description=__doc__)
    methods = parser.add_subparsers(dest="method", required=True)
    assemble = methods.add_parser("instance_assemble", help="layout.pth and pytorch_lora_weights.safetensors into one")
    assemble.add_argument("layout", help="the authors' layout.pth")
    assemble.add_argument("lora", help="the authors' pytorch_lora_weights.safetensors")
    assemble.add_argument("out", help="the file to write (safetensors)")
    arguments = parser.parse_args(argv)
    try:
        file = read_files(arguments.layout, arguments.lora)
        write_file(arguments.out, file)
    except (InputError, OSError) as error:
        sys.stderr.write(f"convert: {error}\n")
        return 2
    ranks = ", ".join(map(str, file.ranks))
    sys.stdout.write(f"{arguments.out}: {file.family}, {len(file.blocks)} blocks, rank {ranks}\n")
    for name in file.ignored:
        sys.stdout.write(f"without effect, left out: {name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
