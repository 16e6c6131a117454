"""Plain counts of one worker, kept on the hot path and flushed about once a second.

Rules: no locks, no prometheus-client (its multiprocess `inc()` costs microseconds), one thread.
Everything here only grows, except the gauges that the worker sets when it flushes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from cluster.methods import METHODS
from cluster.metrics import catalogue


class Distribution:
    """Bucket counts and a sum, as a histogram wants them; a value may count several times."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: Iterable[float]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(self.edges) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.edges, value)] += times
        self.sum += value * times


def _values(name: str, label: str) -> tuple[str, ...]:
    family = next(family for family in catalogue.WORKER_FAMILIES if family.name == name)
    return family.labels[label]


class Counters:
    """Everything one worker counts, by the names of the catalogue without prefix and suffix."""

    def __init__(self) -> None:
        self.connections_opened = 0
        self.connections_closed = dict.fromkeys(_values("app_connections_closed_total", "code"), 0)
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.publications = 0
        self.slow_consumers = 0
        self.errors = dict.fromkeys(catalogue.ERROR_TYPES, 0)
        self.client_errors = dict.fromkeys(_values("app_client_errors_total", "code"), 0)
        self.commands = dict.fromkeys(METHODS, 0)
        self.dropped = dict.fromkeys(catalogue.DROP_REASONS, 0)
        self.recoveries = dict.fromkeys(catalogue.RECOVERY_RESULTS, 0)
        self.rejected = dict.fromkeys(catalogue.REJECT_REASONS, 0)
        self.log_events = dict.fromkeys(catalogue.LOG_LEVELS, 0)
        self.publish_to_delivery = Distribution(catalogue.DELIVERY_BUCKETS)
        self.event_loop_lag = Distribution(catalogue.LAG_BUCKETS)
        self.command_duration = {
            method: Distribution(catalogue.DELIVERY_BUCKETS) for method in METHODS
        }

    def closed(self, code: int) -> None:
        """Count a closed connection; a code that is not in the catalogue counts as `other`."""
        key = str(code)
        self.connections_closed[key if key in self.connections_closed else "other"] += 1

    def client_error(self, code: int) -> None:
        """Count what a client did wrong; faults of ours (100, 3004) are not counted here."""
        key = str(code)
        if key in self.client_errors:
            self.client_errors[key] += 1
