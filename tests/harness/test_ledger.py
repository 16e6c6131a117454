"""The ledger notices every kind of fault, and reports none where there is none."""

from __future__ import annotations

import pytest

from tests.harness.ledger import Ledger, Report

ANN, BOB, ROOM = "ann", "bob", "room"


def booked(published: int, *, subscribers: tuple[str, ...] = (ANN,)) -> Ledger:
    """A ledger with this many acknowledged publications, none of which was delivered yet."""
    ledger = Ledger()
    for subscriber in subscribers:
        ledger.joined(subscriber, ROOM)
    for _ in range(published):
        ledger.acknowledged(ROOM, ledger.next_number(ROOM))
    return ledger


def deliver(ledger: Ledger, *numbers: int, to: str = ANN) -> Report:
    """Deliver publications at the offset of their number."""
    for number in numbers:
        ledger.got(to, ROOM, number, number)
    return ledger.report()


def kinds(report: Report) -> set[str]:
    return {fault.kind for fault in report.faults}


def test_everything_delivered_once_and_in_order_is_clean():
    report = deliver(booked(3), 1, 2, 3)
    assert report.is_clean
    assert (report.sent, report.acknowledged, report.got, report.owed) == (3, 3, 3, 3)


def test_an_acknowledged_publication_that_did_not_come_is_lost():
    report = deliver(booked(3), 1, 3)
    assert report.count("lost") == 1
    assert str(report.faults[0]) == "lost: room #2 at ann"


def test_the_last_publication_is_missed_too():
    ledger = booked(3)
    deliver(ledger, 1, 2)
    assert ledger.missing() == 1
    assert ledger.report().count("lost") == 1


def test_a_second_delivery_is_noticed():
    assert kinds(deliver(booked(2), 1, 2, 2)) == {"twice"}


def test_swapped_deliveries_are_noticed():
    assert kinds(deliver(booked(3), 1, 3, 2)) == {"out of order"}


def test_acknowledged_numbers_in_the_wrong_order_of_the_stream_are_noticed():
    ledger = booked(2)
    ledger.got(ANN, ROOM, 2, 1)
    ledger.got(ANN, ROOM, 1, 2)
    assert kinds(ledger.report()) == {"out of order"}


def test_an_offset_not_above_the_one_subscribed_at_is_noticed():
    ledger = Ledger()
    ledger.joined(ANN, ROOM, offset=7)
    ledger.acknowledged(ROOM, ledger.next_number(ROOM))
    ledger.got(ANN, ROOM, 1, 7)
    [fault] = ledger.report().faults
    assert str(fault) == "out of order: room #1 at ann (offset 7 after 7)"


def test_a_publication_executed_twice_is_noticed_across_subscribers():
    ledger = booked(1, subscribers=(ANN, BOB))
    ledger.got(ANN, ROOM, 1, 1)
    ledger.got(BOB, ROOM, 1, 2)
    assert kinds(ledger.report()) == {"executed twice"}


def test_a_publication_executed_twice_is_noticed_at_one_subscriber():
    ledger = booked(1)
    ledger.got(ANN, ROOM, 1, 1)
    ledger.got(ANN, ROOM, 1, 2)
    assert kinds(ledger.report()) == {"twice", "executed twice"}


@pytest.mark.parametrize("arrives", [True, False])
def test_an_unknown_publication_may_arrive_or_not(arrives: bool):
    ledger = booked(0)
    ledger.unknown(ROOM, ledger.next_number(ROOM))
    report = deliver(ledger, *([1] if arrives else []))
    assert report.is_clean
    assert report.unknown == 1


def test_an_unknown_publication_may_be_stored_late():
    ledger = booked(0)
    ledger.unknown(ROOM, ledger.next_number(ROOM))
    ledger.acknowledged(ROOM, ledger.next_number(ROOM))
    ledger.got(ANN, ROOM, 2, 1)
    ledger.got(ANN, ROOM, 1, 2)
    assert ledger.report().is_clean


def test_an_unknown_publication_must_not_come_twice():
    ledger = booked(0)
    ledger.unknown(ROOM, ledger.next_number(ROOM))
    assert kinds(deliver(ledger, 1, 1)) == {"twice"}


def test_a_refused_publication_must_not_arrive():
    ledger = booked(0)
    ledger.refused(ROOM, ledger.next_number(ROOM))
    assert kinds(deliver(ledger, 1)) == {"foreign"}


