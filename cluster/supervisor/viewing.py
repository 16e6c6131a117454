"""What the supervisor shows the console: its workers, how some ended, and the key of a development run.

Rule: a key is made only in insecure mode, where the configuration has none; it stays in the data
directory, so that a link keeps working over restarts, and is never logged.
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
from cluster.console import Ended, Facts, WorkerFacts
from cluster.supervisor.crew import Crew, Slot
from cluster.supervisor.journal import Journal
from cluster.supervisor.places import Places

_MOST_BEFORE: Final = 5
_KEY_BYTES: Final = 18
_LONGEST_KEY: Final = 256


def facts_of(crew: Crew, state: Readiness, *, sessions: float, up_seconds: float) -> Facts:
    """What is known now."""
    now = time.monotonic()
    return Facts(
        is_ready=state.is_ready,
        reason=state.reason,
        workers=[w for number, slot in enumerate(crew.slots) for w in _workers(number, slot, now)],
        sessions=sessions,
        capacity=crew.capacity(),
        up_seconds=up_seconds,
    )


def _workers(number: int, slot: Slot, now: float) -> list[WorkerFacts]:
    """The workers of a slot, two during a roll; one without a process if it has none."""
    children = list(slot.post.children.values())
    if not children:
        return [WorkerFacts(number, slot.kind.lanes[0], 0, "away", slot.post.reason, 0.0)]
    return [
        WorkerFacts(
            slot=number,
            lane=child.lane,
            pid=child.pid if child.is_running else 0,
            state="draining" if child.stop_asked_at is not None else child.state,
            reason=child.reason,
            up_seconds=now - child.started_at,
        )
        for child in children
    ]


def ended(child: Child, at: float) -> Ended:
    """How a worker that has just ended did so."""
    seconds, phases = child.shutdown_seconds(), child.shutdown_phases()
    return Ended(at, child.lane, child.outcome, seconds, phases)


def ended_before(journal: Journal) -> list[Ended]:
    """How the last workers of the run before ended."""
    shutdowns = journal.read()[-_MOST_BEFORE:]
    return [Ended(None, "", one.outcome, one.seconds, one.phases) for one in shutdowns]


def made_key(config: Config, places: Places) -> str:
    """The key of a development run; empty if the configuration has one, or if it is none."""
    if config.admin.key or not config.client.insecure:
        return ""
    try:
        descriptor = os.open(places.admin_key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+", encoding="ascii") as file:
            kept = file.read(_LONGEST_KEY).strip()
            if kept:
                return kept
            key = secrets.token_urlsafe(_KEY_BYTES)
            file.write(key + "\n")
            return key
    except (OSError, ValueError) as error:
        log.get_logger().warning("admin_key_write_failed", reason=str(error))
        return secrets.token_urlsafe(_KEY_BYTES)
