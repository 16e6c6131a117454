"""Plain counters of one worker, updated on the hot path and exported about once a second.

Rules: no locks, one thread, no prometheus-client (its multiprocess `inc()` costs microseconds).
All values only grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from cluster.methods import METHODS
from cluster.metrics import catalogue


class Distribution:
    """Bucket counts and the sum of a histogram; one value may be observed several times."""

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
    """All counters of one worker, named as in the catalogue, without prefix and suffix."""

    def __init__(self) -> None:
        self.connections_opened = 0
        self.connections_closed = dict.fromkeys(_values("app_connections_closed_total", "code"), 0)
        self.connections_shed = 0
        self.session_channels_left_out = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.publications = 0
        self.publications_suppressed = dict.fromkeys(catalogue.SUPPRESSION_REASONS, 0)
        self.slow_consumers = 0
        self.errors = dict.fromkeys(catalogue.ERROR_TYPES, 0)
        self.client_errors = dict.fromkeys(_values("app_client_errors_total", "code"), 0)
        self.permission_refusals = dict.fromkeys(catalogue.PERMISSION_OPERATIONS, 0)
        self.commands = dict.fromkeys(METHODS, 0)
        self.dropped = dict.fromkeys(catalogue.DROP_REASONS, 0)
        self.recoveries = dict.fromkeys(catalogue.RECOVERY_RESULTS, 0)
        self.stream_reads = dict.fromkeys(catalogue.READ_RESULTS, 0)
        self.presence_renewals = dict.fromkeys(catalogue.RENEWAL_RESULTS, 0)
        self.rejected = dict.fromkeys(catalogue.REJECT_REASONS, 0)
        self.tokens_refused = dict.fromkeys(catalogue.TOKEN_REFUSALS, 0)
        self.refresh_failures = dict.fromkeys(catalogue.REFRESH_FAILURES, 0)
        self.key_set_reads = dict.fromkeys(catalogue.KEY_SET_RESULTS, 0)
        self.handler_failures = dict.fromkeys(catalogue.HANDLER_FAILURES, 0)
        self.slow_handlers = dict.fromkeys(catalogue.LIMITED_HANDLER_KINDS, 0)
        self.api_requests = dict.fromkeys(catalogue.API_RESULTS, 0)
        self.api_errors = dict.fromkeys(catalogue.API_ERROR_CODES, 0)
        self.api_duration = {
            method: Distribution(catalogue.API_BUCKETS) for method in catalogue.API_TIMED_METHODS
        }
        self.control = dict.fromkeys(catalogue.CONTROL_RESULTS, 0)
        self.throttled = dict.fromkeys(catalogue.THROTTLE_REASONS, 0)
        self.log_events = dict.fromkeys(catalogue.LOG_LEVELS, 0)
        self.log_lines_dropped = dict.fromkeys(catalogue.LOG_OUTPUTS, 0)
        self.publish_to_delivery = Distribution(catalogue.DELIVERY_BUCKETS)
        self.event_loop_lag = Distribution(catalogue.LAG_BUCKETS)
        self.command_duration = {
            method: Distribution(catalogue.DELIVERY_BUCKETS) for method in METHODS
        }
        self.handler_duration = {
            kind: Distribution(catalogue.API_BUCKETS) for kind in catalogue.HANDLER_KINDS
        }

    def closed(self, code: int) -> None:
        """Count a closed connection; a code that is not in the catalogue counts as `other`."""
        key = str(code)
        self.connections_closed[key if key in self.connections_closed else "other"] += 1

    def api_error(self, code: int) -> None:
        """Count an error of the server API; a code that is not in the catalogue counts as `other`."""
        key = str(code)
        self.api_errors[key if key in self.api_errors else "other"] += 1

    def client_error(self, code: int) -> None:
        """Count a fault of a client; codes of server faults (100, 3004) are ignored."""
        key = str(code)
        if key in self.client_errors:
            self.client_errors[key] += 1
