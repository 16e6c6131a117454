"""A user that makes mistakes on purpose; each is expected to be refused, and one that is not refused is a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from locust import task
from websocket import WebSocketException

from loadtest.centrifuge_client import (
    CentrifugeClient,
    CommandRefused,
    CommandUnanswered,
    ConnectionClosed,
)
from loadtest.users.member import Member

_FLOOD: Final = 200


class NotRefused(Exception):
    """A mistake was not refused."""


class ErrorMaker(Member):
    """Makes mistakes of one kind, or of all in turn; all together make `--rate` a second."""

    default_rate = 10.0
    _turn = 0

    @task
    def err(self) -> None:
        self.rest(self.pace_seconds())
        if self.load_context.is_ending:
            return
        kind = self.load_context.options.error_kind
        if kind == "all":
            kinds = sorted(KINDS)
            kind = kinds[self._turn % len(kinds)]
            self._turn += 1
        began = time.perf_counter()
        try:
            KINDS[kind](self)
        except NotRefused as error:
            self.load_context.measured(f"expected {kind}", time.perf_counter() - began, error)
        except (OSError, WebSocketException, CommandUnanswered):
            # The cluster does not answer; whether it refuses is unknown.
            return
        else:
            self.load_context.expected(kind, time.perf_counter() - began)

    def _refuses(self, method: str, params: dict[str, object]) -> None:
        try:
            self.client.ask(method, params)
        except CommandRefused:
            return
        raise NotRefused(f"{method} was not refused")

    def rpc(self) -> None:
        """A procedure that does not exist (108)."""
        self._refuses("rpc", {"method": "not-there", "data": {}})

    def channel(self) -> None:
        """A channel of a namespace that does not exist (102)."""
        self._refuses("subscribe", {"channel": "not-there:channel"})

    def permission(self) -> None:
        """A private channel without a token (103)."""
        self._refuses("subscribe", {"channel": "$not-mine"})

    def frame(self) -> None:
        """A frame that is not JSON: the connection is closed (3501)."""
        self._closes(b"this is no JSON")

    def token(self) -> None:
        """A token with an invalid signature: the connection is closed (3500), or the token is ignored."""
        client = CentrifugeClient(self.url, measured=_unmeasured, token="not.a.token")  # noqa: S106 - it is none
        try:
            client.connect_once()
        except (ConnectionClosed, CommandRefused):
            return
        finally:
            client.close()
        if self.load_context.token:
            # A cluster that requires tokens.
            raise NotRefused("a token with an invalid signature was accepted")

    def flood(self) -> None:
        """Hundreds of commands in one frame: all are answered, or the connection is closed."""
        line = b'{"id":1000000,"rpc":{"method":"not-there","data":{}}}'
        client = self._another()
        try:
            client.send_raw(b"\n".join([line] * _FLOOD))
            count = client.read_replies(_FLOOD)
        except ConnectionClosed:
            return
        finally:
            client.close()
        if count < _FLOOD:
            raise NotRefused(f"{count} of {_FLOOD} commands were answered")

    def _closes(self, payload: bytes) -> None:
        client = self._another()
        client.send_raw(payload)
        try:
            client.read_frames(3)
        except ConnectionClosed:
            return
        finally:
            client.close()
        raise NotRefused("the connection was not closed")

    def _another(self) -> CentrifugeClient:
        """Another connection: closing it must not close this user's own."""
        client = CentrifugeClient(self.url, measured=_unmeasured, token=self.load_context.token)
        try:
            client.connect_once()
        except (ConnectionClosed, CommandRefused) as error:
            raise CommandUnanswered(str(error)) from None
        return client


def _unmeasured(name: str, seconds: float, error: Exception | None) -> None:
    """Report nothing: errors are part of the mistake."""


KINDS: Final[dict[str, Callable[[ErrorMaker], None]]] = {
    "rpc": ErrorMaker.rpc,
    "channel": ErrorMaker.channel,
    "permission": ErrorMaker.permission,
    "frame": ErrorMaker.frame,
    "token": ErrorMaker.token,
    "flood": ErrorMaker.flood,
}
