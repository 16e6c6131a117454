"""The metrics of a run of drills, from its results, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric

from loadtest.drilling.result import DrillResult, RunResult
from loadtest.families import DRILL_FAMILIES, DRILL_RESULTS, TIMED_STEPS
from loadtest.metrics_server import filled

_FAMILIES: Final = {family.name: family for family in DRILL_FAMILIES}


def drill_metrics(run: RunResult, planned: int) -> Iterator[Metric]:
    """The families of DRILL_FAMILIES.

    Args:
        planned: how many drills there will be.
    """
    # The drills add to the list meanwhile.
    results = list(run.results)
    count = Counter(map(_result, results))
    yield filled(_FAMILIES["app_drills"], (((name,), count[name]) for name in DRILL_RESULTS))
    yield filled(_FAMILIES["app_drills_planned"], [((), planned)])
    yield filled(
        _FAMILIES["app_drill_compression"], (((one.name,), one.compress) for one in results)
    )
    yield filled(
        _FAMILIES["app_drill_passed"],
        (
            ((one.name,), float(one.result != "failed"))
            for one in results
            if one.ended_at is not None
        ),
    )
    yield filled(
        _FAMILIES["app_drill_step_seconds"],
        (
            ((one.name, step), seconds)
            for one in results
            for step in TIMED_STEPS
            if (seconds := one.seconds(step)) is not None
        ),
    )


def _result(one: DrillResult) -> str:
    return "running" if one.ended_at is None else one.result
