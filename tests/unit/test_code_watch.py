"""The code of an application is watched: each change is reported once it is complete."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cluster.supervisor import code_watch
from tests.harness.waiting import until

WITHIN = 30.0


async def test_a_change_a_new_file_and_a_deleted_one_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "watched_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code_watch, "_INTERVAL_SECONDS", 0.02)
    changes: list[str] = []
    with capture_logs() as logged:
        task = asyncio.create_task(
            code_watch.watch_code("watched_package.some:app", lambda: changes.append("changed"))
        )
        try:
            await until(lambda: bool(logged), WITHIN, "the first look is taken")
            assert logged[0]["directory"] == str(package)
            (package / "some.py").write_text("x = 1\n")
            await until(lambda: len(changes) == 1, WITHIN, "a new file is reported")
            (package / "some.py").write_text("x = 12\n")
            await until(lambda: len(changes) == 2, WITHIN, "a change is reported")
            (package / "some.py").unlink()
            await until(lambda: len(changes) == 3, WITHIN, "a deleted file is reported")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_environments_hidden_directories_and_other_files_are_left_out(tmp_path: Path):
    for name in (
        "app/a.py",
        "app/b.txt",
        ".hidden/c.py",
        "env/d.py",
        "env/pyvenv.cfg",
        "__pycache__/e.py",
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    assert [Path(path).name for path in code_watch._look(tmp_path)] == ["a.py"]
