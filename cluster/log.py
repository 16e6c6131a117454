"""Structured logs: one line per event, past-tense snake_case, JSON unless on a terminal.

- Context that is true of a whole process (`instance`, `worker`) is bound once, in `configure`.
- A warning or error that repeats is written a few times per window; the next line that is written
  says how many were `suppressed`. All of them are counted.
- `cluster.metrics` is on the same layer, so it is not imported here: it installs a callback
  with `count_levels`.
- Besides standard output, every process of a cluster appends to one file, always as JSON. The owner
  of the file bounds its size by truncating it; a renamed file is created again.
- Logging never blocks: standard output and the file are written by a thread each
  (`cluster.line_writer`). A line that cannot be written is dropped and counted.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import ExcInfo, FilteringBoundLogger, Processor, WrappedLogger

from cluster.config import LogConfig
from cluster.line_writer import LineWriter, PrintedBytes, open_for_append
from cluster.terminal_text import escaped_lines

LEVELS: Final = ("debug", "info", "warning", "error")
FILE_VARIABLE: Final = "APP_LOG_FILE"
CLEAR_LINE: Final = "\r\x1b[2K"

#: The values of the label `output` of dropped lines.
STREAM: Final = "stream"
FILE: Final = "file"

_STANDARD_FDS: Final = (1, 2)
_BURST: Final = 5
_WINDOW_SECONDS: Final = 30.0
_MAXIMUM_KEYS: Final = 1000

Event = MutableMapping[str, Any]


class _LevelCounter:
    """Calls `hook` with the level of every event."""

    def __init__(self) -> None:
        self.hook: Callable[[str], None] = _count_nothing

    def __call__(self, _: WrappedLogger, method: str, event: Event) -> Event:
        self.hook(method if method in LEVELS else "error")
        return event


def _count_nothing(level: str) -> None:
    """The hook until `count_levels` installs another."""


_counter: Final = _LevelCounter()


class _Levels:
    """What `configure` was given."""

    def __init__(self) -> None:
        self.has_debug = False


_levels: Final = _Levels()


def is_debug() -> bool:
    """Whether debug lines are written: gathering the values of one costs more than to ask."""
    return _levels.has_debug


def count_levels(hook: Callable[[str], None]) -> None:
    """Call `hook` with the level of every event, written or suppressed."""
    _counter.hook = hook


class _DropCounter:
    """Calls `hook` with the output of every line that was dropped."""

    def __init__(self) -> None:
        self.hook: Callable[[str], None] = _count_nothing

    def __call__(self, output: str) -> None:
        self.hook(output)


_drops: Final = _DropCounter()


def count_dropped_lines(hook: Callable[[str], None]) -> None:
    """Call `hook` with `stream` or `file` for every line dropped there, from any thread."""
    _drops.hook = hook


def _line_writer(fd: int, output: str, path: str = "") -> LineWriter:
    def mention(lines: int) -> None:
        get_logger().warning("log_lines_dropped", lines=lines, output=output)

    return LineWriter(fd, path=path, dropped=lambda: _drops(output), flows_again=mention)


class _File:
    """The file that every line is appended to besides the stream; None until `open`."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.writer: LineWriter | None = None
        self._render = structlog.processors.JSONRenderer()

    def open(self, path: Path | None) -> None:
        if self.writer is not None:
            self.writer.close()
        self.path, self.writer = None, None
        if path is not None:
            self.writer = _line_writer(open_for_append(str(path)), FILE, str(path))
            self.path = path

    def __call__(self, logger: WrappedLogger, method: str, event: Event) -> Event:
        if self.writer is not None:
            plain = structlog.processors.format_exc_info(logger, method, dict(event))
            line = str(self._render(logger, method, plain)) + "\n"
            self.writer.write(line.encode("utf-8", "replace"))
        return event


_file: Final = _File()


def also_write(path: Path | None) -> None:
    """Append every line to this file too, as JSON; None stops it.

    Raises:
        OSError: if it cannot be opened.
    """
    _file.open(path)


def reopen() -> None:
    """Open the file again before the next line, as after a rotation."""
    if _file.writer is not None:
        _file.writer.reopen()


def child_environment() -> dict[str, str]:
    """Environment variables that make a child process append to the same file."""
    return {} if _file.path is None else {FILE_VARIABLE: str(_file.path)}


def write_inherited_file() -> None:
    """Append to the file that the parent process named, unless it cannot be opened."""
    if path := os.environ.get(FILE_VARIABLE):
        with suppress(OSError):
            also_write(Path(path))


class ExceptionFilter(logging.Filter):
    """Drops records of one kind of exception from a standard logger, and counts them.

    aiohttp logs each malformed request that it answers with a traceback.
    """

    def __init__(self, kind: type[BaseException], count: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._kind = kind
        self._count = count

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, self._kind):
            return True
        self._count()
        return False


class RepeatLimiter:
    """Passes a few equal warnings or errors per window and counts the rest.

    Events are equal if their level, event and library are. The dictionary is bounded: it is
    emptied when it is full, so a flood of different events may repeat lines but uses no more memory.
    """

    def __init__(
        self,
        *,
        burst: int = _BURST,
        window_seconds: float = _WINDOW_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._window = window_seconds
        self._now = now
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}

    def __call__(self, _: WrappedLogger, method: str, event: Event) -> Event:
        if method in ("debug", "info"):
            return event
        key = (method, str(event.get("event")), str(event.get("library", "")))
        now = self._now()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= self._window:
            if count > self._burst:
                event["suppressed"] = count - self._burst
            since, count = now, 0
        self._remember(key, since, count + 1)
        if count >= self._burst:
            raise structlog.DropEvent
        return event

    def _remember(self, key: tuple[str, str, str], since: float, count: int) -> None:
        if len(self._seen) >= _MAXIMUM_KEYS and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (since, count)


