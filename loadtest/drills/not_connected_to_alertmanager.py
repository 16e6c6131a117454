"""NotConnectedToAlertmanager: Prometheus has no Alertmanager to send alerts to."""

from __future__ import annotations

import signal

import yaml

from loadtest.drilling import undo
from loadtest.drilling.drill import Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def _without(text: str) -> str:
    document = yaml.safe_load(text)
    document["alerting"] = {}
    return yaml.safe_dump(document)


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment
    # Undone in reverse order: first the file, then the reload.
    injector.note(undo.signalled(environment.pid_of("prometheus"), signal.SIGHUP))
    injector.change_file(environment.rendered("prometheus.yml"), _without)
    environment.reload("prometheus")


DRILL = Drill(
    alert="NotConnectedToAlertmanager",
    breaks="Prometheus is given a configuration without an Alertmanager",
    undo="its configuration is restored",
    provoke=provoke,
    fires_seconds=480,
    resolves_seconds=45,
    fixed_seconds=5,
    proof="prometheus",
    affects=frozenset({Component.ALERTMANAGER, Component.RULES}),
    needs=frozenset({Component.PROMETHEUS}),
    load=None,
)
