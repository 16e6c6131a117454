"""Logs: the form of a line, which lines are suppressed, and what is counted nevertheless."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from contextlib import suppress

import pytest
import structlog

from cluster import log
from cluster.config import LogConfig


@pytest.fixture
def lines():
    stream = io.StringIO()
    log.configure(LogConfig(level="debug"), instance="host:1", worker="w0a", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    log.count_levels(lambda level: None)
    for handler in list(logging.getLogger().handlers):
        if type(handler).__module__ == "cluster.log":
            logging.getLogger().removeHandler(handler)


def test_a_line_is_json_off_a_terminal_and_carries_its_context(lines):
    log.get_logger(slot=3).info("child_started", pid=7)
    (line,) = lines()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "event": "child_started",
        "level": "info",
        "instance": "host:1",
        "worker": "w0a",
        "slot": 3,
        "pid": 7,
    }


def test_every_line_is_in_the_file_too_and_there_as_json(tmp_path, monkeypatch):
    path = tmp_path / "app.log"
    log.configure(LogConfig(format="console"), worker="w0a", stream=io.StringIO())
    log.also_write(path)
    try:
        assert log.child_environment() == {log.FILE_VARIABLE: str(path)}
        try:
            raise ValueError("bad luck")
        except ValueError:
            log.get_logger().exception("handler_failed")
        log.flush()
        path.write_text(path.read_text())
        log.get_logger().info("child_started")
    finally:
        log.also_write(None)
    log.get_logger().info("child_exited")
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["event"], first["worker"], second["event"]) == (
        "handler_failed",
        "w0a",
        "child_started",
    )
    assert "ValueError: bad luck" in first["exception"]
    assert log.child_environment() == {}
    structlog.reset_defaults()


def test_a_file_that_cannot_be_opened_does_not_disturb_logging(tmp_path, monkeypatch):
    monkeypatch.setenv(log.FILE_VARIABLE, str(tmp_path / "nowhere" / "app.log"))
    log.write_inherited_file()
    stream = io.StringIO()
    log.configure(LogConfig(), stream=stream)
    log.get_logger().info("child_started")
    assert "child_started" in stream.getvalue()
    structlog.reset_defaults()


def test_an_event_below_the_level_is_not_written():
    stream = io.StringIO()
    log.configure(LogConfig(level="warning"), stream=stream)
    log.get_logger().info("child_started")
    assert stream.getvalue() == ""


def test_repeated_errors_are_suppressed_but_all_of_them_are_counted(lines):
    counted: list[str] = []
    log.count_levels(counted.append)
    for _ in range(100):
        log.get_logger().error("store_failed")
    assert len(lines()) == 5
    assert counted == ["error"] * 100


def test_life_cycle_events_are_never_suppressed(lines):
    for _ in range(100):
        log.get_logger().info("child_started")
    assert len(lines()) == 100


def test_after_the_window_the_next_line_says_how_many_were_suppressed():
    now = [0.0]
    limiter = log.RepeatLimiter(burst=2, window_seconds=10, now=lambda: now[0])
    written = []
    for second in range(12):
        now[0] = float(second)
        with suppress(structlog.DropEvent):
            written.append(dict(limiter(None, "error", {"event": "store_failed"})))
    assert written == [
        {"event": "store_failed"},
        {"event": "store_failed"},
        {"event": "store_failed", "suppressed": 8},
        {"event": "store_failed"},
    ]


def test_a_flood_of_different_events_costs_no_memory():
    limiter = log.RepeatLimiter()
    for number in range(10_000):
        limiter(None, "error", {"event": f"event_{number}"})
    assert len(limiter._seen) <= 1000


def test_a_log_record_of_a_library_becomes_an_event(lines):
    logging.getLogger("asyncio").error("task %s failed", "x")
    (line,) = lines()
    assert (line["event"], line["library"], line["message"]) == (
        "library_logged",
        "asyncio",
        "task x failed",
    )


def test_an_exception_is_one_field(lines):
    try:
        raise ValueError("no")
    except ValueError:
        log.get_logger().exception("handler_failed")
    assert "ValueError: no" in lines()[0]["exception"]


def test_a_closed_stream_does_not_disturb_logging():
    stream = io.StringIO()
    log.configure(LogConfig(), stream=stream)
    stream.close()
    log.get_logger().error("child_lost")


def test_on_a_terminal_lines_are_for_people_and_clear_the_status_line():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    log.configure(LogConfig(), stream=stream)
    log.get_logger().info("child_started", pid=7)
    assert stream.getvalue().startswith(log.CLEAR_LINE)
    assert "child_started" in stream.getvalue()
    assert not stream.getvalue().removeprefix(log.CLEAR_LINE).startswith("{")


def test_on_a_terminal_what_others_wrote_is_escaped():
    out = io.StringIO()
    log.configure(LogConfig(format="console"), stream=out)
    log.get_logger().warning("child_wrote", text="a\x1b[2Jb", name="\u202eabc", both="\x9b1m x")
    try:
        raise ValueError("a\x1b[1mc")
    except ValueError:
        log.get_logger().exception("handler_failed")
    assert not {"\x1b", "\u202e", "\x9b"} & set(out.getvalue())
    assert "a\\x1b[2Jb" in out.getvalue()
    assert "ValueError: a\\x1b[1mc" in out.getvalue()


PRINTS = """
import os, sys
from cluster import log

log.write_prints_without_blocking()
print("whole", "\\udce9", flush=True)
log.flush()
if not (child := os.fork()):
    print("forked", flush=True)
    os._exit(0)
os.waitpid(child, 0)
sys.stdout.buffer.write(b"bytes\\n")
print("no end of line", end="")
"""


def test_what_a_worker_prints_is_written_also_without_an_end_of_line_and_after_a_fork():
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], capture_output=True, timeout=60, check=True
    )
    assert done.stderr == b""
    assert done.stdout == b"whole \\udce9\nforked\nbytes\nno end of line"


def test_a_worker_whose_standard_output_is_closed_starts():
    words = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable]
    code = "from cluster import log; log.write_prints_without_blocking(); print(1)"
    assert subprocess.run([*words, code], timeout=60, check=False).returncode == 0
