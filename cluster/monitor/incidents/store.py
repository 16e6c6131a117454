"""The incident store: what fired, when, who acknowledged it, how it ended. One SQLite file.

Rules
- An incident is one alert (one label set) from pending to its end; at most one is open per label
  set. Its states: pending → firing → acknowledged → resolved; pending → cleared if it never fired;
  acknowledged → firing when the acknowledgement expires.
- A notification is in the outbox under a unique name, so seeing the same change twice, or after a
  restart, adds it once. Delivery itself is at least once.
- The tracker and the commands write at the same time: every change is one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cluster.errors import NotFound
from cluster.monitor.endpoints import DATA_NAMES
from cluster.private_files import make_folder_private, make_private

OPEN_STATES: Final = ("pending", "firing", "acknowledged")
FILE_NAME: Final = "incidents.sqlite3"
# When the tracker last completed a tick.
ALIVE_FACT: Final = "tracker_alive_at"
# Followed by a severity: its response time in seconds.
TARGET_FACT: Final = "response_seconds_"
_VERSION: Final = 1
_BUSY_SECONDS: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY,
    labels TEXT NOT NULL,
    alertname TEXT NOT NULL,
    severity TEXT NOT NULL,
    team TEXT NOT NULL,
    annotations TEXT NOT NULL,
    state TEXT NOT NULL,
    active_at REAL NOT NULL,
    firing_at REAL,
    unacknowledged_since REAL,
    acknowledged_at REAL,
    acknowledged_by TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    is_suppressed INTEGER NOT NULL DEFAULT 0,
    resolved_at REAL,
    resolved_by TEXT NOT NULL DEFAULT '',
    resolution TEXT NOT NULL DEFAULT '',
    is_false_positive INTEGER NOT NULL DEFAULT 0,
    repeats INTEGER NOT NULL DEFAULT 0,
    dedup_keys TEXT NOT NULL DEFAULT '[]',
    owes_resolve INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_open_incident ON incidents (labels)
    WHERE state IN ('pending', 'firing', 'acknowledged');
CREATE INDEX incidents_by_labels ON incidents (labels, id);
CREATE INDEX incidents_by_time ON incidents (active_at);
CREATE TABLE acknowledgements (
    silence_id TEXT NOT NULL,
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    is_released INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (silence_id, incident_id)
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    kind TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (at);
CREATE TABLE outbox (
    name TEXT PRIMARY KEY,
    target TEXT NOT NULL,
    document TEXT NOT NULL,
    created_at REAL NOT NULL,
    next_try_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    sent_at REAL,
    given_up TEXT NOT NULL DEFAULT ''
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Incident:
    """One row of `incidents`; times are Unix seconds, None if it has not happened yet."""

    id: int
    labels: Mapping[str, str]
    alertname: str
    severity: str
    team: str
    annotations: Mapping[str, str]
    state: str
    active_at: float
    firing_at: float | None
    unacknowledged_since: float | None
    acknowledged_at: float | None
    acknowledged_by: str
    note: str
    is_suppressed: bool
    resolved_at: float | None
    resolved_by: str
    resolution: str
    is_false_positive: bool
    repeats: int
    dedup_keys: tuple[str, ...]
    owes_resolve: bool

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def has_fired(self) -> bool:
        return self.firing_at is not None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an incident."""

    at: float
    incident_id: int
    alertname: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Notification:
    """Something to send to `target`: slack, pagerduty or change."""

    name: str
    target: str
    document: Mapping[str, Any]
    attempts: int


def canonical(labels: Mapping[str, str]) -> str:
    """A label set as text: equal sets give equal texts."""
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False, separators=(",", ":"))


def _connected(name: str, *, uri: bool = False) -> sqlite3.Connection:
    database = sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None, uri=uri)
    database.row_factory = sqlite3.Row
    return database


