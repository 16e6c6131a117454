"""Commands that a node of a Redis Cluster did not do, because their slot is or moves elsewhere.

MOVED names the slot's new owner, ASK the node that has the key while its slot is migrated, TRYAGAIN says
that the keys of a command are on both sides at the moment
(https://valkey.io/topics/cluster-spec/#redirection-and-resharding). All three mean that nothing was
done, so following them is not a repeat.

Guarantees
- A command is followed for `timeout_seconds` and `_HOPS` redirections at most; then its caller gets the
  last answer, which is a temporary error.
- Commands of one key that must keep their order are followed one at a time, in the order in which they
  were sent, and later ones wait behind them. One that another has overtaken is refused, also if the other
  was sent to its node at once; see `SendingOrder`.
- At most `_WAITING` commands are followed; one more gets the answer it has.
- Every command is called back once, also one that is redirected while this ends.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, Final, Protocol

from cluster.config.redis_url import Address
from cluster.errors import StoreError, StoreRefused, StoreUnavailable
from cluster.resp.link import Done, Link, wait_for
from cluster.resp.sending_order import Lot, SendingOrder
from cluster.resp.shard import Shard

_HOPS: Final = 16
_WAITING: Final = 10_000
_PAUSE_FIRST_SECONDS: Final = 0.01
_PAUSE_LIMIT_SECONDS: Final = 0.25

_REDIRECTIONS: Final = frozenset({"MOVED", "ASK"})
#: Nothing was done, and it may be possible soon at the node that the map names.
_SOON: Final = frozenset({"TRYAGAIN", "NOSCRIPT"})

#: Sends a command over a link; the second argument says whether ASKING comes before it.
Send = Callable[[Link, bool, Done], None]


class Nodes(Protocol):
    """What redirections need of the router."""

    def shard_of(self, key: str) -> Shard:
        """Return the shard that owns a key."""

    def shard_at(self, address: Address) -> Shard:
        """Return the shard at an address, connecting to it if it is new."""

    def refresh(self) -> None:
        """Read the map again soon, because a server contradicted it."""


class RoutedCommand:
    """One command with its key, until its caller has the answer.

    Attributes:
        link: to the node that was asked last.
        lot: of commands that are not answered, to which this one belongs; None if it is in none.
    """

    __slots__ = (
        "done", "keeps_order", "key", "link", "lot", "number", "redirects", "reply", "send",
    )  # fmt: skip

    def __init__(
        self, redirects: Redirects, key: str, send: Send, done: Done, keeps_order: bool
    ) -> None:
        self.redirects = redirects
        self.key = key
        self.send = send
        self.done = done
        self.keeps_order = keeps_order
        self.number = 0
        self.link: Link | None = None
        self.lot: Lot | None = None
        self.reply: Any = None

    def __lt__(self, other: RoutedCommand) -> bool:
        return self.number < other.number

    def answered(self, reply: Any) -> None:
        """Pass the answer on, or follow it."""
        is_redirected = isinstance(reply, StoreRefused) and reply.kind in _REDIRECTIONS | _SOON
        if is_redirected:
            self.reply = reply
            self.redirects.follow(self)
        if (lot := self.lot) is not None:
            # Not before `follow`: what has overtaken this one may be forgotten now.
            lot.unanswered -= 1
            if lot.is_awaited and not lot.unanswered:
                self.redirects.order.settled()
        if not is_redirected:
            self.done(reply)


class _Queue:
    """The commands of one key that wait for their turn."""

    def __init__(self) -> None:
        self.waiting: list[RoutedCommand] = []
        self.last = -1


class Redirects:
    """Sends the commands of a Redis Cluster and follows where the nodes direct them.

    Attributes:
        order: must be told that it is disturbed when the map has changed.
    """

    def __init__(self, nodes: Nodes, *, timeout_seconds: float) -> None:
        self._nodes = nodes
        self._timeout_seconds = timeout_seconds
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._followed: set[RoutedCommand] = set()
        self._numbers = 0
        self._is_closed = False
        self.order = SendingOrder()

    def submit(self, key: str, send: Send, done: Done, *, keeps_order: bool) -> None:
        """Send a command to the owner of `key`; `done` as in `RespConnection.submit`."""
        command = RoutedCommand(self, key, send, done, keeps_order)
        command.number = self._numbers = self._numbers + 1
        if keeps_order and self._queues and (queue := self._queues.get(key)) is not None:
            command.reply = StoreRefused(
                "TRYAGAIN earlier commands of the key are being redirected"
            )
            self._enqueue(queue, command)
            return
        command.link = link = self._nodes.shard_of(key).commands
        if keeps_order:
            order = self.order
            if order.is_watched:
                order.sent(key, command.number, link)
            command.lot = lot = order.lot
            lot.unanswered += 1
        send(link, False, command.answered)

    def follow(self, command: RoutedCommand) -> None:
        """Go on with a command that a node did not do."""
        if self._is_closed:
            command.done(StoreUnavailable("the store's connection is closed"))
            return
        if command.reply.kind == "MOVED":
            self._nodes.refresh()
        self.order.disturbed()
        if not command.keeps_order:
            if self._may_follow(command):
                self._start(self._follow_one(command))
            return
        queue = self._queues.get(command.key) or _Queue()
        if self._enqueue(queue, command) and command.key not in self._queues:
            self._queues[command.key] = queue
            self._start(self._drain(command.key, queue))

    async def aclose(self) -> None:
        """End; commands that are still followed are called back with their last answer."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Of a task that was cancelled before its first step nothing has run.
        self._queues.clear()
        for command in list(self._followed):
            self._end(command)

    def _enqueue(self, queue: _Queue, command: RoutedCommand) -> bool:
        """Let a command wait for its turn; returns False if it is refused."""
        is_late = command.number < queue.last or self.order.is_overtaken(
            command.key, command.number, command.link
        )
        if is_late:
            command.done(command.reply)
            return False
        if not self._may_follow(command):
            return False
        heapq.heappush(queue.waiting, command)
        return True

    def _may_follow(self, command: RoutedCommand) -> bool:
        if len(self._followed) >= _WAITING:
            command.done(command.reply)
            return False
        self._followed.add(command)
        return True

    def _end(self, command: RoutedCommand) -> None:
        """Call a command back that is followed no longer."""
        self._followed.discard(command)
        command.done(command.reply)

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name="redirect")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow_one(self, command: RoutedCommand) -> None:
        try:
            await self._settle(command)
        finally:
            self._end(command)

    async def _drain(self, key: str, queue: _Queue) -> None:
        try:
            while queue.waiting:
                command = heapq.heappop(queue.waiting)
                queue.last = command.number
                await self._follow_one(command)
        finally:
            del self._queues[key]
            for command in queue.waiting:
                self._end(command)

    async def _settle(self, command: RoutedCommand) -> None:
        """Follow until there is another answer than a redirection, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        pause = _PAUSE_FIRST_SECONDS
        hops = 0
        while isinstance(command.reply, StoreRefused) and loop.time() < deadline:
            kind = command.reply.kind
            if kind == "MOVED":
                self._nodes.refresh()
            if kind in _REDIRECTIONS and hops < _HOPS:
                hops += 1
                try:
                    link = self._target(command).commands
                    await asyncio.wait_for(link.wait_up(), deadline - loop.time())
                except (TimeoutError, LookupError, ValueError):
                    return  # Also if the redirection names no node.
            elif kind in _SOON:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_LIMIT_SECONDS)
                hops = 0
                link = self._nodes.shard_of(command.key).commands
            else:
                return
            # What has been sent may be done, so its own answer is waited for; the link bounds that.
            command.link = link
            if command.keeps_order and self.order.is_watched:
                self.order.sent(command.key, command.number, link)
            command.reply = await _answer(command, link, follows_ask=kind == "ASK")

    def _target(self, command: RoutedCommand) -> Shard:
        """The node that a redirection names; without a host, at the one that answered."""
        host, port = str(command.reply).split()[2].rsplit(":", 1)
        asked = (command.link or self._nodes.shard_of(command.key).commands).address
        return self._nodes.shard_at(asked.at(host or asked.host, int(port)))


async def _answer(command: RoutedCommand, link: Link, *, follows_ask: bool) -> Any:
    """The reply, or the error that came instead of it."""
    try:
        return await wait_for(lambda done: command.send(link, follows_ask, done))
    except StoreError as error:
        return error
