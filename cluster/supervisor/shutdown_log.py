"""The file that carries metrics about worker shutdowns over a restart of the supervisor.

A process that has ended is never scraped again, so what its last workers did would be lost to
Prometheus. Each shutdown is written here as one line of JSON. The next supervisor observes it
after Prometheus has scraped the zero twice: a series first seen at 1 has no rate.

Guarantees: a line cut short by a crash is skipped; only the newest lines are read.
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

_MAX_LINES: Final = 1000
SCRAPES_BEFORE_REPLAY: Final = 2


@dataclass(frozen=True, slots=True)
class Shutdown:
    """How one worker ended: its outcome, the seconds from signal to exit, and of each phase."""

    outcome: str
    seconds: float | None
    phases: Mapping[str, float]


class ShutdownLog:
    """Shutdowns that Prometheus has not scraped yet, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, shutdown: Shutdown) -> None:
        """Append one shutdown and sync it to disk.

        Raises:
            OSError: if the file cannot be written.
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
        """Return the shutdowns in the file, at most the newest 1,000."""
        try:
            with self._path.open("rb") as file:
                lines = deque(file, maxlen=_MAX_LINES)
        except OSError:
            return []
        return [found for line in lines if (found := _parse(line))]

    def clear(self) -> None:
        """Delete the file, after its shutdowns have been observed."""
        self._path.unlink(missing_ok=True)


def _parse(line: bytes) -> Shutdown | None:
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        document = json.loads(line)
        seconds = document["seconds"]
        return Shutdown(
            outcome=str(document["outcome"]),
            seconds=None if seconds is None else float(seconds),
            phases={str(name): float(value) for name, value in document["phases"].items()},
        )
    return None
