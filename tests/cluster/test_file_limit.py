"""A cluster with few file descriptors: clients are served, refused with 503 or wait, and it lives on."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.capabilities import without_resource_capability
from tests.harness.client import Client
from tests.harness.cluster import Cluster
from tests.harness.waiting import until_async
from tests.harness.wire import upgrade_request

FILES = 128
CLIENTS = 160
#: A client that has no answer after so long is waiting.
PATIENCE_SECONDS = 3.0
RETRY_AFTER = re.compile(r"(?im)^retry-after: (.*?)\r$")


class FewFiles(Cluster):
    """A cluster whose processes may open few files."""

    def command(self) -> list[str]:
        limited = ["prlimit", f"--nofile={FILES}:{FILES}"]
        return [*without_resource_capability(), *limited, *super().command()]


async def answer(sock: socket.socket) -> str:
    """The status of the answer to a handshake, "waits" for none yet, or why there is none.

    Behind a status other than 101 is the value of Retry-After, as in "503 1".
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await loop.sock_sendall(sock, upgrade_request("x", "/connection/websocket"))
            head = b""
            while b"\r\n\r\n" not in head:
                received = await loop.sock_recv(sock, 4096)
                if not received:
                    return "closed without an answer"
                head += received
    except TimeoutError:
        return "waits"
    except OSError as error:
        return type(error).__name__
    return " ".join([head.split(b" ", 2)[1].decode(), *RETRY_AFTER.findall(head.decode())])


@contextlib.asynccontextmanager
async def many_clients(port: int) -> AsyncIterator[Counter[str]]:
    """Open many connections at once, keep them, and count what is answered to their handshakes."""
    socks = []
    try:
        for _ in range(CLIENTS):
            sock = socket.create_connection(("127.0.0.1", port), 5)
            sock.setblocking(False)
            socks.append(sock)
        yield Counter(await asyncio.gather(*map(answer, socks)))
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("has_nginx", [True, False], ids=["nginx", "worker"])
async def test_clients_above_the_file_limit_get_503_or_wait(tmp_path: Path, has_nginx: bool):
    async with FewFiles(tmp_path / "run", workers=2, has_nginx=has_nginx) as cluster:
        port = cluster.client_port
        for _ in range(2):
            async with many_clients(port) as answers:
                print(answers)
                assert answers["101"] >= 16
                refused = answers["503 1"]
                assert answers["101"] + refused + answers["waits"] == CLIENTS, answers
                # Clients may wait in the queue of a worker; nginx accepts more than it passes on, and answers the rest.
                assert refused > 0 or not has_nginx
                assert (await cluster.get("/ready")).status == 200
        await serves(cluster, port)
        metrics = await cluster.metrics()
        assert metrics.total("app_worker_restarts_total") == 0
        assert cluster.log().count("\n") < 100
        if not has_nginx:
            assert metrics.total("app_connections_rejected_total", reason="file_limit") > 0


async def serves(cluster: Cluster, port: int) -> None:
    async def connects() -> bool:
        client = Client(port)
        with contextlib.suppress(Exception):
            await client.start()
            await client.close()
            return True
        return False

    await until_async(connects, 20, "it serves again")
