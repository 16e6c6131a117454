#!/usr/bin/env bash
# Print the first Python >= 3.11 that can make a virtual environment; else say what to install.
set -euo pipefail

usable='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
for name in python3 python3.13 python3.12 python3.11 python3.14; do
    # Run it instead of `command -v`: version managers put shims of missing versions on PATH.
    if "$name" -c "$usable" >/dev/null 2>&1 </dev/null; then
        echo "$name"
        exit 0
    fi
done
echo "No Python >= 3.11 with venv was found: install one (Debian: apt-get install python3 python3-venv) or name it with make PYTHON=..." >&2
exit 69
