"""What a person at a terminal sees: a few lines at the start, then one quiet line.

Rules
- Nothing of this is written when logs are JSON: then an event says the same.
- The status line rewrites itself; a log line clears it first (`cluster.log`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TextIO

from cluster.config import Config, without_password
from cluster.log import CLEAR_LINE, is_json, is_terminal

_LABEL_WIDTH: Final = 9


@dataclass(frozen=True, slots=True)
class StartSummary:
    """What is worth knowing about a cluster that has started.

    Attributes:
        key: of the console, if this run made one: then the link carries it.
    """

    public: str
    admin: str
    workers: Sequence[str]
    store: str
    data_dir: str
    warnings: Sequence[str]
    key: str = field(default="", repr=False)

    def lines(self) -> list[str]:
        """One line per fact."""
        facts = {
            "public": self.public,
            # Behind # it reaches neither a server nor a log.
            "admin": f"{self.admin}#key={self.key}" if self.key else self.admin,
            "workers": f"{len(self.workers)} at {self.workers[0]} to {self.workers[-1]}"
            if len(self.workers) > 1
            else f"1 at {self.workers[0]}",
            "store": self.store,
            "state": self.data_dir,
        }
        lines = [f"  {name:<{_LABEL_WIDTH}}{fact}" for name, fact in facts.items()]
        return [*lines, *(f"  {'note':<{_LABEL_WIDTH}}{warning}" for warning in self.warnings)]


def notes(config: Config) -> list[str]:
    """What somebody should be told about this configuration."""
    found = []
    local = is_loopback(config.server.host)
    if config.client.insecure:
        found.append("insecure mode: everybody who can connect may do everything")
        if not local:
            found.append(
                f"insecure mode is reachable from other machines ({config.server.host});"
                " give --host 127.0.0.1 for development"
            )
    if local:
        found.append("loopback only: other machines cannot connect")
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def store_of(config: Config) -> str:
    """Where publications and sessions are, without passwords."""
    return ", ".join(without_password(url) for url in config.broker.redis_urls)


class Terminal:
    """The terminal, if there is one."""

    def __init__(self, config: Config, out: TextIO) -> None:
        self._out = out
        self._is_spoken_to = not is_json(config.log, out)
        self.is_live = self._is_spoken_to and is_terminal(out)

    @property
    def is_gone(self) -> bool:
        """Whether the terminal we were started on has been closed."""
        return self.is_live and not is_terminal(self._out)

    def show(self, version: str, summary: StartSummary) -> None:
        """The lines of the start."""
        if self._is_spoken_to:
            clear = CLEAR_LINE if self.is_live else ""
            self._write(
                f"{clear}ws-cluster {version} is ready\n" + "\n".join(summary.lines()) + "\n"
            )

    def status(self, text: str) -> None:
        """Rewrite the status line."""
        if self.is_live:
            self._write(f"{CLEAR_LINE}{text}")

    def end(self) -> None:
        """Leave the cursor on a line of its own."""
        if self.is_live:
            self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)
            self._out.flush()
