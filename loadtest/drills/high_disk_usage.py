"""HighDiskUsage: the file system that node_exporter reports as the root is nearly full."""

from __future__ import annotations

from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.simulated import disk_is_full

_BYTES: Final = 15 << 20
_BELOW_BYTES: Final = 14 << 20


def _write(injector: FaultInjector, size: int) -> None:
    disk = injector.environment.disk
    if disk.path is None:
        disk_is_full(injector, size / (16 << 20), because=disk.why_not)
        return
    file = disk.path / "memory_hog"
    injector.note(undo.removed(file))
    file.write_bytes(b"\x01" * size)


def provoke(injector: FaultInjector) -> None:
    _write(injector, _BYTES)


def below(injector: FaultInjector) -> None:
    _write(injector, _BELOW_BYTES)


DRILL = Drill(
    alert="HighDiskUsage",
    breaks="15 of 16 MB are written to the small file system that node_exporter reports as the root",
    undo="the file is removed",
    provoke=provoke,
    fires_seconds=330,
    resolves_seconds=30,
    affects=frozenset({Component.DISK}),
    needs=MONITORING | {Component.NODE_EXPORTER},
    load=None,
    below=below,
    below_breaks="14 of 16 MB were written (87.5 %)",
    below_seconds=60,
    is_acknowledged=True,
)
