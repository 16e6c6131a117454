"""Writes lines to a file descriptor in a thread, so that a stuck reader or disk stops no event loop.

Guarantees
- `write` never blocks: a line waits in a bounded queue, or is dropped and counted. No lock is held
  during a system call, and the lock may be taken again by the thread that holds it (a log line of
  a finalizer).
- A line is written with one system call if it fits into PIPE_BUF, so lines of several processes
  that share a pipe do not mix.
- Lines that are waiting at the exit of the process are written within a bounded time.
- A forked process, whose end runs no exit handlers (`os._exit`, multiprocessing), begins with an empty queue
  and a thread of its own. A line of it is written when `write` returns; if the output is stuck it waits half a
  second for the first one, and for no other.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, cast

# A few hundred to a thousand lines, per process and output.
MAX_WAITING_BYTES: Final = 256 << 10
# POSIX guarantees that a write of so many bytes to a pipe is not split (PIPE_BUF on Linux).
_PIPE_BYTES: Final = 4096
_STUCK_SECONDS: Final = 0.5
_FLUSH_SECONDS: Final = 2.0
_WRITABLE_MILLISECONDS: Final = 1000
_CHECK_SECONDS: Final = 1.0


class LineWriter:
    """One output of this process.

    Args:
        fd: the file descriptor; the writer does not close it, unless it was given a path.
        path: the file at this descriptor. If it was renamed or deleted, it is created again; it is
            looked at once a second, and after `reopen`.
        dropped: called for every line that is dropped.
        flows_again: called in the writer's thread with the number of dropped lines, when all lines
            that waited have been written.
    """

    def __init__(
        self,
        fd: int,
        *,
        path: str = "",
        dropped: Callable[[], None] = lambda: None,
        flows_again: Callable[[int], None] = lambda lines: None,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._fd = fd
        self._path = path
        self._on_drop = dropped
        self._flows_again = flows_again
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._batches = 0
        self._dropped = 0
        self._is_closed = False
        self._is_torn = False
        self._looked_at = time.monotonic()
        self._is_forked = False
        # Reentrant, as a finalizer may log while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        _writers.add(self)

    # --- any thread ----------------------------------------------------------------------

    def write(self, line: bytes, *, is_counted: bool = True) -> None:
        """Append a line to the queue, or drop it if the queue is full.

        Args:
            line: with its end of line.
            is_counted: whether it counts if it is dropped; a status line does not.
        """
        with self._changed:
            fits = not self._is_closed and self._bytes + len(line) <= self._max_bytes
            is_taken = fits and self._has_thread()
            if is_taken:
                is_first = not self._bytes
                self._lines.append(line)
                self._bytes += len(line)
                self._changed.notify_all()
        if not is_taken:
            if is_counted:
                self._drop(1)
        elif self._is_forked and is_first and threading.current_thread() is not self._thread:
            self.flush()

    def reopen(self) -> None:
        """Open the file of the path anew before the next line."""
        self._looked_at = 0.0

    def flush(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Wait until all lines are written, as long as it makes progress; returns whether they are."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._bytes:
                before = self._batches
                self._changed.wait_for(lambda: self._batches != before, _STUCK_SECONDS)  # noqa: B023
                if self._batches == before or time.monotonic() > deadline:
                    return False
        return True

    def close(self) -> None:
        """Write what waits, within a bounded time, and write no line from now on."""
        is_flushed = self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            thread = self._thread
        # A thread that is stuck in a write still uses the descriptor.
        if is_flushed and thread is not None and thread is not threading.current_thread():
            thread.join()
        if self._path and is_flushed:
            os.close(self._fd)

    def _has_thread(self) -> bool:
        """Whether the thread runs; it is started with the first line, in a forked process too."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No more threads: of the user, or because the interpreter is ending.
                return False
            self._thread = thread
        return True

    def _drop(self, lines: int) -> None:
        with self._changed:
            self._dropped += lines
        for _ in range(lines):
            self._on_drop()

    def begin_anew(self) -> None:
        """Forget what the parent process left: its thread is not here, and whoever held the lock is not."""
        self._is_forked = True
        self._changed = threading.Condition(threading.RLock())
        self._lines.clear()
        self._bytes = self._dropped = 0
        self._thread = None

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    if self._is_closed:
                        return
                    self._changed.wait()
                batch = self._next_batch()
            self._look_at_path()
            is_written = self._write_batch(batch)
            lines = 0
            with self._changed:
                self._bytes -= sum(map(len, batch))
                self._batches += 1
                self._changed.notify_all()
                if is_written and not self._lines:
                    lines, self._dropped = self._dropped, 0
            if lines:
                self._flows_again(lines)

    def _next_batch(self) -> list[bytes]:
        batch = [self._lines.popleft()]
        size = len(batch[0])
        while self._lines and size + len(self._lines[0]) <= _PIPE_BYTES:
            batch.append(self._lines.popleft())
            size += len(batch[-1])
        return batch

    def _write_batch(self, batch: list[bytes]) -> bool:
        data = b"".join(batch)
        # A line that a full disk has cut short must not swallow the next one.
        rest = memoryview(b"\n" + data if self._is_torn else data)
        while rest:
            try:
                count = os.write(self._fd, rest)
            except BlockingIOError:
                # Another process that shares the output has set O_NONBLOCK.
                self._wait_until_writable()
                continue
            except OSError:
                self._drop(max(1, bytes(rest).count(b"\n")))
                return False
            rest = rest[count:]
            self._is_torn = bool(rest)
        return True

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(_WRITABLE_MILLISECONDS)

    def _look_at_path(self) -> None:
        """Create the file again if it was renamed or deleted, as logrotate does."""
        now = time.monotonic()
        if not self._path or now - self._looked_at < _CHECK_SECONDS:
            return
        self._looked_at = now
        try:
            here = os.fstat(self._fd)
            try:
                there = os.stat(self._path)  # noqa: PTH116 - the path is only compared
                is_same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            except FileNotFoundError:
                is_same = False
            if not is_same:
                fd = open_for_append(self._path)
                # The number stays, so that no other thread sees a closed descriptor.
                os.dup2(fd, self._fd, inheritable=False)
                os.close(fd)
        except OSError:
            return


_writers: Final[weakref.WeakSet[LineWriter]] = weakref.WeakSet()


def _begin_anew() -> None:
    for writer in list(_writers):
        writer.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


class PrintedBytes(io.RawIOBase):
    """What is printed, as the bytes below a text stream: they go to a writer, and never block."""

    def __init__(self, writer: LineWriter, fd: int) -> None:
        super().__init__()
        self._writer = writer
        self._fd = fd

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True

    def fileno(self) -> int:
        """The descriptor that the writer writes to."""
        return self._fd

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: object) -> int:
        """Take all of an object that holds bytes; what does not fit into the queue is dropped and counted."""
        taken = memoryview(cast(bytes, data)).tobytes()
        self._writer.write(taken)
        return len(taken)


def open_for_append(path: str) -> int:
    """Open a log file, private to this user; returns its descriptor.

    Raises:
        OSError: if it cannot be opened.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
