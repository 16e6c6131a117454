"""The HTTP API v2 of Alertmanager: alerts, silences, acknowledgements, its configuration.

Rules
- A function builds a request and reads its answer, without I/O; `Alertmanager` sends them and blocks.
- Alertmanager has no acknowledgement. Ours is a silence of exactly one alert's labels whose comment
  begins with `ACK_MARK`; the incident tracker and the console recognise it by that.
- A new acknowledgement of an alert replaces the earlier ones of that alert: the new silence is made
  first, so that the alert is never without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from cluster import durations
from cluster.alerting.http import HttpRequest, HttpService, as_json, nothing
from cluster.alerting.matchers import Matcher, exactly

ACK_MARK: Final = "ack: "
_HINT: Final = (
    "start it with `ws-cluster monitoring up`, or give its address with --alertmanager-url"
)

One = TypeVar("One")


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence."""

    id: str
    matchers: tuple[Matcher, ...]
    author: str
    comment: str
    starts_at: float
    ends_at: float
    state: str

    @property
    def is_ack(self) -> bool:
        """Whether it is an acknowledgement."""
        return self.comment.startswith(ACK_MARK)

    @property
    def note(self) -> str:
        """What its author wrote."""
        return self.comment.removeprefix(ACK_MARK)

    @property
    def is_in_force(self) -> bool:
        """Whether it is active or pending."""
        return self.state != "expired"

    @property
    def literal_labels(self) -> dict[str, str] | None:
        """The labels it asks for; None if it asks for more than one value of a label."""
        if not all(matcher.is_literal for matcher in self.matchers):
            return None
        return {matcher.name: matcher.value for matcher in self.matchers}


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """One alert as Alertmanager has it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str
    silenced_by: tuple[str, ...]
    inhibited_by: tuple[str, ...]
    starts_at: float
    receivers: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def severity(self) -> str:
        return self.labels.get("severity", "")


class AlertIndex:
    """Finds Alertmanager's alert for one of Prometheus' alerts.

    It has the same labels, and beside them the external labels of Prometheus, which every alert has.
    """

    def __init__(self, active: Sequence[ActiveAlert]) -> None:
        self._by_labels = {frozenset(one.labels.items()): one for one in active}
        self._everywhere = frozenset[tuple[str, str]]()
        if self._by_labels:
            self._everywhere = frozenset.intersection(*self._by_labels)

    def find(self, labels: Mapping[str, str]) -> ActiveAlert | None:
        """The alert with these labels; None if Alertmanager has none."""
        wanted = frozenset(labels.items())
        return self._by_labels.get(wanted) or self._by_labels.get(wanted | self._everywhere)


def earlier_acknowledgements(
    labels: Mapping[str, str], active: Sequence[ActiveAlert], silences: Sequence[Silence]
) -> list[Silence]:
    """The acknowledgements in force that were given for exactly this alert.

    Args:
        labels: of the alert. Labels may be missing if no other active alert matches without them,
            such as the external labels of Prometheus.
    """
    index = AlertIndex(active)

    def only_alert(named: Mapping[str, str]) -> ActiveAlert | None:
        """The alert with these labels, or else the only one that an acknowledgement of them matches."""
        if (found := index.find(named)) is not None:
            return found
        matchers = exactly(named)
        matched = [one for one in active if all(m.holds(one.labels) for m in matchers)]
        return matched[0] if len(matched) == 1 else None

    alert = only_alert(labels)

    def is_given_for_it(silence: Silence) -> bool:
        asked = silence.literal_labels
        if asked is None:
            return False
        named = {name: value for name, value in asked.items() if value}
        return named == labels or (alert is not None and only_alert(named) is alert)

    return [s for s in silences if s.is_ack and s.is_in_force and is_given_for_it(s)]


def alerts_request() -> HttpRequest[list[ActiveAlert]]:
    """Every alert that has not ended, silenced and inhibited ones too."""
    return HttpRequest("GET", "/api/v2/alerts", as_json(_each(_alert)))


def silences_request() -> HttpRequest[list[Silence]]:
    """Every silence that Alertmanager has, expired ones too."""
    return HttpRequest("GET", "/api/v2/silences", as_json(_each(_silence)))


def silence_request(
    matchers: Sequence[Matcher], *, seconds: float, author: str, comment: str, now: float
) -> HttpRequest[str]:
    """Make a silence; the answer is its id."""
    document = {
        "matchers": [
            {"name": m.name, "value": m.value, "isRegex": m.is_regex, "isEqual": m.is_equal}
            for m in matchers
        ],
        "startsAt": durations.rfc3339(now),
        "endsAt": durations.rfc3339(now + seconds),
        "createdBy": author,
        "comment": comment,
    }
    return HttpRequest("POST", "/api/v2/silences", as_json(_silence_id), document=document)


def acknowledge_request(
    labels: Mapping[str, str], *, seconds: float, author: str, note: str, now: float
) -> HttpRequest[str]:
    """Make the silence that acknowledges one alert; the answer is its id."""
    comment = ACK_MARK + note
    return silence_request(
        exactly(labels), seconds=seconds, author=author, comment=comment, now=now
    )


def expire_request(silence_id: str, *, must_exist: bool = False) -> HttpRequest[None]:
    """End a silence; unless it must exist, one that Alertmanager no longer has counts as ended."""
    accepted = frozenset[int]() if must_exist else frozenset({HTTPStatus.NOT_FOUND.value})
    return HttpRequest("DELETE", f"/api/v2/silence/{silence_id}", nothing, accepted=accepted)


def configuration_request() -> HttpRequest[str]:
    """The configuration as YAML; secrets in it are hidden, paths of secret files are not."""
    return HttpRequest(
        "GET", "/api/v2/status", as_json(lambda status: str(status["config"]["original"]))
    )


class Alertmanager:
    """An Alertmanager at `url`."""

    def __init__(self, url: str) -> None:
        self.service: Final = HttpService("Alertmanager", url.rstrip("/"), _HINT)

    def alerts(self) -> list[ActiveAlert]:
        """Every alert that has not ended, silenced and inhibited ones too."""
        return self.service.ask(alerts_request())

    def silences(self) -> list[Silence]:
        """Every silence that Alertmanager has, expired ones too."""
        return self.service.ask(silences_request())

    def silence(
        self, matchers: Sequence[Matcher], *, seconds: float, author: str, comment: str, now: float
    ) -> str:
        """Make a silence; returns its id."""
        return self.service.ask(
            silence_request(matchers, seconds=seconds, author=author, comment=comment, now=now)
        )

    def acknowledge(
        self, labels: Mapping[str, str], *, seconds: float, author: str, note: str, now: float
    ) -> tuple[str, list[Silence]]:
        """Acknowledge one alert; returns the silence's id and the acknowledgements it replaced."""
        earlier = earlier_acknowledgements(labels, self.alerts(), self.silences())
        made = self.service.ask(
            acknowledge_request(labels, seconds=seconds, author=author, note=note, now=now)
        )
        for silence in earlier:
            self.expire(silence.id)
        return made, earlier

    def expire(self, silence_id: str) -> None:
        """End a silence; one that Alertmanager no longer has is ended."""
        self.service.ask(expire_request(silence_id))

    def configuration(self) -> str:
        """Its configuration as YAML; secrets in it are hidden, paths of secret files are not."""
        return self.service.ask(configuration_request())


