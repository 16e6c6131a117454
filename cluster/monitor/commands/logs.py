"""`monitor logs`: log lines of services and events of alerts, in order of time.

Rules
- `monitoring up` writes one file per process into <data dir>/log; `ws-cluster up` writes app.log and
  nginx's access.log into <its own data dir>/log, for which --cluster-dir can be given. Without app.log,
  systemd's journal is read.
- A line's time is in the line (JSON `ts` or `time`, or at its beginning); a line without a time has
  that of the line before it.
- Alert lines come from the incident store and begin with ALERT.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cluster import durations
from cluster.errors import NotFound, UsageError
from cluster.given_path import absolute_path
from cluster.monitor import endpoints
from cluster.monitor.endpoints import Endpoints
from cluster.monitor.incidents.store import FILE_NAME, IncidentStore
from cluster.terminal_text import escaped, print_lines

_STACK: Final = ("prometheus", "alertmanager", "node_exporter", "receiver", "tracker")
_APP: Final = ("app", "nginx")
SERVICES: Final = (*_APP, *_STACK)
_OTHER_NAMES: Final = {
    "websocket-app": "app",
    "websocket": "app",
    "cluster": "app",
    "node-exporter": "node_exporter",
    "monitor": "tracker",
}
_LINES: Final = 50
_POLL_SECONDS: Final = 0.3
_MOST_READ_BYTES: Final = 64 << 20
_STARTS_WITH_TIME: Final = re.compile(
    r"^\s*(?:ts=|time=)?\"?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*)"
)
_UNIT: Final = "ws-cluster"


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its time and its source."""

    at: float
    source: str
    text: str


def logs(arguments: Namespace) -> int:
    """`monitor logs`."""
    where = Endpoints.of(arguments)
    pattern = _pattern(arguments.grep)
    sources = _sources(arguments, where)
    since = time.time() - _since(arguments.since) if arguments.since else 0.0
    lines = [line for source in sources for line in source.read() if line.at >= since]
    if not arguments.since:
        lines = sorted(lines, key=lambda line: line.at)[-_LINES:]
        since = lines[0].at if lines else time.time()
    alerts = _Alerts(where.data_dir) if arguments.alerts else None
    if alerts is not None:
        lines += alerts.read(since)
    is_tagged = len(sources) > 1
    _write(lines, pattern, is_tagged=is_tagged)
    if arguments.follow:
        with suppress(KeyboardInterrupt):
            _follow(sources, alerts, pattern, is_tagged=is_tagged)
    return 0


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UsageError(f"--grep {text!r} is not a regular expression: {error}") from None


def _since(text: str) -> float:
    try:
        return durations.seconds_of(text)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None


# --- sources of lines --------------------------------------------------------------------


@dataclass(slots=True)
class _File:
    """A log file, which may be truncated or replaced."""

    name: str
    path: Path
    offset: int = 0
    last_at: float = 0.0
    rest: bytes = field(default=b"")
    has_begun: bool = False

    def read(self) -> list[Line]:
        """The lines since the last call; at first also the older file, at most 64 MiB of each."""
        if self.has_begun:
            return self._added()
        self.has_begun = True
        older = _File(self.name, self.path.with_suffix(".log.1"), has_begun=True)
        lines = older.read()
        self.last_at = older.last_at
        return lines + self._added()

    def _added(self) -> list[Line]:
        with suppress(OSError), self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self.offset:
                self.offset, self.rest = 0, b""
            if size - self.offset > _MOST_READ_BYTES:
                self.offset = size - _MOST_READ_BYTES
            file.seek(self.offset)
            data = self.rest + file.read(_MOST_READ_BYTES)
            self.offset = file.tell()
            *whole, self.rest = data.split(b"\n")
            return [self._line(raw.decode("utf-8", "replace")) for raw in whole]
        return []

    def _line(self, text: str) -> Line:
        self.last_at = time_of(text) or self.last_at
        return Line(self.last_at, self.name, text)


