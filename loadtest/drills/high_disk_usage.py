"""HighDiskUsage: the disk that node_exporter takes for the root is nearly full."""

from __future__ import annotations

from typing import Final

from loadtest.drill import MONITORING, Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.scene import Scene
from loadtest.drilling.simulating import disk_is_full

_BYTES: Final = 15 << 20
_BELOW_BYTES: Final = 14 << 20


def _write(scene: Scene, size: int) -> None:
    disk = scene.stage.disk
    if disk.path is None:
        disk_is_full(scene, size / (16 << 20), because=disk.why_not)
        return
    file = disk.path / "ballast"
    scene.note(mends.removed(file))
    file.write_bytes(b"\x01" * size)


def provoke(scene: Scene) -> None:
    _write(scene, _BYTES)


def below(scene: Scene) -> None:
    _write(scene, _BELOW_BYTES)


DRILL = Drill(
    alert="HighDiskUsage",
    breaks="15 of 16 MB of a small file system are written, which node_exporter takes for the root",
    mends="the file is removed",
    provoke=provoke,
    fires_s=330,
    resolves_s=30,
    takes=frozenset({Part.DISK}),
    uses=MONITORING | {Part.NODE_EXPORTER},
    load=None,
    below=below,
    below_breaks="14 of 16 MB were written (87.5 %)",
    below_s=60,
    is_acknowledged=True,
)
