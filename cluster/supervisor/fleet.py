"""All services of a cluster (Valkey, one worker per slot, nginx) and their listeners.

Rules
- If a slot has no serving worker, or nginx does not run, the supervisor answers the connections
  of that listener with 503.
- nginx's upstreams are the slots. A new slot is added when its worker is ready, and a slot is
  removed before its worker drains. Until that worker has ended the slot is `leaving`: a stop, which
  cancels the removal, waits for it like for the others.
- nginx reaches a slot over its unix socket; over its port if it has none.
- No worker is started while the embedded Valkey is not ready.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cluster import log
from cluster.addresses import Network, trusted_networks
from cluster.admin import Readiness
from cluster.children.backoff import RestartPolicy
from cluster.children.child import Child, ChildSpec, Grace
from cluster.children.listeners import (
    Listeners,
    UnavailableResponder,
    address,
    reachable_address,
)
from cluster.children.local_sockets import LocalSockets
from cluster.children.nginx import NginxSettings, NginxSpec, processes_for, unprivileged_user
from cluster.children.process import Reaper
from cluster.children.valkey import ValkeySpec
from cluster.children.worker_child import COMMAND, WorkerSpec
from cluster.config import Config, to_json
from cluster.supervisor.limits import admin_places, connection_capacity
from cluster.supervisor.paths import Paths
from cluster.supervisor.service import Service, ServiceListener

_SERVICE_GRACE_SECONDS: Final = 8.0
_ADD_TIMEOUT_SECONDS: Final = 60.0
_LOG_LINK: Final = "log"


@dataclass(frozen=True, slots=True)
class Resources:
    """Sockets, directories, programs and limits that a fleet uses.

    Attributes:
        valkey: path of the embedded Valkey's program; empty without one.
        nginx: path of the embedded nginx's program; empty without one.
        file_limit: open files allowed per process.
        instance: `host:port` of the admin port, a label of logs.
        local_sockets: the unix sockets over which nginx reaches the workers; None for none.
        command: the command that starts a worker, without its arguments.
    """

    listeners: Listeners
    paths: Paths
    valkey: str
    nginx: str
    file_limit: int
    instance: str
    policy: RestartPolicy
    local_sockets: LocalSockets | None = None
    command: Sequence[str] = COMMAND


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker slot: its sockets, its service, and the responder that answers without a worker."""

    sock: socket.socket
    local: socket.socket | None
    spec: WorkerSpec
    service: Service
    responder: UnavailableResponder


