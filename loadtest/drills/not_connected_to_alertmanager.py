"""NotConnectedToAlertmanager: Prometheus has nobody to send alerts to."""

from __future__ import annotations

import signal

import yaml

from loadtest.drilling import undo
from loadtest.drilling.drill import Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def _without(text: str) -> str:
    document = yaml.safe_load(text)
    document["alerting"] = {}
    return yaml.safe_dump(document)


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment
    # Mended in the opposite order: first the file, then Prometheus is told.
    injector.note(undo.signalled(environment.part("prometheus"), signal.SIGHUP))
    injector.change_file(environment.rendered("prometheus.yml"), _without)
    environment.reload("prometheus")


DRILL = Drill(
    alert="NotConnectedToAlertmanager",
    breaks="Prometheus is given a configuration without an Alertmanager",
    undo="it gets its own one back",
    provoke=provoke,
    fires_s=480,
    resolves_s=45,
    fixed_s=5,
    proof="prometheus",
    takes=frozenset({Part.ALERTMANAGER, Part.RULES}),
    uses=frozenset({Part.PROMETHEUS}),
    load=None,
)
