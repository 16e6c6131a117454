"""Data for the web console: running workers, workers that ended, and the key of a development run.

Rule: a key is generated only in insecure mode and if none is configured. It is kept in the data
directory, so that a link works after a restart, and it is never logged.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import Final

from cluster import log
from cluster.admin import Readiness
from cluster.children.child import Child
from cluster.config import Config
from cluster.console import ClusterState, EndedWorker, WorkerState
from cluster.supervisor.fleet import Fleet, Slot
from cluster.supervisor.paths import Paths
from cluster.supervisor.shutdown_log import ShutdownLog

_MAX_ENDED: Final = 5
_KEY_BYTES: Final = 32
_LONGEST_KEY: Final = 256


def cluster_state(
    fleet: Fleet, readiness: Readiness, *, sessions: float, up_seconds: float
) -> ClusterState:
    """Return the current state of the cluster."""
    now = time.monotonic()
    return ClusterState(
        is_ready=readiness.is_ready,
        reason=readiness.reason,
        workers=[
            worker
            for number, slot in enumerate(fleet.all_slots())
            for worker in _workers(number, slot, now)
        ],
        sessions=sessions,
        capacity=fleet.capacity(),
        up_seconds=up_seconds,
    )


def _workers(number: int, slot: Slot, now: float) -> list[WorkerState]:
    """The workers of a slot: two during a roll; a placeholder with pid 0 if none runs."""
    children = list(slot.service.children.values())
    if not children:
        return [WorkerState(number, slot.spec.lanes[0], 0, "away", slot.service.reason, 0.0)]
    return [
        WorkerState(
            slot=number,
            lane=child.lane,
            pid=child.pid if child.is_running else 0,
            state="draining" if child.stop_requested_at is not None else child.state,
            reason=child.reason,
            up_seconds=now - child.started_at,
        )
        for child in children
    ]


def ended_worker(child: Child, at: float) -> EndedWorker:
    """Describe how a worker ended."""
    seconds, phases = child.shutdown_seconds(), child.shutdown_phases()
    return EndedWorker(at, child.lane, child.outcome, seconds, phases)


def ended_workers_before(shutdown_log: ShutdownLog) -> list[EndedWorker]:
    """Describe how the last workers of the previous run ended."""
    shutdowns = shutdown_log.read()[-_MAX_ENDED:]
    return [EndedWorker(None, "", s.outcome, s.seconds, s.phases) for s in shutdowns]


def development_key(config: Config, paths: Paths) -> str:
    """Return the key of a development run; empty if a key is configured or in secure mode."""
    if config.admin.key or not config.client.insecure:
        return ""
    try:
        descriptor = os.open(paths.admin_key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii") as file:
            existing = file.read(_LONGEST_KEY).strip()
            if existing:
                return existing
            key = secrets.token_urlsafe(_KEY_BYTES)
            file.write(key + "\n")
            return key
    except (OSError, ValueError) as error:
        log.get_logger().warning("admin_key_write_failed", reason=str(error))
        return secrets.token_urlsafe(_KEY_BYTES)
