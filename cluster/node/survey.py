"""Questions of the server API that every worker answers for itself: channels, connections, its own numbers.

Answers are bounded, and what is long is gone through some at a time. The worker that asks adds them up.
"""

from __future__ import annotations

import asyncio
import fnmatch
import heapq
import re
import resource
import time
from itertools import islice
from typing import Any, Final

import msgspec

from cluster import __version__, expiry_clock
from cluster.connection import State
from cluster.metrics.counters import Counters
from cluster.node.client_protocol import Client
from cluster.node.control import Control, Gathered
from cluster.node.node import Node

#: Channels that one worker names in an answer, and those that it looks at before the loop gets its turn.
MOST_CHANNELS: Final = 5_000
CHANNELS_PER_TURN: Final = 2_000
#: Connections in one answer, and channels that are named of each.
MOST_CONNECTIONS: Final = 1_000
MOST_NAMED: Final = 128
#: What `info` tells of `Counters`.
_COUNTED: Final = (
    "connections_opened",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "publications",
    "slow_consumers",
)
#: Bytes of one worker's answer about connections; it names as many as fit.
_ANSWER_BYTES: Final = 512 << 10


class ChannelsQuestion(msgspec.Struct):
    """A pattern with `*`, `?` and `[…]`; empty is any. `namespaces` restricts them, None does not."""

    pattern: str = ""
    namespaces: list[str] | None = None


class ChannelsAnswer(msgspec.Struct):
    channels: dict[str, int]
    is_cut: bool = False


class ConnectionsQuestion(msgspec.Struct):
    """Of one user, in the order of their ids, those after `cursor`."""

    user: str
    cursor: str = ""
    limit: int = MOST_CONNECTIONS


class ConnectionsAnswer(msgspec.Struct):
    connections: dict[str, dict[str, Any]]
    is_cut: bool = False


class InfoQuestion(msgspec.Struct):
    pass


