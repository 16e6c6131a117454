"""BrokerDeaf: one worker's subscription is silently dead."""

from __future__ import annotations

import os
import signal

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling import mends
from loadtest.drilling.scene import Scene


def provoke(scene: Scene) -> None:
    road = scene.stage.road.pid
    scene.note(mends.signalled(road, signal.SIGUSR2))
    os.kill(road, signal.SIGUSR1)


DRILL = Drill(
    alert="BrokerDeaf",
    breaks="a proxy before the store swallows all that one worker's subscriptions are sent",
    mends="the proxy lets everything through again",
    provoke=provoke,
    fires_s=120,
    resolves_s=45,
    fixed_s=20,
    takes=frozenset({Part.STORE, Part.LOG, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.STORE, Part.TRAFFIC}),
)
