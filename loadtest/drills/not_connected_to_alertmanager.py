"""NotConnectedToAlertmanager: Prometheus has nobody to send alerts to."""

from __future__ import annotations

import signal

import yaml

from loadtest.drill import Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.scene import Scene


def _without(text: str) -> str:
    document = yaml.safe_load(text)
    document["alerting"] = {}
    return yaml.safe_dump(document)


def provoke(scene: Scene) -> None:
    stage = scene.stage
    # Mended in the opposite order: first the file, then Prometheus is told.
    scene.note(mends.signalled(stage.part("prometheus"), signal.SIGHUP))
    scene.change_file(stage.rendered("prometheus.yml"), _without)
    stage.reload("prometheus")


DRILL = Drill(
    alert="NotConnectedToAlertmanager",
    breaks="Prometheus is given a configuration without an Alertmanager",
    mends="it gets its own one back",
    provoke=provoke,
    fires_s=480,
    resolves_s=45,
    fixed_s=5,
    proof="prometheus",
    takes=frozenset({Part.ALERTMANAGER, Part.RULES}),
    uses=frozenset({Part.PROMETHEUS}),
    load=None,
)
