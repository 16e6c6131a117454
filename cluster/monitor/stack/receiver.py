"""A stand-in for Slack, PagerDuty and a dead man's switch that keeps what it received.

Routes
- POST /slack/…: an incoming webhook. POST /v2/enqueue and /v2/change/enqueue: PagerDuty Events v2.
  POST /watchdog: Alertmanager's webhook, for the dead man's switch.
- GET /received[?kind=slack][&after=ID][&alert=NAME][&wait=SECONDS]: notifications, oldest first; with
  `wait` the answer is delayed until there is one. DELETE /received deletes them.
- GET /incidents: PagerDuty's incidents by `dedup_key`. GET /watchdog: whether the heartbeat arrives;
  when it stops, a notification of the kind `deadman` is received, and one more when it is back.
- POST /fail?status=503&times=3[&kind=slack]: answer the next notifications with that status, of one kind
  or of all; times=0 ends it. GET /fail: how many are left. GET /health.

Rules
- It answers like Slack and PagerDuty (200 `ok`, 202, 400 with their error texts) and refuses what they
  refuse.
- It keeps the last `_MOST_KEPT` in memory and all in a file of JSON lines, which is rotated when it grows.
- It checks no key: do not make it reachable from other machines.
- A browser cannot be led to it: see `foreign_pages`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from cluster.children.listeners import bind
from cluster.monitor import signals
from cluster.monitor.bounded_server import served
from cluster.monitor.foreign_pages import ForeignPageGuard
from cluster.monitor.stack.dead_mans_switch import DeadMansSwitch
from cluster.monitor.stack.notification_faults import (
    ACTIONS,
    change_faults,
    event_faults,
    slack_fault,
)
from cluster.private_files import make_private, open_private

_MOST_KEPT: Final = 10_000
_MOST_FILE_BYTES: Final = 16 << 20
_MOST_BODY_BYTES: Final = 1 << 20
_LONGEST_WAIT_SECONDS: Final = 60.0
BODY_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 300.0
_KINDS: Final = ("slack", "pagerduty", "change")
_STATES: Final = dict(zip(ACTIONS, ("triggered", "acknowledged", "resolved"), strict=True))

Json = dict[str, Any]


class Received:
    """The notifications received, bounded in memory and in their file.

    Args:
        file: one JSON document per line; None for memory only.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept: deque[Json] = deque(maxlen=_MOST_KEPT)
        self._arrived = asyncio.Condition()
        self._last_id = 0
        self.incidents: dict[str, Json] = {}
        self.last_heartbeat_at = 0.0
        self._read()

    def _read(self) -> None:
        """Read what an earlier run wrote."""
        if self._file is None or not self._file.is_file():
            return
        make_private(self._file)
        with self._file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    self._keep(entry)
                    self._last_id = max(self._last_id, int(entry["id"]))

    async def add(self, kind: str, path: str, document: Json) -> None:
        """Keep one notification."""
        self._last_id += 1
        known = self.incidents.get(str(document.get("dedup_key")), {})
        entry = {
            "id": self._last_id,
            "at": time.time(),
            "kind": kind,
            "path": path,
            "alerts": sorted(_alert_names(document)) or known.get("alerts", []),
            "document": document,
        }
        self._keep(entry)
        self._write(entry)
        async with self._arrived:
            self._arrived.notify_all()

    def _keep(self, entry: Json) -> None:
        self._kept.append(entry)
        if entry["kind"] == "pagerduty":
            self._update_incident(entry)
        elif entry["kind"] == "watchdog":
            self.last_heartbeat_at = entry["at"]

    def _update_incident(self, entry: Json) -> None:
        """Apply an event to its incident, as PagerDuty does."""
        document = entry["document"]
        key, action = document["dedup_key"], document["event_action"]
        incident = self.incidents.get(key)
        if action == "trigger" and (incident is None or incident["state"] == "resolved"):
            while len(self.incidents) >= _MOST_KEPT:
                del self.incidents[next(iter(self.incidents))]
            summary = document["payload"]["summary"]
            self.incidents[key] = {
                "state": "triggered",
                "summary": summary,
                "alerts": entry["alerts"],
                "history": [],
            }
        elif incident is None or incident["state"] == "resolved":
            return
        incident = self.incidents[key]
        if action != "trigger":
            incident["state"] = _STATES[action]
        incident["history"] = [*incident["history"], [action, entry["at"]]][-100:]

    def _write(self, entry: Json) -> None:
        if self._file is None:
            return
        with suppress(OSError):
            if self._file.exists() and self._file.stat().st_size > _MOST_FILE_BYTES:
                self._file.replace(self._file.with_suffix(".jsonl.1"))
            with open(self._file, "a", encoding="utf-8", opener=open_private) as out:
                out.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def select(self, *, kind: str, alert: str, after: int) -> list[Json]:
        """The notifications after an id, of a kind and about an alert if these are given."""
        return [
            entry
            for entry in self._kept
            if entry["id"] > after
            and kind in ("", entry["kind"])
            and (not alert or alert in entry["alerts"])
        ]

    async def wait(self, wanted: Callable[[], list[Json]], seconds: float) -> list[Json]:
        """The notifications wanted, as soon as there is one; none when the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._arrived:
                await self._arrived.wait_for(lambda: bool(wanted()))
        return wanted()

    def clear(self) -> None:
        """Delete all notifications, the file too."""
        self._kept.clear()
        self.incidents.clear()
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _alert_names(document: Json) -> set[str]:
    """The alerts a notification is about, as far as its texts name them."""
    found = {
        str(alert["labels"].get("alertname", ""))
        for alert in _list(document.get("alerts"))
        if isinstance(alert, dict) and isinstance(alert.get("labels"), dict)
    }
    payload = document.get("payload") if isinstance(document.get("payload"), dict) else {}
    texts = [payload.get("summary") if payload else "", document.get("text")]
    for attachment in _list(document.get("attachments")):
        if isinstance(attachment, dict):
            texts += [attachment.get("title"), attachment.get("text")]
    words = " ".join(str(text) for text in texts if text)
    names = (word.strip(".,:;()[]'\"*`") for word in words.split())
    return (found | {name for name in names if name[:1].isupper() and name.isalnum()}) - {""}


# --- routes ------------------------------------------------------------------------------


class StandInReceiver:
    """The HTTP server of the stand-in."""

    def __init__(self, received: Received, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._received = received
        self._failures: dict[str, list[int]] = {}
        self._switch = DeadMansSwitch(heartbeat_seconds, received.add)

    def app(self, host: str = "") -> web.Application:
        """The application with all routes, for a server that listens on `host`."""
        guard = ForeignPageGuard(host)
        app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=[guard.refuse])
        router = app.router
        router.add_post("/slack", self._slack)
        router.add_post("/slack/{path:.*}", self._slack)
        router.add_post("/v2/enqueue", self._event)
        router.add_post("/v2/change/enqueue", self._change)
        router.add_post("/watchdog", self._heartbeat)
        router.add_post("/fail", self._fail)
        router.add_get("/fail", self._show_failures)
        router.add_get("/received", self._show)
        router.add_delete("/received", self._clear)
        router.add_get("/incidents", self._incidents)
        router.add_get("/watchdog", self._watchdog)
        router.add_get("/health", self._health)
        app.cleanup_ctx.append(self._watching)
        return app

    async def _watching(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self._switch.run())
        yield
        task.cancel()

    async def _slack(self, request: web.Request) -> web.Response:
        if failure := self._failure("slack"):
            return failure
        document = await _document(request)
        if fault := slack_fault(document):
            return web.Response(status=400, text=fault)
        assert isinstance(document, dict)
        await self._received.add("slack", request.path, document)
        return web.Response(text="ok")

    async def _event(self, request: web.Request) -> web.Response:
        if failure := self._failure("pagerduty"):
            return failure
        document = await _document(request)
        if faults := event_faults(document):
            return _invalid(faults)
        assert isinstance(document, dict)
        document.setdefault("dedup_key", f"made-up-{time.time_ns():x}")
        await self._received.add("pagerduty", request.path, document)
        answer = {"message": "Event processed", "dedup_key": document["dedup_key"]}
        return web.json_response({"status": "success", **answer}, status=202)

    async def _change(self, request: web.Request) -> web.Response:
        if failure := self._failure("change"):
            return failure
        document = await _document(request)
        if faults := change_faults(document):
            return _invalid(faults)
        assert isinstance(document, dict)
        await self._received.add("change", request.path, document)
        answer = {"status": "success", "message": "Change event processed"}
        return web.json_response(answer, status=202)

    async def _heartbeat(self, request: web.Request) -> web.Response:
        document = await _document(request)
        if not isinstance(document, dict) or not isinstance(document.get("alerts"), list):
            return web.Response(status=400, text="not an Alertmanager webhook: no list of alerts")
        await self._received.add("watchdog", request.path, document)
        await self._switch.beat()
        return web.Response(text="ok")

    async def _fail(self, request: web.Request) -> web.Response:
        try:
            status = int(request.query.get("status", "503"))
            times = int(request.query.get("times", "1"))
        except ValueError:
            status, times = 0, 0
        kind = request.query.get("kind", "")
        if not (400 <= status <= 599 and 0 <= times <= 1000 and kind in ("", *_KINDS)):
            allowed = f"give status=400…599, times=0…1000 and kind={'|'.join(_KINDS)} or none"
            return web.Response(status=400, text=allowed)
        for one in (kind,) if kind else _KINDS:
            self._failures[one] = [status] * times
        return web.Response(text="ok")

    async def _show_failures(self, request: web.Request) -> web.Response:
        left = {kind: len(statuses) for kind, statuses in self._failures.items() if statuses}
        return web.json_response(left)

    def _failure(self, kind: str) -> web.Response | None:
        statuses = self._failures.get(kind)
        if not statuses:
            return None
        return web.Response(status=statuses.pop(), text="this failure was requested with /fail")

    async def _show(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            after = int(query.get("after", "0"))
            seconds = float(query.get("wait", "0"))
        except ValueError:
            seconds = math.nan
        if math.isnan(seconds):
            return web.Response(status=400, text="after and wait are numbers")

        def wanted() -> list[Json]:
            kind, alert = query.get("kind", ""), query.get("alert", "")
            return self._received.select(kind=kind, alert=alert, after=after)

        return web.json_response(
            await self._received.wait(wanted, min(seconds, _LONGEST_WAIT_SECONDS))
        )

    async def _clear(self, request: web.Request) -> web.Response:
        self._received.clear()
        return web.Response(text="ok")

    async def _incidents(self, request: web.Request) -> web.Response:
        return web.json_response(self._received.incidents)

    async def _watchdog(self, request: web.Request) -> web.Response:
        last_at = self._received.last_heartbeat_at
        age = self._switch.silent_seconds()
        if age is None and last_at:
            # It was heard before a restart, over which only the machine's clock goes on.
            age = time.time() - last_at
        is_alive = age is not None and 0 <= age < self._switch.limit_seconds
        return web.json_response(
            {"is_alive": is_alive, "heard_at": last_at or None, "age_seconds": age}
        )

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


async def _document(request: web.Request) -> object:
    """The JSON of a body; None if it is not JSON. Slack also accepts the form field `payload`.

    Raises:
        web.HTTPRequestTimeout: it has not come within `BODY_SECONDS`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if request.content_type == "application/x-www-form-urlencoded":
                form: Mapping[str, Any] = await request.post()
                return orjson.loads(str(form.get("payload", "")).encode("utf-8", "replace"))
            return orjson.loads(await request.read())
    except TimeoutError:
        text = f"send the body within {BODY_SECONDS:g} s"
        raise web.HTTPRequestTimeout(text=text, headers={"Connection": "close"}) from None
    except (ValueError, LookupError):
        # LookupError: a form in a character set that does not exist.
        return None


def _invalid(faults: list[str]) -> web.Response:
    answer = {"status": "invalid event", "message": "Event object is invalid", "errors": faults}
    return web.json_response(answer, status=400)


async def serve(host: str, port: int, file: Path | None, heartbeat_seconds: float) -> None:
    """Serve until a signal says stop.

    Raises:
        OSError: if it cannot listen on the port.
    """
    stop = signals.stop_event()
    app = StandInReceiver(Received(file), heartbeat_seconds).app(host)
    async with served(app, bind(host, port)):
        await stop.wait()
