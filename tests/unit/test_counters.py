"""The worker's counters: all labels exist from the start, buckets match a histogram."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import CLIENT_ERRORS, DISCONNECTS
from cluster.methods import METHODS
from cluster.metrics.catalogue import WORKER_FAMILIES
from cluster.metrics.counters import Counters, Distribution
from cluster.metrics.worker_metrics import distributions_of

EDGES = (0.1, 1.0, 10.0)


def test_every_label_exists_at_zero():
    counters = Counters()
    for counts in (
        counters.connections_closed, counters.client_errors, counters.errors, counters.commands,
        counters.dropped, counters.recoveries, counters.rejected, counters.log_events,
    ):  # fmt: skip
        assert counts
        assert set(counts.values()) == {0}


def test_close_codes_outside_the_catalogue_count_as_other():
    counters = Counters()
    for close in DISCONNECTS:
        counters.closed(close.code)
    counters.closed(4123)
    assert set(counters.connections_closed.values()) == {1}
    assert counters.connections_closed["other"] == 1


def test_only_faults_of_clients_count_as_client_errors():
    counters = Counters()
    for code in [error.code for error in CLIENT_ERRORS] + [close.code for close in DISCONNECTS]:
        counters.client_error(code)
    assert set(counters.client_errors.values()) == {1}
    assert not {"100", "3000", "3001", "3004", "3008"} & set(counters.client_errors)


def test_every_method_has_a_duration():
    assert set(Counters().command_duration) == set(METHODS)


def test_a_distribution_has_the_buckets_of_the_histogram_that_it_is_exported_to():
    buckets = {one.name: one.buckets for one in WORKER_FAMILIES if one.kind == "histogram"}
    exported = [(name, one.edges) for name, _, one in distributions_of(Counters())]
    assert {name for name, _ in exported} == set(buckets)
    assert [(name, edges) for name, edges in exported if edges != buckets[name]] == []


def test_a_value_on_an_edge_belongs_to_its_bucket():
    distribution = Distribution(EDGES)
    for value in (0.0, 0.1, 0.10001, 1.0, 10.0, 10.1):
        distribution.observe(value)
    assert distribution.counts == [2, 2, 1, 1]


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=100), st.integers(1, 5))))
def test_counts_and_sum_agree_with_what_was_observed(values: list[tuple[float, int]]):
    distribution = Distribution(EDGES)
    for value, times in values:
        distribution.observe(value, times)
    assert sum(distribution.counts) == sum(times for _, times in values)
    assert abs(distribution.sum - sum(value * times for value, times in values)) < 1e-6
    for index, edge in enumerate(EDGES):
        below = sum(times for value, times in values if value <= edge)
        assert sum(distribution.counts[: index + 1]) == below
