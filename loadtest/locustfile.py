"""The load test: `locust -f loadtest/locustfile.py --headless --scenario steady --host ws://…`.

Rules
- `--scenario` chooses the user classes; classes named on the command line, or in
  LOCUST_USER_CLASSES, are taken instead.
- The exit code says whether the limits of `--expect` were met; without limits, whether nothing
  failed that was not meant to.
- With several processes each keeps a ledger, and the master adds them up.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from typing import Any, Final

import gevent
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

# Of shapes only the modules: Locust takes any shape class it finds in this module's names.
from loadtest import locust_options, shapes, stages, thresholds
from loadtest.load_context import LoadContext
from loadtest.metrics_server import MetricsServer, listen_address
from loadtest.scenarios import SCENARIOS

# Locust finds user classes in this module's names.
from loadtest.users.chat import Broadcaster, ChatMember, Reconnector, Subscriber
from loadtest.users.quiet import Caller, Comer, Idle, SessionHolder, SlowReader
from loadtest.users.wrong import ErrorMaker

USERS: Final = (
    Broadcaster,
    Caller,
    ChatMember,
    Comer,
    ErrorMaker,
    Idle,
    Reconnector,
    SessionHolder,
    SlowReader,
    Subscriber,
)

SHAPES: Final = {**shapes.SHAPES, "stages": stages.StagesShape}
_BAD_INPUT_EXIT: Final = 78
_LIMITS_EXIT: Final = 1
_contexts: list[LoadContext] = []
_servers: list[MetricsServer] = []


@events.init_command_line_parser.add_listener
def _add_arguments(parser: Any) -> None:
    locust_options.add(parser)


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    """Choose users and shape, and open the ledger."""
    options = environment.parsed_options
    assert options is not None
    try:
        thresholds.parse(options.expect)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_BAD_INPUT_EXIT)
    _raise_file_limit()
    scenario = SCENARIOS[options.scenario]
    if isinstance(environment.runner, WorkerRunner) or options.shape == "stages":
        # The master or the shape says which of them run.
        environment.user_classes = [*USERS]
    elif not getattr(options, "user_classes", None):
        for kind, weight in scenario.weights.items():
            kind.weight = weight
        for kind, count in scenario.fixed.items():
            kind.fixed_count = count
        environment.user_classes = [*scenario.weights, *scenario.fixed]
    if options.num_users is None:
        options.num_users = scenario.users + sum(scenario.fixed.values())
    else:
        options.num_users += sum(scenario.fixed.values())
    if options.spawn_rate is None:
        options.spawn_rate = scenario.spawn_rate
    if options.shape and not isinstance(environment.runner, WorkerRunner):
        environment.shape_class = SHAPES[options.shape]()
        environment.shape_class.runner = environment.runner
    context = LoadContext(environment)
    _contexts[:] = [context]
    _agree(environment, context)
    if options.metrics_listen and not isinstance(environment.runner, WorkerRunner):
        _serve_metrics(context, options.metrics_listen)
    # gevent's timers count from the loop's cached time: after a slow start -t would be over at once.
    gevent.get_hub().loop.update_now()


def _serve_metrics(context: LoadContext, address: str) -> None:
    try:
        _servers[:] = [MetricsServer(listen_address(address), context.metrics)]
    except (ValueError, OSError) as error:
        sys.stderr.write(f"--metrics-listen: {error}\n")
        sys.exit(_BAD_INPUT_EXIT)


def _agree(environment: Environment, context: LoadContext) -> None:
    """The messages between master and workers beside Locust's own."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):

        def settled(environment: Environment, msg: Any, **_: Any) -> None:
            context.take_report(msg.node_id, msg.data)
            context.settled.add(msg.node_id)

        runner.register_message("settled", settled)
    elif isinstance(runner, WorkerRunner):

        def settle(environment: Environment, msg: Any, **_: Any) -> None:
            context.settle()
            runner.send_message("settled", context.report())

        def count(environment: Environment, msg: Any, **_: Any) -> None:
            context.processes = max(1, int(msg.data["count"]))

        runner.register_message("settle", settle, concurrent=True)
        runner.register_message("processes", count)


def _raise_file_limit() -> None:
    """Each user is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    context = LoadContext.of(environment)
    context.begin()
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        runner.send_message("processes", {"count": runner.worker_count})
    if not isinstance(runner, WorkerRunner):
        gevent.spawn(context.keep_writing)


@events.test_stopping.add_listener
def _settle(environment: Environment, **_: Any) -> None:
    """Wait for publications on their way before users disconnect."""
    context = LoadContext.of(environment)
    if isinstance(environment.runner, MasterRunner):
        context.settle_workers(environment.runner)
    else:
        context.settle()


@events.test_stop.add_listener
def _stopped(environment: Environment, **_: Any) -> None:
    """With the web page the program continues after a run."""
    if environment.web_ui is not None and not isinstance(environment.runner, WorkerRunner):
        _account(LoadContext.of(environment))


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any]) -> None:
    context = _worker_context()
    if context is not None:
        data["context"] = context.report()


@events.worker_report.add_listener
def _take_report(client_id: str, data: Mapping[str, Any]) -> None:
    context = _worker_context()
    if context is not None and "context" in data:
        context.take_report(client_id, data["context"])


def _worker_context() -> LoadContext | None:
    """Locust does not say which environment a report belongs to; there is one per process."""
    return _contexts[0] if _contexts else None


@events.quitting.add_listener
def _end(environment: Environment, **_: Any) -> None:
    """Write the ledger and set the exit code by the limits."""
    if isinstance(environment.runner, WorkerRunner):
        return
    # After a signal, Locust calls this before it stops users.
    _settle(environment)
    context = LoadContext.of(environment)
    limits_met = _account(context)
    for server in _servers:
        server.wait_for_last_scrape()
        server.close()
    if limits_met is not None:
        environment.process_exit_code = 0 if limits_met else _LIMITS_EXIT


def _account(context: LoadContext) -> bool | None:
    """Write the final ledger; returns whether the limits were met, None without any."""
    context.write(is_final=True)
    summary = context.summary(is_final=True)
    ledger = ("sent", "acknowledged", "unknown", "refused", "got", "lost", "twice", "out_of_order")
    sys.stderr.write("ledger: " + ", ".join(f"{name} {summary[name]}" for name in ledger) + "\n")
    sys.stderr.writelines(f"loss: {line}\n" for line in summary["losses"])
    if summary["p99_ms"] is not None:
        sys.stderr.write(f"delivery: p50 {summary['p50_ms']} ms, p99 {summary['p99_ms']} ms\n")
    if summary["cpu_ms_per_user_second"] is not None:
        sys.stderr.write(
            f"load generator: {summary['cpu_seconds']} s of CPU,"
            f" {summary['cpu_ms_per_user_second']} ms per user and second\n"
        )
    wanted = thresholds.parse(context.options.expect)
    for limit in wanted:
        sys.stderr.write(limit.verdict(thresholds.seen(summary, limit.name)) + "\n")
    if not wanted:
        return None
    return all(limit.is_met(thresholds.seen(summary, limit.name)) for limit in wanted)
