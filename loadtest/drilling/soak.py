"""`ws-cluster soak`: a healthy cluster under mixed load, rolled and crashed once; no alert may fire.

Rules
- Only DeploymentCompleted may fire, and it must, because of the reload.
- A pending alert is noted and is no fault: that is what `for` is for.
- The report has the format of a drill report, with one result per alert.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cluster.alerting.prometheus import Rule
from cluster.errors import ClusterError, ExitError, NotAnswering
from cluster.terminal_text import print_lines
from loadtest.drilling import undo
from loadtest.drilling.arguments import Parser, factor
from loadtest.drilling.environment import machine
from loadtest.drilling.environment.cluster import Environment
from loadtest.drilling.environment.load import Load, LoadFailed
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector, Interrupted
from loadtest.drilling.faults.roll import roll
from loadtest.drilling.report import write
from loadtest.drilling.result import DrillResult, RunResult
from loadtest.drilling.steps import diagnosis
from loadtest.drilling.undo import UndoLog

MAY_FIRE: Final = frozenset({"DeploymentCompleted", "Watchdog"})
_MINUTES: Final = 20.0
_BASELINE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.5
_REPLACED_SECONDS: Final = 30.0
_MIXED: Final = Load("mixed", users=40, options=("--rate", "12", "--channels", "8"))
_EXITS: Final = (
    "exit codes: 0 quiet, 1 an alert fired or a publication was lost, 3 the environment cannot start, 69 a"
    " program is missing, 78 bad input, 130 interrupted"
)
_INTERRUPTED_EXIT: Final = 130


def main(words: Sequence[str]) -> int:
    """Run the soak; returns the exit code."""
    arguments = _parser().parse_args(words)
    compress = 1.0 if arguments.profile == "production" else arguments.compress
    run = RunResult(
        profile=arguments.profile,
        compress=compress,
        started_at=time.time(),
        target="a cluster of its own",
        machine=machine.describe(),
        kind="soak",
    )
    soak = Soak(run, seconds=arguments.minutes * 60 / compress)
    try:
        soak.go()
    except ExitError as error:
        print_lines(f"ws-cluster soak: {error}", sys.stderr)
        return error.exit_code
    except (CannotProvoke, LoadFailed, NotAnswering) as error:
        run.faults.append(str(error))
    soak.judge()
    write.write(run, arguments.report)
    lines = [f.why for f in run.results if f.why] + run.faults + run.notes
    print_lines("\n".join(["quiet" if run.is_passed else "NOT QUIET", *lines]))
    sys.stdout.write(f"the report is {arguments.report / 'drill.html'}\n")
    if soak.is_interrupted:
        return _INTERRUPTED_EXIT
    return 0 if run.is_passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ws-cluster soak",
        description="A healthy cluster under realistic load, with a rolling reload and one worker"
        " crash in the middle: nothing but DeploymentCompleted may fire.",
        epilog=_EXITS,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=_MINUTES, metavar="N", help="of production time (20)")
    add(
        "--profile", choices=("compressed", "production"), default="compressed", help="pace of time"
    )
    add("--compress", type=factor, default=15.0, metavar="N", help="how much faster (15)")
    add("--report", type=Path, default=Path("soak-report"), metavar="DIR", help="(soak-report)")
    return parser


class Soak:
    """One soak.

    Args:
        seconds: real time under load.
    """

    def __init__(self, run: RunResult, *, seconds: float) -> None:
        self._run = run
        self._seconds = seconds
        self._stop = threading.Event()
        self._results: dict[str, DrillResult] = {}
        self._ledger: dict[str, Any] = {}
        self._threads: list[threading.Thread] = []
        self._unanswered = 0

    def go(self) -> None:
        """Start an environment, add load, roll the workers, kill one worker, and watch the alerts."""
        handlers = {n: signal.signal(n, self._interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
        undo_log = UndoLog()
        try:
            with undo_log:
                folder = Path(tempfile.mkdtemp(prefix="ws-soak-"))
                undo_log.note(undo.removed(folder))
                environment = Environment(
                    "soak",
                    folder=folder / "environment",
                    compress=self._run.compress,
                    undo_log=undo_log,
                )
                try:
                    environment.start()
                    self._watch(environment)
                except Interrupted:
                    self._run.faults.append("interrupted")
                finally:
                    environment.close()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._run.faults += undo_log.faults
            self._run.ended_at = time.time()

    def _interrupt(self, *_: object) -> None:
        self._stop.set()

    @property
    def is_interrupted(self) -> bool:
        """Whether it was interrupted."""
        return self._stop.is_set()

    def _watch(self, environment: Environment) -> None:
        injector = FaultInjector(environment, "soak", self._stop)
        try:
            load = injector.start_load(_MIXED)
            load.wait_until_connected(injector.wait)
            baseline = _BASELINE_SECONDS + injector.seconds(900)
            injector.wait_until(lambda: self._is_quiet(environment), baseline, "nothing fires")
            begun = time.time()
            events = [
                (begun + self._seconds / 3, self._reload),
                (begun + 2 * self._seconds / 3, self._crash),
            ]
            while time.time() < begun + self._seconds:
                self._record(environment)
                if events and time.time() > events[0][0]:
                    events.pop(0)[1](injector)
                injector.wait(_POLL_SECONDS)
            for thread in self._threads:
                thread.join()
            self._ledger = load.end()
        finally:
            self._run.faults += injector.undo()

    def _in_thread(
        self, name: str, injector: FaultInjector, act: Callable[[FaultInjector], None]
    ) -> None:
        """Call `act` in a thread while the alerts are watched."""
        self._run.notes.append(f"{name} after {time.time() - self._run.started_at:.0f} s")

        def run() -> None:
            try:
                act(injector)
            except (CannotProvoke, ClusterError, Interrupted, OSError) as error:
                self._run.faults.append(f"{name}: {error!r}")

        thread = threading.Thread(target=run, name=name)
        self._threads.append(thread)
        thread.start()

    def _reload(self, injector: FaultInjector) -> None:
        self._in_thread("workers were rolled", injector, roll)

    def _crash(self, injector: FaultInjector) -> None:
        self._in_thread("a worker was killed", injector, _kill_one)

    def _is_quiet(self, environment: Environment) -> bool:
        """Whether no alert fires, not even DeploymentCompleted because of the start."""
        try:
            return all(
                r.state != "firing" or r.name == "Watchdog" for r in environment.prometheus.rules()
            )
        except NotAnswering:
            return False

    def _record(self, environment: Environment) -> None:
        now = time.time()
        try:
            rules = environment.prometheus.rules()
        except NotAnswering:
            # It is asked again in the next round.
            self._unanswered += 1
            return
        for rule in rules:
            result = self._results.get(rule.name)
            if result is None:
                result = self._results[rule.name] = _result(rule, environment, now)
                self._run.results.append(result)
            if rule.alerts and "pending" not in result.step_times:
                result.step_times["pending"] = now
            if rule.state == "firing" and "firing" not in result.step_times:
                result.step_times["firing"] = now
                result.evidence["prometheus"] = [dict(alert.labels) for alert in rule.alerts]
            if not result.samples or now - result.samples[-1][0] > self._seconds / 60:
                value = diagnosis.value_of(environment.prometheus, rule.expression)
                result.samples.append((now, value))
            self._judge(result, now)

    def _judge(self, result: DrillResult, now: float) -> None:
        result.ended_at = now
        fired = "firing" in result.step_times
        if fired and result.alert not in MAY_FIRE:
            result.result, result.failed_at = "failed", "firing"
            result.why = "it fired although the cluster was healthy"
        else:
            result.result = "passed"

    # --- the verdict -----------------------------------------------------------------------

    def judge(self) -> None:
        """Add the faults and the notes to the run."""
        run = self._run
        fired = self._results.get("DeploymentCompleted")
        if fired is None or "firing" not in fired.step_times:
            run.faults.append("DeploymentCompleted did not fire although the workers were rolled")
        if faults := _MIXED.faults(self._ledger):
            run.faults.append(f"publications are not accounted for: {faults}")
            run.faults += self._ledger.get("losses", [])
        pending = sorted(
            name
            for name, one in self._results.items()
            if "pending" in one.step_times and "firing" not in one.step_times
        )
        run.notes.append(f"pending for a while: {', '.join(pending) or 'none'}")
        if self._unanswered:
            run.notes.append(f"Prometheus did not answer {self._unanswered} times")
        got, sent = self._ledger.get("got"), self._ledger.get("acknowledged")
        run.notes.append(
            f"{len(self._results)} alerts watched for {self._seconds:.0f} s; {sent} published,"
            f" {got} delivered"
        )


def _result(rule: Rule, environment: Environment, now: float) -> DrillResult:
    return DrillResult(
        alert=rule.name,
        drill="soak",
        severity=rule.labels.get("severity", ""),
        team=rule.labels.get("team", ""),
        proof="prometheus",
        breaks="nothing: mixed load, a rolling reload, one worker killed",
        undo="",
        environment=environment.name,
        compress=environment.compress,
        started_at=now,
        step_times={"baseline": now},
    )


def _kill_one(injector: FaultInjector) -> None:
    before = injector.environment.workers()
    if not before:
        raise CannotProvoke("no worker runs")
    os.kill(random.choice(before), signal.SIGKILL)

    def is_replaced() -> bool:
        now = injector.environment.workers()
        return len(now) == len(before) and set(now) != set(before)

    injector.wait_until(is_replaced, _REPLACED_SECONDS, "the worker was replaced")
