"""What an operator does to alerts: acknowledge, silence, end a silence (Alertmanager's API v2).

Alertmanager has no acknowledgement. Ours is a silence of exactly one alert's labels whose comment
begins with `ACK_MARK`; the monitor commands and the incident keeper know it by that, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cluster.console.asking import Service

ACK_MARK: Final = "ack: "
SHORTEST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 30 * 86400.0
_MOST_LABELS: Final = 64
_LONGEST_TEXT: Final = 2000
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ID: Final = re.compile(r"[0-9a-zA-Z-]{1,64}")


class Refused(Exception):
    """What was asked for makes no sense; the text says what is allowed."""


@dataclass(frozen=True, slots=True)
class Order:
    """A silence somebody asked for."""

    labels: Mapping[str, str]
    note: str
    author: str
    seconds: float


def order_of(document: Any) -> Order:
    """Read what a page sent.

    Raises:
        Refused: if it is no order.
    """
    if not isinstance(document, dict):
        raise Refused("send a JSON object")
    note, author = (_text(document, name) for name in ("note", "author"))
    seconds = document.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise Refused("seconds must be a number")
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise Refused(f"seconds must be from {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g}")
    return Order(_labels(document.get("labels")), note, author, float(seconds))


def _text(document: Mapping[str, Any], name: str) -> str:
    text = document.get(name)
    if not isinstance(text, str) or not text.strip():
        raise Refused(f"{name} must be a text that is not empty")
    if len(text) > _LONGEST_TEXT:
        raise Refused(f"{name} may have {_LONGEST_TEXT} characters at most")
    return text.strip()


def _labels(labels: Any) -> dict[str, str]:
    if not isinstance(labels, dict) or len(labels) > _MOST_LABELS:
        raise Refused("labels must be an object with the alert's labels")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or not isinstance(value, str):
            raise Refused("labels must be an object of label names and texts")
        if len(value) > _LONGEST_TEXT:
            raise Refused(f"the label {name} is too long")
    if not labels.get("alertname"):
        raise Refused("labels must name the alert: alertname is missing")
    return labels


async def silence(service: Service, order: Order, *, is_ack: bool, now: float) -> str:
    """Make a silence; returns its id.

    Raises:
        Unanswered: if Alertmanager did not make it.
    """
    answer = await service.post(
        "/api/v2/silences",
        {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True}
                for name, value in sorted(_exactly(order.labels).items())
            ],
            "startsAt": _rfc3339(now),
            "endsAt": _rfc3339(now + order.seconds),
            "createdBy": order.author,
            "comment": (ACK_MARK if is_ack else "") + order.note,
        },
    )
    try:
        return str(answer["silenceID"])
    except (KeyError, TypeError) as error:
        raise service.senseless(error) from None


def _exactly(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels that hold back one alert, and every alert of the name only if the name alone is given.

    The alert of a whole service has no instance; its other labels are each replica's, too.
    """
    return dict(labels) if set(labels) == {"alertname"} else {"instance": "", **labels}


async def end_silence(service: Service, silence_id: Any) -> None:
    """End a silence.

    Raises:
        Refused: if that is no id.
        Unanswered: if Alertmanager did not end it.
    """
    if not isinstance(silence_id, str) or not _ID.fullmatch(silence_id):
        raise Refused("id must be the id of a silence")
    await service.delete(f"/api/v2/silence/{silence_id}")


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
