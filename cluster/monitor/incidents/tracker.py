"""The incident tracker: watches Prometheus and Alertmanager, keeps the store, tells who must know.

Why it exists: Alertmanager has no acknowledgement, sends no resolve for what is silenced, forgets,
and stays quiet for up to `repeat_interval` when an alert whose end was silenced fires again (its
notification log still holds the first firing).

Rules
- One `tick` looks once and writes down what changed; ticking again, or after a restart, changes
  nothing more. A tick never raises: who cannot be asked says nothing, and nothing is concluded.
- An incident ends only when its rule was evaluated and the alert was not there.
- An acknowledgement ends with its incident. Its silence is taken away when the alert fires again,
  which then pages at once; else when Prometheus and Alertmanager have forgotten the ended alert.
- Repeats: after the response time of the severity, then after twice as long each time.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

from cluster import log
from cluster.monitor.alertmanager import ActiveAlert, Alertmanager, Silence, counterpart
from cluster.monitor.asking import Refused
from cluster.monitor.faults import NotAnswering
from cluster.monitor.incidents import notifications
from cluster.monitor.incidents.notifications import NotificationSender, notification_name
from cluster.monitor.incidents.outbox import Outbox
from cluster.monitor.incidents.routing import BrokenRouting, NotificationChannel, Routing
from cluster.monitor.incidents.store import Incident, IncidentStore, canonical
from cluster.monitor.prometheus import Alert, Prometheus, Rule

ALIVE_FACT: Final = "keeper_alive_at"
_DEPLOYMENTS: Final = 'max by (version) (app_deployment_timestamp_seconds{job="websocket-app"})'
_DEPLOYMENT_FACT: Final = "last_deployment_at"
_NEW_DEPLOYMENT_SECONDS: Final = 300.0
_FORGET_SECONDS: Final = 400 * 86400.0
_FORGET_EVERY_SECONDS: Final = 3600.0
# Prometheus sends an ended alert again and again for so long (rules.resolvedRetention); would its
# silence end before, Alertmanager would tell of the end.
_RESENT_SECONDS: Final = 15 * 60.0
# After a restart Prometheus knows since when an alert is active to the second only.
_SAME_ACTIVATION_SECONDS: Final = 1.5

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class NotificationPolicy:
    """How soon somebody must have taken an incident, and how often to look.

    Attributes:
        response_seconds: by severity; an incident of any other severity is never repeated.
    """

    response_seconds: Mapping[str, float]
    poll_seconds: float = 5.0

    @classmethod
    def of(cls, *, critical: float, warning: float, poll: float) -> NotificationPolicy:
        return cls({"critical": critical, "warning": warning}, poll)


@dataclass(frozen=True, slots=True)
class Silenced:
    """What Alertmanager does with one alert."""

    ack: Silence | None
    is_suppressed: bool
    starts_at: float


class IncidentTracker:
    """Keeps one store.

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
        self._away: dict[str, str] = {}
        self._forget_at = 0.0
        self._log = log.get_logger()

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop."""
        self._log.info("keeper_started", poll_seconds=self._policy.poll_seconds)
        while True:
            self.tick()
            if stop.wait(self._policy.poll_seconds):
                break
        self._log.info("keeper_stopped")

    def tick(self) -> None:
        """Look once, and write down and tell what changed."""
        try:
            self._look()
        except sqlite3.Error as error:
            self._log.error("journal_not_written", reason=str(error))
        except Exception:  # noqa: BLE001 - as the next line says
            # What one tick could not do, the next one tries; a tracker that dies tells nobody.
            self._log.exception("keeper_failed")

    def _look(self) -> None:
        now = self._clock()
        self._learn_routes()
        rules = self._asked("prometheus", self._prometheus.rules)
        alerts = self._asked("alertmanager", self._alertmanager.alerts)
        silences = self._asked("alertmanager", self._alertmanager.silences)
        with self._store.change():
            self._complete_keys()
            if rules:
                self._compare(rules, alerts or [], silences or [], now)
            if alerts is not None and silences is not None:
                self._take_acknowledgements(alerts, silences, now)
            self._repeat(now)
            self._settle_debts(now)
            self._store.remember(ALIVE_FACT, str(now))
            if now >= self._forget_at:
                self._forget_at = now + _FORGET_EVERY_SECONDS
                self._store.forget_before(now - _FORGET_SECONDS)
        if silences is not None:
            self._release_silences(silences, now)
        self._tell_deployments(now)
        self._outbox.deliver()

    # --- asking --------------------------------------------------------------------------

    def _asked(self, name: str, ask: Callable[[], Answer]) -> Answer | None:
        """The answer, or None if there is none; going away and coming back is logged once."""
        try:
            answer = ask()
        except NotAnswering as error:
            if name not in self._away:
                self._log.warning("source_lost", source=name, reason=str(error))
            self._away[name] = str(error)
            return None
        if self._away.pop(name, None):
            self._log.info("source_back", source=name)
        return answer

    def _learn_routes(self) -> None:
        text = self._asked("alertmanager", self._alertmanager.configuration)
        if text is None or text == self._configuration:
            return
        self._configuration = text
        try:
            self._routes = Routing(text)
        except BrokenRouting as error:
            self._log.error("routes_not_understood", reason=str(error))

    def _complete_keys(self) -> None:
        """Give the incidents their keys that began to fire while the routes were not known."""
        for incident in self._store.open_incidents() if self._routes else ():
            keys = self._routes.dedup_keys(incident.labels) if self._routes else []
            if incident.has_fired and not incident.dedup_keys and keys:
                self._store.set(incident.id, dedup_keys=keys)

    # --- pending, firing, resolved -------------------------------------------------------

    def _compare(
        self, rules: list[Rule], alerts: list[ActiveAlert], silences: list[Silence], now: float
    ) -> None:
        seen = {canonical(a.labels): a for rule in rules if rule.is_settled for a in rule.alerts}
        for alert in seen.values():
            fired = self._see(alert, alerts, now)
            if fired is not None:
                self._page_if_quiet(fired, silences)
        unsettled = {rule.name for rule in rules if not rule.is_settled}
        for incident in self._store.open_incidents():
            if canonical(incident.labels) not in seen and incident.alertname not in unsettled:
                self._end(incident, silences, now)

    def _see(self, alert: Alert, alerts: list[ActiveAlert], now: float) -> Incident | None:
        """Write down an alert that is there; returns its incident if it has begun to fire."""
        incident = self._store.last_of(alert.labels)
        if incident is None or not incident.is_open:
            # Closed by hand while the condition goes on holding: the same activation stays closed.
            if incident and abs(incident.active_at - alert.active_at) < _SAME_ACTIVATION_SECONDS:
                return None
            number = self._store.open_incident(alert.labels, alert.annotations, alert.active_at)
            self._note(alert.active_at, number, alert.name, "pending", f"value {alert.value}")
            incident = self._store.incident(number)
        if alert.state != "firing" or incident.has_fired:
            return None
        known = counterpart(alert.labels, alerts)
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

    def _page_if_quiet(self, incident: Incident, silences: list[Silence]) -> None:
        """Page at once where Alertmanager will not: it thinks that it has told of this alert."""
        found = self._store.incidents(
            "labels = ? AND id < ? AND firing_at IS NOT NULL ORDER BY id DESC LIMIT 1",
            canonical(incident.labels),
            incident.id,
        )
        since = incident.firing_at or 0.0
        quiet_seconds = self._routes.repeat_interval_seconds if self._routes else 0.0
        if not found or since - (found[0].resolved_at or 0.0) >= quiet_seconds:
            return
        was_silenced = found[0].acknowledged_at is not None or found[0].is_suppressed
        if was_silenced and not any(self._covers(s, incident) for s in silences):
            self._page(incident, "again", 0.0)

    def _covers(self, silence: Silence, incident: Incident) -> bool:
        """Whether a silence is meant to keep this incident quiet."""
        return (
            silence.state == "active"
            and all(matcher.holds(incident.labels) for matcher in silence.matchers)
            and not (silence.is_ack and self._store.is_left_over(silence.id, incident.id))
        )

    def _end(self, incident: Incident, silences: list[Silence], now: float) -> None:
        if not incident.has_fired:
            self._store.set(incident.id, state="cleared", resolved_at=now)
            self._note(now, incident.id, incident.alertname, "cleared", "it never fired")
            return
        # Of what is silenced or inhibited when it ends, Alertmanager tells nobody; the silence may
        # have come since we last looked.
        is_untold = (
            incident.acknowledged_at is not None
            or incident.is_suppressed
            or any(self._covers(silence, incident) for silence in silences)
        )
        self._store.set(
            incident.id,
            state="resolved",
            resolved_at=now,
            resolution="the condition ended",
            owes_resolve=int(is_untold),
        )
        lasted = f"after {now - (incident.firing_at or now):.0f} s"
        self._note(now, incident.id, incident.alertname, "resolved", lasted)

    # --- acknowledged --------------------------------------------------------------------

    def _take_acknowledgements(
        self, alerts: list[ActiveAlert], silences: list[Silence], now: float
    ) -> None:
        known = {silence.id: silence for silence in silences}
        for incident in self._store.open_incidents():
            if not incident.has_fired:
                continue
            alert = counterpart(incident.labels, alerts)
            if alert is not None:
                self._judge(incident, _silenced(alert, known), now)

    def _judge(self, incident: Incident, silenced: Silenced, now: float) -> None:
        if incident.is_suppressed != silenced.is_suppressed:
            self._store.set(incident.id, is_suppressed=int(silenced.is_suppressed))
        if silenced.ack is not None and self._store.is_left_over(silenced.ack.id, incident.id):
            return
        if silenced.ack is not None:
            self._store.note_acknowledgement(silenced.ack.id, incident.id)
            if incident.state == "firing":
                self._acknowledge(incident, silenced.ack)
        elif incident.state == "acknowledged" and not silenced.is_suppressed:
            self._store.set(incident.id, state="firing", unacknowledged_since=now, repeats=0)
            text = "the acknowledgement ran out and the alert still fires"
            self._note(now, incident.id, incident.alertname, "ack_expired", text)

    def _acknowledge(self, incident: Incident, ack: Silence) -> None:
        # A silence may have been there before the alert.
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
            self._outbox.post(name, "pagerduty", notifications.acknowledgement(key))

    # --- repeats and debts ---------------------------------------------------------------

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
        told = self._routes.slack_channels(incident.labels) if self._routes else []
        channels: list[NotificationChannel | None] = [*told] or [None]
        for channel in channels:
            where = channel.settings.get("channel", "") if channel is not None else ""
            name = notification_name("slack", reason, incident.id, where)
            self._outbox.post(name, "slack", notifications.slack_again(incident, channel, waited))
        for key in incident.dedup_keys:
            name = notification_name("pagerduty", reason, incident.id, key)
            self._outbox.post(name, "pagerduty", notifications.page_again(incident, key, waited))

    def _settle_debts(self, now: float) -> None:
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
                    self._outbox.post(name, "pagerduty", notifications.resolution(key))
                self._store.set(incident.id, owes_resolve=0)

    def _release_silences(self, silences: list[Silence], now: float) -> None:
        """Take away the silences of acknowledged incidents that have ended."""
        in_force = {silence.id for silence in silences if silence.state != "expired"}
        interval = self._routes.group_interval_seconds if self._routes else 0.0
        grace = _RESENT_SECONDS + 2 * interval
        for silence_id, incidents in self._store.ended_acknowledgements():
            last = self._store.last_of(incidents[0].labels)
            fires_again = last is not None and last.state == "firing"
            ended_at = max(incident.resolved_at or 0.0 for incident in incidents)
            if not fires_again and now < ended_at + grace:
                continue
            # If not, it has ended by itself, or somebody ended it.
            if silence_id in in_force and not self._is_expired(silence_id):
                continue
            with self._store.change():
                self._store.release(silence_id)
            self._log.info("silence_released", silence=silence_id, alert=incidents[0].alertname)

    def _is_expired(self, silence_id: str) -> bool:
        """End a silence; False if it has to be tried again."""
        try:
            self._alertmanager.expire(silence_id)
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                self._log.warning("silence_not_ended", silence=silence_id, reason=str(refused))
                return False
        except NotAnswering:
            return False
        return True

    # --- deployments ---------------------------------------------------------------------

    def _tell_deployments(self, now: float) -> None:
        """One change event per deployment; those from before the store began are not told."""
        if not self._outbox.knows("change"):
            return
        samples = self._asked("prometheus", lambda: self._prometheus.query(_DEPLOYMENTS))
        for sample in sorted(samples or [], key=lambda s: s.value):
            at, version = sample.value, sample.labels.get("version", "")
            last = float(self._store.fact(_DEPLOYMENT_FACT) or now - _NEW_DEPLOYMENT_SECONDS)
            if at > last:
                with self._store.change():
                    self._outbox.post(
                        notification_name("deployment", version, at),
                        "change",
                        notifications.deployment(version, at),
                    )
                    self._store.remember(_DEPLOYMENT_FACT, str(at))

    # --- telling -------------------------------------------------------------------------

    def _note(self, at: float, incident_id: int, alert: str, kind: str, text: str) -> None:
        self._store.tell(at, incident_id, kind, text)
        self._log.info("incident_changed", incident=incident_id, alert=alert, kind=kind, text=text)


def _silenced(alert: ActiveAlert, known: Mapping[str, Silence]) -> Silenced:
    by = [known[name] for name in alert.silenced_by if name in known]
    acks = sorted((s for s in by if s.is_ack and s.state == "active"), key=lambda s: s.starts_at)
    return Silenced(
        ack=acks[0] if acks else None,
        is_suppressed=bool(alert.silenced_by or alert.inhibited_by),
        starts_at=alert.starts_at,
    )
