"""Runs all drills of one command: starts environments, runs drills at the same time, undoes every fault.

Rules
- The coverage gate comes first: the run fails if Prometheus has an alert that no drill proves.
- Ctrl-C (or TERM) ends the drills, which undo their faults; a second Ctrl-C changes nothing. If this
  process is killed, the undo daemon undoes the faults.
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

from cluster.alerting.prometheus import Rule
from cluster.errors import BootFailed, ConfigError, NotAnswering, Problem
from loadtest.drilling import undo
from loadtest.drilling.drill import Drill, names
from loadtest.drilling.environment.cluster import Environment, MonitoredCluster
from loadtest.drilling.faults.injector import FaultInjector
from loadtest.drilling.result import DrillResult, RunResult
from loadtest.drilling.schedule import ScheduleRow, next_drill
from loadtest.drilling.steps.deadman import DeadmanSteps
from loadtest.drilling.steps.steps import DrillSteps
from loadtest.drilling.target import DrillTarget, TargetEnvironment
from loadtest.drilling.undo import UndoLog

_POLL_SECONDS: Final = 0.1


class ProgressListener(Protocol):
    """Shows the progress of a run."""

    def started(self, result: DrillResult) -> None:
        """A drill began."""

    def stepped(self, result: DrillResult, step: str) -> None:
        """A step was reached."""

    def ended(self, result: DrillResult) -> None:
        """A drill ended."""

    def note(self, text: str) -> None:
        """A message for the user."""


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """What to run.

    Attributes:
        environments: how many environments to start, each a cluster with its monitoring.
        together: how many drills at a time in each.
        is_all: whether every rule of Prometheus must have a drill.
        target: a running cluster, instead of environments that are started.
    """

    drills: Sequence[Drill]
    compress: float
    environments: int
    together: int
    is_all: bool
    rules_dir: Path | None = None
    keep: Path | None = None
    target: DrillTarget | None = None


class Runner:
    """One run.

    Args:
        registered: every drill there is, by name: for the coverage gate.
    """

    def __init__(
        self,
        plan: DrillPlan,
        run: RunResult,
        screen: ProgressListener,
        registered: Mapping[str, Drill],
    ) -> None:
        self._plan = plan
        self._run = run
        self._screen = screen
        self._registered = registered
        self._names = names(registered)
        self._stop = threading.Event()
        self._environments: dict[str, Environment | TargetEnvironment] = {}
        self._threads: list[tuple[threading.Thread, ScheduleRow, Drill]] = []

    def go(self) -> None:
        """Run everything; the results are in the run.

        Raises:
            BootFailed, DependencyMissing: an environment cannot be started.
            ConfigError: if the directory to keep is not empty.
        """
        handlers = {n: signal.signal(n, self._interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
        undo_log = UndoLog()
        try:
            with undo_log:
                folder = self._folder(undo_log)
                try:
                    self._run_drills(folder, undo_log)
                finally:
                    self._join()
                    for environment in self._environments.values():
                        environment.close()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._run.ended_at = time.time()
            self._run.faults += undo_log.faults
            if self.is_interrupted:
                done = len(self._run.results)
                self._run.faults.append(
                    f"interrupted: {done} of {len(self._plan.drills)} drills begun"
                )

    @property
    def is_interrupted(self) -> bool:
        """Whether it was interrupted."""
        return self._stop.is_set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _folder(self, undo_log: UndoLog) -> Path:
        keep = self._plan.keep
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            if any(keep.iterdir()):
                raise ConfigError(
                    [Problem("--keep", str(keep), "give a new or an empty directory")]
                )
            return keep
        folder = Path(tempfile.mkdtemp(prefix="ws-drill-"))
        undo_log.note(undo.removed(folder))
        return folder

    def _run_drills(self, folder: Path, undo_log: UndoLog) -> None:
        waiting = list(self._plan.drills)
        rows = self._rows()
        self._start_environments(rows, folder, undo_log)
        if self._plan.is_all:
            self._gate()
        while (waiting or self._threads) and not self._stop.is_set():
            for row in rows:
                if drill := next_drill(waiting, row, rows):
                    waiting.remove(drill)
                    self._begin(drill, row)
            self._reap()
            self._stop.wait(_POLL_SECONDS)

    def _rows(self) -> list[ScheduleRow]:
        """A row for each environment; slower ones for conditions that cannot hold in the fastest time."""
        plan = self._plan
        if plan.target is not None:
            return [ScheduleRow(plan.target.name, plan.compress, plan.together)]
        count = max(1, min(plan.environments, len(plan.drills)))
        rows = [
            ScheduleRow(f"environment-{n + 1}", plan.compress, plan.together) for n in range(count)
        ]
        slower = {d.compress_at_most for d in plan.drills if d.compress_at_most < plan.compress}
        fast = [d for d in plan.drills if d.compress_at_most >= plan.compress]
        rows = rows if fast else []
        return rows + [ScheduleRow(f"environment-x{s:g}", s, plan.together) for s in sorted(slower)]

    def _start_environments(
        self, rows: Sequence[ScheduleRow], folder: Path, undo_log: UndoLog
    ) -> None:
        faults: list[Exception] = []

        def start(environment: Environment | TargetEnvironment) -> None:
            try:
                environment.start()
            except Exception as error:  # noqa: BLE001 - raised again in the main thread
                faults.append(error)

        threads = []
        for row in rows:
            environment = self._new_environment(row, folder, undo_log)
            self._environments[row.name] = environment
            threads.append(threading.Thread(target=start, args=(environment,), name=row.name))
        if self._plan.target is None:
            self._screen.note(
                f"starting {len(threads)} environments: a cluster and its monitoring each"
            )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]

    def _new_environment(
        self, row: ScheduleRow, folder: Path, undo_log: UndoLog
    ) -> Environment | TargetEnvironment:
        plan = self._plan
        if plan.target is not None:
            return TargetEnvironment(plan.target, folder=folder, undo_log=undo_log)
        return Environment(
            row.name,
            folder=folder / row.name,
            compress=row.compress,
            undo_log=undo_log,
            rules_dir=plan.rules_dir,
        )

    def _gate(self) -> None:
        """Record the alerts of Prometheus without a drill, which fail the run."""
        known = {
            r.name
            for environment in self._environments.values()
            for r in environment.prometheus.rules()
        }
        self._run.uncovered = sorted(known - set(self._registered))

    def _begin(self, drill: Drill, row: ScheduleRow) -> None:
        row.running.append(drill)
        row.has_begun = True
        environment = self._environments[row.name]
        thread = threading.Thread(target=self._drill, args=(drill, environment), name=drill.name)
        self._threads.append((thread, row, drill))
        thread.start()

    def _drill(self, drill: Drill, environment: MonitoredCluster) -> None:
        result = _result(drill, self._names[drill.name], environment)
        self._run.results.append(result)
        self._screen.started(result)
        injector = FaultInjector(environment, result.drill, self._stop)
        steps = DeadmanSteps if drill.proof == "deadman" else DrillSteps
        try:
            steps(drill, injector, result, self._screen).run()
        except Exception as error:  # noqa: BLE001 - one drill's bug must not stop the undo of the others
            result.result, result.why = "failed", f"the drill itself is broken: {error!r}"
            result.failed_at = result.failed_at or "baseline"
            result.ended_at = time.time()
        self._screen.ended(result)

    def _reap(self) -> None:
        for entry in list(self._threads):
            thread, row, drill = entry
            if not thread.is_alive():
                thread.join()
                self._threads.remove(entry)
                row.running.remove(drill)

    def _join(self) -> None:
        for thread, _, _ in self._threads:
            thread.join()


def _result(drill: Drill, name: str, environment: MonitoredCluster) -> DrillResult:
    rule = _rule(environment, drill.alert)
    labels = rule.labels if rule is not None else {}
    return DrillResult(
        alert=drill.alert,
        variant=drill.variant,
        drill=name,
        severity=labels.get("severity", "unknown"),
        team=labels.get("team", "unknown"),
        proof=drill.proof,
        breaks=drill.breaks,
        undo=drill.undo,
        environment=environment.name,
        compress=environment.compress,
        started_at=time.time(),
        is_acknowledged=drill.is_acknowledged,
    )


def _rule(environment: MonitoredCluster, alert: str) -> Rule | None:
    try:
        return next((rule for rule in environment.prometheus.rules() if rule.name == alert), None)
    except NotAnswering:
        return None


__all__ = ["BootFailed", "DrillPlan", "ProgressListener", "Runner"]
