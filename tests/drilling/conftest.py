"""Drills on an environment, without a command line."""

from __future__ import annotations

import threading
import time

from loadtest.drilling.drill import Drill
from loadtest.drilling.environment.cluster import Environment
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.result import DrillResult
from loadtest.drilling.steps.steps import DrillSteps

COMPRESS = 30.0


class Quiet:
    """A progress listener that shows nothing."""

    def stepped(self, result: DrillResult, step: str) -> None:
        return


def run(
    drill: Drill, environment: Environment, *, name: str = "test", slack_seconds: float = 12.0
) -> DrillResult:
    """One drill on an environment; returns how far it got."""
    rule = next((rule for rule in environment.prometheus.rules() if rule.name == drill.alert), None)
    labels = rule.labels if rule else {"severity": "warning", "team": "infrastructure"}
    result = DrillResult(
        alert=drill.alert,
        drill=name,
        severity=labels["severity"],
        team=labels["team"],
        proof=drill.proof,
        breaks=drill.breaks,
        undo=drill.undo,
        environment=environment.name,
        compress=environment.compress,
        started_at=time.time(),
    )
    injector = FaultInjector(environment, name, threading.Event())
    DrillSteps(drill, injector, result, Quiet(), slack_seconds=slack_seconds).run()
    return result
