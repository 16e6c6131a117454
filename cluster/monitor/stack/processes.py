"""Prometheus, Alertmanager, node_exporter and our own services as child processes.

Guarantee: if this process dies, even by SIGKILL, the kernel sends each child SIGTERM.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.children.subprocesses import Subprocess
from cluster.errors import DependencyMissing

# The names of each binary on PATH, and the Debian package that contains it.
KNOWN: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "prometheus": (("prometheus",), "prometheus"),
    "alertmanager": (("alertmanager", "prometheus-alertmanager"), "prometheus-alertmanager"),
    "node_exporter": (("node_exporter", "prometheus-node-exporter"), "prometheus-node-exporter"),
}


def find(names: Sequence[str], *, path: str | None = None) -> dict[str, str]:
    """The paths of programs.

    Raises:
        DependencyMissing: names all that are missing and how to install them.
    """
    found = {
        name: next((p for n in KNOWN[name][0] if (p := shutil.which(n, path=path))), "")
        for name in names
    }
    missing = [name for name in names if not found[name]]
    if missing:
        packages = " ".join(KNOWN[name][1] for name in missing)
        verb = "was" if len(missing) == 1 else "were"
        raise DependencyMissing(
            f"{', '.join(missing)} {verb} not found on PATH: install Debian's packages"
            f" (apt-get install {packages}; the services they enable are not needed: systemctl"
            f" disable --now {packages}), or put the binaries of the Prometheus project on PATH"
        )
    return found


class StackProcess(Subprocess):
    """One child of the monitoring stack: how it is found ready, and when it is started again.

    Attributes:
        is_ready: asked until it is true.
        failures: exits since it last ran for long.
        start_again_at: point of the monotonic clock; 0 if no restart is due.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        is_ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, command, log=log, environment=environment)
        self.is_ready = is_ready
        self.failures = 0
        self.start_again_at = 0.0
        self.started_at = 0.0

    def start(self) -> None:
        """Start it, and remember when.

        Raises:
            OSError: if it cannot be started.
        """
        self.started_at = time.monotonic()
        super().start()
