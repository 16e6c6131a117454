"""The shutdown log: written at a stop, read at the next start."""

from __future__ import annotations

from cluster.supervisor.shutdown_log import Shutdown, ShutdownLog

CLEAN = Shutdown("clean", 1.5, {"clients": 1.0, "exit": 0.5})
KILLED = Shutdown("killed", None, {})


def test_what_is_written_is_read_in_order(tmp_path):
    shutdown_log = ShutdownLog(tmp_path / "j")
    shutdown_log.append(CLEAN)
    shutdown_log.append(KILLED)
    assert ShutdownLog(tmp_path / "j").read() == [CLEAN, KILLED]


def test_a_line_cut_short_is_skipped(tmp_path):
    path = tmp_path / "j"
    ShutdownLog(path).append(CLEAN)
    with path.open("ab") as file:
        file.write(b'{"outcome": "cle\n[]\n{"outcome": 1}\n\xff\n')
    assert ShutdownLog(path).read() == [CLEAN]


def test_a_missing_file_has_no_shutdowns_and_can_be_cleared(tmp_path):
    shutdown_log = ShutdownLog(tmp_path / "j")
    assert shutdown_log.read() == []
    shutdown_log.append(CLEAN)
    shutdown_log.clear()
    shutdown_log.clear()
    assert shutdown_log.read() == []
