"""TokenRefreshFailing: what refreshes the tokens signs them with another key."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

import jwt
import orjson
from websocket import WebSocket, WebSocketException, create_connection

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.cluster import TOKEN_KEY
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector

# 40 a minute; below one a second, of which HighClientErrorRate would be the consequence.
_EVERY_SECONDS: Final = 1.5
_WITHIN_SECONDS: Final = 10.0
_VALID_SECONDS: Final = 3600
_OTHER_KEY: Final = "another-key-another-key-another-key-another"


def _token(key: str) -> str:
    return jwt.encode({"sub": "drill", "exp": int(time.time()) + _VALID_SECONDS}, key, "HS256")


def _say(connection: WebSocket, number: int, method: str, token: str) -> dict[str, Any]:
    """The reply to a command; empty if the server closes the connection instead."""
    command = {"id": number, method: {"token": token}}
    connection.send(orjson.dumps(command).decode())
    while line := str(connection.recv()):
        for text in line.splitlines():
            reply: dict[str, Any] = orjson.loads(text)
            if reply.get("id") == number:
                return reply
    return {}


def _fail_to_refresh(url: str) -> None:
    """Connect with a valid token, and refresh it with one that is not.

    Raises:
        CannotProvoke: the first is not accepted, or the second is.
    """
    connection = create_connection(url, timeout=_WITHIN_SECONDS, suppress_origin=True)
    try:
        if "connect" not in _say(connection, 1, "connect", _token(TOKEN_KEY)):
            raise CannotProvoke("a valid token is not accepted")
        if "refresh" in _say(connection, 2, "refresh", _token(_OTHER_KEY)):
            raise CannotProvoke("a token of another key is accepted")
    except (OSError, WebSocketException) as error:
        raise CannotProvoke(f"the client was disconnected: {error}") from None
    finally:
        with suppress(OSError, WebSocketException):
            connection.close()


def provoke(injector: FaultInjector) -> None:
    url = injector.environment.addresses.websocket
    injector.pulse(lambda: _fail_to_refresh(url), _EVERY_SECONDS)


DRILL = Drill(
    alert="TokenRefreshFailing",
    breaks="every 1.5 seconds a client refreshes its token with one that is signed with another key",
    undo="no client does so any more",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    fixed_seconds=5,
    affects=frozenset({Component.CLIENT_FAULTS}),
    needs=MONITORING | SERVICE,
)
