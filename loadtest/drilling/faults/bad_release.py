"""Rolls out an application whose handlers fail or are slow."""

from __future__ import annotations

from typing import Final

from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.faults.roll import roll

_TARGET: Final = "loadtest.drilling.faults.failing_application:app"


def release(injector: FaultInjector) -> None:
    """Roll the application out; the undo rolls it back."""
    environment = injector.environment

    def take_back() -> None:
        environment.write_config({})
        roll(injector)

    injector.afterwards(take_back)
    environment.write_config({"app": {"target": _TARGET}})
    roll(injector)
