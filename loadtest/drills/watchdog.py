"""Watchdog: Prometheus hangs, so nothing is evaluated and the heartbeat stops."""

from __future__ import annotations

from loadtest.drilling.drill import Drill, Part
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(injector.environment.part("prometheus"))


DRILL = Drill(
    alert="Watchdog",
    breaks="Prometheus is stopped (SIGSTOP)",
    undo="Prometheus goes on (SIGCONT)",
    provoke=provoke,
    # Alertmanager takes an alert for over that is not sent again for four minutes; then the
    # switch waits for five.
    fires_s=660,
    resolves_s=180,
    fixed_s=15,
    proof="deadman",
    takes=frozenset({Part.PROMETHEUS}),
    uses=frozenset({Part.ALERTMANAGER}),
    load=None,
)
