"""The incident tracker: what it writes down, whom it tells, and what it never does twice."""

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


class Kept:
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
        return [event["event_action"] for event in self.services.told("/v2/enqueue")]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with running() as services:
        services.rule("ServiceDown")
        services.rule("SlowShutdownTime", "warning")
        one = Kept(services, tmp_path)
        yield one
        one.store.close()


def fires(kept: Kept) -> dict[str, str]:
    labels = kept.services.fire("ServiceDown", since=kept.clock.now, instance="a:8001")
    kept.after(5)
    return labels


def test_an_incident_goes_from_pending_over_firing_to_resolved(kept: Kept):
    kept.services.fire("ServiceDown", since=START, state="pending")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "pending")]
    kept.services.fire("ServiceDown", since=START)
    kept.after(5)
    assert kept.states() == [("ServiceDown", "firing")]
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "resolved")]
    kinds = [event.kind for _, event in kept.store.events(0)]
    assert kinds == ["pending", "firing", "resolved"]


def test_what_never_fired_is_cleared_and_not_resolved(kept: Kept):
    kept.services.fire("ServiceDown", since=START, state="pending")
    kept.after(5)
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "cleared")]


def test_a_prometheus_that_is_away_resolves_nothing(kept: Kept):
    fires(kept)
    kept.services.answers["/api/v1/rules"] = (500, b"broken")
    kept.services.mend("ServiceDown")
    kept.after(60, times=3)
    assert kept.states() == [("ServiceDown", "firing")]


def test_a_rule_that_cannot_be_evaluated_resolves_nothing(kept: Kept):
    fires(kept)
    kept.services.mend("ServiceDown")
    kept.services.health["ServiceDown"] = "err"
    kept.after(5)
    assert kept.states() == [("ServiceDown", "firing")]


def test_a_firing_alert_that_is_pending_again_after_a_restart_of_prometheus_stays_open(kept: Kept):
    fires(kept)
    kept.services.fire("ServiceDown", since=START, state="pending", instance="a:8001")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "firing")]


def test_an_acknowledgement_is_told_to_pagerduty_and_its_end_resolves_there(kept: Kept):
    labels = fires(kept)
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    incident = kept.store.incident(1)
    assert (incident.state, incident.acknowledged_by, incident.note) == (
        "acknowledged",
        "ann",
        "on it",
    )
    assert kept.actions() == ["acknowledge"]
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.actions() == ["acknowledge", "resolve"]
    first, second = kept.services.told("/v2/enqueue")
    assert first["dedup_key"] == second["dedup_key"]
    assert first["routing_key"] == "routing-key"


def test_pagerduty_is_resolved_only_when_the_last_alert_of_the_group_has_ended(kept: Kept):
    labels = fires(kept)
    kept.services.fire("ServiceDown", since=kept.clock.now, instance="b:8001")
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    others = [a for a in kept.services.alerts["ServiceDown"] if a["labels"] != labels]
    kept.services.alerts["ServiceDown"] = others
    kept.after(5)
    assert "resolve" not in kept.actions()
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.actions()[-1] == "resolve"


def test_nothing_is_told_twice_by_a_tracker_that_starts_again(kept: Kept):
    labels = fires(kept)
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    kept.store.close()
    kept.restart()
    kept.after(60, times=3)
    kept.services.mend("ServiceDown")
    kept.after(5)
    kept.store.close()
    kept.restart()
    kept.after(60, times=3)
    assert kept.actions() == ["acknowledge", "resolve"]
    assert kept.states() == [("ServiceDown", "resolved")]


@pytest.mark.parametrize(
    ("name", "target", "pages"), [("ServiceDown", 300, 1), ("SlowShutdownTime", 1800, 0)]
)
def test_what_nobody_takes_is_repeated_after_its_response_time(
    kept: Kept, name: str, target: float, pages: int
):
    kept.services.fire(name, since=START)
    kept.after(1)
    kept.after(target - 10, times=2)
    assert kept.services.posted == []
    kept.after(20)
    [message] = kept.services.told("/slack/hook")
    assert name in message["text"]
    assert "not acknowledged" in message["text"]
    assert len(kept.actions()) == pages
    kept.after(target - 20, times=4)
    assert len(kept.services.told("/slack/hook")) == 1
    kept.after(20)
    assert len(kept.services.told("/slack/hook")) == 2


