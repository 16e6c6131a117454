"""The incident tracker: watches Prometheus and Alertmanager, records incidents, sends notifications.

Why it exists: Alertmanager has no acknowledgement, sends no resolve for what is silenced, keeps no
history, and sends nothing for up to `repeat_interval` when an alert whose end was silenced fires again
(its notification log still has the first firing).

Rules
- One `tick` asks once and records what changed; another tick, or one after a restart, changes nothing
  more. A tick never raises. If a service does not answer, nothing is concluded from that.
- An incident ends only when its rule was evaluated and the alert was not there.
- An acknowledgement ends with its incident. Its silence is ended when the alert fires again, which
  then pages at once; else when Prometheus and Alertmanager have forgotten the ended alert.
- Repeats: after the response time of the severity, then each time after twice as long.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from cluster import log
from cluster.alerting.alertmanager import ActiveAlert, AlertIndex, Alertmanager, Silence
from cluster.alerting.prometheus import Alert, Prometheus, Rule
from cluster.errors import HttpStatusError, NotAnswering
from cluster.monitor.incidents import notifications
from cluster.monitor.incidents.notifications import (
    NotificationSender,
    Outbox,
    notification_name,
)
from cluster.monitor.incidents.routing import BrokenRouting, NotificationChannel, Routing
from cluster.monitor.incidents.store import ALIVE_FACT, Incident, IncidentStore, canonical

_DEPLOYMENTS: Final = 'max by (version) (app_deployment_timestamp_seconds{job="websocket-app"})'
_DEPLOYMENT_FACT: Final = "last_deployment_at"
_NEW_DEPLOYMENT_SECONDS: Final = 300.0
_RETENTION_SECONDS: Final = 400 * 86400.0
_DELETE_EVERY_SECONDS: Final = 3600.0
# Prometheus repeats an ended alert for this long (rules.resolvedRetention); if its silence ended
# earlier, Alertmanager would notify of the end.
_RESENT_SECONDS: Final = 15 * 60.0
# After a restart, Prometheus knows the start of an alert to the second only.
_SAME_ACTIVATION_SECONDS: Final = 1.5

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class NotificationPolicy:
    """How soon an incident must be acknowledged, and how often both services are asked.

    Attributes:
        response_seconds: by severity; incidents of other severities are never repeated.
    """

    response_seconds: Mapping[str, float]
    poll_seconds: float = 5.0

    @classmethod
    def of(cls, *, critical: float, warning: float, poll: float) -> NotificationPolicy:
        return cls({"critical": critical, "warning": warning}, poll)


@dataclass(frozen=True, slots=True)
class Suppression:
    """Whether Alertmanager notifies of one alert, and the acknowledgement if there is one."""

    ack: Silence | None
    is_suppressed: bool


class IncidentTracker:
    """Tracks the incidents of one store.

    Args:
        clock: Unix time.
    """

    def __init__(
        self,
        store: IncidentStore,
        prometheus: Prometheus,
        alertmanager: Alertmanager,
        sender: NotificationSender,
        policy: NotificationPolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._prometheus = prometheus
        self._alertmanager = alertmanager
        self._outbox = Outbox(store, sender, policy.poll_seconds, clock)
        self._policy = policy
        self._clock = clock
        self._routes: Routing | None = None
        self._configuration = ""
        self._unanswered: dict[str, str] = {}
        self._delete_at = 0.0
        self._log = log.get_logger()

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set."""
        self._log.info("tracker_started", poll_seconds=self._policy.poll_seconds)
        while True:
            self.tick()
            if stop.wait(self._policy.poll_seconds):
                break
        self._log.info("tracker_stopped")

    def tick(self) -> None:
        """Ask both services once, and record and send what changed."""
        try:
            self._tick()
        except sqlite3.Error as error:
            self._log.error("incident_store_not_written", reason=str(error))
        except Exception:  # noqa: BLE001 - as the next line says
            # The next tick tries again; if the tracker ended here, no notification would be sent.
            self._log.exception("tracker_tick_failed")

    def _tick(self) -> None:
        now = self._clock()
        self._read_routes()
        rules = self._asked("prometheus", self._prometheus.rules)
        alerts = self._asked("alertmanager", self._alertmanager.alerts)
        silences = self._asked("alertmanager", self._alertmanager.silences)
        with self._store.change():
            self._complete_keys()
            if rules:
                self._compare(rules, alerts or [], silences or [], now)
            if alerts is not None and silences is not None:
                self._check_acknowledgements(alerts, silences, now)
            self._repeat(now)
            self._send_owed_resolves()
            self._store.set_fact(ALIVE_FACT, str(now))
            if now >= self._delete_at:
                self._delete_at = now + _DELETE_EVERY_SECONDS
                self._store.delete_before(now - _RETENTION_SECONDS)
        if silences is not None:
            self._end_silences(silences, now)
        self._send_deployments(now)
        self._outbox.deliver()

    # --- asking --------------------------------------------------------------------------

    def _asked(self, name: str, ask: Callable[[], Answer]) -> Answer | None:
        """The answer, or None if there is none; each change between the two is logged once."""
        try:
            answer = ask()
        except NotAnswering as error:
            if name not in self._unanswered:
                self._log.warning("source_lost", source=name, reason=str(error))
            self._unanswered[name] = str(error)
            return None
        if self._unanswered.pop(name, None):
            self._log.info("source_back", source=name)
        return answer

    def _read_routes(self) -> None:
        text = self._asked("alertmanager", self._alertmanager.configuration)
        if text is None or text == self._configuration:
            return
        self._configuration = text
        try:
            self._routes = Routing(text)
        except BrokenRouting as error:
            self._log.error("routes_not_understood", reason=str(error))

    def _complete_keys(self) -> None:
        """Add the keys of incidents that began to fire before the routes were known."""
        for incident in self._store.open_incidents() if self._routes else ():
            keys = self._routes.dedup_keys(incident.labels) if self._routes else []
            if incident.has_fired and not incident.dedup_keys and keys:
                self._store.set(incident.id, dedup_keys=keys)

    # --- pending, firing, resolved -------------------------------------------------------

    def _compare(
        self, rules: list[Rule], alerts: list[ActiveAlert], silences: list[Silence], now: float
    ) -> None:
        index = AlertIndex(alerts)
        seen = {canonical(a.labels): a for rule in rules if rule.is_settled for a in rule.alerts}
        for alert in seen.values():
            fired = self._record_alert(alert, index, now)
            if fired is not None:
                self._page_if_unnotified(fired, silences)
        unsettled = {rule.name for rule in rules if not rule.is_settled}
        for incident in self._store.open_incidents():
            if canonical(incident.labels) not in seen and incident.alertname not in unsettled:
                self._end(incident, silences, now)

    def _record_alert(self, alert: Alert, index: AlertIndex, now: float) -> Incident | None:
        """Record an alert that Prometheus has; returns its incident if it has begun to fire."""
        incident = self._store.last_of(alert.labels)
        if incident is None or not incident.is_open:
            # Closed by hand while the condition still holds: the same activation stays closed.
            if incident and abs(incident.active_at - alert.active_at) < _SAME_ACTIVATION_SECONDS:
                return None
            number = self._store.open_incident(alert.labels, alert.annotations, alert.active_at)
            self._note(alert.active_at, number, alert.name, "pending", f"value {alert.value}")
            incident = self._store.incident(number)
        if alert.state != "firing" or incident.has_fired:
            return None
        known = index.find(alert.labels)
        since = known.starts_at if known and alert.active_at <= known.starts_at < now else now
        self._store.set(
            incident.id,
            state="firing",
            firing_at=since,
            unacknowledged_since=since,
            annotations=dict(alert.annotations),
            dedup_keys=self._routes.dedup_keys(alert.labels) if self._routes else [],
        )
        summary = alert.annotations.get("summary", "")
        self._note(since, incident.id, alert.name, "firing", summary)
        return self._store.incident(incident.id)

    def _page_if_unnotified(self, incident: Incident, silences: list[Silence]) -> None:
        """Page at once if Alertmanager will not, because its log says that it has notified."""
        found = self._store.incidents(
            "labels = ? AND id < ? AND firing_at IS NOT NULL ORDER BY id DESC LIMIT 1",
            canonical(incident.labels),
            incident.id,
        )
        since = incident.firing_at or 0.0
        unnotified_seconds = self._routes.repeat_interval_seconds if self._routes else 0.0
        if not found or since - (found[0].resolved_at or 0.0) >= unnotified_seconds:
            return
        was_silenced = found[0].acknowledged_at is not None or found[0].is_suppressed
        if was_silenced and not any(self._covers(s, incident) for s in silences):
            self._page(incident, "again", 0.0)

    def _covers(self, silence: Silence, incident: Incident) -> bool:
        """Whether a silence applies to this incident, and not to an earlier one of the alert."""
        return (
            silence.state == "active"
            and all(matcher.holds(incident.labels) for matcher in silence.matchers)
            and not (silence.is_ack and self._store.is_of_earlier_incident(silence.id, incident.id))
        )

    def _end(self, incident: Incident, silences: list[Silence], now: float) -> None:
        if not incident.has_fired:
            self._store.set(incident.id, state="cleared", resolved_at=now)
            self._note(now, incident.id, incident.alertname, "cleared", "it never fired")
            return
        # Alertmanager sends no end of what is silenced or inhibited; the silence may be newer than
        # the last tick.
        owes_resolve = (
            incident.acknowledged_at is not None
            or incident.is_suppressed
            or any(self._covers(silence, incident) for silence in silences)
        )
        self._store.set(
            incident.id,
            state="resolved",
            resolved_at=now,
            resolution="the condition ended",
            owes_resolve=int(owes_resolve),
        )
        lasted = f"after {now - (incident.firing_at or now):.0f} s"
        self._note(now, incident.id, incident.alertname, "resolved", lasted)

    # --- acknowledged --------------------------------------------------------------------

    def _check_acknowledgements(
        self, alerts: list[ActiveAlert], silences: list[Silence], now: float
    ) -> None:
        known = {silence.id: silence for silence in silences}
        index = AlertIndex(alerts)
        for incident in self._store.open_incidents():
            if not incident.has_fired:
                continue
            alert = index.find(incident.labels)
            if alert is not None:
                self._compare_acknowledgement(incident, _suppression(alert, known), now)

    def _compare_acknowledgement(
        self, incident: Incident, suppression: Suppression, now: float
    ) -> None:
        if incident.is_suppressed != suppression.is_suppressed:
            self._store.set(incident.id, is_suppressed=int(suppression.is_suppressed))
        if suppression.ack is not None and self._store.is_of_earlier_incident(
            suppression.ack.id, incident.id
        ):
            return
        if suppression.ack is not None:
            self._store.record_acknowledgement(suppression.ack.id, incident.id)
            if incident.state == "firing":
                self._acknowledge(incident, suppression.ack)
        elif incident.state == "acknowledged" and not suppression.is_suppressed:
            self._store.set(incident.id, state="firing", unacknowledged_since=now, repeats=0)
            text = "the acknowledgement expired and the alert still fires"
            self._note(now, incident.id, incident.alertname, "ack_expired", text)

    def _acknowledge(self, incident: Incident, ack: Silence) -> None:
        # The silence may be older than the alert.
        at = max(ack.starts_at, incident.firing_at or 0.0)
        self._store.set(
            incident.id,
            state="acknowledged",
            acknowledged_at=incident.acknowledged_at or at,
            acknowledged_by=ack.author,
            note=ack.note,
        )
        self._note(at, incident.id, incident.alertname, "acknowledged", f"{ack.author}: {ack.note}")
        for key in incident.dedup_keys:
            name = notification_name("acknowledge", incident.id, ack.id, key)
            self._outbox.add(name, "pagerduty", notifications.acknowledgement(key))

    # --- repeats and resolves ------------------------------------------------------------

    def _repeat(self, now: float) -> None:
        for incident in self._store.open_incidents():
            target = self._policy.response_seconds.get(incident.severity)
            since = incident.unacknowledged_since
            if incident.state != "firing" or incident.is_suppressed or not target or not since:
                continue
            if now >= since + target * 2**incident.repeats:
                self._page(incident, f"repeat-{since:.0f}-{incident.repeats}", now - since)
                waited = f"not acknowledged after {now - since:.0f} s"
                self._note(now, incident.id, incident.alertname, "repeated", waited)
                due = incident.repeats
                while now >= since + target * 2**due:
                    due += 1
                self._store.set(incident.id, repeats=due)

    def _page(self, incident: Incident, reason: str, waited: float) -> None:
        known = self._routes.slack_channels(incident.labels) if self._routes else []
        channels: list[NotificationChannel | None] = [*known] or [None]
        for channel in channels:
            title = channel.settings.get("channel", "") if channel is not None else ""
            name = notification_name("slack", reason, incident.id, title)
            self._outbox.add(name, "slack", notifications.slack_again(incident, channel, waited))
        for key in incident.dedup_keys:
            name = notification_name("pagerduty", reason, incident.id, key)
            self._outbox.add(name, "pagerduty", notifications.page_again(incident, key, waited))

    def _send_owed_resolves(self) -> None:
        """Resolve PagerDuty's incidents whose last alert has ended."""
        held = {
            key
            for incident in self._store.open_incidents()
            if incident.has_fired
            for key in incident.dedup_keys
        }
        for incident in self._store.incidents("owes_resolve = 1"):
            if held.isdisjoint(incident.dedup_keys):
                for key in incident.dedup_keys:
                    name = notification_name("resolve", incident.id, key)
                    self._outbox.add(name, "pagerduty", notifications.resolution(key))
                self._store.set(incident.id, owes_resolve=0)

    def _end_silences(self, silences: list[Silence], now: float) -> None:
        """End the silences of acknowledged incidents that have ended."""
        in_force = {silence.id for silence in silences if silence.is_in_force}
        interval = self._routes.group_interval_seconds if self._routes else 0.0
        grace = _RESENT_SECONDS + 2 * interval
        for silence_id, incidents in self._store.ended_acknowledgements():
            last = self._store.last_of(incidents[0].labels)
            fires_again = last is not None and last.state == "firing"
            ended_at = max(incident.resolved_at or 0.0 for incident in incidents)
            if not fires_again and now < ended_at + grace:
                continue
            # If it is not in force, it has expired or was ended by hand.
            if silence_id in in_force and not self._has_expired(silence_id):
                continue
            with self._store.change():
                self._store.release(silence_id)
            self._log.info("silence_released", silence=silence_id, alert=incidents[0].alertname)

    def _has_expired(self, silence_id: str) -> bool:
        """End a silence; False if it has to be tried again."""
        try:
            self._alertmanager.expire(silence_id)
        except HttpStatusError as error:
            self._log.warning("silence_not_ended", silence=silence_id, reason=str(error))
            return False
        except NotAnswering:
            return False
        return True

    # --- deployments ---------------------------------------------------------------------

    def _send_deployments(self, now: float) -> None:
        """Send one change event per deployment; none for those older than the store."""
        if not self._outbox.has("change"):
            return
        samples = self._asked("prometheus", lambda: self._prometheus.query(_DEPLOYMENTS))
        for sample in sorted(samples or [], key=lambda s: s.value):
            at, version = sample.value, sample.labels.get("version", "")
            last = float(self._store.fact(_DEPLOYMENT_FACT) or now - _NEW_DEPLOYMENT_SECONDS)
            if at > last:
                with self._store.change():
                    self._outbox.add(
                        notification_name("deployment", version, at),
                        "change",
                        notifications.deployment(version, at),
                    )
                    self._store.set_fact(_DEPLOYMENT_FACT, str(at))

    def _note(self, at: float, incident_id: int, alert: str, kind: str, text: str) -> None:
        self._store.record(at, incident_id, kind, text)
        self._log.info("incident_changed", incident=incident_id, alert=alert, kind=kind, text=text)


def _suppression(alert: ActiveAlert, known: Mapping[str, Silence]) -> Suppression:
    by = [known[name] for name in alert.silenced_by if name in known]
    acks = sorted((s for s in by if s.is_ack and s.state == "active"), key=lambda s: s.starts_at)
    return Suppression(
        ack=acks[0] if acks else None,
        is_suppressed=bool(alert.silenced_by or alert.inhibited_by),
    )
