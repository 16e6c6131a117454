"""A connection that asks the attacked worker for its longest turn, and fills a history."""

import json
import socket
from types import TracebackType
from typing import Any, Self

from benchmarks.attacks.kinds import CONNECT, HANDSHAKE, KEPT_CHANNEL
from benchmarks.load.wire import FrameReader, text_frame
from benchmarks.processes import HOST, ServerFailed

_TIMEOUT_SECONDS = 30.0
_PUBLICATION_BYTES = 1_000


class Control:
    """One connected client, used from one thread."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), _TIMEOUT_SECONDS)
        self._reader = FrameReader()
        self._number = 1
        self._socket.sendall(HANDSHAKE + CONNECT)
        self._reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._socket.close()

    def longest_turn(self) -> dict[str, float]:
        """Return milliseconds of CPU and wall time since the last call."""
        reply = self._ask("rpc", {"method": "longest_turn"})
        turn: dict[str, float] = reply["rpc"]["data"]
        return turn

    def fill_history(self, publications: int) -> None:
        for _ in range(publications):
            self.publish(KEPT_CHANNEL, "x" * _PUBLICATION_BYTES)

    def publish(self, channel: str, data: str) -> None:
        self._ask("publish", {"channel": channel, "data": data})

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        command = json.dumps({"id": self._number, method: params})
        self._socket.sendall(text_frame(command.encode()))
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        while data := self._socket.recv(1 << 16):
            for message in self._reader.feed(data):
                for line in message.splitlines():
                    reply: dict[str, Any] = json.loads(line)
                    if reply.get("id") == self._number:
                        return reply
        raise ServerFailed("the worker closed the connection that controls it")
