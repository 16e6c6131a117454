"""Everybody who is kept running: Valkey, one worker per slot, nginx; and their listeners.

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
from cluster.children.backoff import RestartPolicy
from cluster.children.child import Child, ChildSpec, Grace
from cluster.children.listeners import Listeners, Refuser, address, reachable_host
from cluster.children.nginx import NginxSettings, NginxSpec, unprivileged_user
from cluster.children.process import Reaper
from cluster.children.valkey import ValkeySpec
from cluster.children.worker_child import COMMAND, WorkerSpec
from cluster.config import Config, to_json
from cluster.supervisor.limits import connection_capacity
from cluster.supervisor.paths import Paths
from cluster.supervisor.service import Service, ServiceListener

_SERVICE_GRACE_SECONDS: Final = 8.0
_MOST_NGINX_PROCESSES: Final = 8


@dataclass(frozen=True, slots=True)
class Resources:
    """What a fleet works with.

    Attributes:
        valkey: path of the embedded Valkey; empty without one.
        nginx: path of the embedded nginx; empty without one.
        file_limit: files a process may open.
        instance: `host:port` of the operator's door, a label of logs.
        command: starts a worker.
    """

    listeners: Listeners
    paths: Paths
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
    spec: WorkerSpec
    service: Service
    refuser: Refuser


class Fleet:
    """Starts, follows, rolls and stops everybody.

    Args:
        config: the configuration; its store is the embedded one's once that is started.
        resources: sockets, paths, programs.
        reaper: who hears of exits.
        listener: told of every change of a child.
        watch: takes over the task that keeps a service.
    """

    def __init__(
        self,
        config: Config,
        resources: Resources,
        *,
        reaper: Reaper,
        listener: ServiceListener,
        watch: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.config = config
        self.slots: list[Slot] = []
        self._resources = resources
        self._reaper = reaper
        self._listener = listener
        self._watch = watch
        self._news = asyncio.Event()
        self._log = log.get_logger()
        self._valkey = self._valkey_service() if resources.valkey else None
        self._public = Refuser(resources.listeners.public) if resources.listeners.public else None
        self._nginx_spec = self._make_nginx() if resources.nginx else None
        self._nginx = self._service(self._nginx_spec) if self._nginx_spec else None
        self.refuse_where_needed()

    # --- making service --------------------------------------------------------------------

    def _service(
        self, spec: ChildSpec, needed: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> Service:
        return Service(
            spec,
            reaper=self._reaper,
            policy=self._resources.policy,
            listener=self._listener,
            grace=self._grace,
            needed=needed,
        )

    def _grace(self) -> Grace:
        return Grace(self.config.shutdown.stop_grace_period)

    def _valkey_service(self) -> Service:
        paths = self._resources.paths
        spec = ValkeySpec(
            self._resources.valkey,
            data_dir=paths.made("valkey"),
            socket_path=paths.made("valkey", below_run=True) / "valkey.sock",
            lock_fd=paths.lock_fd,
        )
        broker = dataclasses.replace(self.config.broker, redis_urls=(spec.url,))
        self.config = dataclasses.replace(self.config, broker=broker)
        return self._service(spec)

    def _make_nginx(self) -> NginxSpec:
        paths, public = self._resources.paths, self._resources.listeners.public
        assert public is not None
        return NginxSpec(
            self._resources.nginx,
            run_dir=paths.made("nginx", below_run=True),
            listen_fd=public.fileno(),
            lock_fd=paths.lock_fd,
            settings=self.nginx_settings,
        )

    def _slot(self, number: int, sock: socket.socket) -> Slot:
        spec = WorkerSpec(
            number,
            listen_fd=sock.fileno(),
            document=to_json(self.config),
            instance=self._resources.instance,
            metrics_dir=self._resources.paths.metrics_dir,
            command=self._resources.command,
        )
        slot = Slot(sock, spec, self._service(spec, self._store_ready), Refuser(sock))
        self.slots.append(slot)
        slot.refuser.set_refusing(True)
        return slot

    def nginx_settings(self) -> NginxSettings:
        """What nginx's configuration says for the slots of this moment."""
        listeners, paths = self._resources.listeners, self._resources.paths
        assert listeners.public is not None
        host = reachable_host(listeners.public.getsockname()[0])
        count = len(self.slots)
        return NginxSettings(
            listen=address(listeners.public),
            workers=self.worker_addresses(),
            admin=address(listeners.admin, host=host),
            ping_interval_seconds=self.config.client.ping_interval,
            file_limit=self._resources.file_limit,
            processes=max(1, min(_MOST_NGINX_PROCESSES, count)),
            user=unprivileged_user(),
            access_log=str(paths.access_log),
            probe_socket=str(paths.made("nginx", below_run=True) / "probe.sock"),
            instance=self._resources.instance,
        )

    # --- starting ------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everybody and wait until all are ready."""
        if self._valkey:
            self._watch(self._valkey.start())
            await self._store_ready()
        for number, sock in enumerate(self._resources.listeners.slots):
            self._watch(self._slot(number, sock).service.start())
        if self._nginx:
            self._watch(self._nginx.start())
        await self.until(lambda: all(service.is_ready for service in self._services()))

    async def _store_ready(self) -> None:
        valkey = self._valkey
        if valkey is not None:
            await self.until(lambda: valkey.is_ready)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; looked at whenever a child has changed."""
        while not holds():
            news = self._news
            await news.wait()

    def _services(self) -> list[Service]:
        others = [service for service in (self._valkey, self._nginx) if service]
        return [*others, *(slot.service for slot in self.slots)]

    # --- what is true now ----------------------------------------------------------------

    def changed(self) -> None:
        """A child has changed: let listeners follow, and wake whoever waits."""
        self.refuse_where_needed()
        if self.ready:
            # The store has been reached: from now on its absence is an outage, not a wrong address.
            for slot in self.slots:
                slot.spec.is_patient = True
        # A fresh event per change: nobody can clear it before another has seen it.
        news, self._news = self._news, asyncio.Event()
        news.set()

    def refuse_where_needed(self) -> None:
        """Answer at every door nobody stands behind, and at no other."""
        for slot in self.slots:
            slot.refuser.set_refusing(not slot.service.is_serving)
        if self._public is not None and self._nginx is not None:
            self._public.set_refusing(not self._nginx.is_serving)

    def is_worker(self, service: Service) -> bool:
        """Whether it is a worker's service."""
        return service.spec.name == WorkerSpec.name

    def running(self) -> dict[str, int]:
        """The workers that run: process ids by lane."""
        children = (c for slot in list(self.slots) for c in list(slot.service.children.values()))
        return {child.lane: child.pid for child in children if child.is_running}

    def children(self) -> list[Child]:
        """Everybody who runs."""
        return [child for service in self._services() for child in service.children.values()]

    @property
    def alive(self) -> int:
        """Slots with a worker that is up."""
        return sum(slot.service.is_serving for slot in self.slots)

    @property
    def ready(self) -> int:
        """Slots with a worker that would serve a new client."""
        return sum(slot.service.is_ready for slot in self.slots)

    def readiness(self) -> Readiness:
        """Whether a client that comes now would be served."""
        reasons = {service.spec.lanes[0]: _state(service) for service in self._services()}
        if self._valkey and not self._valkey.is_ready:
            return Readiness(False, f"valkey is not ready: {self._valkey.reason}", reasons)
        if not self.ready:
            first = self.slots[0].service.reason if self.slots else "none is started"
            return Readiness(False, f"no worker is ready: {first}", reasons)
        if self._nginx and not self._nginx.is_ready:
            return Readiness(False, f"nginx is not ready: {self._nginx.reason}", reasons)
        return Readiness(True, "", reasons)

    def capacity(self) -> int:
        """Connections that fit."""
        return connection_capacity(
            len(self.slots),
            file_limit=self._resources.file_limit,
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

        Sockets, store and paths stay as they are.
        """
        broker = dataclasses.replace(config.broker, redis_urls=self.config.broker.redis_urls)
        before = self.nginx_settings() if self._nginx else None
        self.config = dataclasses.replace(config, broker=broker, server=self.config.server)
        for slot in self.slots:
            slot.spec.document = to_json(self.config)
        if self._nginx and self.nginx_settings() != before:
            # Its time-outs follow the pings.
            self._reload_nginx()

    async def roll(self) -> bool:
        """Replace the workers one by one; gives up at the first that cannot be replaced."""
        for slot in list(self.slots):
            if not await slot.service.roll():
                return False
        return True

    async def add_slot(self) -> None:
        """Add a worker; nginx follows when it is ready.

        Raises:
            ConfigError: if its port is not to be had.
        """
        sock = self._resources.listeners.add_slot()
        slot = self._slot(len(self.slots), sock)
        self._watch(slot.service.start())
        await self.until(lambda: slot.service.is_ready)
        self._reload_nginx()

    async def remove_slot(self) -> bool:
        """Remove the last worker, unless it is the only one; returns whether it was."""
        if len(self.slots) < 2:
            return False
        slot = self.slots.pop()
        slot.refuser.set_refusing(False)
        self._reload_nginx()
        slot.refuser.set_refusing(True)
        await slot.service.stop(self._grace())
        slot.refuser.close()
        self._resources.listeners.remove_slot()
        return True

    def _reload_nginx(self) -> None:
        if self._nginx_spec and self._nginx and self._nginx.current:
            self._nginx_spec.reload(self._nginx.current)

    # --- stopping ------------------------------------------------------------------------

    async def stop(self, grace: Grace) -> None:
        """Stop the workers, then nginx, then Valkey."""
        await asyncio.gather(*(slot.service.stop(grace) for slot in self.slots))
        for service in (self._nginx, self._valkey):
            if service:
                await service.stop(Grace(_SERVICE_GRACE_SECONDS))
        for refuser in (self._public, *(slot.refuser for slot in self.slots)):
            if refuser:
                refuser.close()


def _state(service: Service) -> str:
    if service.current is None:
        return "not started"
    return service.current.state
