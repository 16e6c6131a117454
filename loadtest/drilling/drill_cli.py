"""The command lines of `ws-cluster drill` and `ws-cluster soak`.

Rule: exit codes are 0 everything is proven, 1 a drill failed or an alert has no drill, 3 an environment
cannot start, 69 a program is missing, 78 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster.errors import ConfigError, ExitError, Problem
from cluster.terminal_text import print_lines
from loadtest.drilling.arguments import Parser, count, factor
from loadtest.drilling.drill import Drill, names
from loadtest.drilling.drill_metrics import drill_metrics
from loadtest.drilling.environment import machine
from loadtest.drilling.report import write
from loadtest.drilling.report.progress import Progress
from loadtest.drilling.result import RunResult
from loadtest.drilling.runner import DrillPlan, Runner
from loadtest.drilling.target import DrillTarget, for_target, read
from loadtest.metrics_server import MetricsServer, listen_address

COMPRESS: Final = 15.0
# The alerts of the first version.
SEED: Final = (
    "NoActiveConnections",
    "HighErrorRate",
    "ServiceDown",
    "HighMemoryUsage",
    "SlowShutdownTime",
    "LowMessageThroughput",
    "HighConnectionChurn",
    "DeploymentCompleted",
    "HighSessionCount",
    "HighCPUUsage",
    "HighDiskUsage",
)
_INTERRUPTED_EXIT: Final = 130


def drill(words: Sequence[str], every: Mapping[str, Drill]) -> int:
    """Run drills.

    Args:
        every: all drills there are, by name.

    Returns:
        The exit code.
    """
    try:
        return _drill(_parser().parse_args(words), every)
    except ConfigError as error:
        for problem in error.problems:
            print_lines(f"ws-cluster drill: {problem}", sys.stderr)
        return error.exit_code
    except ExitError as error:
        print_lines(f"ws-cluster drill: {error}", sys.stderr)
        return error.exit_code


def _drill(arguments: argparse.Namespace, every: Mapping[str, Drill]) -> int:
    if arguments.list:
        return _list(every)
    chosen = _chosen(arguments, every)
    target = _target(arguments)
    compress = 1.0 if arguments.profile == "production" else arguments.compress
    if target is not None:
        chosen = for_target(chosen, target, names(every))
        compress = target.compress
    run = RunResult(
        profile="production" if compress == 1 else "compressed",
        compress=compress,
        started_at=time.time(),
        target=target.name if target else "a cluster of its own",
        machine=machine.describe(),
    )
    plan = DrillPlan(
        drills=chosen,
        compress=compress,
        environments=arguments.environments,
        together=arguments.together,
        is_all=arguments.all or arguments.seed,
        rules_dir=arguments.rules_dir,
        keep=arguments.keep,
        target=target,
    )
    with (
        _metrics(arguments.metrics_listen, run, len(chosen)),
        Progress(run, planned=len(chosen)) as screen,
    ):
        runner = Runner(plan, run, screen, every)
        try:
            runner.go()
        finally:
            if run.results or run.uncovered:
                write.write(run, arguments.report)
                screen.note(f"the report is {arguments.report / 'drill.html'}")
    if runner.is_interrupted:
        return _INTERRUPTED_EXIT
    return 0 if run.is_passed else 1


@contextmanager
def _metrics(address: str, run: RunResult, planned: int) -> Iterator[None]:
    """Serve the metrics of the run, and in the end until they were scraped once more.

    Raises:
        ConfigError: the address makes no sense, or is in use.
    """
    if not address:
        yield
        return
    try:
        server = MetricsServer(listen_address(address), lambda: drill_metrics(run, planned))
    except (ValueError, OSError) as error:
        raise ConfigError([Problem("--metrics-listen", address, str(error))]) from None
    try:
        yield
        server.wait_for_last_scrape()
    finally:
        server.close()


def _target(arguments: argparse.Namespace) -> DrillTarget | None:
    """The running cluster that --target names, after the user has confirmed it.

    Raises:
        ConfigError: if the file is wrong, or the target is not confirmed.
    """
    if arguments.target is None:
        return None
    target = read(arguments.target)
    if target.is_production and not arguments.yes:
        question = f"{target.name} is a production target, and faults will be injected into it. Type its name: "
        if not sys.stdin.isatty():
            reason = "give --yes to confirm: standard input is not a terminal"
            raise ConfigError([Problem("--target", target.name, reason)])
        if input(question).strip() != target.name:
            raise ConfigError(
                [Problem("--target", target.name, "its name was not typed: no fault was injected")]
            )
    return target


def _list(every: Mapping[str, Drill]) -> int:
    width = max(map(len, every))
    for name, one in every.items():
        sys.stdout.write(f"{name:<{width}}  {one.breaks}\n")
    return 0


def _chosen(arguments: argparse.Namespace, every: Mapping[str, Drill]) -> list[Drill]:
    """The drills that were named.

    Raises:
        ConfigError: none was, or one does not exist.
    """
    if arguments.all:
        return list(every.values())
    names = list(arguments.alerts) + (list(SEED) if arguments.seed else [])
    problems = []
    for name in names:
        if name not in every:
            near = difflib.get_close_matches(name, every, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            problems.append(Problem("ALERT", name, f"`--list` shows all{meant}"))
    if not names:
        problems.append(Problem("ALERT", "none", "name alerts, or give --seed or --all"))
    if problems:
        raise ConfigError(problems)
    return [every[name] for name in dict.fromkeys(names)]


def _parser() -> Parser:
    parser = Parser(
        prog="ws-cluster drill",
        description="Inject a bounded fault for each alert, check that the alert fires, is notified and"
        " is resolved, and undo the fault in any case.",
        epilog="exit codes: 0 everything is proven, 1 a drill failed or an alert has no drill, 3 an"
        " environment cannot start, 69 a program is missing, 78 bad input, 130 interrupted",
    )
    add = parser.add_argument
    add(
        "alerts",
        nargs="*",
        metavar="ALERT",
        help="names of alerts, or Alert/variant for another cause of one",
    )
    add("--all", action="store_true", help="every alert rule of Prometheus, by every cause")
    add("--seed", action="store_true", help="the eleven alerts of the first version")
    add("--list", action="store_true", help="list the drills and their faults")
    add(
        "--profile",
        choices=("compressed", "production"),
        default="compressed",
        help="compressed: time passes faster (default); production: the real durations",
    )
    add("--compress", type=factor, default=COMPRESS, metavar="N", help="how much faster (15)")
    add(
        "--report",
        type=Path,
        default=Path("drill-report"),
        metavar="DIR",
        help="where drill.json, drill.xml and drill.html are written (drill-report)",
    )
    add(
        "--stages",
        dest="environments",
        type=count,
        default=2,
        metavar="N",
        help="number of environments, each a cluster with its monitoring (2)",
    )
    add("--together", type=count, default=3, metavar="N", help="drills at a time on each (3)")
    add("--target", type=Path, metavar="FILE", help="a running cluster, described in TOML")
    add(
        "--yes",
        action="store_true",
        help="do not ask before faults are injected into a production target",
    )
    add("--rules-dir", type=Path, metavar="DIR", help="rules and configuration, if not docker/")
    add(
        "--metrics-listen",
        default="",
        metavar="HOST:PORT",
        help="serve /metrics for Prometheus there while the drills run",
    )
    add("--keep", type=Path, metavar="DIR", help="work there, and keep logs and data")
    return parser