def test_a_critical_is_repeated_where_the_first_notification_went(kept: Kept):
    fires(kept)
    kept.after(310)
    channels = {message.get("channel") for message in kept.services.told("/slack/hook")}
    assert channels == {"#websocket-oncall"}
    [page] = kept.services.told("/v2/enqueue")
    assert page["event_action"] == "trigger"
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["source"] == "a:8001"


def test_repeats_missed_while_the_tracker_was_away_come_as_one(kept: Kept):
    fires(kept)
    kept.after(3000)
    kept.after(5)
    assert len(kept.services.told("/slack/hook")) == 1


@pytest.mark.parametrize("comment", ["ack: on it", "planned work"])
def test_what_is_acknowledged_or_silenced_is_not_repeated(kept: Kept, comment: str):
    labels = fires(kept)
    kept.services.silence(labels, comment, since=kept.clock.now)
    kept.after(3600, times=6)
    assert kept.services.told("/slack/hook") == []


def test_an_acknowledgement_that_runs_out_while_the_alert_fires_starts_the_clock_again(kept: Kept):
    labels = fires(kept)
    number = kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(600)
    kept.services.silences[number]["status"]["state"] = "expired"
    kept.after(5)
    assert kept.states() == [("ServiceDown", "firing")]
    assert kept.services.told("/slack/hook") == []
    kept.after(310)
    assert len(kept.services.told("/slack/hook")) == 1


def test_an_alert_that_comes_back_after_an_acknowledged_one_pages_at_once(kept: Kept):
    labels = fires(kept)
    number = kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    kept.services.mend("ServiceDown")
    kept.after(60)
    kept.services.fire("ServiceDown", since=kept.clock.now, instance="a:8001")
    kept.after(5)
    [message] = kept.services.told("/slack/hook")
    assert "fires again" in message["text"]
    assert kept.actions() == ["acknowledge", "resolve", "trigger"]
    assert kept.services.silences[number]["status"]["state"] == "expired"
    kept.after(5)
    assert kept.states() == [("ServiceDown", "resolved"), ("ServiceDown", "firing")]


def test_an_alert_that_comes_back_under_a_silence_for_planned_work_pages_nobody(kept: Kept):
    labels = fires(kept)
    kept.services.silence(labels, "planned work", since=kept.clock.now)
    kept.after(5)
    kept.services.mend("ServiceDown")
    kept.after(60)
    kept.services.fire("ServiceDown", since=kept.clock.now, instance="a:8001")
    kept.after(5)
    # Of the end of what it had told before the silence, Alertmanager tells nobody.
    assert kept.actions() == ["resolve"]
    assert kept.services.told("/slack") == []


def test_an_end_within_one_look_of_the_acknowledgement_is_told(kept: Kept):
    labels = fires(kept)
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.actions() == ["resolve"]


def test_a_silence_that_alertmanager_does_not_end_is_ended_later(kept: Kept):
    labels = fires(kept)
    number = kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    kept.services.mend("ServiceDown")
    kept.after(5)
    kept.services.refuses_to_expire = 1
    kept.after(26 * 60)
    assert kept.services.silences[number]["status"]["state"] == "active"
    kept.after(5)
    assert kept.services.silences[number]["status"]["state"] == "expired"


def test_the_alert_of_the_whole_service_and_that_of_a_replica_are_two(kept: Kept):
    kept.services.fire("ServiceDown", since=kept.clock.now)
    replica = kept.services.fire("ServiceDown", since=kept.clock.now, instance="a:8001")
    kept.after(5)
    kept.services.silence(replica, "ack: on it", since=kept.clock.now)
    kept.after(5)
    states = {i.labels.get("instance"): i.state for i in kept.store.incidents("1")}
    assert states == {None: "firing", "a:8001": "acknowledged"}


def test_an_incident_of_before_the_routes_were_known_gets_its_keys(kept: Kept):
    kept.services.answers["/api/v2/status"] = (500, b"")
    labels = fires(kept)
    assert kept.store.incidents("1")[0].dedup_keys == ()
    del kept.services.answers["/api/v2/status"]
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    assert kept.actions() == ["acknowledge"]


