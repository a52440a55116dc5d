"""One case under watch: a value or one sentence, within a second and a bound of memory, and no file but its own."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextgen_core.errors import InputError

from ..frame import ROOT

SECONDS = 1.0  # of CPU time: the wall clock would blame other work on the machine
ROOM = 256 << 20  # bytes that a case may need beyond what the process has when the first one starts
LONGEST = 600  # letters of a sentence
# What a reader of text and files has no business with. Each is an event of sys.addaudithook.
FORBIDDEN = (
    "socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
    "os.fork", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "shutil.rmtree", "shutil.move", "shutil.copyfile", "pickle.find_class", "webbrowser.open", "code.__new__",
)  # fmt: skip
LIBRARIES = tuple(str(Path(folder).resolve()) for folder in {sys.prefix, sys.base_prefix})
SOURCES = (".py", ".pyc", ".so", ".json")


class Slow(BaseException):
    """Not an Exception: what catches those must not take it for an answer."""


class Guard:
    """Runs cases one by one. folder: where the case's own files lie; nothing else may be opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self._inside = False
        self._touched: list[str] = []
        signal.signal(signal.SIGPROF, self._late)
        sys.addaudithook(self._asked)
        self.known: set[tuple[str, str]] = set()

    def limit_memory(self) -> None:
        """From here on the process may grow by ROOM, counted in address space."""
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
        if pages:
            limit = pages * os.sysconf("SC_PAGE_SIZE") + ROOM
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def run(self, attempt: Callable[[Any], object], case: Any) -> str:
        """What a case broke, "" where it kept the property or broke what is known already."""
        self._touched.clear()
        self._inside = True
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        place = ""
        try:
            attempt(case)
            broke = ""
        except InputError as error:
            broke = _sentence(str(error))
        except Slow as error:
            broke, place = f"took more than {SECONDS:g} s of CPU time", _place(error)
        except MemoryError as error:
            broke, place = f"needed more than {ROOM >> 20} MiB", _place(error)
        except Exception as error:
            broke, place = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}", _place(error)
        finally:
            self._inside = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if self._touched:
            broke, place = f"touched {self._touched[0]}", place or self._touched[0]
        key = (broke.split(":")[0], place)
        if not broke or key in self.known:
            return ""
        self.known.add(key)
        return f"{broke} ({place})" if place else broke

    def _ours(self, path: object) -> bool:
        """Whether an argument is a path in the case's folder, or no path at all."""
        if isinstance(path, (str, bytes, os.PathLike)):
            return os.path.abspath(os.fsdecode(path)).startswith(self.folder)
        return isinstance(path, int)

    def _late(self, *_: object) -> None:
        if self._inside:
            raise Slow

    def _asked(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._inside:
            return
        if event == "open":
            path = arguments[0]
            if isinstance(path, int):
                return
            whole, ours = os.path.abspath(os.fsdecode(path)), self._ours(path)
            library = whole.startswith((*LIBRARIES, str(ROOT))) and whole.endswith(SOURCES) and _reads(arguments)
            if not ours and not library and not whole.startswith("/proc/"):
                self._touched.append(f"{whole} by {event}")
        elif event in FORBIDDEN and not all(self._ours(path) for path in arguments[:2] or [None]):
            self._touched.append(f"{event} {str(arguments)[:80]}")


def _reads(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments[1:3], None, None)[:2]
    writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return not writing and not (isinstance(mode, str) and set(mode) & set("wax+"))


def _sentence(text: str) -> str:
    """Why a text is no sentence that a user can be shown, or ""."""
    if "\n" in text or not text.isprintable():
        return f"a sentence with control characters: {ascii(text)[:160]}"
    if len(text) > LONGEST:
        return f"a sentence of {len(text)} letters: {text[:120]}"
    return "" if text.endswith((".", ")", "?")) else f"no whole sentence: {text[:160]}"


def _place(error: BaseException) -> str:
    """File and function of the pack where an exception came through last."""
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if "contextgen_core" in frame.filename]
    return f"{Path(inside[-1].filename).relative_to(ROOT)}:{inside[-1].name}" if inside else ""
