"""Corrupts the record of one channel in the store, so that only publishing to that channel fails."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import orjson
from websocket import WebSocketException, create_connection

from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector

_SECONDS: Final = 10.0


def corrupt(injector: FaultInjector, channel: str) -> None:
    """Replace the record of a channel by a string, until the undo.

    Raises:
        CannotProvoke: if the store refuses it.
    """
    key, port = f"{{ws:0:c:{channel}}}.meta", injector.environment.store_port

    def remove() -> None:
        _ask(port, "DEL", key)

    injector.afterwards(remove)
    answer = _ask(port, "SET", key, "corrupt")
    if answer != b"+OK\r\n":
        raise CannotProvoke(f"the store answers {answer!r}")


def _ask(port: int, *words: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
        arguments = b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
        connection.sendall(b"*%d\r\n%s" % (len(words), arguments))
        return connection.recv(4096)


def publish(url: str, channel: str) -> None:
    """Publish once, and expect an error.

    Raises:
        CannotProvoke: if there was no error, or no reply.
    """
    try:
        connection = create_connection(url, timeout=_SECONDS, suppress_origin=True)
        try:
            connection.send(orjson.dumps({"id": 1, "connect": {}}).decode())
            connection.recv()
            connection.send(
                orjson.dumps({"id": 2, "publish": {"channel": channel, "data": 1}}).decode()
            )
            while True:
                for line in str(connection.recv()).splitlines():
                    reply = orjson.loads(line)
                    if reply.get("id") == 2:
                        if "error" not in reply:
                            raise CannotProvoke("the corrupt channel accepts publications")
                        return
        finally:
            with suppress(OSError, WebSocketException):
                connection.close()
    except (OSError, WebSocketException) as error:
        raise CannotProvoke(f"the publisher was disconnected: {error}") from None
