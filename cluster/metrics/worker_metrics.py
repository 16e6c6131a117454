"""Writes a worker's families to prometheus-client's multiprocess files, named after the lane.

Rules
- PROMETHEUS_MULTIPROC_DIR must be set before this module is imported, because prometheus-client
  chooses its value class at import.
- The process identifier is the lane (`w0a`, never with a `_`), so that a restarted worker
  continues its counters and the number of files does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client.metrics
import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cluster.metrics.catalogue import WORKER_FAMILIES, Family
from cluster.metrics.counters import Counters, Distribution
from cluster.metrics.value_file import ValueFile, failures


class WorkerMetrics:
    """Exports a `Counters`: each `flush` adds what was counted since the last one.

    Args:
        lane: the process identifier, e.g. `w0a`.
    """

    def __init__(self, lane: str) -> None:
        if not lane.isalnum():
            raise ValueError(f"lane {lane!r} must be letters and digits: '_' corrupts pid labels")
        value_class = prometheus_client.values.MultiProcessValue(process_identifier=lambda: lane)
        # prometheus-client has no argument for either: a value reads the class of its file, and
        # metrics read the class of a value, from their modules.
        prometheus_client.values.MmapedDict = ValueFile  # type: ignore[attr-defined]
        prometheus_client.metrics.values.ValueClass = value_class  # type: ignore[attr-defined]
        registry = CollectorRegistry()
        self._metrics = {family.name: _make(family, registry) for family in WORKER_FAMILIES}
        self._flushed: dict[tuple[str, str], float] = {}
        #: `path: reason` of each file that is replaced by memory, and is not scraped.
        self.failures = tuple(failures)

    def flush(self, counters: Counters) -> None:
        """Write what was counted since the last flush."""
        for name, label, value in _counts(counters):
            key = (name, label)
            grown = value - self._flushed.get(key, 0)
            if grown:
                self._flushed[key] = value
                metric = self._metrics[name]
                child = metric.labels(label) if label else metric
                child.inc(grown)  # type: ignore[union-attr]
        for name, label, distribution in distributions_of(counters):
            self._flush_distribution(name, label, distribution)

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        gauge = self._metrics[name]
        assert isinstance(gauge, Gauge)
        gauge.set(value)

    def _flush_distribution(self, name: str, label: str, distribution: Distribution) -> None:
        histogram = self._metrics[name]
        assert isinstance(histogram, Histogram)
        child = histogram.labels(label) if label else histogram
        # Histogram.observe accepts one value per call; its buckets accept a whole second's count.
        for index, count in enumerate(distribution.counts):
            key = (f"{name}#{index}", label)
            grown = count - self._flushed.get(key, 0)
            if grown:
                self._flushed[key] = count
                child._buckets[index].inc(grown)
        key = (f"{name}#sum", label)
        grown_sum = distribution.sum - self._flushed.get(key, 0)
        if grown_sum:
            self._flushed[key] = distribution.sum
            child._sum.inc(grown_sum)


def _make(family: Family, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = tuple(family.labels)
    metric: Counter | Gauge | Histogram
    if family.kind == "counter":
        metric = Counter(family.name, family.help, labels, registry=registry)
    elif family.kind == "gauge":
        metric = Gauge(
            family.name, family.help, labels, registry=registry,
            multiprocess_mode=family.mode,  # type: ignore[arg-type]
        )  # fmt: skip
    else:
        metric = Histogram(
            family.name, family.help, labels, registry=registry, buckets=family.buckets
        )
    for values in family.labels.values():
        for value in values:
            metric.labels(value)
    return metric


def _counts(counters: Counters) -> Iterator[tuple[str, str, float]]:
    yield "app_connections_opened_total", "", counters.connections_opened
    yield "app_connections_shed_total", "", counters.connections_shed
    yield "app_session_channels_left_out_total", "", counters.session_channels_left_out
    yield "app_messages_total", "in", counters.messages_in
    yield "app_messages_total", "out", counters.messages_out
    yield "app_message_bytes_total", "in", counters.bytes_in
    yield "app_message_bytes_total", "out", counters.bytes_out
    yield "app_publications_total", "", counters.publications
    yield "app_slow_consumers_total", "", counters.slow_consumers
    for name, counts in (
        ("app_connections_closed_total", counters.connections_closed),
        ("app_publications_suppressed_total", counters.publications_suppressed),
        ("app_errors_total", counters.errors),
        ("app_client_errors_total", counters.client_errors),
        ("app_permission_refusals_total", counters.permission_refusals),
        ("app_commands_total", counters.commands),
        ("app_messages_dropped_total", counters.dropped),
        ("app_recoveries_total", counters.recoveries),
        ("app_stream_reads_total", counters.stream_reads),
        ("app_presence_renewals_total", counters.presence_renewals),
        ("app_connections_rejected_total", counters.rejected),
        ("app_tokens_refused_total", counters.tokens_refused),
        ("app_refresh_failures_total", counters.refresh_failures),
        ("app_key_set_reads_total", counters.key_set_reads),
        ("app_api_requests_total", counters.api_requests),
        ("app_api_errors_total", counters.api_errors),
        ("app_control_messages_total", counters.control),
        ("app_handler_failures_total", counters.handler_failures),
        ("app_slow_handlers_total", counters.slow_handlers),
        ("app_throttles_total", counters.throttled),
        ("app_log_events_total", counters.log_events),
        ("app_log_lines_dropped_total", counters.log_lines_dropped),
    ):
        for label, value in counts.items():
            yield name, label, value


def distributions_of(counters: Counters) -> Iterator[tuple[str, str, Distribution]]:
    """Yield (family, value of its label, distribution) of each histogram."""
    yield "app_publish_to_delivery_seconds", "", counters.publish_to_delivery
    yield "app_event_loop_lag_seconds", "", counters.event_loop_lag
    for method, distribution in counters.api_duration.items():
        yield "app_api_duration_seconds", method, distribution
    for method, distribution in counters.command_duration.items():
        yield "app_command_duration_seconds", method, distribution
    for kind, distribution in counters.handler_duration.items():
        yield "app_handler_duration_seconds", kind, distribution
