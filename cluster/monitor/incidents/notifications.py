"""What the tracker tells Slack and PagerDuty: documents in, documents' delivery out.

Rules
- PagerDuty Events v2: `acknowledge` and `resolve` name the incident by its `dedup_key`; a second
  `trigger` with a known key only adds to the incident.
- A notification that is refused for good (4xx but 429) is not sent again; anything else is.
- Secrets (Slack's address, PagerDuty's keys) are read from their files when a notification is sent and
  never stand in the store or a log line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cluster.monitor import durations
from cluster.monitor.asking import Refused, Service
from cluster.monitor.faults import NotAnswering
from cluster.monitor.incidents.routing import NotificationChannel
from cluster.monitor.incidents.store import Incident

PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"
_COLOURS: Final = {"critical": "danger", "warning": "warning"}
_PAGERDUTY_SEVERITIES: Final = ("critical", "warning", "error", "info")
_LONGEST_SUMMARY: Final = 1024


@dataclass(frozen=True, slots=True)
class NotificationSender:
    """Where notifications go; an empty path means that there is nobody to tell.

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

    def knows(self, target: str) -> bool:
        """Whether a target can be told at all."""
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
            Undeliverable: if it was not taken; says whether to try again.
        """
        if not self.knows(target):
            # Posted by a command, which cannot know.
            raise Undeliverable("there is nobody to tell", is_final=True)
        try:
            secret = Path(self._file(target)).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Undeliverable(f"its secret file: {error.strerror}", is_final=False) from None
        except ValueError:
            raise Undeliverable("its secret file is no text", is_final=False) from None
        if not secret:
            raise Undeliverable("its secret file is empty", is_final=False)
        try:
            if target == "slack":
                _post(secret, document, "Slack")
            else:
                _post(self._events_url(target), {"routing_key": secret, **document}, "PagerDuty")
        except Refused as refused:
            is_final = 400 <= refused.status < 500 and refused.status != 429
            raise Undeliverable(f"answered {refused.status}", is_final=is_final) from None
        except NotAnswering:
            raise Undeliverable("cannot be reached", is_final=False) from None
        except ValueError:
            raise Undeliverable("its address makes no sense", is_final=False) from None

    def _events_url(self, target: str) -> str:
        if target == "pagerduty":
            return self.pagerduty_url
        return self.pagerduty_url.removesuffix("/enqueue") + "/change/enqueue"


class Undeliverable(Exception):
    """A notification was not taken; `is_final` if it never will be."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final


def _post(url: str, document: Mapping[str, Any], name: str) -> None:
    parts = urlsplit(url)
    Service(name, f"{parts.scheme}://{parts.netloc}").post(
        url[len(parts.scheme) + 3 + len(parts.netloc) :], document
    )


def acknowledgement(dedup_key: str) -> dict[str, Any]:
    """PagerDuty: somebody is on it."""
    return {"event_action": "acknowledge", "dedup_key": dedup_key}


def resolution(dedup_key: str) -> dict[str, Any]:
    """PagerDuty: it is over."""
    return {"event_action": "resolve", "dedup_key": dedup_key}


def page_again(incident: Incident, dedup_key: str, waited_seconds: float) -> dict[str, Any]:
    """PagerDuty: an incident that nobody has taken, or that is back."""
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
    """Slack: an incident that nobody has taken, or that is back."""
    text = _repeated(incident, waited_seconds)
    runbook = incident.annotations.get("runbook_url", "")
    lines = [
        incident.annotations.get("description", ""),
        f"Runbook: {runbook}" if runbook else "",
        f"Take it: ws-cluster monitor ack {incident.alertname} --note '…'",
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
    waited = f"not acknowledged for {durations.stretch(waited_seconds)}"
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
    """A name for a notification that is the same whenever the same thing is told."""
    text = ":".join(str(part) for part in parts)
    return text if len(text) < 200 else hashlib.sha256(text.encode()).hexdigest()
