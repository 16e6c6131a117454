"""All drills of one command: stages are started, drills run side by side, everything is mended.

Rules
- The coverage gate comes first: an alert that Prometheus has and no drill proves fails the run.
- A first Ctrl-C (or TERM) ends the drills, which mend what they broke; a second one hurries nobody:
  what is broken is mended in any case, and when we are killed, by the mender.
"""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from cluster.errors import BootFailed, ConfigError, Problem
from cluster.monitor.faults import NotAnswering
from cluster.monitor.prometheus import Rule
from loadtest.drill import Drill
from loadtest.drilling import mends
from loadtest.drilling.deadman import DeadmanJourney
from loadtest.drilling.journey import Journey
from loadtest.drilling.mends import Mends
from loadtest.drilling.outcome import Outcome, Run
from loadtest.drilling.scene import Scene
from loadtest.drilling.schedule import Place, next_drill
from loadtest.drilling.stage import Parts, Stage
from loadtest.drilling.target import Target, TargetStage
from loadtest.drills import names

_LOOK_SECONDS: Final = 0.1


class Screen(Protocol):
    """Who shows how it goes on."""

    def started(self, outcome: Outcome) -> None:
        """A drill began."""

    def stepped(self, outcome: Outcome, step: str) -> None:
        """A step was reached."""

    def ended(self, outcome: Outcome) -> None:
        """A drill ended."""

    def note(self, text: str) -> None:
        """Something a person should know."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        stages: how many stages of our own, each a cluster with its monitoring.
        together: how many drills at a time on each.
        is_all: whether every rule of Prometheus must have a drill.
        target: a running cluster, instead of stages of our own.
    """

    drills: Sequence[Drill]
    compress: float
    stages: int
    together: int
    is_all: bool
    rules_dir: Path | None = None
    keep: Path | None = None
    target: Target | None = None


