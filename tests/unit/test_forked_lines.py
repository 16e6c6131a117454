"""Processes that an application forks, as multiprocessing does: what they log is written, and none of them hangs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Longer than any of these takes on a busy machine: what hangs, hangs for ever.
WITHIN = 120

BEFORE = """
import concurrent.futures, logging, multiprocessing, os, sys, threading
from cluster import log
from cluster.config import LogConfig
from cluster.line_writer import LineWriter

def say(number):
    log.get_logger().info("child_logged", number=number)
    logging.getLogger("app").warning("by the standard library")

def configure(path):
    log.configure(LogConfig(level="info", format="json"), is_final=True)
    log.also_write(path)
    log.get_logger().info("parent_logged")
    log.flush()

def forked(work):
    if not (child := os.fork()):
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
"""

WAYS = {
    "os.fork": "forked(lambda: say(1))",
    "multiprocessing": (
        "one = multiprocessing.get_context('fork').Process(target=say, args=(1,))\n"
        "one.start()\none.join()"
    ),
    "a pool": (
        "context = multiprocessing.get_context('fork')\n"
        "with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:\n"
        "    pool.submit(say, 1).result()"
    ),
    "a fork of a fork": "forked(lambda: (say(0), forked(lambda: say(1))))",
}


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEFORE + code, *arguments]
    done = subprocess.run(words, capture_output=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done


@pytest.mark.parametrize("way", WAYS)
def test_what_a_forked_process_logs_is_written_before_it_ends(way: str, tmp_path):
    file = tmp_path / "log"
    done = run(f"from pathlib import Path\nconfigure(Path(sys.argv[1]))\n{WAYS[way]}", str(file))
    for text in (done.stdout, file.read_bytes()):
        lines = [json.loads(line) for line in text.splitlines()]
        numbers = [one["number"] for one in lines if one["event"] == "child_logged"]
        assert numbers == ([0, 1] if way == "a fork of a fork" else [1])
        messages = [one["message"] for one in lines if one["event"] == "library_logged"]
        assert messages == ["by the standard library"] * len(numbers)
        assert [one["event"] for one in lines].count("parent_logged") == 1


HELD = """
writer = LineWriter(1)
writer.write(b"of the parent\\n")
assert writer.flush()
held, done = threading.Event(), threading.Event()

def hold():
    with writer._changed:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
forked(lambda: writer.write(b"of the child\\n"))
done.set()
thread.join()
"""


def test_a_process_that_is_forked_while_another_thread_logs_does_not_hang():
    assert run(HELD).stdout == b"of the parent\nof the child\n"


STUCK = """
reads, writes = os.pipe()
writer = LineWriter(writes, max_bytes=300_000)
for _ in range(2_500):
    writer.write(b"x" * 99 + b"\\n")
assert not writer.flush(0.0)

def child():
    drops = []
    writer._on_drop = lambda: drops.append(1)
    assert writer.flush(), "nothing waits in this process"
    for _ in range(4_000):
        writer.write(b"y" * 99 + b"\\n")
    assert drops, "it has dropped what does not fit"
    # The parent alone writes what has waited there.
    os.dup2(os.open("/dev/null", os.O_WRONLY), writes)

forked(child)
data, wanted = b"", 2_500 * 100
while data.count(b"x") < 2_500 * 99:
    data += os.read(reads, 65536)
assert writer.flush()
assert data.count(b"x") == 2_500 * 99
print("whole")
"""


def test_a_forked_process_does_not_write_its_parents_lines_again_and_does_not_wait_for_a_stuck_output():
    assert run(STUCK).stdout == b"whole\n"


IN_A_LINE = """
configure(None)
write_text, held, done = log.write_text, threading.Event(), threading.Event()

def slowly(stream, text, **options):
    if threading.current_thread() is thread:
        held.set()
        done.wait()
    write_text(stream, text, **options)

log.write_text = slowly
thread = threading.Thread(target=lambda: log.get_logger().info("parent_logged"))
thread.start()
held.wait()
forked(lambda: say(1))
done.set()
thread.join()
"""


def test_a_process_that_is_forked_in_the_middle_of_a_line_does_not_hang():
    lines = [json.loads(line) for line in run(IN_A_LINE).stdout.splitlines()]
    named = [one["event"] for one in lines]
    assert named == ["parent_logged", "child_logged", "library_logged", "parent_logged"]


WITHIN_A_LINE = """
configure(None)
write_text = log.write_text

def with_a_finalizer(stream, text, **options):
    log.write_text = write_text
    log.get_logger().info("finalizer_logged")
    write_text(stream, text, **options)

log.write_text = with_a_finalizer
log.get_logger().info("line_logged")
"""


def test_a_finalizer_that_logs_in_the_middle_of_a_line_does_not_hang():
    named = [json.loads(line)["event"] for line in run(WITHIN_A_LINE).stdout.splitlines()]
    assert named == ["parent_logged", "finalizer_logged", "line_logged"]
