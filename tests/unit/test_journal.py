"""What a whole stop leaves to the next start."""

from __future__ import annotations

from cluster.supervisor.journal import Journal, Shutdown

CLEAN = Shutdown("clean", 1.5, {"clients": 1.0, "exit": 0.5})
KILLED = Shutdown("killed", None, {})


def test_what_is_written_is_read_in_order(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append(CLEAN)
    journal.append(KILLED)
    assert Journal(tmp_path / "j").read() == [CLEAN, KILLED]


def test_a_line_cut_short_is_skipped(tmp_path):
    path = tmp_path / "j"
    Journal(path).append(CLEAN)
    with path.open("ab") as file:
        file.write(b'{"outcome": "cle\n[]\n{"outcome": 1}\n\xff\n')
    assert Journal(path).read() == [CLEAN]


def test_no_file_is_no_shutdown_and_clearing_twice_is_fine(tmp_path):
    journal = Journal(tmp_path / "j")
    assert journal.read() == []
    journal.append(CLEAN)
    journal.clear()
    journal.clear()
    assert journal.read() == []
