"""NotificationsFailing: Slack refuses every message, as with a webhook that was revoked."""

from __future__ import annotations

from typing import Final

from loadtest.drilling import undo
from loadtest.drilling.drill import Component, Drill
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.receivers import PAGER

_REFUSED: Final = "/fail?kind=slack&status=403&times=1000"
_WELL: Final = "/fail?kind=slack&times=0"


def provoke(injector: FaultInjector) -> None:
    receiver, alertmanager = injector.environment.receiver, injector.environment.alertmanager
    injector.note(undo.posted(receiver.url + _WELL))
    receiver.post(_REFUSED, {})
    sent = iter(range(1_000_000))

    def announce() -> None:
        """An alert to be notified, which ends by itself."""
        labels = {"alertname": f"DrillNotice{next(sent)}", "severity": "info", "team": "websocket"}
        alertmanager.service.post("/api/v2/alerts", [{"labels": labels}])

    injector.pulse(announce, max(1.0, injector.seconds(30)))


DRILL = Drill(
    alert="NotificationsFailing",
    breaks="Slack answers every message with 403, while an alert has to be notified",
    undo="Slack accepts messages again",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=930,
    fixed_seconds=5,
    affects=frozenset({Component.SLACK}),
    needs=frozenset({Component.PROMETHEUS, Component.ALERTMANAGER}),
    load=None,
    # It is Slack that cannot be reached.
    reaches=(PAGER,),
)
