"""Watchdog: Prometheus hangs, so nothing is evaluated and the heartbeat stops."""

from __future__ import annotations

from loadtest.drilling.drill import Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.pid_of("prometheus"))


DRILL = Drill(
    alert="Watchdog",
    breaks="Prometheus is stopped (SIGSTOP)",
    undo="Prometheus continues (SIGCONT)",
    provoke=provoke,
    # Alertmanager resolves an alert that is not sent again for four minutes; then the switch
    # waits for five.
    fires_seconds=660,
    resolves_seconds=180,
    fixed_seconds=15,
    proof="deadman",
    affects=frozenset({Component.PROMETHEUS}),
    needs=frozenset({Component.ALERTMANAGER}),
    load=None,
)
