"""ErrorBudgetFastBurn: a few commands fail, too few for HighErrorRate and too many for the budget."""

from __future__ import annotations

from typing import Final

from loadtest.drill import MONITORING, SERVICE, Drill, Part
from loadtest.drilling.load import Load
from loadtest.drilling.poison import poison, publish
from loadtest.drilling.scene import Scene

# Nine a minute: below the ten of HighErrorRate, which would hold this alert back.
_EVERY_SECONDS: Final = 6.6
_CHANNEL: Final = "drill-poisoned"


def provoke(scene: Scene) -> None:
    poison(scene, _CHANNEL)
    scene.pulse(lambda: publish(scene.stage.addresses.websocket, _CHANNEL), _EVERY_SECONDS)


DRILL = Drill(
    alert="ErrorBudgetFastBurn",
    breaks="one channel's record in the store is broken, and of seven commands a second one in 50 fails",
    mends="the record is removed",
    provoke=provoke,
    # An hour has to hold more than a command per second before there is a share of them.
    fires_s=900,
    resolves_s=330,
    fixed_s=10,
    takes=frozenset({Part.FAULTS, Part.TRAFFIC}),
    uses=MONITORING | (SERVICE - {Part.TRAFFIC}),
    load=Load("steady", users=6, options=("--channels", "2", "--rate", "7")),
    is_early=True,
)
