"""Without the right to make a control group or a file system the cause is simulated, and says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadtest.drilling.environment import cluster as environments
from loadtest.drilling.environment.cluster import Environment
from loadtest.drilling.environment.privileges import Privilege
from loadtest.drilling.undo import UndoLog
from loadtest.drills import registered
from tests.drilling.conftest import COMPRESS, run

WHY = "no right to it here"


def refused(*_: object) -> Privilege:
    return Privilege(None, WHY)


ALERTS = ("HighMemoryUsage", "HighDiskUsage")


def test_what_this_machine_does_not_allow_is_simulated_and_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(environments, "memory_group", refused)
    monkeypatch.setattr(environments, "small_disk", refused)
    with UndoLog() as undo_log:
        environment = Environment(
            "simulated", folder=tmp_path / "environment", compress=COMPRESS, undo_log=undo_log
        )
        try:
            environment.start()
            with ThreadPoolExecutor(len(ALERTS)) as pool:
                every = registered()
                results = list(
                    pool.map(lambda a: run(every[a], environment, name=a.lower()), ALERTS)
                )
        finally:
            environment.close()
    for result in results:
        assert result.result == "simulated", result.why
        assert result.simulated_because == WHY
        assert result.notified
        assert "resolve_notified" in result.step_times
