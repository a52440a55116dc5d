#!/usr/bin/env bash
# Installs the ComfyUIs that the host and browser tests run in: the oldest release that the pack supports and the newest
# one that it was tested with, each on CPU in a virtual environment of its own. Does nothing where it is up to date.
#   scripts/host.sh [oldest|newest]   both without an argument
#   HOSTS         where to; ~/comfy otherwise, where the tests look
#   COMFYUI_REPO  a git repository with ComfyUI's release tags; its public one otherwise
#   HOST_TORCH    what to hand to pip for torch; the builds for CPU otherwise
#   PYTHON        interpreter to build from (3.10 or newer); python3 otherwise
set -euo pipefail
oldest=v0.3.64
newest=v0.30.0
hosts=${HOSTS:-$HOME/comfy}
repo=${COMFYUI_REPO:-https://github.com/comfyanonymous/ComfyUI.git}
torch=${HOST_TORCH:-torch torchvision torchaudio --index-url https://download.pytorch.org/whl/cpu}
python=${PYTHON:-python3}

say() { echo "host: $*" >&2; }

install() {
  local tag=$1 folder=$2
  local mark=$folder/.contextgen-host
  if [ -e "$folder" ] && [ ! -f "$mark" ]; then
    say "$folder was not made by this script and stays as it is"
    return
  fi
  local key="$tag $torch"
  if [ -f "$mark" ] && [ "$(cat "$mark")" = "$key" ]; then return; fi

  say "installing ComfyUI $tag into $folder"
  mkdir -p "$folder"
  echo unfinished >"$mark"
  [ -d "$folder/.git" ] || git -C "$folder" init --quiet
  git -C "$folder" fetch --quiet --depth 1 "$repo" "refs/tags/$tag"
  git -C "$folder" -c advice.detachedHead=false checkout --quiet --force FETCH_HEAD
  [ -x "$folder/.venv/bin/python" ] || "$python" -m venv "$folder/.venv"
  local pip=("$folder/.venv/bin/python" -m pip --disable-pip-version-check --quiet install)
  # torch first: the requirements name it without a build and would bring the one for CUDA
  # shellcheck disable=SC2086  # the specification may carry options
  "${pip[@]}" $torch
  "${pip[@]}" -r "$folder/requirements.txt"
  echo "$key" >"$mark"
}

case ${1:-both} in
  oldest) install "$oldest" "$hosts/ComfyUI-${oldest#v}" ;;
  newest) install "$newest" "$hosts/ComfyUI" ;;
  both)
    install "$oldest" "$hosts/ComfyUI-${oldest#v}"
    install "$newest" "$hosts/ComfyUI"
    ;;
  *) say "the argument is '$1'; give oldest, newest, or nothing for both"; exit 2 ;;
esac
