"""Drills on a stage, without a command line."""

from __future__ import annotations

import threading
import time

from loadtest.drill import Drill
from loadtest.drilling.journey import Journey
from loadtest.drilling.outcome import Outcome
from loadtest.drilling.scene import Scene
from loadtest.drilling.stage import Stage

COMPRESS = 30.0


class Quiet:
    """Hears how a drill goes on, and shows nothing."""

    def stepped(self, outcome: Outcome, step: str) -> None:
        return


def run(drill: Drill, stage: Stage, *, name: str = "test", slack_seconds: float = 12.0) -> Outcome:
    """One drill on a stage; returns how far it got."""
    rule = next((rule for rule in stage.prometheus.rules() if rule.name == drill.alert), None)
    labels = rule.labels if rule else {"severity": "warning", "team": "infrastructure"}
    outcome = Outcome(
        alert=drill.alert,
        drill=name,
        severity=labels["severity"],
        team=labels["team"],
        proof=drill.proof,
        breaks=drill.breaks,
        mends=drill.mends,
        stage=stage.name,
        compress=stage.compress,
        started_at=time.time(),
    )
    scene = Scene(stage, name, threading.Event())
    Journey(drill, scene, outcome, Quiet(), slack_seconds=slack_seconds).run()
    return outcome
