"""The load test: `locust -f loadtest/locustfile.py --headless --scenario steady --host ws://…`.

Rules
- `--scenario` chooses the user classes; classes named on the command line, or in
  LOCUST_USER_CLASSES, are taken instead.
- The exit code says whether the limits of `--expect` were met; without limits, whether nothing
  failed that was not meant to.
- In several processes each accounts for its own, and the master adds up.
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

from loadtest import arguments, limits, shapes
from loadtest.scenarios import SCENARIOS

# Locust finds user classes in this module's names.
from loadtest.users.chat import Broadcaster, ChatMember, Reconnector, Subscriber
from loadtest.users.quiet import Caller, Comer, Idle, SessionHolder, SlowReader
from loadtest.users.wrong import ErrorMaker
from loadtest.world import World

__all__ = [
    "Broadcaster",
    "Caller",
    "ChatMember",
    "Comer",
    "ErrorMaker",
    "Idle",
    "Reconnector",
    "SessionHolder",
    "SlowReader",
    "Subscriber",
]

_BAD_INPUT_EXIT: Final = 78
_LIMITS_EXIT: Final = 1
_worlds: list[World] = []


@events.init_command_line_parser.add_listener
def _add_arguments(parser: Any) -> None:
    arguments.add(parser)


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    """Choose users and shape, and open the ledger."""
    options = environment.parsed_options
    assert options is not None
    try:
        limits.parse(options.expect)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_BAD_INPUT_EXIT)
    _raise_file_limit()
    scenario = SCENARIOS[options.scenario]
    if not getattr(options, "user_classes", None):
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
        environment.shape_class = shapes.SHAPES[options.shape]()
        environment.shape_class.runner = environment.runner
    world = World(environment)
    _worlds[:] = [world]
    if not isinstance(environment.runner, WorkerRunner):
        gevent.spawn(world.keep_writing)


def _raise_file_limit() -> None:
    """Each user is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    World.of(environment).is_ending = False


@events.test_stopping.add_listener
def _settle(environment: Environment, **_: Any) -> None:
    """Before anybody leaves, wait for what is on its way."""
    if not isinstance(environment.runner, MasterRunner):
        World.of(environment).settle()


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any]) -> None:
    world = _worker_world()
    if world is not None:
        data["ledger"] = world.ledger.report()
        data["connected"] = world.connected


@events.worker_report.add_listener
def _take_report(client_id: str, data: Mapping[str, Any]) -> None:
    world = _worker_world()
    if world is not None and "ledger" in data:
        world.ledger.take_report(client_id, data["ledger"])
        world.remote[client_id] = data["connected"]


def _worker_world() -> World | None:
    """Locust does not say which environment a report belongs to; there is one per process."""
    return _worlds[0] if _worlds else None


@events.quitting.add_listener
def _end(environment: Environment, **_: Any) -> None:
    """Write the account and say whether the run met its limits."""
    if isinstance(environment.runner, WorkerRunner):
        return
    world = World.of(environment)
    world.is_ending = True
    world.write(is_final=True)
    summary = world.summary(is_final=True)
    ledger = ("sent", "acknowledged", "unknown", "refused", "got", "lost", "twice", "out_of_order")
    sys.stderr.write("ledger: " + ", ".join(f"{name} {summary[name]}" for name in ledger) + "\n")
    sys.stderr.writelines(f"loss: {line}\n" for line in summary["losses"])
    if summary["p99_ms"] is not None:
        sys.stderr.write(f"delivery: p50 {summary['p50_ms']} ms, p99 {summary['p99_ms']} ms\n")
    wanted = limits.parse(world.options.expect)
    for limit in wanted:
        sys.stderr.write(limit.verdict(limits.seen(summary, limit.name)) + "\n")
    if wanted:
        met = all(limit.is_met(limits.seen(summary, limit.name)) for limit in wanted)
        environment.process_exit_code = 0 if met else _LIMITS_EXIT
