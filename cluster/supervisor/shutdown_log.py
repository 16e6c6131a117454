"""What a whole stop would have told Prometheus, kept for the next start.

A process that ends is never scraped again, so the observations of its last workers would be
lost. They are written here, one JSON line each, and observed by the next supervisor once
Prometheus has seen the zero twice: a series first seen at 1 has no rate.

Guarantees: a line cut short by a crash is skipped; the file never grows past its newest lines.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOST_LINES: Final = 1000
SCRAPES_BEFORE_REPLAY: Final = 2


@dataclass(frozen=True, slots=True)
class Shutdown:
    """How one worker ended: its outcome, and seconds from signal to exit and of each part."""

    outcome: str
    seconds: float | None
    phases: Mapping[str, float]


class ShutdownLog:
    """The file of shutdowns nobody has been told of."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, shutdown: Shutdown) -> None:
        """Write one shutdown down, so that it survives this process.

        Raises:
            OSError: if it cannot be written.
        """
        line = json.dumps(
            {
                "outcome": shutdown.outcome,
                "seconds": shutdown.seconds,
                "phases": dict(shutdown.phases),
            }
        )
        with self._path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Shutdown]:
        """What is written, the newest if there is too much."""
        try:
            with self._path.open("rb") as file:
                lines = deque(file, maxlen=_MOST_LINES)
        except OSError:
            return []
        return [found for line in lines if (found := _shutdown(line))]

    def clear(self) -> None:
        """Forget everything, because it has been told."""
        self._path.unlink(missing_ok=True)


def _shutdown(line: bytes) -> Shutdown | None:
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        facts = json.loads(line)
        seconds = facts["seconds"]
        return Shutdown(
            outcome=str(facts["outcome"]),
            seconds=None if seconds is None else float(seconds),
            phases={str(name): float(value) for name, value in facts["phases"].items()},
        )
    return None