class Fleet:
    """Starts, rolls and stops all services.

    Args:
        config: the configuration; `broker.redis_urls` is replaced if the Valkey is embedded.
        resources: sockets, directories, programs and limits.
        reaper: reports exits of processes.
        listener: called on every change of a child.
        watch: called with the task that runs a service, to stop the program if the task fails.
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
        self.leaving: list[Slot] = []
        self._resources = resources
        self._reaper = reaper
        self._listener = listener
        self._watch = watch
        self._change = asyncio.Event()
        self._has_started = self._has_reached_store = False
        self._log = log.get_logger()
        self._valkey = self._make_valkey() if resources.valkey else None
        public = resources.listeners.public
        self._public_responder = UnavailableResponder(public) if public else None
        self._nginx_spec = self._make_nginx_spec() if resources.nginx else None
        self._nginx = self._make_service(self._nginx_spec) if self._nginx_spec else None
        self.update_responders()

    # --- services ------------------------------------------------------------------------

    def _make_service(
        self,
        spec: ChildSpec,
        wait_for_dependencies: Callable[[], Coroutine[Any, Any, None]] | None = None,
        is_replaceable: Callable[[], bool] = lambda: False,
    ) -> Service:
        return Service(
            spec,
            reaper=self._reaper,
            policy=self._resources.policy,
            listener=self._listener,
            grace=self._new_grace,
            wait_for_dependencies=wait_for_dependencies,
            is_replaceable=is_replaceable,
        )

    def _new_grace(self) -> Grace:
        return Grace(self.config.shutdown.stop_grace_period)

    def _make_valkey(self) -> Service:
        paths = self._resources.paths
        spec = ValkeySpec(
            self._resources.valkey,
            data_dir=paths.directory("valkey"),
            socket_path=paths.directory("valkey", below_run=True) / "valkey.sock",
            lock_fd=paths.lock_fd,
            max_memory=self.config.broker.valkey_maxmemory,
        )
        broker = dataclasses.replace(self.config.broker, redis_urls=(spec.url,))
        self.config = dataclasses.replace(self.config, broker=broker)
        return self._make_service(spec)

    def _make_nginx_spec(self) -> NginxSpec:
        paths, public = self._resources.paths, self._resources.listeners.public
        assert public is not None
        run_dir = paths.directory("nginx", below_run=True)
        # No name of a data directory needs an escape in this link; nginx knows none for a `$`.
        (run_dir / _LOG_LINK).symlink_to(paths.access_log.parent)
        return NginxSpec(
            self._resources.nginx,
            run_dir=run_dir,
            listen_fd=public.fileno(),
            lock_fd=paths.lock_fd,
            settings=self.nginx_settings,
        )

    def _append_slot(self, number: int, sock: socket.socket) -> Slot:
        local_sockets = self._resources.local_sockets
        local = local_sockets.open(number) if local_sockets else None
        spec = WorkerSpec(
            number,
            listen_fd=sock.fileno(),
            local_fd=local.fileno() if local else None,
            document=to_json(self.config),
            instance=self._resources.instance,
            metrics_dir=self._resources.paths.metrics_dir,
            command=self._resources.command,
        )
        sockets = (sock, local) if local else (sock,)
        spec.waits_for_store = self._has_reached_store
        service = self._make_service(spec, self._wait_for_store, self._others_serve)
        slot = Slot(sock, local, spec, service, UnavailableResponder(*sockets))
        self.slots.append(slot)
        slot.responder.set_active(True)
        return slot

    def nginx_settings(self) -> NginxSettings:
        """Return the settings of nginx for the current slots."""
        listeners, paths = self._resources.listeners, self._resources.paths
        assert listeners.public is not None
        count = len(self.slots)
        return NginxSettings(
            listen=address(listeners.public),
            workers=[
                address(slot.local) if slot.local else reachable_address(slot.sock)
                for slot in self.slots
            ],
            admin=reachable_address(listeners.admin),
            trusted_proxies=[str(network) for network in self.trusted_proxies],
            admin_connections=self.admin_places // 2,
            connections_per_address=self.config.client.connection_limit_per_address,
            connection_rate_per_address=self.config.client.connection_rate_limit_per_address,
            ping_interval_seconds=self.config.client.ping_interval,
            file_limit=self._resources.file_limit,
            processes=processes_for(count),
            user=unprivileged_user(),
            access_log=f"{_LOG_LINK}/{paths.access_log.name}",
            probe_socket=str(paths.directory("nginx", below_run=True) / "probe.sock"),
            instance=self._resources.instance,
        )

    # --- starting ------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all services and wait until they are ready."""
        if self._valkey:
            self._watch(self._valkey.start())
            await self._wait_for_store()
        for number, sock in enumerate(self._resources.listeners.slots):
            self._watch(self._append_slot(number, sock).service.start())
        if self._nginx:
            self._watch(self._nginx.start())
        await self._wait_until(lambda: all(service.is_ready for service in self._services()))
        self._has_started = True

    def _others_serve(self) -> bool:
        """Whether the cluster has started, and still serves without the worker that does not boot."""
        return self._has_started and self.alive > 0

    async def _wait_for_store(self) -> None:
        valkey = self._valkey
        if valkey is not None:
            await self._wait_until(lambda: valkey.is_ready)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is checked whenever a child has changed."""
        while not condition():
            change = self._change
            await change.wait()

    def _services(self) -> list[Service]:
        others = [service for service in (self._valkey, self._nginx) if service]
        return [*others, *(slot.service for slot in self.all_slots())]

    def all_slots(self) -> list[Slot]:
        """Return the slots, and then those that are being removed."""
        return [*self.slots, *self.leaving]

    # --- state ---------------------------------------------------------------------------

    def child_changed(self) -> None:
        """Note that a child has changed: update the responders and wake the waiting tasks."""
        self.update_responders()
        if self.ready and not self._has_reached_store:
            # From now on a failure to reach the store is an outage, not a wrong URL.
            self._has_reached_store = True
            for slot in self.slots:
                slot.spec.waits_for_store = True
        # A new event per change, so that no task misses one because another task cleared it.
        change, self._change = self._change, asyncio.Event()
        change.set()

    def update_responders(self) -> None:
        """Answer with 503 on exactly the listeners that have no serving process."""
        for slot in self.all_slots():
            slot.responder.set_active(not slot.service.is_serving)
        if self._public_responder is not None and self._nginx is not None:
            self._public_responder.set_active(not self._nginx.is_serving)

    def is_worker(self, service: Service) -> bool:
        """Whether the service runs a worker."""
        return service.spec.name == WorkerSpec.name

    def running(self) -> dict[str, int]:
        """Return the process ids of the running workers, by lane."""
        children = (c for slot in self.all_slots() for c in list(slot.service.children.values()))
        return {child.lane: child.pid for child in children if child.is_running}

    def children(self) -> list[Child]:
        """Return all children."""
        return [child for service in self._services() for child in service.children.values()]

    @property
    def alive(self) -> int:
        """Number of slots with a worker that accepts connections."""
        return sum(slot.service.is_serving for slot in self.slots)

    @property
    def ready(self) -> int:
        """Number of slots with a worker that would serve a new client."""
        return sum(slot.service.is_ready for slot in self.slots)

    def readiness(self) -> Readiness:
        """Return whether a new client would be served, or the first reason why not."""
        states = {service.spec.lanes[0]: _state(service) for service in self._services()}
        if self._valkey and not self._valkey.is_ready:
            return Readiness(False, f"valkey is not ready: {self._valkey.reason}", states)
        if not self.ready:
            first = self.slots[0].service.reason if self.slots else "none is started"
            return Readiness(False, f"no worker is ready: {first}", states)
        if self._nginx and not self._nginx.is_ready:
            return Readiness(False, f"nginx is not ready: {self._nginx.reason}", states)
        return Readiness(True, "", states)

    @property
    def trusted_proxies(self) -> tuple[Network, ...]:
        """The networks of `server.trusted_proxies`, and loopback."""
        return trusted_networks(self.config.server.trusted_proxies)

    @property
    def admin_places(self) -> int:
        """How many connections the admin port may hold."""
        limit = self.config.admin.connection_limit
        return admin_places(limit, file_limit=self._resources.file_limit)

    def capacity(self) -> int:
        """Return the number of client connections the cluster can hold."""
        return connection_capacity(
            len(self.slots),
            file_limit=self._resources.file_limit,
            connection_limit=self.config.client.connection_limit,
            nginx_capacity=self.nginx_settings().capacity if self._nginx else None,
        )

    def worker_addresses(self) -> list[str]:
        """Return `host:port` of every slot."""
        return [reachable_address(slot.sock) for slot in self.slots]

    # --- changing ------------------------------------------------------------------------

    def apply_config(self, config: Config) -> None:
        """Use another configuration for workers started from now on.

        Sockets, store and directories do not change.
        """
        broker = dataclasses.replace(config.broker, redis_urls=self.config.broker.redis_urls)
        before = self.nginx_settings() if self._nginx else None
        self.config = dataclasses.replace(config, broker=broker, server=self.config.server)
        for slot in self.slots:
            slot.spec.document = to_json(self.config)
        if self._nginx and self.nginx_settings() != before:
            # The timeouts of nginx depend on the ping interval.
            self._reload_nginx()

    async def roll(self) -> bool:
        """Replace the workers one by one; stops and returns False at the first failure."""
        for slot in list(self.slots):
            if not await slot.service.roll():
                return False
        return True

    async def add_slot(self) -> None:
        """Add a worker; nginx uses it once it is ready, or at the latest after a minute.

        Until it is ready its responder sends nginx on to the other workers.

        Raises:
            ConfigError: if its port cannot be bound.
        """
        sock = self._resources.listeners.add_slot()
        slot = self._append_slot(len(self.slots), sock)
        self._watch(slot.service.start())
        try:
            async with asyncio.timeout(_ADD_TIMEOUT_SECONDS):
                await self._wait_until(lambda: slot.service.is_ready)
        except TimeoutError:
            # Other operations wait for this one, among them the roll that may be the remedy.
            self._log.error("worker_add_unfinished", reason=slot.service.reason)
        self._reload_nginx()

    async def remove_slot(self) -> bool:
        """Remove the last worker unless it is the only one; returns whether one was removed."""
        if len(self.slots) < 2:
            return False
        slot = self.slots.pop()
        self.leaving.append(slot)
        slot.responder.set_active(False)
        self._reload_nginx()
        slot.responder.set_active(True)
        await slot.service.stop(self._new_grace())
        self.leaving.remove(slot)
        slot.responder.close()
        self._resources.listeners.remove_slot()
        if self._resources.local_sockets:
            self._resources.local_sockets.close(len(self.slots))
        return True

    def _reload_nginx(self) -> None:
        if self._nginx_spec and self._nginx and self._nginx.current:
            try:
                self._nginx_spec.reload(self._nginx.current)
            except OSError as error:
                self._log.error("nginx_reload_failed", reason=str(error))

    def reopen_logs(self) -> None:
        """Have workers and nginx open their log files again."""
        for slot in self.all_slots():
            for child in slot.service.children.values():
                # Until it has booted, the signal would kill it.
                if child.booted_at is not None:
                    child.signal(signal.SIGUSR1)
        if self._nginx_spec and self._nginx and self._nginx.is_serving and self._nginx.current:
            try:
                self._nginx_spec.reopen_logs(self._nginx.current)
            except OSError as error:
                self._log.error("nginx_reload_failed", reason=str(error))

    # --- stopping ------------------------------------------------------------------------

    async def stop(self, grace: Grace) -> None:
        """Stop the workers, those of slots that are leaving too, then nginx, then Valkey."""
        slots = self.all_slots()
        await asyncio.gather(*(slot.service.stop(grace) for slot in slots))
        for service in (self._nginx, self._valkey):
            if service:
                await service.stop(Grace(_SERVICE_GRACE_SECONDS))
        for responder in (self._public_responder, *(slot.responder for slot in slots)):
            if responder:
                responder.close()
        if self._resources.local_sockets:
            self._resources.local_sockets.close_all()


def _state(service: Service) -> str:
    if service.current is None:
        return "not started"
    return service.current.state
