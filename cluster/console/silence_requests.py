"""What an operator asks the console for: acknowledge an alert, silence it, end a silence."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.alerting import alertmanager
from cluster.alerting.async_http import AsyncHttpService
from cluster.alerting.matchers import Matcher, exactly

SHORTEST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 30 * 86400.0
_MOST_LABELS: Final = 64
_LONGEST_TEXT: Final = 2000
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ID: Final = re.compile(r"[0-9a-zA-Z-]{1,64}")


class InvalidRequest(Exception):
    """The request cannot be understood; the text says what is allowed."""


@dataclass(frozen=True, slots=True)
class SilenceRequest:
    """A silence or an acknowledgement that is asked for."""

    labels: Mapping[str, str]
    note: str
    author: str
    seconds: float

    @classmethod
    def of(cls, document: Any) -> SilenceRequest:
        """Read what the page sent.

        Raises:
            InvalidRequest: if it cannot be understood.
        """
        if not isinstance(document, dict):
            raise InvalidRequest("send a JSON object")
        note, author = (_text(document, name) for name in ("note", "author"))
        seconds = document.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise InvalidRequest("seconds must be a number")
        if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
            raise InvalidRequest(
                f"seconds must be from {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g}"
            )
        return cls(_labels(document.get("labels")), note, author, float(seconds))


async def acknowledge(service: AsyncHttpService, request: SilenceRequest, *, now: float) -> str:
    """Acknowledge one alert and end its earlier acknowledgements; returns the silence's id.

    Raises:
        NotAnswering: if Alertmanager did not do it.
    """
    active, silences = await asyncio.gather(
        service.ask(alertmanager.alerts_request()), service.ask(alertmanager.silences_request())
    )
    earlier = alertmanager.earlier_acknowledgements(request.labels, active, silences)
    made = await service.ask(
        alertmanager.acknowledge_request(
            request.labels,
            seconds=request.seconds,
            author=request.author,
            note=request.note,
            now=now,
        )
    )
    for silence in earlier:
        await service.ask(alertmanager.expire_request(silence.id))
    return made


async def make_silence(service: AsyncHttpService, request: SilenceRequest, *, now: float) -> str:
    """Make a silence; returns its id.

    A name alone silences every alert of that name; more labels silence the alert with exactly these.

    Raises:
        NotAnswering: if Alertmanager did not make it.
    """
    labels = request.labels
    is_name_alone = set(labels) == {"alertname"}
    return await service.ask(
        alertmanager.silence_request(
            [Matcher("alertname", labels["alertname"])] if is_name_alone else exactly(labels),
            seconds=request.seconds,
            author=request.author,
            comment=request.note,
            now=now,
        )
    )


async def end_silence(service: AsyncHttpService, silence_id: Any) -> None:
    """End a silence.

    Raises:
        InvalidRequest: if that is not an id.
        NotAnswering: if Alertmanager did not end it.
    """
    if not isinstance(silence_id, str) or not _ID.fullmatch(silence_id):
        raise InvalidRequest("id must be the id of a silence")
    await service.ask(alertmanager.expire_request(silence_id, must_exist=True))


def _text(document: Mapping[str, Any], name: str) -> str:
    text = document.get(name)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"{name} must be a text that is not empty")
    if len(text) > _LONGEST_TEXT:
        raise InvalidRequest(f"{name} may have {_LONGEST_TEXT} characters at most")
    return text.strip()


def _labels(labels: Any) -> dict[str, str]:
    if not isinstance(labels, dict) or len(labels) > _MOST_LABELS:
        raise InvalidRequest("labels must be an object with the alert's labels")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or not isinstance(value, str):
            raise InvalidRequest("labels must be an object of label names and texts")
        if len(value) > _LONGEST_TEXT:
            raise InvalidRequest(f"the label {name} is too long")
    if not labels.get("alertname"):
        raise InvalidRequest("labels must name the alert: alertname is missing")
    return labels
