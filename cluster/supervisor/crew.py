"""Everybody who is kept running: Valkey, one worker per slot, nginx; and their doors.

Rules
- Whoever cannot be reached is answered by us: a slot without a serving worker, and the public
  door without nginx, refuse with 503.
- nginx's upstreams are the slots. A new slot is added to them when its worker is ready, and a
  slot is taken out of them before its worker drains.
- No worker is started while the embedded Valkey is not ready.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cluster import log
from cluster.admin import Readiness
from cluster.children.child import Child, Grace, Kind
from cluster.children.doors import Doors, Refuser, address, reachable_host
from cluster.children.nginx import NginxKind, NginxSettings, unprivileged_user
from cluster.children.process import Reaper
from cluster.children.restarts import RestartPolicy
from cluster.children.valkey import ValkeyKind
from cluster.children.worker import COMMAND, WorkerKind
from cluster.config import Config, to_json
from cluster.supervisor.limits import connection_capacity
from cluster.supervisor.places import Places
from cluster.supervisor.post import Listener, Post

_SERVICE_GRACE_SECONDS: Final = 8.0
_MOST_NGINX_PROCESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Means:
    """What a crew works with.

    Attributes:
        valkey: path of the embedded Valkey; empty without one.
        nginx: path of the embedded nginx; empty without one.
        file_limit: files a process may open.
        instance: `host:port` of the operator's door, a label of logs.
        command: starts a worker.
    """

    doors: Doors
    places: Places
    valkey: str
    nginx: str
    file_limit: int
    instance: str
    policy: RestartPolicy
    command: Sequence[str] = COMMAND


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place: its socket, who stands behind it, and who answers if nobody does."""

    sock: socket.socket
    kind: WorkerKind
    post: Post
    refuser: Refuser


