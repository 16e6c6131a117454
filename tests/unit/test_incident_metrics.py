"""The metrics of the incident tracker, from a store with a past."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cluster.children.listeners import bind
from cluster.metrics.catalogue import TRACKER_FAMILIES
from cluster.monitor.incidents import incident_server
from cluster.monitor.incidents.incident_metrics import IncidentCollector, incident_metrics
from cluster.monitor.incidents.incident_server import serve
from cluster.monitor.incidents.store import ALIVE_FACT, FILE_NAME, IncidentStore
from tests.harness.cluster import http_get
from tests.harness.foreign_pages import FOREIGN
from tests.harness.processes import free_ports

NOW = 1_800_000_000.0
DAY = 86400.0

Samples = dict[tuple[str, ...], float]


def fired(store: IncidentStore, name: str, severity: str, ago: float, **columns: object) -> int:
    labels = {"alertname": name, "severity": severity, "instance": "a:8001", "n": f"{ago}"}
    with store.change():
        number = store.open_incident(labels, {}, NOW - ago)
        store.set(number, **{"state": "firing", "firing_at": NOW - ago, **columns})
    return number


def samples(folder: Path, name: str, *labels: str) -> Samples:
    """The values of a family by the values of these labels."""
    [family] = [
        one
        for one in incident_metrics(folder, lambda: NOW)
        if name in (one.name, f"{one.name}_total")
    ]
    return {tuple(one.labels[label] for label in labels): one.value for one in family.samples}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ServiceDown acknowledged in time and late, HighErrorRate ended by itself, and what is too old or no page."""
    store = IncidentStore(tmp_path)
    ended = {"state": "resolved", "resolved_at": NOW - 100}
    fired(store, "ServiceDown", "critical", 5000, acknowledged_at=NOW - 4900, **ended)
    fired(store, "ServiceDown", "critical", 4000, acknowledged_at=NOW - 3000, **ended)
    fired(store, "HighErrorRate", "warning", 1000, is_false_positive=1, **ended)
    fired(store, "HighErrorRate", "warning", 60)
    fired(store, "ServiceDown", "critical", 8 * DAY, **{**ended, "resolved_at": NOW - 7.9 * DAY})
    fired(store, "Watchdog", "none", 500)
    with store.change():
        store.open_incident({"alertname": "Waits", "severity": "info"}, {}, NOW)
        store.set_fact(ALIVE_FACT, str(NOW - 3))
    store.close()
    return tmp_path


def test_firings_and_false_positives_are_those_of_the_last_seven_days(folder: Path):
    by = ("alertname", "severity")
    assert samples(folder, "app_incidents_fired", *by) == {
        ("ServiceDown", "critical"): 2,
        ("HighErrorRate", "warning"): 2,
    }
    assert samples(folder, "app_incidents_false_positive", *by) == {
        ("ServiceDown", "critical"): 0,
        ("HighErrorRate", "warning"): 1,
    }


def test_answers_are_counted_against_the_response_times(folder: Path):
    by = ("severity", "result")
    # The second of ServiceDown took 1,000 s, and the second of HighErrorRate is not due.
    assert samples(folder, "app_incidents_answered", *by) == {
        ("critical", "in_time"): 1,
        ("critical", "late"): 1,
        ("warning", "in_time"): 1,
        ("warning", "late"): 0,
    }
    assert samples(folder, "app_incident_target_seconds", "severity") == {
        ("critical",): 300,
        ("warning",): 1800,
    }


def test_each_incident_says_how_soon_it_was_acknowledged_and_resolved(folder: Path):
    by = ("incident", "alertname", "severity", "alert_instance")
    one, late, ended, burning = (
        ("1", "ServiceDown", "critical", "a:8001"),
        ("2", "ServiceDown", "critical", "a:8001"),
        ("3", "HighErrorRate", "warning", "a:8001"),
        ("4", "HighErrorRate", "warning", "a:8001"),
    )
    assert samples(folder, "app_incident_acknowledge_seconds", *by) == {one: 100, late: 1000}
    assert samples(folder, "app_incident_resolve_seconds", *by) == {
        one: 4900,
        late: 3900,
        ended: 900,
    }
    fired_at = samples(folder, "app_incident_fired_timestamp_seconds", *by)
    assert fired_at == {one: NOW - 5000, late: NOW - 4000, ended: NOW - 1000, burning: NOW - 60}


