"""Regular expressions for names of channels, matched in time that grows with the name's length only.

Python's `re` tries one way through a pattern after the other: a name of 30 characters keeps it busy for
minutes at `^(a+)+$`, and clients choose the names. Here all ways are followed at once (Thompson 1968), and
each step is remembered, as Go's `regexp` does, for which Centrifugo's configurations are written. Python
parses the pattern; what Go does not have either, such as back references, is refused.

Bounds: `MOST_STATES` of a pattern, `MOST_REMEMBERED` steps of matching it; a name takes one step for each
character, and a new step costs at most a look at each state.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

MOST_STATES: Final = 500
MOST_REMEMBERED: Final = 256

_ASCII: Final = frozenset(map(chr, range(128)))
_CATEGORIES: Final = {
    _constants.CATEGORY_DIGIT: r"\d", _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_SPACE: r"\s", _constants.CATEGORY_NOT_SPACE: r"\S",
    _constants.CATEGORY_WORD: r"\w", _constants.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_BEGIN: Final = (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING)
_END: Final = (_constants.AT_END, _constants.AT_END_STRING)
_REPEATS: Final = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
#: They change nothing here, or what the parser has made of the pattern already.
_HARMLESS_FLAGS: Final = re.IGNORECASE | re.DOTALL | re.VERBOSE | re.ASCII | re.UNICODE


class RegexFault(ValueError):
    """The pattern cannot be used; the text says why."""


class _State(NamedTuple):
    """A state of the pattern: one of these characters leads to `following`, or nothing does at once.

    Attributes:
        chars: None if no character is consumed.
        assertion: "begin" or "end" if only the name's begin or end leads on.
    """

    following: list[int]
    chars: frozenset[str] | None = None
    assertion: str = ""


class _Step:
    """The states that are possible after some characters, and where each next character leads."""

    __slots__ = ("accepts", "accepts_at_end", "moves", "states")

    def __init__(self, states: frozenset[int], accepts: bool, accepts_at_end: bool) -> None:
        self.states = states
        self.accepts = accepts
        self.accepts_at_end = accepts_at_end
        self.moves: dict[str, _Step] = {}


class ChannelRegex:
    """One pattern, ready to be searched for in ASCII names.

    Raises:
        RegexFault: the pattern is malformed, too large, or has what is not supported.
    """

    def __init__(self, pattern: str) -> None:
        self._states: list[_State] = [_State([])]
        self._start = self._built(_parsed(pattern), 0)
        self._remembered: dict[frozenset[int], _Step] = {}
        self._first = self._step([self._start], is_begin=True)

    def search(self, name: str) -> bool:
        """Whether the pattern is found anywhere in a name."""
        step = self._first
        for char in name:
            if step.accepts:
                return True
            following = step.moves.get(char)
            step = following if following is not None else self._next(step, char)
        return step.accepts or step.accepts_at_end

    # --- matching --------------------------------------------------------------------------

    def _next(self, step: _Step, char: str) -> _Step:
        reached = [self._start]
        for number in step.states:
            state = self._states[number]
            if state.chars is not None and char in state.chars:
                reached += state.following
        following = self._step(reached, is_begin=False)
        step.moves[char] = following
        return following

    def _step(self, reached: Iterable[int], *, is_begin: bool) -> _Step:
        states = self._closure(reached, is_begin=is_begin, is_end=False)
        # What is possible at the begin only is no state of a later step: each has one key.
        known = None if is_begin else self._remembered.get(states)
        if known is not None:
            return known
        at_end = 0 in self._closure(reached, is_begin=is_begin, is_end=True)
        step = _Step(states, 0 in states, at_end)
        if not is_begin:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
                self._first.moves.clear()
            self._remembered[states] = step
        return step

    def _closure(self, reached: Iterable[int], *, is_begin: bool, is_end: bool) -> frozenset[int]:
        """All states that are reached without another character."""
        found: set[int] = set()
        waiting = list(reached)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            state = self._states[number]
            found.add(number)
            if state.chars is None and (
                not state.assertion or (is_begin if state.assertion == "begin" else is_end)
            ):
                waiting += state.following
        return frozenset(found)

    # --- building --------------------------------------------------------------------------

    def _built(self, items: tuple[Any, int], following: int) -> int:
        """Build the states of a sequence from its end; returns the first one."""
        parts, flags = items
        for operator, argument in reversed(list(parts)):
            following = self._item(operator, argument, flags, following)
        return following

    def _item(self, operator: Any, argument: Any, flags: int, following: int) -> int:
        if operator is _constants.SUBPATTERN:
            _, added, removed, inner = argument
            return self._built((inner, (flags | added) & ~removed), following)
        if operator is _constants.BRANCH:
            first = [self._built((branch, flags), following) for branch in argument[1]]
            return self._added(_State(first))
        if operator in _REPEATS:
            least, most, body = argument
            return self._repeat(least, most, (body, flags), following)
        if operator is _constants.AT and argument in _BEGIN:
            return self._added(_State([following], assertion="begin"))
        if operator is _constants.AT and argument in _END:
            return self._added(_State([following], assertion="end"))
        return self._added(_State([following], _chars(operator, argument, flags)))

    def _repeat(self, least: int, most: int, body: tuple[Any, int], following: int) -> int:
        first = following
        if most is _constants.MAXREPEAT:
            loop = _State([following])
            first = self._added(loop)
            loop.following.append(self._built(body, first))
        else:
            for _ in range(most - least):
                first = self._added(_State([following, self._built(body, first)]))
        for _ in range(least):
            first = self._built(body, first)
        return first

    def _added(self, state: _State) -> int:
        if len(self._states) >= MOST_STATES:
            raise RegexFault("give a shorter pattern, or lower counts of repetition")
        self._states.append(state)
        return len(self._states) - 1


def _parsed(pattern: str) -> tuple[Any, int]:
    if "[:" in pattern:
        raise RegexFault("give ranges such as a-z: classes such as [:alpha:] are not supported")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise RegexFault(f"give a regular expression that can be parsed: {error}") from None
    flags: int = tree.state.flags
    if flags & ~int(_HARMLESS_FLAGS):
        raise RegexFault("give no flags but i and s")
    return tree, flags


def _chars(operator: Any, argument: Any, flags: int) -> frozenset[str]:
    """The ASCII characters that an item of a pattern matches."""
    if operator is _constants.ANY:
        return _ASCII if flags & re.DOTALL else _ASCII - {"\n"}
    if operator is _constants.IN:
        is_negated = bool(argument) and argument[0][0] is _constants.NEGATE
        members = argument[1:] if is_negated else argument
        found = frozenset(char for one, value in members for char in _members(one, value, flags))
        return _ASCII - found if is_negated else found
    if operator is _constants.NOT_LITERAL:
        return _ASCII - _members(_constants.LITERAL, argument, flags)
    if operator is _constants.LITERAL:
        return _members(operator, argument, flags)
    raise RegexFault(
        "give a pattern without back references, look-around, word boundaries, and possessive or atomic"
        " groups"
    )


def _members(operator: Any, argument: Any, flags: int) -> frozenset[str]:
    if operator is _constants.CATEGORY:
        category = re.compile(_CATEGORIES[argument], re.ASCII)
        return frozenset(filter(category.match, _ASCII))
    low, high = (argument, argument) if operator is _constants.LITERAL else argument
    found = {char for char in _ASCII if low <= ord(char) <= high}
    if flags & re.IGNORECASE:
        found |= {char.swapcase() for char in found}
    return frozenset(found)


def regex_fault(pattern: str) -> str:
    """What to change in a pattern; "" if nothing."""
    try:
        ChannelRegex(pattern)
    except RegexFault as fault:
        return str(fault)
    return ""
