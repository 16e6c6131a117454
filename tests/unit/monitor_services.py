"""A fake Prometheus, Alertmanager and notification target, for answers that real ones seldom give.

A test changes the documents it answers with. Every POST is recorded.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A command line in; exit code, standard output and standard error out.
Ask = Callable[..., tuple[int, str, str]]

ROUTES = """
route:
  receiver: websocket-team
  group_by: [alertname, severity, team]
  group_interval: 5m
  repeat_interval: 4h
  routes:
    - matchers: [severity = "critical"]
      receiver: websocket-oncall
      continue: true
receivers:
  - name: websocket-team
    slack_configs: [{channel: "#websocket-alerts"}]
  - name: websocket-oncall
    slack_configs: [{channel: "#websocket-oncall", icon_emoji: ":rotating_light:"}]
    pagerduty_configs: [{routing_key_file: key}]
"""


def moment(at: float) -> str:
    """A time as the services write it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


class Services:
    """What the server answers, and what was posted to it."""

    def __init__(self) -> None:
        self.alerts: dict[str, list[dict[str, Any]]] = {}
        self.severities: dict[str, str] = {}
        self.health: dict[str, str] = {}
        self.active: list[dict[str, Any]] = []
        self.silences: dict[str, dict[str, Any]] = {}
        self.deployments: dict[str, float] = {}
        self.configuration = ROUTES
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.posted: list[tuple[str, Any]] = []
        self.refuses = 0
        self.refuses_to_expire = 0
        self.url = ""

    # --- what a test changes ------------------------------------------------------------------

    def rule(self, name: str, severity: str = "critical", health: str = "ok") -> None:
        self.alerts.setdefault(name, [])
        self.severities[name] = severity
        self.health[name] = health

    def fire(
        self,
        name: str,
        *,
        since: float,
        state: str = "firing",
        at_alertmanager: bool = True,
        **labels: str,
    ) -> dict[str, str]:
        severity = self.severities.setdefault(name, "critical")
        self.health.setdefault(name, "ok")
        every = {"alertname": name, "severity": severity, "team": "websocket", **labels}
        alert = {
            "labels": every,
            "annotations": {"summary": f"{name} summary", "runbook_url": f"http://runbooks/{name}"},
            "state": state,
            "activeAt": moment(since),
            "value": "1e+00",
        }
        others = [a for a in self.alerts.get(name, []) if a["labels"] != every]
        self.alerts[name] = [*others, alert]
        self.active = [a for a in self.active if a["labels"] != every]
        if at_alertmanager and state == "firing":
            self.active.append({"labels": every, "annotations": {}, "startsAt": moment(since)})
        return every

    def resolve(self, name: str) -> None:
        self.alerts[name] = []
        self.active = [a for a in self.active if a["labels"]["alertname"] != name]

    def silence(self, matchers: dict[str, str], comment: str, *, since: float) -> str:
        number = f"silence-{len(self.silences) + 1}"
        self.silences[number] = {
            "id": number,
            "matchers": [
                {"name": n, "value": v, "isRegex": False, "isEqual": True}
                for n, v in matchers.items()
            ],
            "createdBy": "ann",
            "comment": comment,
            "startsAt": moment(since),
            "endsAt": moment(since + 7200),
            "status": {"state": "active"},
        }
        return number

    def posted_to(self, path: str) -> list[Any]:
        """What was posted below a path."""
        return [document for where, document in self.posted if where.startswith(path)]

    # --- what it answers -------------------------------------------------------------------

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        plain = path.partition("?")[0]
        if plain in self.answers:
            return self.answers[plain]
        if method == "DELETE":
            if self.refuses_to_expire:
                self.refuses_to_expire -= 1
                return 500, b"not now"
            number = plain.rpartition("/")[2]
            self.silences[number]["status"]["state"] = "expired"
            return 200, b""
        if method == "POST" and plain == "/api/v2/silences":
            document = json.loads(body)
            number = f"silence-{len(self.silences) + 1}"
            self.silences[number] = {**document, "id": number, "status": {"state": "active"}}
            return 200, json.dumps({"silenceID": number}).encode()
        if method == "POST":
            if self.refuses:
                self.refuses -= 1
                return 503, b"not now"
            self.posted.append((plain, json.loads(body)))
            return 202, b"{}"
        return 200, json.dumps(self._document(plain)).encode()

    def _document(self, path: str) -> Any:
        if path == "/api/v1/rules":
            rules = [self._rule(name) for name in self.alerts]
            return {"status": "success", "data": {"groups": [{"name": "g", "rules": rules}]}}
        if path == "/api/v1/query":
            result = [
                {"metric": {"version": version}, "value": [0, str(at)]}
                for version, at in self.deployments.items()
            ]
            return {"status": "success", "data": {"resultType": "vector", "result": result}}
        if path == "/api/v2/alerts":
            return [self._active(alert) for alert in self.active]
        if path == "/api/v2/silences":
            return list(self.silences.values())
        if path == "/api/v2/status":
            return {"config": {"original": self.configuration}}
        raise KeyError(path)

    def _rule(self, name: str) -> dict[str, Any]:
        return {
            "type": "alerting",
            "name": name,
            "query": "up == 0",
            "duration": 30,
            "labels": {"severity": self.severities[name], "team": "websocket"},
            "annotations": {"runbook_url": f"http://runbooks/{name}"},
            "alerts": self.alerts[name],
            "state": "firing" if self.alerts[name] else "inactive",
            "health": self.health[name],
            "lastEvaluation": moment(time.time()),
        }

    def _active(self, alert: dict[str, Any]) -> dict[str, Any]:
        by = [
            number
            for number, silence in self.silences.items()
            if silence["status"]["state"] == "active"
            and all(alert["labels"].get(m["name"], "") == m["value"] for m in silence["matchers"])
        ]
        state = "suppressed" if by else "active"
        return {**alert, "status": {"state": state, "silencedBy": by, "inhibitedBy": []}}


@contextmanager
def running() -> Iterator[Services]:
    """The server, listening on a port of its own."""
    services = Services()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = services.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    services.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