class Survey:
    """Asks all workers, and answers for this one.

    Args:
        counters: of this worker; `info` tells what has been counted since it was asked last.
        name: of this worker, for people.
    """

    def __init__(self, node: Node, control: Control, counters: Counters, *, name: str) -> None:
        self._node = node
        self._control = control
        self._name = name
        self._began = time.monotonic()
        self._cpu = (self._began, time.process_time())
        self._counters = counters
        self._counted = self._counts()
        control.on_question("channels", ChannelsQuestion, self.own_channels)
        control.on_question("connections", ConnectionsQuestion, self.own_connections)
        control.on_question("info", InfoQuestion, self.own_info)

    # --- this worker ---------------------------------------------------------------------------

    async def own_channels(self, question: ChannelsQuestion) -> ChannelsAnswer:
        matches = re.compile(fnmatch.translate(question.pattern or "*")).match
        spaces = None if question.namespaces is None else set(question.namespaces)
        found: dict[str, int] = {}
        for number, (name, channel) in enumerate(list(self._node.hub.channels.items()), 1):
            if number % CHANNELS_PER_TURN == 0:
                await asyncio.sleep(0)
            count = channel.count
            is_meant = spaces is None or self._node.permissions.namespace(name) in spaces
            if count and is_meant and matches(name):
                if len(found) >= MOST_CHANNELS:
                    return ChannelsAnswer(found, is_cut=True)
                found[name] = count
        return ChannelsAnswer(found)

    async def own_connections(self, question: ConnectionsQuestion) -> ConnectionsAnswer:
        later: dict[str, Client] = {}
        for number, client in enumerate(self._node.clients.of(question.user), 1):
            if number % CHANNELS_PER_TURN == 0:
                await asyncio.sleep(0)
            connection = client.connection
            if connection.state is State.CONNECTED and connection.client > question.cursor:
                later[connection.client] = client
        answer = ConnectionsAnswer({})
        size = 0
        for number, name in enumerate(heapq.nsmallest(question.limit, later), 1):
            if number % 100 == 0:
                await asyncio.sleep(0)
            about = self._about(later[name])
            size += 400 + sum(6 + len(channel) for channel in about["state"]["channels"])
            if size > _ANSWER_BYTES:
                answer.is_cut = True
                break
            answer.connections[name] = about
        answer.is_cut = answer.is_cut or len(later) > len(answer.connections)
        return answer

    def _about(self, client: Client) -> dict[str, Any]:
        connection = client.connection
        about: dict[str, Any] = {
            "user": connection.user,
            "node": self._control.uid,
            "app_name": connection.app_name,
            "app_version": connection.app_version,
            "transport": "websocket",
            "protocol": connection.codec.name,
            "state": {"channels": {name: {} for name in islice(connection.channels, MOST_NAMED)}},
            "num_channels": len(connection.channels),
        }
        if client.session is not None:
            about["session"] = client.session.id
        if connection.expires_at:
            about["expire_at"] = expiry_clock.to_unix(connection.expires_at)
        return about

    async def own_info(self, question: InfoQuestion) -> dict[str, Any]:
        now, cpu = time.monotonic(), time.process_time()
        (before, cpu_before), self._cpu = self._cpu, (now, cpu)
        counted_before, self._counted = self._counted, self._counts()
        hub = self._node.hub
        return {
            "uid": self._control.uid,
            "name": self._name,
            "version": __version__,
            "num_clients": self._node.clients.count,
            "num_users": self._node.clients.users,
            "num_channels": len(hub.channels),
            "num_subs": hub.subscriptions,
            "uptime": int(now - self._began),
            "metrics": {
                "interval": round(now - before, 3),
                "items": {
                    name: count - counted_before[name] for name, count in self._counted.items()
                },
            },
            "process": {
                "cpu": round(100 * (cpu - cpu_before) / max(now - before, 0.001), 2),
                "rss": _resident_bytes(),
            },
        }

    def _counts(self) -> dict[str, int]:
        return {name: getattr(self._counters, name) for name in _COUNTED}

    # --- all workers ---------------------------------------------------------------------------

    async def channels(self, question: ChannelsQuestion) -> dict[str, Any]:
        """How many connections each channel has, over all workers."""
        gathered = await self._control.ask("channels", question)
        counts: dict[str, int] = {}
        is_cut = False
        for answer in gathered.answers.values():
            found = msgspec.json.decode(answer, type=ChannelsAnswer)
            is_cut = is_cut or found.is_cut
            for name, count in found.channels.items():
                counts[name] = counts.get(name, 0) + count
            await asyncio.sleep(0)
        channels = {name: {"num_clients": count} for name, count in counts.items()}
        return _reported({"channels": channels}, gathered, is_cut=is_cut)

    async def connections(self, question: ConnectionsQuestion) -> dict[str, Any]:
        """One page of a user's connections; `cursor` of the result is for the next one, if there is one."""
        gathered = await self._control.ask("connections", question)
        found: dict[str, dict[str, Any]] = {}
        ends = []
        for answer in gathered.answers.values():
            part = msgspec.json.decode(answer, type=ConnectionsAnswer)
            found.update(part.connections)
            if part.is_cut:
                ends.append(max(part.connections, default=""))
            await asyncio.sleep(0)
        # Beyond the end of a worker's part, its next ones are not known.
        names = sorted(name for name in found if not ends or name <= min(ends))
        page = names[: question.limit]
        result: dict[str, Any] = {"connections": {name: found[name] for name in page}}
        if page and (ends or len(names) > len(page)):
            result["cursor"] = page[-1]
        return _reported(result, gathered)

    async def info(self) -> dict[str, Any]:
        """All workers that answer."""
        gathered = await self._control.ask("info", InfoQuestion())
        nodes = [msgspec.json.decode(answer) for answer in gathered.answers.values()]
        nodes.sort(key=lambda node: (node["name"], node["uid"]))
        return _reported({"nodes": nodes}, gathered)


def _reported(
    result: dict[str, Any], gathered: Gathered, *, is_cut: bool = False
) -> dict[str, Any]:
    """Say with a result what it lacks."""
    if gathered.missing:
        result["missing_workers"] = gathered.missing
    if is_cut:
        result["is_cut"] = True
    return result


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read at once, in memory
        return int(file.read().split()[1]) * resource.getpagesize()
