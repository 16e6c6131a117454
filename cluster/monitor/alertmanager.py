"""What Alertmanager knows and does: alerts, silences, its configuration (API v2).

Rules
- API v1 is gone since Alertmanager 0.27: only v2 is spoken.
- Alertmanager has no acknowledgement. Ours is a silence of exactly one alert's labels whose
  comment begins with `ACK_MARK`; whoever reads silences (tracker, console) knows it by that.
- A silence matches every alert that has its labels, and others beside. The alert of a whole service
  has no instance: its silence says so, or it would hold each replica's alert back, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cluster.monitor import durations
from cluster.monitor.asking import Service

ACK_MARK: Final = "ack: "
_HINT: Final = (
    "start it with `ws-cluster monitoring up`, or give its address with --alertmanager-url"
)
_MATCHER: Final = re.compile(r'^\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*(?:"(.*)"|(.*?))\s*$', re.DOTALL)
_WORD: Final = re.compile(r"^\w+$")


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    def __str__(self) -> str:
        sign = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
        return f'{self.name}{sign[self.is_regex, self.is_equal]}"{self.value}"'

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it; a label that is missing counts as empty."""
        value = labels.get(self.name, "")
        try:
            found = bool(re.fullmatch(self.value, value)) if self.is_regex else value == self.value
        except re.error:
            # Written for RE2, which knows words that Python does not. Who cannot tell holds nothing back.
            return False
        return found is self.is_equal


def exactly(labels: Mapping[str, str]) -> list[Matcher]:
    """Matchers that this alert fulfils, and no other of its name."""
    return [Matcher(name, value) for name, value in sorted({"instance": "", **labels}.items())]


def matcher(text: str) -> Matcher:
    """A matcher as amtool writes it: `name=value`, `!=`, `=~`, `!~`; a bare word is an alert's name.

    Raises:
        ValueError: if it is none.
    """
    if _WORD.match(text):
        return Matcher("alertname", text)
    parts = _MATCHER.match(text)
    if parts is None:
        raise ValueError(
            f"{text!r} is no matcher: write name=value, name!=value, name=~regex or name!~regex"
        )
    name, sign, quoted, plain = parts.groups()
    value = plain if quoted is None else quoted.replace('\\"', '"').replace("\\\\", "\\")
    if "~" in sign:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{text!r} has a broken regular expression: {error}") from None
    return Matcher(name, value, "~" in sign, not sign.startswith("!"))


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


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """One alert as Alertmanager holds it."""

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


def counterpart(labels: Mapping[str, str], active: Sequence[ActiveAlert]) -> ActiveAlert | None:
    """Alertmanager's own of one of Prometheus' alerts.

    It has the same labels, and beside them the external labels of Prometheus, which every alert has.
    """
    everywhere = (
        frozenset.intersection(*(frozenset(one.labels.items()) for one in active))
        if active
        else frozenset()
    )
    wanted = {*labels.items()}
    for one in active:
        if {*one.labels.items()} == wanted:
            return one
    return next((one for one in active if {*one.labels.items()} == wanted | everywhere), None)


class Alertmanager:
    """The HTTP API v2 of an Alertmanager at `url`."""

    def __init__(self, url: str) -> None:
        self.service: Final = Service("Alertmanager", url.rstrip("/"), _HINT)

    def alerts(self) -> list[ActiveAlert]:
        """Every alert that has not ended, silenced and inhibited ones too."""
        return self._listed("/api/v2/alerts", _alert)

    def silences(self) -> list[Silence]:
        """Every silence that is kept, expired ones too."""
        return self._listed("/api/v2/silences", _silence)

    def silence(
        self, matchers: Sequence[Matcher], *, seconds: float, author: str, comment: str, now: float
    ) -> str:
        """Make a silence; returns its id."""
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
        answer = self.service.post("/api/v2/silences", document)
        if not isinstance(answer, dict) or not answer.get("silenceID"):
            raise self.service.malformed("/api/v2/silences", "no silenceID")
        return str(answer["silenceID"])

    def expire(self, silence_id: str) -> None:
        """End a silence."""
        self.service.delete(f"/api/v2/silence/{silence_id}")

    def configuration(self) -> str:
        """Its configuration as YAML; secrets in it are hidden, paths of secret files are not."""
        path = "/api/v2/status"
        status = self.service.get(path)
        try:
            return str(status["config"]["original"])
        except (KeyError, TypeError) as error:
            raise self.service.malformed(path, repr(error)) from None

    def _listed(self, path: str, read: Any) -> list[Any]:
        answer = self.service.get(path)
        try:
            return [read(one) for one in answer]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.service.malformed(path, repr(error)) from None


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
