"""The incident tracker: what it records, which notifications it sends, and that it sends each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.alerting.alertmanager import Alertmanager
from cluster.alerting.prometheus import Prometheus
from cluster.monitor.incidents.notifications import NotificationSender
from cluster.monitor.incidents.store import IncidentStore
from cluster.monitor.incidents.tracker import IncidentTracker, NotificationPolicy
from tests.unit.monitor_services import Services, running

START = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Tracked:
    """A tracker, its clock and its store, which outlives it."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.services = services
        self.clock = Clock()
        self.folder = folder
        for name, text in (("key", "routing-key"), ("slack", f"{services.url}/slack/hook")):
            (folder / name).write_text(text)
        self.restart()

    def restart(self) -> None:
        self.store = IncidentStore(self.folder)
        self.tracker = IncidentTracker(
            self.store,
            Prometheus(self.services.url),
            Alertmanager(self.services.url),
            NotificationSender(
                pagerduty_url=f"{self.services.url}/v2/enqueue",
                pagerduty_key_file=str(self.folder / "key"),
                change_key_file=str(self.folder / "key"),
                slack_url_file=str(self.folder / "slack"),
            ),
            NotificationPolicy.of(critical=300, warning=1800, poll=5),
            clock=self.clock,
        )

    def after(self, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            self.clock.now += seconds / times
            self.tracker.tick()

    def states(self) -> list[tuple[str, str]]:
        return [(i.alertname, i.state) for i in self.store.incidents("1 ORDER BY id")]

    def actions(self) -> list[str]:
        return [event["event_action"] for event in self.services.posted_to("/v2/enqueue")]


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[Tracked]:
    with running() as services:
        services.rule("ServiceDown")
        services.rule("SlowShutdownTime", "warning")
        one = Tracked(services, tmp_path)
        yield one
        one.store.close()


def fire(tracked: Tracked) -> dict[str, str]:
    labels = tracked.services.fire("ServiceDown", since=tracked.clock.now, instance="a:8001")
    tracked.after(5)
    return labels


def test_an_incident_is_pending_then_firing_then_resolved(tracked: Tracked):
    tracked.services.fire("ServiceDown", since=START, state="pending")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "pending")]
    tracked.services.fire("ServiceDown", since=START)
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "firing")]
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "resolved")]
    kinds = [event.kind for _, event in tracked.store.events(0)]
    assert kinds == ["pending", "firing", "resolved"]


def test_what_never_fired_is_cleared_and_not_resolved(tracked: Tracked):
    tracked.services.fire("ServiceDown", since=START, state="pending")
    tracked.after(5)
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "cleared")]


def test_a_prometheus_that_does_not_answer_resolves_nothing(tracked: Tracked):
    fire(tracked)
    tracked.services.answers["/api/v1/rules"] = (500, b"broken")
    tracked.services.resolve("ServiceDown")
    tracked.after(60, times=3)
    assert tracked.states() == [("ServiceDown", "firing")]


def test_a_rule_that_cannot_be_evaluated_resolves_nothing(tracked: Tracked):
    fire(tracked)
    tracked.services.resolve("ServiceDown")
    tracked.services.health["ServiceDown"] = "err"
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "firing")]


def test_a_firing_alert_that_is_pending_again_after_a_restart_of_prometheus_stays_open(
    tracked: Tracked,
):
    fire(tracked)
    tracked.services.fire("ServiceDown", since=START, state="pending", instance="a:8001")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "firing")]


