#!/usr/bin/env bash
# launch.sh: makes the environment, once, and hands over to januslm/launch; alone, it lists the verbs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$root/.venv log=
torch=$(sed -n 's/^torch==//p' "$root/constraints.txt")
[[ $# -ge 1 ]] || set -- help
export JANUSLM_PROGRAM=$0 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

trap 'exit 130' INT  # bash forgets one that comes while it waits for a child
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_gpu() { [[ -e /dev/nvidia0 || -e /dev/nvidiactl ]]; }

# Run a silent command, and say every few seconds that it is still at work.
patiently() {
    local what=$1 began=$SECONDS pid
    shift
    "$@" >"$log" 2>&1 & pid=$!
    while kill -0 $pid 2>/dev/null; do
        (( (SECONDS - began) % 5 )) || printf 'installing %s, %d s\n' "$what" $((SECONDS - began)) >&2
        sleep 1
    done
    wait $pid
}

get() { "$venv/bin/python" -m pip install -vv --disable-pip-version-check -c "$root/constraints.txt" "$@"; }

# Why pip gave up, in one line.
refuse() {
    local why
    why=$(grep -E '^ *(ERROR|error)' "$log" | head -n 1 || tail -n 1 "$log")
    ! grep -q ResolutionImpossible "$log" || why="the package index lacks a version that constraints.txt names"
    ! grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|NameResolution' "$log" || why="the package index does not answer: is there a network?"
    ! grep -q 'No space left' "$log" || why="the disk is full"
    fail "$1 could not be installed: $why"
}

setup() {
    local free need=3000
    ! has_gpu || need=9000
    free=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1024) }')
    (( free >= need )) || fail "$root: $free MB are free, the environment needs $need"
    "$found" -c 'import ensurepip' 2>/dev/null || fail "$found cannot make environments: install its package venv (python3-venv)"
    log=$(mktemp) && trap 'rm -f "$log"' EXIT
    printf 'Setting up %s (a few minutes, once)\n' "$venv" >&2
    rm -f "$venv/ready"
    "$found" -m venv "$venv" >"$log" 2>&1 || refuse "$venv"
    # torch first and alone: a resolver that sees it with others may pull gigabytes of CUDA.
    if has_gpu || ! patiently "torch $torch for CPUs, 200 MB" get ${JANUSLM_TORCH_INDEX:+--extra-index-url "$JANUSLM_TORCH_INDEX"} "torch==$torch+cpu"; then
        patiently "torch $torch as the index has it, up to 3 GB with CUDA" get "torch==$torch" || refuse torch
    fi
    patiently "DeepSpeed and the other packages, 400 MB" get -e "$root[dev]" || refuse "DeepSpeed or another package"
    ready >"$venv/ready"
    printf 'Ready\n' >&2
}

ready() { cat "$root"/{pyproject.toml,constraints.txt,launch.sh} | cksum; }

python=${JANUSLM_PYTHON:-$venv/bin/python}
if [[ ${JANUSLM_PYTHON:-} ]]; then
    new_enough "$python" || fail "\$JANUSLM_PYTHON = $python: not there, or older than Python 3.11"
elif [[ $(cat "$venv/ready" 2>/dev/null) != "$(ready)" ]]; then
    for found in python3 python3.{14,13,12,11} ""; do new_enough "$found" && break; done
    [[ $found ]] || fail "Python 3.11 or newer is needed; on the PATH is $(python3 --version 2>/dev/null || echo none)"
    # A mistake is refused before anything is installed; the launcher itself needs no package.
    "$found" -P -m januslm.launch "$@" --dry-run >/dev/null || exit
    if [[ $1 == @(help|-h|--help) || " $* " == *" --dry-run "* ]]; then python=$found; else setup; fi
fi
exec "$python" -P -m januslm.launch "$@"