class Crew:
    """Starts, follows, rolls and stops everybody.

    Args:
        config: the configuration; its store is the embedded one's once that is started.
        means: sockets, places, programs.
        reaper: who hears of exits.
        listener: told of every change of a child.
        watch: takes over the task that keeps a post.
    """

    def __init__(
        self,
        config: Config,
        means: Means,
        *,
        reaper: Reaper,
        listener: Listener,
        watch: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.config = config
        self.slots: list[Slot] = []
        self._means = means
        self._reaper = reaper
        self._listener = listener
        self._watch = watch
        self._news = asyncio.Event()
        self._log = log.get_logger()
        self._valkey = self._valkey_post() if means.valkey else None
        self._public = Refuser(means.doors.public) if means.doors.public else None
        self._nginx_kind = self._make_nginx() if means.nginx else None
        self._nginx = self._post(self._nginx_kind) if self._nginx_kind else None
        self.refuse_where_needed()

    # --- making posts --------------------------------------------------------------------

    def _post(
        self, kind: Kind, needed: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> Post:
        return Post(
            kind,
            reaper=self._reaper,
            policy=self._means.policy,
            listener=self._listener,
            grace=self._grace,
            needed=needed,
        )

    def _grace(self) -> Grace:
        return Grace(self.config.shutdown.stop_grace_period)

    def _valkey_post(self) -> Post:
        places = self._means.places
        kind = ValkeyKind(
            self._means.valkey,
            data_dir=places.made("valkey"),
            socket_path=places.made("valkey", below_run=True) / "valkey.sock",
            lock_fd=places.lock_fd,
        )
        broker = dataclasses.replace(self.config.broker, redis_urls=(kind.url,))
        self.config = dataclasses.replace(self.config, broker=broker)
        return self._post(kind)

    def _make_nginx(self) -> NginxKind:
        places, public = self._means.places, self._means.doors.public
        assert public is not None
        return NginxKind(
            self._means.nginx,
            run_dir=places.made("nginx", below_run=True),
            listen_fd=public.fileno(),
            lock_fd=places.lock_fd,
            settings=self.nginx_settings,
        )

    def _slot(self, number: int, sock: socket.socket) -> Slot:
        kind = WorkerKind(
            number,
            listen_fd=sock.fileno(),
            document=to_json(self.config),
            instance=self._means.instance,
            metrics_dir=self._means.places.metrics_dir,
            command=self._means.command,
        )
        slot = Slot(sock, kind, self._post(kind, self._store_ready), Refuser(sock))
        self.slots.append(slot)
        slot.refuser.set_refusing(True)
        return slot

    def nginx_settings(self) -> NginxSettings:
        """What nginx's configuration says for the slots of this moment."""
        doors, places = self._means.doors, self._means.places
        assert doors.public is not None
        host = reachable_host(doors.public.getsockname()[0])
        count = len(self.slots)
        return NginxSettings(
            listen=address(doors.public),
            workers=self.worker_addresses(),
            admin=address(doors.admin, host=host),
            ping_interval_seconds=self.config.client.ping_interval,
            file_limit=self._means.file_limit,
            processes=max(1, min(_MOST_NGINX_PROCESSES, count)),
            user=unprivileged_user(),
            access_log=str(places.access_log),
            probe_socket=str(places.made("nginx", below_run=True) / "probe.sock"),
            instance=self._means.instance,
        )

    # --- starting ------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everybody and wait until all are ready."""
        if self._valkey:
            self._watch(self._valkey.start())
            await self._store_ready()
        for number, sock in enumerate(self._means.doors.slots):
            self._watch(self._slot(number, sock).post.start())
        if self._nginx:
            self._watch(self._nginx.start())
        await self.until(lambda: all(post.is_ready for post in self._posts()))

    async def _store_ready(self) -> None:
        valkey = self._valkey
        if valkey is not None:
            await self.until(lambda: valkey.is_ready)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; looked at whenever a child has changed."""
        while not holds():
            news = self._news
            await news.wait()

    def _posts(self) -> list[Post]:
        others = [post for post in (self._valkey, self._nginx) if post]
        return [*others, *(slot.post for slot in self.slots)]

    # --- what is true now ----------------------------------------------------------------

    def changed(self) -> None:
        """A child has changed: let doors follow, and wake whoever waits."""
        self.refuse_where_needed()
        if self.ready:
            # The store has been reached: from now on its absence is an outage, not a wrong address.
            for slot in self.slots:
                slot.kind.is_patient = True
        # A fresh event per change: nobody can clear it before another has seen it.
        news, self._news = self._news, asyncio.Event()
        news.set()

    def refuse_where_needed(self) -> None:
        """Answer at every door nobody stands behind, and at no other."""
        for slot in self.slots:
            slot.refuser.set_refusing(not slot.post.is_serving)
        if self._public is not None and self._nginx is not None:
            self._public.set_refusing(not self._nginx.is_serving)

    def is_worker(self, post: Post) -> bool:
        """Whether it is a worker's post."""
        return post.kind.name == WorkerKind.name

    def running(self) -> dict[str, int]:
        """The workers that run: process ids by lane."""
        children = (c for slot in list(self.slots) for c in list(slot.post.children.values()))
        return {child.lane: child.pid for child in children if child.is_running}

    def children(self) -> list[Child]:
        """Everybody who runs."""
        return [child for post in self._posts() for child in post.children.values()]

    @property
    def alive(self) -> int:
        """Slots with a worker that is up."""
        return sum(slot.post.is_serving for slot in self.slots)

    @property
    def ready(self) -> int:
        """Slots with a worker that would serve a new client."""
        return sum(slot.post.is_ready for slot in self.slots)

    def readiness(self) -> Readiness:
        """Whether a client that comes now would be served."""
        reasons = {post.kind.lanes[0]: _state(post) for post in self._posts()}
        if self._valkey and not self._valkey.is_ready:
            return Readiness(False, f"valkey is not ready: {self._valkey.reason}", reasons)
        if not self.ready:
            first = self.slots[0].post.reason if self.slots else "none is started"
            return Readiness(False, f"no worker is ready: {first}", reasons)
        if self._nginx and not self._nginx.is_ready:
            return Readiness(False, f"nginx is not ready: {self._nginx.reason}", reasons)
        return Readiness(True, "", reasons)

    def capacity(self) -> int:
        """Connections that fit."""
        return connection_capacity(
            len(self.slots),
            file_limit=self._means.file_limit,
            connection_limit=self.config.client.connection_limit,
            door=self.nginx_settings().capacity if self._nginx else None,
        )

    def worker_addresses(self) -> list[str]:
        """Where the slots are reached."""
        return [
            address(slot.sock, host=reachable_host(slot.sock.getsockname()[0]))
            for slot in self.slots
        ]

    # --- changing ------------------------------------------------------------------------

    def use(self, config: Config) -> None:
        """Give workers that are started from now on another configuration.

        Sockets, store and places stay as they are.
        """
        broker = dataclasses.replace(config.broker, redis_urls=self.config.broker.redis_urls)
        before = self.nginx_settings() if self._nginx else None
        self.config = dataclasses.replace(config, broker=broker, server=self.config.server)
        for slot in self.slots:
            slot.kind.document = to_json(self.config)
        if self._nginx and self.nginx_settings() != before:
            # Its time-outs follow the pings.
            self._reload_nginx()

    async def roll(self) -> bool:
        """Replace the workers one by one; gives up at the first that cannot be replaced."""
        for slot in list(self.slots):
            if not await slot.post.roll():
                return False
        return True

    async def add_slot(self) -> None:
        """Add a worker; nginx follows when it is ready.

        Raises:
            ConfigError: if its port is not to be had.
        """
        sock = self._means.doors.add_slot()
        slot = self._slot(len(self.slots), sock)
        self._watch(slot.post.start())
        await self.until(lambda: slot.post.is_ready)
        self._reload_nginx()

    async def remove_slot(self) -> bool:
        """Remove the last worker, unless it is the only one; returns whether it was."""
        if len(self.slots) < 2:
            return False
        slot = self.slots.pop()
        slot.refuser.set_refusing(False)
        self._reload_nginx()
        slot.refuser.set_refusing(True)
        await slot.post.stop(self._grace())
        slot.refuser.close()
        self._means.doors.remove_slot()
        return True

    def _reload_nginx(self) -> None:
        if self._nginx_kind and self._nginx and self._nginx.current:
            self._nginx_kind.reload(self._nginx.current)

    # --- stopping ------------------------------------------------------------------------

    async def stop(self, grace: Grace) -> None:
        """Stop the workers, then nginx, then Valkey."""
        await asyncio.gather(*(slot.post.stop(grace) for slot in self.slots))
        for post in (self._nginx, self._valkey):
            if post:
                await post.stop(Grace(_SERVICE_GRACE_SECONDS))
        for refuser in (self._public, *(slot.refuser for slot in self.slots)):
            if refuser:
                refuser.close()


def _state(post: Post) -> str:
    if post.current is None:
        return "not started"
    return post.current.state
