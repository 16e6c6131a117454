"""HighAPIErrorRate: a backend has a key that was taken away."""

from __future__ import annotations

import http.client
from typing import Final
from urllib.parse import urlsplit

from loadtest.drilling.drill import MONITORING, SERVICE, Component, Drill
from loadtest.drilling.environment.cluster import API_KEY
from loadtest.drilling.faults.injector import CannotProvoke, FaultInjector

_EVERY_SECONDS: Final = 1.0
_WITHIN_SECONDS: Final = 10.0
_BODY: Final = b'{"channel":"drill-api","data":{}}'
_OLD_KEY: Final = "a key that was taken away"


def _publish(injector: FaultInjector, key: str, expected: int) -> None:
    address = urlsplit(injector.environment.addresses.websocket)
    connection = http.client.HTTPConnection(
        str(address.hostname), address.port, timeout=_WITHIN_SECONDS
    )
    try:
        connection.request("POST", "/api/publish", _BODY, {"X-API-Key": key})
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != expected:
        raise CannotProvoke(f"the server API answers {status}, not {expected}")


def provoke(injector: FaultInjector) -> None:
    injector.pulse(lambda: _publish(injector, _OLD_KEY, 401), _EVERY_SECONDS)


def below(injector: FaultInjector) -> None:
    injector.pulse(lambda: _publish(injector, API_KEY, 200), _EVERY_SECONDS)


DRILL = Drill(
    alert="HighAPIErrorRate",
    breaks="a backend publishes once a second with a key that was taken away",
    undo="it ends",
    provoke=provoke,
    fires_seconds=420,
    resolves_seconds=330,
    fixed_seconds=5,
    affects=frozenset({Component.API}),
    needs=MONITORING | SERVICE,
    below=below,
    below_breaks="a backend published once a second with its key",
    below_seconds=120,
)
