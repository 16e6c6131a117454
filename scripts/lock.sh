#!/usr/bin/env bash
# Write requirements/*.txt: exact versions with the hashes of every file, for every platform and
# Python >= 3.11, and without the address of an index (pip's configuration has it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    "${PYTHON:-python3}" -m venv "$scratch/venv"
    "$scratch/venv/bin/pip" install --quiet uv
    uv=$scratch/venv/bin/uv
fi

lock() { # NAME GROUP... : the run-time dependencies and these groups (loadtest is an extra)
    local name=$1 group
    shift
    local -a groups=()
    for group in "$@"; do
        if [ "$group" = loadtest ]; then groups+=(--extra loadtest); else groups+=(--group "$group"); fi
    done
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
        "${constraint[@]}" "${groups[@]}" pyproject.toml "${upgrade[@]}" \
        --output-file "requirements/$name.txt"
    echo "requirements/$name.txt"
}

upgrade=()
if [ "${1:-}" = --upgrade ]; then upgrade=(--upgrade); fi
constraint=()
lock run build
# The tests run what users run: same versions. (The peers of the benchmarks have a lock of their own.)
constraint=(--constraint requirements/run.txt)
lock loadtest build loadtest
constraint+=(--constraint requirements/loadtest.txt)
lock test build check loadtest test
