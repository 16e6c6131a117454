"""FileDescriptorsExhausting: a worker has nearly as many open files as its limit allows."""

from __future__ import annotations

import resource
from typing import Final

import psutil

from loadtest.drilling import undo
from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.load import Load
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector

_CLIENTS: Final = 45
_SPARE: Final = 8


def provoke(injector: FaultInjector) -> None:
    environment = injector.environment
    workers = environment.workers(0)
    if not workers:
        raise CannotProvoke("no worker of slot 0 runs")
    pid = workers[0]
    injector.add_load(Load("idle", users=_CLIENTS), host=environment.worker_url(0))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    injector.note(undo.file_limit(pid, soft, hard))
    few = psutil.Process(pid).num_fds() + _SPARE
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))


DRILL = Drill(
    alert="FileDescriptorsExhausting",
    breaks="a worker has 45 connections, and its limit allows eight more open files",
    undo="the limit is reset, and the clients disconnect",
    provoke=provoke,
    fires_seconds=345,
    resolves_seconds=45,
    fixed_seconds=15,
    affects=frozenset({Component.WORKERS, Component.CONNECTIONS}),
    needs=MONITORING | (SERVICE - {Component.WORKERS, Component.CONNECTIONS}),
    load=None,
)
