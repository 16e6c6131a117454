"""What is simulated where the machine lacks a right, by a lens before the exporter's page.

Rule: a drill that comes here says so: it ends as `simulated`, with the reason.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Final

import yaml

from loadtest.drilling import mends
from loadtest.drilling.lens import Lens
from loadtest.drilling.scene import Scene

_LIMIT_BYTES: Final = float(1 << 30)
_DISK_BYTES: Final = float(16 << 20)
_BEAT_SECONDS: Final = 0.5
_TARGETS: Final = "targets/websocket-app.json"


def memory_is_full(
    scene: Scene, share: float, growth_per_s: float, most: float, *, because: str
) -> None:
    """The cluster's page says that so much of its memory is used."""
    scene.simulate(because)
    stage = scene.stage
    lens = Lens(stage.addresses.admin, {"app_memory_limit_bytes": _LIMIT_BYTES})
    scene.afterwards(lens.close)
    began = time.monotonic()

    def look() -> None:
        now = min(most, share + growth_per_s * (time.monotonic() - began))
        lens.values["app_memory_working_set_bytes"] = now * _LIMIT_BYTES

    look()
    scene.pulse(look, _BEAT_SECONDS)

    def through(text: str) -> str:
        groups = json.loads(text)
        groups[0]["targets"] = [f"127.0.0.1:{lens.port}"]
        return json.dumps(groups)

    scene.change_file(stage.rendered(_TARGETS), through)


def disk_is_full(scene: Scene, share: float, *, because: str) -> None:
    """node_exporter's page says that so much of the root is used."""
    scene.simulate(because)
    stage = scene.stage
    root = '{device="drill",fstype="tmpfs",mountpoint="/"}'
    lens = Lens(stage.addresses.node_exporter, {})
    lens.added = {
        f"node_filesystem_size_bytes{root}": _DISK_BYTES,
        f"node_filesystem_avail_bytes{root}": _DISK_BYTES * (1 - share),
    }
    scene.afterwards(lens.close)

    def through(text: str) -> str:
        document = yaml.safe_load(text)
        for job in document["scrape_configs"]:
            if job["job_name"] == "node":
                target = {"targets": [f"127.0.0.1:{lens.port}"]}
                name = stage.addresses.node_exporter.removeprefix("http://")
                job["static_configs"] = [{**target, "labels": {"instance": name}}]
        return yaml.safe_dump(document)

    scene.note(mends.signalled(stage.part("prometheus"), signal.SIGHUP))
    scene.change_file(stage.rendered("prometheus.yml"), through)
    stage.reload("prometheus")
