"""How many commands are decoded at once, and that all of them come in their order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from cluster.decoding_in_parts import DECODED_AT_ONCE, in_parts


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 100])
def test_all_commands_come_in_their_order_and_no_more_than_a_part_is_decoded_before(count: int):
    decoded = 0

    def each() -> Iterator[int]:
        nonlocal decoded
        for number in range(count):
            decoded += 1
            yield number

    commands = in_parts(each())
    assert decoded == min(count, DECODED_AT_ONCE)
    assert isinstance(commands, list) is (count < DECODED_AT_ONCE)
    assert list(commands) == list(range(count))


def test_a_command_that_cannot_be_decoded_is_noticed_where_it_stands():
    def each(bad: int) -> Iterator[int]:
        for number in range(100):
            if number == bad:
                raise ValueError("malformed")
            yield number

    with pytest.raises(ValueError, match="malformed"):
        in_parts(each(DECODED_AT_ONCE - 1))
    commands = iter(in_parts(each(50)))
    assert list(islice(commands, 50)) == list(range(50))
    with pytest.raises(ValueError, match="malformed"):
        next(commands)