def test_open_incidents_have_a_series_for_each_severity_and_state(folder: Path):
    found = samples(folder, "app_incidents_open", "severity", "state")
    assert found == {
        ("critical", "firing"): 0,
        ("critical", "acknowledged"): 0,
        ("warning", "firing"): 1,
        ("warning", "acknowledged"): 0,
        ("info", "firing"): 0,
        ("info", "acknowledged"): 0,
    }
    assert samples(folder, "app_tracker_last_tick_timestamp_seconds") == {(): NOW - 3}


def test_series_of_single_incidents_are_bounded_and_the_newest(tmp_path: Path):
    store = IncidentStore(tmp_path)
    for number in range(130):
        fired(store, "HighErrorRate", "warning", 1000 - number)
    store.close()
    found = samples(tmp_path, "app_incident_fired_timestamp_seconds", "incident")
    assert len(found) == 100
    assert ("130",) in found
    assert samples(tmp_path, "app_incidents_fired", "alertname") == {("HighErrorRate",): 130}


def test_every_family_of_the_catalogue_is_served_under_its_name(folder: Path):
    served = {one.name for one in IncidentCollector(folder).collect()}
    assert served == {family.name for family in TRACKER_FAMILIES}


def test_a_store_that_cannot_be_read_is_said_in_a_metric_and_logged_once(
    folder: Path,
):
    def readable(collector: IncidentCollector) -> list[float]:
        return [
            sample.value
            for one in collector.collect()
            for sample in one.samples
            if sample.name == "app_incident_store_readable"
        ]

    collector = IncidentCollector(folder)
    away = folder / "away"
    with capture_logs() as logged:
        assert readable(collector) == [1]
        (folder / FILE_NAME).rename(away)
        assert [readable(collector) for _ in range(3)] == [[0], [0], [0]]
        away.rename(folder / FILE_NAME)
        assert readable(collector) == [1]
    assert str(logged).count("no incident store") == len(logged) == 1


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """The port of the served metrics."""
    port = free_ports(1)
    end = serve("127.0.0.1", port, folder)
    yield port
    end()


def scraped(port: int, headers: dict[str, str]) -> int:
    """The status of a scrape with these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers=headers)
    with closing(connection), connection.getresponse() as response:
        return response.status


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_what_a_page_of_another_site_sends_is_refused(port: int, headers: dict[str, str]):
    assert scraped(port, headers) == 403


@pytest.mark.parametrize(
    "host",
    [
        "tracker:9098",
        "127.0.0.1:9098",
        "[::1]:9098",
        "localhost",
        "tracker.ops.svc.cluster.local:9098",
    ],
)
def test_prometheus_scrapes_it_by_its_own_names(port: int, host: str):
    assert scraped(port, {"Host": host}) == 200


def test_the_host_that_it_listens_on_is_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(incident_server, "bind", lambda _, port: bind("127.0.0.1", port))
    port = free_ports(1)
    end = serve("Monitor.example.com", port, folder)
    assert scraped(port, {"Host": f"monitor.example.com:{port}"}) == 200
    assert scraped(port, {"Host": f"evil.example.com:{port}"}) == 403
    end()


def test_the_metrics_are_served_until_the_end(folder: Path):
    port = free_ports(1)
    end = serve("127.0.0.1", port, folder)
    text = http_get(port, "/metrics").body.decode()
    assert "app_incident_store_readable 1.0" in text
    end()
    with pytest.raises(OSError, match="refused"):
        http_get(port, "/metrics")
