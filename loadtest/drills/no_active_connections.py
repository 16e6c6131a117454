"""NoActiveConnections: nginx hangs, so clients are disconnected and none can connect."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, Component, Drill
from loadtest.drilling.faults.injector import FaultInjector


def provoke(injector: FaultInjector) -> None:
    injector.stop_process(*injector.environment.nginx_workers())


DRILL = Drill(
    alert="NoActiveConnections",
    breaks="nginx's processes are stopped (SIGSTOP) while clients are connected through them",
    undo="nginx continues (SIGCONT)",
    provoke=provoke,
    # The workers close a connection that does not answer a ping: ping_interval and pong_timeout.
    fires_seconds=33 + 75,
    resolves_seconds=60,
    fixed_seconds=10,
    # Between two drills there are no clients, and a drill before this one may have taken its time.
    is_active_without_load=True,
    affects=frozenset({Component.PUBLIC_PORT, Component.CONNECTIONS}),
    needs=MONITORING
    | {Component.WORKERS, Component.SUPERVISOR, Component.STORE, Component.TRAFFIC},
)