def test_an_acknowledgement_is_sent_to_pagerduty_and_its_end_resolves_there(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    incident = tracked.store.incident(1)
    assert (incident.state, incident.acknowledged_by, incident.note) == (
        "acknowledged",
        "ann",
        "on it",
    )
    assert tracked.actions() == ["acknowledge"]
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.actions() == ["acknowledge", "resolve"]
    first, second = tracked.services.posted_to("/v2/enqueue")
    assert first["dedup_key"] == second["dedup_key"]
    assert first["routing_key"] == "routing-key"


def test_pagerduty_is_resolved_only_when_the_last_alert_of_the_group_has_ended(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.fire("ServiceDown", since=tracked.clock.now, instance="b:8001")
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    others = [a for a in tracked.services.alerts["ServiceDown"] if a["labels"] != labels]
    tracked.services.alerts["ServiceDown"] = others
    tracked.after(5)
    assert "resolve" not in tracked.actions()
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.actions()[-1] == "resolve"


def test_a_tracker_that_is_restarted_sends_nothing_twice(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    tracked.store.close()
    tracked.restart()
    tracked.after(60, times=3)
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    tracked.store.close()
    tracked.restart()
    tracked.after(60, times=3)
    assert tracked.actions() == ["acknowledge", "resolve"]
    assert tracked.states() == [("ServiceDown", "resolved")]


@pytest.mark.parametrize(
    ("name", "target", "pages"), [("ServiceDown", 300, 1), ("SlowShutdownTime", 1800, 0)]
)
def test_a_notification_is_repeated_after_the_response_time(
    tracked: Tracked, name: str, target: float, pages: int
):
    tracked.services.fire(name, since=START)
    tracked.after(1)
    tracked.after(target - 10, times=2)
    assert tracked.services.posted == []
    tracked.after(20)
    [message] = tracked.services.posted_to("/slack/hook")
    assert name in message["text"]
    assert "not acknowledged" in message["text"]
    assert len(tracked.actions()) == pages
    tracked.after(target - 20, times=4)
    assert len(tracked.services.posted_to("/slack/hook")) == 1
    tracked.after(20)
    assert len(tracked.services.posted_to("/slack/hook")) == 2


def test_a_critical_is_repeated_where_the_first_notification_went(tracked: Tracked):
    fire(tracked)
    tracked.after(310)
    channels = {message.get("channel") for message in tracked.services.posted_to("/slack/hook")}
    assert channels == {"#websocket-oncall"}
    [page] = tracked.services.posted_to("/v2/enqueue")
    assert page["event_action"] == "trigger"
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["source"] == "a:8001"


def test_repeats_missed_while_the_tracker_did_not_run_come_as_one(tracked: Tracked):
    fire(tracked)
    tracked.after(3000)
    tracked.after(5)
    assert len(tracked.services.posted_to("/slack/hook")) == 1


@pytest.mark.parametrize("comment", ["ack: on it", "planned work"])
def test_what_is_acknowledged_or_silenced_is_not_repeated(tracked: Tracked, comment: str):
    labels = fire(tracked)
    tracked.services.silence(labels, comment, since=tracked.clock.now)
    tracked.after(3600, times=6)
    assert tracked.services.posted_to("/slack/hook") == []


def test_an_acknowledgement_that_expires_while_the_alert_fires_starts_the_response_time_again(
    tracked: Tracked,
):
    labels = fire(tracked)
    number = tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(600)
    tracked.services.silences[number]["status"]["state"] = "expired"
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "firing")]
    assert tracked.services.posted_to("/slack/hook") == []
    tracked.after(310)
    assert len(tracked.services.posted_to("/slack/hook")) == 1


def test_an_alert_that_fires_again_after_an_acknowledgement_pages_at_once(tracked: Tracked):
    labels = fire(tracked)
    number = tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    tracked.services.resolve("ServiceDown")
    tracked.after(60)
    tracked.services.fire("ServiceDown", since=tracked.clock.now, instance="a:8001")
    tracked.after(5)
    [message] = tracked.services.posted_to("/slack/hook")
    assert "fires again" in message["text"]
    assert tracked.actions() == ["acknowledge", "resolve", "trigger"]
    assert tracked.services.silences[number]["status"]["state"] == "expired"
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "resolved"), ("ServiceDown", "firing")]


def test_an_alert_that_fires_again_under_a_silence_for_planned_work_does_not_page(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.silence(labels, "planned work", since=tracked.clock.now)
    tracked.after(5)
    tracked.services.resolve("ServiceDown")
    tracked.after(60)
    tracked.services.fire("ServiceDown", since=tracked.clock.now, instance="a:8001")
    tracked.after(5)
    # Alertmanager sends no end of what it had notified of before the silence.
    assert tracked.actions() == ["resolve"]
    assert tracked.services.posted_to("/slack") == []


def test_an_end_in_the_same_tick_as_the_acknowledgement_is_sent(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.actions() == ["resolve"]


def test_a_silence_that_alertmanager_does_not_end_is_ended_later(tracked: Tracked):
    labels = fire(tracked)
    number = tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    tracked.services.refuses_to_expire = 1
    tracked.after(26 * 60)
    assert tracked.services.silences[number]["status"]["state"] == "active"
    tracked.after(5)
    assert tracked.services.silences[number]["status"]["state"] == "expired"


def test_the_alert_of_the_service_and_that_of_a_replica_are_two_incidents(tracked: Tracked):
    tracked.services.fire("ServiceDown", since=tracked.clock.now)
    replica = tracked.services.fire("ServiceDown", since=tracked.clock.now, instance="a:8001")
    tracked.after(5)
    tracked.services.silence(replica, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    states = {i.labels.get("instance"): i.state for i in tracked.store.incidents("1")}
    assert states == {None: "firing", "a:8001": "acknowledged"}


def test_an_incident_older_than_the_routes_gets_its_keys(tracked: Tracked):
    tracked.services.answers["/api/v2/status"] = (500, b"")
    labels = fire(tracked)
    assert tracked.store.incidents("1")[0].dedup_keys == ()
    del tracked.services.answers["/api/v2/status"]
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    assert tracked.actions() == ["acknowledge"]


def test_a_silence_with_syntax_of_re2_does_not_end_a_tick(tracked: Tracked):
    labels = fire(tracked)
    number = tracked.services.silence(labels, "planned", since=tracked.clock.now)
    tracked.services.silences[number]["matchers"][0] |= {"value": r"\pL+", "isRegex": True}
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "resolved")]


def test_a_notification_without_a_usable_address_is_shown_as_undelivered(tracked: Tracked):
    with tracked.store.change():
        tracked.store.add_notification("x", "slack", {}, tracked.clock.now)
    (tracked.folder / "slack").write_text("no address at all")
    tracked.after(5)
    assert tracked.store.undelivered(tracked.clock.now - 60) == []
    assert tracked.store.undelivered(tracked.clock.now) == [("slack", "not delivered yet")]


def test_the_silence_of_an_acknowledgement_ends_when_prometheus_has_forgotten_the_alert(
    tracked: Tracked,
):
    labels = fire(tracked)
    number = tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    tracked.after(15 * 60)
    assert tracked.services.silences[number]["status"]["state"] == "active"
    tracked.after(11 * 60)
    assert tracked.services.silences[number]["status"]["state"] == "expired"


def test_what_was_closed_by_hand_stays_closed_while_the_condition_holds(tracked: Tracked):
    fire(tracked)
    with tracked.store.change():
        tracked.store.set(1, state="resolved", resolved_at=tracked.clock.now)
    tracked.after(60, times=3)
    assert tracked.states() == [("ServiceDown", "resolved")]
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    tracked.services.fire("ServiceDown", since=tracked.clock.now, instance="a:8001")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "resolved"), ("ServiceDown", "firing")]


