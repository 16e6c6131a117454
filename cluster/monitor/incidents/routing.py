"""Alertmanager's routing tree: who is told of an alert, and under which key.

Rules
- The tree is read from the configuration that Alertmanager itself shows, so it is the one in force.
- A group's key is `<route>:<labels>` and PagerDuty's `dedup_key` is the sha256 of it; that is how
  whoever is not Alertmanager can speak about the same incident (alertmanager `dispatch.Route.Key`,
  `aggrGroup.GroupKey`, `notify.Key.Hash`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from cluster.monitor import durations
from cluster.monitor.alertmanager import Matcher

# Alertmanager's own defaults.
_GROUP_INTERVAL_SECONDS: Final = 300.0
_REPEAT_INTERVAL_SECONDS: Final = 4 * 3600.0
_MATCHER: Final = re.compile(
    r"\s*([a-zA-Z_:][\w:]*)\s*(=~|!~|!=|=)\s*(\"(?:[^\"\\]|\\.)*\"|[^,}]*)"
)
_ALL_LABELS: Final = "..."


@dataclass(frozen=True, slots=True)
class NotificationChannel:
    """One place a receiver tells of alerts in: its kind, and what the configuration says of it."""

    kind: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NotificationGroup:
    """One group an alert belongs to.

    Attributes:
        key: Alertmanager's group key.
        channels: where its notifications go.
    """

    key: str
    receiver: str
    channels: tuple[NotificationChannel, ...]

    @property
    def dedup_key(self) -> str:
        """The key of the PagerDuty incident of this group."""
        return hashlib.sha256(self.key.encode()).hexdigest()


class BrokenRouting(ValueError):
    """The configuration has no routing tree that can be understood."""


class Routing:
    """The routing tree of an Alertmanager configuration, given as YAML."""

    def __init__(self, configuration: str) -> None:
        try:
            document = yaml.safe_load(configuration)
            self._tree: Mapping[str, Any] = document["route"]
            _check(self._tree)
            self._receivers = {r["name"]: _channels(r) for r in document.get("receivers") or ()}
            # The longest of the tree: no group waits longer.
            self.group_interval_seconds: Final = max(
                _lengths(self._tree, "group_interval", _GROUP_INTERVAL_SECONDS)
            )
            self.repeat_interval_seconds: Final = max(
                _lengths(self._tree, "repeat_interval", _REPEAT_INTERVAL_SECONDS)
            )
        except (
            yaml.YAMLError,
            re.error,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise BrokenRouting(f"Alertmanager's configuration cannot be read: {error}") from None

    def groups(self, labels: Mapping[str, str]) -> list[NotificationGroup]:
        """Every group an alert with these labels is put in, in the order of the tree."""
        found = []
        for route_key, node in _matched(self._tree, labels, "", {}):
            names = node["group_by"]
            chosen = (
                labels if _ALL_LABELS in names else {n: labels[n] for n in names if n in labels}
            )
            text = ", ".join(f'{name}="{_escaped(chosen[name])}"' for name in sorted(chosen))
            receiver = node["receiver"]
            channels = self._receivers.get(receiver, ())
            found.append(NotificationGroup(f"{route_key}:{{{text}}}", receiver, channels))
        return found

    def dedup_keys(self, labels: Mapping[str, str]) -> list[str]:
        """The keys of the PagerDuty incidents an alert belongs to."""
        return [
            group.dedup_key
            for group in self.groups(labels)
            if any(channel.kind == "pagerduty" for channel in group.channels)
        ]

    def slack_channels(self, labels: Mapping[str, str]) -> list[NotificationChannel]:
        """Where Slack hears of an alert, each place once."""
        found = {
            str(channel.settings.get("channel", "")): channel
            for group in self.groups(labels)
            for channel in group.channels
            if channel.kind == "slack"
        }
        return list(found.values())


def _channels(receiver: Mapping[str, Any]) -> tuple[NotificationChannel, ...]:
    return tuple(
        NotificationChannel(name.removesuffix("_configs"), settings or {})
        for name, configs in receiver.items()
        if name.endswith("_configs")
        for settings in configs or ()
    )


def _lengths(node: Mapping[str, Any], name: str, inherited: float) -> Iterator[float]:
    given = node.get(name)
    own = durations.seconds_of(str(given)) if given else inherited
    yield own
    for child in node.get("routes") or ():
        yield from _lengths(child, name, own)


def _check(node: Mapping[str, Any]) -> None:
    """Look at every route, so that a broken one is noticed now and not when an alert comes by."""
    for matcher in _matchers(node):
        if matcher.is_regex:
            re.compile(matcher.value)
    for child in node.get("routes") or ():
        _check(child)


def _matched(
    node: Mapping[str, Any], labels: Mapping[str, str], above: str, inherited: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    """The routes an alert ends at, with their keys; depth first, as Alertmanager goes."""
    matchers = _matchers(node)
    if not all(matcher.holds(labels) for matcher in matchers):
        return []
    key = above + "{" + ",".join(str(matcher) for matcher in matchers) + "}"
    settings = {
        "receiver": node.get("receiver") or inherited.get("receiver", ""),
        "group_by": node.get("group_by") or inherited.get("group_by", ()),
    }
    found: list[tuple[str, Mapping[str, Any]]] = []
    for child in node.get("routes") or ():
        ends = _matched(child, labels, key + "/", settings)
        found += ends
        if ends and not child.get("continue"):
            break
    return found or [(key, settings)]


def _matchers(node: Mapping[str, Any]) -> list[Matcher]:
    found = [Matcher(name, str(value)) for name, value in (node.get("match") or {}).items()]
    found += [
        Matcher(name, str(value), is_regex=True)
        for name, value in (node.get("match_re") or {}).items()
    ]
    for text in node.get("matchers") or ():
        found += _parsed(str(text))
    return sorted(found, key=lambda m: (m.name, m.value, m.is_regex, not m.is_equal))


def _parsed(text: str) -> Sequence[Matcher]:
    """The matchers of one line of `matchers`, which may hold several between braces."""
    inner = text.strip().removeprefix("{").removesuffix("}")
    found = []
    for name, sign, value in _MATCHER.findall(inner):
        plain = value.strip()
        if plain.startswith('"'):
            plain = plain[1:-1].replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")
        found.append(Matcher(name, plain, "~" in sign, not sign.startswith("!")))
    if not found:
        raise ValueError(f"matcher {text!r}")
    return found


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
