#!/usr/bin/env bash
# Replaces the running replicas by new ones, without losing capacity: see docker/roll.sh, which it calls.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../docker/roll.sh" "$@"
