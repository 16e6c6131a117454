"""`python -m cluster` is the same program as `ws-cluster`."""

from __future__ import annotations

import sys

from cluster.quick_imports import no_garbage_collection

with no_garbage_collection():
    from cluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
