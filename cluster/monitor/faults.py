"""What ends a monitor command without its answer; each with its exit code.

The tree, below `ExitError`: `NotFound` 1 (the thing asked for does not exist, nothing was done),
`NotAnswering` 3 (Prometheus, Alertmanager or a door could not be asked, so nothing is known).
"""

from __future__ import annotations

from cluster.errors import ExitError


class NotFound(ExitError):
    """What was named does not exist; nothing was changed."""

    exit_code = 1


class NotAnswering(ExitError):
    """A service could not be asked, or its answer makes no sense."""

    exit_code = 3
