"""Without the right to make a control group or a file system the cause is simulated, and says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadtest.drilling import stage as stages
from loadtest.drilling.mends import Mends
from loadtest.drilling.rights import Given
from loadtest.drilling.stage import Stage
from loadtest.drills import registered
from tests.drilling.conftest import COMPRESS, run

WHY = "no right to it here"


def refused(*_: object) -> Given:
    return Given(None, WHY)


ALERTS = ("HighMemoryUsage", "HighDiskUsage")


def test_what_this_machine_does_not_allow_is_simulated_and_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "memory_group", refused)
    monkeypatch.setattr(stages, "small_disk", refused)
    with Mends() as open_mends:
        stage = Stage(
            "simulated", folder=tmp_path / "stage", compress=COMPRESS, open_mends=open_mends
        )
        try:
            stage.start()
            with ThreadPoolExecutor(len(ALERTS)) as pool:
                every = registered()
                outcomes = list(pool.map(lambda a: run(every[a], stage, name=a.lower()), ALERTS))
        finally:
            stage.close()
    for outcome in outcomes:
        assert outcome.result == "simulated", outcome.why
        assert outcome.simulated_because == WHY
        assert outcome.notified
        assert "resolve_notified" in outcome.moments
