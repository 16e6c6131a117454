"""Two workers of one store, and calls of their server API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from cluster.config import ApiKeyConfig, ChannelConfig, Config, HttpApiConfig, Namespace
from tests.contract.fakes import MemoryStore
from tests.unit.local_worker import (
    RECOVERABLE,
    Caller,
    LocalWorker,
    changed,
    configured,
)
from tests.unit.test_server_api import KEY, post

SECRET = "s" * 32
READER, PUBLISHER, OWNER = "r" * 32, "p" * 32, "o" * 32
KEYS = (
    ApiKeyConfig("reader", READER, ("history", "info"), ()),
    ApiKeyConfig("publisher", PUBLISHER, ("publish", "broadcast"), ("kept",)),
    ApiKeyConfig("owner", OWNER, (), ("kept", "without_namespace")),
)


def api_config(keys: tuple[ApiKeyConfig, ...] = (), mode: str = "") -> Config:
    spaces = ChannelConfig(namespaces=(Namespace("kept", RECOVERABLE), Namespace("other")))
    return changed(configured(), channel=spaces, http_api=HttpApiConfig(KEY, keys, mode))


@contextlib.asynccontextmanager
async def two_workers(
    config: Config | None = None, rpc: Mapping[str, Callable[[str, bytes], Any]] | None = None
) -> AsyncIterator[tuple[LocalWorker, LocalWorker]]:
    store = MemoryStore()
    one, two = (
        LocalWorker(config or api_config(), store=store, rpc_handlers=rpc) for _ in range(2)
    )
    async with one.open(), two.open():
        yield one, two


async def call(one: LocalWorker, method: str, /, **params: Any) -> dict[str, Any]:
    answer = await post(one, method, params)
    assert answer.status == 200
    result: dict[str, Any] = answer.json["result"]
    return result


async def code_of(one: LocalWorker, method: str, /, **params: Any) -> int:
    answer = await post(one, method, params)
    assert answer.status == 200
    code: int = answer.json["error"]["code"]
    return code


async def connected(one: LocalWorker, session: str = "", **request: str) -> tuple[Caller, str, str]:
    """An anonymous client, with the ids of its connection and its session."""
    caller = await one.caller()
    result = await caller.connect(data={"session": session} if session else {}, **request)
    return caller, result["client"], result["data"]["session"]["id"]


async def push(caller: Caller, kind: str) -> dict[str, Any]:
    found = await caller.until(
        lambda: [one["push"] for one in caller.heard if kind in one.get("push", {})]
    )
    one: dict[str, Any] = found[0]
    return one