def test_a_publication_that_was_never_sent_is_foreign():
    assert kinds(deliver(booked(1), 1, 9)) == {"foreign"}


def test_nothing_from_before_joining_is_owed():
    ledger = booked(2)
    ledger.joined(BOB, ROOM, offset=2)
    deliver(ledger, 1, 2)
    assert ledger.report().is_clean


def test_nothing_from_after_leaving_is_owed():
    ledger = booked(1)
    ledger.got(ANN, ROOM, 1, 1)
    ledger.left(ANN, ROOM)
    ledger.acknowledged(ROOM, ledger.next_number(ROOM))
    assert ledger.report().is_clean


def test_what_was_due_before_leaving_stays_due():
    ledger = booked(1)
    ledger.left(ANN, ROOM)
    assert kinds(ledger.report()) == {"lost"}


def test_everything_that_was_due_before_leaving_stays_due():
    ledger = booked(3)
    ledger.left(ANN, ROOM)
    report = deliver(ledger, 1)
    assert [fault.number for fault in report.faults] == [2, 3]


def test_what_is_in_flight_when_a_subscriber_leaves_is_not_owed():
    ledger = booked(1)
    number = ledger.next_number(ROOM)
    ledger.left(ANN, ROOM)
    ledger.acknowledged(ROOM, number)
    assert deliver(ledger, 1).is_clean


def test_the_first_publication_is_not_owed_if_it_is_in_flight_then():
    ledger = booked(0)
    number = ledger.next_number(ROOM)
    ledger.left(ANN, ROOM)
    ledger.acknowledged(ROOM, number)
    assert ledger.report().is_clean


def test_offsets_that_do_not_climb_are_noticed_though_the_numbers_do():
    ledger = booked(3)
    for number, offset in ((1, 1), (2, 3), (3, 2)):
        ledger.got(ANN, ROOM, number, offset)
    [fault] = ledger.report().faults
    assert str(fault) == "out of order: room #3 at ann (offset 2 after 3)"


def test_publications_without_an_offset_are_in_order_by_their_numbers():
    ledger = booked(2)
    for number in (1, 2):
        ledger.got(ANN, ROOM, number, 0)
    assert ledger.report().is_clean


def test_an_unrecovered_subscription_is_a_fault_even_when_nothing_was_owed():
    ledger = booked(0)
    ledger.unrecovered(ANN, ROOM)
    assert kinds(ledger.report()) == {"unrecovered"}


def test_one_subscribers_loss_is_not_hidden_by_another():
    ledger = booked(2, subscribers=(ANN, BOB))
    deliver(ledger, 1, 2, to=ANN)
    report = deliver(ledger, 1, to=BOB)
    assert [(fault.kind, fault.subscriber) for fault in report.faults] == [("lost", BOB)]


def test_publications_in_flight_have_numbers_of_their_own():
    ledger = booked(0)
    assert [ledger.next_number(ROOM) for _ in range(3)] == [1, 2, 3]
    report = ledger.report()
    assert (report.sent, report.unknown, report.acknowledged) == (3, 3, 0)


def test_nothing_is_owed_to_one_that_stopped_reading_on_purpose():
    ledger = booked(2)
    ledger.excused(ANN, ROOM)
    ledger.unrecovered(ANN, ROOM)
    assert ledger.report().is_clean


def test_channels_are_booked_apart():
    ledger = booked(1)
    ledger.joined(ANN, "other")
    ledger.acknowledged("other", ledger.next_number("other"))
    deliver(ledger, 1)
    assert str(ledger.report().faults[0]) == "lost: other #1 at ann"


def test_a_report_in_words_names_kinds_and_examples():
    text = str(deliver(booked(9), 1))
    assert "sent 9, acknowledged 9, unknown 0, refused 0, owed 9, got 1" in text
    assert "lost 8" in text
    assert text.count("lost: room") == 5


def test_a_report_in_words_shows_each_fault_with_its_kind_or_says_that_there_is_none():
    ledger = booked(3)
    assert str(deliver(ledger, 1, 1)).splitlines()[1:] == [
        "lost 2",
        "  lost: room #2 at ann",
        "  lost: room #3 at ann",
        "twice 1",
        "  twice: room #1 at ann (offset 1)",
    ]
    assert str(booked(0).report()).endswith(", no fault")
