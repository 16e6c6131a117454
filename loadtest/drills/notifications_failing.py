"""NotificationsFailing: Slack refuses what it is sent, as with a webhook that was revoked."""

from __future__ import annotations

from typing import Final

from loadtest.drill import Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.receivers import PAGER
from loadtest.drilling.scene import Scene

_REFUSED: Final = "/fail?kind=slack&status=403&times=1000"
_WELL: Final = "/fail?kind=slack&times=0"


def provoke(scene: Scene) -> None:
    receiver, alertmanager = scene.stage.receiver, scene.stage.alertmanager
    scene.note(mends.posted(receiver.url + _WELL))
    receiver.post(_REFUSED, {})
    sent = iter(range(1_000_000))

    def announce() -> None:
        """Something to be told: an alert of its own, which ends by itself."""
        labels = {"alertname": f"DrillNotice{next(sent)}", "severity": "info", "team": "websocket"}
        alertmanager.service.post("/api/v2/alerts", [{"labels": labels}])

    scene.pulse(announce, max(1.0, scene.seconds(30)))


DRILL = Drill(
    alert="NotificationsFailing",
    breaks="Slack answers every message with 403, while there is something to be told",
    mends="Slack takes messages again",
    provoke=provoke,
    fires_s=420,
    resolves_s=930,
    fixed_s=5,
    takes=frozenset({Part.SLACK}),
    uses=frozenset({Part.PROMETHEUS, Part.ALERTMANAGER}),
    load=None,
    # It is Slack that cannot be reached.
    reaches=(PAGER,),
)
