"""Structured logs: one line per event, past-tense snake_case, JSON when not on a terminal.

Rules
- Context that holds for a process (`instance`, `worker`) is bound once, in `configure`.
- A warning or error that repeats is written a few times per window; the next line written
  after it says how many were `suppressed`. Every one of them is counted.
- Metrics stand on the same rung: they install `count_levels` and this module calls it.
- Beside standard output, every process of a cluster appends to one file, always as JSON. Whoever
  owns the file keeps it bounded by emptying it in place.
- A log line that cannot be written is dropped; logging never ends or disturbs the service.
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

LEVELS: Final = ("debug", "info", "warning", "error")
FILE_VARIABLE: Final = "APP_LOG_FILE"
CLEAR_LINE: Final = "\r\x1b[2K"

_BURST: Final = 5
_WINDOW_SECONDS: Final = 30.0
_MAXIMUM_KEYS: Final = 1000

Event = MutableMapping[str, Any]


class _LevelCounter:
    """Calls whoever wants to know the level of every event; nobody at first."""

    def __init__(self) -> None:
        self.hook: Callable[[str], None] = _nobody

    def __call__(self, _: WrappedLogger, method: str, event: Event) -> Event:
        self.hook(method if method in LEVELS else "error")
        return event


def _nobody(level: str) -> None:
    """Count nothing."""


_counter: Final = _LevelCounter()


def count_levels(hook: Callable[[str], None]) -> None:
    """Install what is called with the level of every event, written or suppressed."""
    _counter.hook = hook


class _File:
    """The file beside the stream; none at first."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._fd = -1
        self._render = structlog.processors.JSONRenderer()

    def open(self, path: Path | None) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self.path, self._fd = None, -1
        if path is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
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
    """Append every line to this file too, as JSON; None ends that.

    Raises:
        OSError: it cannot be opened.
    """
    _file.open(path)


def inherited() -> dict[str, str]:
    """What the environment of a child says about the file."""
    return {} if _file.path is None else {FILE_VARIABLE: str(_file.path)}


def inherit() -> None:
    """Append to the file that the starter's environment names; do without if that fails."""
    if path := os.environ.get(FILE_VARIABLE):
        with suppress(OSError):
            also_write(Path(path))


class Unlogged(logging.Filter):
    """Keeps one kind of exception out of a standard logger, and tells whoever counts it.

    For bad requests that aiohttp answers: it logs them with a traceback.
    """

    def __init__(
        self, kind: type[BaseException], counted: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._kind = kind
        self._counted = counted

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, self._kind):
            return True
        self._counted()
        return False


class RepeatLimiter:
    """Lets a few equal warnings or errors through per window and counts the rest.

    Equal means: the same level, event and library. The dictionary is bounded; when it is
    full it is emptied, so a flood of different events costs repeats, never memory.
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
    """Adds what is true of every line of this process."""

    def __init__(self, facts: dict[str, str]) -> None:
        self._facts = facts

    def __call__(self, _: WrappedLogger, method: str, event: Event) -> Event:
        for name, value in self._facts.items():
            event.setdefault(name, value)
        return event


class _Output:
    """A stream that may go away; on a terminal it clears the status line first."""

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
    """Whether somebody may be looking at this stream."""
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
        instance: `host:port` of the operator's door; the same label metrics carry.
        worker: the lane, in a worker.
        stream: where lines go; standard output if not given.
    """
    out = stream or sys.stdout
    as_json = is_json(config, out)
    facts = {name: fact for name, fact in (("instance", instance), ("worker", worker)) if fact}
    structlog.configure(
        processors=[
            _counter,
            RepeatLimiter(),
            _Context(facts),
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
    _take_over_standard_logging(config.level)


def _renderers(as_json: bool, out: TextIO) -> list[Processor]:
    if as_json:
        return [
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.dev.ConsoleRenderer(
            colors=is_terminal(out),
            timestamp_key="ts",
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


class _Bridge(logging.Handler):
    """Turns what libraries log into events of ours."""

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
        except Exception:  # noqa: BLE001 - logging's own rule: a handler never raises
            self.handleError(record)


def _take_over_standard_logging(level: str) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Bridge):
            root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(max(logging.getLevelName(level.upper()), logging.WARNING))


def get_logger(**context: object) -> FilteringBoundLogger:
    """A logger with its context bound once."""
    return cast(FilteringBoundLogger, structlog.get_logger(**context))
