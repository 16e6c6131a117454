#!/usr/bin/env bash
# Run `ws-cluster monitor` from the project's environment, or else from PATH.
#
#   scripts/monitor.sh check-alerts
#   scripts/monitor.sh logs alertmanager
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -x "${VENV:-$root/.venv}/bin/ws-cluster" ]; then
    exec "${VENV:-$root/.venv}/bin/ws-cluster" monitor "$@"
fi
if command -v ws-cluster >/dev/null; then
    exec ws-cluster monitor "$@"
fi
echo "ws-cluster was not found: 'make run' installs it into .venv, or put it on PATH" >&2
exit 69
