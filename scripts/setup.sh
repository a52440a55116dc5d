#!/usr/bin/env bash
# Makes .venv with what the tests, the demo and training need. Does nothing when it is up to date.
#   PYTHON      interpreter to build from (3.10 or newer); found by itself otherwise
#   TORCH_SPEC  what to hand to pip for torch; "torch==2.13.0" otherwise
set -euo pipefail
cd "$(dirname "$0")/.."
torch_spec=${TORCH_SPEC:-torch==2.13.0}
stamp=.venv/.complete

good() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
python=
for candidate in ${PYTHON:+"$PYTHON"} .venv/bin/python python3 python3.13 python3.12 python3.11 python3.10 python; do
  if command -v "$candidate" >/dev/null && good "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || { echo "setup: no Python 3.10 or newer found; set PYTHON=/path/to/python" >&2; exit 1; }

key=$("$python" - "$torch_spec" pyproject.toml scripts/setup.sh <<'PY'
import hashlib, pathlib, sys
spec, *names = sys.argv[1:]
print(hashlib.sha256(spec.encode() + b"".join(pathlib.Path(n).read_bytes() for n in names)).hexdigest())
PY
)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; then exit 0; fi

echo "setup: preparing .venv" >&2
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv || { echo "setup: 'python -m venv' failed (Debian: install python3-venv)" >&2; exit 1; }
fi
rm -f "$stamp"
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

# torch first and then held fixed, so that nothing else draws in another build of it.
# shellcheck disable=SC2086  # the specification may carry options
pip install $torch_spec
.venv/bin/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >.venv/constraints.txt
pip install --constraint .venv/constraints.txt -e '.[dev,train,bulk,score]'
echo "$key" >"$stamp"
