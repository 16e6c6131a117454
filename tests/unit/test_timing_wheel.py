"""The wheel: one ping per turn for everybody, the first after half a turn, echoes in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.websocket.timing_wheel import SLOTS, TimingWheel


@given(st.integers(min_value=0, max_value=3 * SLOTS))
def test_the_first_visit_comes_after_half_a_turn_and_before_a_whole_one(before: int):
    wheel: TimingWheel[str] = TimingWheel(turn_seconds=25, check_seconds=8)
    for _ in range(before):
        wheel.tick()
    wheel.add("a")
    visits = [n for n in range(1, 2 * SLOTS + 1) if "a" in wheel.tick()[0]]
    assert SLOTS // 2 <= visits[0] <= SLOTS
    assert visits[1] - visits[0] == SLOTS


@given(
    st.floats(min_value=0.1, max_value=100),
    st.floats(min_value=0.01, max_value=0.99),
)
def test_the_echo_is_never_early_and_always_before_the_next_visit(turn: float, share: float):
    echo = turn * share
    wheel: TimingWheel[str] = TimingWheel(turn_seconds=turn, check_seconds=echo)
    wheel.add("a")
    visit = next(n for n in range(1, 99) if "a" in wheel.tick()[0])
    ticks = next(n for n in range(1, SLOTS) if "a" in wheel.tick()[1])
    assert visit
    assert ticks < SLOTS
    assert ticks * wheel.tick_seconds >= echo * 0.999 or ticks == SLOTS - 1


def test_many_members_are_spread_over_half_the_wheel():
    wheel: TimingWheel[int] = TimingWheel(turn_seconds=25, check_seconds=8)
    for member in range(5000):
        wheel.add(member)
    due = [len(wheel.tick()[0]) for _ in range(SLOTS)]
    assert sum(due) == 5000
    assert max(due) < 400
    assert sum(1 for count in due if count) >= SLOTS // 2


def test_a_removed_member_is_never_due_again():
    wheel: TimingWheel[str] = TimingWheel(turn_seconds=25, check_seconds=8)
    slot = wheel.add("a")
    wheel.remove("a", slot)
    wheel.remove("a", slot)
    assert not any("a" in due + echoes for due, echoes in (wheel.tick() for _ in range(2 * SLOTS)))


def test_members_may_come_and_go_while_those_who_are_due_are_looked_at():
    wheel: TimingWheel[int] = TimingWheel(turn_seconds=25, check_seconds=8)
    slots = {member: wheel.add(member) for member in range(200)}
    for _ in range(SLOTS):
        for member in wheel.tick()[0]:
            # One that came meanwhile may have its turn in a later slot of this round.
            if member in slots:
                wheel.remove(member, slots.pop(member))
                wheel.add(member + 1000)
    assert not slots
