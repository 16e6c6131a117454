"""HighRefusalRate: clients ask for channels that they may not have."""

from __future__ import annotations

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import FaultInjector


def _refused(per_second: str) -> Load:
    options = ("--rate", per_second, "--error-kind", "permission")
    return Load("errors", users=4, options=options, is_accounted=False)


def provoke(injector: FaultInjector) -> None:
    # Less than one a second: HighClientErrorRate, which counts refusals too, must not fire.
    injector.add_load(_refused("0.8"))


def below(injector: FaultInjector) -> None:
    injector.add_load(_refused("0.1"))


DRILL = Drill(
    alert="HighRefusalRate",
    breaks="four clients ask for a private channel without a token, four times in five seconds together",
    undo="they disconnect",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    fixed_seconds=15,
    affects=frozenset({Component.CLIENT_FAULTS, Component.TRAFFIC}),
    needs=MONITORING | (SERVICE - {Component.TRAFFIC}),
    below=below,
    below_breaks="one command in ten seconds was refused",
    below_seconds=120,
    is_by_load=True,
)
