"""Programs without a capability that this machine's root may have."""

from __future__ import annotations

import os


def without_resource_capability() -> list[str]:
    """The beginning of a command whose program may not raise hard limits (CAP_SYS_RESOURCE)."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-sys_resource"]
