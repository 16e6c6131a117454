"""A fake Prometheus and Alertmanager with the API that the console uses; a test sets their alerts.

It keeps silences like Alertmanager: created by POST, named by the alerts they match, expired by
DELETE. The end-to-end tests use the real programs.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

RUNBOOK = "https://runbooks.example/"


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


class FakeMonitoring:
    """Both services at one address; a context manager that serves inside the block."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.resolved: list[tuple[dict[str, str], float]] = []
        self.silences: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.authorizations: set[str | None] = set()
        self.has_rules = True
        monitoring = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                monitoring.asked.append(self.path)
                monitoring.authorizations.add(self.headers["Authorization"])
                path = urlsplit(self.path).path
                answers = {
                    "/api/v1/rules": monitoring.rules,
                    "/api/v1/query": monitoring.query,
                    "/api/v2/alerts": monitoring.active,
                    "/api/v2/silences": lambda: monitoring.silences,
                }
                if path in answers:
                    self.answer(200, answers[path]())
                else:
                    self.answer(404, {"error": "not here"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                silence = {**body, "id": str(uuid.uuid4()), "status": {"state": "active"}}
                monitoring.silences.append(silence)
                self.answer(200, {"silenceID": silence["id"]})

            def do_DELETE(self) -> None:
                for silence in monitoring.silences:
                    if silence["id"] == self.path.rpartition("/")[2]:
                        silence["status"]["state"] = "expired"
                self.answer(200, None)

            def answer(self, status: int, document: Any) -> None:
                body = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Write nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    # --- what a test sets ----------------------------------------------------------------

    def fire(
        self,
        name: str,
        severity: str,
        *,
        state: str = "firing",
        seconds: float = 90.0,
        summary: str = "",
        description: str = "",
        runbook: str | None = None,
        **labels: str,
    ) -> None:
        """Add an alert that has been pending or firing for some seconds."""
        self.alerts.append(
            {
                "labels": {"alertname": name, "severity": severity, "team": "websocket", **labels},
                "annotations": {
                    "summary": summary or f"{name} is on",
                    "description": description,
                    "runbook_url": f"{RUNBOOK}{name}" if runbook is None else runbook,
                },
                "state": state,
                "activeAt": moment(time.time() - seconds),
                "value": "1e+00",
            }
        )

    def resolve(self) -> None:
        """Resolve every firing alert now."""
        self.resolved += [
            (alert["labels"], time.time()) for alert in self.alerts if alert["state"] == "firing"
        ]
        self.alerts = []

    def clear(self) -> None:
        """Forget every alert and silence."""
        self.alerts, self.resolved, self.silences, self.has_rules = [], [], [], True

    # --- what is answered ----------------------------------------------------------------

    def rules(self) -> dict[str, Any]:
        names = {alert["labels"]["alertname"] for alert in self.alerts} | {"NoActiveConnections"}
        rules = [
            {
                "name": name,
                "type": "alerting",
                "state": "inactive",
                "health": "ok",
                "lastEvaluation": moment(time.time()),
                "query": "up == 0",
                "annotations": {"runbook_url": f"{RUNBOOK}{name}"},
                "alerts": [a for a in self.alerts if a["labels"]["alertname"] == name],
            }
            for name in sorted(names)
        ]
        groups = [{"name": "websocket_alerts", "rules": rules}] if self.has_rules else []
        return {"status": "success", "data": {"groups": groups}}

    def query(self) -> dict[str, Any]:
        result: list[dict[str, Any]] = [
            {"metric": {**labels, "alertstate": "firing"}, "value": [time.time(), str(at)]}
            for labels, at in self.resolved
        ]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    def active(self) -> list[dict[str, Any]]:
        return [
            {
                "labels": alert["labels"] | {"replica": "added on the way"},
                "annotations": alert["annotations"],
                "startsAt": alert["activeAt"],
                "status": {"state": "active", "silencedBy": self.silencers(alert["labels"])},
            }
            for alert in self.alerts
            if alert["state"] == "firing"
        ]

    def silencers(self, labels: dict[str, str]) -> list[str]:
        return [
            silence["id"]
            for silence in self.silences
            if silence["status"]["state"] == "active"
            and all(labels.get(m["name"], "") == m["value"] for m in silence["matchers"])
        ]
