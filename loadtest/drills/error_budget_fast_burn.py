"""ErrorBudgetFastBurn: a few commands fail, too few for HighErrorRate and too many for the budget."""

from __future__ import annotations

from typing import Final

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.corrupt_channel import corrupt, publish
from loadtest.drilling.faults.injector import FaultInjector

# Nine a minute: below the ten of HighErrorRate, which would inhibit this alert.
_EVERY_SECONDS: Final = 6.6
_CHANNEL: Final = "drill-corrupt"


def provoke(injector: FaultInjector) -> None:
    corrupt(injector, _CHANNEL)
    injector.pulse(
        lambda: publish(injector.environment.addresses.websocket, _CHANNEL), _EVERY_SECONDS
    )


DRILL = Drill(
    alert="ErrorBudgetFastBurn",
    breaks="one channel's record in the store is corrupt, and of seven commands a second one in 50 fails",
    undo="the record is removed",
    provoke=provoke,
    # An hour has to hold more than a command per second before there is a share of them.
    fires_seconds=900,
    resolves_seconds=330,
    fixed_seconds=10,
    affects=frozenset({Component.FAULTS, Component.TRAFFIC}),
    needs=MONITORING | (SERVICE - {Component.TRAFFIC}),
    load=Load("steady", users=6, options=("--channels", "2", "--rate", "7")),
    is_early=True,
)
