#!/bin/sh
# Make .venv with edged and its locked dependencies in it.
#
#   tools/install.sh [test]
#
# With "test" also what the tests need. PYTHON names the interpreter (default: python3).
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv
lock=requirements${1:+-$1}.lock
need_megabytes=1500

complain() {
    echo "edged can't be installed: $1" >&2
    faults=1
}

faults=
if ! command -v "$python" >/dev/null; then
    complain "there is no $python: apt install python3"
elif ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
    complain "it wants Python 3.11 to 3.13, and $("$python" --version) is $(command -v "$python"); name another one as in: make demo PYTHON=python3.11"
elif ! "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)'; then
    complain "it wants a 64-bit system, and this Python is a 32-bit program"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    complain "Python's venv module is missing: apt install python3-venv"
fi
if ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then
    complain "a C and C++ compiler is missing: apt install build-essential"
fi
if [ ! -e $venv ]; then
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free" -ge $need_megabytes ] || complain "it wants $need_megabytes MB of disk, and $free MB are free in $PWD"
fi
[ -z "$faults" ] || exit 1

# After an upgrade of the system the old interpreter may be gone.
$venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear $venv

# /tmp may be a small part of the memory.
TMPDIR=$PWD/$venv/tmp
mkdir -p "$TMPDIR"
trap 'rm -rf "$TMPDIR"' EXIT
export TMPDIR PIP_DISABLE_PIP_VERSION_CHECK=1

pip() { $venv/bin/python -m pip "$@"; }

# Older ones build a hash-checked package again for each new .venv.
$venv/bin/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (23, 1))' ||
    pip install --quiet --upgrade pip

if ! $venv/bin/python -c 'import importlib.metadata as m; m.version("llama-cpp-python")' 2>/dev/null; then
    echo "Installing edged. llama.cpp is compiled for this processor, once: 5 minutes on a PC, up to 40 on a Pi."
    # A compiler takes up to a gigabyte.
    gigabytes=$(awk '/^MemTotal/ { print int($2 / 1000000) }' /proc/meminfo)
    jobs=$(nproc)
    [ "$jobs" -le "$gigabytes" ] || jobs=$((gigabytes > 0 ? gigabytes : 1))
    export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$jobs}"
fi
pip install --require-hashes --requirement "$lock"
pip install --quiet --no-deps --editable .
touch "$venv/.installed${1:+-$1}"
