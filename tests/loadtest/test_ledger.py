"""The ledger accounts for every publication, across reconnects and processes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from loadtest.ledger import Latencies, Ledger, ReceivedRange, SubscriberAccount


def listening(ledger: Ledger, channel: str = "c", at: int = 0) -> SubscriberAccount:
    one = ledger.subscriber(channel)
    ledger.began(channel, at)
    one.subscribed(at, is_recovered=False, was_recovering=False)
    return one


def final(ledger: Ledger, name: str) -> int:
    return int(ledger.summary(is_final=True)[name])


def test_what_arrives_in_order_is_clean():
    ledger = Ledger()
    one = listening(ledger, at=10)
    for number in range(1, 6):
        ledger.published("c", "acknowledged", "p", number)
        one.take(10 + number, "p", number)
    assert ledger.is_settled()
    assert {n: final(ledger, n) for n in ("got", "lost", "twice", "out_of_order")} == {
        "got": 5,
        "lost": 0,
        "twice": 0,
        "out_of_order": 0,
    }


def test_a_gap_in_the_offsets_is_a_loss():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.take(1, "p", 1)
    one.take(4, "p", 4)
    assert one.lost == 2


def test_what_comes_late_is_out_of_order_and_not_lost():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    for offset in (1, 3, 2):
        one.take(offset, "p", offset)
    assert (one.lost, one.out_of_order, one.twice) == (0, 1, 0)


def test_the_same_offset_again_is_twice():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.take(1, "p", 1)
    one.take(1, "p", 1)
    assert (one.twice, one.lost) == (1, 0)


def test_a_publication_published_twice_is_noticed_under_another_offset():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.take(1, "p", 1)
    one.take(2, "p", 1)
    assert one.twice == 1


def test_two_publications_of_one_publisher_the_wrong_way_round_are_noticed():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.take(1, "p", 2)
    one.take(2, "p", 1)
    assert one.out_of_order == 1


def test_the_last_publication_that_one_subscriber_lacks_is_lost_in_the_end():
    ledger = Ledger()
    first, second = listening(ledger), listening(ledger)
    ledger.published("c", "acknowledged", "p", 1)
    first.take(1, "p", 1)
    assert not ledger.is_settled()
    assert ledger.summary(is_final=False)["lost"] == 0
    assert ledger.summary(is_final=False)["outstanding"] == 1
    assert final(ledger, "lost") == 1
    second.take(1, "p", 1)
    assert final(ledger, "lost") == 0


def test_what_was_acknowledged_and_has_no_offset_has_vanished():
    ledger = Ledger()
    one = listening(ledger)
    ledger.published("c", "acknowledged", "p", 1)
    ledger.published("c", "acknowledged", "p", 2)
    one.take(1, "p", 1)
    assert final(ledger, "lost") == 1


def test_what_came_while_nobody_was_subscribed_is_no_loss_for_one_that_comes_later():
    ledger = Ledger()
    one = listening(ledger)
    ledger.published("c", "acknowledged", "p", 1)
    one.take(1, "p", 1)
    ledger.left("c", one)
    ledger.published("c", "acknowledged", "p", 2)
    other = ledger.subscriber("c")
    other.subscribed(2, is_recovered=False, was_recovering=False)
    assert final(ledger, "lost") == 0
    ledger.published("c", "acknowledged", "p", 3)
    assert final(ledger, "lost") == 1
    other.take(3, "p", 3)
    assert final(ledger, "lost") == 0


def test_no_reply_means_unknown_and_neither_lost_nor_extra():
    ledger = Ledger()
    one = listening(ledger)
    ledger.published("c", "unknown", "p", 1)
    ledger.published("c", "unknown", "p", 2)
    one.take(1, "p", 1)
    assert {n: final(ledger, n) for n in ("sent", "unknown", "lost", "twice")} == {
        "sent": 2,
        "unknown": 2,
        "lost": 0,
        "twice": 0,
    }


def test_an_unknown_one_that_arrived_does_not_hide_an_acknowledged_one_that_did_not():
    ledger = Ledger()
    one = listening(ledger)
    for number, result in enumerate(("acknowledged", "acknowledged", "unknown", "unknown"), 1):
        ledger.published("c", result, "p", number)
    one.take(1, "p", 1)
    one.take(2, "p", 4)
    assert final(ledger, "lost") == 1, "number 2 is not in the stream"
    assert ledger.summary(is_final=True)["losses"] == ["c: 1 acknowledged and not in the stream"]


def test_what_was_refused_leaves_a_gap_in_the_numbers_that_is_no_loss():
    ledger = Ledger()
    one = listening(ledger)
    for number, result in enumerate(("acknowledged", "refused", "acknowledged"), 1):
        ledger.published("c", result, "p", number)
    one.take(1, "p", 1)
    one.take(2, "p", 3)
    assert final(ledger, "lost") == 0


def test_a_channel_without_positions_is_accounted_for_by_the_publishers_numbers():
    ledger = Ledger()
    one = ledger.subscriber("c")
    one.subscribed(None, is_recovered=False, was_recovering=False)
    for number in range(1, 6):
        ledger.published("c", "acknowledged", "p", number)
        if number != 3:
            one.take(0, "p", number)
    assert {n: final(ledger, n) for n in ("got", "lost")} == {"got": 4, "lost": 1}


def test_who_came_later_cannot_say_what_was_said_before():
    here, there = Ledger(), Ledger()
    early, late = listening(here), listening(there, at=2)
    for number in range(1, 5):
        here.published("c", "acknowledged" if number != 2 else "refused", "p", number)
    for offset, number in ((1, 1), (2, 3), (3, 4)):
        early.take(offset, "p", number)
    late.take(3, "p", 4)
    here.take_report("there", json.loads(json.dumps(there.report())))
    assert final(here, "lost") == 0
    here.published("c", "acknowledged", "p", 5)
    assert final(here, "lost") == 1


def test_a_recovered_subscriber_goes_on_and_an_unrecovered_one_begins_anew():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.take(1, "p", 1)
    one.subscribed(1, is_recovered=True, was_recovering=True)
    one.take(2, "p", 2)
    assert (one.lost, one.unrecoverable) == (0, 0)
    one.subscribed(9, is_recovered=False, was_recovering=True)
    one.take(10, "p", 10)
    assert (one.lost, one.unrecoverable) == (0, 1)


def test_who_left_owes_nothing():
    ledger = Ledger()
    stays, leaves = listening(ledger), listening(ledger)
    ledger.left("c", leaves)
    ledger.published("c", "acknowledged", "p", 1)
    stays.take(1, "p", 1)
    assert final(ledger, "lost") == 0


def test_accounts_of_two_processes_add_up():
    here, there = Ledger(), Ledger()
    here.published("c", "acknowledged", "p", 1)
    here.published("c", "acknowledged", "p", 2)
    listening(here).take(1, "p", 1)
    subscriber = listening(there)
    subscriber.take(1, "p", 1)
    subscriber.take(2, "p", 2)
    there.latencies.add(0.002)
    here.take_report("there", json.loads(json.dumps(there.report())))
    assert final(here, "lost") == 1, "the subscriber here lacks what the one there has"
    assert final(here, "got") == 3
    assert here.summary(is_final=True)["p50_ms"] is not None
    here.take_report("there", there.report())
    assert final(here, "got") == 3, "a later report replaces the earlier one"


def test_two_publications_at_one_offset_are_noticed():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.take(1, "p", 1)
    one.take(1, "p", 2)
    assert (one.twice, one.lost, one.last) == (1, 0, 1)
    assert one.received["p"].last == 1


def test_what_is_published_after_the_last_subscriber_has_left_is_no_loss():
    ledger = Ledger()
    one = listening(ledger)
    ledger.left("c", one)
    ledger.published("c", "acknowledged", "p", 1)
    assert ledger.is_settled()
    assert final(ledger, "lost") == 0


def test_what_a_subscriber_got_before_it_left_is_counted():
    ledger = Ledger()
    one = listening(ledger)
    ledger.published("c", "acknowledged", "p", 1)
    one.take(1, "p", 1)
    ledger.left("c", one)
    assert (final(ledger, "got"), final(ledger, "lost")) == (1, 0)


def test_what_a_subscriber_was_passed_over_with_is_not_counted_as_vanished_too():
    ledger = Ledger()
    one = listening(ledger)
    for number in (1, 2, 3):
        ledger.published("c", "acknowledged", "p", number)
    one.take(1, "p", 1)
    one.take(3, "p", 3)
    assert final(ledger, "lost") == 1
    assert ledger.summary(is_final=True)["losses"] == ["c: 1 passed over by subscribers"]


def test_after_a_recovery_that_could_not_be_made_the_numbers_in_between_are_no_loss():
    ledger = Ledger()
    one = listening(ledger)
    for number in range(1, 5):
        ledger.published("c", "acknowledged", "p", number)
    one.take(1, "p", 1)
    one.subscribed(3, is_recovered=False, was_recovering=True)
    one.take(4, "p", 4)
    assert (final(ledger, "lost"), final(ledger, "unrecoverable")) == (0, 1)
    told = ["c: 1 recoveries that the server could not make"]
    assert ledger.summary(is_final=True)["losses"] == told


def test_only_a_recovery_that_was_asked_for_continues_from_the_last_position():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    one.subscribed(5, is_recovered=True, was_recovering=False)
    one.take(6, "p", 1)
    assert (one.lost, one.unrecoverable) == (0, 0)


def test_a_subscriber_without_a_position_starts_at_its_first_publication():
    one = SubscriberAccount()
    for offset in (7, 8):
        one.take(offset, "p", offset)
    assert (one.got, one.twice, one.lost, one.last) == (2, 0, 0, 8)


def test_after_a_gap_a_publication_that_was_published_twice_is_still_noticed():
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    for offset, number in ((1, 1), (3, 2), (4, 2)):
        one.take(offset, "p", number)
    assert (one.lost, one.twice) == (1, 1)


def test_what_one_that_left_had_missed_is_not_forgotten_for_one_that_came_later():
    ledger = Ledger()
    for number in range(1, 5):
        ledger.published("c", "acknowledged", "p", number)
    for received in ((1, 3), (4,)):
        one = ledger.subscriber("c")
        one.subscribed(None, is_recovered=False, was_recovering=False)
        for number in received:
            one.take(0, "p", number)
        if received != (4,):
            ledger.left("c", one)
    assert final(ledger, "lost") == 1, "number 2"


def test_one_whose_subscribe_was_not_answered_yet_lacks_nothing():
    ledger = Ledger()
    one = listening(ledger, at=3)
    ledger.subscriber("c")
    ledger.published("c", "acknowledged", "p", 1)
    one.take(4, "p", 1)
    assert ledger.is_settled()
    assert final(ledger, "lost") == 0


def test_gaps_of_a_publisher_that_has_not_reported_are_no_loss_yet():
    ledger = Ledger()
    one = ledger.subscriber("c")
    one.subscribed(None, is_recovered=False, was_recovering=False)
    for number in (1, 3):
        one.take(0, "elsewhere", number)
    assert final(ledger, "lost") == 0


def test_the_stream_is_counted_from_the_lowest_position_of_all_subscribers():
    ledger = Ledger()
    early, late = listening(ledger, at=2), listening(ledger, at=5)
    for number in range(1, 5):
        ledger.published("c", "acknowledged", "p", number)
    for number in range(1, 4):
        early.take(2 + number, "p", number)
    assert late.got == 0
    assert final(ledger, "lost") == 1


def test_in_the_end_nothing_is_outstanding():
    ledger = Ledger()
    listening(ledger, at=3)
    for number in (1, 2):
        ledger.published("c", "acknowledged", "p", number)
    assert not ledger.is_settled()
    assert ledger.summary(is_final=False)["outstanding"] == 2
    assert (final(ledger, "outstanding"), final(ledger, "lost")) == (0, 2)


def test_what_each_of_several_has_not_got_is_counted_for_each():
    ledger = Ledger()
    ahead, *_ = listening(ledger), listening(ledger), listening(ledger)
    for number in (1, 2):
        ledger.published("c", "acknowledged", "p", number)
        ahead.take(number, "p", number)
    assert final(ledger, "lost") == 4


def test_without_positions_too_what_comes_late_is_out_of_order_and_not_lost():
    ledger = Ledger()
    one = ledger.subscriber("c")
    one.subscribed(None, is_recovered=False, was_recovering=False)
    for number in (1, 2, 3):
        ledger.published("c", "acknowledged", "p", number)
    for number in (1, 3, 2):
        one.take(0, "p", number)
    assert (final(ledger, "out_of_order"), final(ledger, "lost")) == (1, 0)


def a_range(numbers: set[int]) -> ReceivedRange:
    return ReceivedRange(
        min(numbers), max(numbers), set(range(min(numbers), max(numbers))) - numbers
    )


numbers = st.sets(st.integers(1, 12), min_size=1)


@given(numbers, numbers)
def test_two_ranges_joined_have_what_either_has_and_what_lies_between_them(
    one: set[int], two: set[int]
):
    between = {*range(max(one), min(two))} | {*range(max(two), min(one))}
    joined = a_range(one).joined(a_range(two))
    assert {n for n in range(14) if joined.has(n)} == one | two | between


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)), st.sets(st.integers(1, 8)))
def test_whatever_is_dropped_or_doubled_is_counted(
    order: list[int], dropped: set[int], doubled: set[int]
):
    """Any order, any loss before the last one, any repetition: the counts are exact."""
    arriving = [n for n in order if n not in dropped]
    one = SubscriberAccount()
    one.subscribed(0, is_recovered=False, was_recovering=False)
    for offset in arriving:
        one.take(offset, f"p{offset}", 1)
        if offset in doubled:
            one.take(offset, f"p{offset}", 1)
    top = max(arriving, default=0)
    assert one.lost == len([n for n in dropped if n < top])
    assert one.twice == len([n for n in doubled if n in arriving])
    assert one.got == len(arriving) + one.twice


@given(st.lists(st.floats(0.0001, 50), min_size=1, max_size=200))
def test_a_quantile_is_right_within_a_tenth(values: list[float]):
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    found = latencies.quantile(1.0)
    assert found is not None
    assert max(values) / 1.1 <= found <= max(values) * 1.1
