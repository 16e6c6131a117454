"""The tracker's notifications to Slack and PagerDuty: their documents, their outbox, their delivery.

Rules
- PagerDuty Events v2: `acknowledge` and `resolve` name the incident by its `dedup_key`; a second
  `trigger` with a known key only adds to the incident.
- A notification of one name is added once; delivery is at least once.
- A notification that fails is sent again after a delay that doubles up to five minutes. One that is
  refused for good (4xx except 429) is given up and logged as an error.
- Secrets (Slack's address, PagerDuty's keys) are read from their files when a notification is sent;
  they are never in the store or in a log line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cluster import durations, log
from cluster.alerting.http import HttpService
from cluster.errors import HttpStatusError, NotAnswering
from cluster.monitor.incidents.routing import NotificationChannel
from cluster.monitor.incidents.store import Incident, IncidentStore, Notification

PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"
_COLOURS: Final = {"critical": "danger", "warning": "warning"}
_PAGERDUTY_SEVERITIES: Final = ("critical", "warning", "error", "info")
_LONGEST_SUMMARY: Final = 1024
_LONGEST_RETRY_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class NotificationSender:
    """Sends notifications; a target whose file is not given is not configured.

    Attributes:
        pagerduty_url: the Events v2 address; change events go beside it.
        pagerduty_key_file: holds the routing key of the on-call service.
        change_key_file: holds the routing key change events go to.
        slack_url_file: holds the address of the incoming webhook.
    """

    pagerduty_url: str = PAGERDUTY_URL
    pagerduty_key_file: str = ""
    change_key_file: str = ""
    slack_url_file: str = ""

    def has(self, target: str) -> bool:
        """Whether a target is configured."""
        return bool(self._file(target))

    def _file(self, target: str) -> str:
        return {
            "pagerduty": self.pagerduty_key_file,
            "change": self.change_key_file,
            "slack": self.slack_url_file,
        }[target]

    def deliver(self, target: str, document: Mapping[str, Any]) -> None:
        """Send one notification.

        Raises:
            Undeliverable: if it was not accepted.
        """
        if not self.has(target):
            # Added by a command, which does not know the tracker's configuration.
            raise Undeliverable("this target is not configured", is_final=True)
        try:
            secret = Path(self._file(target)).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Undeliverable(f"its secret file: {error.strerror}", is_final=False) from None
        except ValueError:
            raise Undeliverable("its secret file is not text", is_final=False) from None
        if not secret:
            raise Undeliverable("its secret file is empty", is_final=False)
        try:
            if target == "slack":
                _post(secret, document, "Slack")
            else:
                _post(self._events_url(target), {"routing_key": secret, **document}, "PagerDuty")
        except HttpStatusError as error:
            is_final = 400 <= error.status < 500 and error.status != HTTPStatus.TOO_MANY_REQUESTS
            raise Undeliverable(f"answered {error.status}", is_final=is_final) from None
        except NotAnswering:
            raise Undeliverable("cannot be reached", is_final=False) from None
        except ValueError:
            raise Undeliverable("its address is not a URL", is_final=False) from None

    def _events_url(self, target: str) -> str:
        if target == "pagerduty":
            return self.pagerduty_url
        return self.pagerduty_url.removesuffix("/enqueue") + "/change/enqueue"


class Undeliverable(Exception):
    """A notification was not accepted; `is_final` if it is not worth another attempt."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


def _post(url: str, document: Mapping[str, Any], name: str) -> None:
    parts = urlsplit(url)
    HttpService(name, f"{parts.scheme}://{parts.netloc}").post(
        url[len(parts.scheme) + 3 + len(parts.netloc) :], document
    )


