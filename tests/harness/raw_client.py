"""A WebSocket client that may break every rule, and a check that what it did was counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

from tests.harness.cluster import Cluster
from tests.harness.waiting import until, until_async
from tests.harness.wire import TEXT, Wire, frame, open_wire

Json = dict[str, Any]
CONNECT = b'{"id":1,"connect":{}}'
# Short time limits, so that a test sees them pass, and small limits of size. The neighbour has to pong
# in time on a busy machine too.
STALE_AFTER, PING_EVERY, PONG_WITHIN = 1.0, 4.0, 3.0
STRICT_CONFIG: Json = {
    "client": {
        "stale_close_delay": STALE_AFTER,
        "ping_interval": PING_EVERY,
        "pong_timeout": PONG_WITHIN,
        "queue_max_size": 262144,
        "channel_limit": 4,
        # What is tested is that many commands are answered, and leave nothing behind.
        "command_rate_limit": 0,
    },
}


def text(document: object) -> bytes:
    return frame(TEXT, json.dumps(document).encode())


class RawClient:
    """A raw WebSocket and every document it received."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.documents: list[Json] = []
        self.wire: Wire

    async def __aenter__(self) -> Self:
        self.wire = await open_wire(self.port, on_message=self._message)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.wire.abort()

    def _message(self, opcode: int, payload: bytes) -> None:
        assert opcode == TEXT, "the server sends text frames in JSON mode"
        self.documents += [json.loads(line) for line in payload.split(b"\n") if line]

    async def answered(self, number: int, within: float = 5.0) -> Json:
        """Wait for the reply to a command."""

        def replies() -> list[Json]:
            return [document for document in self.documents if document.get("id") == number]

        await until(lambda: bool(replies()), within, f"a reply to command {number}")
        return replies()[0]

    async def connected(self) -> None:
        """Send a valid connect and wait for its reply."""
        self.wire.send_text(CONNECT)
        assert "connect" in await self.answered(1)

    async def closed(self, within: float = 10.0) -> int | None:
        """Wait for the end; returns the close code."""
        async with asyncio.timeout(within):
            await self.wire.ended.wait()
        if self.wire.close_code is not None and self.wire.close_code >= 3000:
            assert self.wire.close_reason, "an empty reason makes JS reconnect on terminal codes"
        return self.wire.close_code


async def total(cluster: Cluster, name: str, **labels: str) -> float:
    return (await cluster.metrics()).total(name, **labels)


class Counted:
    """Asserts that a series has grown by the end of the block; workers flush about once a second."""

    def __init__(self, cluster: Cluster, name: str, by: float = 1, **labels: str) -> None:
        self.cluster, self.name, self.by, self.labels = cluster, name, by, labels

    async def __aenter__(self) -> None:
        self.before = await total(self.cluster, self.name, **self.labels)

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        if error is not None:
            return

        async def has_grown() -> bool:
            now = await total(self.cluster, self.name, **self.labels)
            return now >= self.before + self.by

        await until_async(has_grown, 10, f"{self.name}{self.labels} grows by {self.by}")