@dataclass(slots=True)
class _Unit:
    """The journal of a systemd unit."""

    name: str
    cursor: str = ""

    def read(self) -> list[Line]:
        """The lines since the last call; at first the last 10,000."""
        command = ["journalctl", "--unit", _UNIT, "--output", "json", "--quiet", "--no-pager"]
        command += ["--after-cursor", self.cursor] if self.cursor else ["--lines", "10000"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = []
        for raw in done.stdout.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(raw)
                self.cursor = entry["__CURSOR"]
                at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
                found.append(Line(at, self.name, str(entry["MESSAGE"])))
        return found


_Source = _File | _Unit


def _sources(arguments: Namespace, where: Endpoints) -> list[_Source]:
    name = _OTHER_NAMES.get(arguments.service, arguments.service)
    if arguments.file:
        path = absolute_path(arguments.file, "--file")
        if not path.is_file():
            raise NotFound(f"{path} is not a file: --file names the log to read")
        return [_File(name, path)]
    cluster = _cluster_dir(arguments)
    if name == "all":
        found = [source for one in SERVICES if (source := _source(one, where, cluster))]
        if not found:
            raise NotFound(f"no service has written a log below {where.data_dir}")
        return found
    if name not in SERVICES:
        known = ", ".join(SERVICES)
        raise NotFound(f"no service is called {arguments.service}: there are {known} and all")
    source = _source(name, where, cluster)
    if source is None:
        raise NotFound(_why_none(name, where, cluster))
    return [source]


def _cluster_dir(arguments: Namespace) -> Path:
    given = arguments.cluster_dir
    return absolute_path(given, "--cluster-dir") if given else endpoints.cluster_dir()


def _source(name: str, where: Endpoints, cluster: Path) -> _Source | None:
    folder = (where.data_dir if name in _STACK else cluster) / "log"
    path = folder / ("access.log" if name == "nginx" else f"{name}.log")
    if path.is_file():
        return _File(name, path)
    if name == "app" and _has_unit():
        return _Unit(name)
    return None


def _has_unit() -> bool:
    if shutil.which("journalctl") is None:
        return False
    command = ["journalctl", "--unit", _UNIT, "--lines", "1", "--quiet", "--output", "cat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


def _why_none(name: str, where: Endpoints, cluster: Path) -> str:
    if name in _APP:
        return (
            f"{name} has written no log below {cluster}: start the cluster, name its data directory"
            " with --cluster-dir, or the file with --file"
        )
    return (
        f"{name} has written no log below {where.data_dir}: start it, or name the file with --file"
    )


class _Alerts:
    """Alert lines from the incident store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = 0

    def read(self, since: float = 0.0) -> list[Line]:
        """The events since the last call."""
        if not (self._folder / FILE_NAME).is_file():
            return []
        store = IncidentStore(self._folder, read_only=True)
        try:
            found = store.events(since, after_id=self._last)
            # Not only the last one found: events older than `since` must not be returned later.
            self._last = max([store.last_event(), *(number for number, _ in found)])
        finally:
            store.close()
        return [
            Line(
                event.at,
                "alert",
                escaped(
                    f"ALERT {durations.rfc3339(event.at)} {event.alertname} {event.kind}"
                    f" (incident {event.incident_id}) {event.text}".rstrip()
                ),
            )
            for _, event in found
        ]


# --- in order of time --------------------------------------------------------------------


def time_of(text: str) -> float:
    """The time in a line; 0.0 if there is none."""
    with suppress(ValueError):
        if text.startswith("{"):
            document = json.loads(text)
            return durations.unix(str(document.get("ts") or document.get("time") or ""))
        if found := _STARTS_WITH_TIME.match(text):
            return durations.unix(found[1].rstrip('"'))
    return 0.0


def _write(lines: Iterable[Line], pattern: re.Pattern[str] | None, *, is_tagged: bool) -> None:
    for line in sorted(lines, key=lambda one: one.at):
        if pattern is None or pattern.search(line.text):
            tag = f"{line.source:<14}" if is_tagged else ""
            print_lines(f"{tag}{line.text}")
    sys.stdout.flush()


def _follow(
    sources: list[_Source],
    alerts: _Alerts | None,
    pattern: re.Pattern[str] | None,
    *,
    is_tagged: bool,
) -> None:
    for lines in _new_lines(sources, alerts):
        _write(lines, pattern, is_tagged=is_tagged)


def _new_lines(sources: list[_Source], alerts: _Alerts | None) -> Iterator[list[Line]]:
    while True:
        time.sleep(_POLL_SECONDS)
        lines = [line for source in sources for line in source.read()]
        yield lines + (alerts.read() if alerts else [])