class Outbox:
    """Adds notifications to a store and delivers them.

    Args:
        first_retry_seconds: until the second attempt.
        clock: Unix time.
    """

    def __init__(
        self,
        store: IncidentStore,
        sender: NotificationSender,
        first_retry_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._sender = sender
        self._first_retry_seconds = first_retry_seconds
        self._clock = clock
        self._log = log.get_logger()

    def has(self, target: str) -> bool:
        """Whether a target is configured."""
        return self._sender.has(target)

    def add(self, name: str, target: str, document: Mapping[str, Any]) -> None:
        """Add a notification, as a part of the caller's transaction."""
        if self.has(target):
            self._store.add_notification(name, target, document, self._clock())

    def deliver(self) -> None:
        """Send every notification that is due."""
        for notification in self._store.notifications(self._clock()):
            try:
                self._sender.deliver(notification.target, notification.document)
            except Undeliverable as error:
                self._retry_later(notification, error)
                continue
            with self._store.change():
                self._store.mark_sent(notification.name, self._clock())
            self._log.info(
                "notification_sent", notification=notification.name, target=notification.target
            )

    def _retry_later(self, notification: Notification, error: Undeliverable) -> None:
        wait = self._first_retry_seconds * 2.0 ** min(notification.attempts, 16)
        next_try_at = self._clock() + min(_LONGEST_RETRY_SECONDS, wait)
        with self._store.change():
            self._store.mark_failed(
                notification.name,
                next_try_at=next_try_at,
                given_up=str(error) if error.is_final else "",
            )
        write = self._log.error if error.is_final else self._log.warning
        write(
            "notification_failed",
            notification=notification.name,
            target=notification.target,
            reason=str(error),
        )


def acknowledgement(dedup_key: str) -> dict[str, Any]:
    """PagerDuty: an incident is acknowledged."""
    return {"event_action": "acknowledge", "dedup_key": dedup_key}


def resolution(dedup_key: str) -> dict[str, Any]:
    """PagerDuty: an incident is resolved."""
    return {"event_action": "resolve", "dedup_key": dedup_key}


def page_again(incident: Incident, dedup_key: str, waited_seconds: float) -> dict[str, Any]:
    """PagerDuty: an incident that is not acknowledged, or that fires again."""
    severity = incident.severity if incident.severity in _PAGERDUTY_SEVERITIES else "error"
    return {
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "payload": {
            "summary": _repeated(incident, waited_seconds)[:_LONGEST_SUMMARY],
            "source": incident.labels.get("instance") or "ws-cluster monitor keep",
            "severity": severity,
            "custom_details": {"labels": dict(incident.labels), "repeat": incident.repeats + 1},
        },
    }


def slack_again(
    incident: Incident, channel: NotificationChannel | None, waited_seconds: float
) -> dict[str, Any]:
    """Slack: an incident that is not acknowledged, or that fires again."""
    text = _repeated(incident, waited_seconds)
    runbook = incident.annotations.get("runbook_url", "")
    lines = [
        incident.annotations.get("description", ""),
        f"Runbook: {runbook}" if runbook else "",
        f"Acknowledge it: ws-cluster monitor ack {incident.alertname} --note '…'",
    ]
    document: dict[str, Any] = {
        "text": text,
        "attachments": [
            {
                "fallback": text,
                "title": incident.annotations.get("summary") or incident.alertname,
                "text": "\n".join(line for line in lines if line),
                "color": _COLOURS.get(incident.severity, "good"),
            }
        ],
    }
    settings = channel.settings if channel else {}
    for name in ("channel", "username", "icon_emoji"):
        if settings.get(name) and "{{" not in str(settings[name]):
            document[name] = settings[name]
    return document


def _repeated(incident: Incident, waited_seconds: float) -> str:
    summary = incident.annotations.get("summary") or incident.alertname
    waited = f"not acknowledged for {durations.duration_for_people(waited_seconds)}"
    how = waited if waited_seconds else "fires again"
    return f"{incident.severity.upper()} {how}: {incident.alertname}: {summary}"


def deployment(version: str, at: float) -> dict[str, Any]:
    """PagerDuty: a change event."""
    return {
        "payload": {
            "summary": f"ws-cluster {version} was deployed",
            "timestamp": durations.rfc3339(at),
            "source": "ws-cluster monitor keep",
            "custom_details": {"version": version},
        },
    }


def notification_name(*parts: object) -> str:
    """A name for a notification that is the same for the same event."""
    text = ":".join(str(part) for part in parts)
    return text if len(text) < 200 else hashlib.sha256(text.encode()).hexdigest()
