"""The connections of `benchmarks.hold`: what they count as lost, doubled and recovered."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import orjson
import pytest
import yaml

from benchmarks.hold import capacity_rules
from benchmarks.hold import plan as planning
from benchmarks.hold.held import Held, Totals
from benchmarks.hold.measure import Cost
from benchmarks.hold.plan import Forbidden, Plan, plan_for
from benchmarks.hold.report import Held as Measured
from benchmarks.hold.report import page
from benchmarks.load.wire import server_frame
from benchmarks.micro.comparison import machine
from benchmarks.paths import RESULTS
from loadtest.capacity import other_groups


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Owner:
    channel = "held:all"
    request = b"GET / HTTP/1.1\r\n\r\n"

    def __init__(self) -> None:
        self.totals = Totals()
        self.seen: list[int] = []
        self.events: list[str] = []

    def ready(self, held: Held) -> None:
        self.events.append("ready")

    def delivered(self, offset: int) -> None:
        self.seen.append(offset)

    def lost(self, held: Held) -> None:
        self.events.append("lost")


def reply(number: int, **result: object) -> bytes:
    return server_frame(orjson.dumps({"id": number, **result}))


def connected(held: Held, session: str = "s1", **subscribe: object) -> Wire:
    wire = Wire()
    held.connection_made(wire)  # type: ignore[arg-type]
    held.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    held.data_received(reply(1, connect={"data": {"session": {"id": session}}}))
    held.data_received(reply(2, subscribe={"epoch": "e", "offset": 0, **subscribe}))
    return wire


def push(offset: int) -> bytes:
    publication = {"data": {"t": "x"}, "offset": offset}
    return server_frame(orjson.dumps({"push": {"channel": Owner.channel, "pub": publication}}))


def commands(wire: Wire) -> list[dict[str, object]]:
    payload = wire.written[1][6:] if wire.written[1][1] & 0x7F < 126 else wire.written[1][8:]
    return [orjson.loads(line) for line in payload.split(b"\n")]


def test_publications_are_counted_once_and_gaps_as_lost():
    owner = Owner()
    held = Held(owner)
    connected(held)
    together = push(1) + push(2) + push(2) + push(5)
    for at in range(len(together)):
        held.data_received(together[at : at + 1])
    assert owner.seen == [1, 2, 5]
    assert (owner.totals.lost, owner.totals.doubled) == (2, 1)


def test_a_connection_comes_back_with_its_session_and_recovers():
    owner = Owner()
    held = Held(owner)
    connected(held)
    held.data_received(push(1))
    held.connection_lost(None)
    wire = connected(held, offset=3, recovered=True, publications=[{"offset": 2}, {"offset": 3}])
    connect, subscribe = commands(wire)
    assert connect["connect"] == {"name": "hold", "data": {"session": "s1"}}
    assert subscribe["subscribe"] == {
        "channel": "held:all", "recover": True, "offset": 1, "epoch": "e",
    }  # fmt: skip
    assert owner.seen == [1, 2, 3]
    assert owner.events == ["ready", "lost", "ready"]
    totals = owner.totals
    assert (totals.recovered, totals.resumed_sessions, totals.lost, totals.doubled) == (1, 1, 0, 0)


def test_what_cannot_be_recovered_is_lost():
    owner = Owner()
    held = Held(owner)
    connected(held)
    held.connection_lost(None)
    connected(held, offset=4, recovered=False)
    assert (owner.totals.unrecovered, owner.totals.lost) == (1, 4)


def test_a_ping_is_answered_and_a_close_is_counted_with_its_code():
    owner = Owner()
    held = Held(owner)
    wire = connected(held)
    held.data_received(server_frame(b"{}"))
    assert wire.written[-1].endswith(b"{}")
    held.data_received(b"\x88\x0a" + (3001).to_bytes(2, "big") + b"shutdown")
    assert (owner.totals.closed, wire.is_closed) == ({"3001": 1}, True)


def test_a_refusal_is_an_error():
    owner = Owner()
    held = Held(owner)
    wire = Wire()
    held.connection_made(wire)  # type: ignore[arg-type]
    held.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    assert (owner.totals.errors, wire.is_closed) == ({"HTTP/1.1 503": 1}, True)


def test_a_plan_has_as_many_processes_as_the_limits_ask_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 20_000))
    monkeypatch.setattr(planning, "available_bytes", lambda: 100 << 30)
    plan = plan_for(100_000)
    assert plan.workers * (20_000 - 128) // 2 > 100_000
    assert sum(plan.per_crowd) == 100_000
    assert max(plan.per_crowd) < 20_000 - 64


@pytest.mark.parametrize(
    ("files", "memory", "reason"),
    [(1024, 100 << 30, "1024 open files"), (20_000, 1 << 30, "of memory are needed")],
)
def test_limits_that_forbid_it_are_named(
    monkeypatch: pytest.MonkeyPatch, files: int, memory: int, reason: str
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(planning, "available_bytes", lambda: memory)
    with pytest.raises(Forbidden, match=reason):
        plan_for(100_000)


def test_a_loss_fails_the_run_and_is_in_the_page():
    totals = {
        "connects": 10, "recovered": 5, "unrecovered": 0, "resumed_sessions": 5, "lost": 2, "doubled": 0,
        "closed": {"3001": 5}, "errors": {},
    }  # fmt: skip
    plan = plan_for(10)
    held = Measured(plan, 1.0, {}, 0, [0.5], 3.0, 4, [{"open": 10, "totals": totals}])
    assert "lost 2" in page(held, "Machine: ours.")
    [fault] = held.faults
    assert fault.startswith("publications were lost or came twice")
    assert "'lost': 2" in fault


def of_stored_results() -> Measured:
    stored = json.loads((RESULTS / "hold.json").read_text())
    del stored["median"]
    stored["plan"] = Plan(**stored["plan"])
    stored["costs"] = {name: Cost(**one) for name, one in stored["costs"].items()}
    return Measured(**stored)


def test_connections_that_ended_without_a_close_frame_are_in_the_page():
    """Each was connected twice, so each ended once; those that did not end with 3001 are not left out."""
    held = of_stored_results()
    assert held.ended_without_close_frame == 100_000 - 99_031 == 969
    text = page(held, "Machine: ours.")
    assert "Closed with 3001 (99,031); ended without a close frame: 969;" in text


def test_the_page_is_that_of_the_stored_results():
    shown = (RESULTS / "hold.md").read_text()
    [line] = [one for one in shown.splitlines() if one.startswith("Machine: ")]
    assert shown == page(of_stored_results(), line)


def test_the_machine_is_not_said_to_be_divided_where_nothing_is_pinned():
    """All processes of this benchmark run on all cores: `core=None`."""
    assert "; no process is pinned to a core; " in machine(is_pinned=False)
    assert "; server on " in machine()
    shown = (RESULTS / "hold.md").read_text()
    assert "; no process is pinned to a core; " in shown
    assert "server on" not in shown
    # That docker/capacity.yml has the same line, the test of its figures says.
    assert "; no process is pinned to a core; " in capacity_rules.stored()


def capacity_rules_in(file: Path) -> dict[tuple[str, str], float]:
    """The constants of docker/capacity.yml by their names and parts."""
    return {
        (rule["record"], rule.get("labels", {}).get("part", "")): float(
            rule["expr"].removeprefix("vector(").removesuffix(")")
        )
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    }


def test_the_capacity_file_has_the_figures_of_the_stored_results():
    results = json.loads((RESULTS / "hold.json").read_text())
    found = capacity_rules_in(capacity_rules.FILE)
    connections = results["plan"]["connections"]
    memory = {name.lower(): one["resident_bytes"] for name, one in results["costs"].items()}
    memory["kernel"] = results["kernel_bytes"]
    for part, resident in memory.items():
        measured = found["app_capacity_hold_bytes_per_connection", part]
        assert measured == pytest.approx(resident / connections, rel=1e-4), part
    assert found["app_capacity_hold_connections", ""] == connections
    assert found["app_capacity_hold_broadcast_seconds", ""] == pytest.approx(
        results["median"], 1e-4
    )
    assert capacity_rules.FILE.read_text().endswith(capacity_rules.stored()), "--rules writes it"
    # What the page shows is the same run.
    shown = (RESULTS / "hold.md").read_text()
    assert f"| nginx | {memory['nginx'] / connections / 1024:.1f} |" in shown


def test_either_measurement_leaves_the_rules_of_the_other(tmp_path: Path):
    file = tmp_path / "capacity.yml"
    before = capacity_rules.FILE.read_text()
    file.write_text(before)
    capacity_rules.write(file)
    assert file.read_text() == before
    assert before.endswith(other_groups(file))
    assert len(capacity_rules_in(file)) == 4 + 7
    own = before.removesuffix(other_groups(file))
    file.write_text(own)
    assert other_groups(file) == other_groups(tmp_path / "none.yml") == ""
    capacity_rules.write(file)
    assert file.read_text() == before