class IncidentStore:
    """The store in a directory.

    Args:
        must_exist: do not create it.
        read_only: open it without locking out writers; implies `must_exist`.

    Raises:
        NotFound: if it does not exist and must, or is not a store.
    """

    def __init__(self, folder: Path, *, must_exist: bool = False, read_only: bool = False) -> None:
        path = folder / FILE_NAME
        if (must_exist or read_only) and not path.is_file():
            raise NotFound(
                f"no incident store in {folder}: start the tracker with"
                " `ws-cluster monitoring up`, or name its directory with --data-dir"
            )
        try:
            if read_only:
                self._database = _connected(f"file:{quote(str(path))}?mode=ro", uri=True)
                self._check_version(path)
            else:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # SQLite gives its journals the mode of the database.
                path.touch(mode=0o600)
                make_folder_private(folder, DATA_NAMES)
                for end in ("", "-wal", "-shm"):
                    make_private(folder / f"{FILE_NAME}{end}")
                self._database = _connected(str(path))
                self._prepare(path)
        except (sqlite3.Error, OSError) as error:
            raise NotFound(f"{path} cannot be used as an incident store: {error}") from None

    def _prepare(self, path: Path) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self.change():
            if self._version() == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {_VERSION}")
            self._check_version(path)

    def _version(self) -> int:
        return int(self._database.execute("PRAGMA user_version").fetchone()[0])

    def _check_version(self, path: Path) -> None:
        if self._version() != _VERSION:
            raise NotFound(
                f"{path} was written by another version of this program (layout {self._version()},"
                f" this one knows {_VERSION}): move it away or use that version"
            )

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """One transaction: everything is written, or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    # --- incidents -----------------------------------------------------------------------

    def open_incident(
        self, labels: Mapping[str, str], annotations: Mapping[str, str], active_at: float
    ) -> int:
        """Add an incident in the state pending; returns its id."""
        row = self._database.execute(
            "INSERT INTO incidents (labels, alertname, severity, team, annotations, state,"
            " active_at) VALUES (?, ?, ?, ?, ?, 'pending', ?)",
            (
                canonical(labels),
                labels.get("alertname", ""),
                labels.get("severity", ""),
                labels.get("team", ""),
                json.dumps(dict(annotations)),
                active_at,
            ),
        )
        return int(row.lastrowid or 0)

    def set(self, incident_id: int, **columns: Any) -> None:
        """Change columns of an incident."""
        names = ", ".join(f"{name} = ?" for name in columns)
        values = [json.dumps(v) if isinstance(v, list | dict) else v for v in columns.values()]
        self._database.execute(
            f"UPDATE incidents SET {names} WHERE id = ?",  # noqa: S608 - names are ours
            (*values, incident_id),
        )

    def incident(self, incident_id: int) -> Incident:
        """One incident.

        Raises:
            NotFound: if there is none of that number.
        """
        found = self.incidents("id = ?", incident_id)
        if not found:
            raise NotFound(
                f"there is no incident {incident_id}: `ws-cluster monitor history` lists them"
            )
        return found[0]

    def last_of(self, labels: Mapping[str, str]) -> Incident | None:
        """The latest incident of a label set, open or not."""
        found = self.incidents("labels = ? ORDER BY id DESC LIMIT 1", canonical(labels))
        return found[0] if found else None

    def open_incidents(self) -> list[Incident]:
        """Every incident that has not ended."""
        return self.incidents("state IN ('pending', 'firing', 'acknowledged') ORDER BY id")

    def incidents(self, where: str, *values: Any) -> list[Incident]:
        """The incidents that fulfil an SQL condition, which is never a user's text."""
        rows = self._database.execute(f"SELECT * FROM incidents WHERE {where}", values)  # noqa: S608
        return [_incident(row) for row in rows]

    # --- acknowledgements ----------------------------------------------------------------

    def record_acknowledgement(self, silence_id: str, incident_id: int) -> None:
        """Remember which silence acknowledges an incident."""
        self._database.execute(
            "INSERT OR IGNORE INTO acknowledgements (silence_id, incident_id) VALUES (?, ?)",
            (silence_id, incident_id),
        )

    def is_of_earlier_incident(self, silence_id: str, incident_id: int) -> bool:
        """Whether a silence acknowledged an earlier incident that has ended, and not this one."""
        rows = self._database.execute(
            "SELECT a.incident_id, i.resolved_at FROM acknowledgements a"
            " JOIN incidents i ON i.id = a.incident_id WHERE a.silence_id = ?",
            (silence_id,),
        ).fetchall()
        noted = {row[0] for row in rows}
        return incident_id not in noted and any(row[1] is not None for row in rows)

    def ended_acknowledgements(self) -> list[tuple[str, list[Incident]]]:
        """Silences that are not released and whose incidents have all ended, with those incidents."""
        rows = self._database.execute(
            "SELECT silence_id, incident_id FROM acknowledgements WHERE silence_id IN ("
            " SELECT a.silence_id FROM acknowledgements a JOIN incidents i ON i.id = a.incident_id"
            " GROUP BY a.silence_id"
            " HAVING MIN(a.is_released) = 0 AND COUNT(*) = COUNT(i.resolved_at))"
        ).fetchall()
        found: dict[str, list[Incident]] = {}
        for silence_id, incident_id in rows:
            found.setdefault(silence_id, []).append(self.incident(incident_id))
        return list(found.items())

    def release(self, silence_id: str) -> None:
        """Remember that a silence has ended."""
        self._database.execute(
            "UPDATE acknowledgements SET is_released = 1 WHERE silence_id = ?", (silence_id,)
        )

    # --- events --------------------------------------------------------------------------

    def record(self, at: float, incident_id: int, kind: str, text: str) -> None:
        """Record an event of an incident."""
        self._database.execute(
            "INSERT INTO events (at, incident_id, kind, text) VALUES (?, ?, ?, ?)",
            (at, incident_id, kind, text),
        )

    def events(self, since: float, *, after_id: int = 0) -> list[tuple[int, Event]]:
        """The events since then, in order, each with its number."""
        rows = self._database.execute(
            "SELECT e.id, e.at, e.incident_id, i.alertname, e.kind, e.text FROM events e"
            " JOIN incidents i ON i.id = e.incident_id WHERE e.at >= ? AND e.id > ?"
            " ORDER BY e.at, e.id",
            (since, after_id),
        )
        return [(row[0], Event(*tuple(row)[1:])) for row in rows]

    def last_event(self) -> int:
        """The number of the last event; 0 if there is none."""
        return int(self._database.execute("SELECT COALESCE(MAX(id), 0) FROM events").fetchone()[0])

    # --- outbox --------------------------------------------------------------------------

    def add_notification(
        self, name: str, target: str, document: Mapping[str, Any], now: float
    ) -> bool:
        """Put a notification into the outbox; False if there has been one of that name."""
        done = self._database.execute(
            "INSERT OR IGNORE INTO outbox (name, target, document, created_at, next_try_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (name, target, json.dumps(document), now, now),
        )
        return done.rowcount > 0

    def notifications(self, now: float) -> list[Notification]:
        """The notifications that are due, oldest first."""
        rows = self._database.execute(
            "SELECT name, target, document, attempts FROM outbox WHERE sent_at IS NULL"
            " AND given_up = '' AND next_try_at <= ? ORDER BY created_at, rowid",
            (now,),
        )
        return [Notification(r[0], r[1], json.loads(r[2]), r[3]) for r in rows]

    def mark_sent(self, name: str, now: float) -> None:
        """Record that a notification was delivered."""
        self._database.execute("UPDATE outbox SET sent_at = ? WHERE name = ?", (now, name))

    def mark_failed(self, name: str, *, next_try_at: float, given_up: str = "") -> None:
        """Record a failed attempt; with a reason to give up, there is no other."""
        self._database.execute(
            "UPDATE outbox SET attempts = attempts + 1, next_try_at = ?, given_up = ?"
            " WHERE name = ?",
            (next_try_at, given_up, name),
        )

    def undelivered(self, before: float) -> list[tuple[str, str]]:
        """Target and reason of notifications that were given up, or have waited since before a time."""
        rows = self._database.execute(
            "SELECT target, given_up FROM outbox WHERE sent_at IS NULL"
            " AND (given_up != '' OR created_at < ?) ORDER BY created_at DESC",
            (before,),
        )
        return [(row[0], row[1] or "not delivered yet") for row in rows]

    # --- facts ---------------------------------------------------------------------------

    def fact(self, name: str) -> str:
        """A stored fact; empty if there is none."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def set_fact(self, name: str, value: str) -> None:
        """Store a fact."""
        self._database.execute(
            "INSERT INTO facts (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def delete_before(self, at: float) -> None:
        """Delete what ended before then."""
        old = "SELECT id FROM incidents WHERE resolved_at < ?"
        for table in ("events", "acknowledgements"):
            self._database.execute(f"DELETE FROM {table} WHERE incident_id IN ({old})", (at,))  # noqa: S608
        self._database.execute("DELETE FROM incidents WHERE resolved_at < ?", (at,))
        self._database.execute("DELETE FROM outbox WHERE created_at < ?", (at,))


def _incident(row: sqlite3.Row) -> Incident:
    values = dict(row)
    for name in ("labels", "annotations"):
        values[name] = json.loads(values[name])
    values["dedup_keys"] = tuple(json.loads(values["dedup_keys"]))
    for name in ("is_suppressed", "is_false_positive", "owes_resolve"):
        values[name] = bool(values[name])
    return Incident(**values)
