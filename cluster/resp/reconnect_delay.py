"""How long a link waits before it connects again."""

from __future__ import annotations

import random
from typing import Final

_FIRST_SECONDS: Final = 0.05
_LIMIT_SECONDS: Final = 1.0
#: A connection that has lasted so long was a good one.
_LASTING_SECONDS: Final = 10.0


class ReconnectDelay:
    """Doubles with each attempt that fails and each connection that does not last, up to a second."""

    def __init__(self) -> None:
        self._seconds = _FIRST_SECONDS

    def after_failure(self) -> float:
        """The seconds to wait after an attempt that has failed."""
        seconds = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(self._seconds * 2, _LIMIT_SECONDS)
        return seconds

    def after(self, connected_seconds: float) -> float:
        """The seconds to wait after a connection that has ended; none if it has lasted."""
        if connected_seconds < _LASTING_SECONDS:
            return self.after_failure()
        self._seconds = _FIRST_SECONDS
        return 0.0