class _Context:
    """Adds the context of the process to every line."""

    def __init__(self, context: dict[str, str]) -> None:
        self._context = context

    def __call__(self, _: WrappedLogger, method: str, event: Event) -> Event:
        for name, value in self._context.items():
            event.setdefault(name, value)
        return event


# The writers of standard output and standard error, by descriptor; made at the first use.
_standard: Final[dict[int, LineWriter]] = {}


def _standard_writer(stream: TextIO) -> LineWriter | None:
    """The writer of a standard stream; None for another stream, which is written directly."""
    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        return None
    if fd not in _STANDARD_FDS:
        return None
    if fd not in _standard:
        _standard[fd] = _line_writer(fd, STREAM)
    return _standard[fd]


def write_text(stream: TextIO, text: str, *, is_counted: bool = True) -> None:
    """Write text to a stream, after the lines that wait for it; never blocks.

    Args:
        stream: standard output or standard error; any other stream is written directly.
        text: whole lines, or a status line.
        is_counted: whether it counts as a line if it has to be dropped.
    """
    try:
        writer = _standard_writer(stream)
        if writer is not None:
            data = text.encode(stream.encoding or "utf-8", "backslashreplace")
            writer.write(data, is_counted=is_counted)
            return
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return


def write_prints_without_blocking() -> None:
    """Replace `sys.stdout` by a stream that puts its lines behind those of the log; for a worker.

    What writes to descriptor 1 itself, as a subprocess does, may still block.
    """
    # None if it was closed when Python started; pytest's has no descriptor.
    writer = _standard_writer(sys.stdout) if sys.stdout else None
    if writer is None:
        return
    sys.stdout = io.TextIOWrapper(
        cast(io.BufferedIOBase, PrintedBytes(writer, sys.stdout.fileno())),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
    # Before `flush`, which is called after it.
    atexit.register(sys.stdout.flush)
    # What a forked process prints would wait in its stream when it ends with `os._exit`.
    os.register_at_fork(after_in_child=_print_directly)


def _print_directly() -> None:
    sys.stdout = cast(TextIO, sys.__stdout__)


def flush() -> None:
    """Wait a bounded time until the lines that wait are written."""
    for writer in (*_standard.values(), *([_file.writer] if _file.writer else [])):
        writer.flush()


atexit.register(flush)


def print_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an exception that nothing caught, without blocking; a `sys.excepthook`."""
    write_text(sys.stderr, "".join(traceback.format_exception(kind, error, trace)))


class _Output:
    """A stream that may be closed at any time; on a terminal each line clears the status line.

    structlog's own logger holds a lock in each line: a finalizer that logs, or a forked process, would wait
    for it for ever.
    """

    def __init__(self, stream: TextIO, *, is_console: bool) -> None:
        self._stream = stream
        self._prefix = CLEAR_LINE if is_console and is_terminal(stream) else ""

    def msg(self, line: str) -> None:
        write_text(self._stream, f"{self._prefix}{line}\n")

    debug = info = warning = error = critical = exception = msg


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is an open terminal."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def is_json(config: LogConfig, stream: TextIO) -> bool:
    """Whether lines on this stream are JSON."""
    return config.format == "json" or (config.format == "auto" and not is_terminal(stream))


def configure(
    config: LogConfig,
    *,
    instance: str = "",
    worker: str = "",
    stream: TextIO | None = None,
    is_final: bool = False,
) -> None:
    """Set up logging for this process.

    Args:
        config: level and format.
        instance: `host:port` of the admin port, as in the label of metrics.
        worker: the lane of a worker, "" in other processes.
        stream: receives the lines; standard output if None.
        is_final: whether this is the only call in this process. Then a logger is made ready at its
            first line, and a line below the level costs half as much.
    """
    _levels.has_debug = config.level == "debug"
    out = stream or sys.stdout
    as_json = is_json(config, out)
    output = _Output(out, is_console=not as_json)
    context = {k: v for k, v in (("instance", instance), ("worker", worker)) if v}
    structlog.configure(
        processors=[
            _counter,
            RepeatLimiter(),
            _Context(context),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.StackInfoRenderer(),
            _file,
            *_renderers(as_json, out),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(config.level),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=is_final,
    )
    _redirect_standard_logging(config.level)


def _renderers(as_json: bool, out: TextIO) -> list[Processor]:
    if as_json:
        return [
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            structlog.processors.JSONRenderer(),
        ]
    return [
        _escape_values,
        structlog.dev.ConsoleRenderer(
            colors=is_terminal(out),
            timestamp_key="ts",
            exception_formatter=_escaped_traceback,
        ),
    ]


def _escape_values(_: WrappedLogger, __: str, event: Event) -> Event:
    """Show what acts on a terminal as its escape; JSON escapes it by itself."""
    return {k: escaped_lines(v) if isinstance(v, str) else v for k, v in event.items()}


def _escaped_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    out.write(escaped_lines(text.getvalue()))


class _StructlogHandler(logging.Handler):
    """Turns log records of libraries into structured events."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        try:
            get_logger().log(
                logging.getLevelName(level.upper()) if level in LEVELS else logging.ERROR,
                "library_logged",
                library=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:  # noqa: BLE001 - a handler of logging must not raise
            self.handleError(record)


def _redirect_standard_logging(level: str) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _StructlogHandler):
            root.removeHandler(handler)
    root.addHandler(_StructlogHandler())
    root.setLevel(max(logging.getLevelName(level.upper()), logging.WARNING))


def get_logger(**context: object) -> FilteringBoundLogger:
    """A logger with this context bound to it."""
    return cast(FilteringBoundLogger, structlog.get_logger(**context))
