"""The writer of lines: never blocks, drops what does not fit, and survives every fault of its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from cluster.line_writer import LineWriter, open_for_append
from tests.harness.small_disk import fill, small_disk
from tests.integration.running import ROOT, eventually


@pytest.fixture
def pipe():
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    yield reads, writes
    for fd in (reads, writes):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_all(fd: int) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            data += chunk
    return data


def test_a_full_pipe_drops_lines_within_a_bounded_memory_and_says_how_many(pipe):
    reads, writes = pipe
    drops: list[int] = []
    mentioned: list[int] = []
    writer = LineWriter(
        writes, dropped=lambda: drops.append(1), flows_again=mentioned.append, max_bytes=10_000
    )
    line = b"x" * 99 + b"\n"
    for _ in range(1000):
        writer.write(line)
    # The pipe, the queue, and the batch in the thread's hands.
    assert len(drops) >= 1000 - (4096 + 10_000 + 4096) // 100 - 1
    assert writer.flush() is False
    got = bytearray()

    def flows_again() -> bool:
        got.extend(read_all(reads))
        return bool(mentioned)

    eventually(flows_again, "it flows again")
    got.extend(read_all(reads))
    assert mentioned == [len(drops)]
    assert got == line * (1000 - len(drops))


def test_a_reader_that_has_gone_is_counted_and_not_reported_in_a_circle(pipe):
    reads, writes = pipe
    os.close(reads)
    drops = []
    writer = LineWriter(
        writes,
        dropped=lambda: drops.append(1),
        flows_again=lambda lines: writer.write(b"again\n"),
    )
    writer.write(b"one\n")
    writer.write(b"two\n")
    assert writer.flush()
    assert len(drops) == 2


def test_a_descriptor_that_another_process_made_non_blocking_gets_every_line(pipe):
    reads, writes = pipe
    os.set_blocking(writes, False)
    writer = LineWriter(writes)
    lines = [b"%05d\n" % number for number in range(3000)]
    for line in lines:
        writer.write(line)
    got = bytearray()

    def all_arrived() -> bool:
        got.extend(read_all(reads))
        return len(got) == 18_000

    eventually(all_arrived, "all lines arrive")
    assert got == b"".join(lines)


def test_a_renamed_file_is_created_again_and_the_old_one_keeps_its_lines(tmp_path):
    path = tmp_path / "app.log"
    writer = LineWriter(open_for_append(str(path)), path=str(path))
    writer.write(b"before\n")
    assert writer.flush()
    path.rename(tmp_path / "app.log.1")
    writer.reopen()
    writer.write(b"after\n")
    writer.close()
    assert path.read_bytes() == b"after\n"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert (tmp_path / "app.log.1").read_bytes() == b"before\n"


def test_a_full_disk_drops_lines_and_the_next_one_starts_on_a_line_of_its_own(tmp_path):
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        check_full_disk(disk)


def check_full_disk(disk):
    path = disk / "app.log"
    drops: list[int] = []
    mentioned: list[int] = []
    writer = LineWriter(
        open_for_append(str(path)),
        path=str(path),
        dropped=lambda: drops.append(1),
        flows_again=mentioned.append,
    )
    filler = fill(disk)
    line = b"y" * 1000 + b"\n"
    for _ in range(20):
        writer.write(line)
    assert writer.flush()
    assert drops
    filler.unlink()
    writer.write(b"after\n")
    writer.close()
    assert mentioned == [len(drops)]
    assert path.read_bytes().splitlines()[-1] == b"after"


def test_a_line_written_while_the_lock_is_held_does_not_deadlock(pipe):
    reads, writes = pipe
    writer = LineWriter(writes)
    with writer._changed:  # as a finalizer that logs in the middle of a write
        writer.write(b"inner\n")
    assert writer.flush()
    assert read_all(reads) == b"inner\n"


def test_a_stuck_pipe_delays_the_end_of_a_process_only_for_a_bounded_time(pipe):
    _, writes = pipe
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"\n" * 100)
    os.set_blocking(writes, True)
    program = (
        "from cluster import log; from cluster.config import LogConfig;"
        "log.configure(LogConfig()); log.get_logger().info('child_started')"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=writes, check=True, timeout=60)
    assert time.monotonic() - began < 30


def test_the_last_lines_before_the_end_of_a_process_are_written():
    program = (
        "from cluster import log; from cluster.config import LogConfig;"
        "log.configure(LogConfig());"
        "[log.get_logger().info('child_started', number=n) for n in range(500)]"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.count(b"child_started") == 500


def test_no_thread_is_started_before_the_first_line(pipe):
    before = threading.active_count()
    LineWriter(pipe[1])
    assert threading.active_count() == before
