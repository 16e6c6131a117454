"""Which receivers must be notified of an alert, and whether they were.

The routing of docker/alertmanager.yml is repeated here on purpose, without asking Alertmanager: so a route
that was removed there is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cluster.alerting.http import HttpService
from loadtest.drilling.result import ReceiverState

ONCALL: Final = ("slack", "#websocket-oncall")
TEAM: Final = ("slack", "#websocket-alerts")
INFRASTRUCTURE: Final = ("slack", "#infrastructure-alerts")
PAGER: Final = ("pagerduty", "trigger")

Receiver = tuple[str, str]

# As docker/alertmanager.yml gives them.
_ICONS: Final = {
    "#websocket-oncall": ":rotating_light:",
    "#websocket-alerts": ":warning:",
    "#infrastructure-alerts": ":gear:",
}


def receivers_of(severity: str, team: str) -> list[Receiver]:
    """The receivers of an alert of this severity and team."""
    found: list[Receiver] = []
    if severity == "critical":
        found += [ONCALL, PAGER]
    if severity == "warning":
        found += [TEAM]
    if team == "infrastructure":
        found += [INFRASTRUCTURE]
    return found or [TEAM]


def last_id(receiver: HttpService) -> int:
    """The number of the last notification that arrived."""
    return max((int(entry["id"]) for entry in receiver.get("/received")), default=0)


class Notifications:
    """The notifications of one alert that the stand-in received after a given one."""

    def __init__(self, receiver: HttpService, alert: str, after: int) -> None:
        self._receiver = receiver
        self._alert = alert
        self._after = after

    def entries(self) -> list[dict[str, Any]]:
        """All of them, oldest first."""
        params = {"alert": self._alert, "after": str(self._after)}
        found: list[dict[str, Any]] = self._receiver.get("/received", params)
        return [entry for entry in found if entry["kind"] in ("slack", "pagerduty")]

    def arrived(self, state: str) -> dict[Receiver, ReceiverState]:
        """The receivers that were notified of a state: `firing`, `acknowledged` or `resolved`."""
        found: dict[Receiver, ReceiverState] = {}
        for entry in self.entries():
            if _state(entry) == state and not _fault(entry):
                kind, address = _receiver_of(entry)
                key = PAGER if kind == "pagerduty" else (kind, address)
                found.setdefault(key, ReceiverState(kind, address, entry["at"]))
        return found

    def malformed(self) -> str:
        """The fault of the first malformed notification; empty if there is none."""
        return next(filter(None, map(_fault, self.entries())), "")

    def unresolved_at(self) -> float:
        """The time of the last notification whose receiver was not notified of the end; 0 if none."""
        last: dict[Receiver, tuple[str, float]] = {}
        for entry in self.entries():
            kind, address = _receiver_of(entry)
            if state := _state(entry):
                key = PAGER if kind == "pagerduty" else (kind, address)
                last[key] = state, float(entry["at"])
        return max((at for state, at in last.values() if state != "resolved"), default=0.0)


def _receiver_of(entry: Mapping[str, Any]) -> Receiver:
    document = entry["document"]
    if entry["kind"] == "pagerduty":
        return "pagerduty", str(document.get("event_action"))
    return "slack", str(document.get("channel"))


def _fault(entry: Mapping[str, Any]) -> str:
    """What is wrong with a notification of a firing alert; empty if nothing is."""
    document = entry["document"]
    if _state(entry) != "firing":
        return ""
    if entry["kind"] == "pagerduty":
        severity = (document.get("payload") or {}).get("severity")
        if severity != "critical":
            return f"payload: PagerDuty got the severity {severity!r} instead of 'critical'"
        lacking = [n for n in ("dedup_key", "routing_key") if not document.get(n)]
        return f"payload: PagerDuty got no {' and no '.join(lacking)}" if lacking else ""
    channel, icon = str(document.get("channel")), document.get("icon_emoji")
    wanted = _ICONS.get(channel)
    return (
        "" if icon == wanted else f"payload: {channel} has the icon {icon!r} instead of {wanted!r}"
    )


_PAGER_STATES: Final = {"trigger": "firing", "acknowledge": "acknowledged", "resolve": "resolved"}


def _state(entry: Mapping[str, Any]) -> str:
    document = entry["document"]
    if entry["kind"] == "pagerduty":
        return _PAGER_STATES.get(str(document.get("event_action")), "")
    titles = [str(one.get("title")) for one in document.get("attachments") or ()]
    if any("[FIRING" in title for title in titles):
        return "firing"
    return "resolved" if any("[RESOLVED" in title for title in titles) else ""
