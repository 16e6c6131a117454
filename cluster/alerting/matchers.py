"""Conditions on labels, as silences, routes and `amtool` have them.

Rule: matchers with the labels of one alert also match alerts with further labels. The alert of a whole
service has no instance: `exactly` requires that, or its silence would match each replica's alert, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_ONE: Final = re.compile(rf"\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*({_QUOTED}|.*?)\s*", re.DOTALL)
_EACH: Final = re.compile(rf"\s*([a-zA-Z_:][\w:]*)\s*(=~|!~|!=|=)\s*({_QUOTED}|[^,}}]*)")
_ESCAPED: Final = re.compile(r'\\(["\\n])')
_NAME: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    def __str__(self) -> str:
        sign = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
        return f'{self.name}{sign[self.is_regex, self.is_equal]}"{self.value}"'

    @property
    def is_literal(self) -> bool:
        """Whether it asks for one value."""
        return self.is_equal and not self.is_regex

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it; a missing label counts as empty."""
        value = labels.get(self.name, "")
        try:
            found = bool(re.fullmatch(self.value, value)) if self.is_regex else value == self.value
        except re.error:
            # RE2, which Alertmanager uses, has syntax that Python lacks: then nothing is matched.
            return False
        return found is self.is_equal


def exactly(labels: Mapping[str, str]) -> list[Matcher]:
    """Matchers that this alert fulfils, and no other of its name."""
    return [Matcher(name, value) for name, value in sorted({"instance": "", **labels}.items())]


def matcher(text: str) -> Matcher:
    """A matcher as amtool reads it: `name=value`, `!=`, `=~`, `!~`; a bare word is an alert's name.

    Raises:
        ValueError: if it is not a matcher.
    """
    if _NAME.fullmatch(text):
        return Matcher("alertname", text)
    parts = _ONE.fullmatch(text)
    if parts is None:
        raise ValueError(
            f"{text!r} is not a matcher: write name=value, name!=value, name=~regex or name!~regex"
        )
    found = _matcher(*parts.groups())
    if found.is_regex:
        try:
            re.compile(found.value)
        except re.error as error:
            raise ValueError(f"{text!r} has a broken regular expression: {error}") from None
    return found


def matchers_of(text: str) -> list[Matcher]:
    """The matchers of one line of a route's `matchers`, which may hold several between braces.

    Raises:
        ValueError: if there is none.
    """
    inner = text.strip().removeprefix("{").removesuffix("}")
    found = [_matcher(*parts) for parts in _EACH.findall(inner)]
    if not found:
        raise ValueError(f"matcher {text!r}")
    return found


def _matcher(name: str, sign: str, value: str) -> Matcher:
    value = value.strip()
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value[1:-1])
    return Matcher(name, value, "~" in sign, not sign.startswith("!"))