def test_a_notification_that_fails_is_sent_again(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.refuses = 2
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    assert tracked.actions() == []
    tracked.after(60, times=6)
    assert tracked.actions() == ["acknowledge"]


def test_a_notification_that_is_refused_for_good_is_given_up(tracked: Tracked):
    labels = fire(tracked)
    tracked.services.answers["/v2/enqueue"] = (400, b"invalid event")
    tracked.services.silence(labels, "ack: on it", since=tracked.clock.now)
    tracked.after(5)
    del tracked.services.answers["/v2/enqueue"]
    tracked.after(600, times=3)
    assert tracked.actions() == []


def test_a_deployment_is_one_change_event(tracked: Tracked):
    tracked.services.deployments = {"1.0": START - 86400}
    tracked.after(5)
    assert tracked.services.posted_to("/v2/change/enqueue") == []
    tracked.services.deployments["1.1"] = tracked.clock.now
    tracked.after(60, times=3)
    [event] = tracked.services.posted_to("/v2/change/enqueue")
    assert event["payload"]["summary"] == "ws-cluster 1.1 was deployed"


def test_secrets_are_never_in_the_incident_store(tracked: Tracked):
    fire(tracked)
    tracked.after(310)
    assert tracked.services.posted_to("/v2/enqueue")[0]["routing_key"] == "routing-key"
    tracked.store.close()
    written = b"".join(path.read_bytes() for path in tracked.folder.glob("incidents*"))
    tracked.restart()
    assert b"ServiceDown" in written
    assert b"routing-key" not in written
    assert b"/slack/hook" not in written


def test_external_labels_do_not_hide_an_acknowledgement(tracked: Tracked):
    fire(tracked)
    tracked.services.active[0]["labels"] = {**tracked.services.active[0]["labels"], "cluster": "eu"}
    tracked.services.silence(
        tracked.services.active[0]["labels"], "ack: on it", since=tracked.clock.now
    )
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "acknowledged")]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda s: s.answers.update({"/api/v2/alerts": (500, b"")}),
        lambda s: s.answers.update(
            {"/api/v2/status": (200, b'{"config": {"original": "route: ["}}')}
        ),
        lambda s: s.answers.update({"/api/v1/rules": (200, b'{"status": "success", "data": 1}')}),
    ],
    ids=["Alertmanager broken", "routes broken", "rules malformed"],
)
def test_a_tick_never_raises(tracked: Tracked, break_it: Callable[[Services], None]):
    fire(tracked)
    break_it(tracked.services)
    tracked.restart()
    tracked.after(310)
    assert tracked.states() == [("ServiceDown", "firing")]


def test_a_store_that_cannot_be_written_does_not_end_the_tracker(tracked: Tracked):
    fire(tracked)
    tracked.store._database.execute("DROP TABLE facts")
    tracked.after(5)
    tracked.store._database.execute(
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
    )
    tracked.services.resolve("ServiceDown")
    tracked.after(5)
    assert tracked.states() == [("ServiceDown", "resolved")]
