"""When what a worker has closed has come back to it: it waits longer, until an attempt is of use again."""

from __future__ import annotations

import pytest

from cluster.node.balance import Balance, WorkerLoad
from tests.unit.test_balance import RULES

ALL = 1000


def told(balance: Balance, own: int, now: int) -> int:
    """A turn with so many connections here, and the rest at the other worker; returns how many it closes."""
    balance.heard("b", WorkerLoad(ALL - own), now)
    return balance.to_close(WorkerLoad(own), now)


def attempt(balance: Balance, own: int, now: int) -> int:
    """Let an attempt run that closes twice the surplus; returns when it has ended."""
    left = 2 * (own - ALL // 2)
    while left > 0:
        now += 1
        left -= told(balance, own, now)
    return now


def later(balance: Balance, own: int, now: int, seconds: int) -> int:
    """So many seconds more with these connections; returns the time."""
    for second in range(1, seconds + 1):
        told(balance, own, now + second)
    return now + seconds


@pytest.mark.parametrize(("left", "in_vain"), [(740, 0), (760, 1)])
def test_an_attempt_of_which_three_quarters_came_back_was_in_vain(left: int, in_vain: int):
    balance = Balance("a", RULES)
    now = attempt(balance, 1000, 0)
    later(balance, left, now, 40)
    assert balance.attempts_in_vain == in_vain


def test_an_attempt_of_use_ends_the_longer_waits():
    balance = Balance("a", RULES)
    now = attempt(balance, 1000, 0)
    now = attempt(balance, 760, now)
    assert balance.attempts_in_vain == 1
    later(balance, 600, now, 70)
    assert balance.attempts_in_vain == 0


def test_an_attempt_of_long_ago_says_nothing():
    balance = Balance("a", RULES)
    now = attempt(balance, 1000, 0)
    now = later(balance, 500, now, 2000)
    later(balance, 1000, now, 40)
    assert balance.attempts_in_vain == 0
