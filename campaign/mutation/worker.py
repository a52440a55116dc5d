"""Runs tests against mutants, in a child process each that starts with the large libraries already imported.

    worker.py ROOT core|host

One line of JSON after the other: ``file``, ``source`` (null: as it is), ``tests``, ``seconds`` of CPU time,
``examples`` (the share of hypothesis' examples that are tried). The answer says ``code`` of pytest (0: alive;
negative: the signal that ended it), and the ``cpu`` seconds that it took.
"""

import importlib.machinery
import json
import os
import resource
import sys
import tempfile
from pathlib import Path


def main(root: Path, where: str) -> None:
    answers = os.fdopen(os.dup(1), "w")  # tests print
    os.dup2(2, 1)
    sys.argv[1:] = []
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:warnings", "--hypothesis-seed=0"]
    if where == "host":
        tests = root / "tests" / "host"
        sys.path.append(str(root / ".venv" / "host-tools"))
        options += [f"--rootdir={tests}", f"-c={tests / 'pytest.ini'}"]
        _import_host()
    else:
        sys.path.insert(0, str(root))
        import diffusers  # noqa: F401
        import PIL.Image  # noqa: F401
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pytest
    import safetensors.torch  # noqa: F401
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder  # mutants leave no examples behind
        answers.write("ready\n")
        answers.flush()
        for line in sys.stdin:
            words = json.loads(line)
            child = os.fork()
            if not child:
                _limit(words["seconds"])
                _fewer_examples(words["examples"])
                if words["source"] is not None:
                    _stand_in(str(root / words["file"]), words["source"])
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(1, 2)
                code = pytest.main([*options, *words["tests"]])
                os._exit(int(code))
            _, status, used = os.wait4(child, 0)
            code = os.waitstatus_to_exitcode(status)
            answers.write(json.dumps({"code": code, "cpu": used.ru_utime + used.ru_stime}) + "\n")
            answers.flush()


def _import_host() -> None:
    """What of the host can be imported before tests/host/conftest.py gives it its folders."""
    sys.path.insert(0, str(Path(os.environ["COMFYUI_PATH"]).expanduser()))
    import comfy.cli_args  # pyright: ignore[reportMissingImports]

    comfy.cli_args.args.cpu = True
    import comfy.samplers  # pyright: ignore[reportMissingImports]
    import comfy.supported_models  # pyright: ignore[reportMissingImports]  # noqa: F401


def _limit(seconds: float) -> None:
    """Ends a test that never ends, by its own CPU time: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))


def _fewer_examples(share: float) -> None:
    """Most mutants fall to the first examples."""
    from hypothesis import settings

    made = settings.__init__

    def fewer(self: settings, *words: object, **given: object) -> None:
        made(self, *words, **given)  # type: ignore[arg-type]
        self._max_examples = max(5, int(self.max_examples * share))

    settings.__init__ = fewer  # type: ignore[method-assign]


def _stand_in(path: str, source: str) -> None:
    """Lets a module be imported from another text than its file's."""
    loader = importlib.machinery.SourceFileLoader
    original = loader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, name: str) -> object:
        if os.path.realpath(self.path) == os.path.realpath(path):
            return compile(source, path, "exec", dont_inherit=True)
        return original(self, name)

    loader.get_code = get_code  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
