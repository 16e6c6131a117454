"""Alertmanager's routing tree: which receivers an alert goes to, and under which key.

Rules
- The tree is read from the configuration that Alertmanager reports, so it is the one in force.
- A group's key is `<route>:<labels>` and PagerDuty's `dedup_key` is the sha256 of it; with that key
  the tracker can acknowledge and resolve the incident that Alertmanager opened (alertmanager
  `dispatch.Route.Key`, `aggrGroup.GroupKey`, `notify.Key.Hash`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from cluster import durations
from cluster.alerting.matchers import Matcher, matchers_of

# Alertmanager's own defaults.
_GROUP_INTERVAL_SECONDS: Final = 300.0
_REPEAT_INTERVAL_SECONDS: Final = 4 * 3600.0
_ALL_LABELS: Final = "..."


@dataclass(frozen=True, slots=True)
class NotificationChannel:
    """One integration of a receiver: its kind (slack, pagerduty, …) and its settings."""

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
    """The configuration has no routing tree, or one that cannot be read."""


class Routing:
    """The routing tree of an Alertmanager configuration, given as YAML."""

    def __init__(self, configuration: str) -> None:
        try:
            document = yaml.safe_load(configuration)
            self._tree: Mapping[str, Any] = document["route"]
            _check(self._tree)
            self._receivers = {r["name"]: _channels(r) for r in document.get("receivers") or ()}
            # The longest of the tree: an upper bound for every group.
            self.group_interval_seconds: Final = max(
                _intervals(self._tree, "group_interval", _GROUP_INTERVAL_SECONDS)
            )
            self.repeat_interval_seconds: Final = max(
                _intervals(self._tree, "repeat_interval", _REPEAT_INTERVAL_SECONDS)
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
        """Every group of an alert with these labels, in the order of the tree."""
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
        """The Slack channels an alert is sent to, each once."""
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


def _intervals(node: Mapping[str, Any], name: str, inherited: float) -> Iterator[float]:
    given = node.get(name)
    own = durations.seconds_of(str(given)) if given else inherited
    yield own
    for child in node.get("routes") or ():
        yield from _intervals(child, name, own)


def _check(node: Mapping[str, Any]) -> None:
    """Read every route, so that an error is found now and not at the first alert."""
    for matcher in _matchers(node):
        if matcher.is_regex:
            re.compile(matcher.value)
    for child in node.get("routes") or ():
        _check(child)


def _matched(
    node: Mapping[str, Any], labels: Mapping[str, str], above: str, inherited: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    """The routes an alert ends at, with their keys; depth first, like Alertmanager."""
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
        found += matchers_of(str(text))
    return sorted(found, key=lambda m: (m.name, m.value, m.is_regex, not m.is_equal))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
