"""One channel's record in the store is broken, so that publishing to it fails and nothing else does."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import orjson
from websocket import WebSocketException, create_connection

from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector

_SECONDS: Final = 10.0


def corrupt(injector: FaultInjector, channel: str) -> None:
    """Put a text where the channel's record belongs, until it is mended.

    Raises:
        CannotProvoke: the store does not take it.
    """
    key, port = f"{{ws:{channel}}}.meta", injector.environment.store_port

    def heal() -> None:
        _ask(port, "DEL", key)

    injector.afterwards(heal)
    answer = _ask(port, "SET", key, "corrupt")
    if answer != b"+OK\r\n":
        raise CannotProvoke(f"the store answers {answer!r}")


def _ask(port: int, *words: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as store_proxy:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)
        store_proxy.sendall(b"*%d\r\n%s" % (len(words), parts))
        return store_proxy.recv(4096)


def publish(url: str, channel: str) -> None:
    """Publish once, and take the refusal.

    Raises:
        CannotProvoke: it was not refused, or there was no answer.
    """
    try:
        store_proxy = create_connection(url, timeout=_SECONDS, suppress_origin=True)
        try:
            store_proxy.send(orjson.dumps({"id": 1, "connect": {}}).decode())
            store_proxy.recv()
            store_proxy.send(
                orjson.dumps({"id": 2, "publish": {"channel": channel, "data": 1}}).decode()
            )
            while True:
                for line in str(store_proxy.recv()).splitlines():
                    reply = orjson.loads(line)
                    if reply.get("id") == 2:
                        if "error" not in reply:
                            raise CannotProvoke("the corrupt channel accepts publications")
                        return
        finally:
            with suppress(OSError, WebSocketException):
                store_proxy.close()
    except (OSError, WebSocketException) as error:
        raise CannotProvoke(f"the publisher was cut off: {error}") from None
