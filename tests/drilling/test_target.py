"""A running cluster is broken only if its file says that it may be, and how."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from loadtest.drilling import drill_cli
from loadtest.drilling.drill import names
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector
from loadtest.drilling.target import TargetEnvironment, for_target, read
from loadtest.drilling.undo import UndoLog
from loadtest.drills import registered

GOOD = """
name = "staging"
drillable = true
profile = "compressed"
[urls]
websocket = "ws://127.0.0.1:9/connection/websocket"
admin = "http://127.0.0.1:9"
prometheus = "http://127.0.0.1:9"
alertmanager = "http://127.0.0.1:9"
receiver = "http://127.0.0.1:9"
[drills.no_active_connections]
provoke = "echo stopped > {folder}/state"
mend = "echo started > {folder}/state"
[drills.service_down]
provoke = "echo no >&2; false"
mend = "true"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "target.toml"
    path.write_text(GOOD.replace("{folder}", str(tmp_path)))
    return path


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return "\n".join(str(problem) for problem in caught.value.problems)


def test_a_target_that_is_not_marked_is_refused(file: Path):
    file.write_text(file.read_text().replace("drillable = true", "drillable = false"))
    assert "drillable = true if faults may be injected" in problems(file)


def test_all_mistakes_are_said_at_once(file: Path):
    text = file.read_text().replace('admin = "http', 'admin = "ftp').replace("name =", "nam =")
    file.write_text(text + '[drills.other]\nprovoke = "x"\n')
    said = problems(file)
    for words in ("name", "nam", "urls.admin", "drills.other", "two commands"):
        assert words in said


@pytest.mark.parametrize("factor", ["0", "-1", '"fast"', "true"])
def test_a_pace_that_makes_no_sense_is_refused(file: Path, factor: str):
    file.write_text(f"compress = {factor}\n" + file.read_text())
    assert "give a number of 1 or more" in problems(file)


def test_commands_for_a_drill_that_is_not_there_are_refused(file: Path):
    text = file.read_text().replace("[drills.service_down]", "[drills.service_dwon]")
    file.write_text(text)
    every = registered()
    with pytest.raises(ConfigError) as caught:
        for_target([every["HighConnectionChurn"]], read(file), names(every))
    assert "drills.service_dwon" in str(caught.value.problems[0])


def test_a_drill_that_cannot_hold_at_the_target_s_pace_is_refused(file: Path):
    text = file.read_text() + '[drills.app_scrape_slow]\nprovoke = "true"\nmend = "true"\n'
    file.write_text("compress = 15\n" + text)
    every = registered()
    with pytest.raises(ConfigError) as caught:
        for_target([every["AppScrapeSlow"]], read(file), names(every))
    assert "a compress of at most 5" in str(caught.value.problems[0])


def test_without_its_journal_nothing_is_acknowledged(file: Path):
    every = registered()
    chosen = [every["HighSessionCount"]]
    [drill] = for_target(chosen, read(file), names(every))
    assert not drill.is_acknowledged
    file.write_text(f'data_dir = "{file.parent}"\n' + file.read_text())
    [drill] = for_target(chosen, read(file), names(every))
    assert drill.is_acknowledged


@pytest.mark.parametrize("text", ["not = [toml", ""])
def test_what_is_no_target_is_refused(file: Path, text: str):
    file.write_text(text)
    assert problems(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    assert "No such file" in problems(tmp_path / "nowhere.toml")


def test_a_drill_without_commands_is_refused_unless_load_provokes_it(file: Path):
    every = registered()
    chosen = [
        every[name] for name in ("HighConnectionChurn", "HighDiskUsage", "NoActiveConnections")
    ]
    with pytest.raises(ConfigError) as caught:
        for_target(chosen, read(file), names(every))
    [problem] = caught.value.problems
    assert "drills.high_disk_usage" in str(problem)


def injector(file: Path, alert: str, undo_log: UndoLog):
    every = registered()
    target = read(file)
    [drill] = for_target([every[alert]], target, names(every))
    environment = TargetEnvironment(target, folder=file.parent / "work", undo_log=undo_log)
    return drill, FaultInjector(environment, "test", threading.Event())


def test_its_commands_break_and_undo(file: Path):
    with UndoLog() as undo_log:
        drill, one = injector(file, "NoActiveConnections", undo_log)
        drill.provoke(one)
        assert (file.parent / "state").read_text() == "stopped\n"
        assert one.undo() == []
    assert (file.parent / "state").read_text() == "started\n"
    assert "echo stopped" in drill.breaks


def test_a_command_that_fails_is_said_with_its_words(file: Path):
    with UndoLog() as undo_log:
        drill, one = injector(file, "ServiceDown", undo_log)
        with pytest.raises(CannotProvoke, match="ended with 1: no"):
            drill.provoke(one)


def test_a_drill_that_wants_our_own_processes_says_so(file: Path):
    with UndoLog() as undo_log:
        _, one = injector(file, "NoActiveConnections", undo_log)
        with pytest.raises(CannotProvoke, match="staging was not started by the drill"):
            registered()["NodeExporterDown"].provoke(one)


def test_production_without_a_terminal_needs_yes(file: Path, capsys: pytest.CaptureFixture[str]):
    file.write_text(file.read_text().replace('"compressed"', '"production"'))
    assert drill_cli.drill(["HighConnectionChurn", "--target", str(file)], registered()) == 78
    assert "--yes" in capsys.readouterr().err


def test_a_target_that_does_not_answer_is_one_sentence(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["HighConnectionChurn", "--target", str(file), "--report", str(tmp_path / "report")]
    assert drill_cli.drill(words, registered()) == 3
    assert "Prometheus at http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


def test_the_load_of_a_target_has_its_token_and_its_namespace(file: Path, tmp_path: Path):
    token = tmp_path / "token"
    text = f'token_file = "{token}"\nnamespace = "load"\n' + file.read_text()
    file.write_text(text)
    assert "give a file with a connection token" in problems(file)
    token.write_text("a token")
    with UndoLog() as undo_log:
        one = TargetEnvironment(read(file), folder=tmp_path, undo_log=undo_log)
    assert one.load_options == ("--token-file", str(token), "--namespace", "load")