class Runner:
    """One run.

    Args:
        registered: every drill there is, by alert: what the coverage gate counts.
    """

    def __init__(
        self, plan: Plan, run: Run, screen: Screen, registered: Mapping[str, Drill]
    ) -> None:
        self._plan = plan
        self._run = run
        self._screen = screen
        self._registered = registered
        self._names = names(registered)
        self._stop = threading.Event()
        self._stages: dict[str, Stage | TargetStage] = {}
        self._threads: list[tuple[threading.Thread, Place, Drill]] = []

    def go(self) -> None:
        """Run everything; the run says what was found.

        Raises:
            BootFailed, DependencyMissing: a stage cannot be started.
            ConfigError: the directory to keep is in use.
        """
        handlers = {n: signal.signal(n, self._interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
        open_mends = Mends()
        try:
            with open_mends:
                folder = self._folder(open_mends)
                try:
                    self._on_stages(folder, open_mends)
                finally:
                    self._join()
                    for stage in self._stages.values():
                        stage.close()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._run.ended_at = time.time()
            self._run.faults += open_mends.faults
            if self.is_interrupted:
                done = len(self._run.outcomes)
                self._run.faults.append(
                    f"interrupted: {done} of {len(self._plan.drills)} drills begun"
                )

    @property
    def is_interrupted(self) -> bool:
        """Whether it was told to end."""
        return self._stop.is_set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _folder(self, open_mends: Mends) -> Path:
        keep = self._plan.keep
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            if any(keep.iterdir()):
                raise ConfigError(
                    [Problem("--keep", str(keep), "give a new or an empty directory")]
                )
            return keep
        folder = Path(tempfile.mkdtemp(prefix="ws-drill-"))
        open_mends.note(mends.removed(folder))
        return folder

    def _on_stages(self, folder: Path, open_mends: Mends) -> None:
        waiting = list(self._plan.drills)
        places = self._places()
        self._start_stages(places, folder, open_mends)
        if self._plan.is_all:
            self._gate()
        while (waiting or self._threads) and not self._stop.is_set():
            for place in places:
                if drill := next_drill(waiting, place, places):
                    waiting.remove(drill)
                    self._begin(drill, place)
            self._reap()
            self._stop.wait(_LOOK_SECONDS)

    def _places(self) -> list[Place]:
        """A row for each stage; slower ones for what cannot hold in the fastest time."""
        plan = self._plan
        if plan.target is not None:
            return [Place(plan.target.name, plan.compress, plan.together)]
        count = max(1, min(plan.stages, len(plan.drills)))
        places = [Place(f"stage-{n + 1}", plan.compress, plan.together) for n in range(count)]
        slower = {d.compress_at_most for d in plan.drills if d.compress_at_most < plan.compress}
        fast = [d for d in plan.drills if d.compress_at_most >= plan.compress]
        places = places if fast else []
        return places + [Place(f"stage-x{s:g}", s, plan.together) for s in sorted(slower)]

    def _start_stages(self, places: Sequence[Place], folder: Path, open_mends: Mends) -> None:
        faults: list[Exception] = []

        def start(stage: Stage | TargetStage) -> None:
            try:
                stage.start()
            except Exception as error:  # noqa: BLE001 - raised again where somebody hears it
                faults.append(error)

        threads = []
        for place in places:
            stage = self._new_stage(place, folder, open_mends)
            self._stages[place.name] = stage
            threads.append(threading.Thread(target=start, args=(stage,), name=place.name))
        if self._plan.target is None:
            self._screen.note(f"starting {len(threads)} stages: a cluster and its monitoring each")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]

    def _new_stage(self, place: Place, folder: Path, open_mends: Mends) -> Stage | TargetStage:
        plan = self._plan
        if plan.target is not None:
            return TargetStage(plan.target, folder=folder, open_mends=open_mends)
        return Stage(
            place.name,
            folder=folder / place.name,
            compress=place.compress,
            open_mends=open_mends,
            rules_dir=plan.rules_dir,
        )

    def _gate(self) -> None:
        """Every alert of Prometheus has a drill, or the run fails."""
        known = {r.name for stage in self._stages.values() for r in stage.prometheus.rules()}
        self._run.uncovered = sorted(known - set(self._registered))

    def _begin(self, drill: Drill, place: Place) -> None:
        place.running.append(drill)
        place.has_begun = True
        stage = self._stages[place.name]
        thread = threading.Thread(target=self._drill, args=(drill, stage), name=drill.alert)
        self._threads.append((thread, place, drill))
        thread.start()

    def _drill(self, drill: Drill, stage: Parts) -> None:
        outcome = _outcome(drill, self._names[drill.alert], stage)
        self._run.outcomes.append(outcome)
        self._screen.started(outcome)
        scene = Scene(stage, outcome.drill, self._stop)
        journey = DeadmanJourney if drill.proof == "deadman" else Journey
        try:
            journey(drill, scene, outcome, self._screen).run()
        except Exception as error:  # noqa: BLE001 - one drill's bug must not end the others' mending
            outcome.result, outcome.why = "failed", f"the drill itself is broken: {error!r}"
            outcome.failed_at = outcome.failed_at or "baseline"
            outcome.ended_at = time.time()
        self._screen.ended(outcome)

    def _reap(self) -> None:
        for entry in list(self._threads):
            thread, place, drill = entry
            if not thread.is_alive():
                thread.join()
                self._threads.remove(entry)
                place.running.remove(drill)

    def _join(self) -> None:
        for thread, _, _ in self._threads:
            thread.join()


def _outcome(drill: Drill, name: str, stage: Parts) -> Outcome:
    rule = _rule(stage, drill.alert)
    labels = rule.labels if rule is not None else {}
    return Outcome(
        alert=drill.alert,
        drill=name,
        severity=labels.get("severity", "unknown"),
        team=labels.get("team", "unknown"),
        proof=drill.proof,
        breaks=drill.breaks,
        mends=drill.mends,
        stage=stage.name,
        compress=stage.compress,
        started_at=time.time(),
        is_acknowledged=drill.is_acknowledged,
    )


def _rule(stage: Parts, alert: str) -> Rule | None:
    try:
        return next((rule for rule in stage.prometheus.rules() if rule.name == alert), None)
    except NotAnswering:
        return None


__all__ = ["BootFailed", "Plan", "Runner", "Screen"]
