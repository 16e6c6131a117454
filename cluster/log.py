"""Structured logs: one line per event, past-tense snake_case, JSON unless on a terminal.

- Context that is true of a whole process (`instance`, `worker`) is bound once, in `configure`.
- A warning or error that repeats is written a few times per window; the next line that is written
  says how many were `suppressed`. All of them are counted.
- `cluster.metrics` is on the same layer, so it is not imported here: it installs a callback
  with `count_levels`.
- Besides standard output, every process of a cluster appends to one file, always as JSON. The owner
  of the file bounds its size by truncating it.
- A line that cannot be written is dropped; a failure of logging never disturbs the service.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

from cluster.config import LogConfig
from cluster.terminal_text import escaped_lines

LEVELS: Final = ("debug", "info", "warning", "error")
FILE_VARIABLE: Final = "APP_LOG_FILE"
CLEAR_LINE: Final = "\r\x1b[2K"

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


def count_levels(hook: Callable[[str], None]) -> None:
    """Call `hook` with the level of every event, written or suppressed."""
    _counter.hook = hook


class _File:
    """The file that every line is appended to besides the stream; None until `open`."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._fd = -1
        self._render = structlog.processors.JSONRenderer()

    def open(self, path: Path | None) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self.path, self._fd = None, -1
        if path is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(path, flags, 0o600)
            self.path = path

    def __call__(self, logger: WrappedLogger, method: str, event: Event) -> Event:
        if self._fd >= 0:
            plain = structlog.processors.format_exc_info(logger, method, dict(event))
            line = str(self._render(logger, method, plain)) + "\n"
            with suppress(OSError):
                os.write(self._fd, line.encode("utf-8", "replace"))
        return event


_file: Final = _File()


def also_write(path: Path | None) -> None:
    """Append every line to this file too, as JSON; None stops it.

    Raises:
        OSError: if it cannot be opened.
    """
    _file.open(path)


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


class _Output:
    """A stream that may be closed at any time; on a terminal each write clears the status line."""

    def __init__(self, stream: TextIO, *, is_console: bool) -> None:
        self._stream = stream
        self._prefix = CLEAR_LINE if is_console and is_terminal(stream) else ""

    def write(self, line: str) -> int:
        try:
            return self._stream.write(self._prefix + line)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


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
    config: LogConfig, *, instance: str = "", worker: str = "", stream: TextIO | None = None
) -> None:
    """Set up logging for this process.

    Args:
        config: level and format.
        instance: `host:port` of the admin port, as in the label of metrics.
        worker: the lane of a worker, "" in other processes.
        stream: receives the lines; standard output if None.
    """
    out = stream or sys.stdout
    as_json = is_json(config, out)
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
        logger_factory=structlog.WriteLoggerFactory(
            file=cast(TextIO, _Output(out, is_console=not as_json))
        ),
        cache_logger_on_first_use=False,
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
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _escape_values(_: WrappedLogger, __: str, event: Event) -> Event:
    """Show what acts on a terminal as its escape; JSON escapes it by itself."""
    return {k: escaped_lines(v) if isinstance(v, str) else v for k, v in event.items()}


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
