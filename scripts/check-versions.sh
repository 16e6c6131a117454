#!/usr/bin/env bash
# Run the types and the unit and contract tests under other versions of Python.
#
# usage: check-versions.sh [VERSION ...]   (default: 3.12 3.13)
# Each version has an environment of its own, .venv-VERSION, from the same locks. An interpreter is looked
# for as pythonVERSION and among those of pyenv; a version that is not installed is named and fails.
set -euo pipefail

cd "$(dirname "$0")/.."
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.12 3.13)

interpreter() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1"*/bin/python; do
        # Run it instead of `command -v`: version managers put shims of missing versions on PATH.
        if "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" \
            >/dev/null 2>&1 </dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

failed=()
for version in "${versions[@]}"; do
    if ! python="$(interpreter "$version")"; then
        echo "Python $version is not installed: pyenv install $version, or Debian's python$version-venv" >&2
        failed+=("$version")
        continue
    fi
    environment=".venv-$version"
    echo "Python $version: $("$python" --version) in $environment"
    "$python" -m venv "$environment"
    "$environment/bin/python" -m pip --disable-pip-version-check --quiet install \
        --require-hashes --requirement requirements/test.txt
    "$environment/bin/python" -m pip --disable-pip-version-check --quiet install \
        --no-deps --no-build-isolation --editable .
    if ! { "$environment/bin/mypy" --python-version "$version" &&
        "$environment/bin/python" -m pytest -q -n "${JOBS:-3}" tests/unit tests/contract; }; then
        failed+=("$version")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
