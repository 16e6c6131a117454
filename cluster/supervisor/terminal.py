"""Output for a person at a terminal: a summary at the start, then one status line.

Rules
- Nothing is written if logs are JSON: the event `cluster_started` has the same information.
- The status line is rewritten in place; a log line clears it first (`cluster.log`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TextIO

from cluster.config import Config, without_password
from cluster.log import CLEAR_LINE, is_json, is_terminal, write_text

_LABEL_WIDTH: Final = 9


@dataclass(frozen=True, slots=True)
class StartSummary:
    """Addresses and settings of a cluster that has started.

    Attributes:
        key: the console's key if it was generated; the link then contains it.
    """

    public: str
    admin: str
    workers: Sequence[str]
    store: str
    data_dir: str
    warnings: Sequence[str]
    key: str = field(default="", repr=False)

    def lines(self) -> list[str]:
        """Return one line per field."""
        fields = {
            "public": self.public,
            # A browser sends no fragment (after #) to the server, so the key reaches no log.
            "admin": f"{self.admin}#key={self.key}" if self.key else self.admin,
            "workers": f"{len(self.workers)} at {self.workers[0]} to {self.workers[-1]}"
            if len(self.workers) > 1
            else f"1 at {self.workers[0]}",
            "store": self.store,
            "state": self.data_dir,
        }
        if self.key:
            # Only a development run has such a key.
            fields["next"] = (
                "open the admin address in a browser, it has a live client;"
                " connect an SDK to the public one; Ctrl-C drains and stops"
            )
        lines = [f"  {name:<{_LABEL_WIDTH}}{text}" for name, text in fields.items()]
        return [*lines, *(f"  {'note':<{_LABEL_WIDTH}}{warning}" for warning in self.warnings)]


def warnings_about(config: Config) -> list[str]:
    """Return warnings about insecure mode and the listening address."""
    found = []
    local = is_loopback(config.server.host)
    if config.client.insecure:
        found.append("insecure mode: anyone who can connect may do everything")
        if not local:
            found.append(
                f"insecure mode is reachable from other machines ({config.server.host});"
                " give --host 127.0.0.1 for development"
            )
    if local:
        found.append("loopback only: other machines cannot connect")
    return found


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def store_urls(config: Config) -> str:
    """Return the URLs of the store, without passwords."""
    return ", ".join(without_password(url) for url in config.broker.redis_urls)


class Terminal:
    """Standard output, if logs are not JSON; nothing is written otherwise."""

    def __init__(self, config: Config, out: TextIO) -> None:
        self._out = out
        self._is_enabled = not is_json(config.log, out)
        self.is_live = self._is_enabled and is_terminal(out)

    @property
    def is_closed(self) -> bool:
        """Whether the terminal this program was started on has been closed."""
        return self.is_live and not is_terminal(self._out)

    def show(self, version: str, summary: StartSummary) -> None:
        """Write the summary of the start."""
        if self._is_enabled:
            clear = CLEAR_LINE if self.is_live else ""
            self._write(
                f"{clear}ws-cluster {version} is ready\n" + "\n".join(summary.lines()) + "\n"
            )

    def status(self, text: str) -> None:
        """Rewrite the status line."""
        if self.is_live:
            self._write(f"{CLEAR_LINE}{text}")

    def end(self) -> None:
        """Clear the status line."""
        if self.is_live:
            self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        write_text(self._out, text, is_counted=False)