def test_a_silence_in_the_words_of_re2_ends_no_tick(kept: Kept):
    labels = fires(kept)
    number = kept.services.silence(labels, "planned", since=kept.clock.now)
    kept.services.silences[number]["matchers"][0] |= {"value": r"\pL+", "isRegex": True}
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "resolved")]


def test_a_notification_that_nobody_can_be_told_is_given_up_and_shown(kept: Kept):
    with kept.store.change():
        kept.store.add_notification("x", "slack", {}, kept.clock.now)
    (kept.folder / "slack").write_text("no address at all")
    kept.after(5)
    assert kept.store.undelivered(kept.clock.now - 60) == []
    assert kept.store.undelivered(kept.clock.now) == [("slack", "not delivered yet")]


def test_the_silence_of_an_acknowledgement_goes_when_prometheus_has_forgotten_the_alert(kept: Kept):
    labels = fires(kept)
    number = kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    kept.services.mend("ServiceDown")
    kept.after(5)
    kept.after(15 * 60)
    assert kept.services.silences[number]["status"]["state"] == "active"
    kept.after(11 * 60)
    assert kept.services.silences[number]["status"]["state"] == "expired"


def test_what_was_closed_by_hand_stays_closed_while_the_condition_holds(kept: Kept):
    fires(kept)
    with kept.store.change():
        kept.store.set(1, state="resolved", resolved_at=kept.clock.now)
    kept.after(60, times=3)
    assert kept.states() == [("ServiceDown", "resolved")]
    kept.services.mend("ServiceDown")
    kept.after(5)
    kept.services.fire("ServiceDown", since=kept.clock.now, instance="a:8001")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "resolved"), ("ServiceDown", "firing")]


def test_a_notification_that_is_not_taken_is_tried_again(kept: Kept):
    labels = fires(kept)
    kept.services.refuses = 2
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    assert kept.actions() == []
    kept.after(60, times=6)
    assert kept.actions() == ["acknowledge"]


def test_a_notification_that_is_refused_for_good_is_given_up(kept: Kept):
    labels = fires(kept)
    kept.services.answers["/v2/enqueue"] = (400, b"invalid event")
    kept.services.silence(labels, "ack: on it", since=kept.clock.now)
    kept.after(5)
    del kept.services.answers["/v2/enqueue"]
    kept.after(600, times=3)
    assert kept.actions() == []


def test_a_deployment_is_one_change_event(kept: Kept):
    kept.services.deployments = {"1.0": START - 86400}
    kept.after(5)
    assert kept.services.told("/v2/change/enqueue") == []
    kept.services.deployments["1.1"] = kept.clock.now
    kept.after(60, times=3)
    [event] = kept.services.told("/v2/change/enqueue")
    assert event["payload"]["summary"] == "ws-cluster 1.1 was deployed"


def test_secrets_never_stand_in_the_journal(kept: Kept):
    fires(kept)
    kept.after(310)
    assert kept.services.told("/v2/enqueue")[0]["routing_key"] == "routing-key"
    kept.store.close()
    written = b"".join(path.read_bytes() for path in kept.folder.glob("incidents*"))
    kept.restart()
    assert b"ServiceDown" in written
    assert b"routing-key" not in written
    assert b"/slack/hook" not in written


def test_external_labels_do_not_hide_an_acknowledgement(kept: Kept):
    fires(kept)
    kept.services.held[0]["labels"] = {**kept.services.held[0]["labels"], "cluster": "eu"}
    kept.services.silence(kept.services.held[0]["labels"], "ack: on it", since=kept.clock.now)
    kept.after(5)
    assert kept.states() == [("ServiceDown", "acknowledged")]


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
def test_a_tick_never_raises(kept: Kept, break_it: Callable[[Services], None]):
    fires(kept)
    break_it(kept.services)
    kept.restart()
    kept.after(310)
    assert kept.states() == [("ServiceDown", "firing")]


def test_a_journal_that_cannot_be_written_does_not_end_the_tracker(kept: Kept):
    fires(kept)
    kept.store._database.execute("DROP TABLE facts")
    kept.after(5)
    kept.store._database.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    kept.services.mend("ServiceDown")
    kept.after(5)
    assert kept.states() == [("ServiceDown", "resolved")]