def _each(read: Callable[[dict[str, Any]], One]) -> Callable[[Any], list[One]]:
    return lambda answer: [read(one) for one in answer]


def _silence_id(answer: Any) -> str:
    if not isinstance(answer, dict) or not answer.get("silenceID"):
        raise ValueError("no silenceID")
    return str(answer["silenceID"])


def _alert(one: dict[str, Any]) -> ActiveAlert:
    status = one["status"]
    return ActiveAlert(
        labels=dict(one["labels"]),
        annotations=dict(one.get("annotations") or {}),
        state=status["state"],
        silenced_by=tuple(status.get("silencedBy") or ()),
        inhibited_by=tuple(status.get("inhibitedBy") or ()),
        starts_at=durations.unix(one["startsAt"]),
        receivers=tuple(receiver["name"] for receiver in one.get("receivers") or ()),
    )


def _silence(one: dict[str, Any]) -> Silence:
    return Silence(
        id=one["id"],
        matchers=tuple(
            Matcher(m["name"], m["value"], m["isRegex"], m.get("isEqual", True))
            for m in one["matchers"]
        ),
        author=one["createdBy"],
        comment=one["comment"],
        starts_at=durations.unix(one["startsAt"]),
        ends_at=durations.unix(one["endsAt"]),
        state=one["status"]["state"],
    )
