"""The official clients at the public port of the containers."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.compose.stack import Stack
from tests.conformance.sdk_clients import Sdk, javascript_sdk, python_sdk

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


@pytest.mark.parametrize("opened", [javascript_sdk, python_sdk])
async def test_an_official_client_misses_nothing_when_the_workers_are_replaced(
    opened: Callable[[], AbstractAsyncContextManager[Sdk]], stack: Stack
):
    await stack.ready(2)
    channel = f"news-{uuid.uuid4()}"
    async with opened() as sdk:
        url = f"ws://127.0.0.1:{stack.port}/connection/websocket"
        await sdk.do("connect", "ann", url=url)
        await sdk.do("subscribe", "ann", channel=channel)
        await sdk.events.seen("subscribed", client="ann", channel=channel)
        await sdk.do("publish", "ann", channel=channel, data=1)
        await sdk.events.seen("publication", client="ann", offset=1)

        await stack.compose("kill", "--signal", "HUP", "app")
        await sdk.events.seen("connecting", client="ann", code=3001, within=60.0)
        await sdk.events.seen("subscribed", times=2, client="ann", channel=channel)
        await sdk.do("publish", "ann", channel=channel, data=2)
        await sdk.events.seen("publication", client="ann", offset=2)
        seen = sdk.events.of("publication", client="ann")
        assert [(one["offset"], one["data"]) for one in seen] == [(1, 1), (2, 2)]
        assert sdk.events.of("disconnected", client="ann") == []
    await stack.ready(2)
