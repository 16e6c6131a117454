"""The ledgers of several processes add up, also if one published and another subscribed."""

from __future__ import annotations

import json

from loadtest.ledger import Ledger
from tests.loadtest.test_ledger import final, listening


def reported(here: Ledger, there: Ledger) -> Ledger:
    """The ledger here, with the report of another process as it comes over the wire."""
    here.take_report("there", json.loads(json.dumps(there.report())))
    return here


def test_one_that_is_behind_in_another_process_lacks_what_was_received_here():
    here, there = Ledger(), Ledger()
    ahead, behind = listening(here), listening(there)
    for number in (1, 2):
        here.published("c", "acknowledged", "p", number)
        ahead.take(number, "p", number)
    behind.take(1, "p", 1)
    assert not reported(here, there).is_settled()
    assert here.summary(is_final=True)["losses"] == ["c: 1 not delivered to the end"]
    assert here.summary(is_final=False)["losses"] == []


def test_what_another_process_published_and_is_not_in_the_stream_has_vanished():
    here, there = Ledger(), Ledger()
    for number, result in enumerate(("acknowledged", "acknowledged", "unknown", "unknown"), 1):
        there.published("c", result, "p", number)
    one = listening(here)
    one.take(1, "p", 1)
    one.take(2, "p", 4)
    assert final(reported(here, there), "lost") == 1, "number 2"


def test_what_another_process_was_refused_is_no_loss():
    here, there = Ledger(), Ledger()
    for number, result in enumerate(("acknowledged", "refused", "acknowledged"), 1):
        there.published("c", result, "p", number)
    one = listening(here)
    one.take(1, "p", 1)
    one.take(2, "p", 3)
    assert final(reported(here, there), "lost") == 0
    assert (final(here, "sent"), final(here, "refused"), final(here, "unknown")) == (3, 1, 0)


def test_the_last_number_that_no_subscriber_of_any_process_has_is_lost():
    here, there = Ledger(), Ledger()
    one = there.subscriber("c")
    one.subscribed(None, is_recovered=False, was_recovering=False)
    for number in (1, 2):
        here.published("c", "acknowledged", "p", number)
    one.take(0, "p", 1)
    assert final(reported(here, there), "lost") == 1


def test_the_stream_is_counted_from_the_lowest_position_of_all_processes():
    here, there = Ledger(), Ledger()
    listening(here, at=5)
    early = listening(there, at=2)
    for number in range(1, 5):
        here.published("c", "acknowledged", "p", number)
    for number in range(1, 4):
        early.take(2 + number, "p", number)
    assert final(reported(here, there), "lost") == 1


def test_latencies_of_all_processes_are_counted_once_each():
    here, there = Ledger(), Ledger()
    for _ in range(3):
        here.latencies.add(0.001)
    there.latencies.add(1.0)
    _, latencies = reported(here, there).merged()
    assert sum(latencies.counts.values()) == 4
    assert latencies.counts == here.latencies.counts + there.latencies.counts
    summary = here.summary(is_final=True)
    assert (round(summary["p50_ms"]), round(summary["p99_ms"], -2)) == (1, 1000)
