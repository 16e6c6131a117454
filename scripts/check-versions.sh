#!/usr/bin/env bash
# Run the types and the unit and contract tests under other versions of Python.
#
# usage: check-versions.sh [--fast] [VERSION ...]   (default: 3.12 3.13)
#        --fast  what `make check` runs: tests of the protocol, the parsers and the configuration, and a cluster
#                that starts, serves a client and stops; all versions at once. A version that is not
#                installed is named and left out; with CI=true it fails.
# Each version has an environment of its own, .venv-VERSION (below $ENVIRONMENTS, if that is set), from the same
# locks. An interpreter is looked for as pythonVERSION and among those of pyenv; without --fast, a version
# that is not installed is named and fails.
set -euo pipefail

cd "$(dirname "$0")/.."
fast=
if [ "${1:-}" = --fast ]; then
    fast=yes
    shift
fi
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(3.12 3.13)

# Beside the locked dependencies of the cluster.
fast_packages="attrs centrifuge-python execnet hypothesis iniconfig packaging pluggy psutil pygments pytest pytest-asyncio pytest-timeout pytest-xdist sortedcontainers websockets"
fast_tests=(tests/unit/test_{auth,config,connection,connection_commands,frame_parser,lingering,protocol,resp}.py
    tests/integration/test_ws_cluster_up.py::test_a_client_is_served_through_nginx_and_ctrl_c_leaves_nothing)

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

install() { # the lock of what `fast_tests` import, or everything; only if it is not there yet
    local environment=$1 python=$2 lock=requirements/test.txt kind=all
    [ -z "$fast" ] || kind=fast
    local wanted
    wanted=$(cat requirements/run.txt requirements/test.txt "$0" | sha256sum)
    # Everything has what the fast tests need, too.
    if [ -n "$fast" ] && [ "$wanted" = "$(cat "$environment/.fast" "$environment/.all" 2>/dev/null | tail -1)" ]; then
        return 0
    fi
    # Each with `|| return`: where a function is part of a condition, bash goes on after a failure.
    "$python" -m venv "$environment" || return
    local pip=("$environment/bin/python" -m pip --disable-pip-version-check --quiet install)
    if [ -n "$fast" ]; then
        lock=$environment/fast.txt
        awk -v wanted=" $fast_packages " \
            '/^[a-z]/ { split($1, name, "=="); keep = index(wanted, " " name[1] " ") } keep' \
            requirements/test.txt >"$lock" || return
        "${pip[@]}" --no-compile --require-hashes --requirement requirements/run.txt || return
        "${pip[@]}" --no-compile --require-hashes --no-deps --requirement "$lock" || return
    else
        "${pip[@]}" --require-hashes --requirement "$lock" || return
        "${pip[@]}" --no-deps --no-build-isolation --editable . || return
    fi
    echo "$wanted" >"$environment/.$kind"
}

check() { # one version; its number among those that run at once gives it ports of its own
    local version=$1 number=$2 python=$3 environment="${ENVIRONMENTS:-.}/.venv-$1"
    echo "Python $version: $("$python" --version) in $environment"
    install "$environment" "$python" || return 1
    if [ -n "$fast" ]; then
        PYTEST_XDIST_WORKER="gw$number" "$environment/bin/python" -m pytest -q -p no:cacheprovider "${fast_tests[@]}"
    else
        "$environment/bin/mypy" --python-version "$version" &&
            "$environment/bin/python" -m pytest -q -n "${JOBS:-3}" tests/unit tests/contract
    fi
}

failed=()
declare -A running=() logs=()
cleanup() { # ends only what was started here
    [ ${#running[@]} -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
    [ ${#logs[@]} -eq 0 ] || rm -f "${logs[@]}"
}
trap cleanup EXIT
for version in "${versions[@]}"; do
    if ! python="$(interpreter "$version")"; then
        echo "Python $version is not installed: pyenv install $version, or Debian's python$version-venv" >&2
        if [ -n "$fast" ] && [ "${CI:-}" != true ]; then
            echo "Nothing was tried under Python $version; its types were checked" >&2
        else
            failed+=("$version")
        fi
    elif [ -n "$fast" ]; then
        logs[$version]=$(mktemp)
        check "$version" "${#logs[@]}" "$python" >"${logs[$version]}" 2>&1 </dev/null &
        running[$version]=$!
    else
        check "$version" 0 "$python" || failed+=("$version")
    fi
done
for version in "${!running[@]}"; do
    wait "${running[$version]}" || failed+=("$version")
    unset "running[$version]"
    cat "${logs[$version]}"
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
