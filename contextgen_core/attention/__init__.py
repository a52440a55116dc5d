"""The engine: groups of queries with their keys, compiled and executed exactly. Knows no method."""

from .groups import Group, Groups, Index, KeyPart, Span
from .memo import Memo, SameTensors
from .program import Program, compile_block, compile_blocks
from .run import KERNELS, Attend, choose_kernel, run, sdpa

__all__ = [
    "KERNELS",
    "Attend",
    "Group",
    "Groups",
    "Index",
    "KeyPart",
    "Memo",
    "SameTensors",
    "Program",
    "Span",
    "choose_kernel",
    "compile_block",
    "compile_blocks",
    "run",
    "sdpa",
]
